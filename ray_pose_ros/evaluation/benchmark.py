"""`ray-pose benchmark`: how long the estimator takes, by stage and number of views."""

import argparse
import platform
from pathlib import Path

STAGES = ('features', 'denoise', 'recover')


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser('benchmark', help='time the estimator by stage')
    parser.add_argument('--views', type=int, nargs='+', default=[2, 4, 8])
    parser.add_argument('--checkpoint', type=Path, help='default: the shipped model')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--steps', type=int, help='network calls; default: what the model says')
    parser.add_argument('--samples', type=int, default=0, help='default: what suits the model')
    parser.add_argument('--repeats', type=int, default=5, help='timed runs, after one to warm up')
    return parser


def run(args: argparse.Namespace) -> int:
    """Time and print a Markdown table of medians in milliseconds."""
    import numpy as np
    import torch

    from ray_pose_ros.estimation.estimator import Estimator

    from .sequences import render_scene

    if min(args.views) < 2 or args.repeats < 1:
        raise ValueError(
            f'--views is {args.views} and --repeats {args.repeats}, expected 2 and 1 or more'
        )
    estimator = Estimator(
        args.checkpoint, device=args.device, steps=args.steps, samples=args.samples
    )
    views = render_scene(0, max(args.views)).views
    if len(views) < max(args.views):
        raise ValueError(f'--views is {args.views}, expected at most {len(views)}')
    name = platform.processor() or platform.machine()
    where = f'{torch.get_num_threads()} threads of {name}'
    if estimator.device.type == 'cuda':
        where = torch.cuda.get_device_name(estimator.device)
    print(
        f'{where}, torch {torch.__version__}, {len(estimator.plan.steps)} network call(s), '
        f'up to {estimator.samples} samples; medians of {args.repeats} runs, ms\n'
    )
    print('| N | features, once a keyframe | denoise | recover | all |\n|' + ' --- |' * 5)
    for count in args.views:
        estimator.estimate(views[:count])
        times = [estimator.estimate(views[:count]).timings for _ in range(args.repeats)]
        stages = [1000 * float(np.median([t[stage] for t in times])) for stage in STAGES]
        print(f'| {count} | ' + ' | '.join(f'{x:.0f}' for x in [*stages, sum(stages)]) + ' |')
    return 0
