"""Intrinsics (and boxes and true poses, if there are any) read from a file and matched to images.

Accepted, JSON or YAML:

- a `poses.json`: `frames[] = {file, K[, width, height, bbox_xyxy, R, t, distortion_model,
  distortion, exif_orientation]}[, files_from]`, matched by file name;
- one camera for all images: `{K[, width, height, distortion_model, distortion]}`, a bare 3x3
  matrix (also as plain text), or the YAML file that ROS camera calibration writes.

Conventions: OpenCV, world to camera, `x_cam = R x_world + t`, continuous pixels `K x_cam` with
pixel centres at half-integers.
"""

import json
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ray_pose_ros.estimation.images import is_image
from ray_pose_ros.geometry.cameras import CameraModel


@dataclass(frozen=True)
class Entry:
    """What a file says of one image.

    Attributes:
        K: (3, 3) float64.
        size: (width, height) of the image that K is for, or None.
        distortion_model, distortion: as in `CameraModel`.
        box: (4,) xyxy pixels or None.
        R, t: true world-to-camera pose, (3, 3) and (3,), or None.
        exif_orientation: the tag by which the stored image is to be turned first; None where the
            size has to tell.
    """

    K: np.ndarray
    size: tuple[int, int] | None = None
    distortion_model: str = 'none'
    distortion: tuple[float, ...] = ()
    box: np.ndarray | None = None
    R: np.ndarray | None = None
    t: np.ndarray | None = None
    exif_orientation: int | None = None

    def camera(self, width: int, height: int) -> CameraModel:
        """The camera of an image of this size (ValueError if the intrinsics are unusable)."""
        return CameraModel(
            torch.from_numpy(self.K), width, height, self.distortion_model, self.distortion
        )


class IntrinsicsFile:
    """Intrinsics of a set of images; see the module's docstring for the formats.

    Attributes:
        files_from: where the names of files that are not beside it begin.

    Raises:
        ValueError: unreadable, or not of a known form; the message names the file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        content = _parse(self.path)
        self._shared: Entry | None = None
        self._frames: dict[str, Entry] = {}
        self.files_from = Path()
        if isinstance(content, dict) and 'frames' in content:
            frames = content['frames']
            if isinstance(content.get('files_from'), str):
                self.files_from = self.path.parent / content['files_from']
            if not isinstance(frames, list) or not frames:
                raise ValueError(f'{self.path}: "frames" is empty or not a list')
            for i, frame in enumerate(frames):
                where = f'{self.path}: frame {i}'
                if not isinstance(frame, dict) or 'file' not in frame:
                    raise ValueError(f'{where} has no "file"')
                _check_name(frame['file'], f'{where}: "file"')
                if frame['file'] in self._frames:
                    raise ValueError(f'{where}: {frame["file"]} has been there before')
                self._frames[frame['file']] = _entry(frame, f'{where} ({frame["file"]})')
        else:
            self._shared = _entry(content, str(self.path))

    @property
    def frames(self) -> dict[str, Entry]:
        """Entries by the names that the file gives its images; empty where one camera serves."""
        return dict(self._frames)

    @property
    def scene_centres(self) -> np.ndarray | None:
        """True camera centres of all frames, (M, 3), or None where any is unknown."""
        posed = [e for e in self._frames.values() if e.R is not None and e.t is not None]
        if not posed or len(posed) < len(self._frames):
            return None
        return np.stack([-e.R.T @ e.t for e in posed])

    def match(self, images: Sequence[Path]) -> list[Entry]:
        """The entry of each image: by path, else by a file name that only one frame has.

        Raises:
            ValueError: images that no frame or several frames fit, all named in one message.
        """
        if self._shared is not None:
            return [self._shared] * len(images)
        entries, missing, ambiguous = [], [], []
        names = match_names(self._frames, images, self.path.parent)
        for image, candidates in zip(images, names, strict=True):
            if not candidates:
                missing.append(image.name)
            elif len(candidates) > 1:
                ambiguous.append(image.name)
            else:
                entries.append(self._frames[candidates[0]])
        if missing:
            known = sorted({Path(name).name for name in self._frames})
            raise ValueError(
                f'{self.path}: no intrinsics for {_shortened(missing)}; it has {_shortened(known)}'
            )
        if ambiguous:
            raise ValueError(f'{self.path}: several frames fit {_shortened(ambiguous)}')
        return entries


def read_boxes(path: str | Path, images: Sequence[Path]) -> list[np.ndarray]:
    """Boxes of the images from a JSON file, each (4,) xyxy pixels of the stored image.

    The file holds either a mapping from file name (or path, as the images are named or from the
    file's folder) to box, or a list of boxes: one for each image
    in the order of the sorted names, or one for each image in the images' folder, in that order
    (so that a few images may be picked out of an annotated folder).

    Raises:
        ValueError: unreadable, of another length, without a box for some image, or with a file
            name that fits several of them.
    """
    path = Path(path)
    content = _parse(path)
    if isinstance(content, dict):
        for name in content:
            _check_name(name, f'{path}: a key')
        names = match_names(content, images, path.parent)
        missing = [image.name for image, found in zip(images, names, strict=True) if not found]
        if missing:
            raise ValueError(
                f'{path}: no box for {_shortened(missing)}; it has {_shortened(sorted(content))}'
            )
        several = [image.name for image, n in zip(images, names, strict=True) if len(n) > 1]
        if several or len({name for (name,) in names}) < len(images):
            unclear = several or [image.name for image in images]
            raise ValueError(f'{path}: several boxes or images are named {_shortened(unclear)}')
        return [_box(content[name], f'{path}: {name}') for (name,) in names]
    if not isinstance(content, list):
        raise ValueError(f'{path}: expected a list of boxes or a mapping from file name to box')
    boxes = [_box(box, f'{path}: box {i}') for i, box in enumerate(content)]
    folders = {image.resolve().parent for image in images}
    order = sorted(images)
    if len(boxes) != len(images) and len(folders) == 1:
        order = sorted(p for p in images[0].parent.iterdir() if is_image(p))
    if len(boxes) != len(order):
        raise ValueError(
            f'{path}: {len(boxes)} boxes for {len(images)} images; a list needs one for each '
            'image in sorted order'
        )
    of = {image.resolve(): box for image, box in zip(order, boxes, strict=True)}
    return [of[image.resolve()] for image in images]


def match_names(
    names: Iterable[str], images: Sequence[Path], folder: Path
) -> list[tuple[str, ...]]:
    """For each image the one of `names` that is its path (from anywhere, or from `folder`), else
    all that have its file name."""
    by_path, by_name = {}, {}
    for name in names:
        by_path[(folder / name).resolve()] = by_path[Path(name).resolve()] = name
        by_name.setdefault(Path(name).name, []).append(name)
    found = []
    for image in images:
        exact = by_path.get(image.resolve())
        found.append((exact,) if exact is not None else tuple(by_name.get(image.name, ())))
    return found


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error
    try:
        return json.loads(text)  # first: YAML reads 1e-5 as text
    except (ValueError, RecursionError):
        pass
    try:
        content = yaml.load(text, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # as of the 32nd of a month
        raise ValueError(f'{path}: neither JSON nor YAML ({_one_line(error)})') from error
    if isinstance(content, str):  # a bare matrix as numpy.savetxt writes it
        try:
            content = [[float(x) for x in line.split()] for line in text.strip().splitlines()]
        except ValueError as error:
            raise ValueError(f'{path}: neither JSON, YAML nor a 3x3 matrix') from error
    return content


def _entry(content: Any, where: str) -> Entry:
    if isinstance(content, list):
        content = {'K': content}
    if not isinstance(content, dict):
        raise ValueError(f'{where}: expected intrinsics, got {type(content).__name__}')
    if 'camera_matrix' in content:
        content = _calibration(content, where)
    if 'K' not in content:
        raise ValueError(f'{where}: no intrinsics matrix "K"')
    K = _array(content['K'], (3, 3), f'{where}: K')
    size = None
    if content.get('width') is not None and content.get('height') is not None:
        sides = [content['width'], content['height']]
        width, height = _array(sides, (2,), f'{where}: [width, height]')
        size = int(width), int(height)
    posed = content.get('R') is not None and content.get('t') is not None
    box = content.get('bbox_xyxy')
    distortion = _array(content.get('distortion') or (), (), f'{where}: distortion')
    entry = Entry(
        K=K,
        size=size,
        distortion_model=str(content.get('distortion_model') or 'none'),
        distortion=tuple(distortion.tolist()),
        box=None if box is None else _box(box, where),
        R=_rotation(content['R'], where) if posed else None,
        t=_array(content['t'], (3,), f'{where}: t') if posed else None,
        exif_orientation=_orientation(content.get('exif_orientation'), where),
    )
    try:  # the size plays no part in what is checked here
        entry.camera(*(size or (1, 1)))
    except ValueError as error:
        raise ValueError(f'{where}: {error}') from error
    return entry


def _calibration(content: dict[str, Any], where: str) -> dict[str, Any]:
    """A ROS camera calibration file (camera_calibration_parsers) in our own names."""
    try:
        return {
            'K': np.reshape(content['camera_matrix']['data'], (3, 3)).tolist(),
            'width': content['image_width'],
            'height': content['image_height'],
            'distortion_model': content.get('distortion_model', 'none'),
            'distortion': content.get('distortion_coefficients', {}).get('data', ()),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f'{where}: not a complete camera calibration ({error!r})') from error


def _rotation(value: Any, where: str) -> np.ndarray:
    R = _array(value, (3, 3), f'{where}: R')
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3) or np.linalg.det(R) < 0:
        raise ValueError(f'{where}: R is not a rotation')
    return R


def _orientation(value: Any, where: str) -> int | None:
    if value is None or (isinstance(value, int) and 1 <= value <= 8):
        return value
    raise ValueError(f'{where}: exif_orientation is {value!r}, expected 1 to 8')


def _box(value: Any, where: str) -> np.ndarray:
    return _array(value, (4,), f'{where}: box')


def _check_name(value: Any, where: str) -> None:
    if not isinstance(value, str) or '\0' in value:  # YAML reads 1 as a number
        raise ValueError(f'{where} is {value!r}, expected the name of a file')


def _array(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite numbers of a shape; with the shape () a list of any length."""
    try:
        array = np.array(value, dtype=np.float64)
        fits = array.shape == (shape or (array.size,)) and np.isfinite(array).all()
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(
            f'{where} is {reprlib.repr(value)}, expected {shape or "a list of"} finite numbers'
        )
    return array


def _shortened(names: Sequence[str], most: int = 4) -> str:
    shown = ', '.join(names[:most])
    return shown if len(names) <= most else f'{shown} and {len(names) - most} more'


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
