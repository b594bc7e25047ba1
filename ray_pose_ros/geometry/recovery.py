"""Cameras from rays: closed-form first guesses, then the fit of ray_fit.py.

The official release stops at the first guess: Procrustes for the rotation and the meeting point of
the predicted rays for the centre, which ray noise draws towards the object (at noise 0.1 with 49
rays it is off by 0.4 of the distance, the fit by 0.06). Without intrinsics it takes a homography
and a QL factorisation; see docs/conventions.md for why that is biased.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ray_pose_ros.geometry.ray_fit import (
    Intrinsics,
    IntrinsicsPrior,
    fit_camera,
    fit_camera_and_intrinsics,
    weighted_median,
)
from ray_pose_ros.geometry.rays import nearest_point_to_lines, solve_symmetric
from ray_pose_ros.geometry.rotations import project_to_so3, rotation_between

__all__ = [
    'IntrinsicsPrior',
    'procrustes_rotation',
    'recover_cameras',
    'recover_cameras_official',
    'recover_cameras_unknown_intrinsics',
]

_IRLS_STEPS = 5
_FOCAL_RANGE = (0.05, 20.0)  # of a first guess, in units of the image's longer side


def procrustes_rotation(d: Tensor, directions: Tensor, weights: Tensor | None = None) -> Tensor:
    """R (..., 3, 3) with the least sum of weights * |d - R^T directions|^2.

    d world and directions camera frame, both (..., P, 3), weights (..., P).
    """
    a = directions if weights is None else directions * weights[..., None]
    return project_to_so3(a.transpose(-1, -2) @ d)


def recover_cameras_official(rays: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """World-to-camera R (..., 3, 3), t (..., 3) as the official evaluation recovers them.

    Unweighted Procrustes on the directions and the meeting point of the rays; rays (..., P, 6),
    directions (..., P, 3). For comparisons; recover_cameras is more accurate.
    """
    d = torch.nn.functional.normalize(rays[..., :3], dim=-1)
    R = procrustes_rotation(d, directions)
    return R, -(R @ nearest_point_to_lines(rays)[..., None])[..., 0]


def recover_cameras(
    rays: Tensor, directions: Tensor, weights: Tensor | None = None, robust: bool = True
) -> tuple[Tensor, Tensor]:
    """World-to-camera R (..., 3, 3), t (..., 3) of noisy rays (..., P, 6), intrinsics known.

    directions (..., P, 3) are the camera-frame directions of the same patches; weights (..., P)
    are not negative. robust gives rays that do not agree with the others less weight.
    Computed in float64, returned in the type of the rays.
    Raises ValueError for shapes that do not fit, values that are not finite, fewer than two
    weighted rays, or directions that are all the same.
    """
    d, m, w = _prepare(rays, weights, least=2)
    if directions.shape[-2:] != (*rays.shape[-2:-1], 3):
        raise ValueError(
            f'directions have shape {tuple(directions.shape)}, expected (..., {rays.shape[-2]}, 3)'
        )
    a = torch.nn.functional.normalize(directions.double(), dim=-1)
    a = a.expand(*torch.broadcast_shapes(a.shape[:-2], d.shape[:-2]), *a.shape[-2:])
    d, m, w = d.expand(a.shape), m.expand(a.shape), w.expand(a.shape[:-1])
    if not bool(torch.isfinite(a).all()):
        raise ValueError('directions are not all finite')
    if bool(((a - a[..., :1, :]).norm(dim=-1).amax(-1) < 1e-6).any()):
        raise ValueError('directions of a camera are all the same, its rotation has no answer')
    R, w0 = _first_rotation(d, a, w, robust)
    t = _translation(m, a, R, w0)
    R, t = fit_camera(d, m, a, R, t, w, robust)
    return R.to(rays.dtype), t.to(rays.dtype)


def recover_cameras_unknown_intrinsics(
    rays: Tensor,
    pixels: Tensor,
    width: int,
    height: int,
    weights: Tensor | None = None,
    robust: bool = True,
    prior: IntrinsicsPrior | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """R (..., 3, 3), t (..., 3), K (..., 3, 3) of noisy rays (..., P, 6), a pinhole without skew.

    pixels (..., P, 2) are the patches' centres, continuous, in the image of width x height.
    The prior (square pixels, principal point in the middle, a common field of view) matters as
    much as the rays are noisy; without noise the answer is exact. A narrow bundle hardly tells a
    shifted principal point from a turned camera, so expect rotation errors near shift / focal.
    Errors as recover_cameras, with at least four rays.
    """
    d, m, w = _prepare(rays, weights, least=4)
    if pixels.shape[-2:] != (*rays.shape[-2:-1], 2) or not bool(torch.isfinite(pixels).all()):
        raise ValueError(
            f'pixels of shape {tuple(pixels.shape)} are not finite of (..., {rays.shape[-2]}, 2)'
        )
    if not (width > 0 and height > 0):
        raise ValueError(f'image size is {width} x {height}, expected above 0')
    prior = prior or IntrinsicsPrior()
    unit = max(width, height)
    middle = torch.tensor([width / 2, height / 2], dtype=d.dtype, device=d.device)
    points = (pixels.double() - middle) / unit
    points = points.expand(*torch.broadcast_shapes(points.shape[:-1], w.shape), 2)
    shape = points.shape[:-1]
    d, m, w = d.expand(*shape, 3), m.expand(*shape, 3), w.expand(shape)
    if bool(((points - points[..., :1, :]).norm(dim=-1).amax(-1) < 1e-6).any()):
        raise ValueError('pixels of a camera are all the same')
    focal = _affine_focal(d, points, w)[..., None].expand(*shape[:-1], 2)
    k = Intrinsics(focal, torch.zeros_like(focal))
    a, _ = k.directions(points)
    R, w0 = _first_rotation(d, a, w, robust)
    t = _translation(m, a, R, w0)
    R, t, k = fit_camera_and_intrinsics(d, m, points, R, t, k, prior, w, robust)
    K = torch.zeros_like(R)
    K[..., 0, 0], K[..., 1, 1], K[..., 2, 2] = k.focal[..., 0] * unit, k.focal[..., 1] * unit, 1
    K[..., :2, 2] = k.centre * unit + middle
    return R.to(rays.dtype), t.to(rays.dtype), K.to(rays.dtype)


def _prepare(rays, weights, least):
    """Unit directions, moments, weights in float64; rays without direction get weight 0."""
    if rays.ndim < 2 or rays.shape[-1] != 6 or rays.shape[-2] < least:
        raise ValueError(
            f'rays have shape {tuple(rays.shape)}, expected (..., P, 6) with P of at least {least}'
        )
    if not bool(torch.isfinite(rays).all()):
        raise ValueError('rays are not all finite')
    d, m = rays[..., :3].double(), rays[..., 3:].double()
    length = d.norm(dim=-1)
    w = (length > 1e-12).double()
    d = d / length.clamp_min(1e-12)[..., None]
    if weights is not None:
        if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
            raise ValueError('weights of the rays are not all finite and at least 0')
        w = w * weights.double()
        d, m = d.expand(*w.shape, 3), m.expand(*w.shape, 3)
    if bool(((w > 0).sum(-1) < least).any()):
        raise ValueError(f'a camera has fewer than {least} rays with a direction and a weight')
    return d, m, w


def _first_rotation(d, a, w, robust):
    """Procrustes (L2), or its median-like version (L1 beyond the median), and the weights."""
    R, weights = procrustes_rotation(d, a, w), w
    for _ in range(_IRLS_STEPS if robust else 0):
        s = (d @ R.transpose(-1, -2) - a).norm(dim=-1)
        scale = weighted_median(s, w)[..., None].clamp_min(1e-9)
        weights = w * (scale / s.clamp_min(1e-12)).clamp(max=1)
        R = procrustes_rotation(d, a, weights)
    return R, weights


def _translation(m, a, R, w):
    """t (..., 3) with the least sum of w |R m - a x t|^2: linear, and a carries no noise."""
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    A = w.sum(-1)[..., None, None] * eye - (a * w[..., None]).transpose(-1, -2) @ a
    b = (w[..., None] * torch.linalg.cross(m @ R.transpose(-1, -2), a, dim=-1)).sum(-2)
    return solve_symmetric(A, b)


def _affine_focal(d, points, w):
    """Focal length (...) in the points' units: how fast the rays turn across the image.

    Linear regression of the directions, on the plane across their mean, on the image points. Only
    the directions are noisy and they are the regressed side, so that noise does not bias it.
    """
    mean = (w[..., None] * d).sum(-2)
    mean = mean + 1e-9 * torch.tensor([0.0, 0.0, 1.0], dtype=d.dtype, device=d.device)
    forward = torch.zeros_like(mean)
    forward[..., 2] = 1
    y = (d @ rotation_between(mean, forward).transpose(-1, -2))[..., :2]
    centre = (w[..., None] * points).sum(-2, keepdim=True) / w.sum(-1)[..., None, None]
    x = points - centre
    xw = (w[..., None] * x).transpose(-1, -2)
    slope = torch.linalg.pinv(xw @ x, hermitian=True) @ (xw @ y)
    return torch.det(slope).abs().clamp_min(1e-12).rsqrt().clamp(*_FOCAL_RANGE)
