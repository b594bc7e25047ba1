"""sha256 sums beside the weights: what ships, and what was fetched, is loaded unchanged or not.

`SHA256SUMS` is what `sha256sum` writes and `sha256sum -c` checks. A checkpoint folder that has the
file is checked whenever it is loaded; the one that ships must have it.
"""

import re
from pathlib import Path, PurePosixPath

from ray_pose_ros.model.checkpoint import default_checkpoint, sha256
from ray_pose_ros.model.checkpoint_error import CheckpointError

PINS = 'SHA256SUMS'
_LINE = re.compile(r'([0-9a-f]{64}) [ *](.+)')
# Files that decide what a network computes, in either layout.
_WEIGHTS = ('config.json', 'model.safetensors', 'hydra/config.yaml', 'checkpoints/*.pth')


def checked_checkpoint(path: str | Path | None) -> Path:
    """The folder of a checkpoint, or of the one that ships, after its sums were checked.

    Raises:
        CheckpointError: a file is not what it was when its sum was taken.
    """
    if path is None:
        folder = default_checkpoint()
        check_pins(folder, required=True)
        return folder
    folder = Path(path).expanduser()
    check_pins(folder)
    return folder


def check_pins(folder: Path, required: bool = False) -> dict[str, str]:
    """Compare a folder's files with its SHA256SUMS; returns {file name: sha256}, {} without one.

    Raises:
        CheckpointError: another sum, a weight file without one, a file missing, or no SHA256SUMS
            where it is required.
    """
    pins = read_pins(folder)
    if not pins:
        if required:
            raise CheckpointError(
                f'{folder / PINS} is missing: the weights cannot be told from others (after '
                'changing them on purpose: ray-pose checkpoint pin)'
            )
        return {}
    unpinned = [n for n in _names(folder) if n not in pins]
    if unpinned:
        raise CheckpointError(f'{folder / PINS} has no sum of {unpinned[0]}')
    for name, expected in pins.items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise CheckpointError(f'{folder / name} cannot be read: {error}') from error
        if found != expected:
            raise CheckpointError(
                f'{folder / name} is damaged or was replaced: its sha256 is {found}, {PINS} says '
                f'{expected} (after changing it on purpose: ray-pose checkpoint pin {folder})'
            )
    return pins


def read_pins(folder: Path) -> dict[str, str]:
    """{file name: sha256} of a folder's SHA256SUMS; {} where there is none."""
    try:
        text = (folder / PINS).read_text(encoding='utf-8')
    except (FileNotFoundError, NotADirectoryError):  # who loads it says what is wrong with a file
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{folder / PINS} cannot be read: {error}') from error
    pins = {}
    for line in filter(None, text.splitlines()):
        match = _LINE.fullmatch(line)
        name = PurePosixPath(match[2]) if match else None
        if name is None or name.is_absolute() or '..' in name.parts:
            raise CheckpointError(f"{folder / PINS}: {line!r}, expected '<sha256>  <file>'")
        pins[match[2]] = match[1]
    return pins


def write_pins(folder: Path) -> dict[str, str]:
    """Take the sums of a checkpoint's files as they are now; returns {file name: sha256}."""
    names = _names(folder)
    if not names:
        raise CheckpointError(f'{folder} has no weights, expected one of {", ".join(_WEIGHTS)}')
    pins = {name: sha256(folder / name) for name in names}
    lines = [f'{digest}  {name}' for name, digest in pins.items()]
    partial = folder / (PINS + '.partial')
    partial.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    partial.replace(folder / PINS)
    return pins


def _names(folder: Path) -> list[str]:
    found = (p for pattern in _WEIGHTS for p in sorted(folder.glob(pattern)))
    return [p.relative_to(folder).as_posix() for p in found]
