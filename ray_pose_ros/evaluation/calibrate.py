"""`ray-pose calibrate`: fit the uncertainty that a checkpoint tells to the errors it makes."""

import argparse
from pathlib import Path

MOST_VIEWS = 20  # of one sequence that are looked at
FIRST_SEED = 100_000  # far from the scenes that `ray-pose evaluate --rendered` measures on


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        'calibrate', help="fit a checkpoint's told uncertainty to the errors that it makes"
    )
    parser.add_argument('checkpoint', type=Path, help="in the project's own format; changed")
    parser.add_argument(
        'folders',
        type=Path,
        nargs='*',
        metavar='FOLDERS',
        help='photographs with known cameras to fit on as well, as for `ray-pose evaluate`; '
        'together they count as much as the rendered objects',
    )
    parser.add_argument('--scenes', type=int, default=40, help='rendered objects to fit on')
    parser.add_argument('--first-seed', type=int, default=FIRST_SEED)
    parser.add_argument('--views', type=int, nargs='+', default=[2, 3, 5, 8])
    parser.add_argument('--subsets', type=int, default=4, help='of each size from each sequence')
    parser.add_argument('--samples', type=int, default=0, help='default: what suits the model')
    parser.add_argument('--device', default='auto')
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, fit, and write the terms into the checkpoint's configuration."""
    from ray_pose_ros.estimation.estimator import Estimator
    from ray_pose_ros.model.checkpoint import change_settings, load_checkpoint

    from .sigma_fit import MATCHED, RAYS, fit_terms

    if args.scenes < 1 or args.subsets < 1 or min(args.views) < 2:
        raise ValueError(
            f'--scenes {args.scenes}, --subsets {args.subsets}, --views {args.views}: expected '
            'at least 1, 1 and 2'
        )
    # the adjustment to matches weighs the rays by their uncertainty, which has to be right first
    stages = [('rotation_sigma', 'centre_sigma', RAYS)]
    # loaded past the check of pinned sums: this command changes the settings on purpose
    if load_checkpoint(args.checkpoint).config.rematch:
        stages.append(('matched_rotation_sigma', 'matched_centre_sigma', MATCHED))
    for *names, formula in stages:
        estimator = Estimator(
            load_checkpoint(args.checkpoint),
            device=args.device,
            samples=args.samples,
            use_matches=formula is MATCHED,
        )
        told = {}
        tables = measure(estimator, args)  # of rotations and of centres, by kind of sequence
        for which, name in enumerate(names):
            before = getattr(estimator.model.config, name)
            told[name] = fit_terms(formula, [of_kind[which] for of_kind in tables.values()])
            print(f'{name}: {[round(x, 4) for x in told[name]]}')
            for kind, of_kind in tables.items():
                print(
                    f'  {kind}: mean negative log-likelihood '
                    f'{formula.cost(before, of_kind[which]):.3f} -> '
                    f'{formula.cost(told[name], of_kind[which]):.3f}, '
                    f'{len(of_kind[which])} views'
                )
        change_settings(args.checkpoint, told)
    return 0


def measure(estimator, args: argparse.Namespace) -> dict[str, tuple]:
    """Tables of doubts and errors of rotations and of centres, see `doubts_and_errors`.

    By kind of sequence, 'rendered' and, where folders are given, 'photographs'.
    """
    import numpy as np
    from tqdm import tqdm

    from .sources import RENDERED, Source, find_sources

    seeds = range(args.first_seed, args.first_seed + args.scenes)
    sources = [Source('rendered', RENDERED, RENDERED, seed=seed) for seed in seeds]
    sources += find_sources(args.folders)
    tables: dict[str, tuple[list, list]] = {}
    for number, source in enumerate(tqdm(sources, unit='sequence')):
        sequence = source.load()
        rng = np.random.default_rng(args.first_seed + number)
        some = rng.permutation(len(sequence.views))[:MOST_VIEWS]
        prepared = {int(i): estimator.prepare(sequence.views[i]) for i in some}
        kind = RENDERED if source.kind == RENDERED else 'photographs'
        of_kind = tables.setdefault(kind, ([], []))
        for views in args.views:
            for _ in range(args.subsets):
                chosen = rng.permutation(some)[:views]
                found = estimator.solve([prepared[int(i)] for i in chosen])
                rows = doubts_and_errors(found, sequence.R[chosen], sequence.t[chosen])
                for table, new in zip(of_kind, rows, strict=True):
                    table.append(new)
    return {kind: tuple(map(np.concatenate, of_kind)) for kind, of_kind in tables.items()}


def doubts_and_errors(estimate, R_true, t_true):
    """Rows (N - 1, 4) of the doubts' inputs and the error, of every view but the first; two sets.

    Errors of rotations are relative to the first camera, in radians. Errors of centres are in
    distances of the first camera, after the truth was moved into the first camera's axes and
    scaled as a whole (by least squares about the first camera, as the scale is arbitrary).
    """
    import numpy as np
    import torch

    from ray_pose_ros.geometry.rotations import geodesic_angle
    from ray_pose_ros.geometry.so3 import camera_centres

    relative = R_true @ R_true[0].T
    off = geodesic_angle(torch.from_numpy(estimate.R), torch.from_numpy(relative)).numpy()
    centres = camera_centres(R_true, t_true)
    true = (centres - centres[0]) @ R_true[0].T
    found = estimate.centres - estimate.centres[0]
    scale = (found * true).sum() / max((true * true).sum(), 1e-12)
    shift = np.linalg.norm(found - max(scale, 1e-3) * true, axis=1)
    rotation, centre = estimate.doubts.inputs
    return np.column_stack([rotation, off])[1:], np.column_stack([centre, shift])[1:]
