"""Shared by the model's tests: outputs of the official code, and the weights that gave them."""

import shutil
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import yaml

from ray_pose_ros.model import ModelConfig, RayDiffuser, load_checkpoint

DATA = Path(__file__).parent / 'data' / 'golden_model'
DIFFUSION = DATA / 'co3d_diffusion'
SALTS = {'diffusion': 1, 'regression': 2}


@lru_cache
def golden() -> dict[str, torch.Tensor]:
    """Everything recorded, as tensors."""
    with np.load(DATA / 'golden.npz') as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@lru_cache
def network(kind: str, steps: int = 100) -> RayDiffuser:
    """The small network that the recordings are of; with `steps` another schedule."""
    source = load_checkpoint(DIFFUSION, backbone_heads=4)
    settings = {'regression': kind == 'regression', 'steps': steps, 'readout': 29 * steps // 100}
    model = RayDiffuser(ModelConfig(**(source.config.to_dict() | settings))).eval()
    fill_with_keyed_weights(model, SALTS[kind])
    return model.requires_grad_(False)


def images(recorded: torch.Tensor) -> torch.Tensor:
    """Stored pictures (N, S, S, 3) as the network takes them, (1, N, 3, S, S) in [0, 1]."""
    return recorded.permute(0, 3, 1, 2)[None].float() / 255


def ndc(crops: torch.Tensor, grid: int = 16) -> torch.Tensor:
    """NDC of the patch centres (1, N, 2, h, w) for crop parameters (N, 4)."""
    centres = torch.linspace(1 - 1 / grid, -(1 - 1 / grid), grid)
    x0, y0, side = crops[:, 0], crops[:, 1], crops[:, 2]
    across = centres * side[:, None] / 2 - x0[:, None]
    down = centres * side[:, None] / 2 - y0[:, None]
    shape = (len(crops), grid, grid)
    return torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=1)[
        None
    ]


def context(model: RayDiffuser, pictures: torch.Tensor, crops: torch.Tensor, views=slice(None)):
    with torch.inference_mode():
        return model.condition(model.encode(images(pictures[views])), ndc(crops[views]))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative difference in the Euclidean norm."""
    assert found.shape == expected.shape
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def fill_with_keyed_weights(model: torch.nn.Module, salt: int) -> None:
    """Weights that depend on (salt, name, shape) only; fixed tables keep their values."""
    for key, tensor in model.state_dict().items():
        if not key.startswith('noise_scheduler.') and '.x_pos_enc.' not in key:
            tensor.copy_(keyed_weights(key, tuple(tensor.shape), salt))


def keyed_weights(key: str, shape: tuple[int, ...], salt: int) -> torch.Tensor:
    """The recipe that the recordings were made with.

    The last layer is small and biased towards +z: an unbiased random network predicts directions
    near zero, whose normalisation blows rounding errors up over a hundred steps.
    """
    bits = np.random.Philox(key=zlib.crc32(f'{salt}:{key}'.encode()))
    draw = np.random.Generator(bits).standard_normal(shape)
    spread, offset = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1), 0.0
    if key.endswith('final_layer.linear.weight'):
        spread *= 0.3
    elif key.endswith('final_layer.linear.bias'):
        spread, offset = 0.05, np.array([0.0, 0, 1, 0, 0, 0])
    elif key.endswith('.gamma'):
        spread, offset = 0.05, 0.3
    elif 'norm' in key and key.endswith('.weight'):
        spread, offset = 0.1, 1.0
    elif key.endswith(('cls_token', 'pos_embed', 'mask_token')):
        spread = 0.2
    elif key.endswith('adaLN_modulation.1.weight'):
        spread *= 0.5
    elif key.endswith('adaLN_modulation.1.bias'):
        spread = 0.3
    elif key.endswith('.bias'):
        spread = 0.05
    return torch.from_numpy((spread * draw + offset).astype(np.float32))


def write_official(directory: Path, model: RayDiffuser, like: str = 'co3d_diffusion') -> Path:
    """An official-looking checkpoint directory with the weights of `model`."""
    shutil.copytree(DATA / like / 'hydra', directory / 'hydra')
    (directory / 'checkpoints').mkdir()
    stored = {'iteration': 1, 'state_dict': model.state_dict(), 'optimizer': {}, 'wandb_id': 'x'}
    torch.save(stored, directory / 'checkpoints' / 'ckpt_00000001.pth')
    return directory


def change_setting(directory: Path, section: str, name: str, value) -> None:
    """Edit hydra/config.yaml; None removes the setting."""
    path = directory / 'hydra' / 'config.yaml'
    tree = yaml.safe_load(path.read_text())
    if value is None:
        del tree[section][name]
    else:
        tree[section][name] = value
    path.write_text(yaml.safe_dump(tree))
