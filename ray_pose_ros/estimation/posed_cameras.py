"""Cameras with poses as files hold them, and by which names lenses are known there.

Cameras are world to camera in OpenCV's convention. Pixels are continuous with pixel centres at
half-integers, as COLMAP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ray_pose_ros.estimation.cloud import Cloud
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import camera_centres

# By EXIF orientation: from the axes of a camera whose image was turned to those of the stored one.
_UNTURNED = {
    3: np.diag((-1.0, -1.0, 1.0)),
    6: np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    8: np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
}
# By COLMAP's and nerfstudio's name of a model: this project's, and its distortion parameters.
_MODELS = {
    'PINHOLE': ('none', ()),
    'OPENCV': ('plumb_bob', ('k1', 'k2', 'p1', 'p2')),
    'OPENCV_FISHEYE': ('equidistant', ('k1', 'k2', 'k3', 'k4')),
    'FULL_OPENCV': (
        'rational_polynomial',
        ('k1', 'k2', 'p1', 'p2', 'k3', 'k4', 'k5', 'k6'),
    ),
}


class NotRepresentable(ValueError):
    """A file format has no way to say this."""


@dataclass(frozen=True)
class PosedCameras:
    """Cameras with poses, as they are written and read.

    Attributes:
        names: one for each camera, unique (image paths).
        cameras: intrinsics.
        R, t: (N, 3, 3) and (N, 3) float64, world to camera.
        stamps: (N,) seconds.
    """

    names: Sequence[str]
    cameras: Sequence[CameraModel]
    R: np.ndarray
    t: np.ndarray
    stamps: np.ndarray

    def __post_init__(self):
        n = len(self.names)
        if len(set(self.names)) != n:
            raise ValueError(f'names {list(self.names)} are not unique')
        shapes = (len(self.cameras), self.R.shape, self.t.shape, self.stamps.shape)
        if shapes != (n, (n, 3, 3), (n, 3), (n,)):
            raise ValueError(f'{n} names but cameras, R, t and stamps of shapes {shapes}')


def as_stored(
    posed: PosedCameras, orientations: Sequence[int], cloud: Cloud | None = None
) -> tuple[PosedCameras, Cloud | None]:
    """The cameras of the pixels that are stored in the files, which other software reads.

    Args:
        posed: of photographs that were turned as their EXIF orientation asks.
        orientations: those tags, one a photograph; 1 where it was not turned.
        cloud: of them, whose pixels are moved likewise.

    Raises:
        NotRepresentable: a mirrored photograph, or a turned one whose lens is not the same all
            round (tangential distortion, skew).
    """
    cameras, R, t = list(posed.cameras), posed.R.copy(), posed.t.copy()
    pixel = None if cloud is None else cloud.pixel.copy()
    for i, orientation in enumerate(orientations):
        if orientation == 1:
            continue
        if orientation not in _UNTURNED:
            raise NotRepresentable(f'{posed.names[i]} is stored mirrored')
        turn, camera = _UNTURNED[orientation], cameras[i]
        tangential = camera.distortion_model != 'equidistant' and (
            any(camera.distortion[2:4]) or any(camera.distortion[8:])
        )
        if tangential or _skewed(camera):
            raise NotRepresentable(f'{posed.names[i]} was turned, and its lens is not round')
        flat, size = turn[:2, :2], np.array([camera.width, camera.height])
        # what would come to lie left of or above the image begins at its other side
        shift = np.maximum(-flat, 0) @ size
        K = intrinsic_matrix(camera)
        stored = np.eye(3)
        stored[[0, 1], [0, 1]] = np.abs(flat) @ K[[0, 1], [0, 1]]
        stored[:2, 2] = flat @ K[:2, 2] + shift
        width, height = (int(x) for x in np.abs(flat) @ size)
        cameras[i] = replace(camera, matrix=torch.from_numpy(stored), width=width, height=height)
        R[i], t[i] = turn @ R[i], turn @ t[i]
        if pixel is not None:
            mine = cloud.view == i
            pixel[mine] = pixel[mine] @ flat.T + shift
    moved = PosedCameras(posed.names, cameras, R, t, posed.stamps)
    return moved, None if cloud is None else replace(cloud, pixel=pixel)


def intrinsic_matrix(camera: CameraModel) -> np.ndarray:
    """K (3, 3) float64."""
    return camera.matrix.detach().cpu().double().numpy()


def camera_to_world(R: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 3, 3) and centres (N, 3) of world-to-camera R (N, 3, 3), t (N, 3)."""
    return np.ascontiguousarray(R.transpose(0, 2, 1)), camera_centres(R, t)


def model_names() -> list[str]:
    """The models that `camera_of_model` knows."""
    return list(_MODELS)


def distortion_names(model: str) -> tuple[str, ...]:
    """The distortion parameters of a model, in its order."""
    return _MODELS[model][1]


def model_of(camera: CameraModel) -> tuple[str, list[float]]:
    """The name of a camera's model, and its distortion parameters in that model's order.

    Raises NotRepresentable for skew, and for distortion that no model has.
    """
    d = [float(x) for x in camera.distortion]
    if _skewed(camera):
        raise NotRepresentable(f'skew {camera.matrix[0, 1]:g} cannot be written in this format')
    if camera.distortion_model == 'equidistant':
        return 'OPENCV_FISHEYE', d
    if not any(d):
        return 'PINHOLE', []
    if any(d[8:]):
        raise NotRepresentable('thin prism and tilt distortion cannot be written in this format')
    if any(d[4:]):
        return 'FULL_OPENCV', (d + [0.0] * 8)[:8]  # k1 k2 p1 p2 k3 k4 k5 k6, as OpenCV
    return 'OPENCV', d[:4]


def _skewed(camera: CameraModel) -> bool:
    return bool(abs(camera.matrix[0, 1]) > 1e-6 * camera.matrix[0, 0])


def camera_of_model(params: list[float], width: int, height: int, model: str) -> CameraModel:
    """The camera of a model with parameters fx, fy, cx, cy and those of its distortion."""
    fx, fy, cx, cy, *distortion = params
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    return CameraModel(K, width, height, _MODELS[model][0], tuple(distortion))
