"""
The focal length of cameras that nobody has calibrated, as matches tell it. No ROS import.

Until it is known, a field of view is assumed. All such cameras are taken to be alike: their focal
lengths, over the longer sides of their images, are the assumed one times one factor, which the
matches of several windows tell together (`refinement/focal.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_pose_ros.estimation.keyframe_map import OPEN
from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.node.economy import Economy

BY_MATCHES = 'matches'
SETTLED = 3  # windows that tell it together, and are enough
_TRIES = 12  # windows that are looked at in all; long lenses never tell
_FEWEST = 3  # keyframes that can tell
_CHANGE = 0.01  # of the log, for which all is not solved again


@dataclass(frozen=True)
class Lenses:
    """What is known of it.

    Attributes:
        factor: focal length over the assumed one. sigma: of its log, one standard deviation; None
            as long as it is the assumed one.
        told: ids of the keyframes of each window that told something, and the nats that it told.
        tried: ids of the window that was looked at last. tries: how many were.
    """

    factor: float = 1.0
    sigma: float | None = None
    told: tuple[tuple[frozenset[int], np.ndarray], ...] = ()
    tried: frozenset[int] = frozenset()
    tries: int = 0

    @property
    def known(self) -> bool:
        """Whether it is better known than by what is assumed."""
        return self.sigma is not None

    @property
    def settled(self) -> bool:
        """Whether nothing more is looked for."""
        return self.tries >= _TRIES or (self.known and len(self.told) >= SETTLED)

    @property
    def nats(self) -> np.ndarray | float:
        """What the windows tell together of each length that is tried."""
        return sum((nats for _, nats in self.told), 0.0)

    def __str__(self) -> str:
        """In words, for people."""
        if not self.known:
            return 'assumed'
        return f'by matches, {self.factor:.3g} times the assumed one, +-{100 * self.sigma:.0f} %'

    def on(self, view: Any) -> Any:
        """A view without intrinsics with those that are known by now; any other as it is."""
        blank = getattr(view, 'camera', view) is None
        if not self.known or not (blank or getattr(view, 'camera_source', '') == BY_MATCHES):
            return view
        from ray_pose_ros.estimation.preparation import ASSUMED_FOCAL, pinhole

        height, width = view.image.shape[:2]
        camera = pinhole(self.factor * ASSUMED_FOCAL * max(width, height), width, height)
        return replace(view, camera=camera, camera_source=BY_MATCHES)

    def wants(self, keyframes: Sequence[Keyframe]) -> bool:
        """Whether a window is worth a look."""
        if self.settled or len(keyframes) < _FEWEST or not any(map(_open, keyframes)):
            return False
        return not self.known or self._new(keyframes)

    def urgent(self, keyframes: Sequence[Keyframe]) -> bool:
        """Whether a window that it `wants` is worth that newer keyframes wait."""
        return not self.known and self._new(keyframes)

    def after(self, keyframes: Sequence[Keyframe], focal: Any) -> Lenses:
        """With what a window tells, a `Focal` or None; it replaces those that it has most of."""
        ids = _ids(keyframes)
        more = {'tried': ids, 'tries': self.tries + 1}
        if focal is None:
            return replace(self, **more)
        told = (*self._besides(ids), (ids, focal.nats))
        if focal.known:
            more['sigma'] = focal.sigma
            if not self.known or abs(math.log(focal.factor / self.factor)) > _CHANGE:
                more['factor'] = focal.factor
        return replace(self, told=told, **more)

    def before(self, keyframes: Sequence[Keyframe]) -> np.ndarray | float:
        """What other windows tell, as `find_focal` wants it."""
        return replace(self, told=self._besides(_ids(keyframes))).nats

    def _new(self, keyframes: Sequence[Keyframe]) -> bool:
        ids = _ids(keyframes)
        return 2 * len(ids & self.tried) <= len(ids)

    def _besides(self, ids: frozenset[int]) -> tuple:
        return tuple(x for x in self.told if 2 * len(x[0] & ids) <= len(x[0]))


def learned(
    lenses: Lenses,
    economy: Economy,
    keyframes: Sequence[Keyframe],
    model: Any,
    window: Sequence[Keyframe],
    check: Callable[[], None],
) -> tuple[Lenses, list[Keyframe]]:
    """
    Have the matches of a window tell more, and prepare with it what was prepared otherwise.

    Args:
        keyframes, model: the window that was solved, and what the model told of it.
        window: the keyframes that are solved next. check: called between steps; it may raise.

    Returns what is known then, and those keyframes of the window that are other ones with it.
    """
    found = economy.focal(
        [k.prepared for k in keyframes],
        model,
        lenses.factor,
        lenses.before(keyframes),
        lambda *_: check(),
    )
    told = lenses.after(keyframes, found)
    others = []
    for keyframe in window if told.factor != lenses.factor else ():
        view = told.on(keyframe.view)
        if view is not keyframe.view:
            prepared = economy.refocused(keyframe.prepared, view)
            others.append(replace(keyframe, prepared=prepared, view=view))
            check()
    return told, others


def _open(keyframe: Keyframe) -> bool:
    """Whether the focal length of a keyframe's camera is for matches to tell."""
    return getattr(keyframe.prepared, 'intrinsics_source', None) in OPEN


def _ids(keyframes: Sequence[Keyframe]) -> frozenset[int]:
    return frozenset(k.id for k in keyframes)
