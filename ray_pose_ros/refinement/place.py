"""Where cameras of known rotations stand: from the directions between them."""

from __future__ import annotations

import numpy as np

from ray_pose_ros.geometry.so3 import camera_centres, camera_translations
from ray_pose_ros.multiview.residuals import OBJECT_LOG_DISTANCE, OBJECT_SIDE

from .averaging import edge_sigma
from .hypotheses import Hypothesis


def place(
    R: np.ndarray, chosen: dict[tuple[int, int], Hypothesis], looking: np.ndarray
) -> np.ndarray:
    """Translations t (N, 3) for rotations R (N, 3, 3): linear, from the directions between pairs.

    Every believed pair (i, j) says that c_i - c_j lies on a line; every camera, that it sees the
    object where and as far away as `looking` (N, 3) says.
    """
    n = len(R)
    side, along = OBJECT_SIDE, OBJECT_LOG_DISTANCE
    A0, b0 = np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
    for i in range(n):
        r = np.linalg.norm(looking[i])
        u = looking[i] / r
        W = (np.eye(3) - np.outer(u, u)) / (side * r) ** 2 + np.outer(u, u) / (along * r) ** 2
        W = R[i].T @ W @ R[i]  # on the centre -R^T t
        A0[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] += W
        b0[3 * i : 3 * i + 3] += W @ (-R[i].T @ looking[i])
    centres = camera_centres(R, looking)
    for _ in range(6):
        A, b = A0.copy(), b0.copy()
        for (i, j), h in chosen.items():
            u = R[j].T @ h.t
            P = np.eye(3) - np.outer(u, u)
            gap = centres[i] - centres[j]
            sigma = 1.5 * edge_sigma(h) * max(np.linalg.norm(gap), 0.05)
            off = np.linalg.norm(P @ gap) / sigma + (3.0 if gap @ u < 0 else 0.0)
            w = P / sigma**2 / (1 + off**2 / 4)
            a, c = slice(3 * i, 3 * i + 3), slice(3 * j, 3 * j + 3)
            A[a, a] += w
            A[c, c] += w
            A[a, c] -= w
            A[c, a] -= w
        centres = np.linalg.solve(A, b).reshape(n, 3)
    return camera_translations(R, centres)
