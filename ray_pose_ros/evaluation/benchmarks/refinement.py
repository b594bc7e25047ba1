"""What exact poses cost: refinement next to the structure from motion that a user would run.

All on the same views of the same sets, from nothing but the images, and with as many threads as
torch has.
"""

import time
from dataclasses import replace

import numpy as np
import torch

from ray_pose_ros.evaluation.methods import Method, MethodUnavailable, create_method
from ray_pose_ros.evaluation.sequences import Sequence, read_folder, render_scene

from .timing import interleave, ratio, spread
from .workload import Options

WAYS = (
    'model',
    'refined',
    'refined:matcher=lighterglue',
    'lightglue-pairs',
    'lightglue-colmap',
)
ONE_MORE = 'refined, one new keyframe'
_ROUNDS = 3


def measure(options: Options) -> dict:
    """Rows by set and number of views: seconds of each way, and how many times `refined` it is.

    'refined, one new keyframe' is what a node pays: all but one view are known with their matches.
    A way whose packages are missing has None. Rendered objects stand in where no sets are given.
    """
    methods = {name: _method(name, options) for name in WAYS}
    count = max(options.views)
    rows = []
    for sequence in _sequences(options, count):
        draw = np.arange(count)
        cases = {
            name: _from_nothing(method, sequence, draw)
            for name, method in methods.items()
            if method is not None
        }
        cases[ONE_MORE] = _one_more(methods['refined'], sequence, draw)
        found = interleave(cases, min(options.repeats, _ROUNDS))
        base = found['refined']['solve']
        for name in (*WAYS, ONE_MORE):
            times = found[name]['solve'] if name in found else None
            rows.append(
                {
                    'set': sequence.name,
                    'views': len(draw),
                    'way': name,
                    'time': None if times is None else spread(times),
                    'ratio': None if times is None else ratio(times, base),
                }
            )
    return {'rows': rows}


def _sequences(options: Options, count: int) -> list[Sequence]:
    """Sets of `count` views, drawn at random, with their images in memory."""
    found = [read_folder(path) for path in options.sets]
    if not found:
        found = [render_scene(index, count) for index in range(min(options.objects, 2))]
    drawn = []
    for sequence in found:
        if len(sequence.views) < count:
            raise ValueError(
                f'{sequence.name} has {len(sequence.views)} views, expected {count} or more'
            )
        draw = np.random.default_rng(0).permutation(len(sequence.views))[:count]
        views = tuple(sequence.views[int(index)] for index in draw)
        drawn.append(replace(sequence, views=views, R=sequence.R[draw], t=sequence.t[draw]))
    return drawn


def _method(name: str, options: Options) -> Method | None:
    threads = f':threads={torch.get_num_threads()}' if name.endswith('colmap') else ''
    given = {'checkpoint': options.checkpoint, 'device': options.device}
    try:
        return create_method(name + threads, given)
    except MethodUnavailable:
        return None


def _from_nothing(method: Method, sequence: Sequence, draw: np.ndarray):
    def run() -> dict[str, float]:
        method.begin(sequence)  # forgets what was cached
        begin = time.perf_counter()
        method.solve(draw, np.random.default_rng(0))
        return {'solve': time.perf_counter() - begin}

    return run


def _one_more(method: Method, sequence: Sequence, draw: np.ndarray):
    def run() -> dict[str, float]:
        method.begin(sequence)
        method.solve(draw[:-1], np.random.default_rng(0))
        begin = time.perf_counter()
        method.solve(draw, np.random.default_rng(0))
        return {'solve': time.perf_counter() - begin}

    return run
