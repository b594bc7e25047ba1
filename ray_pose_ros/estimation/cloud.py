"""The points that a refined estimate's matches show, with their colours, and PLY files of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.packed_view import small_image
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.multiview.points import Points, triangulate

_PLY = [(name, '<f4') for name in 'xyz'] + [(name, 'u1') for name in ('red', 'green', 'blue')]


@dataclass(frozen=True)
class Cloud:
    """P coloured points, and the T observations that they are from, a point's together.

    Attributes:
        xyz: (P, 3) world, in the estimate's unit. sigma: (P,) standard deviation, rms distance.
        rgb: (P, 3) uint8.
        error: (P,) pixels, root mean square of what its rays miss a point by.
        point, view: (T,) which point is seen in which view. pixel: (T, 2) where, continuous.
    """

    xyz: np.ndarray
    sigma: np.ndarray
    rgb: np.ndarray
    error: np.ndarray
    point: np.ndarray
    view: np.ndarray
    pixel: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def cloud_of(estimate: Any, image: Callable[[int], np.ndarray]) -> Cloud:
    """The cloud of an `Estimate`; without points where no features have been matched.

    image: gives (H, W, 3) uint8 of view i, possibly smaller than it was.
    """
    points = triangulate(estimate.R, estimate.t, estimate.ray_matches)
    pixel, missed = _pixels(points, estimate.R, estimate.t, estimate.cameras)
    count = np.maximum(np.bincount(points.point, minlength=len(points)), 1)
    square = np.bincount(points.point, missed**2, len(points)) / count
    colours = _colours(points.view, pixel, estimate.cameras, image)
    rgb = np.stack([np.bincount(points.point, c, len(points)) / count for c in colours.T], axis=1)
    return Cloud(
        points.xyz,
        points.sigma,
        rgb.round().astype(np.uint8).reshape(-1, 3),
        np.sqrt(square),
        points.point,
        points.view,
        pixel,
    )


def cloud_of_keyframes(keyframes: Sequence[Keyframe], estimate: Any) -> Cloud:
    """The cloud of an estimate of keyframes, with colours from their images."""
    return cloud_of(estimate, lambda i: small_image(keyframes[i].view))


def write_ply(path: str | Path, cloud: Cloud) -> None:
    """Write x, y, z, red, green, blue; binary."""
    rows = np.zeros(len(cloud), dtype=_PLY)
    for axis, name in enumerate('xyz'):
        rows[name] = cloud.xyz[:, axis]
    for channel, name in enumerate(('red', 'green', 'blue')):
        rows[name] = cloud.rgb[:, channel]
    kinds = {'<f4': 'float', 'u1': 'uchar'}
    head = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(cloud)}']
    head += [f'property {kinds[kind]} {name}' for name, kind in _PLY]
    Path(path).write_bytes('\n'.join([*head, 'end_header', '']).encode() + rows.tobytes())


def _pixels(
    points: Points, R: np.ndarray, t: np.ndarray, cameras: Sequence[CameraModel]
) -> tuple[np.ndarray, np.ndarray]:
    """(T, 2) where points were seen, and (T,) how far from where they are now, pixels."""
    pixel, missed = np.zeros((len(points.view), 2)), np.zeros(len(points.view))
    for i, camera in enumerate(cameras):
        mine = np.flatnonzero(points.view == i)
        now = points.xyz[points.point[mine]] @ R[i].T + t[i]
        pixel[mine], at = (
            camera.project(torch.from_numpy(np.ascontiguousarray(x))).numpy()
            for x in (points.ray[mine], now)
        )
        missed[mine] = np.linalg.norm(pixel[mine] - at, axis=1)
    # at the very border of what a lens sees
    return pixel, np.nan_to_num(missed)


def _colours(
    view: np.ndarray,
    pixel: np.ndarray,
    cameras: Sequence[CameraModel],
    image: Callable[[int], np.ndarray],
) -> np.ndarray:
    """(T, 3) of the pixels (T, 2)."""
    rgb = np.zeros((len(view), 3))
    for i in np.unique(view):
        mine, shown = view == i, image(i)
        size = np.array(shown.shape[1::-1])
        at = pixel[mine] * size / (cameras[i].width, cameras[i].height)
        x, y = np.clip(np.nan_to_num(at).astype(int), 0, size - 1).T
        rgb[mine] = shown[y, x]
    return rgb
