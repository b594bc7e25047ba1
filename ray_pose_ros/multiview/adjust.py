"""All cameras at once: the poses that all matches and the prior fit best.

A match is one residual, the angle by which its rays miss each other, so that there are six
unknowns a camera and no points. The object stays at the world's origin: where it is seen, and
from how far, is a prior on each camera's translation, which also fixes the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import (
    camera_centres,
    hat,
    rotation_from_vector,
    vector_from_rotation,
)

from .prior import Prior
from .two_view import MOST_MATCHES, RayMatches, Terms, epipolar_terms

OBJECT_SIDE, OBJECT_LOG_DISTANCE = 0.12, 0.3  # deviations of a camera's view of the object
LIMIT = 2.5  # deviations of a ray beyond which a match is cut off
_SLOWLY = 2.0  # times the limit, to begin with
# The shortest baseline, in distances of the object, whose change turns its direction as it does:
# without a limit what matches seem to tell of a centre outgrows double precision where two cameras
# come to be at one place.
_SAME_PLACE = 1e-3


@dataclass(frozen=True)
class Problem:
    """N cameras, the matches of some pairs (i, j), and the prior.

    `looking` (N, 3): where each camera should see the object, times its distance.
    """

    matches: dict[tuple[int, int], RayMatches]
    prior: Prior
    looking: np.ndarray

    @cached_property
    def table(self) -> _Table:
        """The matches in arrays, made once however often the problem is linearised."""
        return _Table(self.matches)


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
    n = len(R)
    centres = camera_centres(R, t)
    # moving all cameras together is held by the prior alone, a billionth of what matches say
    damping = 1e-7
    widen = _SLOWLY
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
    return Adjusted(R, -np.einsum('nij,nj->ni', R, centres), A, cost)


def agreement(R: np.ndarray, t: np.ndarray, problem: Problem) -> float:
    """Share of the matches, by weight, that agree with cameras R (N, 3, 3), t (N, 3)."""
    table = problem.table
    centres = camera_centres(R, t)
    relative, move, _ = _between(R, centres, table.i, table.j)
    error, _, _, ahead = table.terms(relative, move)
    fits = ahead & (np.abs(error) < LIMIT * table.sigma)
    return float(table.weight[fits].sum() / max(table.weight.sum(), 1e-12))


def weakest_links(links: np.ndarray) -> np.ndarray:
    """(N,) of links (N, N), the weakest on the strongest way to view 0; for 0, its best one."""
    best = links[0].copy()
    best[0] = np.inf
    for _ in range(len(links)):
        best = np.maximum(best, np.minimum(best[:, None], links).max(0))
    best[0] = links[0].max()
    return best


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


class _Table:
    """The M matches of all E pairs, one pair's after the other's; pairs without any are left out.

    Attributes:
        i, j: (E,) the pairs' views. first: (E,) where each pair's matches begin.
        of: (M,) which pair a match is of.
        a, b: (3, M) rays. sigma, weight: (M,).
    """

    def __init__(self, matches: dict[tuple[int, int], RayMatches]):
        matches = {pair: m for pair, m in matches.items() if len(m)}
        lists, none = list(matches.values()), np.zeros((0, 3))
        self.i, self.j = np.array(list(matches), dtype=int).reshape(-1, 2).T
        counts = np.array([len(m) for m in lists], dtype=int)
        self.first = np.cumsum(counts) - counts
        self.of = np.repeat(np.arange(len(lists)), counts)
        self.a, self.b = (
            np.ascontiguousarray(np.concatenate([none, *(getattr(m, end) for m in lists)]).T)
            for end in 'ab'
        )
        self.sigma = np.concatenate([none[:, 0], *(m.sigma for m in lists)])
        weights = (np.ones(len(m)) if m.weight is None else m.weight for m in lists)
        self.weight = np.concatenate([none[:, 0], *weights])
        self._parts = [slice(k, k + n) for k, n in zip(self.first, counts, strict=True)]

    def terms(self, relative: np.ndarray, t: np.ndarray) -> Terms:
        """Of all matches, under the pairs' R (E, 3, 3), t (E, 3)."""
        R = np.moveaxis(relative, 0, -1)[..., self.of]
        return epipolar_terms(R, t.T[:, self.of], self.a, self.b)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(E,) of values (M,) of the matches of each pair."""
        return np.add.reduceat(values, self.first)

    def products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """left (P, M) times right (Q, M) transposed over the matches of each pair, (E, P, Q)."""
        return np.stack([left[:, k] @ right[:, k].T for k in self._parts])


def _linearise(R, centres, problem: Problem, widen: float):
    """Cost, normal matrix (6N, 6N) and right side at these cameras."""
    table = problem.table
    n, i, j = len(R), table.i, table.j
    A, b, cost = np.zeros((n, n, 6, 6)), np.zeros((n, 6)), 0.0
    if len(i):
        relative, t, length = _between(R, centres, i, j)
        e, turn, move, ahead = table.terms(relative, t)
        limit = widen * LIMIT * table.sigma
        # Geman-McClure: smooth, and what is far off or behind has no say
        u = np.where(ahead, (e / limit) ** 2, np.inf)
        count = table.sums(table.weight * (u < 1))
        share = table.weight * np.minimum(1.0, MOST_MATCHES / np.maximum(count, 1))[table.of]
        w = share / table.sigma**2 / (1 + u) ** 2
        lost = np.where(ahead, 1 - 1 / (1 + u), 1.0)
        cost = 0.5 * (widen * LIMIT) ** 2 * (share * lost).sum()
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


def _between(R, centres, i, j):
    """Relative rotations (E, 3, 3), unit moves (E, 3) and baselines (E,) of pairs of cameras.

    Baselines count as no shorter than _SAME_PLACE.
    """
    relative = R[j] @ np.swapaxes(R[i], -1, -2)
    move = (R[j] @ (centres[i] - centres[j])[..., None])[..., 0]
    length = np.linalg.norm(move, axis=-1, keepdims=True)
    apart = length > 1e-12  # of cameras at the very same place, any direction will do
    move = np.where(apart, move, [0.0, 0.0, 1.0]) / np.where(apart, length, 1.0)
    return relative, move, np.maximum(length[:, 0], _SAME_PLACE)


def _add_prior(R, centres, problem: Problem, A, b) -> float:
    """Adds to A (N, 6, N, 6) and b (N, 6); returns the cost."""
    prior, own = problem.prior, np.arange(len(R))
    sigma = np.maximum(prior.rotation_sigma, 1e-3) / 3**0.5
    e = vector_from_rotation(prior.R @ np.swapaxes(R, -1, -2))
    u = (e * e).sum(-1) / (3 * sigma) ** 2
    w = 1 / sigma**2 / (1 + u)
    cost = 0.5 * 9 * np.log1p(u).sum()
    A[own, :3, own, :3] += w[:, None, None] * np.eye(3)
    b[:, :3] += w[:, None] * e
    # where the object is seen: e = t - looking, t = -R c; t' = t + w x t - R dc
    looking = problem.looking
    r = np.linalg.norm(looking, axis=-1)[:, None, None]
    axis = looking[..., None] / r
    t = -(R @ centres[..., None])[..., 0]
    along = axis @ np.swapaxes(axis, -1, -2)
    W = (np.eye(3) - along) / (OBJECT_SIDE * r) ** 2 + along / (OBJECT_LOG_DISTANCE * r) ** 2
    e = (t - looking)[..., None]
    u = (np.swapaxes(e, -1, -2) @ W @ e) / 9
    cost += 0.5 * 9 * np.log1p(u).sum()
    W = W / (1 + u)
    J = np.concatenate([-hat(t), -R], axis=-1)
    JW = np.swapaxes(J, -1, -2) @ W
    A[own, :, own] += JW @ J
    b -= (JW @ e)[..., 0]
    return float(cost)
