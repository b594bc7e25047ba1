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
# What the node tells of a window that has one new keyframe, from its image on.
NODE = {
    'node, one new keyframe: first poses': 'first',
    'node, one new keyframe: first that are refined with it': 'joined',
    'node, one new keyframe: refined': 'last',
}
_ROUNDS = 3


def measure(options: Options) -> dict:
    """Rows by set and number of views: seconds of each way, and how many times `refined` it is.

    The node knows all but one view with their matches, and tells poses before it has matched that.
    A way whose packages are missing has None. Rendered objects stand in where no sets are given.
    """
    methods = {name: create(name, options) for name in WAYS}
    count = max(options.views)
    rows = []
    for sequence in drawn_sets(options, count):
        draw = np.arange(count)
        cases = {
            name: _from_nothing(method, sequence, draw)
            for name, method in methods.items()
            if method is not None
        }
        cases['node'] = _one_more(methods['refined'], sequence, draw)
        found = interleave(cases, min(options.repeats, _ROUNDS))
        base = found['refined']['solve']
        taken = {name: found[name]['solve'] for name in cases if name in WAYS}
        taken |= {name: found['node'][part] for name, part in NODE.items()}
        for name in (*WAYS, *NODE):
            times = taken.get(name)
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


def drawn_sets(options: Options, count: int, skip: bool = False) -> list[Sequence]:
    """Sets of `count` views, drawn at random, with their images in memory.

    Where a set has fewer it is left out with `skip`, and a ValueError without.
    """
    found = [read_folder(path) for path in options.sets]
    if not found:
        found = [render_scene(index, count) for index in range(min(options.objects, 2))]
    drawn = []
    for sequence in found:
        if len(sequence.views) < count:
            if skip:
                continue
            raise ValueError(
                f'{sequence.name} has {len(sequence.views)} views, expected {count} or more'
            )
        draw = np.random.default_rng(0).permutation(len(sequence.views))[:count]
        views = tuple(sequence.views[int(index)] for index in draw)
        drawn.append(replace(sequence, views=views, R=sequence.R[draw], t=sequence.t[draw]))
    return drawn


def create(name: str, options: Options) -> Method | None:
    """The method; None where its packages are missing."""
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
    from ray_pose_ros.refinement.refining import RefiningEstimator

    estimator = RefiningEstimator(method.prior.estimator, method.matchers)
    *before, newest = (sequence.views[int(index)] for index in draw)

    def run() -> dict[str, float]:
        prepared = [estimator.prepare(view) for view in before]
        estimator.solve(prepared)
        begin = time.perf_counter()
        looks = estimator.looks([*prepared, estimator.prepare(newest)])
        told = [time.perf_counter() - begin for _ in looks]
        return {'first': told[0], 'joined': told[1], 'last': told[-1]}

    return run
