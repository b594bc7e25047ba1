"""The keyframes of all windows in one world, which stays while the window slides.

Each window is solved in a world of its own: axes and distance of its first keyframe. Windows that
follow each other have most of their keyframes in common, by which they are joined
(`multiview.joining`). From there on all keyframes are adjusted together to the matches of all
windows: a keyframe that has been in several is held by all of them, also after it has left.

The map's first keyframe is its reference: the axes are its own, the origin is the object, and the
unit its distance from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.packed_view import packed
from ray_pose_ros.geometry.so3 import camera_centres, camera_translations, nearest_rotation
from ray_pose_ros.multiview.adjust import adjust
from ray_pose_ros.multiview.joining import Answers, join
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import Problem
from ray_pose_ros.multiview.two_view import RayMatches

# Fields of an estimate that have an entry for each view, besides poses and uncertainty, and those
# that are of one window only.
_EACH = {
    *('cameras', 'K', 'intrinsics_source', 'names', 'stamps', 'crops', 'turned', 'rays'),
    *('sure', 'matches'),  # of a refined one
}
_OF_WINDOW = {'doubts': None, 'samples': None, 'ray_matches': {}, 'pairs': np.zeros((0, 2), int)}
# To how much of their uncertainty the joined poses hold the adjustment: with 0.7 photographs and
# captures kept out are a little better off than with 1.4 or 2.8, and move less.
_HELD = 0.7
# By how much a window more may change the unit, whatever it says of the reference.
_RESCALED = 2.0
_UNKNOWN = np.full((3, 3), np.nan)
_HERE = np.eye(3), 1.0, np.zeros(3)


class _Pose(NamedTuple):
    """A camera: R (3, 3), centre (3,), and standard deviations; or N of them."""

    R: np.ndarray
    centres: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray


@dataclass(frozen=True)
class _Window:
    """What one window told: ids of keyframes, and their cameras in its own world."""

    ids: tuple[int, ...]
    told: _Pose


@dataclass(frozen=True)
class Mapped:
    """All keyframes of a map, the reference first, and an estimate of them in its world."""

    keyframes: tuple[Keyframe, ...]
    estimate: Any


class KeyframeMap:
    """Joins windows as they are solved; one thread.

    Args:
        size: keyframes kept, more only where a window has more. Another one more takes the place
            of that which is missed least: it has left the window, is not the reference, and has
            another one next to it. What earlier windows told is then condensed into one.

    Attributes:
        size: see there.
        begun: how often a window had no keyframe in common with the map, so that it began anew.
    """

    def __init__(self, size: int):
        if size < 1:
            raise ValueError(f'map size is {size}, expected at least 1')
        self.size = size
        self.begun = 0
        self._forget()

    def _forget(self) -> None:
        self._keyframes: dict[int, Keyframe] = {}  # in the order of their ids
        self._windows: list[_Window] = []
        self._matches: dict[tuple[int, int], RayMatches] = {}
        self._poses: dict[int, _Pose] = {}
        self._parts: dict[int, dict] = {}

    def __len__(self) -> int:
        return len(self._keyframes)

    def join(self, keyframes: Sequence[Keyframe], estimate: Any) -> Any:
        """Take in the estimate of a window, in the order of its keyframes; it in the map's world.

        A window takes the place of those before it that have no keyframe which it has not. One
        that has none in common with the map begins it anew.
        """
        ids = tuple(k.id for k in keyframes)
        if not set(ids) & set(self._keyframes):
            self._forget()
            self.begun += 1
        new = [i for i in ids if i not in self._keyframes]
        while len(self) + len(new) > self.size and self._drop(set(ids)):
            pass
        centres = camera_centres(estimate.R, estimate.t)
        told = _Pose(
            estimate.R,
            centres,
            np.nan_to_num(estimate.rotation_sigma, nan=np.pi),
            np.nan_to_num(estimate.centre_sigma, nan=1.0),
        )
        kept = [w for w in self._windows if not set(w.ids) <= set(ids)]
        self._windows = [*kept, _Window(ids, told)]
        self._keyframes |= {k.id: k for k in keyframes}
        for (i, j), m in getattr(estimate, 'ray_matches', {}).items():
            self._matches[ids[i], ids[j]] = m
        sure = {i for i, s in zip(ids, getattr(estimate, 'sure', ()), strict=False) if s}
        moved = self._moved(ids, estimate, self._settle(sure))
        for i, keyframe in self._keyframes.items():
            if i not in ids:  # its features are of no use any more, and its image takes room
                self._keyframes[i] = replace(keyframe, prepared=None, view=packed(keyframe.view))
        names = [f.name for f in fields(moved) if f.name in _EACH and len(getattr(moved, f.name))]
        for k, i in enumerate(ids):
            self._parts[i] = {name: getattr(moved, name)[k] for name in names}
        return moved

    def whole(self, newest: Any) -> Mapped:
        """The map; what is of no single view comes from the `newest` estimate that was joined."""
        parts = [self._parts[i] for i in self._keyframes]
        of_views = {name: [part[name] for part in parts] for name in parts[0]}
        for name, values in of_views.items():
            as_array = isinstance(getattr(newest, name), np.ndarray)
            of_views[name] = np.stack(values) if as_array else tuple(values)
        has = {f.name for f in fields(newest)}
        of_window = {name: value for name, value in _OF_WINDOW.items() if name in has}
        found = replace(newest, **of_views, **of_window, **self._cameras(self._keyframes))
        return Mapped(tuple(self._keyframes.values()), found)

    # -- poses ----------------------------------------------------------------------------------

    def _settle(self, sure: set[int]) -> tuple[np.ndarray, float, np.ndarray]:
        """Find all poses anew; the similarity from the newest window's world to the map's."""
        ids = list(self._keyframes)
        if len(self._windows) == 1 and self._windows[0].ids[0] == ids[0]:
            (only,) = self._windows
            self._poses = {i: _Pose(*(x[k] for x in only.told)) for k, i in enumerate(only.ids)}
            return _HERE
        index = {i: k for k, i in enumerate(ids)}
        told = (np.concatenate(x) for x in zip(*(w.told for w in self._windows), strict=True))
        answers = Answers(
            np.array([index[i] for w in self._windows for i in w.ids]),
            np.repeat(np.arange(len(self._windows)), [len(w.ids) for w in self._windows]),
            *told,
        )
        before = [self._poses[i].R if i in self._poses else _UNKNOWN for i in ids]
        joined = join(answers, np.stack(before))
        rotation_sigma = joined.rotation_sigma
        rotation_sigma[0] = rotation_sigma[1:].min()  # its own share is in all the others
        cameras = _Pose(joined.R, joined.centres, rotation_sigma, joined.centre_sigma)
        there = joined.turn[-1], float(joined.scale[-1]), joined.origin[-1]
        cameras = self._adjusted(cameras, sure)
        turn, distance = cameras.R[0], float(np.linalg.norm(cameras.centres[0]))
        scale = 1 / min(max(distance, 1 / _RESCALED), _RESCALED)
        cameras = cameras._replace(
            # made rotations anew: what R[0] lacks of one would double with each window
            R=nearest_rotation(cameras.R @ turn.T),
            centres=scale * cameras.centres @ turn.T,
            centre_sigma=scale * cameras.centre_sigma,
        )
        self._poses = {i: _Pose(*(x[k] for x in cameras)) for i, k in index.items()}
        return _after(there, (turn, scale, np.zeros(3)))

    def _adjusted(self, joined: _Pose, sure: set[int]) -> _Pose:
        """All keyframes adjusted to the matches of all windows.

        From where they were, so that those that are right stay; new ones, and those that the
        newest window is sure of, from where it has them.
        """
        index = {i: k for k, i in enumerate(self._keyframes)}
        matches = {(index[i], index[j]): m for (i, j), m in self._matches.items()}
        if not matches:
            return joined
        R, c, rotation_sigma, _ = joined
        none = np.zeros(len(R)), np.zeros((0, *R.shape))
        prior = Prior(R, c, _HELD * rotation_sigma, *none)
        start_R, start_c = R.copy(), c.copy()
        for i, pose in self._poses.items():
            if i in sure:
                continue
            start_R[index[i]], start_c[index[i]] = pose.R, pose.centres
        problem = Problem(matches, prior, camera_translations(R, c))
        try:
            found = adjust(start_R, camera_translations(start_R, start_c), problem)
        except np.linalg.LinAlgError:
            return joined
        if not (np.isfinite(found.R).all() and np.isfinite(found.t).all()):
            return joined
        return joined._replace(R=found.R, centres=camera_centres(found.R, found.t))

    def _cameras(self, ids) -> dict[str, np.ndarray]:
        R, c, *sigmas = (np.stack(x) for x in zip(*(self._poses[i] for i in ids), strict=True))
        names = 'R', 't', 'rotation_sigma', 'centre_sigma'
        return dict(zip(names, (R, camera_translations(R, c), *sigmas), strict=True))

    def _moved(self, ids, estimate: Any, there) -> Any:
        """A window's estimate with the map's poses, its rays moved by the window's similarity."""
        turn, scale, origin = there
        lines = np.moveaxis(estimate.rays, 1, -1)  # (N, h, w, 6)
        directions = lines[..., :3] @ turn.T
        moments = scale * lines[..., 3:] @ turn.T + np.cross(origin, directions)
        lines = np.concatenate([directions, moments], axis=-1).astype(np.float32)
        return replace(estimate, rays=np.moveaxis(lines, -1, 1), **self._cameras(ids))

    def _drop(self, window: set[int]) -> bool:
        """Leave out the keyframe that is missed least; False where all are in the window."""
        ids = list(self._keyframes)
        axes = np.stack([self._poses[i].R[2] for i in ids])
        near = (axes @ axes.T - 2 * np.eye(len(ids))).max(axis=1)
        free = [k for k in range(1, len(ids)) if ids[k] not in window]
        if not free:
            return False
        gone = ids[max(free, key=near.__getitem__)]
        for known in (self._keyframes, self._poses, self._parts):
            del known[gone]
        self._matches = {pair: m for pair, m in self._matches.items() if gone not in pair}
        poses = (np.stack(x) for x in zip(*self._poses.values(), strict=True))
        self._windows = [_Window(tuple(self._poses), _Pose(*poses))]
        return True


def _after(first, second):
    """The similarity (turn, scale, origin) of one and then another: x -> scale turn x + origin."""
    (A, a, p), (B, b, q) = first, second
    return B @ A, a * b, b * B @ p + q
