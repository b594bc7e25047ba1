"""The estimator around a network that predicts the true rays must return the true cameras."""

import dataclasses

import numpy as np
import pytest
import torch
from estimation_fakes import (
    GRID,
    Oracle,
    cameras,
    config,
    directions_of,
    line_rays,
    make_views,
    official_model,
    orbit,
    own_model,
    own_model_by_reference,
)
from model_golden import network

from ray_pose_ros.estimation.devices import usable_device
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.preparation import in_other_crop, prepare, turned_clockwise
from ray_pose_ros.estimation.solution import EstimationError, rays_of_cameras, recover
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import patch_centres
from ray_pose_ros.geometry.similarity import relative_rotation_errors
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.denoiser import reference_rays
from ray_pose_ros.model.ray_diffuser import RayDiffuser


def check(estimate, expected, tolerance=1e-5):
    R, centres = expected
    np.testing.assert_allclose(estimate.R, R.numpy(), atol=tolerance)
    np.testing.assert_allclose(estimate.centres, centres.numpy(), atol=tolerance)
    np.testing.assert_allclose(estimate.R[0], np.eye(3), atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(estimate.centres[0]), 1, atol=tolerance)


@pytest.mark.parametrize(
    ('make', 'samples'), [(own_model, 1), (official_model, 1), (official_model, 3)]
)
def test_true_rays_give_true_cameras(make, samples):
    lenses, (R, t) = cameras(4), orbit(4)
    views = make_views(lenses)
    model, expected = make(views, lenses, R, t)
    estimate = Estimator(model, samples=samples).estimate(views)
    check(estimate, expected)
    assert estimate.intrinsics_source == ('given',) * 4
    assert estimate.names == ('v0', 'v1', 'v2', 'v3')
    assert estimate.stamps == (0.0, 0.5, 1.0, 1.5)
    np.testing.assert_array_equal(estimate.K[2], lenses[2].matrix.numpy())
    assert set(estimate.timings) == {'features', 'denoise', 'recover'}
    assert (estimate.agreement, estimate.modes) == (1.0, 1)
    assert (estimate.rotation_sigma >= 0.0087).all()
    assert (estimate.centre_sigma >= 0.005).all()


def test_an_estimate_of_some_of_the_views_tells_the_same_of_them():
    lenses, (R, t) = cameras(4), orbit(4)
    views = make_views(lenses)
    model, _ = official_model(views, lenses, R, t)
    whole = Estimator(model, samples=3).estimate(views)
    matches = {(i, j): (i, j) for j in range(4) for i in range(j)}
    part = dataclasses.replace(whole, ray_matches=matches).of_views([0, 2, 3])
    for name in ('R', 't', 'rays', 'rotation_sigma', 'centre_sigma', 'K', 'centres'):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[0, 2, 3]])
    np.testing.assert_array_equal(part.samples, whole.samples[:, [0, 2, 3]])
    assert part.names == ('v0', 'v2', 'v3') and part.stamps == (0.0, 1.0, 1.5)
    assert part.ray_matches == {(0, 1): (0, 2), (0, 2): (0, 3), (1, 2): (2, 3)}
    assert len(part.cameras) == len(part.crops) == len(part.intrinsics_source) == 3


def test_samples_of_an_own_model_take_the_views_in_turns_as_reference():
    lenses, (R, t) = cameras(3), orbit(3)
    target = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
    views = []
    for view, lens, r, shift in zip(make_views(lenses), lenses, R, t, strict=True):
        u, v = lens.project(r @ target + shift).tolist()  # a detector's box: round the object
        views.append(dataclasses.replace(view, box=(u - 50, v - 50, u + 50, v + 50)))
    model = own_model_by_reference(views, lenses, R, t, target)
    estimate = Estimator(model, samples=5).estimate(views)
    np.testing.assert_allclose(estimate.R, (R @ R[0].T).numpy(), atol=1e-5)
    centres = -torch.einsum('nji,nj->ni', R, t)
    expected = (centres - target) @ R[0].T / (centres[0] - target).norm()
    # the crops' middles are whole pixels, so that their axes miss the target a little
    np.testing.assert_allclose(estimate.centres, expected.numpy(), atol=0.01)
    assert estimate.modes == 1


@pytest.mark.parametrize('make', [own_model, official_model])
def test_published_rays_are_those_of_the_published_cameras(make):
    lenses, (R, t) = cameras(3), orbit(3)
    views = make_views(lenses)
    model, _ = make(views, lenses, R, t)
    estimate = Estimator(model, samples=1).estimate(views)
    expected = line_rays(
        torch.from_numpy(estimate.centres),
        torch.from_numpy(estimate.R),
        directions_of(views, lenses),
    )
    assert estimate.rays.dtype == np.float32
    np.testing.assert_allclose(estimate.rays, expected.numpy(), atol=1e-5)


def test_own_model_is_told_directions_about_the_crops_centre():
    lenses, (R, t) = cameras(4), orbit(4)
    views = make_views(lenses)
    model, _ = own_model(views, lenses, R, t)
    Estimator(model).estimate(views)
    told = model.geometry[0]  # (N, 3, h, w)
    assert torch.allclose(told.norm(dim=1), torch.ones(4, GRID, GRID), atol=1e-6)
    middle = torch.nn.functional.normalize(told[:, :, 3:5, 3:5].mean(dim=(2, 3)), dim=1)
    assert (middle[:, 2] > 0.999).all()


def test_official_model_is_told_ndc_of_the_whole_image():
    lens = CameraModel.from_fov(400, 400, 1.0)
    image = np.zeros((400, 400, 3), np.uint8)
    (R, t), views = orbit(2), [View(image, lens, name=n) for n in 'ab']
    model, _ = official_model(views, [lens] * 2, R, t)
    Estimator(model).estimate(views)
    side = torch.linspace(1 - 1 / GRID, -1 + 1 / GRID, GRID)
    assert torch.allclose(model.geometry[0, 0, 0], side.expand(GRID, GRID), atol=1e-6)
    assert torch.allclose(model.geometry[0, 0, 1], side[:, None].expand(GRID, GRID), atol=1e-6)


def test_crop_parameters_of_the_official_demo_differ():
    lenses, (R, t) = cameras(2), orbit(2)
    views = make_views(lenses)
    model, _ = official_model(views, lenses, R, t)
    told = []
    for variant in ('training', 'demo'):
        Estimator(model, crop_params=variant).estimate(views)
        told.append(model.geometry.clone())
    assert (told[0] - told[1]).abs().max() > 0.1


def test_unknown_intrinsics_are_estimated_by_the_official_geometry():
    K = torch.tensor([[260.0, 0, 100], [0, 260, 150], [0, 0, 1]])
    lenses, (R, t) = [CameraModel(K, 200, 300)] * 3, orbit(3)
    views = make_views(lenses, known=False)
    model, expected = official_model(views, lenses, R, t)
    estimate = Estimator(model).estimate(views)
    assert estimate.intrinsics_source == ('estimated',) * 3
    np.testing.assert_allclose(estimate.K[:, 0, 0], 260, rtol=0.02)
    check(estimate, expected, tolerance=0.02)


def test_unknown_intrinsics_are_assumed_for_own_models():
    image = np.zeros((300, 200, 3), np.uint8)
    K = torch.tensor([[255.0, 0, 100], [0, 255, 150], [0, 0, 1]])
    lenses, (R, t) = [CameraModel(K, 200, 300)] * 2, orbit(2)
    box = (20, 20, 140, 140)
    known = [View(image, lens, box=box, name=n) for n, lens in zip('ab', lenses, strict=True)]
    model, expected = own_model(known, lenses, R, t)
    estimate = Estimator(model, samples=1).estimate([View(image, box=box, name=n) for n in 'ab'])
    assert estimate.intrinsics_source == ('assumed', 'assumed')
    np.testing.assert_allclose(estimate.K, np.stack([K.numpy()] * 2))
    check(estimate, expected)


def test_a_crop_beyond_what_the_lens_sees_is_solved_with_the_rest():
    lens = CameraModel(
        torch.tensor([[150.0, 0, 160], [0, 150, 120], [0, 0, 1]]), 320, 240, 'plumb_bob',
        (-0.15, 0.0, 0.0, 0.0),
    )  # fmt: skip
    image = np.zeros((240, 320, 3), np.uint8)
    view = View(image, lens, box=(-60, 0, 150, 210), name='edge')
    lenses, (R, t) = [lens] * 2, orbit(2)
    views = [view, view]
    pixels = patch_centres(view.crop(), GRID)
    beyond = ~torch.isfinite(lens.unproject(pixels)).all(dim=-1)
    assert 0 < beyond.sum() < 0.5 * len(beyond)
    model, expected = own_model(views, lenses, R, t)
    # Where no ray is, the network says anything.
    flat = model.rays.flatten(2)
    flat[:, :, beyond] = torch.randn(flat[:, :, beyond].shape)
    model.config = config('directions', anchor_reference=False, residual=False)
    check(Estimator(model).estimate(views), expected, tolerance=1e-4)


def test_the_network_is_given_the_reference_and_gives_it_back():
    model = tiny_model(geometry='directions', anchor_reference=True, residual=True)
    grid = model.config.grid
    directions = torch.nn.functional.normalize(torch.randn(1, 3, 3, grid, grid), dim=2)
    channels = model.ray_predictor.feature_channels
    context = model.condition(torch.randn(1, 3, channels, grid, grid), directions)
    x = torch.randn(1, 3, 6, grid, grid)
    other = torch.cat([torch.randn_like(x[:, :1]), x[:, 1:]], dim=1)
    with torch.inference_mode():
        found, again = model.denoise(x, 50, context), model.denoise(other, 50, context)
    torch.testing.assert_close(found[:, :1], reference_rays(directions)[:, :1])
    torch.testing.assert_close(again, found)  # what was noised there is never read


def test_of_very_many_views_fewer_samples_are_drawn_unless_asked_for():
    model = RayDiffuser(config('directions'))
    counts = [Estimator(model)._samples_of(n) for n in (2, 8, 64, 65, 100, 200, 1000)]
    assert counts == [8, 8, 8, 7, 3, 1, 1]
    assert Estimator(model, samples=8)._samples_of(200) == 8


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_rays_that_are_not_finite_are_named(bad):
    lenses, (R, t) = cameras(3), orbit(3)
    views = make_views(lenses)
    model, _ = official_model(views, lenses, R, t, regression=True)
    model.rays[1, 2, 0, 0] = bad
    with pytest.raises(EstimationError, match=r'predicted NaN or infinite rays for v1$'):
        Estimator(model).estimate(views)


def test_rays_without_scale_are_refused():
    lenses, (R, t) = cameras(2), orbit(2)
    views = make_views(lenses)
    model, _ = official_model(views, lenses, R, t)
    model.rays[:, 3:] = 0  # all through the origin
    with pytest.raises(EstimationError, match='no scale'):
        Estimator(model).estimate(views)


@pytest.mark.parametrize('count', [0, 1])
def test_fewer_than_two_views_are_refused(count):
    lenses, (R, t) = cameras(2), orbit(2)
    views = make_views(lenses)
    model, _ = own_model(views, lenses, R, t)
    with pytest.raises(ValueError, match=f'{count} views, expected at least 2'):
        Estimator(model).estimate(views[:count])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'samples': -1}, 'samples is -1'),
        ({'steps': -1}, 'steps is -1'),
        ({'steps': 101}, 'steps is 101, expected at most 100, the length of this'),
        ({'seed': 2**70}, 'seed is 1180591620717411303424, expected a whole number of 64 bits'),
        ({'crop_params': 'x'}, "crop_params is 'x'"),
        ({'precision': 'int8'}, "precision is 'int8'"),
        ({'device': 'toaster'}, "device is 'toaster'"),
        ({'device': 'mps'}, "device is 'mps', expected auto, cpu, cuda or cuda:N"),
        ({'device': 'meta'}, "device is 'meta'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    model = Oracle(config('ndc'), torch.zeros(2, 6, GRID, GRID))
    with pytest.raises(ValueError, match=message):
        Estimator(model, **settings)


def test_automatic_device():
    expected = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert usable_device('auto').type == expected
    if expected == 'cpu':
        with pytest.raises(ValueError, match='no CUDA GPU'):
            usable_device('cuda')


def test_the_demos_crops_are_of_official_models():
    with pytest.raises(ValueError, match="crop_params is 'demo', .* official models only"):
        Estimator(tiny_model(geometry='directions'), crop_params='demo')


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert usable_device('cuda:1').index == 1
    with pytest.raises(ValueError, match="device is 'cuda:2', but the last CUDA GPU is cuda:1"):
        usable_device('cuda:2')


def tiny_model(**changes):
    torch.manual_seed(0)
    sizes = {
        'backbone_width': 24, 'backbone_depth': 1, 'backbone_heads': 2, 'image_size': 56,
        'grid': 4, 'width': 48, 'depth': 1, 'heads': 4, 'sample_steps': 3,
    }  # fmt: skip
    model = RayDiffuser(ModelConfig(**(sizes | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    'changes',
    [
        {'geometry': 'ndc'},
        {'geometry': 'ndc', 'regression': True},
        {'geometry': 'directions', 'view_code': 'reference', 'anchor_reference': True},
    ],
)
def test_a_real_network_is_deterministic_and_views_do_not_depend_on_each_other(changes):
    lenses = cameras(3)
    views = make_views(lenses)
    estimator = Estimator(tiny_model(**changes), samples=2, seed=3)
    seen = []
    prepared = [estimator.prepare(v) for v in views]
    first = estimator.solve(prepared, progress=lambda done, total: seen.append((done, total)))
    again = estimator.estimate(views)
    np.testing.assert_array_equal(first.R, again.R)
    np.testing.assert_array_equal(first.t, again.t)
    steps = len(estimator.plan.steps)
    assert seen == [(i + 1, steps) for i in range(steps)]
    assert torch.equal(estimator.prepare(views[1]).features, prepared[1].features)
    other = Estimator(estimator.model, samples=2, seed=4).estimate(views)
    assert not np.array_equal(first.t, other.t)
    # The noise of a seed is the same for a state of the generator elsewhere.
    torch.manual_seed(123)
    np.testing.assert_array_equal(estimator.estimate(views).R, first.R)


def test_half_precision_runs():
    views = make_views(cameras(2))
    model = tiny_model(geometry='directions', view_code='reference', anchor_reference=True)
    half = Estimator(model, precision='bfloat16').estimate(views)
    assert np.isfinite(half.R).all()
    full = Estimator(model).estimate(views)
    np.testing.assert_allclose(half.R, full.R, atol=0.2)


def test_prediction_can_be_abandoned():
    views = make_views(cameras(2))
    estimator = Estimator(tiny_model(geometry='ndc'))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        estimator.solve([estimator.prepare(v) for v in views], progress=stop)


def test_the_official_plan_is_the_default_of_the_official_model():
    model = tiny_model(geometry='ndc', sample_steps=0)
    assert len(Estimator(model).plan.steps) == 71
    assert len(Estimator(model, steps=10).plan.steps) == 10
    assert len(Estimator(tiny_model(geometry='ndc', regression=True)).plan.steps) == 1


@pytest.mark.parametrize(('kind', 'calls'), [('diffusion', 3), ('regression', 1)])
def test_official_networks_run_from_images_to_cameras(kind, calls):
    estimator = Estimator(network(kind), steps=3)
    assert len(estimator.plan.steps) == calls
    lenses = cameras(3)
    estimate = estimator.estimate(make_views(lenses)[:2] + make_views(lenses, known=False)[2:])
    assert estimate.intrinsics_source == ('given', 'given', 'estimated')
    assert estimate.rays.shape == (3, 6, 16, 16)
    np.testing.assert_allclose(np.linalg.det(estimate.R), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(estimate.centres[0]), 1, atol=1e-6)
    assert estimate.K[2, 0, 0] > 0


# -- a second look ------------------------------------------------------------------------------


def prepared_views(count, seed=0):
    """Prepared views of the shipped model's kind, crops aside of the images' middles."""
    from types import SimpleNamespace

    from ray_pose_ros.geometry.gauge import viewing_rotation

    generator = torch.Generator().manual_seed(seed)
    views = []
    for _ in range(count):
        forward = torch.tensor([0.0, 0.0, 1.0]) + 0.2 * torch.randn(3, generator=generator)
        turn = viewing_rotation(torch.nn.functional.normalize(forward.double(), dim=0))
        slopes = torch.rand(49, 2, generator=generator, dtype=torch.float64) - 0.5
        virtual = torch.cat([slopes, torch.ones(49, 1, dtype=torch.float64)], dim=1)
        directions = torch.nn.functional.normalize(virtual, dim=1) @ turn
        camera = CameraModel.from_fov(64, 64, 1.0)
        weights = torch.ones(49, dtype=torch.float64)
        views.append(
            SimpleNamespace(camera=camera, turn=turn, directions=directions, weights=weights)
        )
    return views


@pytest.mark.parametrize('seed', range(3))
def test_rays_of_cameras_are_those_that_the_cameras_are_recovered_from(seed):
    prepared = prepared_views(4, seed)
    R, t = orbit(4)
    # published: the first camera unrotated, the object on its virtual camera's axis at distance 1
    R, t = R @ R[0].T, t.clone()
    t[0] = prepared[0].turn.T @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    orders = torch.tensor([[0, 1, 2, 3], [2, 0, 1, 3]])
    rays = rays_of_cameras(prepared, R, t, orders)
    for order, of_order in zip(orders, rays, strict=True):
        there = [prepared[i] for i in order]
        found_R, found_t, _ = recover(there, of_order[None])
        relative = found_R[0] @ found_R[0, 0].T
        assert torch.allclose(relative, R[order] @ R[order[0]].T, atol=1e-9)
        # the reference is at distance 1 of the object's depth on its axis
        at_axis = prepared[order[0]].turn @ found_t[0, 0]
        assert at_axis[2] == pytest.approx(1.0)
        expected = -torch.einsum('nji,nj->ni', R, t)[order]
        centres = -torch.einsum('nji,nj->ni', found_R[0], found_t[0])
        lengths = [torch.pdist(x) for x in (centres, expected)]
        assert torch.allclose(lengths[0] / lengths[0][0], lengths[1] / lengths[1][0], atol=1e-6)


def test_rays_of_a_camera_that_looks_away_from_the_object_are_finite():
    prepared = prepared_views(3)
    R, t = orbit(3)
    t[1] = torch.tensor([0.1, 0.0, -1.0])  # the object is behind it
    t[2] = 0.0  # it stands on the object
    rays = rays_of_cameras(prepared, R, t, torch.tensor([[1, 0, 2], [2, 0, 1]]))
    assert torch.isfinite(rays).all()


@pytest.fixture(scope='module')
def looks():
    """An estimator with the shipped model, prepared views, and what its looks were shown."""
    from ray_pose_ros.evaluation.sources import RENDERED, Source

    sequence = Source('rendered', RENDERED, RENDERED, seed=3).load()
    estimator = Estimator()
    prepared = [estimator.prepare(view) for view in sequence.views[:3]]
    calls = []
    inner = estimator._look

    def counting(window, progress, first=None):
        calls.append(first and first.settled)
        return inner(window, progress, first)

    estimator._look = counting
    return estimator, prepared, calls


def agreeing(monkeypatch, agreed):
    from ray_pose_ros.estimation import answer

    plain = answer.settle
    monkeypatch.setattr(answer, 'settle', lambda *a: dataclasses.replace(plain(*a), agreed=agreed))


def test_the_network_looks_again_where_its_matches_disagree(looks, monkeypatch):
    estimator, prepared, calls = looks
    calls.clear()
    agreeing(monkeypatch, False)
    done = []
    twice = estimator.solve(prepared, lambda *step: done.append(step))
    assert len(calls) == 2 and calls[0] is None
    assert list(dict.fromkeys(done)) == [(1, 2), (2, 2)]
    # it was shown what the matches had made of the first answer
    monkeypatch.setattr(estimator, 'second_look', False)
    once = estimator.solve(prepared)
    assert len(calls) == 3
    np.testing.assert_allclose(calls[1].R, once.R)
    assert not np.allclose(once.R, twice.R, atol=1e-4)
    # answers to the same question are not independent: their spread is not taken for doubt
    np.testing.assert_array_equal(once.samples, twice.samples)
    assert (once.agreement, once.modes) == (twice.agreement, twice.modes)
    assert twice.doubts.rotation_before == pytest.approx(once.doubts.rotation_before)
    assert set(twice.timings) == {'features', 'denoise', 'recover'}


def test_looks_come_one_by_one(looks, monkeypatch):
    estimator, prepared, calls = looks
    calls.clear()
    agreeing(monkeypatch, False)
    answers = estimator.looks(prepared)
    first = next(answers)
    assert len(calls) == 1
    (second,) = answers
    np.testing.assert_array_equal(second.R, estimator.solve(prepared).R)
    monkeypatch.setattr(estimator, 'second_look', False)
    np.testing.assert_array_equal(first.R, estimator.solve(prepared).R)
    assert len(list(estimator.looks(prepared))) == 1


def test_a_solution_can_be_abandoned_while_cameras_are_adjusted(looks, monkeypatch):
    estimator, prepared, _ = looks
    agreeing(monkeypatch, False)

    class Abandoned(Exception):
        pass

    seen = []

    def leave(*step):
        if step in seen:  # no step of the network, then
            raise Abandoned
        seen.append(step)

    with pytest.raises(Abandoned):
        estimator.solve(prepared, leave)
    assert seen == [(1, 2)]


def test_one_look_is_enough_where_matches_agree(looks, monkeypatch):
    estimator, prepared, calls = looks
    calls.clear()
    agreeing(monkeypatch, True)
    done = []
    estimator.solve(prepared, lambda *step: done.append(step))
    assert len(calls) == 1
    assert list(dict.fromkeys(done)) == [(1, 2), (2, 2)]
    # and without matches there is nothing to show
    agreeing(monkeypatch, False)
    monkeypatch.setattr(estimator, 'use_matches', False)
    estimator.solve(prepared)
    assert len(calls) == 2


def test_the_network_sees_better_next_to_cameras_that_are_right():
    from ray_pose_ros.evaluation.sources import RENDERED, Source

    before, after = [], []
    for seed in (3, 4, 5):
        sequence = Source('rendered', RENDERED, RENDERED, seed=seed).load()
        estimator = Estimator()
        first = estimator.look([estimator.prepare(view) for view in sequence.views[:4]])
        truth = sequence.R[:4]
        # somebody knows where the second view stands; the others stay as they were told
        R = first.estimate.R.copy()
        R[1] = truth[1] @ truth[0].T
        again = estimator.look_again(first, (R, first.estimate.t))
        for errors, estimate in ((before, first.estimate), (after, again.estimate)):
            errors.append(relative_rotation_errors(*map(torch.from_numpy, (estimate.R, truth))))
        np.testing.assert_array_equal(again.estimate.samples, first.estimate.samples)
        assert again.estimate.timings['denoise'] > first.estimate.timings['denoise']
    before, after = (torch.stack(x).mean().item() for x in (before, after))
    assert after < 0.9 * before, (before, after)


@pytest.fixture
def photographs():
    """Views of a landscape format without boxes, a rendered scene in the middle of noise."""
    from ray_pose_ros.evaluation.sources import RENDERED, Source

    rng = np.random.default_rng(0)
    views = []
    for view in Source('rendered', RENDERED, RENDERED, seed=3).load().views[:3]:
        image = rng.integers(0, 256, (224, 320, 3), dtype=np.uint8)
        image[:, 48:-48] = view.image
        K = view.camera.matrix.clone()
        K[0, 2] += 48
        views.append(View(image, CameraModel(K, 320, 224)))
    return views


@pytest.fixture
def windows(looks, monkeypatch):
    """What the estimator of `looks` looks at, one after the other."""
    estimator, _, _ = looks
    found = []
    inner = estimator._look
    monkeypatch.setattr(estimator, '_look', lambda w, *a: found.append(w) or inner(w, *a))
    return found


def test_no_views_are_refused_by_a_model_that_looks_again(looks):
    with pytest.raises(ValueError, match='0 views, expected at least 2'):
        looks[0].solve([])


def test_later_looks_are_at_other_crops(looks, windows, photographs):
    estimator, _, _ = looks
    prepared = [estimator.prepare(view) for view in photographs]
    seen = [estimator.look(prepared)]
    while again := estimator.look_again(seen[-1]):
        seen.append(again)
    assert len(seen) == len(windows) == 3
    for views in zip(*(w.prepared for w in windows), strict=True):
        sides = [view.crop.side / views[0].crop.side for view in views]
        assert sides == pytest.approx([1, 1.3, 0.87], abs=0.01)
        for view in views:
            assert view.crop.centre == pytest.approx(views[0].crop.centre, abs=1)
            assert (view.camera, view.turned) == (views[0].camera, views[0].turned)
    first, *_, last = (look.estimate for look in seen)
    # what is told of crops and rays is of the first, and all looks' matches count
    assert last.crops == first.crops
    np.testing.assert_array_equal(last.rays, first.rays)
    assert last.timings['features'] > first.timings['features']
    for pair, found in last.ray_matches.items():
        every = [of_look[pair] for of_look in seen[-1].answer.matches]
        np.testing.assert_array_equal(found.a, np.concatenate([m.a for m in every]))
        assert len(every) == 3 and every[0].same_as(seen[0].answer.matches[0][pair])


def test_later_looks_draw_as_many_samples_as_the_first(looks, windows, photographs, monkeypatch):
    estimator, _, _ = looks
    prepared = [estimator.prepare(view) for view in photographs]
    with monkeypatch.context() as patched:  # memory was short, and is thought to suffice again
        patched.setattr(estimator, 'samples', 1)
        first = estimator.look(prepared)
    estimator.look_again(first)
    assert [w.samples for w in windows] == [1, 1]


def test_a_second_look_at_the_same_crop_is_the_better_one_and_the_last(looks, windows):
    estimator, prepared, _ = looks
    first = estimator.look(prepared)
    second = estimator.look_again(first)
    assert windows[0] is windows[1]
    (matched,) = second.answer.matches
    for pair, matches in second.estimate.ray_matches.items():
        np.testing.assert_array_equal(matches.a, matched[pair].a)
    assert estimator.look_again(second) is None


def test_all_looks_are_told_of(looks, photographs, monkeypatch):
    estimator, _, _ = looks
    prepared = [estimator.prepare(view) for view in photographs]
    agreeing(monkeypatch, False)
    done = []
    assert len(list(estimator.looks(prepared, lambda *step: done.append(step)))) == 3
    assert list(dict.fromkeys(done)) == [(1, 3), (2, 3), (3, 3)]
    agreeing(monkeypatch, True)
    done.clear()
    assert len(list(estimator.looks(prepared, lambda *step: done.append(step)))) == 1
    assert list(dict.fromkeys(done)) == [(1, 3), (3, 3)]


@pytest.mark.parametrize('index', [0, 1])
@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_another_crop_is_seen_as_if_it_were_the_only_one(looks, photographs, turns, index):
    model, photograph = looks[0].model, photographs[0]
    view = prepare(model, photograph)
    crop = view.other_crops[index][0]
    corners = crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side
    alone = prepare(model, dataclasses.replace(photograph, box=corners), 1.0)
    expected = turned_clockwise(model, alone, turns)
    found = in_other_crop(model, turned_clockwise(model, view, turns), index)
    assert (found.crop, found.turned) == (crop, turns)
    for name in ('pixels', 'directions', 'weights', 'turn', 'geometry'):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    likeness = torch.cosine_similarity(*(x.features.flatten() for x in (found, expected)), dim=0)
    assert likeness > 0.99  # its image was kept as bytes
    assert in_other_crop(model, turned_clockwise(model, view, turns), index) is found


@pytest.mark.parametrize(
    ('size', 'box', 'sides'),
    [
        ((320, 224), None, [291, 195]),
        ((240, 320), None, [312, 209]),
        ((250, 224), None, [250, 195]),
        ((224, 224), None, []),
        ((230, 224), None, []),
        ((320, 224), (100, 80, 200, 160), [150, 100]),
        ((320, 224), (2, 2, 222, 222), [320, 220]),
        ((224, 224), (2, 2, 222, 222), []),
        ((320, 224), (-20, -20, 340, 200), []),
    ],
)
def test_other_crops_show_as_much_as_there_is(looks, size, box, sides):
    width, height = size
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = prepare(looks[0].model, View(image, CameraModel.from_fov(width, height, 1.0), box))
    assert [crop.side for crop, _ in view.other_crops] == sides
    assert in_other_crop(looks[0].model, view, len(sides)) is view


@pytest.mark.parametrize('factor', [2, 3])
def test_other_crops_of_large_images_are_the_same(looks, photographs, factor):
    model, view = looks[0].model, photographs[0]
    height, width = (2 * x for x in view.image.shape[:2])
    K = torch.diag(torch.tensor([2.0, 2, 1], dtype=torch.float64)) @ view.camera.matrix
    image = view.image.repeat(2, 0).repeat(2, 1)
    small = prepare(model, View(image, CameraModel(K, width, height)))
    larger = torch.diag(torch.tensor([factor, factor, 1], dtype=torch.float64)) @ K
    # beside whole pixels of the shrunk image are some that are none
    rest = factor - 1
    image = np.pad(image.repeat(factor, 0).repeat(factor, 1), ((0, rest), (0, rest), (0, 0)))
    camera = CameraModel(larger, factor * width + rest, factor * height + rest)
    large = prepare(model, View(image, camera))
    for (crop, seen), (larger, same) in zip(small.other_crops, large.other_crops, strict=True):
        assert larger.side == pytest.approx(factor * crop.side, abs=factor)
        assert larger.centre == pytest.approx([factor * x for x in crop.centre], abs=2 * factor)
        assert all(x % factor == 0 for x in (larger.x0, larger.y0, larger.side))
        apart = (seen.float() - same.float()).abs().mean()
        assert apart < 5, apart  # grey levels, of 255


def test_masked_views_are_seen_in_no_other_crop(looks):
    # what is round the object may stand still while it turns
    image = np.random.default_rng(1).integers(0, 256, (224, 320, 3), dtype=np.uint8)
    mask = np.zeros((224, 320), dtype=bool)
    mask[60:160, 100:200] = True
    camera = CameraModel.from_fov(320, 224, 1.0)
    assert not prepare(looks[0].model, View(image, camera, mask=mask)).other_crops
    assert prepare(looks[0].model, View(image, camera, (100, 60, 200, 160))).other_crops


def test_a_box_of_which_the_image_shows_hardly_anything(looks):
    image = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    camera = CameraModel.from_fov(100, 100, 1.0)
    view = prepare(looks[0].model, View(image, camera, (-98, 0, 2, 100)), 1.0)
    assert not view.other_crops  # in the narrower one nothing would be seen


def test_nothing_is_shown_to_a_network_that_does_not_match(looks, monkeypatch):
    estimator, prepared, _ = looks
    first = estimator.look(prepared)
    assert estimator.look_again(first) is not None
    monkeypatch.setattr(estimator, 'second_look', False)
    assert estimator.look_again(first) is None
    monkeypatch.undo()
    monkeypatch.setattr(estimator, 'use_matches', False)
    plain = estimator.look(prepared)
    assert not plain.disagrees and estimator.look_again(plain) is None


@pytest.mark.parametrize('time', [-1, 100])
def test_a_second_look_outside_of_the_schedule_is_refused(time):
    with pytest.raises(ValueError, match=f'second_look is {time}, expected 0 to 99'):
        ModelConfig(second_look=time)
    with pytest.raises(ValueError, match='second_look is 30, but rematch is 0'):
        ModelConfig(second_look=30)
