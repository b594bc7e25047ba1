"""Matching between views inside the denoiser, and the cameras that matched points propose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_batches import sphere_scenes

from ray_pose_ros.geometry.rotations import geodesic_angle, project_to_so3, random_rotations
from ray_pose_ros.model.alignment import align_points, rotation_of
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.denoiser import reference_rays
from ray_pose_ros.model.matching import fine_slopes, match_evidence, propose
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.training.batches import SetSampler

SMALL = {
    'backbone': 'efficientnet_lite0',
    'grid': 7,
    'width': 32,
    'depth': 6,
    'heads': 4,
    'geometry': 'directions',
    'attention': 'alternating',
    'view_code': 'reference',
    'matching': 8,
    'residual': True,
    'anchor_reference': True,
    'scale_input': True,
}


def random_motion(seed, count=40, sets=3):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(sets, count, 3, generator=generator)
    R = random_rotations(sets, generator).float()
    t = torch.randn(sets, 3, generator=generator)
    return points, points @ R.transpose(-1, -2) + t[:, None], R, t, generator


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_points_are_laid_onto_each_other(seed):
    points, targets, R, t, _ = random_motion(seed)
    found = align_points(points, targets, torch.ones(points.shape[:2]))
    assert geodesic_angle(found.R, R).max() < 1e-3
    torch.testing.assert_close(found.t, t, atol=1e-3, rtol=0)
    assert found.residuals.max() < 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_third_of_wrong_matches_does_little_harm(seed):
    points, targets, R, _, generator = random_motion(seed, count=90)
    targets = targets + 0.02 * torch.randn(targets.shape, generator=generator)
    targets[:, :30] = torch.randn(3, 30, 3, generator=generator)
    found = align_points(points, targets, torch.ones(points.shape[:2]))
    assert torch.rad2deg(geodesic_angle(found.R, R)).max() < 5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_rotation_is_that_of_the_svd(seed):
    generator = torch.Generator().manual_seed(seed)
    covariance = torch.randn(8, 3, 3, generator=generator, dtype=torch.float64)
    svd = project_to_so3(covariance.transpose(-1, -2))
    gap = torch.linalg.svdvals(covariance)
    clear = gap[:, 1] - gap[:, 2] > 0.1  # nearly equal ones leave the answer open
    assert (geodesic_angle(rotation_of(covariance), svd)[clear] < 1e-3).all()


def test_no_match_at_all_gives_finite_numbers():
    zero = torch.zeros(2, 5, 3)
    found = align_points(zero, zero, torch.zeros(2, 5))
    assert all(torch.isfinite(part).all() for part in found)
    torch.testing.assert_close(torch.linalg.det(found.R), torch.ones(2))


def test_true_matches_and_depths_propose_the_true_cameras():
    scenes = sphere_scenes(scenes=6, views=6, radius=0.9)
    sampler = SetSampler(scenes, grid=7)
    generator = torch.Generator().manual_seed(3)
    batch = sampler.batch(sampler.draw(40, 2, 50.0, generator))
    enough = (batch.match[:, 1] >= 0).sum(dim=-1) > 25
    assert enough.sum() >= 10
    hit = batch.match >= 0
    logits = 100.0 * torch.nn.functional.one_hot(batch.match.clamp(min=0), 196).float()
    slopes = fine_slopes(batch.directions)
    points = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
    points = points * torch.where(torch.isfinite(batch.depth), batch.depth, 1.0).unsqueeze(-1)
    base = reference_rays(batch.directions)
    found = propose(points, logits, torch.where(hit, 20.0, -20.0), base)
    rays = base + found[:, :, :6]
    error = (rays - batch.rays)[enough, 1].square().mean(dim=(-1, -2, -3)).sqrt()
    before = (base - batch.rays)[enough, 1].square().mean(dim=(-1, -2, -3)).sqrt()
    assert error.median() < 0.1 * before.median()  # cells are coarse: a few degrees are left
    torch.testing.assert_close(rays[:, 0], base[:, 0])


def test_repeated_matching_begins_as_no_change():
    torch.manual_seed(0)
    plain = RayDiffuser(ModelConfig(**SMALL)).eval()
    again = RayDiffuser(ModelConfig(**SMALL, rematch=2)).eval()
    missing, unexpected = again.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all('rematchers' in name for name in missing)
    features = torch.randn(1, 3, 928, 7, 7)
    directions = torch.nn.functional.normalize(torch.randn(1, 3, 3, 7, 7), dim=2)
    directions[:, :, 2] = directions[:, :, 2].abs() + 0.5
    directions = torch.nn.functional.normalize(directions, dim=2)
    x = torch.randn(1, 3, 6, 7, 7)
    with torch.inference_mode():
        expected = plain.denoise(x, 50, plain.condition(features, directions))
        context = again.condition(features, directions)
        torch.testing.assert_close(again.denoise(x, 50, context), expected)
        # and it is not ignored: what it says reaches the answer once it says something
        again.ray_predictor.rematchers[1].tell.weight.normal_()
        assert (again.denoise(x, 50, context) - expected).abs().max() > 1e-3


def test_evidence_fades_where_the_first_view_sees_nothing():
    generator = torch.Generator().manual_seed(0)
    descriptors = torch.nn.functional.normalize(
        torch.randn(1, 2, 196, 8, generator=generator), dim=-1
    )
    slopes = torch.randn(1, 196, 2, generator=generator)
    hidden = torch.full((1, 2, 196), -30.0)
    shown = match_evidence(descriptors, slopes, torch.tensor([10.0]), -hidden)
    plain = match_evidence(descriptors, slopes, torch.tensor([10.0]))
    torch.testing.assert_close(shown[:, :, :16], plain)
    faded = match_evidence(descriptors, slopes, torch.tensor([10.0]), hidden)
    assert faded.abs().max() < 1e-6


@pytest.mark.parametrize(
    'change', [{'rematch': 3}, {'rematch': -1}, {'rematch': 1, 'matching': 0}]
)
def test_impossible_repetition_is_refused(change):
    with pytest.raises(ValueError, match='rematch'):
        ModelConfig(**(SMALL | change))


def test_views_in_several_orders_are_views_put_in_order():
    torch.manual_seed(0)
    model = RayDiffuser(ModelConfig(**SMALL, rematch=1)).eval()
    features = torch.randn(3, 928, 7, 7)
    directions = torch.randn(3, 3, 7, 7)
    directions[:, 2] = directions[:, 2].abs() + 1
    directions = torch.nn.functional.normalize(directions, dim=1)
    order = torch.tensor([[0, 1, 2], [2, 0, 1]])
    with torch.inference_mode():
        shared = model.condition(features[None], directions[None], order)
        apart = model.condition(features[order], directions[order])
    for name in ('embedded', 'base', 'similarity', 'descriptors', 'slopes'):
        torch.testing.assert_close(getattr(shared, name), getattr(apart, name), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match='2 windows'):
        model.condition(features[order], directions[order], order)
