"""The trainer goes on where it stopped, and refuses settings that make no sense."""

import pytest
import torch
from test_training_batches import sphere_scenes

from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.training.command import DEFAULT_CONFIG
from ray_pose_ros.training.config import TrainingConfig
from ray_pose_ros.training.trainer import Trainer

SMALL = TrainingConfig.read(DEFAULT_CONFIG).model | {'width': 32, 'depth': 2, 'matching': 8}


@pytest.fixture(scope='module')
def scenes():
    scenes = sphere_scenes(scenes=2, views=8)
    generator = torch.Generator().manual_seed(0)
    scenes.features = torch.randn(2, 8, 928, 7, 7, generator=generator).half()
    return scenes


def make(scenes, folder, steps=6):
    config = TrainingConfig(
        model=SMALL, steps=steps, warmup=2, cooldown=2, views_per_step=(6,) * 3
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
    trainer = make(scenes, tmp_path)
    trainer.train_step()
    still = [n for n, p in trainer.network.named_parameters() if p.grad is None]
    assert not still


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


def test_unknown_names_in_the_file_are_named(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('stepz: 3\n')
    with pytest.raises(ValueError, match='stepz'):
        TrainingConfig.read(path)
