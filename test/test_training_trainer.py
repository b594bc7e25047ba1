"""The trainer goes on where it stopped, and refuses settings that make no sense."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training_batches import sphere_scenes

from ray_pose_ros.cli import main
from ray_pose_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.training.command import DEFAULT_CONFIG, blend
from ray_pose_ros.training.config import TrainingConfig
from ray_pose_ros.training.dataset import SceneSet
from ray_pose_ros.training.stores import ViewStore
from ray_pose_ros.training.trainer import Trainer
from ray_pose_ros.training.validation import validate

SMALL = TrainingConfig.read(DEFAULT_CONFIG).model | {'width': 32, 'depth': 2, 'matching': 8}


@pytest.fixture(scope='module')
def scenes():
    scenes = sphere_scenes(scenes=2, views=8)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 928, 7, 7, generator=generator).half()
    scenes.features = ViewStore([features.numpy()])
    return scenes


def make(scenes, folder, steps=6, **settings):
    config = TrainingConfig(
        model=SMALL | settings.pop('model', {}),
        steps=steps,
        warmup=2,
        cooldown=2,
        views_per_step=(6,) * 3,
        **settings,
    )
    torch.manual_seed(config.seed)
    return Trainer(config, RayDiffuser(config.model_config()), scenes, scenes, folder)


def test_a_resumed_run_is_the_run_that_was_not_stopped(scenes, tmp_path):
    whole = make(scenes, tmp_path / 'whole')
    whole.run()
    stopped = make(scenes, tmp_path / 'stopped')
    for _ in range(3):
        stopped.train_step()
    stopped.save()
    resumed = make(scenes, tmp_path / 'stopped')
    assert resumed.resume() and resumed.step == 3
    resumed.run()
    assert resumed.sets == whole.sets
    for name, value in whole.average.items():
        torch.testing.assert_close(resumed.average[name], value, atol=1e-6, rtol=1e-5)


def test_every_trained_part_gets_a_gradient(scenes, tmp_path):
    trainer = make(scenes, tmp_path, model={'depth': 4, 'rematch': 1})
    for _ in range(2):  # what begins at zero passes nothing on in the first step
        losses = trainer.train_step()
    assert {'rematch1', 'seen1', 'depth1'} <= set(losses)
    still = [n for n, p in trainer.trained.named_parameters() if p.grad is None]
    assert not still


def test_the_backbone_is_trained_on_images_and_resumed(scenes, tmp_path):
    images = torch.randint(0, 256, (2, 8, 224, 224, 3), dtype=torch.uint8)
    shown = SceneSet(scenes.columns, images=ViewStore([images.numpy()]))
    trainer = make(shown, tmp_path, backbone_rate=0.1, views=(2, 2))
    before = trainer.model.feature_extractor.stem.weight.clone()
    trainer.train_step()
    trainer.train_step()
    after = trainer.model.feature_extractor.stem.weight
    assert (after - before).abs().max() > 0
    trainer.save()
    resumed = make(shown, tmp_path, backbone_rate=0.1, views=(2, 2))
    assert resumed.resume()
    torch.testing.assert_close(resumed.model.feature_extractor.stem.weight, after)
    assert 'all8' in validate(trainer.model, trainer.held_out, sets=8)


def test_a_frozen_backbone_stays_as_it_is(scenes, tmp_path):
    trainer = make(scenes, tmp_path)
    before = trainer.model.feature_extractor.stem.weight.clone()
    trainer.train_step()
    assert torch.equal(trainer.model.feature_extractor.stem.weight, before)


def test_training_may_start_from_weights_without_repeated_matching(scenes, tmp_path):
    weights = make(scenes, tmp_path, model={'depth': 4}).network.state_dict()
    trainer = make(scenes, tmp_path, model={'depth': 4, 'rematch': 1})
    trainer.start_from(weights)
    torch.testing.assert_close(
        trainer.average['0.matcher.pool.weight'], weights['matcher.pool.weight']
    )
    with pytest.raises(RuntimeError, match='missing'):
        trainer.start_from({})


def test_blocks_that_are_added_change_nothing_at_first(scenes, tmp_path):
    before = make(scenes, tmp_path / 'a', model={'depth': 4, 'rematch': 1})
    after = make(scenes, tmp_path / 'b', model={'depth': 6, 'rematch': 2})
    after.start_from(before.network.state_dict())
    batch = before.sampler.batch(
        before.sampler.draw(2, 3, 180.0, torch.Generator().manual_seed(0))
    )
    said = [t.losses(batch, torch.Generator().manual_seed(1)) for t in (before, after)]
    for name in ('rays', 'rotation', 'centre', 'points', 'match', 'rematch1'):
        torch.testing.assert_close(said[0][name], said[1][name])
    torch.testing.assert_close(said[1]['rematch2'], said[0]['rematch1'])
    after.train_step()
    assert after.network.blocks[5].mlp.fc2.weight.abs().max() > 0
    with pytest.raises(RuntimeError, match='weights differ'):
        before.start_from(after.network.state_dict())


def test_stores_on_a_device_and_on_disk_say_the_same():
    generator = np.random.default_rng(0)
    shards = [
        generator.random((3, 4, 2, 5, 5), np.float32),
        generator.random((2, 7, 2, 5, 5), np.float32),
    ]
    scene, view = torch.tensor([[0, 4], [2, 3]]), torch.tensor([[3, 6], [0, 1]])
    kept = ViewStore(shards)
    expected = np.stack([shards[0][0, 3], shards[1][1, 6], shards[0][2, 0], shards[1][0, 1]])
    for store in (kept, kept.to(torch.device('cpu'))):
        found = store[scene, view]
        assert found.shape == (2, 2, 2, 5, 5)
        np.testing.assert_array_equal(found.flatten(0, 1).numpy(), expected)


def test_the_course_of_a_run_is_drawn(scenes, tmp_path):
    trainer = make(scenes, tmp_path, validate_every=3)
    trainer.run()
    assert (tmp_path / 'curves.png').stat().st_size > 10_000


def test_learning_rate_rises_holds_and_falls():
    config = TrainingConfig(model=SMALL, steps=100, warmup=10, cooldown=20, learning_rate=1.0)
    assert config.learning_rate_at(0) == pytest.approx(0.1)
    assert config.learning_rate_at(50) == 1.0
    assert config.learning_rate_at(90) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'views': (5, 2)}, 'views is'),
        ({'views_per_step': (16,)}, 'views_per_step has 1 entries'),
        ({'steps': 10}, 'exceed the 10 steps'),
        ({'model': {'width': 'wide', 'depht': 3}}, 'depht'),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('render {} --scenes 0', '--scenes is 0, expected 1 or more'),
        ('render {} --views 0', '--views is 0, expected 1 or more'),
        ('render {} --workers 0', '--workers is 0, expected 1 or more'),
        ('render {} --first-seed -1', '--first-seed is -1, expected 0 to 2^62'),
        (f'captures {{}} x --first-seed {2**63}', f'--first-seed is {2**63}, expected 0 to 2^62'),
        (f'upright x --into {{}} --data x --seed {2**70}', f'--seed is {2**70}, expected'),
        (f'locate x --into {{}} --data x --seed {2**70}', f'--seed is {2**70}, expected'),
        ('render {} --photographed 3', '--photographed is 3.0, expected 0 to 1'),
        ('render {} --whole nan', '--whole is nan, expected 0 to 1'),
        ('captures {} x --views 0', '--views is 0, expected 1 or more'),
        ('captures {} x --mirrored 2', '--mirrored is 2.0, expected 0 to 1'),
        ('run --data x --held-out x --into {} --threads 0', '--threads is 0, expected 1 or more'),
        ('run --data x --held-out x --into {} --hours nan', '--hours is nan, expected 0 or more'),
        ('run --data x --held-out x --into {} --device mps', "device is 'mps', expected"),
    ],
)
def test_bad_options_are_one_line(arguments, message, tmp_path, capsys):
    assert main(['train', *arguments.format(tmp_path / 'out').split()]) == 2
    assert capsys.readouterr().err.startswith(f'ray-pose: error: {message}')
    assert not (tmp_path / 'out').exists()


def test_unknown_names_in_the_file_are_named(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('stepz: 3\n')
    with pytest.raises(ValueError, match='stepz'):
        TrainingConfig.read(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('learning_rate: 1e-3', "learning_rate is '1e-3', expected a number .* write 1.0e-3"),
        (f'seed: {2**70}', f'seed is {2**70}, expected a whole number'),
        ('steps: many', "steps is 'many', expected a whole number of 0 or more$"),
        ('clip: .nan', 'clip is nan, expected a number'),
        ('views: 3', 'views is 3, expected a list of whole numbers'),
        ('stages: [60, x]', r"stages is \(60, 'x'\), expected a list of numbers"),
        ('validate_every: 0', 'validate_every is 0, expected 1 or more'),
        ('weights: {ray: 1}', "weights has 'ray', expected among"),
        ('weights: {rays: x}', "weights: rays is 'x', expected a number"),
        ('model: 4', 'model is 4, expected settings by name'),
        ('model: {depth: x}', 'run.yaml: .*str'),
        ('- steps', 'run.yaml: expected settings by name'),
        ('a: [', 'run.yaml: not YAML'),
    ],
)
def test_values_of_the_file_that_make_no_sense_are_named(text, message, tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        TrainingConfig.read(path)


def test_a_file_says_what_differs_from_its_base(tmp_path):
    (tmp_path / 'base.yaml').write_text(
        'model: {width: 64, heads: 2}\nsteps: 9000\nviews: [2, 3]\n'
    )
    path = tmp_path / 'run.yaml'
    path.write_text('based_on: base.yaml\nmodel: {heads: 4}\nviews: [2, 4]\n')
    config = TrainingConfig.read(path)
    assert config.model == {'width': 64, 'heads': 4}
    assert config.steps == 9000 and config.views == (2, 4)
    (tmp_path / 'base.yaml').write_text('based_on: run.yaml\n')
    with pytest.raises(ValueError, match='based on itself'):
        TrainingConfig.read(path)


@pytest.mark.parametrize(
    'path', sorted(DEFAULT_CONFIG.parent.glob('*.yaml')), ids=lambda p: p.stem
)
def test_every_configuration_that_ships_can_be_read(path):
    config = TrainingConfig.read(path)
    assert set(config.weights) <= set(TrainingConfig(model=SMALL).weights)
    with torch.device('meta'):
        RayDiffuser(config.model_config())


def test_weights_are_blended(tmp_path):
    models = []
    for seed in range(2):
        torch.manual_seed(seed)
        model = RayDiffuser(TrainingConfig.read(DEFAULT_CONFIG).model_config())
        models.append(model)
        if seed:
            model.feature_extractor.load_state_dict(models[0].feature_extractor.state_dict())
        for tensor in model.ray_predictor.parameters():
            torch.nn.init.normal_(tensor, std=0.1)
        save_checkpoint(model, tmp_path / str(seed), half=False)
    blend(tmp_path / '0', tmp_path / '1', 0.25, tmp_path / 'both')
    found = load_checkpoint(tmp_path / 'both')
    a, b, c = (dict(m.ray_predictor.named_parameters()) for m in (*models, found))
    assert any((a[name] - b[name]).abs().max() > 0.1 for name in a)
    for name in a:
        torch.testing.assert_close(c[name], 0.75 * a[name] + 0.25 * b[name], atol=1e-3, rtol=1e-3)


def test_a_blend_keeps_the_heads_of_the_first(tmp_path):
    config = replace(
        TrainingConfig.read(DEFAULT_CONFIG).model_config(), rematch=1, upright=8, locate=8
    )
    torch.manual_seed(0)
    first = RayDiffuser(replace(config, second_look=30))
    second = RayDiffuser(replace(config, upright=0, locate=0))  # as `run` writes it
    second.feature_extractor.load_state_dict(first.feature_extractor.state_dict())
    save_checkpoint(first, tmp_path / 'first', half=False)
    save_checkpoint(second, tmp_path / 'second', half=False)
    blend(tmp_path / 'first', tmp_path / 'second', 0.5, tmp_path / 'both')
    found = load_checkpoint(tmp_path / 'both')
    assert found.config == first.config
    weights = first.state_dict()
    for name, tensor in found.state_dict().items():
        if not name.startswith('ray_predictor.'):
            torch.testing.assert_close(tensor, weights[name], atol=1e-3, rtol=1e-3)


def test_a_model_is_blended_with_what_was_grown_from_it(tmp_path):
    config = TrainingConfig.read(DEFAULT_CONFIG).model_config()
    small = RayDiffuser(replace(config, depth=2, rematch=0))
    large = RayDiffuser(replace(config, depth=4, rematch=1))
    large.feature_extractor.load_state_dict(small.feature_extractor.state_dict())
    for tensor in (*small.ray_predictor.parameters(), *large.ray_predictor.parameters()):
        torch.nn.init.normal_(tensor, std=0.1)
    save_checkpoint(small, tmp_path / 'small', half=False)
    save_checkpoint(large, tmp_path / 'large', half=False)
    blend(tmp_path / 'small', tmp_path / 'large', 0.25, tmp_path / 'both')
    found = load_checkpoint(tmp_path / 'both')
    assert (found.config.depth, found.config.rematch) == (4, 1)
    a, b, c = (dict(m.ray_predictor.named_parameters()) for m in (small, large, found))
    shares = {
        'blocks.1.attn.qkv.weight': 0.75 * a['blocks.1.attn.qkv.weight']
        + 0.25 * b['blocks.1.attn.qkv.weight'],
        'blocks.3.attn.qkv.weight': b['blocks.3.attn.qkv.weight'],
        'blocks.3.mlp.fc2.weight': 0.25 * b['blocks.3.mlp.fc2.weight'],
        'rematchers.0.correct.weight': b['rematchers.0.correct.weight'],
    }
    for name, expected in shares.items():
        torch.testing.assert_close(c[name], expected, atol=1e-3, rtol=1e-3)


def test_only_models_of_a_kind_are_blended(tmp_path):
    config = TrainingConfig.read(DEFAULT_CONFIG)
    for name, changes in (('a', {}), ('b', {'depth': 2}), ('c', {})):
        torch.manual_seed(len(changes))
        model = RayDiffuser(replace(config.model_config(), **changes))
        if name == 'c':
            torch.nn.init.normal_(next(model.feature_extractor.parameters()))
        save_checkpoint(model, tmp_path / name)
    with pytest.raises(ValueError, match='share is 2'):
        blend(tmp_path / 'a', tmp_path / 'a', 2, tmp_path / 'out')
    with pytest.raises(ValueError, match='different configurations'):
        blend(tmp_path / 'a', tmp_path / 'b', 0.5, tmp_path / 'out')  # shallower than the first
    with pytest.raises(ValueError, match='different backbones'):
        blend(tmp_path / 'a', tmp_path / 'c', 0.5, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
