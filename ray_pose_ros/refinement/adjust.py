"""All cameras at once: the poses that all inlier matches and the prior fit best.

A match is one residual, the angle by which its rays miss each other, so that there are six
unknowns a camera and no points. The object stays at the world's origin: where it is seen, and
from how far, is a prior on each camera's translation, which also fixes the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_pose_ros.geometry.so3 import hat, rotation_from_vector, vector_from_rotation

from .averaging import edge_sigma
from .hypotheses import Hypothesis
from .prior import Prior
from .two_view import MOST_MATCHES, RayMatches, depths, epipolar_jacobian

OBJECT_SIDE, OBJECT_LOG_DISTANCE = 0.12, 0.3  # deviations of a camera's view of the object
_LIMIT = 2.5  # deviations of a ray beyond which a match is cut off


@dataclass(frozen=True)
class Problem:
    """N cameras, the matches of some pairs, the hypotheses that were believed, and the prior.

    `looking` (N, 3): where each camera should see the object, times its distance.
    """

    matches: dict[tuple[int, int], RayMatches]
    chosen: dict[tuple[int, int], Hypothesis]
    prior: Prior
    looking: np.ndarray


def place(R: np.ndarray, problem: Problem) -> np.ndarray:
    """Translations t (N, 3) for rotations R: linear, from the directions between pairs.

    Every pair says that c_i - c_j lies on a line; every camera, that it sees the object.
    """
    n = len(R)
    looking = problem.looking
    side, along = OBJECT_SIDE, OBJECT_LOG_DISTANCE
    A0, b0 = np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
    for i in range(n):
        r = np.linalg.norm(looking[i])
        u = looking[i] / r
        W = (np.eye(3) - np.outer(u, u)) / (side * r) ** 2 + np.outer(u, u) / (along * r) ** 2
        W = R[i].T @ W @ R[i]  # on the centre -R^T t
        A0[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] += W
        b0[3 * i : 3 * i + 3] += W @ (-R[i].T @ looking[i])
    centres = -np.einsum('nji,nj->ni', R, looking)
    for _ in range(6):
        A, b = A0.copy(), b0.copy()
        for (i, j), h in problem.chosen.items():
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
    return -np.einsum('nij,nj->ni', R, centres)


def adjust(
    R: np.ndarray, t: np.ndarray, problem: Problem, rounds: int = 25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from R (N, 3, 3), t (N, 3) on.

    Returns R, t and the information matrix (6N, 6N) of (turn of the camera about its centre, in
    its frame; move of its centre in the world) at the optimum; prior included.
    """
    centres = -np.einsum('nji,nj->ni', R, t)
    # moving all cameras together is held by the prior alone, a billionth of what matches say
    damping = 1e-7
    widen = 2.0
    cost, A, b = _linearise(R, centres, problem, widen)
    for step in range(rounds):
        n = len(R)
        x = np.linalg.solve(A + damping * np.diag(np.diag(A)) + 1e-9 * np.eye(6 * n), b)
        x = x.reshape(n, 6)
        x *= min(1.0, 0.5 / max(np.abs(x).max(), 1e-12))
        new_R, new_c = rotation_from_vector(x[:, :3]) @ R, centres + x[:, 3:]
        new = _linearise(new_R, new_c, problem, widen)
        if new[0] <= cost:
            done = cost - new[0] < 1e-3 and damping < 1e-9
            R, centres, (cost, A, b) = new_R, new_c, new
            damping = max(damping / 10, 1e-12)
        else:
            done = damping > 10
            damping *= 20
        if done or step in (3, 6):
            if widen == 1.0 and done:
                break
            widen = max(1.0, widen / 2)
            cost, A, b = _linearise(R, centres, problem, widen)
    if widen != 1.0:
        cost, A, b = _linearise(R, centres, problem, 1.0)
    return R, -np.einsum('nij,nj->ni', R, centres), A


def _linearise(R, centres, problem: Problem, widen: float):
    """Cost, normal matrix (6N, 6N) and right side at these cameras."""
    n = len(R)
    A, b, cost = np.zeros((n, 6, n, 6)), np.zeros((n, 6)), 0.0
    for (i, j), matches in problem.matches.items():
        relative = R[j] @ R[i].T
        move = R[j] @ (centres[i] - centres[j])
        length = max(np.linalg.norm(move), 1e-9)
        t = move / length
        e, Jw, Jt = epipolar_jacobian(relative, t, matches.a, matches.b)
        first, second = depths(relative, t, matches.a, matches.b)
        limit = widen * _LIMIT * matches.sigma
        # Geman-McClure: smooth, and what is far off has no say
        u = np.where((first > 0) & (second > 0), (e / limit) ** 2, np.inf)
        share = min(1.0, MOST_MATCHES / max((u < 1).sum(), 1))
        w = share / matches.sigma**2 / (1 + u) ** 2
        cost += (
            0.5
            * share
            * (widen * _LIMIT) ** 2
            * np.where(np.isfinite(u), u / (1 + np.where(np.isfinite(u), u, 0)), 1.0).sum()
        )
        J_i = np.hstack([-Jw @ relative, Jt @ R[j] / length])
        J_j = np.hstack([Jw - Jt @ hat(t), -Jt @ R[j] / length])
        e = np.where(w > 0, e, 0)
        Wi, Wj = J_i * w[:, None], J_j * w[:, None]
        A[i, :, i] += Wi.T @ J_i
        A[j, :, j] += Wj.T @ J_j
        cross = Wi.T @ J_j
        A[i, :, j] += cross
        A[j, :, i] += cross.T
        b[i] -= Wi.T @ e
        b[j] -= Wj.T @ e
    cost += _add_prior(R, centres, problem, A, b)
    return cost, A.reshape(6 * n, 6 * n), b.reshape(-1)


def _add_prior(R, centres, problem: Problem, A, b) -> float:
    cost = 0.0
    prior = problem.prior
    for i in range(len(R)):
        sigma = max(prior.rotation_sigma[i], 1e-3) / 3**0.5
        e = vector_from_rotation(prior.R[i] @ R[i].T)
        u = (e @ e) / (3 * sigma) ** 2
        w = 1 / sigma**2 / (1 + u)
        cost += 0.5 * 9 * np.log1p(u)
        A[i, :3, i, :3] += w * np.eye(3)
        b[i, :3] += w * e
        # where the object is seen: e = t - looking, t = -R c; t' = t + w x t - R dc
        looking = problem.looking[i]
        r = np.linalg.norm(looking)
        axis = looking / r
        t = -R[i] @ centres[i]
        W = (np.eye(3) - np.outer(axis, axis)) / (OBJECT_SIDE * r) ** 2
        W += np.outer(axis, axis) / (OBJECT_LOG_DISTANCE * r) ** 2
        e = t - looking
        u = e @ W @ e / 9
        cost += 0.5 * 9 * np.log1p(u)
        W = W / (1 + u)
        J = np.hstack([-hat(t), -R[i]])
        A[i, :, i] += J.T @ W @ J
        b[i] -= J.T @ W @ e
    return cost
