"""
What becomes of one window: answers that get better, and the map. No ROS import.

The model's poses come first, refined by what is known of its keyframes, then refined ones, maybe
in two steps, then those of a second look, if any. At last a wider window is refined, with
keyframes of the map that have left this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_pose_ros.estimation.keyframe_map import KeyframeMap, Mapped
from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.node.economy import Economy


@dataclass(frozen=True)
class Answer:
    """An answer for a window, or where memory did not suffice for the newest keyframes of it.

    Attributes:
        keyframes: of which it is. estimate: of them, in the map's world if there is a map.
        mapped: the map with it.
        window_sigma: (N,) rad, of rotations within the window; the estimate's are of the map.
        seconds: what was done for it, after the answer before.
        model: what the model told of the window, unrefined; None where nothing is refined.
    """

    keyframes: tuple[Keyframe, ...]
    estimate: Any
    mapped: Mapped | None
    window_sigma: np.ndarray
    seconds: dict[str, float]
    model: Any = None


def answers(
    economy: Economy,
    window: Sequence[Keyframe],
    map_: KeyframeMap | None,
    progress: Callable[[int, int], None],
) -> Iterator[Answer]:
    """The answers for a window; nothing is done for another one before it is asked for.

    `progress` may raise to give it up. Raises FloatingPointError for an answer that is not finite,
    and what `economy.looks` raises.
    """
    keyframes, newest, model = (), None, None
    try:
        begin, before = time.monotonic(), None
        for told, count in economy.looks([k.prepared for k in window], progress=progress):
            _check_finite(told)
            keyframes = tuple(window[len(window) - count :])
            seconds = _stages(told, before, time.monotonic() - begin)
            newest, mapped = told, None
            if map_ is not None:
                begin = time.monotonic()
                newest = map_.join(keyframes, told)
                mapped = map_.whole(newest)
                seconds['join'] = time.monotonic() - begin
            model = getattr(told, 'model', None)
            yield Answer(keyframes, newest, mapped, told.rotation_sigma, seconds, model)
            begin, before = time.monotonic(), told
    finally:  # a window that was given up has told something, too
        if model is not None and map_ is not None:
            map_.tell(keyframes, model)
    if model is not None and map_ is not None:
        yield from _wider(economy, keyframes, map_, newest, model, progress)


def _wider(
    economy: Economy,
    keyframes: tuple[Keyframe, ...],
    map_: KeyframeMap,
    newest: Any,
    model: Any,
    progress: Callable[[int, int], None],
) -> Iterator[Answer]:
    begin = time.monotonic()
    wide = map_.wider(keyframes, model)
    if wide is None:
        return
    refined = economy.refine([k.prepared for k in wide.keyframes], wide.estimate, progress)
    if refined is None:
        return
    _check_finite(refined)
    map_.correct(wide.keyframes, refined)
    place = {k.id: n for n, k in enumerate(wide.keyframes)}
    inside = [place[k.id] for k in keyframes]
    yield Answer(
        keyframes,
        map_.part(keyframes, newest),
        map_.whole(newest),
        refined.rotation_sigma[inside],
        {'wider_window': time.monotonic() - begin},
        model,
    )


def _check_finite(estimate: Any) -> None:
    if not (np.isfinite(estimate.R).all() and np.isfinite(estimate.t).all()):
        raise FloatingPointError('the solution is not finite')


def _stages(estimate: Any, before: Any, seconds: float) -> dict[str, float]:
    """Where the seconds of an answer after another one went, as it is told in diagnostics."""
    timings = estimate.timings
    if before is None:
        # its 'features' are those of the whole window, most of them computed long ago
        return {'solve': seconds, **{k: v for k, v in timings.items() if k != 'features'}}
    if timings.get('match') != before.timings.get('match'):
        return {k: timings[k] for k in ('match', 'refine')}
    return {'second_look': seconds}
