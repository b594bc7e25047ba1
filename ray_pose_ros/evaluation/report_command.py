"""`ray-pose report`: measure what the documents quote, and write it into them."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from ray_pose_ros.estimation.options import check_least

DESCRIPTION = """\
Write tables, plots and figures into docs/results.md and README.md, from docs/results/*.json.

With --run it measures first: every run of docs/results/plan.yaml, or those named. Baselines do not
depend on the weights; their figures are kept if the sets of views, the true cameras and the pixels
are still the same, and measured anew with --baselines. A run that was killed goes on."""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        'report',
        help='write measured figures into docs/results.md and README.md',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--check', action='store_true', help='change nothing; fail where the documents differ')
    add('--run', nargs='*', metavar='NAME', help='measure first: all runs, or those named')
    add('--sets', type=Path, metavar='DIR', help='where the folders of photographs are')
    add('--baselines', action='store_true', help='measure the baselines too')
    add('--checkpoint', type=Path, metavar='DIR', help='default: the shipped model')
    add('--device', default='cpu', help='default cpu')
    add('--jobs', type=int, default=2, metavar='N', help='processes (default 2)')
    add('--root', type=Path, default=Path('.'), metavar='DIR', help='the repository (default .)')
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure if asked to, then write or check."""
    from .report import Report

    check_least(args, jobs=1)
    if args.sets and not args.sets.is_dir():
        raise ValueError(f'--sets is {args.sets}, expected a folder of folders of photographs')
    if args.run is None and (args.sets or args.baselines or args.checkpoint):
        raise ValueError('--sets, --baselines and --checkpoint are of what --run measures')
    report = Report(args.root)
    if args.check:
        if args.run is not None:
            raise ValueError('--check changes nothing, so --run cannot go with it')
        differences = report.differences()
        for difference in differences:
            print(f'differs from the stored results: {difference}')
        return 1 if differences else 0
    if args.run is not None:
        names = args.run or list(report.plan)
        for name in names:
            if name not in report.plan:
                raise ValueError(f'--run is {name!r}, expected some of {", ".join(report.plan)}')
        lacking = {name: _lacks(report.plan[name].sets, args.sets) for name in names}
        for name, what in lacking.items():
            if what and args.run:
                raise ValueError(f'{name} needs photographs: {what}')
        for name, what in lacking.items():
            if what:
                print(f'{name}: left as it is, {what}', file=sys.stderr)
            else:
                _measure(report, name, args)
    for file in report.write():
        print(file)
    return 0


def _lacks(sets, folder: Path | None) -> str:
    """In words, what is missing of the photographs of a run; '' for nothing."""
    if sets and folder is None:
        return 'no --sets'
    absent = [name for name in sets if not (folder / name).is_dir()]
    return f'{folder} has no {", ".join(absent)}' if absent else ''


def _measure(report, name: str, args: argparse.Namespace) -> None:
    from .report import RESULTS
    from .storage import write_json

    path = args.root / RESULTS / f'{name}.json'
    planned = report.plan[name]
    print(f'{name}: {planned.command}', file=sys.stderr)
    fresh = list(planned.methods) + (_available(planned.baselines) if args.baselines else [])
    results = measure(planned, fresh, args)
    if planned.baselines and not args.baselines:
        try:
            stored = report.results(name)
        except ValueError:
            stored = None
        refused = keep(results, stored, planned)
        for method in refused:
            print(
                f'{name}: no figures of {method} on these sets; measure them with --baselines',
                file=sys.stderr,
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, results)
    report.forget(name)


def _available(specs) -> list[str]:
    from .methods import MethodUnavailable, create_method

    found = []
    for spec in specs:
        try:
            create_method(spec, {'device': 'cpu', 'seed': 0})
            found.append(spec)
        except MethodUnavailable as error:
            print(f'{spec} is left out: {error}', file=sys.stderr)
    return found


def measure(planned, methods: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Results of a planned run with these methods; finished parts are kept in out/report/."""
    from . import command

    parser = command.add_parser(argparse.ArgumentParser().add_subparsers())
    folders = [str(args.sets / folder) for folder in planned.sets]
    words = [*folders, *shlex.split(planned.arguments), '--jobs', str(args.jobs)]
    words += ['--device', args.device, '--resume']
    if args.checkpoint:
        words += ['--checkpoint', str(args.checkpoint)]
    parsed = parser.parse_args([*words, '--methods', *methods])
    return command.evaluate(parsed, args.root / 'out' / 'report' / 'parts')


def keep(results: dict[str, Any], stored: dict[str, Any] | None, planned) -> list[str]:
    """Put the baselines' stored rows beside the fresh ones, where the sets are the same.

    Returns the baselines of which something is missing; their rows are left out altogether.
    """
    fresh = results['results']
    draws = {(row['data'], row['views']): row['draws'] for row in fresh}
    old = {} if stored is None else {
        (row['data'], row['views'], row['method']): row
        for row in stored['results']
        if draws.get((row['data'], row['views'])) == row['draws']
    }  # fmt: skip
    refused = [
        method for method in planned.baselines if any((*key, method) not in old for key in draws)
    ]
    kept = [method for method in planned.baselines if method not in refused]
    rows = []
    for data, views in draws:
        rows += [row for row in fresh if (row['data'], row['views']) == (data, views)]
        rows += [old[data, views, method] for method in kept]
    results['results'] = rows
    if kept:
        results['kept'] = kept
    return refused
