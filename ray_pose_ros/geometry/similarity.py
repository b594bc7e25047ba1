"""Similarity transforms x -> scale R x + t: alignment, application to cameras, errors after it."""

from __future__ import annotations

import torch
from torch import Tensor

from ray_pose_ros.geometry.rotations import geodesic_angle, rotation_between


def align_similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares similarity from points (..., M, 3) to points (..., M, 3), no reflection.

    Returns scale (...), R (..., 3, 3), t (..., 3) with target ~ scale R source + t.
    Umeyama, "Least-squares estimation of transformation parameters", 1991, eqs. 34 to 43.

    Degenerate inputs have many optimal answers; the one returned is
    - all points on a line (always with M = 2): the smallest rotation that lines them up;
    - all source points, or all target points, in one place: R = I; scale is 1 for the source,
      and for the target 0, which is the optimum (everything falls onto the one point).
    Raises ValueError for shapes that differ, no points, or values that are not finite.
    """
    if source.shape != target.shape or source.shape[-1:] != (3,) or source.ndim < 2:
        raise ValueError(
            f'point sets have shapes {tuple(source.shape)} and {tuple(target.shape)}, '
            'expected the same (..., M, 3)'
        )
    if source.shape[-2] == 0:
        raise ValueError('cannot align 0 points, expected at least 1')
    if not bool(torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise ValueError('points to align are not all finite')
    dtype = source.dtype
    source, target = source.double(), target.double()  # degeneracy is judged in float64
    mean_s, mean_t = source.mean(-2), target.mean(-2)
    xs, xt = source - mean_s[..., None, :], target - mean_t[..., None, :]
    variance = (xs * xs).sum((-2, -1))
    U, D, Vh = torch.linalg.svd(xt.transpose(-1, -2) @ xs)
    sign = torch.where(torch.det(U @ Vh) < 0, -1.0, 1.0).to(D.dtype)
    S = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    R = (U * S[..., None, :]) @ Vh
    # A spread below rounding of the coordinates is no spread.
    tiny = torch.finfo(dtype).eps * 10
    size_s, size_t = source.abs().amax((-2, -1)), target.abs().amax((-2, -1))
    count = source.shape[-2]
    flat_s = variance <= count * (tiny * size_s) ** 2
    flat_t = (xt * xt).sum((-2, -1)) <= count * (tiny * size_t) ** 2
    line = (D[..., 1] <= 1e-12 * D[..., 0])[..., None, None]
    R = torch.where(line, rotation_between(Vh[..., 0, :], U[..., :, 0]), R)
    eye = torch.eye(3, dtype=R.dtype, device=R.device)
    R = torch.where((flat_s | flat_t)[..., None, None], eye, R)
    scale = (D * S).sum(-1) / torch.where(flat_s, 1.0, variance)
    scale = torch.where(flat_t, 0.0, scale)
    scale = torch.where(flat_s, 1.0, scale)
    t = mean_t - scale[..., None] * (R @ mean_s[..., None])[..., 0]
    return scale.to(dtype), R.to(dtype), t.to(dtype)


def transform_points(points: Tensor, scale: Tensor, Rs: Tensor, ts: Tensor) -> Tensor:
    """Points (..., M, 3) under the similarity scale (...), Rs (..., 3, 3), ts (..., 3)."""
    return scale[..., None, None] * (points @ Rs.transpose(-1, -2)) + ts[..., None, :]


def transform_cameras(
    R: Tensor, t: Tensor, scale: Tensor | float, Rs: Tensor, ts: Tensor
) -> tuple[Tensor, Tensor]:
    """World-to-camera R (..., 3, 3), t (..., 3) after the world went x -> scale Rs x + ts.

    Camera frames keep their axes; distances in them are multiplied by scale, so images stay.
    Shapes broadcast: for N cameras of one world give scale (..., 1), Rs (..., 1, 3, 3),
    ts (..., 1, 3), or no leading dimensions at all.
    """
    scale = torch.as_tensor(scale, dtype=t.dtype, device=t.device)
    R_new = R @ Rs.transpose(-1, -2)
    return R_new, scale[..., None] * t - (R_new @ ts[..., None])[..., 0]


def ordered_pairs(n: int) -> Tensor:
    """All ordered pairs (n*(n-1), 2) of different views, (1,0), (2,0), ..., (0,1), (2,1), ..."""
    index = [(i, j) for j in range(n) for i in range(n) if i != j]
    return torch.tensor(index, dtype=torch.long).reshape(-1, 2)


def relative_rotation_errors(R_pred: Tensor, R_true: Tensor) -> Tensor:
    """Angles (..., N*(N-1)) in degrees between predicted and true relative rotations.

    For every ordered pair (i, j) of ordered_pairs(N): the geodesic angle between R_i R_j^T of the
    predictions and of the truth. Both (..., N, 3, 3); independent of either world's gauge.
    """
    i, j = ordered_pairs(R_pred.shape[-3]).unbind(-1)
    pred = R_pred[..., i, :, :] @ R_pred[..., j, :, :].transpose(-1, -2)
    true = R_true[..., i, :, :] @ R_true[..., j, :, :].transpose(-1, -2)
    return torch.rad2deg(geodesic_angle(pred, true))


def scene_scale(centres: Tensor) -> Tensor:
    """Distance (...) from the centroid of camera centres (..., M, 3) to the furthest one.

    The official evaluation takes all cameras of the sequence, not only the ones evaluated.
    """
    return (centres - centres.mean(-2, keepdim=True)).norm(dim=-1).amax(-1)


def camera_centre_errors(
    centres_pred: Tensor, centres_true: Tensor, scale: Tensor | float | None = None
) -> Tensor:
    """Errors (..., N) of camera centres after the best similarity, over the scene's scale.

    centres (..., N, 3); scale (...) is scene_scale of the whole sequence, by default that of
    centres_true. Raises ValueError for a scale that is not positive.
    """
    scale = scene_scale(centres_true) if scale is None else scale
    scale = torch.as_tensor(scale, dtype=centres_true.dtype, device=centres_true.device)
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ValueError(f'scene scale is {scale.tolist()}, expected above 0')
    aligned = transform_points(centres_pred, *align_similarity(centres_pred, centres_true))
    return (aligned - centres_true).norm(dim=-1) / scale[..., None]
