"""`ray-pose estimate`: photographs in, cameras and a picture out."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DESCRIPTION = """\
Estimate where the cameras of a few photographs of an object stood.

The first image is the reference: the world has its camera's axes, its origin at the object and the
distance between them as unit. Written to DIR: poses.json, poses.tum, colmap/ (text model),
transforms.json (nerfstudio, instant-ngp), points.ply (what matches show) and poses.png."""
NOTES = """\
Boxes, masks and intrinsics are for the stored pixels of a file, whatever its EXIF orientation
says, unless their sizes tell that they are for photographs turned upright; without them a
photograph is turned upright, as viewers show it.

examples:
  ray-pose estimate photos/ --out result
  ray-pose estimate photos/ --intrinsics poses.json --masks masks/ --samples 8 --out result"""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Declare the arguments; imports nothing heavy."""
    parser = subparsers.add_parser(
        'estimate',
        help='camera poses of photographs',
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('images', nargs='+', metavar='IMAGES', help='files, or folders of them (sorted by name)')
    add(
        '--out',
        required=True,
        type=Path,
        metavar='DIR',
        help='folder for the results; replaces an older one',
    )
    add(
        '--boxes',
        type=Path,
        metavar='FILE',
        help='JSON: a list of [x0, y0, x1, y1] in sorted file order, or a mapping by file name',
    )
    add(
        '--masks',
        type=Path,
        metavar='DIR',
        help="images of the same names' stems, bright on the object",
    )
    add(
        '--intrinsics',
        type=Path,
        metavar='FILE',
        help='poses.json matched by file name (its boxes and true poses are used), one K for '
        'all, or a ROS calibration YAML; without it EXIF data tell them, matches, or the '
        'model, or they are assumed',
    )
    add(
        '--checkpoint',
        type=Path,
        metavar='DIR',
        help='official release or own format; default: the model that comes with the package',
    )
    add('--device', default='auto', help='auto (default), cpu, cuda or cuda:N')
    add('--steps', type=int, metavar='N', help='network calls; default: as the checkpoint says')
    add(
        '--samples',
        type=int,
        default=0,
        metavar='N',
        help='answers averaged; default: as suits the checkpoint; of the shipped model at most '
        'one for each view, unless --steps is 2 or more',
    )
    add('--seed', type=int, default=0, metavar='N', help='of the noise (default 0)')
    add(
        '--crop-params',
        choices=('training', 'demo'),
        default='training',
        help="official models: formula of the crops' place; demo repeats the official demo",
    )
    add(
        '--as-they-are',
        action='store_true',
        help='show the network all views as they are; by default it turns upright those that it '
        'takes to be turned by right angles',
    )
    add(
        '--one-look',
        action='store_true',
        help='do not have the network look again where its matches disagree with its answer, or '
        'refinement leaves views unsure: a little less accurate, and with --no-refine half the '
        'time',
    )
    add('--save-rays', action='store_true', help='write rays.npz too')
    return parser


def run(args: argparse.Namespace, solve=None, prepare=None) -> int:
    """Do it. Bad input raises ValueError before the model is loaded.

    solve: called with the estimator, what is prepared and the views, returns the estimate to
        write; prepare: called with the estimator and a view. None for the estimator's own.
    """
    from ray_pose_ros.estimation import images, inputs, outputs

    paths = images.find_images(args.images)
    if len(paths) < 2:
        raise ValueError(
            f'{len(paths)} image ({paths[0]}), expected at least 2: poses are relative'
        )
    given = [*paths, *(path for path in (args.boxes, args.intrinsics) if path)]
    if args.masks:
        given += [args.masks / f'{path.stem}.png' for path in paths]
    outputs.check_kept(given, args.out)
    for name in outputs.FILES:
        outputs.check_writable(args.out / name)
    loaded = inputs.load_views(paths, args.boxes, args.masks, args.intrinsics)
    for folder in filter(os.path.isdir, args.images):
        if others := images.left_out(Path(folder)):
            note(f'{folder}: left out are {others}')
    for text in loaded.notes:
        note(text)

    from ray_pose_ros.estimation import results
    from ray_pose_ros.estimation.estimator import Estimator

    estimator = Estimator(
        args.checkpoint,
        device=args.device,
        steps=args.steps,
        samples=args.samples,
        seed=args.seed,
        crop_params=args.crop_params,
        upright=not args.as_they_are,
        second_look=not args.one_look,
    )
    prepared = []
    with progress_bar('features', 'view', len(loaded.views)) as progress:
        for view in loaded.views:
            prepared.append(prepare(estimator, view) if prepare else estimator.prepare(view))
            progress(len(prepared), len(loaded.views))
    estimate = (solve or _solve)(estimator, prepared, loaded.views)
    args.out.mkdir(parents=True, exist_ok=True)
    errors = results.compare(estimate, loaded.truth, loaded.scene_centres)
    # file names in scripts that the picture's font lacks
    warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)
    # before anything is printed: a terminal or a pipe may not take it
    written = results.write_all(
        args.out, estimate, loaded.views, errors, loaded.truth, args.save_rays, note
    )
    print(results.table(estimate, errors))
    if estimate.caution:
        note(f'{estimate.caution} (--masks)')
    print(f'written to {results.printable(str(args.out))}{os.sep}: {", ".join(written)}')
    return 0


def note(text: str) -> None:
    """Tell the user something besides the results."""
    print(f'note: {text}', file=sys.stderr)


@contextmanager
def progress_bar(what: str, unit: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; what `with` gives is a `progress` to call."""
    from tqdm import tqdm

    with tqdm(
        desc=what, unit=unit, total=total, disable=None, leave=False, file=sys.stderr
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total  # it may become another
            bar.update(done - bar.n)

        yield progress


def _solve(estimator, prepared, views):
    with progress_bar('denoise', 'step', len(estimator.plan.steps)) as progress:
        return estimator.solve(prepared, progress=progress)
