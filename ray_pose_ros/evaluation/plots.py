"""Plots of rows of figures, with matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .calibration import gaussian_coverage
from .figures import display_name
from .methods import parse_spec
from .metrics import CURVE

_DPI = 110
_MOST = 6  # panels in a picture


def draw_all(rows: Sequence[dict], folder: Path, prefix: str = '') -> list[str]:
    """Every picture that the rows have something for; returns the names of the files written."""
    found = []
    for name, draw in PICTURES.items():
        figure = draw(rows)
        if figure is not None:
            file = f'{prefix}{name}.png'
            save(figure, Path(folder) / file)
            found.append(file)
    return found


def save(figure, path: Path) -> None:
    """Write a picture; no version in the file, so that the same figures give the same bytes."""
    figure.savefig(path, dpi=_DPI, metadata={'Software': None})


def accuracy_by_views(rows: Sequence[dict]):
    """R@15 (solid) and CC@0.1 (dashed) against N, with 95 % intervals."""
    if len({row['views'] for row in rows}) < 2:
        return None

    def panel(axes, rows):
        for row_set, colour, label in _by_method(rows):
            views = [row['views'] for row in row_set]
            values = np.array([row['R@15'] for row in row_set])
            low, high = np.array([row['ci95']['R@15'] for row in row_set], dtype=float).T
            axes.plot(views, 100 * values, 'o-', color=colour, label=label, markersize=4)
            axes.fill_between(views, 100 * low, 100 * high, color=colour, alpha=0.12)
            centred = [row for row in row_set if row['views'] > 2]
            x = [row['views'] for row in centred]
            axes.plot(x, [100 * r['CC@0.1'] for r in centred], 's--', color=colour, markersize=3)
        axes.set(xlabel='N views', ylabel='R@15 (solid), CC@0.1 (dashed), %', ylim=(0, 100))
        axes.set_xticks(sorted({row['views'] for row in rows}))

    return _panels(rows, panel)


def cumulative(rows: Sequence[dict]):
    """Share of pairs under an angle, at the largest N that all methods have."""

    def panel(axes, rows):
        most = max(row['views'] for row in rows)
        for row_set, colour, label in _by_method(rows):
            for row in row_set:
                if row['views'] == most:
                    axes.plot(CURVE, 100 * np.array(row['curve']), color=colour, label=label)
        axes.set(
            xscale='log', xlabel=f'rotation error, degrees (N = {most})', ylabel='pairs below, %'
        )
        ticks = (1, 2, 5, 15, 30, 60, 150)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 100)

    return _panels(rows, panel)


def histogram(rows: Sequence[dict]):
    """Share of pairs by rotation error, at the largest N."""

    def panel(axes, rows):
        most = max(row['views'] for row in rows)
        edges = (0, *CURVE, 180)
        names = [f'{low:g}-{high:g}' for low, high in zip(edges[:-1], edges[1:])]
        shown = [row for row in rows if row['views'] == most]
        width = 0.8 / max(len(shown), 1)
        colours = _colours(rows)
        for k, row in enumerate(shown):
            share = np.diff([0.0, *row['curve'], 1.0])
            at = np.arange(len(names)) + (k - (len(shown) - 1) / 2) * width
            method = row['method']
            axes.bar(at, 100 * share, width, color=colours[method], label=display_name(method))
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set(xlabel=f'rotation error, degrees (N = {most})', ylabel='pairs, %')

    return _panels(rows, panel)


def accuracy_by_angle(rows: Sequence[dict]):
    """R@15 by the true angle between optical axes, at the largest N."""

    def panel(axes, rows):
        most = max(row['views'] for row in rows)
        names: list[str] = []
        for row_set, colour, label in _by_method(rows):
            for row in row_set:
                if row['views'] == most:
                    found = row['by_angle']
                    middle = [np.mean([float(x) for x in name.split('-')]) for name in found]
                    values = [100 * entry['R@15'] for entry in found.values()]
                    axes.plot(middle, values, 'o-', color=colour, label=label, markersize=4)
                    names = names or list(found)
        axes.set(xlabel=f'angle between optical axes, degrees (N = {most})', ylabel='R@15, %')
        axes.set(ylim=(0, 103), xlim=(0, 180))
        axes.set_xticks((0, 15, 30, 45, 60, 90, 120, 180))

    return _panels(rows, panel)


def accuracy_by_steps(rows: Sequence[dict]):
    """R@15 against the number of network calls, for methods that name theirs."""
    stepped = [row for row in rows if 'steps' in parse_spec(row['method'])[1]]
    if len({row['method'] for row in stepped}) < 2:
        return None

    def panel(axes, rows):
        for views in sorted({row['views'] for row in rows}):
            of_views = [row for row in rows if row['views'] == views]
            of_views.sort(key=lambda row: int(parse_spec(row['method'])[1]['steps']))
            steps = [int(parse_spec(row['method'])[1]['steps']) for row in of_views]
            values = [100 * row['R@15'] for row in of_views]
            (line,) = axes.plot(steps, values, 'o-', label=f'N = {views}', markersize=4)
            low, high = np.array([row['ci95']['R@15'] for row in of_views], dtype=float).T
            axes.fill_between(steps, 100 * low, 100 * high, color=line.get_color(), alpha=0.12)
        axes.set(xlabel='network calls', ylabel='R@15, %', xscale='log')
        ticks = sorted({int(parse_spec(row['method'])[1]['steps']) for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()

    return _panels(stepped, panel)


def reliability(rows: Sequence[dict]):
    """True error against told uncertainty, bins of equal size: on the diagonal if calibrated."""
    told = [row for row in rows if row.get('calibration')]
    if not told:
        return None

    def panel(axes, rows):
        most = max(row['views'] for row in rows)
        limit = 1.0
        for row_set, colour, label in _by_method(rows):
            for row in row_set:
                if row['views'] != most:
                    continue
                sigma, error = np.array(row['calibration']['bins']).T
                one, two = (row['calibration']['coverage'][k] for k in (1, 3))
                text = f'{label}: {one:.0%} and {two:.0%} within 1 and 2 sigma'
                axes.plot(sigma, error, 'o-', color=colour, label=text, markersize=4)
                limit = max(limit, sigma.max(), error.max())
        axes.plot([0.3, 1.2 * limit], [0.3, 1.2 * limit], ':', color='grey')
        expected = ' and '.join(f'{x:.0%}' for x in gaussian_coverage(np.array([1.0, 2.0])))
        axes.set(xscale='log', yscale='log', ylabel='true error, rms, degrees')
        axes.set_xlabel(f'told sigma, degrees (N = {most}; a Gaussian has {expected})')

    return _panels(told, panel)


PICTURES: dict[str, Callable] = {
    'views': accuracy_by_views,
    'cumulative': cumulative,
    'histogram': histogram,
    'angle': accuracy_by_angle,
    'steps': accuracy_by_steps,
    'calibration': reliability,
}


def _panels(rows: Sequence[dict], draw: Callable):
    """One panel a data set; of many, the means come first and the rest is left out."""
    from matplotlib.figure import Figure

    data = list(dict.fromkeys(row['data'] for row in rows))
    if len(data) > _MOST:
        data.sort(key=lambda name: not name.startswith('mean of '))
        data = data[:_MOST]
    columns = min(len(data), 3)
    lines = -(-len(data) // columns)
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.7 * lines), layout='constrained')
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, name in zip(panels, data):
        draw(axes, [row for row in rows if row['data'] == name])
        axes.set_title(name, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    for axes in panels[len(data) :]:
        axes.axis('off')
    return figure


def _by_method(rows: Sequence[dict]):
    """(rows of a method by N, colour, name) for each."""
    colours = _colours(rows)
    for method, colour in colours.items():
        of_method = [row for row in rows if row['method'] == method]
        yield sorted(of_method, key=lambda row: row['views']), colour, display_name(method)


def _colours(rows: Sequence[dict]) -> dict[str, str]:
    """References in grey, everything else in matplotlib's colours, in order of appearance."""
    grey = {'same': 'grey', 'azimuth': 'darkgrey'}
    methods = list(dict.fromkeys(row['method'] for row in rows))
    rest = [method for method in methods if method not in grey]
    return {method: grey.get(method) or f'C{rest.index(method) % 10}' for method in methods}
