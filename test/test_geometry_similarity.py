"""Similarity transforms: Umeyama with all its degenerate inputs, cameras under them, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.rays import camera_centres
from ray_pose_ros.geometry.rotations import geodesic_angle, random_rotations, rotation_from_vector
from ray_pose_ros.geometry.similarity import (
    align_similarity,
    camera_centre_errors,
    ordered_pairs,
    relative_rotation_errors,
    scene_scale,
    transform_cameras,
    transform_points,
)

seeds = st.integers(0, 10_000)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_similarity(seed):
    R = random_rotations(1, torch.Generator().manual_seed(seed), torch.float64)[0]
    return randn(1, seed=seed)[0].exp(), R, randn(3, seed=seed + 1)


def cameras(n, seed):
    R = random_rotations(n, torch.Generator().manual_seed(seed), torch.float64)
    return R, randn(n, 3, seed=seed)


@settings(deadline=None)
@given(seeds, st.integers(3, 9))
def test_alignment_recovers_a_similarity(seed, count):
    points, similarity = randn(count, 3, seed=seed), random_similarity(seed)
    found = align_similarity(points, transform_points(points, *similarity))
    for a, b in zip(found, similarity, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_alignment_is_the_least_squares_optimum():
    source, target = randn(2, 7, 3, seed=3)
    scale, R, t = align_similarity(source, target)

    def cost(scale, R, t):
        return float((transform_points(source, scale, R, t) - target).square().sum())

    best = cost(scale, R, t)
    for i in range(100):
        w = 1e-2 * randn(7, seed=i)
        turned = R @ rotation_from_vector(w[:3])
        assert best <= cost(scale * w[6].exp(), turned, t + w[3:6]) + 1e-12


def test_alignment_never_reflects():
    source = randn(6, 3, seed=4)
    scale, R, _ = align_similarity(source, source * torch.tensor([1.0, 1.0, -1.0]))
    torch.testing.assert_close(torch.det(R), torch.ones_like(scale))
    assert 0 < float(scale) < 1


def test_alignment_in_batches_keeps_the_type():
    source, target = randn(4, 5, 3, seed=5).float(), randn(4, 5, 3, seed=6).float()
    together = align_similarity(source, target)
    assert [v.dtype for v in together] == [torch.float32] * 3
    for i in range(4):
        for a, b in zip(together, align_similarity(source[i], target[i]), strict=True):
            torch.testing.assert_close(a[i], b)


@settings(deadline=None)
@given(seeds, st.sampled_from([2, 3, 5]), st.sampled_from([torch.float32, torch.float64]))
def test_points_on_a_line(seed, count, dtype):
    """N = 2 and collinear: exact fit, by the smallest rotation that lines the two lines up."""
    along = randn(count, 1, seed=seed)
    if float(along.amax() - along.amin()) < 1e-2:
        return
    source = (along * randn(3, seed=seed + 1) + randn(3, seed=seed + 2)).to(dtype)
    scale, R, t = random_similarity(seed)
    target = transform_points(source, scale.to(dtype), R.to(dtype), t.to(dtype))
    s, Rs, ts = align_similarity(source, target)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    error = transform_points(source, s, Rs, ts) - target
    assert float(error.abs().amax()) < tolerance * (1 + float(target.abs().amax()))
    torch.testing.assert_close(torch.det(Rs.double()), torch.ones(1).double()[0])
    if count == 2:
        a, b = (source[1] - source[0]).double(), (target[1] - target[0]).double()
        angle = torch.atan2(torch.linalg.cross(a, b).norm(), a @ b)
        eye = torch.eye(3, dtype=torch.float64)
        # sharply so in float64; in float32 rounding decides what is still a line
        if dtype == torch.float64:
            assert float(geodesic_angle(Rs, eye)) == pytest.approx(float(angle), abs=1e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [1, 2, 6])
def test_coincident_points(count, dtype):
    eye = torch.eye(3, dtype=dtype)
    one = torch.tensor([[0.1, 1.7, -3.3]], dtype=dtype).repeat(count, 1)
    spread = randn(count, 3, seed=7).to(dtype)
    scale, R, t = align_similarity(one, spread)
    assert float(scale) == 1 and torch.equal(R, eye)
    torch.testing.assert_close(one[0] + t, spread.mean(0))
    scale, R, t = align_similarity(spread, one)
    assert float(scale) == (1 if count == 1 else 0) and torch.equal(R, eye)
    torch.testing.assert_close(transform_points(spread, scale, R, t), one)


@pytest.mark.parametrize(
    ('source', 'target', 'message'),
    [
        (torch.zeros(3, 3), torch.zeros(4, 3), 'shapes'),
        (torch.zeros(3, 2), torch.zeros(3, 2), 'shapes'),
        (torch.zeros(0, 3), torch.zeros(0, 3), '0 points'),
        (torch.full((3, 3), math.nan), torch.zeros(3, 3), 'finite'),
    ],
)
def test_bad_points_are_refused(source, target, message):
    with pytest.raises(ValueError, match=message):
        align_similarity(source, target)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_transformed_cameras_see_the_same(seed):
    R, t = cameras(4, seed)
    scale, Rs, ts = random_similarity(seed)
    R_new, t_new = transform_cameras(R, t, scale, Rs, ts)
    points = randn(10, 3, seed=seed)
    before = points @ R.transpose(-1, -2) + t[:, None]
    after = transform_points(points, scale, Rs, ts) @ R_new.transpose(-1, -2) + t_new[:, None]
    torch.testing.assert_close(after, scale * before)
    centres = transform_points(camera_centres(R, t), scale, Rs, ts)
    torch.testing.assert_close(camera_centres(R_new, t_new), centres)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_errors_do_not_depend_on_the_gauge(seed):
    (R, t), (R_true, t_true) = cameras(5, seed), cameras(5, seed + 1)
    rotation = relative_rotation_errors(R, R_true)
    centre = camera_centre_errors(camera_centres(R, t), camera_centres(R_true, t_true))
    for k in range(3):
        R_new, t_new = transform_cameras(R, t, *random_similarity(seed + k))
        R_other, t_other = transform_cameras(R_true, t_true, *random_similarity(seed + k + 7))
        torch.testing.assert_close(relative_rotation_errors(R_new, R_other), rotation)
        found = camera_centre_errors(
            camera_centres(R_new, t_new), camera_centres(R_other, t_other)
        )
        torch.testing.assert_close(found, centre, rtol=1e-6, atol=1e-8)


def test_relative_errors_count_all_ordered_pairs_in_degrees():
    assert ordered_pairs(3).tolist() == [[1, 0], [2, 0], [0, 1], [2, 1], [0, 2], [1, 2]]
    assert ordered_pairs(1).shape == (0, 2)
    R_true = random_rotations(3, torch.Generator().manual_seed(0), torch.float64)
    turn = rotation_from_vector(torch.tensor([0.0, math.radians(10), 0.0], dtype=torch.float64))
    R = R_true.clone()
    R[1] = turn @ R[1]
    expected = torch.tensor([10.0, 0, 10, 10, 0, 10], dtype=torch.float64)
    errors = relative_rotation_errors(R, R_true)
    torch.testing.assert_close(errors, expected, rtol=0, atol=1e-5)
    assert relative_rotation_errors(R.expand(2, 4, 3, 3, 3), R_true).shape == (2, 4, 6)


def test_centre_errors_are_in_units_of_the_scene():
    true = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert float(scene_scale(true)) == 2
    pred = true + torch.tensor([[0.0, 0, 0.1], [0, 0, 0.1], [0, 0, -0.1], [0, 0, -0.1]])
    torch.testing.assert_close(
        camera_centre_errors(pred, true), torch.full((4,), 0.05), rtol=0.02, atol=0
    )
    torch.testing.assert_close(
        camera_centre_errors(pred, true, 4.0), torch.full((4,), 0.025), rtol=0.02, atol=0
    )
    # Two cameras always fit.
    two = camera_centre_errors(randn(2, 3, seed=1), randn(2, 3, seed=2))
    assert float(two.max()) < 1e-9
    with pytest.raises(ValueError, match='scene scale is 0'):
        camera_centre_errors(true, torch.zeros(4, 3))
