"""Cameras from predicted rays, in the network's gauge and then in the published world."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ray_pose_ros.estimation.preparation import Prepared
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.gauge import object_gauge, turn_cameras
from ray_pose_ros.geometry.rays import camera_centres, rays_from_cameras
from ray_pose_ros.geometry.recovery import recover_cameras, recover_cameras_unknown_intrinsics
from ray_pose_ros.geometry.similarity import transform_cameras

_SMALLEST_DISTANCE = 1e-6  # of the first camera, in the network's gauge, where it should be 1


class EstimationError(RuntimeError):
    """The network or the solver failed on valid input; the message says how and on which view."""


def recover(
    prepared: Sequence[Prepared], rays: Tensor
) -> tuple[Tensor, Tensor, list[list[CameraModel]]]:
    """Real cameras R (S, N, 3, 3), t (S, N, 3) in the network's gauge, and intrinsics [N][S].

    For the project's models the rays are of virtual cameras; with the directions turned the same
    way, the recovered R', t' turn back by R = turn^T R'.
    """
    samples, views = rays.shape[:2]
    R, t = rays.new_zeros(samples, views, 3, 3), rays.new_zeros(samples, views, 3)
    cameras = [[p.camera] * samples for p in prepared]
    known = [i for i, p in enumerate(prepared) if p.camera is not None]
    if known:
        turn = torch.stack([prepared[i].turn for i in known])
        directions = torch.stack([prepared[i].directions for i in known])
        virtual = directions @ turn.transpose(-1, -2)
        weights = torch.stack([prepared[i].weights for i in known])
        found = recover_cameras(
            rays[:, known], virtual.expand(samples, -1, -1, -1), weights.expand(samples, -1, -1)
        )
        R[:, known], t[:, known] = turn_cameras(*found, turn.transpose(-1, -2))
    for i, p in enumerate(prepared):
        if p.camera is None:
            R[:, i], t[:, i], K = recover_cameras_unknown_intrinsics(rays[:, i], p.pixels, *p.size)
            cameras[i] = [_found_camera(k, p) for k in K]
    return R, t, cameras


def _found_camera(K: Tensor, prepared: Prepared) -> CameraModel:
    try:
        return CameraModel(K, *prepared.size)
    except ValueError as error:
        raise EstimationError(f'no intrinsics fit the rays of {prepared.name}: {error}') from error


def publish(R: Tensor, t: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Samples moved to the published world: first camera unrotated, at distance 1.

    R (S, N, 3, 3), t (S, N, 3), rays (S, N, P, 6), each sample by its own first camera.
    """
    turn = R[:, :1]  # (S, 1, 3, 3)
    distance = torch.linalg.vector_norm(camera_centres(R[:, :1], t[:, :1]), dim=-1)  # (S, 1)
    if not bool((distance > _SMALLEST_DISTANCE).all()):
        raise EstimationError('the first camera was put onto the object: the rays give no scale')
    new_R, new_t = transform_cameras(R, t, 1 / distance, turn, torch.zeros_like(t[:, :1]))
    directions = rays[..., :3] @ turn.transpose(-1, -2)
    moments = rays[..., 3:] @ turn.transpose(-1, -2) / distance[..., None, None]
    return new_R, new_t, torch.cat([directions, moments], dim=-1)


def rays_of_cameras(prepared: Sequence[Prepared], R: Tensor, t: Tensor, orders: Tensor) -> Tensor:
    """Rays (S, N, P, 6) that the project's network would tell of known cameras.

    R (N, 3, 3), t (N, 3) of the published world; `orders` (S, N) the views' numbers, the reference
    first, in whose gauge the rays are.
    """
    turn = torch.stack([p.turn for p in prepared])
    R, t = turn_cameras(R, t, turn)
    first = t[orders[:, 0]]
    depth, distance = first[:, 2], torch.linalg.vector_norm(first, dim=-1)  # of the world's origin
    # a camera that looks past the object, or stands on it, has some scale, too
    depth = torch.where(depth > 0.1 * distance, depth, distance).clamp(min=_SMALLEST_DISTANCE)
    R, t, _ = object_gauge(R[orders], t[orders], depth)
    directions = torch.stack([p.directions for p in prepared]) @ turn.transpose(-1, -2)
    return rays_from_cameras(R, t, directions[orders])


def patch_directions(prepared: Prepared, camera: CameraModel) -> Tensor:
    """Unit directions (P, 3) of a view's patches through the camera used or found."""
    if prepared.directions is not None:
        return prepared.directions
    return camera.unproject(prepared.pixels, extrapolate=True)
