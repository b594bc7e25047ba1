"""How photographs are rolled against each other, in right angles, learned from pair after pair.

Learned matchers know one way up. To try all four ways costs four times as much for the very pairs
that have nothing in common, so what two pairs tell about three views is used for the third. And
both views of a pair are turned as they were in pairs before, since finding features costs most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ray_pose_ros.matching import Features, Matches

from .keyframe import Turns

_VOTES = 12  # SIFT matches that tell the roll by their orientations


class Rolls:
    """Turns between N views as far as they are known; the strongest evidence comes first.

    Args:
        views: N.
        told: right angles counterclockwise by which each view seems to be upright; empty for 0.
    """

    def __init__(self, views: int, told: Sequence[int] = ()):
        self._group = list(range(views))
        self._turn = [0] * views  # against the group's first view, right angles
        self._told = list(told) or [0] * views
        self._seen: list[set[int]] = [set() for _ in range(views)]

    def known(self, i: int, j: int) -> int | None:
        """Right angles to turn view j by so that it is upright to view i; None if unknown."""
        if self._group[i] != self._group[j]:
            return None
        return (self._turn[j] - self._turn[i]) % 4

    def ways(self, i: int, j: int, turns: Sequence[int]) -> list[Turns]:
        """How to turn views i and j so that j is turned by each of `turns` against i.

        Those that make fewest new ways up of the two, after all that was asked for before; of
        several, one in which a view is upright.
        """
        # one of the two is turned one way, and the other in all
        starts = sorted(range(4), key=lambda s: s != self._upright(i))
        ends = sorted(range(4), key=lambda s: s != self._upright(j))
        choices = [[(s, (s + turn) % 4) for turn in turns] for s in starts]
        choices += [[((s - turn) % 4, s) for turn in turns] for s in ends]
        best = min(choices, key=lambda ways: self._new(i, j, ways))
        for first, second in best:
            self._seen[i].add(first)
            self._seen[j].add(second)
        return best

    def _new(self, i: int, j: int, ways: list[Turns]) -> int:
        first, second = zip(*ways, strict=True)
        return len(set(first) - self._seen[i]) + len(set(second) - self._seen[j])

    def _upright(self, i: int) -> int:
        """The turn of view i that most views which are known against it are told to have."""
        group = [k for k, g in enumerate(self._group) if g == self._group[i]]
        shifts = np.bincount([(self._told[k] - self._turn[k]) % 4 for k in group])
        return (self._turn[i] + int(shifts.argmax())) % 4

    def learn(self, i: int, j: int, turn: int) -> None:
        """View j is upright to view i when turned by `turn`; what is known already stays."""
        if self._group[i] == self._group[j]:
            return
        shift = (self._turn[i] + turn - self._turn[j]) % 4
        old, new = self._group[j], self._group[i]
        for view, group in enumerate(self._group):
            if group == old:
                self._group[view] = new
                self._turn[view] = (self._turn[view] + shift) % 4


def vote(a: Features, b: Features, found: Matches) -> tuple[int, int] | None:
    """The turn that most SIFT matches show by their orientations, and how many do; or None."""
    if len(found) < _VOTES:
        return None
    roll = b.extra['angle'][found.indices[:, 1]] - a.extra['angle'][found.indices[:, 0]]
    votes = np.bincount(np.round(roll / (np.pi / 2)).astype(int) % 4, minlength=4)
    turn = int(votes.argmax())
    return (turn, int(votes[turn])) if votes[turn] > 0.5 * len(found) else None
