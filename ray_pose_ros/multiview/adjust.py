"""All cameras at once: the poses that all matches and the prior fit best; see `residuals`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import (
    camera_centres,
    camera_translations,
    hat,
    rotation_from_vector,
)

from .acceleration import compiled_code
from .residuals import LIMITS, SLOWLY, Problem, between, prior_misfit, robust, turn_sigma


class Adjusted(NamedTuple):
    """Cameras at an optimum of a problem.

    R (N, 3, 3), t (N, 3); the information matrix (6N, 6N) of (turn of the camera about its centre,
    in its frame; move of its centre in the world), prior included; and the cost, half a squared
    deviation.
    """

    R: np.ndarray
    t: np.ndarray
    information: np.ndarray
    cost: float


def adjust(R: np.ndarray, t: np.ndarray, problem: Problem, rounds: int = 25) -> Adjusted:
    """Levenberg-Marquardt from R (N, 3, 3), t (N, 3) on; `compiled` where that is to be had."""
    compiled = compiled_code()
    start = np.array(R, order='C'), np.array(camera_centres(R, t), order='C')
    if compiled is None:
        R, centres, A, cost = _adjust(*start, problem, rounds)
    else:
        given = *problem.table.arrays, problem.believed
        R, centres, A, cost = compiled.adjust(*start, *given, rounds, LIMITS)
    return Adjusted(R, camera_translations(R, centres), A, cost)


def _adjust(R: np.ndarray, centres: np.ndarray, problem: Problem, rounds: int):
    """R (N, 3, 3), centres (N, 3), information and cost at the optimum."""
    n = len(R)
    # moving all cameras together is held by the prior alone, a billionth of what matches say
    damping = 1e-7
    widen = SLOWLY
    cost, A, b = _linearise(R, centres, problem, widen)
    for step in range(rounds):
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
    return R, centres, A, cost


def deviations(R: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (N,) of rotations R (N, 3, 3), rms rad, and of centres, rms distance.

    Rotations relative to the first camera, centres in the world of `adjust`, whose information
    matrix (6N, 6N) this is. What all cameras can do together is in these: turn, and be further
    from the object; `centre_deviations` leaves it out.
    """
    n = len(R)
    covariance = np.linalg.inv(information).reshape(n, 6, n, 6)
    turns = covariance[:, :3, :, :3]
    rotation, centre = np.zeros(n), np.zeros(n)
    for i in range(1, n):
        # w_i - R_i R_0^T w_0, both in camera i's frame
        Q = R[i] @ R[0].T
        own, cross = turns[i, :, i] + Q @ turns[0, :, 0] @ Q.T, turns[i, :, 0] @ Q.T
        rotation[i] = np.sqrt(max(np.trace(own - cross - cross.T), 0))
    for i in range(n):
        centre[i] = np.sqrt(max(np.trace(covariance[i, 3:, i, 3:]), 0))
    return rotation, centre


def centre_deviations(R: np.ndarray, t: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Standard deviations (N,) of centres relative to the first camera, rms distance.

    In the axes of that camera, and after the best change of the unit, since nobody knows it. For
    `adjust`'s cameras R (N, 3, 3), t (N, 3) and their information matrix (6N, 6N).
    """
    n = len(R)
    seen = camera_centres(R, t) @ R[0].T  # in the first camera's axes
    J = np.zeros((n, 3, n, 6))  # how they change with turns and moves
    J[:, :, 0, :3] = -hat(seen)
    J[np.arange(n), :, np.arange(n), 3:] = R[0]
    J = (J - J[0]).reshape(3 * n, 6 * n)
    covariance = J @ np.linalg.solve(information, J.T)
    longer = (seen - seen[0]).reshape(-1)
    variance = np.ones(n)
    for _ in range(5):  # cameras that are lost do not say which unit is best
        weight = np.repeat(1 / (variance + 1e-9 * variance.max()), 3)
        along = np.outer(longer, weight * longer) / max(longer @ (weight * longer), 1e-12)
        kept = np.eye(3 * n) - along
        blocks = (kept @ covariance @ kept.T).reshape(n, 3, n, 3)
        variance = np.maximum(np.einsum('ikik->i', blocks), 0.0)
    return np.sqrt(variance)


def _linearise(R, centres, problem: Problem, widen: float):
    """Cost, normal matrix (6N, 6N) and right side at these cameras."""
    table = problem.table
    n, i, j = len(R), table.i, table.j
    A, b, cost = np.zeros((n, n, 6, 6)), np.zeros((n, 6)), 0.0
    if len(i):
        relative, t, length = between(R, centres, i, j)
        e, turn, move, ahead = table.terms(relative, t)
        u, share, cost = robust(e, ahead, table, widen)
        w = share / table.sigma**2 / (1 + u) ** 2
        J = np.concatenate([turn, move])  # (6, M), by the pair's R and t
        found = table.products(J * w, np.concatenate([J, e[None]]))
        information, pull = found[..., :6], found[..., 6:]
        # how R and t of a pair change with its two cameras
        of_i, of_j = np.zeros((2, len(i), 6, 6))
        scaled = R[j] / length[:, None, None]
        of_i[:, :3, :3], of_i[:, 3:, 3:] = -relative, scaled
        of_j[:, :3, :3], of_j[:, 3:, :3], of_j[:, 3:, 3:] = np.eye(3), -hat(t), -scaled
        for one, of_one in ((i, of_i), (j, of_j)):
            back = np.swapaxes(of_one, -1, -2)
            np.add.at(b, one, -(back @ pull)[..., 0])
            for other, of_other in ((i, of_i), (j, of_j)):
                np.add.at(A, (one, other), back @ information @ of_other)
    A = A.transpose(0, 2, 1, 3)  # (N, 6, N, 6)
    cost += _add_prior(R, centres, problem, A, b)
    return cost, A.reshape(6 * n, 6 * n), b.reshape(-1)


def _add_prior(R, centres, problem: Problem, A, b) -> float:
    """Adds to A (N, 6, N, 6) and b (N, 6); returns the cost."""
    own = np.arange(len(R))
    found = prior_misfit(R, centres, problem)
    w = 1 / turn_sigma(problem.prior) ** 2 / (1 + found.turn_u)
    A[own, :3, own, :3] += w[:, None, None] * np.eye(3)
    b[:, :3] += w[:, None] * found.turn
    # where the object is seen: t' = t + w x t - R dc
    J = np.concatenate([-hat(found.t), -R], axis=-1)
    JW = np.swapaxes(J, -1, -2) @ (problem.object_information / (1 + found.move_u)[:, None, None])
    A[own, :, own] += JW @ J
    b -= (JW @ found.move[..., None])[..., 0]
    return float(found.cost)
