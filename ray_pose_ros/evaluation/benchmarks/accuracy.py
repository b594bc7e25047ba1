"""The sampler's cost against its accuracy: the same rendered test objects for all settings."""

import numpy as np
import torch

from ray_pose_ros.evaluation.sequences import render_scene
from ray_pose_ros.geometry.similarity import relative_rotation_errors

from .timing import spread
from .workload import Options

STEPS, SAMPLES = (1, 4, 10), (1, 8)
_SETS = 3  # random sets of views from each object
_FIRST_OBJECT = 0


def measure(options: Options) -> list[dict]:
    """A row for each number of views, steps and samples.

    'R@15' is the share of ordered pairs of views whose relative rotation is off by less than 15
    degrees, 'median_deg' the median error, 'standard_error' that of R@15 over the sets of views;
    'solve' the milliseconds of denoising and recovery. Settings take turns within each set.
    """
    base = options.estimator()
    most = max(options.views)
    estimators = {
        (steps, samples): options.estimator(base.model, steps=steps, samples=samples)
        for steps in STEPS
        for samples in SAMPLES
    }
    errors: dict[tuple, list[np.ndarray]] = {}
    seconds: dict[tuple, list[float]] = {}
    rng = np.random.default_rng(0)
    base.estimate(render_scene(_FIRST_OBJECT, 2).views)  # warms up
    for index in range(options.objects):
        sequence = render_scene(_FIRST_OBJECT + index, most + 2)
        prepared = [base.prepare(view) for view in sequence.views]
        for count in options.views:
            if len(prepared) < count:
                continue
            for _ in range(_SETS):
                chosen = rng.permutation(len(prepared))[:count]
                for setting in rng.permutation(len(estimators)):
                    key = (count, *list(estimators)[setting])
                    found = estimators[key[1:]].solve([prepared[i] for i in chosen])
                    off = relative_rotation_errors(
                        torch.from_numpy(found.R), torch.from_numpy(sequence.R[chosen])
                    )
                    errors.setdefault(key, []).append(off.numpy())
                    taken = found.timings['denoise'] + found.timings['recover']
                    seconds.setdefault(key, []).append(taken)
    return [_row(key, errors[key], seconds[key]) for key in sorted(errors)]


def _row(key: tuple[int, int, int], errors: list[np.ndarray], seconds: list[float]) -> dict:
    pooled = np.concatenate(errors)
    shares = np.array([(e < 15).mean() for e in errors])
    return {
        'views': key[0],
        'steps': key[1],
        'samples': key[2],
        'R@15': float((pooled < 15).mean()),
        'standard_error': float(shares.std(ddof=1) / len(shares) ** 0.5)
        if len(shares) > 1
        else None,
        'median_deg': float(np.median(pooled)),
        'pairs': len(pooled),
        'sets': len(errors),
        'solve': spread(seconds, 1e3),
    }
