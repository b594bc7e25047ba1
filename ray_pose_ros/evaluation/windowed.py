"""Views as a robot gets them: one after the other, in windows that slide, joined by the map."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import Keyframe

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

    Only full windows are solved: of those before, the map forgets what they told.
    """

    def __init__(self, method, window: int):
        self.name, self.method, self.window = method.name, method, window

    def begin(self, sequence) -> None:
        self.method.begin(sequence)

    def solve(self, indices: np.ndarray, rng: np.random.Generator):
        from .methods import answer_of

        map_ = KeyframeMap(len(indices))
        # as from nothing, but once: the node keeps features and matches from window to window
        begin = time.perf_counter() - self.method.cached(indices)
        for end in range(min(self.window, len(indices)), len(indices) + 1):
            inside = range(max(0, end - self.window), end)
            estimate, _ = self.method.estimate(indices[list(inside)], rng)
            keyframes = [Keyframe(k, 'camera', k, '', self._kept(indices[k])) for k in inside]
            joined = map_.join(keyframes, estimate)
            model = getattr(estimate, 'model', None)
            if model is not None:
                map_.tell(keyframes, model)
                wide = map_.wider(keyframes, model)
                if wide is not None:
                    kept = [k.prepared for k in wide.keyframes]
                    map_.correct(wide.keyframes, self.method.again(kept, wide.estimate))
        answer = answer_of(map_.whole(joined).estimate)
        return replace(answer, seconds=time.perf_counter() - begin)

    def _kept(self, index: int):
        keep = getattr(self.method, 'kept', None)
        return keep and keep(int(index))
