"""All cameras at once: the poses that all matches and the prior fit best; see `residuals`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import hat, rotation_from_vector

from .residuals import SLOWLY, Problem, between, few, prior_misfit, robust, turn_sigma

_ROWS = np.array([[0, 2, 1], [2, 1, 0], [1, 0, 2]])  # of a matrix, that are in those of [e_k]x
_SIGNS = np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])[..., None]  # times it, for k = 0, 1, 2


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
    """Levenberg-Marquardt from R (N, 3, 3), t (N, 3) on."""
    return adjust_each(R[None], t, problem, rounds)[0]


def adjust_each(
    R: np.ndarray, t: np.ndarray, problem: Problem, rounds: int = 25
) -> list[Adjusted]:
    """`adjust` from each of C starts R (C, N, 3, 3), t (C, N, 3) or (N, 3), in a fraction of the
    time that one after the other would take."""
    t = np.broadcast_to(t, R.shape[:-1])
    centres = -(np.swapaxes(R, -1, -2) @ t[..., None])[..., 0]
    return [x for k in few(len(R)) for x in _adjust_few(R[k], centres[k], problem, rounds)]


def _adjust_few(R, centres, problem: Problem, rounds: int) -> list[Adjusted]:
    starts, n = R.shape[:2]
    # moving all cameras together is held by the prior alone, a billionth of what matches say
    damping, widen = np.full(starts, 1e-7), np.full(starts, SLOWLY)
    now = _State(R.copy(), centres, *_linearise(R, centres, problem, widen))
    going = np.arange(starts)
    diagonal = np.arange(6 * n)
    for step in range(rounds):
        old = now.take(going)
        A = old.A.copy()
        A[:, diagonal, diagonal] *= 1 + damping[going, None]
        A[:, diagonal, diagonal] += 1e-9
        x = np.linalg.solve(A, old.b[..., None]).reshape(-1, n, 6)
        x *= np.minimum(1.0, 0.5 / np.maximum(np.abs(x).max((1, 2)), 1e-12))[:, None, None]
        new_R, new_c = rotation_from_vector(x[..., :3]) @ old.R, old.centres + x[..., 3:]
        new = _State(new_R, new_c, *_linearise(new_R, new_c, problem, widen[going]))
        better = new.cost <= old.cost
        done = np.where(
            better, (old.cost - new.cost < 1e-3) & (damping[going] < 1e-9), damping[going] > 10
        )
        now.put(going[better], new.take(better))
        damping[going] *= np.where(better, 0.1, 20)
        np.maximum(damping, 1e-12, out=damping)
        narrower = going[(done | (step in (3, 6))) & (widen[going] > 1)]
        going = going[~(done & (widen[going] == 1))]
        _narrow(now, narrower, problem, widen, np.maximum(1.0, widen[narrower] / 2))
        if not len(going):
            break
    wide = np.flatnonzero(widen > 1)
    _narrow(now, wide, problem, widen, 1.0)
    found_t = -np.einsum('cnij,cnj->cni', now.R, now.centres)
    return [
        Adjusted(*x, float(cost)) for *x, cost in zip(now.R, found_t, now.A, now.cost, strict=True)
    ]


class _State(NamedTuple):
    """C sets of cameras, with the cost (C,), normal matrix (C, 6N, 6N) and right side (C, 6N)."""

    R: np.ndarray
    centres: np.ndarray
    cost: np.ndarray
    A: np.ndarray
    b: np.ndarray

    def take(self, which: np.ndarray) -> _State:
        return _State(*(x[which] for x in self))

    def put(self, where: np.ndarray, other: _State) -> None:
        for mine, its in zip(self, other, strict=True):
            mine[where] = its


def _narrow(now: _State, which, problem: Problem, widen, to) -> None:
    """Lets the matches of some sets reach only as far as `to`."""
    if len(which):
        widen[which] = to
        R, centres = now.R[which], now.centres[which]
        now.put(which, _State(R, centres, *_linearise(R, centres, problem, widen[which])))


def deviations(R: np.ndarray, information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (N,) of rotations R (N, 3, 3), rms rad, and of centres, rms distance.

    Rotations relative to the first camera, centres in the world of `adjust`, whose information
    matrix (6N, 6N) this is.
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


def _linearise(R, centres, problem: Problem, widen):
    """Costs (C,), normal matrices (C, 6N, 6N) and right sides (C, 6N) at C sets of cameras."""
    table = problem.table
    starts, n = R.shape[:2]
    A, b, cost = np.zeros((starts, n, 6, n, 6)), np.zeros((starts, n, 6)), 0.0
    if len(table):
        cost = _add_matches(R, centres, problem, widen, A, b)
    cost = cost + _add_prior(R, centres, problem, A, b)
    return cost, A.reshape(starts, 6 * n, 6 * n), b.reshape(starts, -1)


def _add_matches(R, centres, problem: Problem, widen, A, b) -> np.ndarray:
    """Adds to A (C, N, 6, N, 6) and b (C, N, 6); returns the costs (C,)."""
    table = problem.table
    i, j = table.i, table.j
    relative, t, length = between(R, centres, i, j)
    met = table.meet(relative, t)
    u, share, cost = robust(met, table, widen)
    E = hat(t) @ relative
    gradient, curvature = table.normal(E, met, share / table.sigma**2 / (1 + u) ** 2)
    # how E changes with a turn of the pair's R from the left, and with a move of its t, which
    # stays a unit vector; the nine entries of E come last but one
    turned = _SIGNS * relative[..., _ROWS, :]  # (C, E, 3, 3 turns, 3): [e_k]x R
    move = np.moveaxis(turned, -2, -1).reshape(*length.shape, 9, 3)
    turn = hat(t) @ turned.reshape(*t.shape, 9)
    turn = np.moveaxis(turn.reshape(turned.shape), -2, -1).reshape(*length.shape, 9, 3)
    move = (move - (move @ t[..., None]) * t[..., None, :]) / length[..., None, None]
    # and those with the two cameras
    Rj = R[..., j, :, :]
    moved = move @ Rj
    of_j = turn - length[..., None, None] * (move @ hat(t))
    J = np.concatenate([-turn @ relative, moved, of_j, -moved], axis=-1)  # (C, E, 9, 12)
    Jt = np.swapaxes(J, -1, -2)
    pull = (Jt @ gradient[..., None])[..., 0]
    information = Jt @ curvature @ J
    ends = information.reshape(*length.shape, 2, 6, 2, 6).transpose(0, 1, 2, 4, 3, 5)
    A[:, i, :, j], A[:, j, :, i] = np.moveaxis(ends[:, :, [0, 1], [1, 0]], (1, 2), (1, 0))
    alone = problem.views @ ends[:, :, [0, 1], [0, 1]].reshape(len(R), -1, 36)
    own = np.arange(R.shape[1])
    A[:, own, :, own] += np.swapaxes(alone.reshape(*R.shape[:2], 6, 6), 0, 1)
    b -= problem.views @ pull.reshape(len(R), -1, 6)
    return cost


def _add_prior(R, centres, problem: Problem, A, b) -> np.ndarray:
    """Adds to A (C, N, 6, N, 6) and b (C, N, 6); returns the costs (C,)."""
    found = prior_misfit(R, centres, problem)
    # where the object is seen: t' = t + w x t - R dc
    J = np.concatenate([-hat(found.t), -R], axis=-1)
    information = problem.object_information / (1 + found.move_u)[..., None, None]
    JW = np.swapaxes(J, -1, -2) @ information
    of_view = JW @ J
    b -= (JW @ found.move[..., None])[..., 0]
    w = 1 / turn_sigma(problem.prior) ** 2 / (1 + found.turn_u)
    of_view[..., :3, :3] += w[..., None, None] * np.eye(3)
    b[..., :3] += w[..., None] * found.turn
    own = np.arange(R.shape[1])
    A[:, own, :, own] += np.swapaxes(of_view, 0, 1)
    return found.cost
