"""Rows of figures, one for each data set, N and method, of the parts of a run."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .calibration import calibration
from .markdown import markdown_table
from .metrics import by_angle, curve, overlapping, summary
from .parts import Part, Settings
from .sources import Source
from .statistics import bootstrap, spread

# Averaged over the groups of a family: what is a share or an angle, but not what is a count.
_COUNTS = ('pairs', 'solves', 'failures')
# Figures as tables show them: heading, how to write the value.
PERCENT = '{:.0%}'
COLUMNS = {
    'R@5': ('R@5', PERCENT),
    'R@15': ('R@15', PERCENT),
    'R@30': ('R@30', PERCENT),
    'median': ('median', '{:.3g} deg'),
    'p90': ('90th percentile', '{:.3g} deg'),
    'RTA@5': ('RTA@5', PERCENT),
    'RTA@15': ('RTA@15', PERCENT),
    'RTA@30': ('RTA@30', PERCENT),
    'AUC@30': ('AUC@30', '{:.3f}'),
    'translation_median': ('translation median', '{:.3g} deg'),
    'translation_p90': ('translation 90th percentile', '{:.3g} deg'),
    'CC@0.1': ('CC@0.1', PERCENT),
    'CC@0.2': ('CC@0.2', PERCENT),
    'centre_median': ('centre median', '{:.3f}'),
    'centre_p90': ('centre 90th percentile', '{:.3f}'),
    'placed': ('placed', PERCENT),
    'all_placed': ('all placed', PERCENT),
    'sure': ('sure', PERCENT),
    'confident_errors': ('sure and wrong', '{:.1%}'),
    'focal_median': ('focal error', '{:.1%}'),
    'focal_p90': ('focal 90th percentile', '{:.1%}'),
    'seconds': ('seconds', '{:.2g}'),
    'seconds_p90': ('seconds, 90th percentile', '{:.2g}'),
    'failures': ('failures', '{:d}'),
}
USUAL = ('R@5', 'R@15', 'R@30', 'median', 'AUC@30', 'CC@0.1')
_CENTRES = ('CC@0.1', 'CC@0.2', 'centre_median', 'centre_p90')  # say nothing of two views
NAMES = {
    'model': 'model',
    'same': 'all cameras the same',
    'azimuth': 'true elevation, random azimuth',
}
# Options that tables call otherwise than the command line does.
_TELLING = {
    'matches=0': 'rays only',
    'upright=0': 'as they are',
    'second_look=0': 'one look',
    'matcher=lighterglue': 'LighterGlue',
}


def make_rows(
    sources: Sequence[Source],
    settings: Settings,
    specs: Sequence[str],
    parts: dict[tuple[int, str, int], Part],
) -> list[dict[str, Any]]:
    """Rows by data set, N and method, then means over the sets of a family, if it has several."""
    families: dict[str, dict[str, list[int]]] = {}
    for index, source in enumerate(sources):
        families.setdefault(source.family, {}).setdefault(source.data, []).append(index)
    rows, means = [], []
    for family, groups in families.items():
        replicates: dict[tuple[int, str], list] = {}
        of_family: dict[tuple[int, str], list] = {}
        for data, indices in groups.items():
            for views in settings.views:
                for spec in specs:
                    clusters = [parts[index, spec, views] for index in indices]
                    clusters = [part for part in clusters if part.solves]
                    if not clusters:
                        continue
                    row, drawn = _row(data, family, views, spec, clusters, settings)
                    rows.append(row)
                    replicates.setdefault((views, spec), []).append(drawn)
                    of_family.setdefault((views, spec), []).append(row)
        if len(groups) > 1:
            for views in settings.views:
                for spec in specs:
                    # a method that some set has no answer of has no mean
                    if len(of_family.get((views, spec), ())) == len(groups):
                        name = f'mean of {len(groups)} {family}'
                        found = replicates[views, spec]
                        means.append(_mean(name, of_family[views, spec], found))
    return rows + means


def table(
    rows: Iterable[dict[str, Any]],
    columns: Sequence[str] = USUAL,
    errors: bool = False,
    data: bool = True,
) -> str:
    """A Markdown table.

    Args:
        rows: of `make_rows`.
        columns: keys of COLUMNS.
        errors: add the standard error to figures that have one.
        data: a column for the data set.

    Raises ValueError for a column that there is not.
    """
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        raise ValueError(f'column is {unknown[0]!r}, expected one of {", ".join(COLUMNS)}')
    head = ['data'] * data + ['N', 'method', *(COLUMNS[column][0] for column in columns)]
    lines = []
    for row in rows:
        cells = [row['data']] * data + [str(row['views']), display_name(row['method'])]
        lines.append(cells + [cell(row, column, errors) for column in columns])
    return markdown_table(head, lines)


def angle_table(rows: Iterable[dict[str, Any]], key: str = 'R@15', data: bool = True) -> str:
    """A Markdown table of a figure by the true angle between the optical axes."""
    rows = list(rows)
    bins = list(dict.fromkeys(name for row in rows for name in row['by_angle']))
    bins.sort(key=lambda name: float(name.split('-')[0]))
    head = ['data'] * data + ['N', 'method', *(name.replace('-', ' to ') for name in bins)]
    lines = []
    for row in rows:
        cells = [row['data']] * data + [str(row['views']), display_name(row['method'])]
        for name in bins:
            found = row['by_angle'].get(name)
            cells.append('-' if found is None else written(key, found[key]))
        lines.append(cells)
    return markdown_table(head, lines)


def overlap_table(rows: Iterable[dict[str, Any]], data: bool = True) -> str:
    """A Markdown table of overlapping pairs (see `metrics`); rows without any are left out."""
    columns = 'R@5', 'R@15', 'median'
    head = ['data'] * data + ['N', 'method', *(COLUMNS[column][0] for column in columns)]
    lines = []
    for row in rows:
        if row.get('overlapping'):
            cells = [row['data']] * data + [str(row['views']), display_name(row['method'])]
            lines.append(cells + [written(c, row['overlapping'][c]) for c in columns])
    return markdown_table(head, lines)


def written(column: str, value: float) -> str:
    """A value as text: 21 %, 27 deg, 0.123."""
    return COLUMNS[column][1].format(value).replace('%', ' %')


def cell(row: dict[str, Any], column: str, errors: bool = False) -> str:
    """One figure of a row, as tables show it."""
    value = row.get(column)
    if value is None or value != value or (row['views'] == 2 and column in _CENTRES):
        return '-'
    text = written(column, value)
    se = row.get('se', {}).get(column) if errors else None
    if se is None:
        return text
    number, _, unit = text.partition(' ')
    return f'{number} ± {written(column, se).partition(" ")[0]} {unit}'.strip()


def display_name(spec: str) -> str:
    """A method's name in tables: `model:steps=4` is 'model, steps 4'."""
    name, _, options = spec.partition(':')
    found = [NAMES.get(name, name)]
    for part in filter(None, options.split(',')):
        found.append(_TELLING.get(part, part.replace('=', ' ')))
    return ', '.join(found)


def _row(data, family, views, spec, clusters: Sequence[Part], settings: Settings):
    solves = [solve for part in clusters for solve in part.solves]
    sigma = np.concatenate([solve.sigma for solve in solves])
    off = np.concatenate([solve.off for solve in solves])
    replicates = bootstrap([part.solves for part in clusters], settings.seed)
    failures: dict[str, int] = {}
    for solve in solves:
        if solve.failure:
            failures[solve.failure] = failures.get(solve.failure, 0) + 1
    row = {
        'data': data,
        'family': family,
        'views': views,
        'method': spec,
        'within': settings.within,
        'sequences': len(clusters),
        'draws': _joined(part.draws for part in clusters),
        **summary(solves),
        **spread(replicates),
        'by_angle': by_angle(solves),
        'overlapping': overlapping(solves),
        'curve': curve(solves),
    }
    told = calibration(sigma, off)
    if told:
        row['calibration'] = told
    if failures:
        row['reasons'] = failures
    return row, replicates


def _joined(draws: Iterable[str]) -> str:
    return hashlib.sha256(' '.join(sorted(draws)).encode()).hexdigest()[:16]


def _mean(name: str, rows: Sequence[dict], replicates: Sequence[dict]) -> dict[str, Any]:
    first = rows[0]
    found = {key: first[key] for key in ('family', 'views', 'method', 'within')}
    found = {'data': name, **found, 'sequences': sum(row['sequences'] for row in rows)}
    found['draws'] = _joined(row['draws'] for row in rows)
    for key in COLUMNS:
        values = [row[key] for row in rows if key in row]
        if len(values) == len(rows):
            found[key] = sum(values) if key in _COUNTS else float(np.mean(values))
    found['pairs'] = sum(row['pairs'] for row in rows)
    found['solves'] = sum(row['solves'] for row in rows)
    together = {key: np.mean([r[key] for r in replicates], axis=0) for key in replicates[0]}
    found |= spread(together)
    found['by_angle'] = {}
    for angles in dict.fromkeys(angles for row in rows for angles in row['by_angle']):
        having = [row['by_angle'][angles] for row in rows if angles in row['by_angle']]
        pairs = [entry['pairs'] for entry in having]
        # over pairs and not over sets, some of which have few in a bin
        shares = {
            key: float(np.average([entry[key] for entry in having], weights=pairs))
            for key in ('R@5', 'R@15')
        }
        found['by_angle'][angles] = shares | {'pairs': sum(pairs)}
    having = [row['overlapping'] for row in rows if row.get('overlapping')]
    found['overlapping'] = {
        key: float(np.mean([entry[key] for entry in having]))
        for key in ('R@5', 'R@15', 'median')
        if having
    }
    found['curve'] = np.mean([row['curve'] for row in rows], axis=0).tolist()
    return found
