"""`ray-pose benchmark`: what it measures, on a network small enough for a test."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ray_pose_ros import cli
from ray_pose_ros.evaluation.benchmarks import (
    accuracy,
    fresh,
    keyframes,
    latency,
    machine,
    many,
    map_growth,
    ratios,
    refinement,
    report,
    scale,
    startup,
)
from ray_pose_ros.evaluation.benchmarks.timing import interleave, ratio, slope, spread
from ray_pose_ros.evaluation.benchmarks.workload import Options, random_views
from ray_pose_ros.evaluation.methods import MethodUnavailable
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser

SPREAD = {'median', 'low', 'high', 'runs'}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """A model of random weights that takes several samples and several steps."""
    torch.manual_seed(0)
    sizes = {'width': 24, 'depth': 2, 'heads': 2, 'image_size': 56, 'grid': 4}
    sizes |= {'backbone_width': 24, 'backbone_depth': 1, 'backbone_heads': 2}
    sizes |= {'geometry': 'directions', 'anchor_reference': True, 'steps': 20, 'readout': 3}
    sizes |= {'view_code': 'reference', 'sample_steps': 2}
    path = tmp_path_factory.mktemp('checkpoint')
    save_checkpoint(RayDiffuser(ModelConfig(**sizes)), path, half=False)
    return path


@pytest.fixture
def options(checkpoint) -> Options:
    return Options(
        views=(2, 3),
        repeats=2,
        checkpoint=checkpoint,
        devices=('cpu',),
        scale=(2, 4),
        objects=1,
        loop_steps=10,
    )


def test_rounds_run_every_case_once_and_in_changing_order():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in 'abc'}
    found = interleave(cases, 6)
    rounds = [tuple(calls[k : k + 3]) for k in range(0, len(calls), 3)]
    assert all(sorted(r) == ['a', 'b', 'c'] for r in rounds) and len(rounds) == 7
    assert len(set(rounds[1:])) > 1
    assert all(len(found[name]['wall']) == len(found[name]['cpu']) == 6 for name in 'abc')


def test_stages_of_a_case_are_kept():
    found = interleave({'a': lambda: {'half': 0.5}}, 2)
    assert found['a']['half'] == [0.5, 0.5]


def test_no_rounds_are_refused():
    with pytest.raises(ValueError, match='0 repeats, expected 1 or more'):
        interleave({'a': lambda: None}, 0)


def test_spread_is_median_and_quartiles():
    assert spread([4, 1, 2, 3, 5], 10) == {'median': 30, 'low': 20, 'high': 40, 'runs': 5}
    with pytest.raises(ValueError, match='0 values'):
        spread([])


def test_ratio_is_taken_round_by_round():
    # the second round was ten times slower for both
    assert ratio([2, 20, 2], [1, 10, 1])['high'] == 2


def test_slope_is_the_exponent():
    sizes = [1, 2, 4, 8]
    assert slope(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match='1 sizes'):
        slope([1], [1])


def test_machine_is_named_and_a_busy_one_is_said():
    found = machine.describe()
    assert found['processor'] and found['torch'] == torch.__version__ and found['threads'] >= 1
    assert machine.load().keys() == {'load_average', 'cores_in_use'}
    idle, busy = ({'load_average': x, 'cores_in_use': x} for x in (0.02, 1.5))
    assert machine.warning([idle, idle]) is None
    assert '1.5 cores in use' in machine.warning([idle, busy])


def test_latency_varies_one_thing_at_a_time(options, monkeypatch):
    monkeypatch.setattr(latency, 'STEPS', (1, 4))
    monkeypatch.setattr(latency, 'SAMPLES', (1, 3))
    rows = latency.measure(options)
    assert {r['views'] for r in rows} == {2, 3}
    assert {r['steps'] for r in rows} == {1, 2, 4}
    assert {r['samples'] for r in rows} == {1, 3, 8}
    assert len(rows) == 2 + 2 + 2 + 1
    assert {r['precision'] for r in rows} == {'float32', 'bfloat16'}
    for row in rows:
        for name in ('features', 'denoise', 'recover', 'all', 'keyframe', 'cpu'):
            assert row[name].keys() == SPREAD and row[name]['median'] > 0
            assert row[name]['runs'] == 2
        assert row['keyframe']['median'] < row['all']['median']
        assert row['windows_per_second'] * row['all']['median'] == pytest.approx(1e3)
        assert row['views_per_second'] == row['views'] * row['windows_per_second']


def test_official_loop_is_measured_beside_ours_and_gives_the_same(options, monkeypatch):
    together = []

    def watched(cases, *args, **kwargs):
        together.append(list(cases))
        return interleave(cases, *args, **kwargs)

    monkeypatch.setattr(ratios, 'interleave', watched)
    found = ratios.official_loop(options)
    assert len(together) == 1 and ratios.LOOP in together[0] and len(together[0]) == 5
    rows = {row['way']: row for row in found['rows']}
    assert rows[ratios.LOOP]['ratio']['median'] == 1
    same = rows['the same answer, 7 calls']
    assert same['difference'] < 1e-4
    assert rows['4 calls']['difference'] is None
    batch = rows['4 samples at once, 7 calls']
    assert batch['difference'] < 1e-4
    assert batch['per_answer'] == 4 * batch['ratio']['median']
    assert found['settings']['loop_steps'] == 10 and not found['settings']['official_size']


def test_naive_use_is_measured_beside_ours(options):
    found = ratios.naive_use(options)
    ways = [row['way'] for row in found['rows']]
    assert ways[0] == 'nothing kept, 17 calls, 1 answer' and ways[-1].startswith('as shipped')
    assert found['rows'][0]['ratio']['median'] == 1
    assert all(row['time'].keys() == SPREAD for row in found['rows'])
    # how large it is depends on what else the machine does: that is for the benchmark to tell
    assert all(row['cpu_ratio']['median'] > 0 for row in found['rows'])


def test_refinement_is_measured_beside_structure_from_motion(options, monkeypatch):
    views = random_views(4)
    truth = np.tile(np.eye(3), (4, 1, 1)), np.tile([0.0, 0, 1], (4, 1))
    monkeypatch.setattr(refinement, 'render_scene', lambda *_: Sequence('random', views, *truth))
    made = refinement.create_method

    def create(spec, options):
        if spec.startswith('lightglue-colmap'):
            raise MethodUnavailable('no pycolmap')
        return made('refined:matcher=sift' if spec == 'refined' else 'same', {})

    monkeypatch.setattr(refinement, 'create_method', create)
    rows = refinement.measure(options)['rows']
    found = {row['way']: row for row in rows}
    assert list(found) == [*refinement.WAYS, *refinement.NODE]
    assert found['lightglue-colmap']['time'] is found['lightglue-colmap']['ratio'] is None
    assert found['refined']['ratio']['median'] == 1 and found['model']['ratio']['median'] < 1
    first, joined, last = (found[name]['time']['median'] for name in refinement.NODE)
    assert 0 < first < joined <= last
    with pytest.raises(ValueError, match='has 4 views, expected 5'):
        refinement.measure(replace(options, views=(5,)))


def test_many_views_are_measured_in_sets_that_have_them(options, monkeypatch):
    views = random_views(6)
    R, t = np.tile(np.eye(3), (6, 1, 1)), np.random.default_rng(0).normal(size=(6, 3))
    monkeypatch.setattr(refinement, 'read_folder', lambda name: Sequence(str(name), views, R, t))
    made = refinement.create_method

    def create(spec, options):
        if 'colmap' in spec:
            raise MethodUnavailable('no pycolmap')
        return made('refined:matcher=sift' if spec == 'refined' else 'same', {})

    monkeypatch.setattr(refinement, 'create_method', create)
    monkeypatch.setattr(many, 'COUNTS', (5, 7))
    rows = many.measure(replace(options, sets=(Path('a'), Path('b'))))['rows']
    assert [(row['set'], row['views']) for row in rows[::3]] == [('a', 5), ('b', 5)]
    assert [row['way'] for row in rows[:3]] == list(many.WAYS[:3])
    # all stand alike, which the method that says so has right
    assert rows[0]['R@5'] == 1 and rows[0]['median'] < 1e-3 and rows[1]['ratio'] == 1
    assert all(row['seconds'] > 0 for row in rows)
    text = '\n'.join(report._many({'rows': rows}))
    assert '| a | 5 | model | 0 |' in text and '| 100 % | 100 % |' in text


def test_accuracy_uses_the_same_sets_for_all_settings(options, monkeypatch):
    views = random_views(5)
    truth = np.tile(np.eye(3), (5, 1, 1)), np.tile([0.0, 0, 1], (5, 1))
    monkeypatch.setattr(accuracy, 'STEPS', (1, 4))
    monkeypatch.setattr(accuracy, 'SAMPLES', (1, 3))
    monkeypatch.setattr(accuracy, 'render_scene', lambda *_: Sequence('random', views, *truth))
    rows = accuracy.measure(options)
    assert len(rows) == 2 * 2 * 2
    assert {row['sets'] for row in rows} == {3}
    for row in rows:
        assert row['pairs'] == 3 * row['views'] * (row['views'] - 1)
        assert 0 <= row['R@15'] <= 1 and row['solve']['median'] > 0


def test_growth_with_views_is_measured_and_said(options, monkeypatch):
    def memory(**settings):
        memory = {'loaded_mib': 50.0, 'gpu_peak_mib': None}
        return memory | {'peak_mib': 50.0 + settings['views'] ** 2}

    monkeypatch.setattr(scale, 'in_fresh_process', memory)
    found = scale.by_views(options)
    assert [row['views'] for row in found['rows']] == [2, 4]
    assert found['slopes']['working_mib'] == pytest.approx(2)
    assert found['rows'][1]['slopes']['working_mib'] == pytest.approx(2)
    assert found['operators'] and 0 < found['operators'][0]['share'] <= 1
    assert all(row['denoise']['median'] > 0 for row in found['rows'])


def test_growth_with_samples_and_keyframes(options, monkeypatch):
    monkeypatch.setattr(scale, 'SAMPLES', (2, 4))
    found = scale.by_samples(options)
    assert [row['samples'] for row in found['rows']] == [2, 4]
    monkeypatch.setattr(keyframes, 'COUNTS', (5, 50))
    found = keyframes.measure(options)
    assert found['slopes']['written_mib'] == pytest.approx(1, abs=0.1)
    assert found['keyframe_mib']['1080p'] > 1920 * 1080 * 3 / 2**20
    assert found['gate']['VGA']['median'] > 0
    assert all(row['add']['median'] > 0 and row['write']['median'] > 0 for row in found['rows'])


def test_growth_of_the_map(options, monkeypatch):
    monkeypatch.setattr(map_growth, 'COUNTS', (9, 12))
    found = map_growth.measure(options)
    assert [row['keyframes'] for row in found['rows']] == [9, 12]
    for step in ('join', 'points'):
        assert all(row[step]['median'] > 0 for row in found['rows']) and step in found['slopes']
    assert 0.02 < found['packed_mib']['VGA'] < found['packed_mib']['1080p'] < 1920 * 1080 / 2**20


@pytest.mark.slow
def test_start_and_memory_are_of_fresh_processes(options):
    rows = startup.measure(Options(**vars(options) | {'views': (2,), 'repeats': 1}))
    row = rows[0]
    assert row['peak_mib'] >= row['loaded_mib'] >= row['imported_mib'] > 50
    assert row['start_to_first_answer_s']['median'] > row['import_torch_s']['median'] > 0
    assert row['gpu_peak_mib'] is None
    with pytest.raises(RuntimeError, match='device is'):
        fresh.in_fresh_process(views=2, device='toaster')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--views', '1'], '--views is [1], expected 2 or more'),
        (['--scale', '4', '1'], '--scale is [4, 1], expected 2 or more'),
        (['--repeats', '0'], '--repeats is 0, expected 1 or more'),
        (['--objects', '0'], '--objects is 0, expected 1 or more'),
        (['--loop-steps', '3'], '--loop-steps is 3, expected 4 or more'),
        (['--only', 'latency', '--device', 'toaster'], 'toaster'),
        (['--from', 'missing.json'], 'missing.json cannot be read'),
        (['--json', '.'], '. is a folder, expected a file'),
        (['--json', '/proc/none'], '/proc/none cannot be written'),
        (['--markdown', '/proc/none'], '/proc/none cannot be written'),
        (['--json', 'setup.py'], 'setup.py cannot be read as JSON'),
        (['--from', 'missing.json', '--only', 'latency'], '--from measures nothing'),
        (['--sets', 'photos'], '--sets are of --refinement and --many'),
    ],
)
def test_bad_arguments_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert cli.main(['benchmark', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_ros_is_said_before_anything_is_measured(monkeypatch, capsys):
    from ray_pose_ros.evaluation.benchmarks import ros, sections

    monkeypatch.setattr(ros, 'find_spec', lambda name: None)
    monkeypatch.setattr(sections, 'measure', lambda *_: pytest.fail('measured'))
    assert cli.main(['benchmark', '--ros']) == 2
    assert '--ros needs ROS 2' in capsys.readouterr().err
