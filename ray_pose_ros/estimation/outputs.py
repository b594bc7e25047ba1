"""Where results go: looked at before minutes of work, and cleared of an older result."""

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# All that `ray-pose estimate` may write into its folder.
FILES = (
    *('poses.json', 'poses.tum', 'poses.png', 'transforms.json', 'points.ply', 'rays.npz'),
    *(f'colmap/{n}{s}' for n in ('cameras', 'images', 'points3D') for s in ('.txt', '.bin')),
)


def check_writable(path: Path) -> None:
    """Raise ValueError where no file can be written; folders above it need not be there yet."""
    if path.is_dir():  # as '.' is, which has no parents
        raise ValueError(f'{path} is a folder, expected a file or nothing there to write to')
    folder = next(p for p in path.parents if os.path.lexists(p))
    if not folder.is_dir():
        raise ValueError(f'{folder} is a file, expected a folder for the results')
    if path.exists():
        if not os.access(path, os.W_OK):
            raise ValueError(f'{path} cannot be written (no permission)')
        return
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f'{path} cannot be written ({folder}: {error.strerror})') from error


def check_kept(inputs: Iterable[Path], folder: Path) -> None:
    """Raise ValueError where a result in the folder would overwrite what it is made from."""
    written = {(folder / name).resolve() for name in FILES}
    for path in inputs:
        if path.resolve() in written:
            raise ValueError(
                f'{path} would be overwritten by the result, expected another folder as --out'
            )


def remove_result(folder: Path) -> None:
    """Remove the files of an older result, and nothing where poses.json is of somebody else."""
    try:
        if 'gauge' not in json.loads((folder / 'poses.json').read_text(encoding='utf-8')):
            return
    except (OSError, ValueError, TypeError):
        return
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or not empty
        (folder / 'colmap').rmdir()
