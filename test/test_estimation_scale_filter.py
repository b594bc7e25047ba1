"""The scale stays steady while the window slides, and never becomes surer than it can be."""

from types import SimpleNamespace

import numpy as np
import pytest

from ray_pose_ros.estimation.scale_filter import STEP, ScaleFilter


def fit(scale, sigma=0.1, common=0.02):
    return SimpleNamespace(scale=scale, log_sigma=sigma, common=common)


def at(*distances):
    return np.array([[0.0, 0.0, d] for d in distances])


def test_the_first_window_is_believed_and_a_better_one_takes_over():
    scales = ScaleFilter()
    assert scales.scale(0.25) is None
    scales.move([0, 1], at(1, 1))
    assert scales.scale(0.25) is None
    assert scales.update(fit(2.0, 0.2), [0, 1])
    assert scales.scale(0.25) == pytest.approx((2.0, 0.2))
    assert scales.scale(0.1) is None
    scales.move([0, 1, 2], at(1, 1, 1))
    assert scales.update(fit(2.2, 0.02), [0, 1, 2])  # knows far more than all before
    scale, sigma = scales.scale(0.25)
    assert scale == pytest.approx(2.2, rel=0.01) and sigma == pytest.approx(0.02, rel=0.01)


def test_the_same_keyframes_again_are_no_news():
    scales = ScaleFilter()
    for k in range(50):
        scales.move([0, 1], at(1, 1))
        scales.update(fit(2.0 if k == 0 else 2.1, 0.1), [0, 1])
    assert scales.scale(1.0) == pytest.approx((2.0, 0.1))


def test_new_keyframes_count_by_their_share_down_to_what_all_have_in_common():
    scales, sigmas = ScaleFilter(), []
    ids = list(range(8))
    scales.move(ids, at(*[1.0] * 8))
    scales.update(fit(2.0, 0.1, 0.08), ids)
    for k in range(1, 100):
        ids = list(range(k, k + 8))
        scales.move(ids, at(*[1.0] * 8))
        scales.update(fit(2.0, 0.1, 0.08), ids)
        sigmas.append(scales.scale(1.0)[1])
    assert sigmas[0] > 0.09  # an eighth is new
    assert sigmas[-1] == pytest.approx(0.08) == min(sigmas)


def test_the_unit_changes_with_the_first_keyframe():
    scales = ScaleFilter()
    scales.move([0, 1, 2], at(1.0, 2.0, 0.5))
    scales.update(fit(3.0, 0.1), [0, 1, 2])  # the second keyframe is 6 m from the object
    scales.move([1, 2, 3], at(1.0, 0.25, 2.0))
    scale, sigma = scales.scale(1.0)
    assert scale == pytest.approx(6.0)
    assert sigma == pytest.approx(np.sqrt(0.1**2 + STEP**2 / 2))
    scales.move([2, 3], at(1.0, 8.0))
    assert scales.scale(1.0)[0] == pytest.approx(1.5)
    scales.move([7, 8], at(1.0, 1.0))  # none of them is known
    assert scales.scale(1.0) is None


def test_without_news_it_becomes_less_certain_until_it_is_given_up():
    scales = ScaleFilter()
    scales.move([0, 1, 2], at(1, 1, 1))
    scales.update(fit(2.0, 0.05), [0, 1, 2])
    before = 0.0
    for k in range(1, 200):
        scales.move([k, k + 1, k + 2], at(1, 1, 1))
        found = scales.scale(0.25)
        if found is None:
            break
        assert found[1] > before
        before = found[1]
    assert 10 < k < 199


def test_a_surprise_is_not_believed_until_it_comes_again():
    scales = ScaleFilter()
    scales.move([0, 1], at(1, 1))
    scales.update(fit(2.0, 0.05), [0, 1])
    scales.move([0, 1, 2], at(1, 1, 1))
    assert not scales.update(fit(4.0, 0.05), [0, 1, 2])
    assert scales.scale(0.25)[0] == pytest.approx(2.0)
    scales.move([0, 1, 2, 3], at(1, 1, 1, 1))
    assert scales.update(fit(2.02, 0.05), [0, 1, 2, 3])
    assert not scales.update(fit(4.0, 0.05), [0, 1, 2, 3])
    assert scales.update(fit(4.1, 0.05), [0, 1, 2, 3])
    assert scales.scale(0.25) == pytest.approx((4.1, 0.05))
    scales.doubt()
    scales.doubt()
    assert scales.scale(0.25) is not None
    scales.doubt()  # the third in a row
    assert scales.scale(0.25) is None
