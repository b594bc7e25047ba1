"""The answer among several, and its uncertainty."""

import math

import pytest
import torch
from estimation_fakes import cameras, orbit

from ray_pose_ros.estimation.consensus import consensus, fit_residuals, with_floor
from ray_pose_ros.geometry.rays import rays_from_cameras
from ray_pose_ros.geometry.rotations import rotation_from_vector


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


def test_the_spread_is_the_deviation_from_the_medoid():
    R, t = orbit(2)
    samples = torch.stack([turned(R, d) for d in (-3.0, 0.0, 3.0)])
    found = consensus(samples, t.expand(3, 2, 3))
    assert found.index == 1
    assert torch.rad2deg(found.rotation_sigma).tolist() == pytest.approx([3.0, 3.0])


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


def test_no_sigma_is_zero():
    zero = torch.zeros(2)
    assert with_floor(zero, zero, 0.01).tolist() == pytest.approx([0.01, 0.01])
    assert with_floor(zero + 3, zero + 4, 0.0).tolist() == pytest.approx([5, 5])
