"""The scale is the true one, knows how certain it is, and says where there is none."""

import json

import numpy as np
import pytest
from estimation_fixtures import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_fixtures import looking, scene

from ray_pose_ros.estimation import results
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.metric import (
    COMMON,
    LEAST_COMMON,
    LEAST_ERROR,
    Contradiction,
    MetricScale,
    NoScale,
    fit_metric,
    in_metres,
)
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import angle_between, camera_centres, rotation_from_vector

__all__ = ['checkpoint']  # a fixture


def fit(R, t, R_known, centres, sigma=0.02, most=0.25):
    n = len(R)
    return fit_metric(R, t, np.full(n, sigma), np.full(n, sigma), R_known, centres, most)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.floats(0.01, 100))
def test_a_true_similarity_is_found(seed, n, scale):
    R_known, centres, R, t, p, Q = scene(np.random.default_rng(seed), n, scale)
    apart = np.linalg.norm(centres - centres[0], axis=1).max()
    if apart < 0.3 * scale or apart < 2e-3:
        return  # hardly moved
    found = fit(R, t, R_known, centres)
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert np.allclose(found.translation, p, atol=1e-6 * scale)
    assert np.allclose(found.rotation, Q, atol=1e-6) and found.agreeing == n
    moved = found.scale * camera_centres(R, t) @ found.rotation.T + found.translation
    assert np.allclose(moved, centres, atol=1e-6 * scale)
    assert LEAST_COMMON <= found.log_sigma < 0.25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_scale_does_not_depend_on_the_frames(seed):
    rng = np.random.default_rng(seed)
    R_known, centres, R, t, *_ = scene(rng, 5)
    t = t + 0.02 * rng.normal(size=t.shape)
    first = fit(R, t, R_known, centres)
    turn, shift = rotation_from_vector(rng.normal(size=3)), rng.normal(size=3)
    second = fit(R, t, R_known @ turn.T, centres @ turn.T + shift)
    assert second.scale == pytest.approx(first.scale, rel=1e-9)
    assert second.log_sigma == pytest.approx(first.log_sigma, rel=1e-9)
    assert np.allclose(second.translation, turn @ first.translation + shift, atol=1e-9)
    longer = fit(R, t, R_known, 3 * centres)  # other metres
    assert longer.scale == pytest.approx(3 * first.scale, rel=1e-9)
    assert longer.log_sigma == pytest.approx(first.log_sigma, rel=1e-9)


@pytest.mark.parametrize('n', [2, 3, 5, 8])
@pytest.mark.parametrize('sigma', [0.02, 0.1])
def test_two_sigma_hold_the_true_scale_in_nineteen_of_twenty(n, sigma):
    """Errors as told: of each camera, and one that all of a window have in common."""
    rng = np.random.default_rng(n)
    z = []
    for _ in range(250):
        R_known, centres, R, t, *_ = scene(rng, n)
        common = np.exp(rng.normal() * np.hypot(COMMON * sigma, LEAST_COMMON))
        each = np.hypot(sigma, LEAST_ERROR) / np.sqrt(3)
        t = common * t + each * rng.normal(size=t.shape)
        R = rotation_from_vector(sigma * rng.normal(size=(n, 3))) @ R
        try:
            found = fit(R, t, R_known, centres, sigma)
        except NoScale:
            continue
        z.append(np.log(found.scale / 0.7) / found.log_sigma)
    assert len(z) > 180
    assert 0.92 <= np.mean(np.abs(z) < 2) <= 0.99
    assert abs(np.mean(z)) < 0.15  # without bias


def test_uncertain_cameras_and_short_ways_tell_less():
    R_known, centres, R, t, p, _ = scene(np.random.default_rng(1), 5)
    sure = fit(R, t, R_known, centres, 0.02).log_sigma
    assert sure < fit(R, t, R_known, centres, 0.1).log_sigma
    # the same cameras on a tenth of the way between them
    near = centres[0] + 0.1 * (centres - centres[0])
    R_known, t_known = looking(near, p)
    R, t = R_known @ R_known[0].T, (t_known + R_known @ p) / 0.7
    assert 2 * sure < fit(R, t, R_known, near, 0.02, most=5.0).log_sigma
    with pytest.raises(NoScale, match=r'uncertain by \d+ %, expected at most 4 %'):
        fit(R, t, R_known, near, 0.02, most=0.04)


def test_a_camera_on_the_wrong_side_does_no_harm():
    rng = np.random.default_rng(2)
    for _ in range(20):
        R_known, centres, R, t, p, Q = scene(rng, 5)
        R = R.copy()
        R[3] = R[3] @ rotation_from_vector(np.array([0, np.pi, 0]))  # with t, it looks from behind
        found = fit(R, t, R_known, centres)
        assert found.scale == pytest.approx(0.7, rel=1e-6) and found.agreeing == 4
        assert np.degrees(angle_between(found.rotation, Q)) < 1
        t = t.copy()
        t[2] *= 3  # and another at a wrong distance
        wrong = fit(R, t, R_known, centres)
        assert abs(np.log(wrong.scale / 0.7)) < min(0.25, 2 * wrong.log_sigma)


def test_no_scale_without_motion_or_against_it():
    rng = np.random.default_rng(3)
    R_known, centres, R, t, *_ = scene(rng, 4)
    with pytest.raises(NoScale, match='poses are known of 1 cameras'):
        fit(R[:1], t[:1], R_known[:1], centres[:1])
    here = np.repeat(centres[:1], 4, axis=0)
    with pytest.raises(NoScale, match='turning on the spot'):
        fit(R, t, R_known, here)  # turned
    with pytest.raises(NoScale, match='standing still'):
        fit(R, t, np.repeat(R_known[:1], 4, axis=0), here)
    jitter = here + 1e-3 * rng.normal(size=(4, 3))
    with pytest.raises(NoScale):
        fit(R, t, R_known, jitter)
    turned = rotation_from_vector(np.array([[0, 0, 0], [0, 2, 0], [2, 0, 0], [0, 0, 2.0]])) @ R
    with pytest.raises(Contradiction, match='contradicts the estimate: 1 of 4 orientations agree'):
        fit(turned, t, R_known, centres)
    with pytest.raises(Contradiction, match='contradicts the estimate: 1 of 2'):
        fit(turned[:2], t[:2], R_known[:2], centres[:2])
    with pytest.raises(Contradiction, match='behind'):
        fit(R, -t, R_known, centres)


def test_words():
    assert str(MetricScale(0.5, 0.0412, 'TF odom')) == 'metric (from TF odom, +-4.1 %)'
    assert str(MetricScale(0.5, 0.123, 'TF base')) == 'metric (from TF base, +-12 %)'


def test_the_files_of_an_estimate_in_metres_say_so(checkpoint, tmp_path):
    """All formats; the cameras are those of an untrained model."""
    rng = np.random.default_rng(0)
    camera = CameraModel.from_fov(64, 48, np.pi / 3)
    images = rng.integers(0, 255, (3, 48, 64, 3), dtype=np.uint8)
    views = [View(image, camera, name=f'{k}.png') for k, image in enumerate(images)]
    estimate = Estimator(checkpoint).estimate(views)
    metric = in_metres(estimate, MetricScale(2.0, 0.04, 'TF odom'))
    assert np.allclose(metric.rays[:, 3:], 2 * estimate.rays[:, 3:])
    assert np.allclose(metric.rays[:, :3], estimate.rays[:, :3])
    assert np.allclose(metric.centre_sigma, 2 * estimate.centre_sigma)
    written = results.write_all(tmp_path, metric, views)
    assert {'poses.json', 'poses.tum', 'transforms.json', 'colmap', 'poses.png'} == set(written)
    content = json.loads((tmp_path / 'poses.json').read_text())
    assert content['gauge'].endswith('unit = metre')
    assert content['scale'] == {
        'source': 'TF odom', 'relative_sigma': 0.04, 'metres_per_unit': 2.0
    }  # fmt: skip
    assert np.allclose([f['t'] for f in content['frames']], 2 * estimate.t)
    for posed in (
        results.export.read_transforms(tmp_path / 'transforms.json'),
        results.colmap_files.read_colmap(tmp_path / 'colmap'),
    ):
        assert np.allclose(posed.t, 2 * estimate.t, atol=1e-6)
    assert np.allclose(np.loadtxt(tmp_path / 'poses.tum')[:, 1:4], 2 * estimate.centres)
