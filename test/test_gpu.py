"""The path through a CUDA GPU, on a real one or a pretended one: where tensors are, and the same
answers as on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from estimation_fixtures import estimate as ray_pose_estimate
from estimation_fixtures import photos  # noqa: F401
from matching_fixtures import matcher_or_reason, textured_views
from pretend_gpu import pretend_gpu
from test_training_batches import sphere_scenes
from test_training_trainer import SMALL

from ray_pose_ros.estimation.devices import usable_device
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.preparation import turned_clockwise
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.similarity import relative_rotation_errors
from ray_pose_ros.matching import create_matcher
from ray_pose_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.node.economy import Economy
from ray_pose_ros.refinement.refine import default_matchers
from ray_pose_ros.refinement.refining import RefiningEstimator
from ray_pose_ros.training.config import TrainingConfig
from ray_pose_ros.training.dataset import SceneSet
from ray_pose_ros.training.stores import ViewStore
from ray_pose_ros.training.trainer import Trainer


@pytest.fixture
def gpu():
    """Counts of what is done on it."""
    with pretend_gpu() as counts:
        yield counts


@pytest.fixture(scope='module')
def views():
    seen = textured_views(4)
    return [View(s.image, camera, name=str(n)) for n, (camera, _, _, s) in enumerate(seen)]


@pytest.fixture(scope='module')
def on_cpu(views):
    return Estimator().estimate(views)


def degrees_apart(one, other) -> float:
    """The most of two estimates' relative rotations."""
    pair = (torch.from_numpy(np.asarray(e.R)) for e in (one, other))
    return float(relative_rotation_errors(*pair).max())


# -- the pretence: what CUDA refuses is refused, what it computes is right ------------------------


def test_tensors_of_both_devices_do_not_mix(gpu):
    here, there = torch.arange(3.0), torch.arange(3.0).to('cuda')
    for mixed in (
        lambda: here + there,
        lambda: torch.cat([there, here]),
        lambda: torch.nn.functional.linear(there, torch.eye(3)),
        lambda: there.gather(0, torch.tensor([1])),
        lambda: here[torch.tensor([1], device='cuda')],
    ):
        with pytest.raises(RuntimeError, match='device'):
            mixed()
    with pytest.raises(TypeError, match='numpy'):
        there.numpy()
    with pytest.raises(TypeError, match='numpy'):
        np.asarray(there)


def test_what_a_gpu_computes_is_there_and_right(gpu):
    there = torch.tensor([1.0, 2.0, 3.0], device='cuda')
    there[1] = 5
    there += 1
    found = there[torch.tensor([2, 1])] * torch.tensor(2.0)
    assert found.device.type == 'cuda' and there.new_tensor([1]).device.type == 'cuda'
    np.testing.assert_array_equal(found.cpu().numpy(), [8, 12])
    assert float(there.sum()) == 12 and there.tolist() == [2, 6, 4]
    with torch.autocast('cuda', torch.float16), torch.inference_mode():
        half = torch.nn.Linear(3, 2).to('cuda')(there)
    assert half.dtype == torch.float16 and half.device.type == 'cuda'


# -- the project ----------------------------------------------------------------------------------


def test_the_shipped_model_tells_the_same_as_on_the_cpu(gpu, views, on_cpu):
    assert usable_device('auto').type == 'cuda'
    estimator = Estimator(device='auto')
    assert {p.device.type for p in estimator.model.parameters()} == {'cuda'}
    estimate = estimator.estimate(views)
    assert degrees_apart(estimate, on_cpu) < 0.05
    np.testing.assert_allclose(estimate.centres, on_cpu.centres, atol=0.01)
    assert isinstance(estimate.rays, np.ndarray) and len(estimate.ray_matches)


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_half_precision_tells_nearly_the_same(gpu, views, on_cpu, precision):
    estimate = Estimator(device='cuda', precision=precision).estimate(views)
    assert degrees_apart(estimate, on_cpu) < 1


def test_views_that_lie_on_their_side_are_turned_on_the_gpu(gpu, views):
    turned = [replace(view, image=np.rot90(view.image).copy(), camera=None) for view in views]
    there, here = (Estimator(device=device) for device in ('cuda', 'cpu'))
    prepared = [there.prepare(view) for view in turned]
    upright = turned_clockwise(there.model, prepared[0], 1)
    assert upright.turned == 1 and upright.features.device.type == 'cuda'
    expected = turned_clockwise(here.model, here.prepare(turned[0]), 1)
    np.testing.assert_allclose(upright.features.cpu(), expected.features, atol=1e-3)
    assert there.solve(prepared).turned == here.estimate(turned).turned


@pytest.mark.parametrize(
    ('name', 'fast'), [('xfeat', False), ('lighterglue', False), ('disk', False), ('aliked', True)]
)
def test_learned_matchers_match_the_same(gpu, views, name, fast):
    matcher = matcher_or_reason(name)
    if isinstance(matcher, str):
        pytest.skip(matcher)
    images = [view.image for view in views[:2]]
    there = create_matcher(name, device='cuda', fast=fast)
    expected = [matcher.extract(image) for image in images]
    found = [there.extract(image) for image in images]
    assert len(found[0]) == pytest.approx(len(expected[0]), rel=0.02)
    matches = there.match(*found)
    assert len(matches) > 30
    assert len(matches) == pytest.approx(len(matcher.match(*expected)), rel=0.1)


def test_refinement_runs_on_the_gpu(gpu, views):
    estimator = RefiningEstimator(Estimator(device='cuda'), default_matchers(None, 'cuda'))
    first, *_, last = estimator.looks([estimator.prepare(view) for view in views])
    truth = torch.tensor(np.stack([R for _, R, _, _ in textured_views(4)]))
    errors = relative_rotation_errors(torch.from_numpy(last.R), truth)
    assert last.sure.all() and errors.max() < 0.5
    assert first.timings.keys() <= last.timings.keys()


def test_a_solution_rarely_waits_for_the_gpu(gpu, views):
    estimator = Estimator(device='cuda')
    prepared = [estimator.prepare(view) for view in views]
    gpu.clear()
    estimator.look(prepared)
    if gpu:  # one reading takes the time of dozens of operators, and so does one writing
        assert gpu['operators'] > 500 and gpu['to the CPU'] < 30
        assert gpu['to the GPU'] < 60


def test_a_model_that_does_not_fit_works_on_the_cpu_and_comes_back(gpu, views):
    clock = [0.0]
    estimator = Estimator(device='cuda')
    economy = Economy(estimator, lambda: clock[0])
    prepared = [economy.prepare(view) for view in views]
    look, full = estimator.look, [True]

    def greedy(prepared, progress=None):
        if full[0] and estimator.device.type == 'cuda':
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return look(prepared, progress)

    estimator.look = greedy
    ((there, count), *_) = economy.looks(prepared, lambda *_: None)
    assert count == 4 and estimator.device.type == 'cpu' and 'CPU' in economy.words
    assert {p.device.type for p in estimator.model.parameters()} == {'cpu'}
    prepared.append(economy.prepare(views[0]))  # one that is on the CPU among those of the GPU
    full[0] = False
    while economy.words:
        clock[0] += 1000
        assert len(list(economy.looks(prepared, lambda *_: None)))
    assert estimator.device.type == 'cuda'


@pytest.mark.parametrize('geometry', ['ndc', 'directions'])
def test_networks_of_both_kinds(gpu, views, tmp_path, geometry):
    torch.manual_seed(0)
    own = geometry == 'directions'
    config = ModelConfig(
        backbone_width=24, backbone_depth=1, backbone_heads=2, image_size=56, grid=4, width=48,
        depth=2, heads=4, geometry=geometry, anchor_reference=own, residual=own,
        view_code='reference' if own else 'index', steps=10, readout=0,
    )  # fmt: skip
    save_checkpoint(RayDiffuser(config), tmp_path)
    model = load_checkpoint(tmp_path, 'cuda')
    assert model.precision == torch.float32 and next(model.parameters()).is_cuda
    estimate = Estimator(tmp_path, device='cuda', samples=2, steps=4).estimate(views)
    expected = Estimator(tmp_path, device='cpu', samples=2, steps=4).estimate(views)
    assert np.isfinite(estimate.R).all()
    np.testing.assert_allclose(estimate.rays, expected.rays, atol=1e-3)


def test_the_command_line_estimates_on_the_gpu(gpu, photos, tmp_path, capsys):  # noqa: F811
    options = '--device', 'cuda', '--matcher', 'sift', '--out', tmp_path
    assert ray_pose_estimate(photos / 'images', *options) == 0
    assert (tmp_path / 'poses.json').exists()


@pytest.mark.parametrize('backbone_rate', [0.0, 0.1])
def test_losses_of_training_are_computed_on_the_gpu(gpu, tmp_path, backbone_rate):
    scenes = sphere_scenes(scenes=2, views=8)
    generator = torch.Generator().manual_seed(0)
    if backbone_rate:
        images = torch.randint(0, 256, (2, 8, 224, 224, 3), dtype=torch.uint8)
        scenes = SceneSet(scenes.columns, images=ViewStore([images.numpy()]))
    else:
        features = torch.randn(2, 8, 928, 7, 7, generator=generator).half()
        scenes.features = ViewStore([features.numpy()])
    config = TrainingConfig(
        model=SMALL | {'depth': 4, 'rematch': 1},
        steps=4,
        warmup=1,
        cooldown=1,
        backbone_rate=backbone_rate,
        hidden=0.5,
    )
    trainer = Trainer(config, RayDiffuser(config.model_config()), scenes, scenes, tmp_path, 'cuda')
    batch = trainer.sampler.batch(trainer.sampler.draw(2, 3, 180.0, generator)).to('cuda')
    losses = trainer.losses(batch, generator)
    assert {'rays', 'rotation', 'centre', 'match', 'rematch1'} <= set(losses)
    assert all(x.device.type == 'cuda' and np.isfinite(float(x)) for x in losses.values())
