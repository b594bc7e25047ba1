"""Cameras proposed in closed form: matched points of two views, laid onto each other.

A transformer finds it hard to turn correspondences into a pose; least squares does not. What is
found here is shown to the denoiser as a proposal, it is not the answer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_SCALES = (0.3, 0.2, 0.15, 0.1)  # residuals beyond lose their say, in units of the gauge


class Alignment(NamedTuple):
    """x -> R x + t for R (..., 3, 3) and t (..., 3), residuals (..., M) and weights (..., M)."""

    R: Tensor
    t: Tensor
    residuals: Tensor
    weights: Tensor


@torch.no_grad()
def align_points(points: Tensor, targets: Tensor, weights: Tensor) -> Alignment:
    """The rigid motion that takes points (..., M, 3) to targets (..., M, 3), robustly.

    Least squares, reweighted with ever narrower Cauchy weights on top of `weights` (..., M).
    """
    used = weights
    for scale in _SCALES:
        R, t = _least_squares(points, targets, used)
        moved = points @ R.transpose(-1, -2) + t[..., None, :]
        residuals = torch.linalg.vector_norm(moved - targets, dim=-1)
        used = weights / (1 + (residuals / scale).square())
    return Alignment(R, t, residuals, used)


def _least_squares(points: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    share = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-6)
    middle = share[..., None, :] @ points  # (..., 1, 3)
    target = share[..., None, :] @ targets
    covariance = (points - middle).transpose(-1, -2) @ (share[..., None] * (targets - target))
    R = rotation_of(covariance)
    return R, (target - middle @ R.transpose(-1, -2)).squeeze(-2)


def rotation_of(covariance: Tensor) -> Tensor:
    """The rotation R (..., 3, 3) with the largest trace(R C), C (..., 3, 3) = sum of x y^T.

    Horn's unit quaternions (1987): the answer is the top eigenvector of a symmetric 4x4 matrix,
    found by squaring it repeatedly, since small SVDs are slow on a GPU. With C = 0, some rotation.
    """
    c = covariance / torch.linalg.matrix_norm(covariance)[..., None, None].clamp(min=1e-12)
    trace = c.diagonal(dim1=-1, dim2=-2).sum(-1)
    twist = torch.stack(
        [
            c[..., 1, 2] - c[..., 2, 1],
            c[..., 2, 0] - c[..., 0, 2],
            c[..., 0, 1] - c[..., 1, 0],
        ],
        dim=-1,
    )
    eye = torch.eye(3, dtype=c.dtype, device=c.device)
    corner = c + c.transpose(-1, -2) - trace[..., None, None] * eye
    top = torch.cat([trace[..., None], twist], dim=-1)[..., None, :]
    matrix = torch.cat([top, torch.cat([twist[..., None], corner], dim=-1)], dim=-2)
    # all eigenvalues lie within -2 and 2: shifted, the largest is the one of largest size
    matrix = matrix + 2 * torch.eye(4, dtype=c.dtype, device=c.device)
    for _ in range(9):
        matrix = matrix @ matrix
        matrix = matrix / matrix.diagonal(dim1=-1, dim2=-2).sum(-1)[..., None, None]
    best = matrix.diagonal(dim1=-1, dim2=-2).argmax(dim=-1)
    column = matrix.gather(-1, best[..., None, None].expand(*best.shape, 4, 1)).squeeze(-1)
    w, x, y, z = (column / torch.linalg.vector_norm(column, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
