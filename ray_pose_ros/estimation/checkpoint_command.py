"""`ray-pose checkpoint`: fetch the official release, convert it, show and pin checkpoints."""

import argparse
import sys
from pathlib import Path

FETCH = """\
Download the authors' weights (models.zip: co3d_diffusion and co3d_regression) into DIR. Nothing
else in this package ever downloads anything. The sha256 of what came is printed; the files' own
sums are written beside them and checked whenever they are loaded."""
CONVERT = """\
Write a checkpoint as config.json and model.safetensors: smaller and faster to load than the
official .pth, and a format that can hold nothing but numbers."""
PIN = """\
Take the sha256 sums of a checkpoint's files as they are now, after they were changed on purpose.
Without DIR: of the model that comes with the package."""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Declare the arguments; imports nothing heavy."""
    parser = subparsers.add_parser('checkpoint', help='fetch, convert, show and pin weights')
    actions = parser.add_subparsers(title='actions', required=True, metavar='ACTION')

    def action(name, function, text, summary):
        out = actions.add_parser(name, help=summary, description=text)
        out.set_defaults(action=function)
        return out.add_argument

    add = action('fetch', _fetch, FETCH, "download the authors' weights")
    add('--out', type=Path, metavar='DIR', help='folder for the models; not for --licence')
    add('--sha256', metavar='SUM', help='refuse an archive that has another sum')
    add('--url', help="https, of the archive, instead of the authors'")
    add('--licence', action='store_true', help='only say under which terms it comes')
    add = action('convert', _convert, CONVERT, 'official layout to safetensors')
    add('checkpoint', type=Path, metavar='DIR', help='official release or own format')
    add('--out', type=Path, required=True, metavar='DIR', help='folder for the result')
    add('--half', action='store_true', help='matrices in half precision: half the size')
    add = action('show', _show, 'Say what a checkpoint is.', 'say what a checkpoint is')
    add('checkpoint', type=Path, nargs='?', metavar='DIR', help='default: the shipped model')
    add = action('pin', _pin, PIN, 'take the sha256 sums of a checkpoint')
    add('checkpoint', type=Path, nargs='?', metavar='DIR', help='default: the shipped model')
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what is asked for; bad input raises ValueError."""
    return args.action(args)


def _fetch(args: argparse.Namespace) -> int:
    from ray_pose_ros.estimation import official_release as release

    if not (args.out or args.licence):
        raise ValueError('fetch needs --out, the folder for the models, or --licence')
    print(release.LICENCE)
    if args.licence:
        return 0
    from tqdm import tqdm

    url = args.url or release.URL
    print(f'from {url}')
    with tqdm(unit='B', unit_scale=True, disable=None, leave=False, file=sys.stderr) as bar:

        def progress(count: int, length: int | None) -> None:
            bar.total = length
            bar.update(count - bar.n)

        models, found = release.fetch(args.out, url, args.sha256, progress)
    print(f'sha256 of the archive: {found}')
    if args.sha256 is None:
        print('The authors publish no sum. To have the same one next time: --sha256 with this.')
    for model in models:
        print(f'{model}: use it with --checkpoint, or as parameter checkpoint of the node')
    return 0


def _convert(args: argparse.Namespace) -> int:
    from ray_pose_ros.estimation.pins import check_pins, checked_checkpoint, write_pins
    from ray_pose_ros.model.checkpoint import load_checkpoint, save_checkpoint

    if args.out.exists():
        raise ValueError(f'{args.out} exists already, expected a new folder')
    source = checked_checkpoint(args.checkpoint)
    model = load_checkpoint(source)
    notes = {'converted_from': source.name, 'sha256_of_source': check_pins(source)}
    save_checkpoint(model, args.out, half=args.half, notes=notes)
    write_pins(args.out)
    size = (args.out / 'model.safetensors').stat().st_size
    print(f'{args.out}: {size / 1e6:.0f} MB')
    return 0


def _show(args: argparse.Namespace) -> int:
    from ray_pose_ros.estimation.pins import checked_checkpoint, read_pins
    from ray_pose_ros.model.checkpoint import load_checkpoint, read_notes, sha256

    folder = checked_checkpoint(args.checkpoint)
    model = load_checkpoint(folder)
    own = (folder / 'config.json').is_file()
    print(f'{folder}: {"own format" if own else "official release"}')
    print(f'parameters: {sum(p.numel() for p in model.parameters()):,}')
    for name, value in model.config.to_dict().items():
        print(f'{name}: {value}')
    for name, value in (read_notes(folder) if own else {}).items():
        print(f'note {name}: {value}')
    pins = read_pins(folder)
    for path in sorted(p for p in folder.rglob('*') if p.suffix in ('.pth', '.safetensors')):
        name = path.relative_to(folder).as_posix()
        known = 'as pinned' if name in pins else 'not pinned'
        print(f'sha256 {name}: {pins.get(name) or sha256(path)} ({known})')
    return 0


def _pin(args: argparse.Namespace) -> int:
    from ray_pose_ros.estimation.pins import PINS, write_pins
    from ray_pose_ros.model.checkpoint import default_checkpoint, load_checkpoint

    folder = args.checkpoint or default_checkpoint()
    load_checkpoint(folder)  # what cannot be loaded is not worth a sum
    for name, digest in write_pins(folder).items():
        print(f'{digest}  {name}')
    print(f'written to {folder / PINS}')
    return 0
