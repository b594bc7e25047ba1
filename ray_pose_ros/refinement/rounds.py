"""Which pairs of many views are matched: near ones, in rounds.

There are N (N - 1) / 2 pairs of N views, and of many views round an object most see different
sides of it. So each view is matched with those next to it: first with those that the model takes
to be near, then with those that are near by what the matches tell so far. When no such pair is
new, views that are not joined to the others may be anywhere, and are matched with all of them. Of
few views all pairs are matched.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.multiview.links import parts

Pair = tuple[int, int]  # of views i < j
MANY = 16  # views, up to which all pairs are matched
# Views next to each. Of six captures of 21 to 53 photographs, poses are as exact as by all pairs,
# which are two to four times as many, but for one photograph of a statue, whose error changes from
# 5 to 24 degrees with 8, 10 or 12 of them; with 6, five photographs of 21 are lost.
_NEAR = 8
_ROUNDS = 5
_TOGETHER = 3  # neighbours that tell a focal length together


class Rounds:
    """The pairs of N views that are matched, round after round.

    Attributes:
        chosen: those of all rounds up to now.
        number: rounds so far.
    """

    def __init__(self, views: int):
        self.views, self.number = views, 0
        self.chosen: set[Pair] = set()

    def first(self, R: np.ndarray, known: Iterable[Pair] = ()) -> list[Pair]:
        """Pairs to begin with, for rotations R (N, 3, 3) by the model, the nearest first.

        known: pairs that have been matched before, which cost nothing.
        """
        if self.views <= MANY:
            near = _all(self.views)
        else:
            near = _next(_apart(R)).union(known)
        return self._new(R, near)

    def further(self, R: np.ndarray, sure: np.ndarray, joined: Iterable[Pair] = ()) -> list[Pair]:
        """Pairs that are near by what has been matched, and were not chosen yet.

        R (N, 3, 3), `sure` (N,) bool, and the pairs that matches join, of the refined estimate.
        Empty when what was chosen is enough.
        """
        if self.views <= MANY or self.number == _ROUNDS:
            return []
        return self._new(R, _next(_apart(R))) or self._new(R, self._lost(sure, joined))

    def _lost(self, sure: np.ndarray, joined: Iterable[Pair]) -> set[Pair]:
        """Each view that is not held with all others, those that are lost with it left out."""
        part = parts(self.views, joined)
        most = part == np.bincount(part).argmax()
        # whether it is sure is told against the first view, which may be the odd one out
        held = most & sure if most[0] else most
        same = part[:, None] == part[None]
        return {
            (i, j)
            for i, j in _all(self.views)
            if not (held[i] and held[j]) and (held[i] or held[j] or not same[i, j])
        }

    def _new(self, R: np.ndarray, near: set[Pair]) -> list[Pair]:
        turned = angle_between(R[:, None], R[None])  # rolled ones are hard to match, and come late
        new = sorted(near - self.chosen, key=lambda pair: (turned[pair], pair))
        self.chosen.update(new)
        self.number += bool(new)
        return new


def some(R: np.ndarray) -> np.ndarray:
    """Indices, in order, of at most MANY views on all sides that overlap, the first among them.

    R (N, 3, 3). A few are chosen that look from as many sides as can be, and with each of them
    those two that are next to it.
    """
    count = len(R)
    if count <= MANY:
        return np.arange(count)
    apart = _apart(R)
    chosen = {0}
    middle = 0
    while len(chosen) < MANY:
        near = np.argsort(np.where(np.arange(count) == middle, -1.0, apart[middle]), kind='stable')
        chosen.update(near[:_TOGETHER].tolist())
        left = sorted(set(range(count)) - chosen)
        if left:
            middle = left[int(apart[sorted(chosen)][:, left].min(0).argmax())]
            chosen.add(middle)
    return np.array(sorted(chosen)[:MANY])


def _all(views: int) -> set[Pair]:
    return {(i, j) for j in range(views) for i in range(j)}


def _apart(R: np.ndarray) -> np.ndarray:
    """rad (N, N), between the optical axes of each two views; how they are rolled is no matter."""
    axes = R[:, 2]
    across = np.linalg.norm(np.cross(axes[:, None], axes[None]), axis=-1)
    return np.arctan2(across, axes @ axes.T)


def _next(apart: np.ndarray) -> set[Pair]:
    """Each view with those next to it."""
    apart = apart + np.diag(np.full(len(apart), np.inf))  # and not with itself
    near = np.argsort(apart, axis=1, kind='stable')[:, :_NEAR].tolist()
    return {(min(i, j), max(i, j)) for i, others in enumerate(near) for j in others}
