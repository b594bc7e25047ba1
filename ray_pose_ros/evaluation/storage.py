"""Results on disk: JSON for programs, Markdown and plots for people."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures import COLUMNS, USUAL, angle_table, table
from .fingerprints import code_fingerprint, folder_fingerprint
from .parts import Settings
from .sources import Source

FORMAT = 2


def pack(settings: Settings, sources: Sequence[Source], rows: list[dict]) -> dict[str, Any]:
    """All that is stored of a run. No paths: they are nobody else's business."""
    import torch

    weights = folder_fingerprint(settings.checkpoint)
    cuda = settings.device.startswith('cuda')
    return {
        'format': FORMAT,
        'settings': {
            'views': list(settings.views),
            'subsets': settings.subsets,
            'within': settings.within,
            'tour': settings.tour,
            'seed': settings.seed,
            'checkpoint': Path(settings.checkpoint).name or 'shipped',
            'weights': weights,
            'code': code_fingerprint(),
            'intrinsics': all(source.intrinsics for source in sources),
            'jittered_boxes': any(source.jitter >= 0 for source in sources),
        },
        'machine': {
            'device': torch.cuda.get_device_name(settings.device) if cuda else 'cpu',
            'processor': processor(),
            'cores': os.cpu_count(),
            'torch': torch.__version__,
            'threads a process': 1,
        },
        'results': rows,
    }


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def write(folder: Path, results: dict[str, Any], plots: bool = True) -> list[str]:
    """Write results.json, results.md and plots; returns the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'results.json', results)
    pictures: list[str] = []
    if plots:
        from .plots import draw_all

        pictures = draw_all(results['results'], folder)
    rows = results['results']
    kinds = [key for key in COLUMNS if any(key in row for row in rows)]
    parts = ['# Results', table(rows, USUAL, errors=True), '## By angle', angle_table(rows)]
    parts += ['## All figures', table(rows, kinds)]
    parts += [f'![{Path(name).stem}]({name})' for name in pictures]
    (folder / 'results.md').write_text('\n\n'.join(parts) + '\n', encoding='utf-8')
    return ['results.json', 'results.md', *pictures]


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Strict JSON (nan is null), figures to six digits, a row a line: differences stay small."""
    head = {key: value for key, value in results.items() if key != 'results'}
    lines = [f' {json.dumps(key)}: {json.dumps(_plain(value))},' for key, value in head.items()]
    rows = ',\n'.join(
        '  ' + json.dumps(_plain(row), allow_nan=False) for row in results['results']
    )
    text = '\n'.join(['{', *lines, ' "results": [', rows, ' ]', '}', ''])
    partial = path.with_suffix('.tmp')
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Stored results. ValueError where the file is missing or of another format."""
    try:
        found = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ValueError(f'{path}: cannot be read as results ({error})') from error
    if not isinstance(found, dict) or found.get('format') != FORMAT:
        raise ValueError(f'{path}: not results of format {FORMAT}')
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(f'{value:.6g}') if np.isfinite(value) else None
    return value
