"""Windows of cameras that follow each other, in one world that stays.

Each window is told in a world of its own: axes and distance of its first camera, the object at the
origin. Windows have most of their cameras in common, by which they are joined (`joining`). From
there on all cameras are adjusted together to the matches of all windows: a camera that has been in
several is held by all of them, also after it has left.

The first camera of all is the reference: the axes are its own, the origin is the object, and the
unit its distance from it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import camera_centres, camera_translations, nearest_rotation

from .adjust import adjust
from .joining import Answers, join
from .prior import Prior
from .residuals import Problem
from .two_view import RayMatches

# To how much of their uncertainty the joined poses hold the adjustment: with 0.7 photographs and
# captures kept out are a little better off than with 1.4 or 2.8, and move less.
_HELD = 0.7
# By how much a window more may change the unit, whatever it says of the reference.
_RESCALED = 2.0
_UNKNOWN = np.full((3, 3), np.nan)


class Cameras(NamedTuple):
    """N cameras: R (N, 3, 3), centres (N, 3), standard deviations (N,); or one, without N."""

    R: np.ndarray
    centres: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray

    def each(self) -> list[Cameras]:
        """One by one."""
        return [Cameras(*x) for x in zip(*self, strict=True)]

    @classmethod
    def of(cls, every: Sequence[Cameras]) -> Cameras:
        """Many, of one each."""
        return cls(*(np.stack(x) for x in zip(*every, strict=True)))


class Similarity(NamedTuple):
    """From one world to another: x -> scale turn x + origin."""

    turn: np.ndarray
    scale: float
    origin: np.ndarray

    def then(self, second: Similarity) -> Similarity:
        """This one and then another."""
        turn, scale, origin = second
        return Similarity(
            turn @ self.turn, self.scale * scale, scale * turn @ self.origin + origin
        )


HERE = Similarity(np.eye(3), 1.0, np.zeros(3))


class _Window(NamedTuple):
    """What one window told: ids of cameras, and these in its own world."""

    ids: tuple[int, ...]
    told: Cameras


class JoinedWindows:
    """Cameras by id, the reference first.

    Attributes:
        poses: where each camera is.
        matches: of pairs of ids, what the newest window with both told.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.poses: dict[int, Cameras] = {}
        self.matches: dict[tuple[int, int], RayMatches] = {}
        self._windows: list[_Window] = []

    def join(
        self,
        ids: Sequence[int],
        told: Cameras,
        matches: dict[tuple[int, int], RayMatches],
        sure: Collection[int] = (),
    ) -> Similarity:
        """Take in a window; the similarity from its world.

        It takes the place of those before it that have no camera which it has not. One that has
        none in common with the others begins anew.

        Args:
            ids: of its N cameras.
            told: those, in the window's own world.
            matches: of pairs (i, j) of the window, i < j, counted from 0.
            sure: ids of those that are surely where the window has them, whatever was told before.
        """
        if not self.poses.keys() & set(ids):
            self._forget()
        kept = [w for w in self._windows if not set(w.ids) <= set(ids)]
        self._windows = [*kept, _Window(tuple(ids), told)]
        for (i, j), m in matches.items():
            self.matches[ids[i], ids[j]] = m
        return self._settle([*self.poses, *(i for i in ids if i not in self.poses)], set(sure))

    def cameras(self, ids: Sequence[int]) -> Cameras:
        """Those of some ids."""
        return Cameras.of([self.poses[i] for i in ids])

    def among(self, ids: Sequence[int]) -> dict[tuple[int, int], RayMatches]:
        """Matches between cameras of some ids, of pairs counted from 0."""
        index = {i: k for k, i in enumerate(ids)}
        return {
            (index[i], index[j]): m
            for (i, j), m in self.matches.items()
            if i in index and j in index
        }

    def refocus(self, ids: Collection[int], factor: float) -> None:
        """Take the cameras of some ids to have focal lengths `factor` times as long.

        Matches are of the same pixels then. What windows told stays, and is adjusted to them.
        """
        longer = dict.fromkeys(ids, factor)
        self.matches = {
            (i, j): m.refocused(longer.get(i, 1.0), longer.get(j, 1.0))
            for (i, j), m in self.matches.items()
        }

    def drop(self, gone: int) -> None:
        """Forget a camera, if it is there; what windows told is condensed into one answer."""
        if self.poses.pop(gone, None) is None:
            return
        self.matches = {pair: m for pair, m in self.matches.items() if gone not in pair}
        self._windows = []
        if self.poses:
            ids = tuple(self.poses)
            self._windows = [_Window(ids, self.cameras(ids))]

    def _settle(self, ids: list[int], sure: set[int]) -> Similarity:
        """Find all poses anew; the similarity from the newest window's world."""
        if len(self._windows) == 1 and self._windows[0].ids[0] == ids[0]:
            (only,) = self._windows
            self.poses = dict(zip(only.ids, only.told.each(), strict=True))
            return HERE
        index = {i: k for k, i in enumerate(ids)}
        told = (np.concatenate(x) for x in zip(*(w.told for w in self._windows), strict=True))
        answers = Answers(
            np.array([index[i] for w in self._windows for i in w.ids]),
            np.repeat(np.arange(len(self._windows)), [len(w.ids) for w in self._windows]),
            *told,
        )
        before = [self.poses[i].R if i in self.poses else _UNKNOWN for i in ids]
        joined = join(answers, np.stack(before))
        rotation_sigma = joined.rotation_sigma
        rotation_sigma[0] = rotation_sigma[1:].min()  # its own share is in all the others
        cameras = Cameras(joined.R, joined.centres, rotation_sigma, joined.centre_sigma)
        there = Similarity(joined.turn[-1], float(joined.scale[-1]), joined.origin[-1])
        cameras = self._adjusted(cameras, index, sure)
        turn, distance = cameras.R[0], float(np.linalg.norm(cameras.centres[0]))
        scale = 1 / min(max(distance, 1 / _RESCALED), _RESCALED)
        cameras = cameras._replace(
            # made rotations anew: what R[0] lacks of one would double with each window
            R=nearest_rotation(cameras.R @ turn.T),
            centres=scale * cameras.centres @ turn.T,
            centre_sigma=scale * cameras.centre_sigma,
        )
        self.poses = dict(zip(ids, cameras.each(), strict=True))
        return there.then(Similarity(turn, scale, np.zeros(3)))

    def _adjusted(self, joined: Cameras, index: dict[int, int], sure: set[int]) -> Cameras:
        """All cameras adjusted to the matches of all windows.

        From where they were, so that those that are right stay; new ones, and those that the
        newest window is sure of, from where it has them.
        """
        if not self.matches:
            return joined
        matches = {(index[i], index[j]): m for (i, j), m in self.matches.items()}
        R, c, rotation_sigma, _ = joined
        none = np.zeros(len(R)), np.zeros((0, *R.shape))
        prior = Prior(R, c, _HELD * rotation_sigma, *none)
        start_R, start_c = R.copy(), c.copy()
        for i, pose in self.poses.items():
            if i not in sure:
                start_R[index[i]], start_c[index[i]] = pose.R, pose.centres
        problem = Problem(matches, prior, camera_translations(R, c))
        try:
            found = adjust(start_R, camera_translations(start_R, start_c), problem)
        except np.linalg.LinAlgError:
            return joined
        if not (np.isfinite(found.R).all() and np.isfinite(found.t).all()):
            return joined
        return joined._replace(R=found.R, centres=camera_centres(found.R, found.t))
