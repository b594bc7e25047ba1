"""`ray-pose evaluate`: accuracy of the model and of what one would use instead."""

import argparse
import sys
from pathlib import Path

from ray_pose_ros.estimation.options import check_least
from ray_pose_ros.estimation.outputs import check_writable

USUAL_METHODS = ['model', 'same', 'azimuth']
DESCRIPTION = """\
Measure methods on the same random sets of views.

FOLDERS are recognised by what is in them: poses.json (as `ray-pose estimate` writes it), a COLMAP
model (text or binary, in the folder, sparse/ or sparse/0, photographs in images/), or CO3Dv2 (its
root, or a category in it; the few-view lists decide on the sequences)."""
NOTES = """\
methods:
  model                          the checkpoint; options of its own as in model:steps=4,samples=1;
                                 model:window=8: the views one after the other, as the node gets
                                 them, in sliding windows joined by its map
  same, azimuth                  references: all cameras the same; true elevation, random azimuth
  others                         baselines, with optional packages; a wrong name lists them all

columns:
  sure, sure and wrong           share of pairs that are told to be within 15 degrees, and of those
                                 that are and are not; methods that tell no uncertainty are sure of
                                 all that they place

examples:
  ray-pose evaluate --rendered 24 --views 2 5 8 --subsets 40
  ray-pose evaluate photos/a photos/b --views 2 3 5 8 --out runs/photos --jobs 2 --resume
  ray-pose evaluate --rendered 24 --steps 1 2 4 10 --methods model --out runs/steps
  ray-pose evaluate photos/a photos/b --scale
  ray-pose evaluate CO3D/ --views 2 3 4 5 6 7 8 --subsets 5 --jitter-boxes --out runs/co3d"""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        'evaluate',
        help='measure accuracy on photographs with known poses and on rendered objects',
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group('data').add_argument
    data('folders', type=Path, nargs='*', metavar='FOLDERS', help='see above')
    data('--rendered', type=int, default=0, metavar='N', help='number of rendered test objects')
    data(
        '--rendered-size',
        type=int,
        default=224,
        metavar='PX',
        help='side of their views (default 224; matchers profit from more)',
    )
    data('--images', type=Path, metavar='DIR', help="photographs of a COLMAP model's images")
    data('--categories', nargs='+', default=[], metavar='NAME', help='of CO3D; default: all')
    data('--co3d-list', default='fewview_dev', metavar='NAME', help='default fewview_dev')
    data('--co3d-split', default='test', metavar='NAME', help='of that list; default test')
    data(
        '--jitter-boxes',
        action='store_true',
        help='disturb boxes in scale and place as the official evaluation does',
    )
    data('--no-intrinsics', action='store_true', help='methods do without; focal errors appear')

    sets = parser.add_argument_group('sets of views').add_argument
    sets('--views', type=int, nargs='+', default=[2, 5, 8], metavar='N', help='set sizes')
    sets(
        '--subsets',
        type=int,
        default=20,
        metavar='S',
        help='random sets of each size from a sequence (from a rendered object a tenth)',
    )
    sets('--within', type=float, default=180.0, metavar='DEG', help="of the first view's axis")
    sets(
        '--tour',
        action='store_true',
        help='views in the order of a camera that moves from each to the nearest',
    )
    sets('--seed', type=int, default=0, help='of the sets, and of what methods draw (default 0)')

    methods = parser.add_argument_group('methods').add_argument
    methods(
        '--methods',
        nargs='+',
        default=USUAL_METHODS,
        metavar='METHOD',
        help=f'default: {" ".join(USUAL_METHODS)}',
    )
    methods('--checkpoint', type=Path, metavar='DIR', help='default: the shipped model')
    methods('--device', default='auto', help='auto (default), cpu, cuda or cuda:N')
    methods(
        '--steps',
        type=int,
        nargs='+',
        metavar='N',
        help='network calls of the model, one or several; default: what the checkpoint says',
    )
    methods(
        '--scale',
        action='store_true',
        help='instead of methods: the metric scale that the true poses, taken for what TF tells, '
        'give to the answers of the model (or with --methods refined, of its refinement), and '
        'how certain it is said to be; printed only',
    )
    methods(
        '--tf-noise',
        type=float,
        nargs=2,
        default=[0.0, 0.0],
        metavar=('SHARE', 'DEG'),
        help='of --scale: each known pose is off by so much, rms; places by a share of the first '
        "camera's distance from the object",
    )
    methods('--samples', type=int, metavar='N', help='default: what suits the checkpoint')

    out = parser.add_argument_group('output').add_argument
    out(
        '--out',
        type=Path,
        metavar='DIR',
        help='write results.json, results.md and plots here, and parts/ as they are done',
    )
    out('--resume', action='store_true', help='go on with the parts that are in --out already')
    out('--jobs', type=int, default=1, metavar='N', help='processes, one thread each (default 1)')
    out('--errors', action='store_true', help='show standard errors in the table')
    out('--no-plots', action='store_true', help='only figures')
    return parser


def run(args: argparse.Namespace) -> int:
    """Evaluate, print a Markdown table, and write what was asked for."""
    if not args.folders and args.rendered < 1:
        raise ValueError('nothing to evaluate: give folders or --rendered COUNT')
    if min(args.views) < 2:
        raise ValueError(f'--views is {args.views}, expected 2 or more each')
    check_least(args, rendered=0, subsets=1, jobs=1, rendered_size=32, seed=0, within=0)
    if not all(0 <= x < float('inf') for x in args.tf_noise):
        raise ValueError(f'--tf-noise is {args.tf_noise}, expected 0 or more each')
    if any(args.tf_noise) and not args.scale:
        raise ValueError('--tf-noise is of --scale, which is not asked for')
    if args.resume and not args.out:
        raise ValueError('--resume needs --out, where the parts are')
    if args.out:
        for name in ('results.json', 'results.tmp', 'results.md', 'parts/part.json'):
            check_writable(args.out / name)

    if args.scale:
        from . import scale

        print(scale.table(scale.measure(args)))
        return 0

    from .figures import USUAL, table
    from .storage import write

    results = evaluate(args)
    columns = [*USUAL, 'sure', 'confident_errors']
    columns += ['focal_median'] if args.no_intrinsics else []
    print(table(results['results'], columns, errors=args.errors))
    for note in notes(results['results']):
        print(f'note: {note}', file=sys.stderr)
    if args.out:
        written = write(args.out, results, plots=not args.no_plots)
        print(f'written to {args.out}/: {", ".join(written)}', file=sys.stderr)
    return 0


def evaluate(args: argparse.Namespace, parts_dir: Path | None = None) -> dict:
    """The results of parsed arguments, as `storage` writes them; shows a progress bar.

    Raises ValueError where nothing is measured.
    """
    from tqdm import tqdm

    from ray_pose_ros.estimation.devices import usable_device

    from .figures import make_rows
    from .parts import Settings
    from .runner import run as run_methods
    from .storage import pack

    sources = chosen_sources(args)
    settings = Settings(
        views=tuple(dict.fromkeys(args.views)),
        subsets=args.subsets,
        within=args.within,
        tour=args.tour,
        seed=args.seed,
        checkpoint=str(args.checkpoint.resolve()) if args.checkpoint else '',
        device=str(usable_device(args.device)),
    )
    specs = expand_methods(args.methods, args.steps, args.samples)
    if args.out:
        parts_dir = args.out / 'parts'
    with tqdm(unit='part', disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_postfix_str(what, refresh=False)
            bar.update(done - bar.n)

        parts = run_methods(
            sources, settings, specs, args.jobs, parts_dir, bool(args.resume), progress
        )
    rows = make_rows(sources, settings, specs, parts)
    if not rows:
        raise ValueError(nothing_measured(args, f'or none suits {", ".join(specs)}'))
    return pack(settings, sources, rows)


def chosen_sources(args: argparse.Namespace) -> list:
    """The sequences of parsed arguments; ValueError where none is left."""
    from .sources import find_sources

    sources = find_sources(
        args.folders,
        rendered=args.rendered,
        rendered_size=args.rendered_size,
        images=args.images,
        only=args.categories,
        subset=args.co3d_list,
        split=args.co3d_split,
        least_views=min(args.views),
        jitter=args.seed if args.jitter_boxes else -1,
        intrinsics=not args.no_intrinsics,
    )
    if not sources:
        raise ValueError('no sequence is left to evaluate: none has enough good views')
    return sources


def nothing_measured(args: argparse.Namespace, otherwise: str) -> str:
    """The message where no set of views was drawn, or no method could take any."""
    return (
        f'nothing was measured: no sequence has {min(args.views)} views within '
        f'{args.within:g} degrees of one of them, {otherwise}'
    )


def expand_methods(
    methods: list[str], steps: list[int] | None = None, samples: int | None = None
) -> list[str]:
    """Specs with --steps and --samples put into those of the model, one for each step count."""
    if (steps or samples) and not any(spec.partition(':')[0] == 'model' for spec in methods):
        raise ValueError(
            f'--steps and --samples are of the method model, --methods has {", ".join(methods)} '
            'only (some have their own, as refined:steps=4)'
        )
    found = []
    for spec in methods:
        if spec.partition(':')[0] != 'model':
            found.append(spec)
            continue
        for count in steps or [None]:
            options = [f'{k}={v}' for k, v in (('steps', count), ('samples', samples)) if v]
            found.append(spec + ''.join((',' if ':' in spec or i else ':') + option
                                        for i, option in enumerate(options)))  # fmt: skip
    repeated = {spec for spec in found if found.count(spec) > 1}
    if repeated:
        raise ValueError(f'--methods has {", ".join(sorted(repeated))} twice')
    return found


def notes(rows: list[dict]) -> list[str]:
    """What a reader of the table should know besides: failures and their reasons."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        for reason, count in row.get('reasons', {}).items():
            key = row['method'], reason
            found[key] = found.get(key, 0) + count
    return [f'{method} failed on {n} sets: {reason}' for (method, reason), n in found.items()]
