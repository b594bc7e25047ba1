"""Stored figures and the page made of them."""

import json
from pathlib import Path

import pytest

from ray_pose_ros import cli
from ray_pose_ros.evaluation.benchmarks import report, sections

ROOT = Path(__file__).resolve().parents[1]
STORED, PAGE = ROOT / 'docs' / 'results' / 'benchmark.json', ROOT / 'docs' / 'benchmarks.md'


def spread(x: float, runs: int = 5) -> dict:
    return {'median': x, 'low': 0.9 * x, 'high': 1.2 * x, 'runs': runs}


def section(**figures) -> dict:
    machine = {'processor': 'A Processor', 'cores': 2, 'memory_gib': 8.0, 'system': 'Some Linux'}
    return figures | {
        'machine': machine | {'torch': '2.0', 'threads': 2, 'gpu': None},
        'loads': [{'load_average': 0.1, 'cores_in_use': 0.0}] * 2,
        'warning': None,
        'seconds': 12.0,
        'repeats': 5,
        'model': 'shipped',
    }


def latency() -> dict:
    stages = ('features', 'denoise', 'recover', 'all', 'keyframe', 'cpu')
    row = {'device': 'cpu', 'views': 8, 'steps': 1, 'samples': 8, 'precision': 'float32'}
    row |= {stage: spread(10.0 * k) for k, stage in enumerate(stages, 1)}
    return section(rows=[row | {'windows_per_second': 25.0, 'samples_per_second': 400.0}])


def ros() -> dict:
    stages = ('end_to_end', 'transport', 'queue', 'decode', 'features', 'denoise', 'recover')
    stages += ('refine_and_join', 'publish')
    drop = {'transport': 'raw', 'size': 'VGA', 'kilobytes': 921.6, 'reason': 'too_soon'}
    drop |= {'published': 60, 'received': 58, 'dropped': 58, 'keyframes': 0, 'cpu_ms': 1.25}
    loss = {'size': 'VGA', 'transport': 'shipped profile', 'received': 99, 'published': 100}
    return section(
        latency=[{'size': 'VGA', **{s: spread(3.0) for s in stages}}],
        drops=[drop],
        loss=[loss | {'rate': 15.0}],
        settings={'rate': 15.0, 'frames': 100, 'window': 8},
    )


@pytest.mark.parametrize(
    ('x', 'text'),
    [(1234.5, '1234'), (123.4, '123'), (12.34, '12.3'), (1.234, '1.23'), (0, '0')]
    + [(0.01234, '0.0123'), (1e-7, '1.0e-07'), (-2.5, '-2.50')],
)
def test_numbers_have_three_digits(x, text):
    assert report.number(x) == text


def test_a_cell_shows_the_quartiles():
    assert report.cell(spread(10.0)) == '10.0 (9.00-12.0)'
    assert report.cell(spread(10.0, runs=2)) == '10.0'
    assert report.cell(None) == '-'


def test_growth_faster_than_linear_is_said():
    text = report.slope_note({'denoise': 1.9, 'recover': 1.0})
    assert 'denoise 1.90' in text and text.endswith('faster than linear: denoise.')
    assert 'faster' not in report.slope_note({'recover': 1.0})


def test_tables_show_what_was_measured():
    text = report.tables({'ros': ros(), 'latency': latency()})
    assert text.index('## Latency') < text.index('## Through ROS 2')
    assert '| cpu | 8 | 1 | 8 | float32 | 10.0 (9.00-12.0) | 20.0 (18.0-24.0) |' in text
    assert '| raw | VGA | 922 kB | too soon | 1.25 | 58 of 60 | 0 |' in text
    assert '| VGA | shipped profile | 99 of 100 | 15.0 |' in text
    assert '2 cores of A Processor' in text and 'Warning' not in text


def test_a_busy_machine_is_on_the_page():
    busy = latency() | {'warning': 'the machine was busy'}
    assert '**Warning**: the machine was busy.' in report.tables({'latency': busy})


def test_sections_measured_later_join_the_file(tmp_path, monkeypatch, capsys):
    file, page = tmp_path / 'figures.json', tmp_path / 'figures.md'
    figures = {'latency': latency(), 'ros': ros()}
    monkeypatch.setattr(sections, 'measure', lambda name, options: figures[name])
    base = ['benchmark', '--json', str(file)]
    assert cli.main([*base, '--only', 'latency']) == 0
    assert cli.main([*base, '--only', 'ros', '--markdown', str(page)]) == 0
    assert json.loads(file.read_text()) == figures
    # what was measured now is printed; the page of all is made from the file
    assert 'Latency' not in page.read_text()
    assert cli.main(['benchmark', '--from', str(file), '--markdown', str(page)]) == 0
    assert page.read_text() == report.tables(figures) + '\n'
    assert 'Latency' in capsys.readouterr().out


def test_other_files_are_refused(tmp_path):
    path = tmp_path / 'other.json'
    for content, found in (('{"poses": 1}', 'poses'), ('[1]', 'list'), ('{', 'cannot be read')):
        path.write_text(content)
        with pytest.raises(ValueError, match=found):
            report.read(path)


@pytest.mark.skipif(not STORED.is_file(), reason='no figures are stored')
def test_the_page_is_made_from_the_stored_figures():
    command = 'ray-pose benchmark --from docs/results/benchmark.json --markdown docs/benchmarks.md'
    expected = report.tables(report.read(STORED)) + '\n'
    assert PAGE.read_text(encoding='utf-8') == expected, f'stale page; run {command}'
