"""Cameras proposed in closed form: matched points of two views, laid onto each other.

A transformer finds it hard to turn correspondences into a pose; least squares does not. What is
found here is shown to the denoiser as a proposal, it is not the answer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDS = 4
_SCALES = (0.3, 0.2, 0.15, 0.1)  # residuals beyond lose their say, in units of the gauge
# Indices, since a GPU takes as long for each number alone as for all of them: of C, whose entries'
# differences are its twist; of the products q_i q_j, two of which make each entry of R.
_TWIST = (5, 6, 1), (7, 2, 3)
_PRODUCTS = (10, 6, 7, 6, 5, 11, 7, 11, 5), (15, 3, 2, 3, 15, 1, 2, 1, 10)
_SIGNS = (1, -1, 1, 1, 1, -1, -1, 1, 1)


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
    flat, device = c.flatten(-2), c.device
    twist = flat[..., torch.tensor(_TWIST[0], device=device)]
    twist = twist - flat[..., torch.tensor(_TWIST[1], device=device)]
    eye = torch.eye(4, dtype=c.dtype, device=device)
    corner = c + c.transpose(-1, -2) - trace[..., None, None] * eye[:3, :3]
    top = torch.cat([trace[..., None], twist], dim=-1)[..., None, :]
    matrix = torch.cat([top, torch.cat([twist[..., None], corner], dim=-1)], dim=-2)
    # all eigenvalues lie within -2 and 2: shifted, the largest is the one of largest size
    matrix = (matrix + 2 * eye).flatten(0, -3)
    for _ in range(9):
        matrix = torch.bmm(matrix, matrix)
        matrix = matrix / matrix.diagonal(dim1=-1, dim2=-2).sum(-1)[:, None, None]
    best = matrix.diagonal(dim1=-1, dim2=-2).argmax(dim=-1)
    column = matrix.gather(-1, best[:, None, None].expand(-1, 4, 1)).squeeze(-1)
    q = column / torch.linalg.vector_norm(column, dim=-1, keepdim=True)  # w, x, y, z
    products = (q[:, :, None] * q[:, None, :]).flatten(1)
    one, other = (products[:, torch.tensor(x, device=device)] for x in _PRODUCTS)
    signs = torch.tensor(_SIGNS, dtype=c.dtype, device=device)
    factors = 2 - 4 * eye[:3, :3].flatten()
    R = eye[:3, :3].flatten() + factors * (one + signs * other)
    return R.unflatten(1, (3, 3)).unflatten(0, covariance.shape[:-2])
