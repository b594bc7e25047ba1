"""Turntables: the axis and the lens from matches alone, then a capture that can be trained on."""

import importlib.util

import cv2
import numpy as np
import pytest
from capture_fixtures import blank, photograph

from ray_pose_ros.cli import main
from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.training.captures import Capture
from ray_pose_ros.training.turntable import reconstruct_turntable, solve_turntable

needs_pycolmap = pytest.mark.skipif(
    importlib.util.find_spec('pycolmap') is None, reason='pycolmap is not installed'
)

WIDTH, HEIGHT, STEPS = 800, 600, 24


def turn_of(focal=2.0, tilt=15.0, roll=2.0, way=1, seed=0, wrong=0.2, noise=0.4, seen=60):
    """Matches of a turn, axis (3,) in the camera's frame and pixels of the focal length."""
    rng = np.random.default_rng(seed)
    tilt, roll = np.radians([tilt, roll])
    up = np.array([np.sin(roll) * np.cos(tilt), -np.cos(roll) * np.cos(tilt), -np.sin(tilt)])
    axis, centre, pixels = way * up, np.array([0.01, 0.02, 1.0]), focal * WIDTH
    size = 0.25 / focal
    points = rng.uniform(-size, size, (400, 3))

    def seen_at(k):
        R = rotation_from_vector(axis * 2 * np.pi * k / STEPS)
        x = points @ R.T + centre
        facing = (points @ R.T)[:, 2] < 0  # its near side alone
        return x[:, :2] / x[:, 2:] * pixels + np.array([WIDTH, HEIGHT]) / 2, facing

    matches = []
    for i in range(STEPS):
        for step in (1, 2, 3):
            j = (i + step) % STEPS
            (a, in_a), (b, in_b) = seen_at(i), seen_at(j)
            both = np.flatnonzero(in_a & in_b)[:seen]
            a, b = a[both], b[both] + rng.normal(size=(len(both), 2)) * noise
            lost = rng.random(len(both)) < wrong
            b[lost] = rng.uniform(0, [WIDTH, HEIGHT], (lost.sum(), 2))
            matches.append((2 * np.pi * step / STEPS, a, b))
    return matches, axis, pixels


@pytest.mark.parametrize('way', [1, -1])
@pytest.mark.parametrize(('focal', 'tilt'), [(1.2, 5.0), (2.5, 20.0), (1.5, 50.0)])
def test_a_turntable_is_solved_from_noisy_matches(focal, tilt, way):
    matches, axis, pixels = turn_of(focal, tilt, way=way)
    found = solve_turntable(matches, WIDTH, HEIGHT)
    assert np.degrees(np.arccos(np.clip(found.axis @ axis, -1, 1))) < 1.5
    assert found.focal == pytest.approx(pixels, rel=0.15)
    assert found.error < 1.0


def test_poses_turn_about_the_axis_by_the_angle():
    matches, _, _ = turn_of()
    found = solve_turntable(matches, WIDTH, HEIGHT)
    R, t = found.pose(0.7)
    assert angle_between(R, np.eye(3)) == pytest.approx(0.7)
    assert R @ found.centre + t == pytest.approx(found.centre)  # the axis stays where it is
    assert R @ found.axis == pytest.approx(found.axis)


def test_matches_that_are_no_even_turn_show_in_the_error():
    matches, _, _ = turn_of()
    rng = np.random.default_rng(1)
    uneven = [(turn, a, rng.permutation(b)) for turn, a, b in matches]
    assert solve_turntable(uneven, WIDTH, HEIGHT).error > 5.0


def test_too_few_matches_are_refused():
    matches, _, _ = turn_of(seen=1)
    with pytest.raises(ValueError, match='matches, expected 150 or more'):
        solve_turntable(matches, WIDTH, HEIGHT)
    with pytest.raises(ValueError, match='0 matches'):
        solve_turntable([], WIDTH, HEIGHT)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """A folder with a whole turn of a textured thing, and the cameras' rotations (N, 3, 3)."""
    folder = tmp_path_factory.mktemp('turntable')
    return folder, photograph(folder, 900.0, 2 * np.pi * np.arange(STEPS) / STEPS, 6.0, 0.4)


@pytest.mark.slow
@needs_pycolmap
def test_photographs_of_a_turn_become_a_capture(photographs, tmp_path):
    folder, truth = photographs
    arguments = [str(tmp_path / 'data'), str(folder), '--scenes', '2', '--turntable']
    assert main(['train', 'captures', *arguments]) == 0
    assert len(list((tmp_path / 'data').glob('scenes_train_*.npz'))) == 1
    solved = Capture.read(folder)
    found = np.array([photo.R for photo in solved.photos])
    assert len(found) == STEPS
    for k in range(1, STEPS):
        off = angle_between(found[k] @ found[0].T, truth[k] @ truth[0].T)
        assert np.degrees(off) < 3.0


@pytest.mark.slow
@needs_pycolmap
def test_photographs_that_are_no_turn_are_left_out(tmp_path, capsys):
    images = blank(tmp_path / 'thing')
    folder = str(tmp_path / 'thing')
    assert main(['train', 'captures', str(tmp_path / 'data'), folder, '--turntable']) == 1
    assert 'cannot be solved as a turn in equal steps' in capsys.readouterr().out
    assert not (tmp_path / 'thing' / 'sparse').exists()
    cv2.imwrite(str(images / '9.png'), np.zeros((130, 160, 3), np.uint8))
    with pytest.raises(ValueError, match='photographs of different sizes'):
        reconstruct_turntable(tmp_path / 'thing', threads=1)
