"""Plücker rays: definition, round trips through grids, normalisation, meeting points."""

from __future__ import annotations

import pytest
import torch

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop, patch_centres
from ray_pose_ros.geometry.rays import (
    camera_centres,
    nearest_point_to_lines,
    normalise_rays,
    rays_from_cameras,
    rays_from_points,
    solve_symmetric,
    to_grid,
    to_tokens,
)
from ray_pose_ros.geometry.rotations import random_rotations


def example(n=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    R = random_rotations(n, generator, dtype)
    t = torch.randn(n, 3, generator=generator, dtype=dtype)
    cam = CameraModel.from_fov(640, 480, 1.0)
    return R, t, cam.unproject(patch_centres(Crop(100, 50, 300), 7)).to(dtype)


def test_rays_pass_through_the_centre_and_the_pixel():
    R, t, d = example()
    rays = rays_from_cameras(R, t, d)
    assert rays.shape == (6, 49, 6)
    centres = camera_centres(R, t)
    moment = torch.linalg.cross(centres[:, None].expand(-1, 49, -1), rays[..., :3], dim=-1)
    torch.testing.assert_close(rays[..., 3:], moment)  # origin x direction, in this order
    points = centres[:, None] + 2.7 * rays[..., :3]
    x_cam = points @ R.transpose(-1, -2) + t[:, None]
    torch.testing.assert_close(x_cam, 2.7 * d.expand(6, 49, 3))
    torch.testing.assert_close(rays_from_points(points, 3 * rays[..., :3]), rays)


def test_moment_does_not_depend_on_the_point_of_the_line():
    generator = torch.Generator().manual_seed(1)
    p, d = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(rays_from_points(p + 5 * d, d), rays_from_points(p, d))


def test_grid_and_tokens_are_inverse_and_row_major():
    rays = torch.arange(2 * 12 * 6).reshape(2, 12, 6)
    grid = to_grid(rays, 3, 4)
    assert grid.shape == (2, 6, 3, 4)
    assert torch.equal(grid[1, :, 2, 1], rays[1, 2 * 4 + 1])
    assert torch.equal(to_tokens(grid), rays)
    with pytest.raises(ValueError, match='12 patches'):
        to_grid(rays, 3, 3)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_normalise_rays(dtype):
    R, t, d = example(dtype=dtype)
    rays = rays_from_cameras(R, t, d)
    torch.testing.assert_close(normalise_rays(rays), rays)
    # The moment is kept as it is but for the part along the ray.
    noisy = torch.cat([rays[..., :3] * 0.4, rays[..., 3:] + 2 * rays[..., :3]], dim=-1)
    torch.testing.assert_close(normalise_rays(noisy), rays)
    assert normalise_rays(noisy).dtype == dtype
    assert bool((normalise_rays(torch.zeros(1, 6, dtype=dtype)) == 0).all())


def test_nearest_point_recovers_centres_and_minimises():
    R, t, d = example()
    rays = rays_from_cameras(R, t, d)
    torch.testing.assert_close(nearest_point_to_lines(rays), camera_centres(R, t))
    generator = torch.Generator().manual_seed(2)
    p, q = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    lines = rays_from_points(p, q)
    w = torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0], dtype=torch.float64)

    def cost(x):
        d, m = lines[:, :3], lines[:, 3:]
        return (w * (torch.linalg.cross(x.expand(5, 3), d, dim=-1) - m).square().sum(-1)).sum()

    best = nearest_point_to_lines(lines, w)
    for step in 1e-3 * torch.randn(50, 3, generator=generator, dtype=torch.float64):
        assert cost(best) <= cost(best + step)


def test_parallel_lines_meet_nearest_to_the_origin():
    d = torch.tensor([0.0, 0.0, 2.0]).expand(4, 3)
    p = torch.tensor([[1.0, 0, 5], [1, 2, -3], [3, 0, 0], [3, 2, 9]])
    found = nearest_point_to_lines(rays_from_points(p, d))
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 0.0]))


def test_solve_symmetric_is_minimum_norm():
    A = torch.diag(torch.tensor([2.0, 4.0, 0.0], dtype=torch.float64))
    b = torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64)
    assert solve_symmetric(A, b).tolist() == [1.0, 0.5, 0.0]
    assert solve_symmetric(0 * A, 0 * b).tolist() == [0.0, 0.0, 0.0]
