"""The official architecture and sampler, against recorded outputs of the official code."""

import pytest
import torch
from model_golden import DIFFUSION, context, error, golden, images, ndc, network

from ray_pose_ros.evaluation.reference_loop import reference_loop
from ray_pose_ros.model import load_checkpoint, official_plan, regression_plan, sample
from ray_pose_ros.model.layers import PositionTables

CLOSE = 1e-5
KINDS = ('diffusion', 'regression')
pytestmark = pytest.mark.usefixtures('_no_gradients')


@pytest.fixture
def _no_gradients():
    with torch.no_grad():
        yield


def test_keyed_weights_are_those_of_the_recorded_checkpoint():
    stored = load_checkpoint(DIFFUSION, backbone_heads=4).state_dict()
    made = network('diffusion').state_dict()
    assert stored.keys() == made.keys()
    assert all(torch.equal(stored[key], made[key]) for key in stored)


@pytest.mark.parametrize('kind', KINDS)
def test_features(kind):
    features = network(kind).encode(images(golden()['images']))
    assert error(features[:, :, ::6], golden()[f'{kind}/features']) < CLOSE


def test_ndc_of_the_tests_is_the_recorded_one():
    assert error(ndc(golden()['crops']), golden()['ndc']) < 1e-6


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('t', [0, 29, 99, 100])
def test_one_call(kind, t):
    data, model = golden(), network(kind)
    found = model.denoise(data['x'], t, context(model, data['images'], data['crops']))
    assert error(found, data[f'{kind}/t{t}']) < CLOSE


@pytest.mark.parametrize('kind', KINDS)
def test_one_call_for_a_batch_with_a_time_each(kind):
    data, model = golden(), network(kind)
    window = context(model, data['images'], data['crops'], slice(0, 2)).expand(2)
    found = model.denoise(data['diffusion/batch_xt'], data['diffusion/batch_t'], window)
    assert error(found, data[f'{kind}/batch_out']) < CLOSE


def test_tokens_after_the_blocks():
    data, model = golden(), network('diffusion')
    window = context(model, data['images'], data['crops'])
    found = {}
    hooks = [
        block.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
        for name, block in zip(('block0', 'block_last'), model.ray_predictor.blocks, strict=True)
    ]
    hooks.append(
        model.ray_predictor.t_embedder.register_forward_hook(
            lambda _, __, out: found.__setitem__('t_emb', out)
        )
    )
    hooks.append(
        model.ray_predictor.blocks[0].register_forward_pre_hook(
            lambda _, args: found.__setitem__('after_pos', args[0])
        )
    )
    model.denoise(data['x'], 29, window)
    for hook in hooks:
        hook.remove()
    for name in ('after_pos', 'block0', 'block_last'):
        assert error(found[name][..., ::12], data[f'diffusion/{name}']) < CLOSE, name
    assert error(found['t_emb'], data['diffusion/t_emb']) < CLOSE


def test_schedule_and_position_tables():
    data, schedule = golden(), network('diffusion').noise_scheduler
    for name in ('betas', 'alphas', 'alphas_cumprod'):
        assert torch.equal(getattr(schedule, name), data[f'schedule/{name}'])
    tables = PositionTables(8, 256, 96)
    assert torch.equal(tables.image_pos_table[:, ::3], data['schedule/image_pos_table'])
    assert torch.equal(tables.token_pos_table[:, ::3], data['schedule/token_pos_table'])
    names = ('x0', 'eps', 't', 'xt')
    x0, eps, t, xt = (data[f'diffusion/batch_{name}'] for name in names)
    assert error(schedule.add_noise(x0, eps, t), xt) < 1e-6


def test_all_hundred_steps():
    data, model = golden(), network('diffusion')
    window = context(model, data['images'], data['crops'])
    seen = []
    plan = official_plan(model.noise_scheduler, readout=0)
    found = sample(model, window, plan, x_init=data['zero/x_T'], callback=seen.append)
    assert len(seen) == 100
    for index, step in enumerate(data['zero/steps'].tolist()):
        assert error(seen[step].prediction, data['zero/preds'][index]) < CLOSE
        assert error(seen[step].before, data['zero/x_ts'][index]) < CLOSE
    assert error(found.after, data['zero/x_final']) < CLOSE
    assert error(found.before, data['zero/x_ts_m2']) < CLOSE


@pytest.mark.parametrize('name', ['sqrt', 'sqrt_betatilde', 'eps'])
def test_twenty_steps_with_noise(name):
    data, model = golden(), network('diffusion', steps=20)
    plan = official_plan(
        model.noise_scheduler,
        readout=0,
        rescale_noise='square_root',
        beta_tilde=name == 'sqrt_betatilde',
        prediction='epsilon' if name == 'eps' else 'x0',
    )
    noise = data['sqrt/noise']
    seen = []
    window = context(model, data['images'], data['crops'], slice(0, 2))
    found = sample(model, window, plan, x_init=noise[0], noises=noise[1:], callback=seen.append)
    states = [seen[0].before, *(step.after for step in seen)]
    for index, step in enumerate((0, 5, 10, 15, 19)):
        assert error(seen[step].prediction, data[f'{name}/preds'][index]) < CLOSE
    for index, step in enumerate((1, 5, 10, 15, 20)):
        assert error(states[step], data[f'{name}/x_ts'][index]) < CLOSE
    assert error(found.after, data[f'{name}/x_final']) < CLOSE


def test_six_views_split_into_passes_of_four():
    data, model = golden(), network('diffusion', steps=20)
    seen = []
    found = sample(
        model,
        context(model, data['split/images_u8'], data['split/crops']),
        official_plan(model.noise_scheduler, readout=0),
        x_init=data['split/x_T'],
        max_views=4,
        permutations=data['split/perms'],
        callback=seen.append,
    )
    states = [seen[0].before, *(step.after for step in seen)]
    for index, step in enumerate((0, 10, 19)):
        assert error(seen[step].prediction, data['split/preds'][index]) < CLOSE
    for index, step in enumerate((1, 10, 20)):
        assert error(states[step], data['split/x_ts'][index]) < CLOSE
    assert error(found.after, data['split/x_final']) < CLOSE


def test_regression():
    data, model = golden(), network('regression')
    window = context(model, data['images'], data['crops'])
    found = sample(model, window, x_init=data['regression/noise'])
    assert error(found.rays, data['regression/rays']) < CLOSE
    assert regression_plan(model.noise_scheduler).steps[0].t == 100


def test_reference_loop_is_the_official_one():
    data, model = golden(), network('diffusion')
    run = reference_loop(model, images(data['images']), data['ndc'], data['zero/x_T'])
    for index, step in enumerate(data['zero/steps'].tolist()):
        assert error(run.predictions[step], data['zero/preds'][index]) < CLOSE
    assert error(run.states[-1], data['zero/x_final']) < CLOSE


def test_prepared_context_changes_nothing():
    """Embedding features and NDC once is the same sum as embedding everything at every step."""
    from ray_pose_ros.evaluation.reference_loop import reference_forward

    data, model = golden(), network('diffusion')
    features = model.encode(images(data['images']))
    plain = reference_forward(model, features, data['x'], data['ndc'], 29)
    found = model.denoise(data['x'], 29, model.condition(features, data['ndc']))
    assert error(found, plain) < 1e-6
