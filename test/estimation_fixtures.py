"""Photographs, a checkpoint and the command line, for the tests of `ray-pose estimate`."""

import json

import numpy as np
import pytest
import torch
from estimation_fakes import orbit
from PIL import Image

from ray_pose_ros import cli
from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser

SIZES = [(80, 60), (60, 80), (64, 64)]  # (width, height)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The project's own layout, as small as it gets, untrained."""
    torch.manual_seed(0)
    config = ModelConfig(
        backbone_width=24, backbone_depth=1, backbone_heads=2, image_size=56, grid=4, width=48,
        depth=1, heads=4, geometry='directions', view_code='reference', residual=True,
        anchor_reference=True, sample_steps=2, readout=0,
    )  # fmt: skip
    model = RayDiffuser(config)
    torch.nn.init.normal_(model.ray_predictor.final_layer.linear.weight, std=0.05)
    folder = tmp_path_factory.mktemp('checkpoint')
    save_checkpoint(model, folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Three photographs of different sizes with poses.json (truth and a box) and masks."""
    folder = tmp_path / 'photos'
    (folder / 'images').mkdir(parents=True)
    (folder / 'masks').mkdir()
    rng = np.random.default_rng(0)
    R, t = orbit(3)
    frames = []
    for i, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((width, height))
        image.save(folder / 'images' / f'{i}.jpg')
        mask = np.zeros((height, width), np.uint8)
        mask[10:40, 15:50] = 255
        Image.fromarray(mask).save(folder / 'masks' / f'{i}.png')
        K = [[70.0 + i, 0, width / 2], [0, 70.0, height / 2], [0, 0, 1]]
        frame = {'file': f'images/{i}.jpg', 'width': width, 'height': height, 'K': K}
        frames.append(frame | {'R': R[i].tolist(), 't': t[i].tolist()})
    frames[1]['bbox_xyxy'] = [5, 10, 55, 70]
    (folder / 'poses.json').write_text(json.dumps({'frames': frames}))
    (folder / 'boxes.json').write_text(json.dumps([[5, 5, 50 + i, 50] for i in range(3)]))
    return folder


def estimate(*arguments):
    """Run `ray-pose estimate`; its exit code."""
    return cli.main(['estimate', *map(str, arguments)])
