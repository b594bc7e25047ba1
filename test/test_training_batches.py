"""Training sets: the gauge, the rays, the points and the matches agree with each other."""

import numpy as np
import pytest
import torch

from ray_pose_ros.geometry.rotations import random_rotations
from ray_pose_ros.training.batches import SIZE, SetSampler
from ray_pose_ros.training.dataset import DEPTH_STEP, SceneSet
from ray_pose_ros.training.losses import ray_losses
from ray_pose_ros.training.stores import ViewStore
from ray_pose_ros.training.validation import recover


def sphere_scenes(scenes=2, views=6, radius=0.5, seed=0):
    """Cameras around a sphere at a known centre, with its exact depth."""
    generator = torch.Generator().manual_seed(seed)
    rotation = random_rotations(scenes * views, generator).float().view(scenes, views, 3, 3)
    centre = torch.randn(scenes, 3, generator=generator)
    distance = 1.5 + torch.rand(scenes, views, generator=generator)
    # the object's centre sits a little off the optical axis
    place = torch.stack([0.1 * torch.randn_like(distance), 0 * distance, distance], dim=-1)
    translation = place - torch.einsum('svij,sj->svi', rotation, centre)
    focal = 150 + 100 * torch.rand(scenes, views, generator=generator)
    matrix = torch.zeros(scenes, views, 3, 3)
    matrix[..., 0, 0] = matrix[..., 1, 1] = focal
    matrix[..., :2, 2] = SIZE / 2 + 10
    matrix[..., 2, 2] = 1
    side = SIZE // DEPTH_STEP
    pixel = torch.arange(side) * float(DEPTH_STEP)
    v, u = torch.meshgrid(pixel, pixel, indexing='ij')
    slopes = torch.einsum(
        'svij,hwj->svhwi', matrix.inverse(), torch.stack([u, v, torch.ones_like(u)], dim=-1)
    )
    a = slopes.square().sum(-1)
    b = torch.einsum('svhwi,svi->svhw', slopes, place)
    c = place.square().sum(-1)[..., None, None] - radius**2
    root = b.square() - a * c
    depth = torch.where(root > 0, (b - root.clamp(min=0).sqrt()) / a, torch.inf)
    up = torch.tensor([0.0, 0.0, 1.0]).expand(scenes, 3)
    return SceneSet(
        {
            'count': torch.full((scenes,), views),
            'depth': depth,
            'matrix': matrix,
            'rotation': rotation,
            'translation': translation,
            'centre': centre,
            'up': up,
        },
        ViewStore([np.zeros((scenes, views, 8, 7, 7), np.float16)]),
    )


@pytest.fixture(scope='module')
def sampler():
    return SetSampler(sphere_scenes(), grid=7)


def test_first_view_is_the_gauge(sampler):
    generator = torch.Generator().manual_seed(1)
    batch = sampler.batch(sampler.draw(5, 4, 180.0, generator))
    torch.testing.assert_close(batch.rotation[:, 0], torch.eye(3).expand(5, 3, 3))
    expected = torch.tensor([0.0, 0.0, -1.0]).expand(5, 3)
    torch.testing.assert_close(batch.centre[:, 0], expected, atol=1e-5, rtol=0)


def test_true_rays_give_back_the_cameras_and_no_loss(sampler):
    generator = torch.Generator().manual_seed(2)
    batch = sampler.batch(sampler.draw(5, 4, 180.0, generator))
    rotation, centre = recover(batch.rays, batch.directions)
    torch.testing.assert_close(rotation, batch.rotation, atol=1e-4, rtol=0)
    torch.testing.assert_close(centre, batch.centre, atol=0.02, rtol=0)  # ridge of the solver
    losses = ray_losses(batch.rays, batch)
    assert losses['rays'] < 1e-10
    assert losses['rotation'] < 1e-6


def test_points_lie_on_the_patches_rays(sampler):
    generator = torch.Generator().manual_seed(3)
    batch = sampler.batch(sampler.draw(5, 3, 180.0, generator))
    assert batch.points_valid.any()
    direction, moment = batch.rays.split(3, dim=2)
    off = torch.linalg.cross(batch.points, direction, dim=2) - moment
    assert off.norm(dim=2)[batch.points_valid].max() < 1e-3


def test_matches_see_the_same_point(sampler):
    generator = torch.Generator().manual_seed(4)
    index = sampler.draw(20, 3, 60.0, generator)
    batch = sampler.batch(index)
    own = batch.match[:, 0]  # a view matched with itself: the same cell
    cells = torch.arange(196).expand_as(own)
    assert (own == cells)[own >= 0].float().mean() > 0.95
    assert (batch.match[:, 1:] >= 0).float().mean() > 0.02


def test_draws_respect_the_angle(sampler):
    generator = torch.Generator().manual_seed(5)
    sampler = SetSampler(sphere_scenes(scenes=1, views=40), grid=7)
    index = sampler.draw(50, 3, 75.0, generator)
    angle = sampler.angle[0][index[:, :1, 1], index[:, :, 1]]
    assert angle.max() <= 75.0
    assert (index[:, 0, 1] != index[:, 1, 1]).all()
