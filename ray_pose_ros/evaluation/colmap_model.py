"""A COLMAP model and its photographs as a sequence; text and binary files, without COLMAP.

Binary layout: COLMAP's documentation, "Output Format". Camera models are those of
`estimation.colmap_files.colmap_camera`; points are not read.
"""

import struct
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation.colmap_files import PARAMETERS, colmap_camera, read_colmap
from ray_pose_ros.estimation.images import read_image
from ray_pose_ros.estimation.posed_cameras import PosedCameras
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.rotations import matrix_from_quaternion

from .sequences import LazyViews, Sequence

_POINT = 24  # bytes of an image's point: x, y, number


def find_model(folder: Path) -> Path | None:
    """The folder of a model in or under `folder` (`sparse/0`, `sparse`, `colmap`), or None."""
    for inside in ('.', 'sparse/0', 'sparse', 'colmap'):
        candidate = Path(folder) / inside
        if any((candidate / f'cameras.{suffix}').is_file() for suffix in ('bin', 'txt')):
            return candidate
    return None


def read_model(folder: Path) -> PosedCameras:
    """Cameras and poses of a model, from the binary files where there are any, else from text.

    Raises ValueError where there is no model, it is damaged, or a camera is of an unknown model.
    """
    folder = Path(folder)
    if not (folder / 'cameras.bin').is_file():
        return read_colmap(folder)
    cameras = {}
    reader = _Reader(folder / 'cameras.bin')
    for _ in range(reader.take('Q')[0]):
        number, kind, width, height = reader.take('iiQQ')
        if not 0 <= kind < len(PARAMETERS):
            raise ValueError(f'{reader.path}: camera {number} has the unknown model {kind}')
        name, count = [*PARAMETERS.items()][kind]
        try:
            cameras[number] = colmap_camera(name, reader.take(f'{count}d'), width, height)
        except ValueError as error:
            raise ValueError(f'{reader.path}: camera {number}: {error}') from error
    reader = _Reader(folder / 'images.bin')
    rows = []
    for _ in range(reader.take('Q')[0]):
        numbers = reader.take('i7di')  # number, quaternion wxyz, translation, camera
        name = reader.text()
        reader.skip(_POINT * reader.take('Q')[0])
        if numbers[8] not in cameras:
            raise ValueError(f'{reader.path}: {name} is by camera {numbers[8]}, which is unknown')
        rows.append((name, cameras[numbers[8]], numbers[1:8]))
    rows.sort(key=lambda row: row[0])  # the order of the file is that of registration
    poses = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 7)
    return PosedCameras(
        names=[row[0] for row in rows],
        cameras=[row[1] for row in rows],
        R=matrix_from_quaternion(torch.from_numpy(poses[:, [1, 2, 3, 0]])).numpy(),
        t=poses[:, 4:],
        stamps=np.arange(len(rows), dtype=np.float64),
    )


def read_colmap_sequence(model: Path, images: Path | None = None, name: str = '') -> Sequence:
    """The photographs of a model with its cameras as the truth; the object is not marked.

    Args:
        model: folder with cameras and images, `.bin` or `.txt`.
        images: folder of the photographs; by default `images/` beside the model or above it.
        name: of the sequence.

    Raises ValueError where the model or a photograph is missing.
    """
    model = Path(model).resolve()
    posed = read_model(model)
    if not posed.names:
        raise ValueError(f'{model}: no images in this model')
    if images is None:
        folders = [folder / 'images' for folder in (model, *list(model.parents)[:2])]
        images = next((folder for folder in folders if folder.is_dir()), None)
        if images is None:
            raise ValueError(f'{model}: no images/ beside it; name the folder with --images')
    paths = [Path(images) / name for name in posed.names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f'{images}: {len(missing)} images of {model} missing, as {missing[0]}')

    def read(index: int) -> View:
        camera = posed.cameras[index]
        pixels = read_image(paths[index], (camera.width, camera.height)).pixels
        return View(pixels, camera, name=posed.names[index])

    return Sequence(name or model.name, LazyViews(len(paths), read), posed.R, posed.t)


class _Reader:
    """Values of a little-endian file, one after the other."""

    def __init__(self, path: Path):
        self.path, self._at = path, 0
        try:
            self._bytes = path.read_bytes()
        except OSError as error:
            raise ValueError(f'{path}: cannot be read ({error})') from error

    def take(self, form: str) -> tuple:
        size = struct.calcsize('<' + form)
        self.skip(size)
        return struct.unpack_from('<' + form, self._bytes, self._at - size)

    def skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._bytes):
            raise ValueError(f'{self.path}: ends in the middle, {len(self._bytes)} bytes')

    def text(self) -> str:
        end = self._bytes.find(b'\0', self._at)
        if end < 0:
            raise ValueError(f'{self.path}: ends in the middle of a name')
        found, self._at = self._bytes[self._at : end], end + 1
        return found.decode('utf-8', errors='replace')
