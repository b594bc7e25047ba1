"""Rotations in numpy, for solvers that take thousands of small steps."""

from __future__ import annotations

import numpy as np


def hat(v: np.ndarray) -> np.ndarray:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): hat(v) @ x = v x x."""
    v = np.asarray(v)
    out = np.zeros((*v.shape, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    return out - np.swapaxes(out, -1, -2)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products (..., 3) of vectors (..., 3); numpy's own takes three times as long."""
    out = np.empty(np.broadcast_shapes(a.shape, b.shape))
    for k, i, j in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        np.multiply(a[..., i], b[..., j], out=out[..., k])
        out[..., k] -= a[..., j] * b[..., i]
    return out


def camera_centres(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(N, 3) centres of world-to-camera R (N, 3, 3), t (N, 3)."""
    return -np.einsum('nji,nj->ni', R, t)


def camera_translations(R: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(N, 3) t of world-to-camera R (N, 3, 3) with these centres (N, 3)."""
    return -np.einsum('nij,nj->ni', R, centres)


def rotation_from_vector(w: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), rad (Rodrigues)."""
    w = np.asarray(w, dtype=np.float64)
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    K = hat(w)
    # sinc keeps both factors exact at zero
    first, half = np.sinc(angle / np.pi), np.sinc(angle / (2 * np.pi))
    return np.eye(3) + first * K + 0.5 * half**2 * (K @ K)


def vector_from_rotation(R: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3), rad, of rotation matrices (..., 3, 3); length at most pi."""
    R = np.asarray(R)
    axis = np.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1
    )
    sine = np.linalg.norm(axis, axis=-1)
    cosine = np.trace(R, axis1=-2, axis2=-1) - 1
    angle = np.arctan2(sine, cosine)
    small = sine < 1e-7
    vector = axis * (angle / np.where(small, 1, sine))[..., None]
    near_zero = np.where(small[..., None], axis / 2, vector)
    # at pi the axis is the largest column of (R + I) / 2 = n n^T
    outer = (R + np.eye(3)) / 2
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), -1)
    column = np.take_along_axis(outer, largest[..., None, None], -1)[..., 0]
    length = np.maximum(np.linalg.norm(column, axis=-1, keepdims=True), 1e-12)
    turned = column / length * angle[..., None]
    return np.where((small & (cosine < 0))[..., None], turned, near_zero)


def angle_between(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Angles (...), rad, of the rotations between (..., 3, 3) and (..., 3, 3)."""
    delta = np.swapaxes(A, -1, -2) @ B
    axis = np.stack(
        [
            delta[..., 2, 1] - delta[..., 1, 2],
            delta[..., 0, 2] - delta[..., 2, 0],
            delta[..., 1, 0] - delta[..., 0, 1],
        ],
        -1,
    )
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(delta, axis1=-2, axis2=-1) - 1)


def nearest_rotation(M: np.ndarray) -> np.ndarray:
    """The rotation (..., 3, 3) nearest to M (..., 3, 3) in the Frobenius norm."""
    U, _, Vh = np.linalg.svd(M)
    sign = np.sign(np.linalg.det(U @ Vh))
    U = U.copy()
    U[..., :, 2] *= sign[..., None]
    return U @ Vh


def tangent_basis(v: np.ndarray) -> np.ndarray:
    """Two orthonormal columns (..., 3, 2) orthogonal to unit vectors (..., 3)."""
    v = np.asarray(v)
    helper = np.zeros_like(v)
    np.put_along_axis(helper, np.abs(v).argmin(-1)[..., None], 1.0, -1)
    first = cross(v, helper)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, cross(v, first)], -1)
