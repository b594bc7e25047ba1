"""`ray-pose evaluate`: accuracy of a checkpoint on photographs and rendered test objects."""

import argparse
import json
import zlib
from collections.abc import Iterator
from pathlib import Path


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        'evaluate', help='measure accuracy on folders with poses.json and on rendered objects'
    )
    parser.add_argument(
        'folders', type=Path, nargs='*', help='folders with poses.json and images/'
    )
    parser.add_argument('--rendered', type=int, default=0, help='number of rendered test objects')
    parser.add_argument('--views', type=int, nargs='+', default=[2, 5, 8], help='set sizes N')
    parser.add_argument('--subsets', type=int, default=20, help='random sets of each size')
    parser.add_argument('--within', type=float, default=180.0, help='degrees from the first axis')
    parser.add_argument('--checkpoint', type=Path, help='default: the shipped model')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--steps', type=int, help='network calls; default: what the model says')
    parser.add_argument('--samples', type=int, default=0, help='default: what suits the model')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='write all figures here as JSON')
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate and print a Markdown table."""
    import numpy as np
    from tqdm import tqdm

    from ray_pose_ros.estimation.estimator import Estimator

    from .metrics import Errors, random_azimuth, same_cameras
    from .sequences import read_folder, render_scene

    if not args.folders and not args.rendered:
        raise ValueError('nothing to evaluate: give folders with poses.json or --rendered COUNT')
    if min(args.views) < 2:
        raise ValueError(f'--views is {args.views}, expected 2 or more each')
    estimator = Estimator(
        args.checkpoint,
        device=args.device,
        steps=args.steps,
        samples=args.samples,
        seed=args.seed,
    )

    def sequences() -> Iterator[tuple[str, object, int]]:
        for folder in args.folders:
            yield folder.resolve().name, read_folder(folder), args.subsets
        for seed in range(args.rendered):
            # spread the subsets over the objects
            yield 'rendered', render_scene(seed), max(1, args.subsets // 10)

    total = len(args.folders) + args.rendered
    pooled: dict[tuple[str, int], dict[str, Errors]] = {}
    for name, sequence, subsets in tqdm(sequences(), total=total, unit='sequence'):
        prepared = [estimator.prepare(view) for view in sequence.views]
        centres = -np.einsum('nji,nj->ni', sequence.R, sequence.t)
        for views in args.views:
            # every sequence its own draws, whatever else is evaluated with it
            rng = np.random.default_rng([args.seed, views, zlib.crc32(sequence.name.encode())])
            errors = pooled.setdefault((name, views), {})
            for _ in range(subsets):
                chosen = draw_subset(sequence.R, views, args.within, rng)
                if chosen is None:
                    continue
                truth = sequence.R[chosen], sequence.t[chosen]
                found = estimator.solve([prepared[index] for index in chosen])
                answers = {'model': (found.R, found.t), 'same': same_cameras(views)}
                if sequence.up is not None:
                    answers['azimuth'] = random_azimuth(*truth, sequence.up, rng)
                for method, answer in answers.items():
                    errors.setdefault(method, Errors()).add(*answer, *truth, centres)
    results = [
        {
            'data': name,
            'views': views,
            'method': method,
            'within': args.within,
            **errors.summary(),
            'by_angle': errors.by_angle(),
        }
        for (name, views), methods in pooled.items()
        for method, errors in methods.items()
    ]
    print(markdown(results))
    if args.out:
        settings = {
            'checkpoint': str(args.checkpoint or 'shipped'),
            'steps': len(estimator.plan.steps),
            'samples': estimator.samples,
            'subsets': args.subsets,
            'seed': args.seed,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({'settings': settings, 'results': results}, indent=1))
    return 0


def draw_subset(R, views: int, within: float, rng):
    """Indices of `views` random views whose axes lie within an angle of the first's, or None."""
    import numpy as np

    order = rng.permutation(len(R))
    angle = np.degrees(np.arccos(np.clip(R[:, 2] @ R[order[0], 2], -1, 1)))
    chosen = [order[0]] + [index for index in order[1:] if angle[index] <= within]
    return np.array(chosen[:views]) if len(chosen) >= views else None


def markdown(results: list[dict]) -> str:
    """A table of the figures, methods side by side."""
    names = {
        'model': 'model',
        'same': 'all cameras the same',
        'azimuth': 'true elevation, random azimuth',
    }
    lines = [
        '| data | N | method | R@5 | R@15 | R@30 | median | CC@0.1 |',
        '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ]
    for row in results:
        shares = [f'{100 * row[key]:.0f} %' for key in ('R@5', 'R@15', 'R@30')]
        centre = '-' if row['views'] == 2 else f'{100 * row["CC@0.1"]:.0f} %'
        cells = [row['data'], row['views'], names[row['method']], *shares]
        cells += [f'{row["median"]:.0f} deg', centre]
        lines.append('| ' + ' | '.join(str(cell) for cell in cells) + ' |')
    return '\n'.join(lines)
