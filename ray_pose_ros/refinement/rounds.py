"""Which pairs of many views are matched: near ones, in rounds.

There are N (N - 1) / 2 pairs of N views, and of many views round an object most see different
sides of it. So each view is matched with those next to it: first with those that the model takes
to be near, then with those that are near by what the first matches tell, until no pair is new. A
view that is not sure then may be anywhere, and is matched with all others. Of few views all pairs
are matched.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between

Pair = tuple[int, int]  # of views i < j
MANY = 16  # views, up to which all pairs are matched
# Views next to each. Of six captures of 21 to 57 photographs, poses are as exact as by all pairs,
# which are two to four times as many; with 6 views next to each, one of 53 was wrong and sure.
_NEAR = 8
_ROUNDS = 4


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

    def further(self, R: np.ndarray, sure: np.ndarray) -> list[Pair]:
        """Pairs that are near by what has been matched, and were not chosen yet.

        R (N, 3, 3) and `sure` (N,) bool of the refined estimate. Empty when that is enough.
        """
        if self.views <= MANY or self.number == _ROUNDS:
            return []
        lost = {(i, j) for i, j in _all(self.views) if not (sure[i] and sure[j])}
        return self._new(R, _next(_apart(R)) | lost)

    def _new(self, R: np.ndarray, near: set[Pair]) -> list[Pair]:
        self.number += 1
        apart = _apart(R)
        new = sorted(near - self.chosen, key=lambda pair: (apart[pair], pair))
        self.chosen.update(new)
        return new


def spread(R: np.ndarray, count: int | None = None) -> np.ndarray:
    """Indices (count,), in order, of views far apart by rotations R (N, 3, 3), the first included.

    count: MANY if None; all of them where there are no more.
    """
    apart = _apart(R)
    chosen = [0]
    while len(chosen) < min(count or MANY, len(R)):
        chosen.append(int(apart[chosen].min(0).argmax()))
    return np.sort(chosen)


def _all(views: int) -> set[Pair]:
    return {(i, j) for j in range(views) for i in range(j)}


def _apart(R: np.ndarray) -> np.ndarray:
    """rad (N, N), between the rotations of each two views."""
    return angle_between(R[:, None], R[None])


def _next(apart: np.ndarray) -> set[Pair]:
    """Each view with those next to it."""
    apart = apart + np.diag(np.full(len(apart), np.inf))  # and not with itself
    near = np.argsort(apart, axis=1, kind='stable')[:, :_NEAR].tolist()
    return {(min(i, j), max(i, j)) for i, others in enumerate(near) for j in others}
