"""Parts of a run: what one method made of one sequence at one N, stored as soon as it is done."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .fingerprints import code_fingerprint, folder_fingerprint
from .methods import parse_spec, uses_checkpoint
from .metrics import SolveErrors
from .sources import Source

_FORMAT = 1  # of the stored parts


@dataclass(frozen=True)
class Settings:
    """What is drawn, and what all methods are given.

    Attributes:
        views: set sizes N.
        subsets: random sets of each size from a sequence (divided by its source's `share`).
        within: degrees; the optical axes of a set lie within it of its first view's.
        tour: views are in the order of a camera that moves from each to the nearest.
        seed: of the draws, and of methods that draw.
        checkpoint: folder, or '' for the shipped model.
        device: torch's name.
    """

    views: tuple[int, ...] = (2, 5, 8)
    subsets: int = 20
    within: float = 180.0
    tour: bool = False
    seed: int = 0
    checkpoint: str = ''
    device: str = 'cpu'

    def options(self) -> dict[str, Any]:
        """For `create_method`."""
        return {
            'checkpoint': self.checkpoint or None,
            'device': self.device,
            'seed': self.seed,
        }


@dataclass
class Part:
    """What one method made of the subsets of N views of one sequence.

    `draws` identifies the subsets, their true cameras and their pixels: the same where another
    method was given the same. `solves` is empty where the method does not apply to the sequence or
    the sequence has too few views.
    """

    spec: str
    views: int
    draws: str
    solves: list[SolveErrors] = field(default_factory=list)


def part_keys(
    sources: Sequence[Source], settings: Settings, specs: Sequence[str]
) -> dict[tuple[int, str], str]:
    """What parts are stored under: everything that decides their content, but N."""
    common = {key: value for key, value in asdict(settings).items() if key != 'views'}
    common['checkpoint'] = ''  # only for those who look at it, by content and not by place
    code = code_fingerprint()
    weights: dict[str, str] = {}

    def weights_of(spec: str) -> str:
        if not uses_checkpoint(spec):
            return ''
        path = parse_spec(spec)[1].get('checkpoint', settings.checkpoint)
        if path not in weights:
            weights[path] = folder_fingerprint(path)
        return weights[path]

    found = {}
    for index, source in enumerate(sources):
        for spec in specs:
            content = [_FORMAT, source.fingerprint(), common, spec, weights_of(spec), code]
            text = json.dumps(content, sort_keys=True)
            found[index, spec] = hashlib.sha256(text.encode()).hexdigest()[:32]
    return found


def part_path(folder: Path, key: str, views: int) -> Path:
    return Path(folder) / f'{key}-{views}.json'


def read_part(path: Path) -> Part | None:
    try:
        stored = json.loads(path.read_text(encoding='utf-8'))
        solves = [SolveErrors.from_dict(solve) for solve in stored.pop('solves')]
        return Part(**stored, solves=solves)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or half a file: computed again


def store_part(path: str, part: Part) -> None:
    if not path:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {**asdict(part), 'solves': [solve.as_dict() for solve in part.solves]}
    partial = target.with_suffix(f'.{os.getpid()}.tmp')
    partial.write_text(json.dumps(content), encoding='utf-8')
    partial.replace(target)  # a killed run leaves whole files only
