"""Views as a robot gets them: one after the other, in windows that slide, joined by the map."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import KeyframeBuffer
from ray_pose_ros.node.economy import Economy
from ray_pose_ros.node.lenses import Lenses, learned
from ray_pose_ros.node.solving import Answer, answers

WINDOW = {'window': int}  # the option, as `read_options` takes it


def windowed(method, window: int | None):
    """A method that estimates, on sliding windows of so many views; itself where that is None.

    Raises ValueError for a window of fewer than two views.
    """
    if window is None:
        return method
    if window < 2:
        raise ValueError(f'option window is {window}, expected 2 or more')
    return WindowedMethod(method, window)


class WindowedMethod:
    """What a node that has all the time it wants has made of the views after the last of them.

    The steps are the node's own. Only full windows are solved: of those before, the map forgets
    what they told.
    """

    def __init__(self, method, window: int):
        self.name, self.method, self.window = method.name, method, window

    def begin(self, sequence) -> None:
        self.method.begin(sequence)
        self._views = sequence.views

    def solve(self, indices: np.ndarray, rng: np.random.Generator):
        from .methods import answer_of

        begin = time.perf_counter()
        economy, lenses, count = Economy(self.method.solver()), Lenses(), len(indices)
        window, map_ = KeyframeBuffer(self.window), KeyframeMap(count)
        for n, index in enumerate(indices):
            view = lenses.on(self._views[int(index)])
            window.add('camera', n, '', economy.prepare(view), view)
            if n + 1 < min(self.window, count):
                continue
            last = _last(economy, window, map_)
            if last.model is None or not lenses.wants(last.keyframes):
                continue
            before = lenses.factor
            lenses, others = learned(
                lenses, economy, last.keyframes, last.model, window.window(), lambda: None
            )
            if others:
                window.exchange(others)
                map_.refocus(others, lenses.factor / before)
                last = _last(economy, window, map_)
        found = answer_of(last.mapped.estimate)
        return replace(found, seconds=time.perf_counter() - begin)


def _last(economy: Economy, window: KeyframeBuffer, map_: KeyframeMap) -> Answer:
    *_, last = answers(economy, window.window(), map_, lambda *_: None)
    return last
