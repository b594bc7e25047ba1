"""Gauges: what is at the origin, what is unrotated, and that nothing else depends on the world."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.gauge import (
    axes_intersection,
    normalise_cameras,
    object_gauge,
    turn_cameras,
    viewing_rotation,
)
from ray_pose_ros.geometry.rays import camera_centres, rays_from_cameras
from ray_pose_ros.geometry.rotations import geodesic_angle, random_rotations
from ray_pose_ros.geometry.similarity import transform_cameras, transform_points

EYE = torch.eye(3, dtype=torch.float64)


def looking_at(point, n=5, seed=0):
    """Cameras at random places whose +z axes go through a point."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n, 3, generator=generator, dtype=torch.float64) * 2 + point
    roll = random_rotations(n, generator, torch.float64)
    R = viewing_rotation((roll @ (point - centres)[..., None])[..., 0]) @ roll
    return R, -(R @ centres[..., None])[..., 0]


def random_similarity(seed):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(1, generator=generator, dtype=torch.float64)[0] * 3 + 0.2
    t = torch.randn(3, generator=generator, dtype=torch.float64)
    return scale, random_rotations(1, generator, torch.float64)[0], t


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_official_gauge(seed):
    point = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    R, t = looking_at(point, seed=seed)
    torch.testing.assert_close(axes_intersection(R, t), point)
    R_new, t_new, similarity = normalise_cameras(R, t)
    torch.testing.assert_close(R_new[0], EYE)
    torch.testing.assert_close(t_new[0], torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    # The similarity that is returned is the one that was applied.
    torch.testing.assert_close(transform_points(point[None], *similarity)[0], 0 * point)
    moved = transform_points(camera_centres(R, t), *similarity)
    torch.testing.assert_close(camera_centres(R_new, t_new), moved)
    # The answer does not depend on the world the cameras came in.
    R_other, t_other, _ = normalise_cameras(*transform_cameras(R, t, *random_similarity(seed)))
    torch.testing.assert_close(R_other, R_new)
    torch.testing.assert_close(t_other, t_new)


def test_official_gauge_in_batches_and_with_other_axes():
    R, t = looking_at(torch.zeros(3, dtype=torch.float64), n=8)
    R2, t2 = R.reshape(2, 4, 3, 3), t.reshape(2, 4, 3)
    both = normalise_cameras(R2, t2)
    for i in range(2):
        for a, b in zip(both[:2], normalise_cameras(R2[i], t2[i])[:2], strict=True):
            torch.testing.assert_close(a[i], b)
    # Axes through another pixel meet elsewhere: turn the cameras by V, look along V^T z.
    V = random_rotations(8, torch.Generator().manual_seed(1), torch.float64)
    axes = V[:, :, 2]
    found = axes_intersection(*turn_cameras(R, t, V), axes)
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64))


def test_camera_on_the_meeting_point_is_refused():
    R = torch.eye(3).expand(2, 3, 3)
    with pytest.raises(ValueError, match='distance'):
        normalise_cameras(R, torch.zeros(2, 3))
    with pytest.raises(ValueError, match='distance'):
        object_gauge(R, torch.zeros(2, 3), -1.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.2, 5.0))
def test_object_gauge(seed, distance):
    """First virtual camera at I, (0, 0, 1); origin = the point on its axis at the distance."""
    R, t = looking_at(torch.ones(3, dtype=torch.float64), seed=seed)
    t = t + 0.05 * torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double()
    R_new, t_new, similarity = object_gauge(R, t, distance)
    torch.testing.assert_close(R_new[0], EYE)
    torch.testing.assert_close(t_new[0], torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    point = R[0].T @ (torch.tensor([0.0, 0.0, distance]) - t[0])
    torch.testing.assert_close(transform_points(point[None], *similarity)[0], 0 * point)
    relative = R_new[1:] @ R_new[0].T
    torch.testing.assert_close(relative, R[1:] @ R[0].T)


def test_object_gauge_finds_the_distance():
    point = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    R, t = looking_at(point, seed=3)
    official, default = normalise_cameras(R, t), object_gauge(R, t)
    torch.testing.assert_close(default[0], official[0])
    torch.testing.assert_close(default[1], official[1])


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_viewing_rotation_is_the_smallest_to_the_axis(seed):
    d = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    V = viewing_rotation(d)
    forward = EYE[2]
    torch.testing.assert_close(V @ d / d.norm(), forward, rtol=0, atol=1e-9)
    angle = torch.atan2(d[:2].norm(), d[2])
    torch.testing.assert_close(geodesic_angle(V, EYE), angle, rtol=0, atol=1e-9)
    # No roll: the axis of the rotation has no part along the optical axis.
    assert abs(float(V[1, 0] - V[0, 1])) < 1e-12


def test_virtual_camera_sees_the_same_rays():
    cam = CameraModel.from_fov(640, 480, 1.2)
    R, t = looking_at(torch.zeros(3, dtype=torch.float64))
    pixels = torch.tensor([[600.0, 40.0], [320.0, 240.0], [10.0, 470.0]], dtype=torch.float64)
    d = cam.unproject(pixels)
    V = viewing_rotation(d[0])
    Rv, tv = turn_cameras(R, t, V)
    torch.testing.assert_close(camera_centres(Rv, tv), camera_centres(R, t))
    virtual = rays_from_cameras(Rv, tv, d @ V.T)
    torch.testing.assert_close(virtual, rays_from_cameras(R, t, d))
    torch.testing.assert_close((d @ V.T)[0], EYE[2])  # looks at the crop's centre
