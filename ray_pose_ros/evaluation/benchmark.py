"""`ray-pose benchmark`: how fast, how much memory, next to the plain way, and how it grows."""

import argparse
import json
import sys
from pathlib import Path

from ray_pose_ros.estimation.outputs import check_writable

SECTIONS = ('latency', 'startup', 'ratios', 'accuracy', 'scale')
EXTRA = ('refinement', 'many', 'ros', 'setup')
NOTES = """\
Sections: latency (by views, steps, samples, precision, device), startup (start and peak memory in
fresh processes), ratios (to the plain implementation, side by side), accuracy (the sampler's cost
against it), scale (to 64 views, 256 samples, 1000 keyframes), and on request refinement
(beside LightGlue with COLMAP), many (the same of 16 and 32 views), ros and setup.

examples:
  ray-pose benchmark --ros --json figures.json --markdown figures.md
  ray-pose benchmark --only ratios --device cuda --official-size
  ray-pose benchmark --from figures.json --markdown figures.md      (measures nothing)"""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        'benchmark',
        help='measure speed, memory and how they grow',
        description='Measures, and prints tables of medians with quartiles in brackets.',
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--only', nargs='+', choices=(*SECTIONS, *EXTRA), metavar='SECTION')
    add('--refinement', action='store_true', help='also exact poses, beside LightGlue and COLMAP')
    add('--many', action='store_true', help='also exact poses of many views, beside the same')
    add(
        '--sets', type=Path, nargs='+', default=[], metavar='DIR', help='photographs for these two'
    )
    add('--ros', action='store_true', help='also end to end through ROS 2, in other processes')
    add('--setup', action='store_true', help='also scripts/setup into a temporary folder')
    add('--views', type=int, nargs='+', default=[2, 4, 8], metavar='N')
    add('--scale', type=int, nargs='+', default=[2, 4, 8, 16, 32, 64], metavar='N')
    add('--checkpoint', type=Path, metavar='DIR', help='default: the shipped model')
    add('--device', nargs='+', default=['auto'], help='auto, cpu, cuda; latency takes several')
    add('--steps', type=int, help='network calls; default: what the model says')
    add('--samples', type=int, default=0, help='default: what suits the model')
    add('--repeats', type=int, default=5, help='timed rounds, after one to warm up')
    add('--objects', type=int, default=4, help='rendered test objects for the accuracy')
    add('--official-size', action='store_true', help='the official loop on its real network')
    add('--loop-steps', type=int, default=100, help='of the official loop (default 100)')
    add('--json', type=Path, metavar='FILE', help='keep the figures here, section by section')
    add('--markdown', type=Path, metavar='FILE', help='write the tables here too')
    add('--from', type=Path, metavar='FILE', dest='stored', help='print stored figures only')
    return parser


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from .benchmarks.report import read, tables

    if args.stored and (args.only or args.json):
        raise ValueError('--from measures nothing, so --only and --json cannot go with it')
    if args.stored:
        figures = read(args.stored)
    else:
        figures = _measure(args)
    text = tables(figures)
    print(text)
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(text + '\n', encoding='utf-8')
    return 0


def _measure(args: argparse.Namespace) -> dict:
    from .benchmarks import ros, sections, setup_time
    from .benchmarks.report import read
    from .benchmarks.workload import Options

    options = Options(
        views=tuple(args.views),
        repeats=args.repeats,
        checkpoint=args.checkpoint,
        devices=tuple(args.device),
        steps=args.steps,
        samples=args.samples,
        scale=tuple(args.scale),
        objects=args.objects,
        official_size=args.official_size,
        loop_steps=args.loop_steps,
        sets=tuple(args.sets),
    )
    wanted = list(args.only or SECTIONS)
    wanted += [name for name in EXTRA if getattr(args, name) and name not in wanted]
    if args.sets and not {'refinement', 'many'} & set(wanted):
        raise ValueError('--sets are of --refinement and --many, which are not asked for')
    # what is not to be had, or cannot be written, is said before minutes of measuring
    for path in filter(None, (args.json, args.markdown)):
        check_writable(path)
    if args.json and args.json.is_file():
        read(args.json)
    if 'ros' in wanted:
        ros.check_available()
    if 'setup' in wanted:
        setup_time.check_available()
    figures = {}
    for name in wanted:
        print(f'measuring {name} ...', file=sys.stderr, flush=True)
        figures[name] = sections.measure(name, options)
        warning = figures[name]['warning']
        if warning:
            print(f'warning: {name}: {warning}', file=sys.stderr, flush=True)
        if args.json:
            _keep(args.json, name, figures[name])
    return figures


def _keep(path: Path, name: str, section: dict) -> None:
    """Put a section into the file; the others there stay."""
    from .benchmarks.report import read

    stored = read(path) if path.is_file() else {}
    stored[name] = section
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=1) + '\n', encoding='utf-8')
