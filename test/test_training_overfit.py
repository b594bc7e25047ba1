"""The chain learns: a model overfitted to eight views of one scene gives back its cameras."""

import pytest
import torch

from ray_pose_ros.geometry.similarity import relative_rotation_errors
from ray_pose_ros.model.checkpoint import default_checkpoint, load_checkpoint
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.sampler import sample
from ray_pose_ros.training.command import DEFAULT_CONFIG
from ray_pose_ros.training.config import TrainingConfig
from ray_pose_ros.training.dataset import SceneSet, render_dataset
from ray_pose_ros.training.trainer import Trainer
from ray_pose_ros.training.validation import recover

VIEWS = 8


@pytest.mark.slow
def test_overfitting_eight_views_recovers_every_rotation(tmp_path, monkeypatch):
    config = TrainingConfig(
        model=TrainingConfig.read(DEFAULT_CONFIG).model,
        steps=140,
        warmup=10,
        cooldown=80,
        ema=0.96,
        views=(VIEWS, VIEWS),
        views_per_step=(VIEWS,),
        stages=(180.0,),
        weight_decay=0.0,
        validate_every=10**9,
    )
    torch.manual_seed(0)
    model = RayDiffuser(config.model_config()).eval()
    shipped = load_checkpoint(default_checkpoint())
    model.feature_extractor.load_state_dict(shipped.feature_extractor.state_dict())
    render_dataset(tmp_path / 'data', scenes=1, first_seed=11, views=VIEWS, workers=1)
    scenes = SceneSet.load([tmp_path / 'data'], model.feature_extractor)
    trainer = Trainer(config, model, scenes, scenes, tmp_path / 'run')
    index = torch.stack(
        [torch.zeros(1, VIEWS, dtype=torch.long), torch.arange(VIEWS)[None]], dim=-1
    )
    monkeypatch.setattr(trainer.sampler, 'draw', lambda *_: index)  # the gauge stays put
    trainer.run()

    trainer.trained.load_state_dict(trainer.average)
    batch = trainer.sampler.batch(index)
    with torch.inference_mode():
        context = model.condition(batch.features, batch.directions)
        rays = sample(model, context, generator=torch.Generator().manual_seed(1)).rays
    rotation, _ = recover(rays, batch.directions)
    errors = relative_rotation_errors(rotation, batch.rotation)
    assert errors.max() < 2.0
