"""The documents quote the stored results, and nothing else."""

from pathlib import Path

import pytest

from ray_pose_ros import cli
from ray_pose_ros.evaluation.fingerprints import folder_fingerprint
from ray_pose_ros.evaluation.report import Report, read_plan
from ray_pose_ros.evaluation.report_command import keep
from ray_pose_ros.evaluation.storage import read, write_json

ROOT = Path(__file__).resolve().parents[1]
PLAN = """\
small:
  arguments: --rendered 2 --views 2 5
  baselines: [colmap]
other:
  sets: [fox, apple]
  arguments: --views 2
  methods: [model, 'model:steps=4']
"""
PAGE = """\
Prose that stays.

<!-- results: small table columns=R@15,median hide=data -->
old
<!-- end -->

Here <!-- results: small value N=5 method=model column=R@15 -->?<!-- end --> of the pairs.

<!-- results: small command -->
<!-- end -->
<!-- results: small plot name=cumulative methods="model same" -->
<!-- end -->
<!-- results: other table -->
<!-- end -->
"""


def row(method, views=5, draws='d', **figures):
    found = {'data': 'rendered', 'views': views, 'method': method, 'draws': draws}
    found |= {'R@15': 0.25, 'median': 20.0, 'curve': [0.1] * 14, **figures}
    return found


def results(rows):
    machine = {'device': 'cpu', 'processor': 'P', 'torch': '2'}
    settings = {'weights': 'abc', 'checkpoint': 'shipped'}
    return {'format': 2, 'settings': settings, 'machine': machine, 'results': rows}


@pytest.fixture
def root(tmp_path):
    """A small repository with a plan, a page, a README and results of one run."""
    folder = tmp_path / 'docs' / 'results'
    folder.mkdir(parents=True)
    (folder / 'plan.yaml').write_text(PLAN)
    (tmp_path / 'docs' / 'results.md').write_text(PAGE)
    (tmp_path / 'README.md').write_text('# Name\n\n<!-- results: small origin -->\n<!-- end -->\n')
    write_json(folder / 'small.json', results([row('model'), row('same', median=90.0)]))
    return tmp_path


def test_the_documents_agree_with_the_stored_results():
    assert Report(ROOT).differences() == [], 'run: ray-pose report'


def test_the_stored_results_are_of_the_shipped_weights():
    for name in read_plan(ROOT):
        path = ROOT / 'docs' / 'results' / f'{name}.json'
        if path.is_file():
            weights = read(path)['settings']['weights']
            assert weights == folder_fingerprint(None), f'run: ray-pose report --run {name}'


def test_no_results_lie_about_that_no_plan_knows():
    stored = {path.stem for path in (ROOT / 'docs' / 'results').glob('*.json')}
    assert stored <= {*read_plan(ROOT), 'benchmark'}  # which has a test of its own


def test_blocks_are_written_and_prose_is_left(root):
    report = Report(root)
    assert len(report.differences()) >= 5
    assert set(report.write()) == {
        'docs/results.md',
        'README.md',
        'docs/results/small_cumulative_model_same.png',
    }
    page = (root / 'docs/results.md').read_text()
    assert page.startswith('Prose that stays.\n\n<!-- results: small table')
    assert '| 5 | all cameras the same | 25 % | 90 deg |' in page and '\nold\n' not in page
    assert '--> of the pairs.' in page and 'column=R@15 -->25 %<!-- end -->' in page
    assert '(results/small_cumulative_model_same.png)' in page
    assert 'Not measured yet: `ray-pose report --run other`' in page
    command = 'ray-pose evaluate --rendered 2 --views 2 5 --methods model same azimuth colmap'
    assert f'```bash\n{command}\n```' in page
    assert 'Weights abc (shipped), P, one thread' in (root / 'README.md').read_text()
    again = Report(root)
    assert again.differences() == []
    before = page
    again.write()
    assert (root / 'docs/results.md').read_text() == before


@pytest.mark.parametrize(
    ('old', 'new', 'file'),
    [('25 %', '26 %', 'docs/results.md'), ('Weights abc', 'Weights abd', 'README.md')],
)
def test_a_figure_changed_by_hand_is_refused(root, old, new, file, capsys):
    assert cli.main(['report', '--root', str(root)]) == 0
    assert cli.main(['report', '--check', '--root', str(root)]) == 0
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1))
    capsys.readouterr()
    assert cli.main(['report', '--check', '--root', str(root)]) == 1
    assert f'differs from the stored results: {file}: small' in capsys.readouterr().out


def test_results_that_change_and_pictures_that_vanish_are_refused(root):
    Report(root).write()
    write_json(root / 'docs/results/small.json', results([row('model', **{'R@15': 0.3})]))
    assert len(Report(root).differences()) == 2  # the table and the figure in the text
    Report(root).write()
    (root / 'docs/results/small_cumulative_model_same.png').unlink()
    (missing,) = Report(root).differences()
    assert missing.endswith('small_cumulative_model_same.png is missing')


@pytest.mark.parametrize(
    ('marker', 'message'),
    [
        ('nobody table', "run is 'nobody', expected one of small, other"),
        ('small tabel', "kind is 'tabel', expected one of command"),
        ('small table N=7', 'no such rows'),
        ('small table columns=R@16', "column is 'R@16'"),
        ('small value column=R@15', '2 rows fit, expected one'),
        ('small table wide', 'expected: RUN KIND key=value'),
        ('small plot name=pie', "plot is 'pie'"),
    ],
)
def test_a_wrong_marker_is_named(root, marker, message):
    (root / 'README.md').write_text(f'<!-- results: {marker} -->\n<!-- end -->\n')
    with pytest.raises(ValueError, match=message):
        Report(root).write()


def test_baselines_are_kept_where_the_sets_are_the_same(root):
    plan = read_plan(root)['small']
    stored = results([row('model'), row('colmap', **{'R@15': 0.5})])
    fresh = results([row('model', **{'R@15': 0.4}), row('same')])
    assert keep(fresh, stored, plan) == []
    assert [(r['method'], r['R@15']) for r in fresh['results']] == [
        ('model', 0.4),
        ('same', 0.25),
        ('colmap', 0.5),
    ]
    assert fresh['kept'] == ['colmap']
    for other in (results([row('colmap', draws='e')]), None):
        fresh = results([row('model')])
        assert keep(fresh, other, plan) == ['colmap']
        assert [r['method'] for r in fresh['results']] == ['model'] and 'kept' not in fresh
    # one N of two is not enough
    fresh = results([row('model'), row('model', views=2)])
    assert keep(fresh, stored, plan) == ['colmap'] and len(fresh['results']) == 2


@pytest.mark.slow
def test_the_report_measures_what_the_plan_says(root, capsys):
    plan = 'small:\n  arguments: --rendered 1 --views 2 --subsets 10\n  methods: [same, azimuth]\n'
    (root / 'docs/results/plan.yaml').write_text(plan)
    (root / 'docs/results.md').write_text('<!-- results: small table -->\n<!-- end -->\n')
    assert cli.main(['report', '--run', '--root', str(root), '--jobs', '1']) == 0
    stored = read(root / 'docs/results/small.json')
    assert [r['method'] for r in stored['results']] == ['same', 'azimuth']
    assert '| rendered | 2 | true elevation' in (root / 'docs/results.md').read_text()


def test_runs_without_their_photographs_are_left_as_they_are(root, capsys):
    plan = 'other:\n  sets: [fox, apple]\n  arguments: --views 2\n  methods: [same]\n'
    (root / 'docs/results/plan.yaml').write_text(plan)
    for page in ('docs/results.md', 'README.md'):
        (root / page).write_text('Nothing yet.\n')
    (root / 'fox').mkdir()
    assert cli.main(['report', '--run', '--sets', str(root), '--root', str(root)]) == 0
    assert f'other: left as it is, {root} has no apple\n' in capsys.readouterr().err


def test_bad_requests_are_one_line(root, capsys):
    for words, message in (
        (['--check', '--run'], '--run cannot go with it'),
        (['--run', 'nobody'], 'expected some of small, other'),
        (['--run', 'other'], 'needs photographs: no --sets'),
        (['--run', 'other', '--sets', str(root)], f'{root} has no '),
        (['--sets', '/nope', '--run'], '--sets is /nope, expected a folder'),
        (['--jobs', '0', '--run'], '--jobs is 0, expected 1 or more'),
        (['--baselines'], 'are of what --run measures'),
        (['--root', str(root / 'docs')], '--root is the repository'),
    ):
        if '--root' not in words:
            words = [*words, '--root', str(root)]
        assert cli.main(['report', *words]) == 2
        assert message in capsys.readouterr().err
