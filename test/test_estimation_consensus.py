"""The answer among several, and its uncertainty."""

import math

import pytest
import torch
from estimation_fakes import cameras, orbit

from ray_pose_ros.estimation.consensus import consensus, fit_residuals
from ray_pose_ros.geometry.rays import rays_from_cameras
from ray_pose_ros.geometry.rotations import geodesic_angle, rotation_from_vector


def turned(R, degrees):
    angle = torch.tensor([0.0, math.radians(degrees), 0.0], dtype=torch.float64)
    return rotation_from_vector(angle) @ R


def test_the_medoid_is_in_the_larger_cluster():
    R, t = orbit(3)
    samples = [turned(R, d) for d in (0.0, 90.0, 2.0, 1.0, 92.0)]
    found = consensus(torch.stack(samples), t.expand(5, 3, 3))
    assert found.index in (0, 2, 3)
    assert found.agreement == pytest.approx(3 / 5)
    assert found.modes == 2


def test_a_single_sample_agrees_with_itself():
    R, t = orbit(2)
    found = consensus(R[None], t[None])
    assert (found.index, found.agreement, found.modes) == (0, 1.0, 1)
    assert not found.rotation_sigma.any() and not found.centre_sigma.any()


def published(R, t, degrees):
    """Samples whose views but the first are turned by these angles."""
    kept = R[:1].expand(len(degrees), 1, 3, 3)
    return torch.cat([kept, torch.stack([turned(R[1:], d) for d in degrees])], dim=1)


def unrotated(n):
    R, t = orbit(n)
    distance = torch.linalg.vector_norm(t[0])
    return R @ R[0].T, t / distance


def test_the_spread_is_the_deviation_from_the_average():
    R, t = unrotated(2)
    found = consensus(published(R, t, (-3.0, 0.0, 3.0)), t.expand(3, 2, 3))
    assert found.index == 1
    assert torch.rad2deg(found.rotation_sigma).tolist() == pytest.approx([0.0, 3.0], abs=0.05)


def test_the_average_leaves_an_outlier_out_and_is_nearer_than_the_samples():
    R, t = unrotated(4)
    samples = published(R, t, (-4.0, 5.0, -1.0, 2.0, 150.0))
    found = consensus(samples, t.expand(5, 4, 3))
    off = torch.rad2deg(geodesic_angle(found.R, R))
    assert off.max() < 1.5
    torch.testing.assert_close(found.R[0], torch.eye(3, dtype=torch.float64))
    centre = found.R[0].T @ found.t[0]
    assert float(centre.norm()) == pytest.approx(1.0)


def test_the_average_does_not_depend_on_each_samples_first_camera():
    R, t = unrotated(5)
    shaken = torch.stack([R, R, R])
    shaken[1, 0] = turned(R[0], 60.0)  # one bad camera, which happens to be the gauge
    gauge = shaken @ shaken[:, :1].transpose(-1, -2)
    centres = -(R.transpose(-1, -2) @ t[..., None])[..., 0]
    in_gauge = centres @ shaken[:, 0].transpose(-1, -2)
    shift = -(gauge @ in_gauge[..., None])[..., 0]
    found = consensus(gauge, shift)
    assert torch.rad2deg(geodesic_angle(found.R, R)).max() < 3.0


def test_residuals_vanish_for_the_cameras_own_rays_and_grow_with_noise():
    R, t = orbit(2)
    lens = cameras(1)[0]
    pixels = torch.rand(40, 2, dtype=torch.float64) * 200
    directions = lens.unproject(pixels).expand(2, -1, -1)
    rays = rays_from_cameras(R, t, directions)
    angle, miss = fit_residuals(rays, R, t, directions)
    assert angle.max() < 1e-6 and miss.max() < 1e-6
    noisy = rays + 0.05 * torch.randn(rays.shape, dtype=torch.float64)
    angle, miss = fit_residuals(noisy, R, t, directions)
    assert angle.min() > 0.02 and angle.max() < 0.2 and miss.min() > 0.02
