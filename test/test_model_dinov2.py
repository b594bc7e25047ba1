"""The image backbone's own rules."""

import pytest
import torch
from torch.nn import functional

from ray_pose_ros.model import ModelConfig, RayDiffuser
from ray_pose_ros.model.dinov2 import DinoV2


def small(**settings) -> DinoV2:
    torch.manual_seed(0)
    model = DinoV2(width=12, depth=1, heads=2, **settings)
    torch.nn.init.normal_(model.pos_embed)
    return model.requires_grad_(False)


@pytest.mark.parametrize('grid', [1, 2, 16, 17, 36, 37, 40])
def test_any_multiple_of_the_patch_works(grid):
    assert small()(torch.rand(1, 3, 14 * grid, 14 * grid)).shape == (1, 12, grid, grid)


def test_position_embedding_is_resampled_by_the_original_scale_factor():
    """Sample positions follow the factor (grid + 0.1) / 37, not the sizes' ratio 16 / 37."""
    model = small()
    ramp = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1).expand(1, -1, 12)
    model.pos_embed[:, 1:] = ramp
    row = model.position_embedding(16)[0, 1:, 0].view(16, 16)[8]
    expected = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    assert torch.allclose(row[1:-1], expected[1:-1], atol=0.05)
    exact = functional.interpolate(ramp[..., :1].view(1, 1, 37, 37), (16, 16), mode='bicubic')
    assert float((row[-2] - exact[0, 0, 8, -2]).abs()) > 0.1


def test_pretraining_size_is_not_resampled():
    model = small()
    assert model.position_embedding(37) is model.pos_embed


def test_the_class_token_keeps_its_position():
    model = small()
    assert torch.equal(model.position_embedding(16)[:, 0], model.pos_embed[:, 0])


@pytest.mark.parametrize('size', [(15, 15), (28, 42)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f'{size[0]}x{size[1]} px'):
        small()(torch.rand(1, 3, *size))


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match='not a multiple of its heads 5'):
        DinoV2(width=12, heads=5)
    with pytest.raises(ValueError, match='image_size is 200, expected 14 times the grid 16'):
        RayDiffuser(ModelConfig(image_size=200))
