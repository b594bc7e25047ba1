"""Plücker rays: (direction, moment) with moment = origin x direction, six channels."""

from __future__ import annotations

import torch
from torch import Tensor


def camera_centres(R: Tensor, t: Tensor) -> Tensor:
    """Camera centres -R^T t (..., 3) of world-to-camera R (..., 3, 3), t (..., 3)."""
    return -(R.transpose(-1, -2) @ t[..., None])[..., 0]


def rays_from_cameras(R: Tensor, t: Tensor, directions: Tensor) -> Tensor:
    """Plücker rays (..., P, 6) in the world of cameras R (..., 3, 3), t (..., 3).

    directions (..., P, 3) are unit vectors in the camera frame.
    """
    d = directions @ R  # rows: (R^T d)^T
    centre = camera_centres(R, t)[..., None, :].expand_as(d)
    return torch.cat([d, torch.linalg.cross(centre, d, dim=-1)], dim=-1)


def rays_from_points(points: Tensor, directions: Tensor) -> Tensor:
    """Plücker rays (..., 6) through points (..., 3) along directions (..., 3) of any length."""
    d = directions / directions.norm(dim=-1, keepdim=True)
    points, d = torch.broadcast_tensors(points, d)
    return torch.cat([d, torch.linalg.cross(points, d, dim=-1)], dim=-1)


def normalise_rays(rays: Tensor) -> Tensor:
    """Rays (..., 6) with unit direction and the moment's part along the direction removed.

    The moment is not divided by the length of the direction: a network predicts the moment of the
    unit direction, whatever length its direction came out with (as the official code does).
    A direction without length stays zero.
    """
    d, m = rays[..., :3], rays[..., 3:]
    d = torch.nn.functional.normalize(d, dim=-1, eps=torch.finfo(d.dtype).tiny)
    m = m - (d * m).sum(-1, keepdim=True) * d
    return torch.cat([d, m], dim=-1)


def to_grid(rays: Tensor, h: int, w: int) -> Tensor:
    """Token-last rays (..., h*w, C) as the model's grid (..., C, h, w); patches row-major."""
    if rays.shape[-2] != h * w:
        raise ValueError(f'{rays.shape[-2]} patches do not fill a grid of {h} x {w}')
    return rays.transpose(-1, -2).unflatten(-1, (h, w))


def to_tokens(rays: Tensor) -> Tensor:
    """The model's grid (..., C, h, w) as token-last rays (..., h*w, C); inverse of to_grid."""
    return rays.flatten(-2).transpose(-1, -2)


def nearest_point_to_lines(rays: Tensor, weights: Tensor | None = None) -> Tensor:
    """The point (..., 3) with the least (weighted) sum of squared distances to rays (..., P, 6).

    weights (..., P) are not negative. Where the lines leave a direction free (all parallel), the
    answer is the one nearest to the world's origin. Computed in float64 (a narrow bundle's normal
    matrix is a small difference of large sums), returned in the type of the rays.
    """
    dtype, rays = rays.dtype, normalise_rays(rays.double())
    d, m = rays[..., :3], rays[..., 3:]
    w = torch.ones_like(d[..., 0]) if weights is None else weights.double()
    # (I - d d^T) c = d x m for every ray
    eye = torch.eye(3, dtype=d.dtype, device=d.device)
    A = w.sum(-1)[..., None, None] * eye - (d * w[..., None]).transpose(-1, -2) @ d
    b = (w[..., None] * torch.linalg.cross(d, m, dim=-1)).sum(-2)
    return solve_symmetric(A, b).to(dtype)


def solve_symmetric(A: Tensor, b: Tensor) -> Tensor:
    """Minimum-norm x (..., n) of A x = b for symmetric positive semidefinite A (..., n, n)."""
    values, vectors = torch.linalg.eigh(A)
    floor = values[..., -1:] * (A.shape[-1] * torch.finfo(A.dtype).eps)
    inverse = torch.where(values > floor, 1 / values.clamp_min(torch.finfo(A.dtype).tiny), 0)
    along = (vectors.transpose(-1, -2) @ b[..., None])[..., 0]
    return (vectors @ (inverse * along)[..., None])[..., 0]
