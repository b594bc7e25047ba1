"""How photographs are rolled against each other, in right angles, learned from pair after pair.

Learned matchers know one way up. To try all four ways costs four times as much for the very pairs
that have nothing in common, so what two pairs tell about three views is used for the third.
"""

from __future__ import annotations

import numpy as np

from ray_pose_ros.matching import Features, Matches

_VOTES = 12  # SIFT matches that tell the roll by their orientations


class Rolls:
    """Turns between N views as far as they are known; the strongest evidence comes first."""

    def __init__(self, views: int):
        self._group = list(range(views))
        self._turn = [0] * views  # against the group's first view, right angles

    def known(self, i: int, j: int) -> int | None:
        """Right angles to turn view j by so that it is upright to view i; None if unknown."""
        if self._group[i] != self._group[j]:
            return None
        return (self._turn[j] - self._turn[i]) % 4

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
