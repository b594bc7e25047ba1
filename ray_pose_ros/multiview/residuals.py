"""How well cameras fit matches and a prior: what `adjust` makes small.

A match is one residual, the angle by which its rays miss each other, so that there are six
unknowns a camera and no points. The object stays at the world's origin: where it is seen, and
from how far, is a prior on each camera's translation, which also fixes the scale.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import camera_centres, vector_from_rotation

from .acceleration import compiled_code
from .prior import Prior
from .two_view import (
    MOST_MATCHES,
    PARALLEL,
    RayMatches,
    Terms,
    epipolar_misses,
    epipolar_terms,
)

OBJECT_SIDE, OBJECT_LOG_DISTANCE = 0.12, 0.3  # deviations of a camera's view of the object
LIMIT = 2.5  # deviations of a ray beyond which a match is cut off
SLOWLY = 2.0  # times the limit, to begin with
# The shortest baseline, in distances of the object, whose change turns its direction as it does:
# without a limit what matches seem to tell of a centre outgrows double precision where two cameras
# come to be at one place.
_SAME_PLACE = 1e-3


class Limits(NamedTuple):
    """The constants of this module and of `two_view` that compiled code is given."""

    limit: float
    slowly: float
    most_matches: float
    same_place: float
    parallel: float


LIMITS = Limits(LIMIT, SLOWLY, MOST_MATCHES, _SAME_PLACE, PARALLEL)


@dataclass(frozen=True)
class Problem:
    """N cameras, the matches of some pairs (i, j), and the prior.

    `looking` (N, 3): where each camera should see the object, times its distance.
    """

    matches: dict[tuple[int, int], RayMatches]
    prior: Prior
    looking: np.ndarray

    @cached_property
    def table(self) -> Table:
        """The matches in arrays, made once however often the problem is linearised."""
        return Table(self.matches)

    @cached_property
    def believed(self) -> tuple[np.ndarray, ...]:
        """What `compiled` takes of the prior."""
        own = self.prior.R, turn_sigma(self.prior), self.looking, self.object_information
        return tuple(np.array(x, dtype=np.float64, order='C') for x in own)

    @cached_property
    def object_information(self) -> np.ndarray:
        """(N, 3, 3) of where each camera sees the object, in its frame."""
        r = np.linalg.norm(self.looking, axis=-1)[:, None, None]
        axis = self.looking[..., None] / r
        along = axis @ np.swapaxes(axis, -1, -2)
        aside = (np.eye(3) - along) / (OBJECT_SIDE * r) ** 2
        return aside + along / (OBJECT_LOG_DISTANCE * r) ** 2


def costs(
    R: np.ndarray, t: np.ndarray, problem: Problem, pairs: np.ndarray | None = None
) -> np.ndarray:
    """(C,) of C sets of cameras R (C, N, 3, 3), t (C, N, 3) or (N, 3), which need not be optima.

    With the wide reach of matches that `adjust` begins with. pairs: (E,) bool, of the problem's
    table, those whose matches count; None for all.
    """
    t = np.broadcast_to(t, R.shape[:-1])
    centres = -(np.swapaxes(R, -1, -2) @ t[..., None])[..., 0]
    found = prior_misfit(R, centres, problem).cost
    compiled, table = compiled_code(), problem.table
    if compiled is not None:
        of, matches = table.arrays
        if pairs is not None:
            of = tuple(x[pairs] for x in of)
        cameras = (np.array(x, order='C') for x in (R, centres))
        return found + compiled.costs(*cameras, of, matches, LIMITS)
    table = table if pairs is None else table.only(pairs)
    if len(table.i):
        matched = [_costs_of_matches(R[k], centres[k], table) for k in _few(len(R))]
        found = found + np.concatenate(matched)
    return found


def _few(count: int) -> list[slice]:
    """Parts of `count` that fit a processor's caches together with all matches."""
    return [slice(k, k + 8) for k in range(0, count, 8)]


def _costs_of_matches(R, centres, table: Table) -> np.ndarray:
    relative, move, _ = between(R, centres, table.i, table.j)  # (C, E, ...)
    return robust(*table.misses(relative, move), table, SLOWLY).cost


def agreement(R: np.ndarray, t: np.ndarray, problem: Problem) -> float:
    """Share of the matches, by weight, that agree with cameras R (N, 3, 3), t (N, 3)."""
    table = problem.table
    centres = camera_centres(R, t)
    relative, move, _ = between(R, centres, table.i, table.j)
    error, ahead = table.misses(relative, move)
    fits = ahead & (np.abs(error) < LIMIT * table.sigma)
    return float(table.weight[fits].sum() / max(table.weight.sum(), 1e-12))


class Table:
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
        self.a, self.b = (
            np.ascontiguousarray(np.concatenate([none, *(getattr(m, end) for m in lists)]).T)
            for end in 'ab'
        )
        self.sigma = np.concatenate([none[:, 0], *(m.sigma for m in lists)])
        weights = (np.ones(len(m)) if m.weight is None else m.weight for m in lists)
        self.weight = np.concatenate([none[:, 0], *weights])
        self._count(np.array([len(m) for m in lists], dtype=int))

    def _count(self, counts: np.ndarray) -> None:
        """counts: (E,) matches of each pair."""
        self.first = np.cumsum(counts) - counts
        self.of = np.repeat(np.arange(len(counts)), counts)
        self._parts = [slice(k, k + n) for k, n in zip(self.first, counts, strict=True)]

    @cached_property
    def arrays(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """What `compiled` takes as pairs and matches."""
        pairs = self.i, self.j, self.first, np.append(self.first, len(self.of))[1:]
        matches = self.a, self.b, self.sigma, self.weight
        return (
            tuple(np.array(x, dtype=np.int64) for x in pairs),
            tuple(np.array(x, dtype=np.float64, order='C') for x in matches),
        )

    def only(self, pairs: np.ndarray) -> Table:
        """The matches of some of the pairs, (E,) bool."""
        part = copy(self)
        part.__dict__.pop('arrays', None)
        matches = pairs[self.of]
        part.i, part.j = self.i[pairs], self.j[pairs]
        part.a, part.b = self.a[:, matches], self.b[:, matches]
        part.sigma, part.weight = self.sigma[matches], self.weight[matches]
        part._count(np.bincount(self.of, minlength=len(pairs))[pairs])
        return part

    def terms(self, relative: np.ndarray, t: np.ndarray) -> Terms:
        """Of all matches, under the pairs' R (E, 3, 3), t (E, 3)."""
        R = np.moveaxis(relative, 0, -1)[..., self.of]
        return epipolar_terms(R, t.T[:, self.of], self.a, self.b)

    def misses(self, relative: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors (..., M) of all matches, and which are ahead: R (..., E, 3, 3), t (..., E, 3)."""
        R = np.moveaxis(relative, (-2, -1), (0, 1))[..., self.of]
        rays = (x.reshape(3, *(1,) * (t.ndim - 2), -1) for x in (self.a, self.b))
        return epipolar_misses(R, np.moveaxis(t, -1, 0)[..., self.of], *rays)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(..., E) of values (..., M) of the matches of each pair."""
        return np.add.reduceat(values, self.first, axis=-1)

    def products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """left (P, M) times right (Q, M) transposed over the matches of each pair, (E, P, Q)."""
        return np.stack([left[:, k] @ right[:, k].T for k in self._parts])


class Robust(NamedTuple):
    """Squared errors (..., M) in reaches of a match, infinite behind a camera, the matches' shares
    (..., M) and the costs (...)."""

    u: np.ndarray
    share: np.ndarray
    cost: np.ndarray


def robust(error: np.ndarray, ahead: np.ndarray, table: Table, widen: float) -> Robust:
    """From errors (..., M) and which are ahead; reaches are LIMIT deviations, `widen` times."""
    # Geman-McClure: smooth, and what is far off or behind has no say
    u = np.where(ahead, (error / (widen * LIMIT * table.sigma)) ** 2, np.inf)
    count = table.sums(table.weight * (u < 1))
    share = table.weight * np.minimum(1.0, MOST_MATCHES / np.maximum(count, 1))[..., table.of]
    lost = np.where(ahead, 1 - 1 / (1 + u), 1.0)
    return Robust(u, share, 0.5 * (widen * LIMIT) ** 2 * (share * lost).sum(-1))


def between(
    R: np.ndarray, centres: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative rotations (..., E, 3, 3), unit moves (..., E, 3) and baselines (..., E) of pairs.

    Baselines count as no shorter than _SAME_PLACE.
    """
    relative = R[..., j, :, :] @ np.swapaxes(R[..., i, :, :], -1, -2)
    move = (R[..., j, :, :] @ (centres[..., i, :] - centres[..., j, :])[..., None])[..., 0]
    length = np.linalg.norm(move, axis=-1, keepdims=True)
    apart = length > 1e-12  # of cameras at the very same place, any direction will do
    move = np.where(apart, move, [0.0, 0.0, 1.0]) / np.where(apart, length, 1.0)
    return relative, move, np.maximum(length[..., 0], _SAME_PLACE)


class PriorMisfit(NamedTuple):
    """Of cameras (..., N) against the prior.

    turn (..., N, 3) back to the prior's rotation, of which `turn_u` (..., N) is the squared length
    in its reach; move (..., N, 3) of the object in the camera's frame away from where it should
    be, likewise; t (..., N, 3); cost (...).
    """

    turn: np.ndarray
    turn_u: np.ndarray
    move: np.ndarray
    move_u: np.ndarray
    t: np.ndarray
    cost: np.ndarray


def prior_misfit(R: np.ndarray, centres: np.ndarray, problem: Problem) -> PriorMisfit:
    """Of cameras R (..., N, 3, 3), centres (..., N, 3)."""
    turn = vector_from_rotation(problem.prior.R @ np.swapaxes(R, -1, -2))
    turn_u = (turn * turn).sum(-1) / (3 * turn_sigma(problem.prior)) ** 2
    t = -(R @ centres[..., None])[..., 0]
    move = t - problem.looking
    move_u = np.einsum('...ni,nij,...nj->...n', move, problem.object_information, move) / 9
    cost = 0.5 * 9 * (np.log1p(turn_u) + np.log1p(move_u)).sum(-1)
    return PriorMisfit(turn, turn_u, move, move_u, t, cost)


def turn_sigma(prior: Prior) -> np.ndarray:
    """(N,) rad, about one axis."""
    return np.maximum(prior.rotation_sigma, 1e-3) / 3**0.5
