"""Gauges: which similarity of the world a set of cameras is expressed in.

Official gauge (RelPose++, Cameras as Rays): origin where the optical axes meet, first camera
unrotated, its centre at distance 1 of the origin.
Object gauge (the project's own model): every camera is first turned to look at its crop's centre
(a "virtual camera"); the first one is unrotated at translation (0, 0, 1), so that the origin is
the object point on its axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_pose_ros.geometry.rays import camera_centres, nearest_point_to_lines, rays_from_points
from ray_pose_ros.geometry.rotations import rotation_between
from ray_pose_ros.geometry.similarity import transform_cameras


def axes_intersection(R: Tensor, t: Tensor, axes: Tensor | None = None) -> Tensor:
    """The point (..., 3) nearest to the axes of cameras R (..., N, 3, 3), t (..., N, 3).

    axes (..., N, 3) or (3,) are directions in the camera frames; by default (0, 0, 1), the optical
    axis, which is the ray through the principal point.
    """
    if axes is None:
        axes = torch.tensor([0.0, 0.0, 1.0], dtype=R.dtype, device=R.device)
    axes = axes.expand(*t.shape)
    world = (R.transpose(-1, -2) @ axes[..., None])[..., 0]
    return nearest_point_to_lines(rays_from_points(camera_centres(R, t), world))


def normalise_cameras(
    R: Tensor, t: Tensor, axes: Tensor | None = None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Cameras (..., N, 3, 3), (..., N, 3) in the official gauge.

    Returns R, t and the similarity (scale (...), rotation (..., 3, 3), translation (..., 3)) with
    x_new = scale * rotation @ x_old + translation. axes as in axes_intersection.
    Raises ValueError where the first camera sits on the meeting point of the axes.
    """
    origin = axes_intersection(R, t, axes)
    centre = camera_centres(R, t)[..., 0, :]
    distance = (centre - origin).norm(dim=-1)
    return _place(R, t, origin, distance)


def object_gauge(
    R: Tensor, t: Tensor, distance: Tensor | float | None = None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Virtual cameras (..., N, 3, 3), (..., N, 3) in the object gauge: R_1 = I, t_1 = (0, 0, 1).

    distance (...) from the first camera to the object along its +z axis, in the units of t; by
    default the depth, on that axis, of the point nearest to all the optical axes.
    Returns as normalise_cameras. Raises ValueError for a distance that is not positive.
    """
    if distance is None:
        point = axes_intersection(R, t)
        distance = (R[..., 0, 2, :] * point).sum(-1) + t[..., 0, 2]
    distance = torch.as_tensor(distance, dtype=t.dtype, device=t.device)
    distance = distance.expand(t.shape[:-2])
    origin = camera_centres(R, t)[..., 0, :] + distance[..., None] * R[..., 0, 2, :]
    return _place(R, t, origin, distance)


def viewing_rotation(direction: Tensor) -> Tensor:
    """V (..., 3, 3), the smallest rotation that takes direction (..., 3), camera frame, to +z.

    x_virtual = V x_cam is the frame of the virtual camera that looks along `direction`.
    """
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=direction.dtype, device=direction.device)
    return rotation_between(direction, forward)


def turn_cameras(R: Tensor, t: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Cameras (..., 3, 3), (..., 3) turned about their own centres: x_virtual = V (R x + t)."""
    return V @ R, (V @ t[..., None])[..., 0]


def _place(R, t, origin, distance):
    if not bool((torch.isfinite(distance) & (distance > 0)).all()):
        raise ValueError(f'distance of the first camera is {distance.tolist()}, expected above 0')
    scale, rotation = 1 / distance, R[..., 0, :, :]
    shift = -scale[..., None] * (rotation @ origin[..., None])[..., 0]
    R, t = transform_cameras(
        R, t, scale[..., None], rotation[..., None, :, :], shift[..., None, :]
    )
    return R, t, (scale, rotation, shift)
