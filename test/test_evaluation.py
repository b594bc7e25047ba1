"""Metrics and sequences of the evaluation, and the command on a small rendered set."""

import json

import numpy as np
import pytest

from ray_pose_ros import cli
from ray_pose_ros.evaluation.command import draw_subset
from ray_pose_ros.evaluation.metrics import Errors, random_azimuth, same_cameras
from ray_pose_ros.evaluation.sequences import read_folder, render_scene


@pytest.fixture(scope='module')
def scene():
    return render_scene(3, views=5)


def centres(R, t):
    return -np.einsum('nji,nj->ni', R, t)


def test_the_truth_has_no_error_and_any_similarity_of_it_neither(scene):
    R, t = scene.R, scene.t
    turn = R[1]
    moved = R @ turn.T, 2 * (t - np.einsum('nij,j->ni', R @ turn.T, [0.3, -1.0, 0.5]))
    for answer in ((R, t), moved):
        errors = Errors()
        errors.add(*answer, R, t, centres(R, t))
        found = errors.summary()
        assert found['R@5'] == found['CC@0.1'] == 1
        assert found['pairs'] == 20 and found['p90'] < 1e-4


def test_pairs_are_counted_by_their_true_angle(scene):
    errors = Errors()
    errors.add(*same_cameras(5), scene.R, scene.t, centres(scene.R, scene.t))
    assert sum(row['pairs'] for row in errors.by_angle().values()) == 20
    assert errors.summary()['R@15'] < 1


def test_random_azimuth_keeps_what_is_vertical(scene):
    R, t = random_azimuth(scene.R, scene.t, scene.up, np.random.default_rng(0))
    np.testing.assert_allclose(R @ scene.up, scene.R @ scene.up, atol=1e-9)
    assert np.abs(R - scene.R).max() > 0.1


def test_subsets_stay_within_the_angle(scene):
    rng = np.random.default_rng(0)
    for _ in range(20):
        chosen = draw_subset(scene.R, 2, 120.0, rng)
        if chosen is not None:
            first, second = scene.R[chosen, 2]
            assert np.degrees(np.arccos(first @ second)) <= 120
    assert draw_subset(scene.R, 6, 180.0, rng) is None


def test_the_command_writes_all_figures(tmp_path, capsys):
    out = tmp_path / 'figures.json'
    code = cli.main(
        ['evaluate', '--rendered', '1', '--views', '2', '--subsets', '10', '--device', 'cpu']
        + ['--out', str(out)]
    )
    assert code == 0
    results = json.loads(out.read_text())['results']
    assert [row['method'] for row in results] == ['model', 'same', 'azimuth']
    assert '| rendered | 2 | model |' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'nothing to evaluate'),
        (['--rendered', '1', '--views', '1'], 'expected 2 or more'),
        (['nowhere'], 'no poses.json'),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert cli.main(['evaluate', '--device', 'cpu', *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_frame_without_a_pose_is_named(tmp_path):
    frame = {'file': 'a.png', 'K': [[100, 0, 32], [0, 100, 32], [0, 0, 1]]}
    (tmp_path / 'poses.json').write_text(json.dumps({'frames': [frame]}))
    with pytest.raises(ValueError, match=r'a\.png has no R and t'):
        read_folder(tmp_path)


def test_benchmark_prints_a_row_for_each_number_of_views(capsys):
    arguments = ['benchmark', '--views', '2', '3', '--repeats', '1', '--device', 'cpu']
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert '| 2 | ' in printed and '| 3 | ' in printed
    assert cli.main(['benchmark', '--views', '1', '--device', 'cpu']) == 2
