"""Views from files: photographs joined with the boxes, masks and intrinsics given for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_pose_ros.estimation.images import (
    MASK_SUFFIXES,
    image_size,
    read_image,
    read_mask,
    supposed_orientations,
)
from ray_pose_ros.estimation.intrinsics import Entry, IntrinsicsFile, read_boxes
from ray_pose_ros.estimation.preparation import pinhole
from ray_pose_ros.estimation.views import View


@dataclass(frozen=True)
class Inputs:
    """What `load_views` found.

    Attributes:
        views: one for each path.
        notes: what the user should know (photographs turned upright, intrinsics unknown).
        truth: true R (N, 3, 3), t (N, 3) of the views where all are known, else None.
        scene_centres: true centres (M, 3) of the whole sequence, else None.
    """

    views: list[View]
    notes: list[str]
    truth: tuple[np.ndarray, np.ndarray] | None
    scene_centres: np.ndarray | None


def load_views(
    paths: Sequence[Path],
    boxes: Path | None = None,
    masks: Path | None = None,
    intrinsics: Path | None = None,
) -> Inputs:
    """Read photographs and everything given for them.

    Args:
        paths: images, the reference first.
        boxes: see `intrinsics.read_boxes`; they win over boxes in the intrinsics file.
        masks: folder of images with the same stems.
        intrinsics: see `intrinsics.IntrinsicsFile`.

    Raises:
        ValueError: anything missing, unreadable or contradictory; the message names the file.
    """
    for name in map(str, paths):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f'{name!r}: the name is not UTF-8, as results have it') from error
    file = IntrinsicsFile(intrinsics) if intrinsics else None
    entries = file.match(paths) if file else [None] * len(paths)
    given = read_boxes(boxes, paths) if boxes else [e.box if e else None for e in entries]
    mask_files = _find_masks(masks, paths) if masks else [None] * len(paths)
    sizes = [
        e.size if e and e.size else image_size(mask) if mask else None
        for e, mask in zip(entries, mask_files, strict=True)
    ]
    stated = [e.exif_orientation if e else None for e in entries]
    turned_by = supposed_orientations(paths, sizes, stated)
    views, notes = [], []
    for each in zip(paths, entries, given, mask_files, sizes, turned_by, strict=True):
        view, note = _load(*each)
        views.append(view)
        notes += note
    truth = None
    if all(e is not None and e.R is not None for e in entries):
        truth = np.stack([e.R for e in entries]), np.stack([e.t for e in entries])
    return Inputs(views, notes, truth, file.scene_centres if file else None)


def _load(
    path: Path,
    entry: Entry | None,
    box: np.ndarray | None,
    mask_file: Path | None,
    size: tuple[int, int] | None,
    turned_by: int | None,
) -> tuple[View, list[str]]:
    mask = read_mask(mask_file) if mask_file else None
    annotated = entry is not None or box is not None
    photograph = read_image(path, size, annotated, turned_by)
    if mask is not None and mask.shape != photograph.pixels.shape[:2]:
        stored = image_size(path)
        raise ValueError(
            f'{mask_file}: the mask is {mask.shape[1]}x{mask.shape[0]}, '
            f'but {path} is {stored[0]}x{stored[1]}'
        )
    notes = []
    if photograph.rotated:
        notes.append(
            f'{path}: turned upright as its EXIF orientation ({photograph.orientation}) asks; '
            'pixels, boxes and intrinsics are those of the turned image (in files for COLMAP and '
            'nerfstudio those of the stored one)'
        )
    elif photograph.orientation != 1:
        notes.append(
            f'{path}: EXIF orientation {photograph.orientation} not applied, because a box, a '
            'mask or intrinsics are given for the stored pixels'
        )
    camera, source = entry.camera(*photograph.size) if entry else None, 'given'
    if camera is None and photograph.focal is not None:
        camera, source = pinhole(photograph.focal, *photograph.size), 'exif'
    known = {'camera': camera, 'camera_source': source}
    known['exif_orientation'] = photograph.orientation if photograph.rotated else 1
    view = View(photograph.pixels, box=box, mask=mask, name=str(path), **known)
    return view, notes


def _find_masks(folder: Path, paths: Sequence[Path]) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f'{folder}: no such folder of masks')
    by_stem = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in MASK_SUFFIXES}
    stems = [p.stem for p in paths]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ValueError(
            f'{folder}: masks are found by stem, and several images are called '
            f'{", ".join(twice[:4])}; rename them'
        )
    missing = [p.stem for p in paths if p.stem not in by_stem]
    if missing:
        more = f' and {len(missing) - 4} more' if len(missing) > 4 else ''
        raise ValueError(f'{folder}: no mask for {", ".join(missing[:4])}{more}')
    return [by_stem[p.stem] for p in paths]
