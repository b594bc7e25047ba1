"""Windows of views joined into one world."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.so3 import (
    angle_between,
    camera_centres,
    rotation_from_vector,
)
from ray_pose_ros.multiview.joining import Answers, join

WINDOW = 6


def ring(count: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Cameras that look at the origin from all around: R (K, 3, 3), centres (K, 3).

    In the world of the first one, which is at distance 1.
    """
    angle = 2 * np.pi * np.arange(count) / count
    centres = np.stack([np.sin(angle), rng.normal(0, 0.3, count), -np.cos(angle)], axis=1)
    centres *= rng.uniform(0.7, 1.4, count)[:, None]
    z = -centres / np.linalg.norm(centres, axis=1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    R = np.stack([x, np.cross(z, x), z], axis=1)
    unit = np.linalg.norm(centres[0])
    return R @ R[0].T, centres @ R[0].T / unit


def told(R, centres, windows, rng, rotation=0.0, centre=0.0) -> Answers:
    """What windows tell of the cameras, each in a world of its own, with errors in rad and shares
    of the first one's distance."""
    parts = []
    for w, ids in enumerate(windows):
        ids = np.asarray(ids)
        n = len(ids)
        turn = rotation_from_vector(rotation * rng.normal(size=(n, 3)) / 3**0.5)
        unit = np.linalg.norm(centres[ids[0]])
        own_R = turn @ R[ids] @ R[ids[0]].T
        own_c = centres[ids] @ R[ids[0]].T / unit + centre * rng.normal(size=(n, 3)) / 3**0.5
        first = own_R[0]
        sigmas = np.full(n, max(rotation, 0.01)), np.full(n, max(centre, 0.01))
        parts.append((ids, np.full(n, w), own_R @ first.T, own_c @ first.T, *sigmas))
    return Answers(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def sliding(count: int, window: int = WINDOW) -> list[range]:
    return [range(k, k + window) for k in range(count - window + 1)]


def unknown(count: int) -> np.ndarray:
    """Nothing known but the first view, which is the world."""
    R = np.full((count, 3, 3), np.nan)
    R[0] = np.eye(3)
    return R


def turns(found: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Degrees by which cameras are off."""
    return np.degrees(angle_between(found, R))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.integers(2, 8), st.floats(0.2, 5.0))
def test_windows_without_errors_give_the_world_they_were_cut_from(seed, more, window, distance):
    rng = np.random.default_rng(seed)
    count = window + more
    R, centres = ring(count, rng)
    found = join(told(R, centres, sliding(count, window), rng), unknown(count), distance)
    assert turns(found.R, R).max() < 1e-4
    assert np.abs(found.centres - distance * centres).max() < 1e-6 * distance
    for w, turn in enumerate(found.turn):  # and each window's similarity takes it there
        own = R[w] @ centres[w] / np.linalg.norm(centres[w])
        there = found.scale[w] * turn @ own + found.origin[w]
        assert np.allclose(there, distance * centres[w], atol=1e-5)
    assert found.rotation_sigma[0] == 0 and (found.rotation_sigma[1:] > 0).all()
    assert (found.centre_sigma > 0).all()


def test_the_first_view_stays_wherever_it_was():
    rng = np.random.default_rng(1)
    R, centres = ring(9, rng)
    turn = rotation_from_vector(np.array([0.3, -0.8, 0.1]))
    start = unknown(9)
    start[0] = turn
    found = join(told(R, centres, sliding(9), rng, 0.05, 0.05), start)
    assert np.array_equal(found.R[0], turn)


def test_a_view_that_one_window_has_at_the_wrong_side_stands_where_the_others_see_it():
    rng = np.random.default_rng(2)
    R, centres = ring(12, rng)
    answers = told(R, centres, sliding(12), rng, 0.02, 0.02)
    wrong = np.flatnonzero((answers.view == 5) & (answers.window == 0))
    answers.R[wrong] = answers.R[wrong] @ rotation_from_vector(np.array([0, np.pi, 0]))
    answers.centres[wrong] *= [-1, 1, -1]
    found = join(answers, unknown(12))
    assert turns(found.R, R).max() < 8
    assert np.linalg.norm(found.centres - centres, axis=1).max() < 0.2
    # and if it was believed before anybody else had seen it
    start = unknown(12)
    start[5] = R[5] @ rotation_from_vector(np.array([0, np.pi, 0]))
    assert turns(join(answers, start).R, R).max() < 8


def test_a_window_that_is_wrong_as_a_whole_moves_nobody_else():
    rng = np.random.default_rng(3)
    R, centres = ring(14, rng)
    answers = told(R, centres, sliding(14), rng, 0.01, 0.01)
    mine = answers.window == 4
    answers.R[mine] = rotation_from_vector(rng.normal(size=(WINDOW, 3))) @ answers.R[mine]
    answers.centres[mine] = rng.normal(size=(WINDOW, 3))
    found = join(answers, unknown(14))
    assert turns(found.R, R).max() < 4
    assert np.linalg.norm(found.centres - centres, axis=1).max() < 0.1


def test_scales_do_not_shrink_along_a_chain_of_noisy_windows():
    ratios = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        R, centres = ring(24, rng)
        found = join(told(R, centres, sliding(24), rng, 0.02, 0.1), unknown(24))
        far = np.linalg.norm(found.centres[-4:], axis=1) / np.linalg.norm(centres[-4:], axis=1)
        ratios.append(np.log(np.median(far)))
    # each may drift; together they must not: 0.1 would be half a percent a window
    assert abs(np.mean(ratios)) < 0.1


def test_uncertainty_grows_along_the_chain_and_is_about_right():
    squares, last, middle = [], [], []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        R, centres = ring(20, rng)
        found = join(told(R, centres, sliding(20), rng, 0.05, 0.05), unknown(20))
        error = angle_between(found.R[1:], R[1:])
        squares.append((error / found.rotation_sigma[1:]) ** 2)
        middle.append(found.rotation_sigma[6])
        last.append(found.rotation_sigma[-1])
    assert np.mean(last) > 1.1 * np.mean(middle)
    # errors of windows are independent here, as in reality they are not: rather too careful
    assert 0.2 < np.mean(squares) < 1.5


def test_centres_do_not_need_the_object_at_the_same_place():
    """Windows that see the object nearer or farther are joined by where their views are."""
    rng = np.random.default_rng(5)
    R, centres = ring(12, rng)
    answers = told(R, centres, sliding(12), rng)
    for w in range(7):
        mine = answers.window == w
        answers.centres[mine] += rng.normal(0, 0.1, 3)
    answers = answers._replace(
        rotation_sigma=np.full(len(answers.view), 0.002),
        centre_sigma=np.full(len(answers.view), 0.2),
    )
    found = join(answers, unknown(12))
    aligned = found.centres - found.centres.mean(0)
    truth = centres - centres.mean(0)
    scale = np.linalg.norm(aligned) / np.linalg.norm(truth)
    assert np.abs(aligned / scale - truth).max() < 0.02


@pytest.mark.parametrize('sigma', [0.0, 1e6])
def test_uncertainties_that_cannot_be_are_survived(sigma):
    rng = np.random.default_rng(6)
    R, centres = ring(9, rng)
    answers = told(R, centres, sliding(9), rng)
    nothing = np.full(len(answers.view), sigma)
    found = join(answers._replace(rotation_sigma=nothing, centre_sigma=nothing), unknown(9))
    assert turns(found.R, R).max() < 1e-3
    assert np.abs(found.centres - centres).max() < 1e-3


def test_cameras_at_the_object_or_at_one_place_are_survived():
    rng = np.random.default_rng(7)
    R, centres = ring(9, rng)
    centres[4] = centres[3]
    centres[6] = 0
    found = join(told(R, centres, sliding(9), rng), unknown(9))
    t = -np.einsum('nij,nj->ni', found.R, found.centres)
    assert np.abs(camera_centres(found.R, t) - centres).max() < 1e-3


def test_a_map_of_many_views_of_one_window_takes_little_time_and_memory():
    # as after the first view has left a full map: all pairs of it are told by one window alone
    rng = np.random.default_rng(0)
    R, centres = ring(150, rng)
    windows = [range(150), range(140, 150)]
    tracemalloc.start()
    found = join(told(R, centres, windows, rng), unknown(150))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # 3 GB, with a scale for each pair
    assert turns(found.R, R).max() < 1e-6
