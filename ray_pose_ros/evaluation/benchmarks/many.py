"""Many views at once: what exact poses of them cost, and how exact they are.

Each way once, from nothing but the images, with as many threads as torch has.
"""

import time

import numpy as np

from ray_pose_ros.evaluation.metrics import solve_errors, summary

from .refinement import create, drawn_sets
from .workload import Options

COUNTS = 16, 32  # views
WAYS = 'model', 'refined', 'refined:matcher=lighterglue', 'colmap', 'lightglue-colmap'


def measure(options: Options) -> dict:
    """Rows by number of views, set and way: seconds, how many times `refined` that is, and errors.

    Of sets that have so many views; a way whose packages are missing is left out.
    """
    made = {name: create(name, options) for name in WAYS}
    methods = {name: method for name, method in made.items() if method is not None}
    rows = []
    for count in COUNTS:
        for sequence in drawn_sets(options, count, skip=True):
            found = {}
            for name, method in methods.items():
                _warm_up(method, sequence)
                method.begin(sequence)  # forgets what was cached
                begin = time.perf_counter()
                answer = method.solve(np.arange(count), np.random.default_rng(0))
                seconds = time.perf_counter() - begin
                errors = solve_errors(answer, sequence.R, sequence.t, sequence.centres)
                found[name] = seconds, summary([errors])
            for name, (seconds, told) in found.items():
                rows.append(
                    {
                        'set': sequence.name,
                        'views': count,
                        'way': name,
                        'seconds': seconds,
                        'ratio': seconds / found['refined'][0],
                        **{key: told[key] for key in ('R@5', 'R@15', 'median')},
                    }
                )
    return {'rows': rows, 'repeats': 1}


def _warm_up(method, sequence) -> None:
    method.begin(sequence)
    method.solve(np.arange(3), np.random.default_rng(0))
