"""Tables, plots and figures in Markdown files, generated from stored results between markers.

    <!-- results: RUN KIND key=value key=value -->
    ...whatever stands here is replaced...
    <!-- end -->

RUN is a run of docs/results/plan.yaml; its results are docs/results/RUN.json. Values with spaces
are quoted, lists have commas (of methods: blanks). Kinds and their keys:

    command       the commands that measured it
    origin        which weights, which machine
    table         columns=R@15,median errors=yes data=... N=2,5 methods=model hide=data
    angles        column=R@15 data=... N=... methods=... hide=data
    overlap       data=... N=... methods=... hide=data
    calibration   data=... N=... methods=...
    value         data=... N=5 method=model column=R@15        (stands in the line of its markers)
    plot          name=views data=... methods=...              (one of plots.PICTURES)
"""

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .calibration import gaussian_coverage
from .figures import USUAL, angle_table, cell, display_name, overlap_table, table
from .markdown import markdown_table
from .storage import read

RESULTS = Path('docs/results')
FILES = (Path('docs/results.md'), Path('README.md'))
_BLOCK = re.compile(r'<!-- results: (?P<words>\w[^>]*?) -->(?P<text>.*?)<!-- end -->', re.DOTALL)


@dataclass(frozen=True)
class Run:
    """One run of the plan.

    Attributes:
        name: of its JSON file.
        arguments: of `ray-pose evaluate`, but for folders and methods.
        sets: names of folders with photographs.
        methods: that depend on the weights, or cost nothing.
        baselines: that do not, and cost much: their figures are kept when the weights change.
    """

    name: str
    arguments: str
    sets: tuple[str, ...] = ()
    methods: tuple[str, ...] = ('model', 'same', 'azimuth')
    baselines: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What a user types to repeat it."""
        words = ['ray-pose evaluate', *self.sets, self.arguments]
        methods = [*self.methods, *self.baselines]
        if methods != ['model', 'same', 'azimuth']:
            words += ['--methods', *methods]
        return ' '.join(words)


def read_plan(root: Path) -> dict[str, Run]:
    """The runs of docs/results/plan.yaml, by name. ValueError where it is missing or wrong."""
    path = Path(root) / RESULTS / 'plan.yaml'
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        runs = {}
        for name, entry in content.items():
            lists = {key: tuple(entry[key]) for key in entry if key != 'arguments'}
            runs[name] = Run(name, ' '.join(entry['arguments'].split()), **lists)
    except OSError as error:
        raise ValueError(f'{path}: cannot be read; --root is the repository ({error})') from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: not a plan of runs ({error!r})') from error
    return runs


class Report:
    """The Markdown files of a repository and the results that they quote."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.plan = read_plan(self.root)
        self._stored: dict[str, dict[str, Any]] = {}

    def results(self, run: str) -> dict[str, Any]:
        """Stored results of a run (ValueError where there are none)."""
        if run not in self._stored:
            if run not in self.plan:
                raise ValueError(f'run is {run!r}, expected one of {", ".join(self.plan)}')
            self._stored[run] = read(self.root / RESULTS / f'{run}.json')
        return self._stored[run]

    def forget(self, run: str) -> None:
        """Read its results anew when they are asked for."""
        self._stored.pop(run, None)

    def differences(self) -> list[str]:
        """What does not agree with the stored results: 'FILE: words of the marker'."""
        found = []
        for file in FILES:
            text = (self.root / file).read_text(encoding='utf-8')
            for match in _BLOCK.finditer(text):
                if match[0] != self._block(match, file):
                    found.append(f'{file}: {match["words"]}')
                picture = self.picture(match['words'])
                if (
                    picture
                    and self.measured(match['words'])
                    and not (self.root / RESULTS / picture).is_file()
                ):
                    found.append(f'{file}: {RESULTS / picture} is missing')
        return found

    def write(self) -> list[str]:
        """Rewrite all blocks and draw the pictures; returns the files that changed or were drawn.

        Raises ValueError for a marker that is wrong, naming it.
        """
        changed = []
        for file in FILES:
            path = self.root / file
            text = path.read_text(encoding='utf-8')
            new = _BLOCK.sub(lambda match, file=file: self._block(match, file), text)
            if new != text:
                path.write_text(new, encoding='utf-8')
                changed.append(str(file))
            for match in _BLOCK.finditer(new):
                picture = self.picture(match['words'])
                if picture and self.measured(match['words']):
                    self._draw(match['words'], self.root / RESULTS / picture)
                    changed.append(str(RESULTS / picture))
        return list(dict.fromkeys(changed))

    def measured(self, words: str) -> bool:
        """Whether there are results of a block's run."""
        return (self.root / RESULTS / f'{_parse(words)[0]}.json').is_file()

    def picture(self, words: str) -> str | None:
        """The file name of a plot's block, None for other blocks."""
        run, kind, options = _parse(words)
        if kind != 'plot':
            return None
        chosen = [
            run,
            options.get('name', ''),
            options.get('data', ''),
            options.get('methods', ''),
        ]
        return re.sub(r'\W+', '_', '_'.join(filter(None, chosen))) + '.png'

    def _block(self, match: re.Match, file: Path) -> str:
        words = match['words']
        try:
            run, kind, options = _parse(words)
            if kind == 'command':
                text = f'```bash\n{self._run(run).command}\n```'
            elif not self.measured(words):
                text = f'*Not measured yet: `ray-pose report --run {self._run(run).name}`.*'
            elif kind == 'plot':
                self._rows(run, options)  # there must be something to draw
                where = os.path.relpath(RESULTS / self.picture(words), file.parent)
                text = f'![{run}: {options["name"]}]({Path(where).as_posix()})'
            elif kind == 'origin':
                text = _origin(self.results(run))
            elif kind in _KINDS:
                text = _KINDS[kind](self._rows(run, options), options)
            else:
                known = ', '.join(['command', 'origin', 'plot', *_KINDS])
                raise ValueError(f'kind is {kind!r}, expected one of {known}')
        except (ValueError, KeyError) as error:
            raise ValueError(f'{file}: block "{words}": {error}') from error
        around = '' if kind == 'value' else '\n\n'
        return f'<!-- results: {words} -->{around}{text}{around}<!-- end -->'

    def _draw(self, words: str, path: Path) -> None:
        from .plots import PICTURES, save

        run, _, options = _parse(words)
        name = options.get('name', '')
        if name not in PICTURES:
            raise ValueError(f'plot is {name!r}, expected one of {", ".join(PICTURES)}')
        figure = PICTURES[name](self._rows(run, options))
        if figure is None:
            raise ValueError(f'run {run} has nothing for the plot {name!r}')
        save(figure, path)

    def _run(self, name: str) -> Run:
        if name not in self.plan:
            raise ValueError(f'run is {name!r}, expected one of {", ".join(self.plan)}')
        return self.plan[name]

    def _rows(self, run: str, options: dict[str, str]) -> list[dict]:
        rows = self.results(run)['results']
        for key, column in (('data', 'data'), ('methods', 'method'), ('method', 'method')):
            if key in options:
                # options of methods have commas of their own
                wanted = options[key].split(' ' if column == 'method' else ',')
                rows = [row for row in rows if row[column] in wanted]
        if 'N' in options:
            rows = [row for row in rows if str(row['views']) in options['N'].split(',')]
        if not rows:
            raise ValueError('the stored results have no such rows')
        return rows


def _parse(words: str) -> tuple[str, str, dict[str, str]]:
    parts = shlex.split(words)
    if len(parts) < 2 or not all('=' in part for part in parts[2:]):
        raise ValueError(f'marker is {words!r}, expected: RUN KIND key=value ...')
    return parts[0], parts[1], dict(part.split('=', 1) for part in parts[2:])


def _table(rows: Sequence[dict], options: dict[str, str]) -> str:
    columns = options['columns'].split(',') if 'columns' in options else USUAL
    errors, data = options.get('errors') == 'yes', options.get('hide') != 'data'
    return table(rows, columns, errors, data)


def _angles(rows: Sequence[dict], options: dict[str, str]) -> str:
    return angle_table(rows, options.get('column', 'R@15'), options.get('hide') != 'data')


def _overlap(rows: Sequence[dict], options: dict[str, str]) -> str:
    return overlap_table(rows, options.get('hide') != 'data')


def _value(rows: Sequence[dict], options: dict[str, str]) -> str:
    if len(rows) != 1:
        raise ValueError(f'{len(rows)} rows fit, expected one')
    return cell(rows[0], options['column'], options.get('errors') == 'yes')


def _calibration(rows: Sequence[dict], options: dict[str, str]) -> str:
    """Coverage and the rest of what tells whether the uncertainty is right."""
    told = [row for row in rows if row.get('calibration')]
    if not told:
        raise ValueError('no method in these rows tells its uncertainty')
    one, two = gaussian_coverage([1.0, 2.0])
    head = ['data', 'N', 'method', f'in 1 sigma ({one:.0%})', f'in 2 sigma ({two:.1%})']
    head += ['error / sigma (1)', 'NLL', 'ENCE', 'AUSE', 'rank correlation']
    head += ['pairs called sure', 'sure and wrong']
    lines = []
    for row in told:
        c = row['calibration']
        cells = [row['data'], str(row['views']), display_name(row['method'])]
        cells += [f'{c["coverage"][k]:.0%}' for k in (1, 3)]
        cells += [f'{c[key]:.2f}' for key in ('ratio', 'nll', 'ence', 'ause', 'spearman')]
        cells += [cell(row, 'sure'), cell(row, 'confident_errors')]
        lines.append(cells)
    return re.sub(r'(\d)%', r'\1 %', markdown_table(head, lines))


_KINDS: dict[str, Callable[[Sequence[dict], dict[str, str]], str]] = {
    'table': _table,
    'angles': _angles,
    'overlap': _overlap,
    'value': _value,
    'calibration': _calibration,
}


def _origin(results: dict[str, Any]) -> str:
    settings, machine = results['settings'], results['machine']
    device = '' if machine['device'] == 'cpu' else f'{machine["device"]}, '
    text = f'Weights {settings["weights"]} ({settings["checkpoint"]}), {device}'
    text += f'{machine["processor"]}, one thread a process, torch {machine["torch"]}.'
    if results.get('kept'):
        text += f' Kept from an earlier run on the same sets: {", ".join(results["kept"])}.'
    return text
