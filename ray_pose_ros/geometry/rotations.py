"""Rotations: quaternions, angles, random rotations, projection to SO(3)."""

from __future__ import annotations

import torch
from torch import Tensor


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) in the order x, y, z, w.

    The quaternion is normalised first; q and -q give the same matrix.
    Raises ValueError for a quaternion without length or with a value that is not finite.
    """
    if quaternion.shape[-1:] != (4,):
        raise ValueError(f'quaternion has shape {tuple(quaternion.shape)}, expected (..., 4)')
    norm = quaternion.norm(dim=-1, keepdim=True)
    if not bool((torch.isfinite(norm) & (norm > 1e-12)).all()):
        raise ValueError(f'quaternion {quaternion.tolist()} is not finite with a length above 0')
    x, y, z, w = (quaternion / norm).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def quaternion_from_matrix(R: Tensor) -> Tensor:
    """Unit quaternions (..., 4), order x, y, z, w with w >= 0, of rotations (..., 3, 3).

    At exactly 180 degrees (w == 0) the first component that is not zero is positive, so the answer
    is unique. Accurate at every angle: q is read off the largest column of the matrix 4 q q^T.
    """
    r00, r11, r22 = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    xy, xz, yz = (
        R[..., 0, 1] + R[..., 1, 0],
        R[..., 0, 2] + R[..., 2, 0],
        R[..., 1, 2] + R[..., 2, 1],
    )
    wx, wy, wz = (
        R[..., 2, 1] - R[..., 1, 2],
        R[..., 0, 2] - R[..., 2, 0],
        R[..., 1, 0] - R[..., 0, 1],
    )
    xx, yy, zz = 1 + r00 - r11 - r22, 1 - r00 + r11 - r22, 1 - r00 - r11 + r22
    ww = 1 + r00 + r11 + r22
    outer = torch.stack(
        [xx, xy, xz, wx, xy, yy, yz, wy, xz, yz, zz, wz, wx, wy, wz, ww], dim=-1
    ).unflatten(-1, (4, 4))
    largest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = outer.gather(-1, largest[..., None, None].expand(*outer.shape[:-1], 1)).squeeze(-1)
    q = q / q.norm(dim=-1, keepdim=True)
    # Canonical sign: w first, then x, y, z where the ones before are zero.
    order = torch.stack([q[..., 3], q[..., 0], q[..., 1], q[..., 2]], dim=-1)
    first = (order != 0).to(torch.int8).argmax(-1, keepdim=True)
    q = torch.where(order.gather(-1, first) < 0, -q, q)
    return q


def geodesic_angle(Ra: Tensor, Rb: Tensor) -> Tensor:
    """Angle in radians, in [0, pi], of the rotation between (..., 3, 3) and (..., 3, 3).

    atan2 of sine and cosine, so that it is accurate near 0 and near pi, where the usual arccos of
    the trace loses half of the digits.
    """
    delta = Ra.transpose(-1, -2) @ Rb
    axis = torch.stack(
        [
            delta[..., 2, 1] - delta[..., 1, 2],
            delta[..., 0, 2] - delta[..., 2, 0],
            delta[..., 1, 0] - delta[..., 0, 1],
        ],
        dim=-1,
    )
    trace = delta.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(axis.norm(dim=-1), trace - 1)


def random_rotations(
    n: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Rotations (n, 3, 3), uniform on SO(3): normalised Gaussian quaternions."""
    q = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return matrix_from_quaternion(q).to(dtype)


def project_to_so3(M: Tensor) -> Tensor:
    """The rotation (..., 3, 3) nearest to M (..., 3, 3) in the Frobenius norm.

    It also maximises trace(R^T M), which is the orthogonal Procrustes problem. Unique unless the
    second singular value is zero, or equals minus the signed third one.
    """
    U, _, Vh = torch.linalg.svd(M)
    sign = torch.where(torch.det(U @ Vh) < 0, -1.0, 1.0).to(M.dtype)
    scale = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], dim=-1)
    return (U * scale[..., None, :]) @ Vh


def hat(v: Tensor) -> Tensor:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): hat(v) @ x = v x x."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """The smallest rotation (..., 3, 3) that takes direction a (..., 3) to direction b (..., 3).

    For opposite directions it turns by pi about an orthogonal axis, chosen by a fixed rule.
    Raises ValueError for a vector that is not finite or has no length.
    """
    a, b = torch.broadcast_tensors(a, b)
    for vector in (a, b):
        length = vector.norm(dim=-1)
        if not bool((torch.isfinite(length) & (length > 1e-12)).all()):
            raise ValueError(f'direction {vector.tolist()} is not finite with a length above 0')
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    # Two reflections, a -> -half -> b, make the rotation; half is the bisector of a and b.
    half = a + b
    size = half.norm(dim=-1, keepdim=True)
    # Where a and b are opposite, the coordinate axis furthest from a gives an orthogonal one.
    furthest = torch.nn.functional.one_hot(a.abs().argmin(-1), 3).to(a.dtype)
    spare = torch.linalg.cross(a, furthest, dim=-1)
    spare = spare / spare.norm(dim=-1, keepdim=True)
    opposite = size < 1e3 * torch.finfo(a.dtype).eps
    half = torch.where(opposite, spare, half / size.clamp_min(torch.finfo(a.dtype).tiny))
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    return (2 * half[..., :, None] * half[..., None, :] - eye) @ (
        2 * a[..., :, None] * a[..., None, :] - eye
    )


def rotation_from_vector(w: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), radians (Rodrigues)."""
    half = w.norm(dim=-1, keepdim=True) / 2
    # sinc(half/pi) = sin(half)/half, exact at zero
    q = torch.cat([w / 2 * torch.sinc(half / torch.pi), torch.cos(half)], dim=-1)
    return matrix_from_quaternion(q)
