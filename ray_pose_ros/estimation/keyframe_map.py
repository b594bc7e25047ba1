"""The keyframes of all windows in one world, which stays while the window slides.

Windows are joined by the keyframes that they have in common (`multiview.windows`). Beside what is
published the map keeps what the model told of each window, unrefined: from that, an estimator that
refines can solve a `wider` window anew, with keyframes that have left. A camera that has come
round the object sees there again what it saw at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.packed_view import PackedView, packed
from ray_pose_ros.geometry.so3 import camera_centres, camera_translations
from ray_pose_ros.multiview.windows import Cameras, JoinedWindows, Similarity

# Fields of an estimate that have an entry for each view, besides poses and uncertainty, and those
# that are of one window only.
_EACH = {
    *('cameras', 'K', 'intrinsics_source', 'names', 'stamps', 'crops', 'turned', 'rays'),
    *('sure', 'matches'),  # of a refined one
}
_OF_WINDOW = {
    'doubts': None,
    'samples': None,
    'ray_matches': {},
    'pairs': np.zeros((0, 2), int),
    'model': None,
}
OPEN = 'assumed', 'matches'  # where from intrinsics are that matches may change
# Keyframes of a wider window, for each one of the window; and the most, for what they cost.
_WIDER, _WIDEST = 2, 24


@dataclass(frozen=True)
class Mapped:
    """Keyframes of a map in the order that they were taken in, and an estimate of them."""

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
        self._parts: dict[int, dict] = {}
        self._world, self._models = JoinedWindows(), JoinedWindows()

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
        self._keyframes |= {k.id: k for k in keyframes}
        try:
            there = _join(self._world, ids, estimate)
        except Exception:
            self._forget()  # what is half joined serves nobody; the next window begins anew
            raise
        poses = _poses_of(self._world.cameras(ids))
        moved = replace(estimate, rays=_moved(estimate.rays, there), **poses)
        self._note(ids, moved, _EACH)
        for i, keyframe in self._keyframes.items():
            if i not in ids:
                self._keyframes[i] = _left(keyframe)
        return moved

    def whole(self, newest: Any) -> Mapped:
        """The map; what is of no single view comes from the `newest` estimate that was joined."""
        ids = list(self._keyframes)
        found = self._mapped(ids, newest, self._world)
        if not hasattr(newest, 'ray_matches'):
            return found
        matches = self._world.among(ids)
        return replace(found, estimate=replace(found.estimate, ray_matches=matches))

    def part(self, keyframes: Sequence[Keyframe], newest: Any) -> Any:
        """The estimate of some keyframes as the map has it now; `newest` as of `whole`."""
        return self._mapped([k.id for k in keyframes], newest, self._world).estimate

    def refocus(self, others: Sequence[Keyframe], factor: float) -> None:
        """Take uncalibrated cameras to have focal lengths `factor` times as long as before.

        Poses stay until the next window, whose keyframes `others` are in place of those with the
        same ids.
        """
        self._keyframes |= {k.id: k for k in others if k.id in self._keyframes}
        inside = {k.id for k in others}
        ids = [i for i, part in self._parts.items() if part.get('intrinsics_source') in OPEN]
        for i in ids:
            part = self._parts[i]
            part['intrinsics_source'] = 'matches'
            part['cameras'] = part['cameras'].refocused(factor)
            prepared = self._keyframes[i].prepared
            if i not in inside and hasattr(prepared, 'refocus'):
                prepared.refocus()
        self._world.refocus(ids, factor)
        self._models.refocus(ids, factor)

    # -- wider windows --------------------------------------------------------------------------

    def tell(self, keyframes: Sequence[Keyframe], model: Any) -> None:
        """Take in what the model told of a window that was joined, unrefined."""
        _join(self._models, [k.id for k in keyframes], model)

    def wider(self, keyframes: Sequence[Keyframe], model: Any) -> Mapped | None:
        """The window that was told last, with keyframes that have left it, as the model sees them.

        In a world of its own, to be refined and given to `correct`. Those are chosen that look at
        the object from as many other sides as can be. None where the map has no others.

        Args:
            keyframes, model: as told.
        """
        inside = [k.id for k in keyframes]
        left = [i for i in self._keyframes if i in self._models.poses and i not in inside]
        chosen = self._spread(inside, left, min(_WIDER * len(inside), _WIDEST))
        if len(chosen) == len(inside):
            return None
        found = self._mapped(chosen, model, self._models)
        matches = self._models.among(chosen)
        return replace(found, estimate=replace(found.estimate, ray_matches=matches))

    def correct(self, keyframes: Sequence[Keyframe], refined: Any) -> None:
        """Take in the refined estimate of a wider window."""
        ids = [k.id for k in keyframes]
        _join(self._world, ids, refined)
        self._note(ids, refined, {'sure', 'matches'})

    def _spread(self, inside: list[int], left: list[int], most: int) -> list[int]:
        """At most so many ids: of the window, the first of those that have left it, and then of
        these always the one that is furthest from all chosen before. In order."""
        axes = {i: self._world.poses[i].R[2] for i in [*inside, *left]}
        chosen = list(inside)
        while len(chosen) < min(most, len(axes)):
            near = {i: max(axes[i] @ axes[k] for k in chosen) for i in left if i not in chosen}
            chosen.append(left[0] if chosen == inside else min(near, key=near.__getitem__))
        return sorted(chosen)

    # -- parts ----------------------------------------------------------------------------------

    def _note(self, ids: Sequence[int], estimate: Any, names: set[str]) -> None:
        """Keep what an estimate has of each view."""
        has = {f.name for f in fields(estimate)} & names
        for k, i in enumerate(ids):
            part = self._parts.setdefault(i, {})
            part.update({n: getattr(estimate, n)[k] for n in has if len(getattr(estimate, n))})

    def _mapped(self, ids: Sequence[int], newest: Any, windows: JoinedWindows) -> Mapped:
        """Keyframes as these windows have them; what is of no single view is of `newest`."""
        has = {f.name for f in fields(newest)}
        parts = [self._parts[i] for i in ids]
        of_views = {}
        for name in has.intersection(*parts):
            values = [part[name] for part in parts]
            as_array = isinstance(getattr(newest, name), np.ndarray)
            of_views[name] = np.stack(values) if as_array else tuple(values)
        of_window = {name: value for name, value in _OF_WINDOW.items() if name in has}
        poses = _poses_of(windows.cameras(ids))
        keyframes = tuple(self._keyframes[i] for i in ids)
        return Mapped(keyframes, replace(newest, **of_views, **of_window, **poses))

    def _drop(self, window: set[int]) -> bool:
        """Leave out the keyframe that is missed least; False where all are in the window."""
        ids = list(self._keyframes)
        axes = self._world.cameras(ids).R[:, 2]
        near = (axes @ axes.T - 2 * np.eye(len(ids))).max(axis=1)
        free = [k for k in range(1, len(ids)) if ids[k] not in window]
        if not free:
            return False
        gone = ids[max(free, key=near.__getitem__)]
        del self._keyframes[gone], self._parts[gone]
        self._world.drop(gone)
        self._models.drop(gone)
        return True


def _join(windows: JoinedWindows, ids: Sequence[int], estimate: Any) -> Similarity:
    told = Cameras(
        estimate.R,
        camera_centres(estimate.R, estimate.t),
        np.nan_to_num(estimate.rotation_sigma, nan=np.pi),
        np.nan_to_num(estimate.centre_sigma, nan=1.0),
    )
    sure = [i for i, s in zip(ids, getattr(estimate, 'sure', ()), strict=False) if s]
    return windows.join(ids, told, getattr(estimate, 'ray_matches', {}), sure)


def _poses_of(cameras: Cameras) -> dict[str, np.ndarray]:
    """Fields of an estimate."""
    R, centres, rotation_sigma, centre_sigma = cameras
    names = 'R', 't', 'rotation_sigma', 'centre_sigma'
    values = R, camera_translations(R, centres), rotation_sigma, centre_sigma
    return dict(zip(names, values, strict=True))


def _moved(rays: np.ndarray, there: Similarity) -> np.ndarray:
    """Pluecker rays (N, 6, h, w) in another world."""
    turn, scale, origin = there
    lines = np.moveaxis(rays, 1, -1)
    directions = lines[..., :3] @ turn.T
    moments = scale * lines[..., 3:] @ turn.T + np.cross(origin, directions)
    lines = np.concatenate([directions, moments], axis=-1).astype(np.float32)
    return np.moveaxis(lines, -1, 1)


def _left(keyframe: Keyframe) -> Keyframe:
    """A keyframe that has left the window: its image takes room, and few of its features are of
    use any more."""
    view = packed(keyframe.view)
    left = getattr(keyframe.prepared, 'left', None)
    prepared = left and left(view if isinstance(view, PackedView) else None)
    return replace(keyframe, prepared=prepared, view=view)
