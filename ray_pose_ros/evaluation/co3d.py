"""CO3Dv2 in its own layout, with its few-view lists, filtered as the official evaluation does.

    <root>/<category>/frame_annotations.jgz      cameras, sizes, paths of images and masks
    <root>/<category>/sequence_annotations.jgz   the quality of each sequence's cameras
    <root>/<category>/set_lists/set_lists_fewview_dev.json   {train, val, test: [[sequence,
                                                 frame number, path of the image], ...]}

Cameras are PyTorch3D's, turned into OpenCV's in `geometry.pytorch3d`. The world turns along, which
no measure of relative poses sees. Ray Diffusion's evaluation takes few-view test lists, sequences
whose cameras score above 0.5, and boxes of the masks; see docs/results.md for what it does on top.
"""

import gzip
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation.images import read_image, read_mask
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.pytorch3d import cameras_p3d_to_opencv, intrinsics_from_ndc

from .sequences import LazyViews, Sequence

LEAST_QUALITY = 0.5
# Never seen in the official training.
UNSEEN = (
    'ball',
    'book',
    'couch',
    'frisbee',
    'hotdog',
    'kite',
    'remote',
    'sandwich',
    'skateboard',
    'suitcase',
)
_FURTHEST = 1e5  # a camera beyond belongs to a reconstruction that failed


@dataclass(frozen=True)
class Frame:
    """One frame: paths from the root, (width, height), and the camera in OpenCV's convention."""

    image: str
    mask: str | None
    size: tuple[int, int]
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray


def is_category(folder: Path) -> bool:
    return (Path(folder) / 'frame_annotations.jgz').is_file()


def categories(root: Path) -> list[Path]:
    """Folders of categories in a CO3D root, or the folder itself where it is one; sorted."""
    root = Path(root)
    if is_category(root):
        return [root]
    if not root.is_dir():
        return []
    return sorted(folder for folder in root.iterdir() if is_category(folder))


def sequence_names(
    category: Path, subset: str = 'fewview_dev', split: str = 'test', least_views: int = 8
) -> list[str]:
    """Names of the usable sequences of a category, in the order of the few-view list.

    Left out, as by the official evaluation: cameras of quality 0.5 or less (or not rated), any
    camera further than 1e5 or not a rotation, fewer than `least_views` frames whose images exist.

    Raises ValueError where a file is missing or not what it should be.
    """
    frames = _listed(Path(category), subset, split)
    return [name for name, of_name in frames.items() if len(of_name) >= least_views]


def read_sequence(
    category: Path, name: str, subset: str = 'fewview_dev', split: str = 'test'
) -> Sequence:
    """One sequence. A frame's box is that of its mask; without a usable mask it has none."""
    category = Path(category)
    frames = _listed(category, subset, split).get(name)
    if not frames:
        raise ValueError(f'{category}: no usable sequence {name} in {subset}, {split}')
    root = category.resolve().parent

    def read(index: int) -> View:
        frame = frames[index]
        pixels = read_image(root / frame.image, frame.size, annotated=True).pixels
        camera = CameraModel(torch.from_numpy(frame.K), *frame.size)
        mask = None
        if frame.mask is not None and (root / frame.mask).is_file():
            try:
                mask = read_mask(root / frame.mask)
            except ValueError:  # empty: the object is out of view, and nobody knows where
                mask = None
        return View(pixels, camera, mask=mask, name=frame.image)

    return Sequence(
        f'{category.resolve().name}/{name}',
        LazyViews(len(frames), read),
        np.stack([frame.R for frame in frames]),
        np.stack([frame.t for frame in frames]),
    )


@lru_cache(maxsize=2)  # a category's annotations are large, and asked for once a sequence
def _listed(category: Path, subset: str, split: str) -> dict[str, list[Frame]]:
    """Frames of the good sequences of a list, by sequence, sorted by frame number."""
    path = category / 'set_lists' / f'set_lists_{subset}.json'
    lists = _read(path)
    if not isinstance(lists, dict) or split not in lists:
        known = ', '.join(lists) if isinstance(lists, dict) else 'none'
        raise ValueError(f'{path}: no list {split!r}, it has {known}')
    quality = {
        entry['sequence_name']: entry.get('viewpoint_quality_score')
        for entry in _read(category / 'sequence_annotations.jgz')
    }
    annotations = {
        (entry['sequence_name'], int(entry['frame_number'])): entry
        for entry in _read(category / 'frame_annotations.jgz')
    }
    root = category.resolve().parent
    found: dict[str, list[Frame]] = {}
    bad = set()
    for name, number in sorted((str(s), int(n)) for s, n, *_ in lists[split]):
        entry = annotations.get((name, number))
        if entry is None or not (quality.get(name) or 0) > LEAST_QUALITY:
            continue
        try:
            frame = frame_of(entry)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{category}: frame {number} of {name} lacks {error} in its annotation'
            ) from error
        if np.abs(frame.t).max() > _FURTHEST or abs(np.linalg.det(frame.R) - 1) > 0.01:
            bad.add(name)
        elif (root / frame.image).is_file():
            found.setdefault(name, []).append(frame)
    return {name: frames for name, frames in found.items() if name not in bad}


def frame_of(entry: dict) -> Frame:
    """A frame of its annotation. KeyError or TypeError where something is missing.

    Two conventions of intrinsics: `ndc_isotropic` (CO3Dv2; the short side spans [-1, 1]) and
    `ndc_norm_image_bounds` (v1, and where nothing is said; each side spans [-1, 1]).
    """
    height, width = (int(x) for x in entry['image']['size'])
    viewpoint = entry['viewpoint']
    R, T, focal, principal = (
        torch.tensor(viewpoint[key], dtype=torch.float64)
        for key in ('R', 'T', 'focal_length', 'principal_point')
    )
    form = str(viewpoint.get('intrinsics_format') or 'ndc_norm_image_bounds').lower()
    if form == 'ndc_norm_image_bounds':
        stretch = torch.tensor([width, height], dtype=torch.float64) / min(width, height)
        focal, principal = focal * stretch, principal * stretch
    elif form != 'ndc_isotropic':
        raise ValueError(
            f'intrinsics_format is {form!r}, expected ndc_isotropic or ndc_norm_image_bounds'
        )
    R, t = cameras_p3d_to_opencv(R, T)
    mask = entry.get('mask') or {}
    return Frame(
        entry['image']['path'],
        mask.get('path'),
        (width, height),
        intrinsics_from_ndc(focal, principal, width, height).numpy(),
        R.numpy(),
        t.numpy(),
    )


def _read(path: Path):
    """JSON, gzipped where the name says so."""
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if path.suffix == '.jgz' else raw)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read as CO3D has it ({error})') from error
