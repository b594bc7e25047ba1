"""Stored figures as Markdown: the same text whenever it is made from the same file."""

import json
import math
from pathlib import Path

from ray_pose_ros.evaluation.markdown import markdown_table

from .report_ros import ros

HEAD = """\
# Benchmarks

Made by `ray-pose benchmark`; do not edit. Medians, in brackets the quartiles. Cases of one table
were measured in turns, so that a busy moment hits all of them; a ratio is taken within each turn.
Milliseconds unless said otherwise."""


def read(path: Path) -> dict:
    """Figures as `ray-pose benchmark --json` wrote them. ValueError for anything else."""
    try:
        figures = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read as JSON: {error}') from error
    if not isinstance(figures, dict) or not set(figures) <= set(_TITLES):
        found = sorted(figures) if isinstance(figures, dict) else type(figures).__name__
        raise ValueError(f'{path} holds {found}, expected sections among {list(_TITLES)}')
    return figures


def tables(figures: dict) -> str:
    """All sections that there are, in a fixed order."""
    parts = [HEAD]
    for name in _TITLES:
        if name in figures:
            section = figures[name]
            parts += [f'## {_TITLES[name]}', _machine(section), *_WRITERS[name](section)]
    return '\n\n'.join(part for part in parts if part)


def table(columns: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    return markdown_table(columns, ([cell(value) for value in row] for row in rows))


def cell(value) -> str:
    """A number with three digits, a spread as `median (low to high)`, '-' for None."""
    if value is None:
        return '-'
    if isinstance(value, dict):
        if value['runs'] < 3:
            return number(value['median'])
        return f'{number(value["median"])} ({number(value["low"])}-{number(value["high"])})'
    return number(value) if isinstance(value, float) else str(value)


def number(x: float) -> str:
    """Three digits, without an exponent."""
    if x == 0:
        return '0'
    if abs(x) < 0.001:
        return f'{x:.1e}'
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    return f'{x:.{digits}f}'


def _machine(section: dict) -> str:
    m = section['machine']
    what = f'{m["cores"]} cores of {m["processor"]}, {m["memory_gib"]} GiB'
    if m.get('gpu'):
        what = f'{m["gpu"]} beside {what}'
    loads = ' and '.join(
        '?' if x['cores_in_use'] is None else f'{x["cores_in_use"]:.1f}' for x in section['loads']
    )
    text = (
        f'{what}; {m["threads"]} threads of torch {m["torch"]}; {m["system"]}. Model: '
        f'{section["model"]}. Up to {section["repeats"]} rounds in {section["seconds"]:.0f} s; '
        f'cores that others used before and after: {loads}.'
    )
    return text + (f'\n\n**Warning**: {section["warning"]}.' if section['warning'] else '')


def _latency(section: dict) -> list[str]:
    stages = ('features', 'denoise', 'recover', 'all', 'keyframe', 'cpu')
    rows = [
        [r['device'], r['views'], r['steps'], r['samples'], r['precision']]
        + [r[s] for s in stages]
        + [r['windows_per_second'], r['samples_per_second']]
        for r in section['rows']
    ]
    columns = ['device', 'N', 'steps', 'samples', 'precision', 'features of N', 'denoise']
    columns += ['recover', 'all', 'new keyframe', 'CPU time', 'windows/s', 'samples/s']
    note = (
        'A new keyframe in a full window costs its own features and one solution. Models that '
        'answer in one pass take at most one sample a view.'
    )
    return [table(columns, rows), note]


def _startup(section: dict) -> list[str]:
    columns = ['device', 'N', 'import torch, s', 'import the rest, s', 'load, s', 'first, s']
    columns += ['second, s', 'start to first answer, s', 'after imports, MiB', 'loaded, MiB']
    columns += ['peak, MiB', 'GPU peak, MiB']
    names = ('import_torch_s', 'import_rest_s', 'load_s', 'first_s', 'second_s')
    names += ('start_to_first_answer_s', 'imported_mib', 'loaded_mib', 'peak_mib', 'gpu_peak_mib')
    rows = [[r['device'], r['views'], *(r[n] for n in names)] for r in section['rows']]
    return [table(columns, rows)]


def _ratios(section: dict) -> list[str]:
    loop, naive = section['loop'], section['naive']
    s = loop['settings']
    size = 'full-size' if s['official_size'] else 'scaled-down'
    text = (
        f'A {size} network of the official architecture ({s["parameters"] / 1e6:.1f} million '
        f'parameters, random weights), {s["views"]} views of {s["patches"]} patches, '
        f'{s["loop_steps"]} steps, on {s["device"]}. All ways encode the images once.'
    )
    first = table(
        ['way', 'time', 'plain / this', 'in CPU time', 'for each answer', 'difference'],
        [
            [r['way'], r['time'], r['ratio'], r['cpu_ratio'], r['per_answer'], r['difference']]
            for r in loop['rows']
        ],
    )
    n = naive['settings']
    second = (
        f'The model in use, one new keyframe in a window of {n["views"]}, on {n["device"]}: what '
        'a node pays that keeps nothing, and what this one pays.'
    )
    columns = ['way', 'time', 'plain / this', 'in CPU time']
    rows = [[r['way'], r['time'], r['ratio'], r['cpu_ratio']] for r in naive['rows']]
    return [text, first, second, table(columns, rows)]


def _accuracy(section: dict) -> list[str]:
    rows = []
    for r in section['rows']:
        error = '' if r['standard_error'] is None else f' ± {100 * r["standard_error"]:.0f}'
        rows.append(
            [r['views'], r['steps'], r['samples'], r['solve'], f'{100 * r["R@15"]:.0f}{error} %']
            + [f'{r["median_deg"]:.0f} deg', r['sets'], r['pairs']]
        )
    columns = ['N', 'steps', 'samples', 'denoise and recover', 'R@15', 'median', 'sets', 'pairs']
    return [table(columns, rows)]


def _scale(section: dict) -> list[str]:
    views, samples, kept = section['views'], section['samples'], section['keyframes']
    stages = ('features', 'denoise', 'recover', 'all', 'working_mib')
    rows = [[r['views'], *(r[s] for s in stages), r['gpu_peak_mib']] for r in views['rows']]
    columns = ['N', 'features', 'denoise', 'recover', 'all', 'memory, MiB', 'GPU peak, MiB']
    parts = [
        '### Views in one window\n\nMemory: the peak of a fresh process above the loaded model.',
        table(columns, rows) + slope_note(views['slopes']),
    ]
    names = [f'{o["operator"]} {100 * o["share"]:.0f} %' for o in views['operators']]
    parts.append(f'Operators at the largest N, by their own time: {", ".join(names)}.')
    parts.append(f'### Consensus of samples of {samples["settings"]["views"]} cameras')
    rows = [[r['samples'], r['time']] for r in samples['rows']]
    parts.append(table(['samples', 'time'], rows) + slope_note(samples['slopes']))
    parts.append(
        '### Keyframes kept\n\nThe gate, the buffer and the files alone; nothing is solved.'
    )
    rows = [[r['keyframes'], r['add'], r['write'], r['written_mib']] for r in kept['rows']]
    columns = ['keyframes', 'add one', 'write files of all', 'written, MiB']
    parts.append(table(columns, rows) + slope_note(kept['slopes']))
    sizes = [
        f'{name}: a look {cell(kept["gate"][name])} ms, a keyframe {mib:.1f} MiB'
        for name, mib in kept['keyframe_mib'].items()
    ]
    parts.append(f'One frame at the gate, and the memory of one kept: {"; ".join(sizes)}.')
    return parts + _map(section['map'])


def _map(section: dict) -> list[str]:
    s = section['settings']
    note = (
        f'### The map\n\nA window of {s["window"]} with one new keyframe, joined to a map; '
        f'{s["matches"]} matches for each pair of a window. Points: of the matches of all windows.'
    )
    rows = [[r['keyframes'], r['join'], r['points']] for r in section['rows']]
    sizes = [f'{name} {mib:.2f} MiB' for name, mib in section['packed_mib'].items()]
    packed = f'The image of a keyframe that has left the window: {", ".join(sizes)}.'
    grown = table(['keyframes', 'join', 'points'], rows) + slope_note(section['slopes'])
    return [note, grown, packed]


def slope_note(slopes: dict[str, float] | None, linear: float = 1.15) -> str:
    """A line on how fast columns grow over the larger half of the sizes."""
    if not slopes:
        return ''
    text = ', '.join(f'{name.removesuffix("_mib")} {x:.2f}' for name, x in slopes.items())
    faster = [name.removesuffix('_mib') for name, x in slopes.items() if x > linear]
    verdict = f'; faster than linear: {", ".join(faster)}' if faster else ''
    return f'\n\nExponent of growth over the larger half of the sizes: {text}{verdict}.'


def _refinement(section: dict) -> list[str]:
    note = (
        'Seconds from nothing but the images and the loaded networks, all ways with as many '
        'threads as torch has; the last column is how many times longer than `refined`. Of a new '
        'keyframe the node has only its own features and pairs left to do, and it tells first '
        'poses before the pairs are matched.'
    )
    rows = [[r['set'], r['views'], r['way'], r['time'], r['ratio']] for r in section['rows']]
    return [table(['set', 'N', 'way', 'seconds', 'this / refined'], rows), note]


def _many(section: dict) -> list[str]:
    note = (
        'Each way once, from nothing but the images and the loaded networks, with as many threads '
        'as torch has. Of more than 16 views refinement matches each with those next to it; the '
        'others match all pairs. R@5 and R@15: pairs of views whose relative rotation is right '
        'within so many degrees.'
    )
    rows = [
        [
            r['set'],
            r['views'],
            r['way'],
            f'{r["seconds"]:.0f}',
            f'{r["ratio"]:.2f}',
            f'{100 * r["R@5"]:.0f} %',
            f'{100 * r["R@15"]:.0f} %',
            f'{r["median"]:.2g} deg',
        ]
        for r in section['rows']
    ]
    head = ['set', 'N', 'way', 'seconds', 'this / refined', 'R@5', 'R@15', 'median']
    return [table(head, rows), note]


def _setup(section: dict) -> list[str]:
    return [
        f'`scripts/setup` from nothing: {section["first_s"]:.0f} s, {section["gib"]:.1f} GiB in '
        f'{section["files"]} files; again over it: {section["again_s"]:.1f} s. Downloads come '
        "through pip's cache where it is warm."
    ]


_TITLES = {
    'latency': 'Latency and throughput',
    'startup': 'Start and memory',
    'ratios': 'Next to the plain way',
    'accuracy': "The sampler's cost against its accuracy",
    'scale': 'Growth',
    'refinement': 'Refinement next to structure from motion',
    'many': 'Many views at once',
    'ros': 'Through ROS 2',
    'setup': 'Setting up',
}
_WRITERS = {
    'latency': _latency,
    'startup': _startup,
    'ratios': _ratios,
    'accuracy': _accuracy,
    'scale': _scale,
    'refinement': _refinement,
    'many': _many,
    'ros': lambda section: ros(section, table),
    'setup': _setup,
}
