"""Runs: same subsets for all, failures that count, resuming, and workers that change nothing."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from ray_pose_ros import cli
from ray_pose_ros.estimation.views import View
from ray_pose_ros.evaluation import runner
from ray_pose_ros.evaluation.command import expand_methods
from ray_pose_ros.evaluation.draws import draw_subset, draw_subsets
from ray_pose_ros.evaluation.figures import angle_table, cell, make_rows, table
from ray_pose_ros.evaluation.methods import (
    Answer,
    AzimuthMethod,
    MethodUnavailable,
    NotApplicable,
    SameMethod,
    create_method,
    parse_spec,
)
from ray_pose_ros.evaluation.parts import Settings
from ray_pose_ros.evaluation.plots import PICTURES
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.evaluation.storage import read, write

SETTINGS = Settings(views=(2, 4), subsets=5)


def orbit(name, views=9, up=(0.0, 1.0, 0.0), seed=0):
    """A sequence of cameras round the origin with a pixel each to tell them apart."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, views)
    R = np.zeros((views, 3, 3))
    R[:, 0, 0] = R[:, 2, 2] = np.cos(angles)
    R[:, 0, 2], R[:, 2, 0], R[:, 1, 1] = np.sin(angles), -np.sin(angles), 1
    images = [np.full((4, 4, 3), k, dtype=np.uint8) for k in range(views)]
    t = np.tile([0.0, 0.0, 2.0], (views, 1)) + rng.normal(0, 0.1, (views, 3))
    return Sequence(name, tuple(map(View, images)), R, t, None if up is None else np.array(up))


@dataclass(frozen=True)
class FakeSource:
    data: str = 'orbit'
    seed: int = 0
    family: str = 'orbits'
    kind: str = 'rendered'
    share: int = 1
    upright: bool = True

    @property
    def label(self):
        return self.data

    def load(self):
        up = (0.0, 1.0, 0.0) if self.upright else None
        return orbit(f'{self.data} {self.seed}', seed=self.seed, up=up)

    def fingerprint(self):
        return f'{self.data} {self.seed}'


class Truth:
    """Answers rightly; notes what it was asked; `on_solve` may disturb or raise."""

    def __init__(self, on_solve=None, on_begin=None):
        self.name, self.asked, self.drawn = 'truth', [], []
        self.on_solve, self.on_begin = on_solve, on_begin

    def begin(self, sequence):
        self.sequence = sequence
        if self.on_begin:
            self.on_begin(sequence)

    def solve(self, indices, rng):
        self.asked.append((self.sequence.name, tuple(indices.tolist())))
        self.drawn.append(rng.uniform())
        answer = Answer(
            self.sequence.R[indices], self.sequence.t[indices], np.ones(len(indices), dtype=bool)
        )
        return answer if self.on_solve is None else self.on_solve(answer, len(self.asked))


@pytest.fixture
def methods(monkeypatch):
    """Names of fake methods, for the runner to make."""
    known = {'same': SameMethod(), 'azimuth': AzimuthMethod()}
    monkeypatch.setattr(runner, 'create_method', lambda spec, options: known[spec])
    return known


def rows_of(sources, specs, settings=SETTINGS, **more):
    parts = runner.run(sources, settings, specs, **more)
    return make_rows(sources, settings, specs, parts)


def test_all_methods_get_the_same_sets_and_numbers(methods):
    methods |= {'a': Truth(), 'b': Truth(), 'alone': Truth()}
    sources = [FakeSource(seed=k) for k in range(3)]
    rows = rows_of(sources, ['a', 'azimuth', 'b'])
    assert methods['a'].asked == methods['b'].asked and len(methods['a'].asked) == 3 * 2 * 5
    assert methods['a'].drawn == methods['b'].drawn
    assert [row['solves'] for row in rows] == [15] * 6
    assert len({row['draws'] for row in rows if row['views'] == 2}) == 1
    # what else is evaluated plays no part
    rows_of([sources[1]], ['alone'], Settings(views=(4,), subsets=5))
    assert methods['alone'].asked == [
        (name, chosen)
        for name, chosen in methods['a'].asked
        if name == 'orbit 1' and len(chosen) > 2
    ]


@pytest.mark.parametrize('up', [(0.0, 1.0, 0.0), None])
def test_the_sets_are_those_of_figures_published_before(up):
    """Version 0.1.0 drew a set, then turns for the random azimuth where up is known."""
    import zlib

    sequence = orbit('rendered 7', up=up)
    rng = np.random.default_rng([0, 4, zlib.crc32(b'rendered 7')])
    for draw in draw_subsets(sequence, 4, 6, 180.0, 0):
        order = rng.permutation(9)
        assert draw.indices.tolist() == order[:4].tolist()
        if up is not None:
            assert draw.rng.uniform(0, 2 * np.pi, 4) == pytest.approx(
                rng.uniform(0, 2 * np.pi, 4), abs=0
            )


def test_subsets_stay_within_the_angle():
    sequence, rng = orbit('x', 12), np.random.default_rng(0)
    found = [draw_subset(sequence.R, 3, 60.0, rng) for _ in range(40)]
    assert any(chosen is None for chosen in found)
    for chosen in (chosen for chosen in found if chosen is not None):
        first, *others = sequence.R[chosen, 2]
        assert all(first @ other >= np.cos(np.radians(60.001)) for other in others)


def test_too_few_views_leave_the_row_out(methods):
    rows = rows_of([FakeSource()], ['same'], Settings(views=(2, 50), subsets=3))
    assert [row['views'] for row in rows] == [2]


def test_the_truth_is_right_and_references_are_what_they_say(methods):
    methods['truth'] = Truth()
    rows = rows_of([FakeSource(seed=k) for k in range(4)], ['truth', 'same', 'azimuth'])
    found = {(row['method'], row['views']): row for row in rows}
    assert found['truth', 4]['R@5'] == found['truth', 4]['CC@0.1'] == 1
    assert found['truth', 4]['ci95']['R@5'] == [1, 1]
    assert found['same', 4]['R@15'] < 0.5 and found['azimuth', 4]['R@15'] < 0.5


def test_random_azimuth_keeps_what_is_vertical():
    sequence, method = orbit('x'), AzimuthMethod()
    method.begin(sequence)
    indices = np.array([4, 2, 7])
    answer = method.solve(indices, np.random.default_rng(0))
    np.testing.assert_allclose(answer.R @ sequence.up, sequence.R[indices] @ sequence.up)
    np.testing.assert_allclose(np.linalg.det(answer.R), 1)
    assert np.abs(answer.R - sequence.R[indices]).max() > 0.1
    with pytest.raises(NotApplicable):
        method.begin(orbit('y', up=None))


def test_what_a_method_raises_is_a_failure_and_not_the_end(methods):
    def sometimes(answer, count):
        if count % 5 == 0:
            raise RuntimeError('out of\nmatches')
        if count % 5 == 1:
            return Answer(answer.R[:-1], answer.t[:-1], answer.placed[:-1])
        if count % 5 == 2:
            return Answer(answer.R * np.nan, answer.t, answer.placed)
        return answer

    def never(sequence):
        raise MemoryError('too large')

    methods |= {'sometimes': Truth(sometimes), 'never': Truth(on_begin=never)}
    rows = rows_of([FakeSource()], ['sometimes', 'never', 'same'])
    found = {(row['method'], row['views']): row for row in rows}
    assert found['sometimes', 2]['failures'] == 3 and found['sometimes', 2]['R@5'] == 0.4
    assert found['sometimes', 2]['placed'] == 0.4
    reasons = ' '.join(found['sometimes', 2]['reasons'])
    assert 'RuntimeError: out of matches' in reasons
    assert '2 views has R, t' in reasons and 'not finite' in reasons
    assert found['never', 4]['failures'] == 5 and found['never', 4]['R@30'] == 0
    assert found['same', 4]['failures'] == 0 and 'reasons' not in found['same', 4]


def test_a_method_that_cannot_run_here_ends_the_run(methods):
    def unavailable(sequence):
        raise MethodUnavailable('pip install something')

    methods['x'] = Truth(on_begin=unavailable)
    with pytest.raises(MethodUnavailable, match='pip install'):
        rows_of([FakeSource()], ['x'])


def test_a_method_that_does_not_apply_has_no_row_and_no_mean(methods):
    sources = [FakeSource('plain', upright=False), FakeSource('upright')]
    rows = rows_of(sources, ['same', 'azimuth'])
    assert ('plain', 'azimuth') not in {(row['data'], row['method']) for row in rows}
    means = [row for row in rows if row['data'].startswith('mean of')]
    assert {row['method'] for row in means} == {'same'}


def test_means_are_over_sets_and_not_over_pairs(methods):
    methods['half'] = Truth(
        lambda answer, count: answer if count <= 5 else Answer.nothing(len(answer.R))
    )
    sources = [FakeSource('a'), FakeSource('b'), FakeSource('b', seed=1), FakeSource('b', seed=2)]
    rows = rows_of(sources, ['half'], Settings(views=(4,), subsets=5))
    found = {row['data']: row for row in rows}
    assert (found['a']['R@5'], found['b']['R@5']) == (1, 0)
    mean = found['mean of 2 orbits']
    assert mean['R@5'] == 0.5 and mean['solves'] == 20 and mean['sequences'] == 4
    assert sum(entry['pairs'] for entry in mean['by_angle'].values()) == mean['pairs'] == 240


def test_a_resumed_run_computes_only_what_is_missing(methods, tmp_path):
    methods['a'] = Truth()
    sources = [FakeSource(seed=k) for k in range(2)]
    first = rows_of(sources, ['a', 'azimuth'], parts_dir=tmp_path)
    asked = len(methods['a'].asked)
    again = rows_of(sources, ['a', 'azimuth'], parts_dir=tmp_path, resume=True)
    assert len(methods['a'].asked) == asked and again == first
    # another seed is another run, another N is only that N
    rows_of(sources, ['a'], Settings((2, 4), 5, seed=1), parts_dir=tmp_path, resume=True)
    assert len(methods['a'].asked) == 2 * asked
    rows_of(sources, ['a'], Settings((2, 4, 3), 5), parts_dir=tmp_path, resume=True)
    assert len(methods['a'].asked) == 2 * asked + 2 * 5
    # without being asked to, nothing old is used; half a file is none
    rows_of(sources, ['a'], parts_dir=tmp_path)
    assert len(methods['a'].asked) == 3 * asked + 2 * 5
    for path in tmp_path.glob('*.json'):
        path.write_text(path.read_text()[:-20])
    assert rows_of(sources, ['a', 'azimuth'], parts_dir=tmp_path, resume=True) == first


def test_a_killed_run_goes_on(methods, tmp_path):
    def stop(answer, count):
        if count == 12:  # in the second sequence
            raise KeyboardInterrupt
        return answer

    sources = [FakeSource(seed=k) for k in range(3)]
    methods['a'] = Truth()
    whole = rows_of(sources, ['a', 'azimuth'])
    methods['a'] = Truth(stop)
    with pytest.raises(KeyboardInterrupt):
        rows_of(sources, ['a', 'azimuth'], parts_dir=tmp_path, resume=True)
    methods['a'] = Truth()
    assert rows_of(sources, ['a', 'azimuth'], parts_dir=tmp_path, resume=True) == whole
    assert len(methods['a'].asked) == 2 * 2 * 5 - 0


def test_other_weights_are_another_run(methods, tmp_path):
    for name, content in (('one', 'a'), ('two', 'b'), ('copy', 'a')):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'config.json').write_text(content)
    methods['a'] = Truth()
    counts = []
    for name in ('one', 'two', 'copy'):
        settings = Settings((2,), 5, checkpoint=str(tmp_path / name))
        rows_of([FakeSource()], ['a', 'same'], settings, parts_dir=tmp_path / 'p', resume=True)
        counts.append(len(methods['a'].asked))
    assert counts == [5, 10, 10]
    assert len(list((tmp_path / 'p').iterdir())) == 3  # of `same` there is one


def test_tables_and_files_of_a_run(methods, tmp_path):
    methods['model:steps=1'] = Truth()
    methods['model:steps=4'] = Truth()

    def uncertain(answer, count):
        sigma = np.full(len(answer.R), 0.01 * count)
        return Answer(answer.R, answer.t, answer.placed, rotation_sigma=sigma)

    methods['model'] = Truth(uncertain)
    specs = ['model', 'model:steps=1', 'model:steps=4', 'same', 'azimuth']
    rows = rows_of([FakeSource(seed=k) for k in range(3)], specs)
    text = table(rows, ['R@15', 'median', 'CC@0.1'], errors=True)
    assert '| orbit | 2 | model, steps 4 | 100 ± 0 % | ' in text
    assert text.splitlines()[2].endswith('| - |')  # two views tell nothing of centres
    assert len({line.count('|') for line in text.splitlines()}) == 1
    assert '| 2 | all cameras the same | ' in angle_table(rows, data=False)
    with pytest.raises(ValueError, match="column is 'R@16', expected one of R@5"):
        table(rows, ['R@16'])
    results = {'format': 2, 'settings': {}, 'machine': {}, 'results': rows}
    written = write(tmp_path, results)
    assert {f'{name}.png' for name in PICTURES} < set(written)
    for name in written:
        assert (tmp_path / name).stat().st_size > 500
    assert read(tmp_path / 'results.json')['results'][0]['R@15'] == 1
    json.loads((tmp_path / 'results.json').read_text(), parse_constant=pytest.fail)


def test_cells_show_what_there_is():
    row = {'views': 5, 'R@15': 0.236, 'median': 12.345, 'se': {'R@15': 0.031, 'median': 1.5}}
    assert cell(row, 'R@15') == '24 %' and cell(row, 'R@15', errors=True) == '24 ± 3 %'
    assert cell(row, 'median') == '12.3 deg' and cell(row, 'median', True) == '12.3 ± 1.5 deg'
    assert cell(row, 'focal_median') == '-'


def test_specs_and_their_options():
    assert parse_spec('model:steps=4,samples=1') == ('model', {'steps': '4', 'samples': '1'})
    assert expand_methods(['model', 'same'], [1, 4], 2) == [
        'model:steps=1,samples=2',
        'model:steps=4,samples=2',
        'same',
    ]
    assert expand_methods(['model:seed=3'], None, 1) == ['model:seed=3,samples=1']
    assert expand_methods(['model']) == ['model']
    with pytest.raises(ValueError, match='same twice'):
        expand_methods(['same', 'same'])
    with pytest.raises(ValueError, match="method is 'model:steps'"):
        parse_spec('model:steps')
    with pytest.raises(ValueError, match="'nobody', expected one of .*azimuth"):
        create_method('nobody')
    with pytest.raises(ValueError, match="same has no option 'steps', expected one of none"):
        create_method('same:steps=2')
    with pytest.raises(ValueError, match="option steps is 'x'"):
        create_method('model:steps=x')


@pytest.mark.slow
def test_workers_and_steps_change_nothing_but_the_time(tmp_path):
    arguments = ['evaluate', '--rendered', '2', '--views', '2', '--subsets', '10']
    arguments += ['--device', 'cpu', '--methods', 'model', 'azimuth', '--no-plots']
    found = []
    for jobs in ('1', '2'):
        out = tmp_path / jobs
        assert cli.main([*arguments, '--jobs', jobs, '--out', str(out)]) == 0
        rows = read(out / 'results.json')['results']
        found.append([{k: v for k, v in row.items() if 'seconds' not in k} for row in rows])
    assert found[0] == found[1] and len(found[0]) == 2


def test_the_models_own_matches_are_an_option():
    assert create_method('model').estimator.use_matches
    assert not create_method('model:matches=0,samples=1').estimator.use_matches
    with pytest.raises(ValueError, match='matches'):
        create_method('model:matches=some')
