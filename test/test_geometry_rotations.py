"""Rotations: quaternions, angles and projections, at the angles where formulas break."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ray_pose_ros.geometry.rotations import (
    geodesic_angle,
    hat,
    matrix_from_quaternion,
    project_to_so3,
    quaternion_from_matrix,
    random_rotations,
    rotation_between,
    rotation_from_vector,
)
from ray_pose_ros.geometry.so3 import cross

unit = st.floats(-1, 1, allow_nan=False, width=32)
vectors = st.tuples(unit, unit, unit).filter(lambda v: math.hypot(*v) > 1e-2)
angles = st.one_of(
    st.floats(0, math.pi), st.sampled_from([0.0, 1e-9, 1e-5, math.pi - 1e-9, math.pi])
)


def rotation(axis, angle):
    axis = torch.tensor(axis, dtype=torch.float64)
    return rotation_from_vector(axis / axis.norm() * angle)


@settings(deadline=None)
@given(vectors, angles)
def test_quaternion_round_trip(axis, angle):
    R = rotation(axis, angle)
    q = quaternion_from_matrix(R)
    assert q[3] >= 0
    torch.testing.assert_close(q.norm(), torch.ones_like(q[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix_from_quaternion(q), R, rtol=0, atol=1e-12)
    again = quaternion_from_matrix(matrix_from_quaternion(-3 * q))
    if q[3] > 1e-6:  # nearer to 180 degrees the sign of w is rounding
        torch.testing.assert_close(again, q, rtol=0, atol=1e-9)


@pytest.mark.parametrize('axis', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 2, 0), (0, -3, 1)])
def test_quaternion_of_half_turn_is_unique(axis):
    axis = torch.tensor(axis, dtype=torch.float64)
    axis = axis / axis.norm()
    R = 2 * axis[:, None] * axis[None, :] - torch.eye(3, dtype=torch.float64)
    q = quaternion_from_matrix(R)
    first = axis[axis != 0][0]
    expected = torch.cat([axis * first.sign(), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(q, expected, rtol=0, atol=1e-12)


def test_quaternion_order_is_xyzw():
    q = torch.tensor([0.0, 0.0, math.sin(0.3), math.cos(0.3)])
    R = matrix_from_quaternion(q)
    torch.testing.assert_close(R[:2, 0], torch.tensor([math.cos(0.6), math.sin(0.6)]))
    R = random_rotations(50, torch.Generator().manual_seed(0), torch.float64)
    expected = torch.from_numpy(Rotation.from_matrix(R.numpy()).as_quat(canonical=True))
    torch.testing.assert_close(quaternion_from_matrix(R), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('bad', [[0.0, 0, 0, 0], [math.nan, 0, 0, 1], [1.0, 0, 0]])
def test_bad_quaternion_is_refused(bad):
    with pytest.raises(ValueError, match='quaternion'):
        matrix_from_quaternion(torch.tensor(bad))


@settings(deadline=None)
@given(vectors, angles, st.integers(0, 100))
def test_geodesic_angle_is_accurate_near_0_and_pi(axis, angle, seed):
    base = random_rotations(1, torch.Generator().manual_seed(seed), torch.float64)[0]
    found = geodesic_angle(base, base @ rotation(axis, angle))
    assert abs(float(found) - angle) < 1e-14 + 4e-15 * 10


def test_geodesic_angle_keeps_float32_digits():
    R = rotation_from_vector(torch.tensor([1e-4, 0.0, 0.0]))
    assert float(geodesic_angle(torch.eye(3), R)) == pytest.approx(1e-4, rel=1e-4)


def test_random_rotations_are_uniform():
    R = random_rotations(20000, torch.Generator().manual_seed(1), torch.float64)
    assert float((R @ R.transpose(-1, -2) - torch.eye(3)).abs().max()) < 1e-12
    # E[R] = 0, E[trace^2] = 1, P(angle < 30 deg) = (a - sin a) / pi on SO(3)
    assert float(R.mean(0).abs().max()) < 0.02
    assert float((R.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2).mean()) == pytest.approx(1, abs=0.05)
    a = math.radians(30)
    near = (geodesic_angle(R, torch.eye(3, dtype=R.dtype)) < a).double().mean()
    assert float(near) == pytest.approx((a - math.sin(a)) / math.pi, abs=0.002)


def test_projection_to_so3_is_nearest():
    generator = torch.Generator().manual_seed(2)
    M = torch.randn(200, 3, 3, generator=generator, dtype=torch.float64)
    R = project_to_so3(M)
    torch.testing.assert_close(torch.det(R), torch.ones(200, dtype=M.dtype))
    distance = (M - R).norm(dim=(-2, -1))
    for other in random_rotations(200, generator, torch.float64):
        assert bool((distance <= (M - other).norm(dim=(-2, -1)) + 1e-12).all())


def test_projection_keeps_rotations():
    R = random_rotations(10, torch.Generator().manual_seed(3), torch.float64)
    torch.testing.assert_close(project_to_so3(2.5 * R), R)


@settings(deadline=None)
@given(vectors, vectors)
def test_rotation_between_is_the_smallest(a, b):
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    R = rotation_between(a, b)
    torch.testing.assert_close(R @ a / a.norm(), b / b.norm(), rtol=0, atol=1e-7)
    torch.testing.assert_close(torch.det(R), torch.ones_like(R[0, 0]))
    angle = torch.atan2(torch.linalg.cross(a, b).norm(), a @ b)
    # As small as the angle between the vectors: no turn about the direction itself.
    eye = torch.eye(3, dtype=R.dtype)
    assert float(geodesic_angle(eye, R)) == pytest.approx(float(angle), abs=1e-6)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rotation_between_opposite_directions(dtype):
    a = random_rotations(100, torch.Generator().manual_seed(4), dtype)[:, 0]
    a = torch.cat([a, torch.eye(3, dtype=dtype)])
    R = rotation_between(a, -a)
    turned = (R @ a[..., None])[..., 0]
    torch.testing.assert_close(turned, -a, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.det(R), torch.ones(103, dtype=dtype))


def test_rotation_between_refuses_no_direction():
    with pytest.raises(ValueError, match='direction'):
        rotation_between(torch.zeros(3), torch.ones(3))


def test_hat_and_rotation_vector():
    v, x = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.3, 0.2, -1.0])
    torch.testing.assert_close(hat(v) @ x, torch.linalg.cross(v, x))
    w = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    w = torch.cat([w, torch.zeros(1, 3, dtype=torch.float64)])
    torch.testing.assert_close(rotation_from_vector(w), torch.linalg.matrix_exp(hat(w)))


@pytest.mark.parametrize('shapes', [((3,), (3,)), ((5, 3), (5, 3)), ((2, 1, 3), (2, 4, 3))])
def test_cross_product_in_numpy(shapes):
    a, b = (np.random.default_rng(k).normal(size=shape) for k, shape in enumerate(shapes))
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), rtol=0, atol=1e-12)
