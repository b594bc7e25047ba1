"""Checkpoints of the official release (github.com/jasonyzhang/RayDiffusion).

`hydra/config.yaml` says less than one needs: hidden size, heads and MLP ratio are constants of
the official code, and the image backbone comes from elsewhere. Sizes are therefore read from the
tensors. The backbone's weights are inside the checkpoint, so that no network access is needed.
"""

import logging
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from .checkpoint_error import CheckpointError
from .config import ModelConfig
from .ray_diffuser import PATCH, RayDiffuser
from .weights import build, fill

HEADS = 16  # of the denoiser, in every official model
PRETRAIN_GRID = 37  # of the position embedding of DINOv2
UNKNOWN_BACKBONE_HEADS = 4

_DENOISER = 'ray_predictor'
_BACKBONE = 'feature_extractor.model'
_VIEW_TABLE = f'{_DENOISER}.x_pos_enc.image_pos_table'

_log = logging.getLogger(__name__)


def load_official(path: Path, backbone_heads: int | None, max_views: int | None) -> RayDiffuser:
    """The network in directory `path`; see `checkpoint.load_checkpoint`."""
    settings = _read_settings(path / 'hydra' / 'config.yaml')
    files = sorted((path / 'checkpoints').glob('*.pth'))
    if not files:
        raise CheckpointError(f'{path} has no checkpoints/*.pth')
    source = files[-1]  # names count iterations with leading zeros
    tensors = _read_tensors(source)
    config = _configuration(settings, tensors, source, backbone_heads)
    if max_views is not None and max_views != config.max_views:
        config = ModelConfig.from_dict({**config.to_dict(), 'max_views': max_views})
        tensors.pop(_VIEW_TABLE, None)
    try:
        model = build(config)
    except ValueError as error:
        raise CheckpointError(f'{path}: {error}') from error
    replaced = (_VIEW_TABLE,) if max_views is not None else ()
    fill(model, tensors, source, optional=replaced)
    return model


def _read_settings(path: Path) -> dict[str, Any]:
    """Settings as {'section.name': value}."""
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise CheckpointError(f'{path} does not exist') from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f'{path} cannot be read as YAML: {error}') from error
    if not isinstance(tree, dict):
        raise CheckpointError(f'{path} is not a mapping of settings')
    return {
        f'{section}.{name}': value
        for section, values in tree.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        # Mapping the file skips what is not used, such as an optimiser's state.
        stored = torch.load(
            path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        named = re.search(r'GLOBAL (\S+)', str(error))
        if named:
            raise CheckpointError(
                f'{path} is refused: it asks for the Python object {named[1]}, '
                'and a checkpoint may hold tensors and plain values only'
            ) from error
        raise CheckpointError(f'{path} is damaged or not a PyTorch file') from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f'{path} is damaged or not a PyTorch file: {reason}') from error
    tensors = stored.get('state_dict') if isinstance(stored, dict) else None
    if not isinstance(tensors, dict):
        found = sorted(map(str, stored)) if isinstance(stored, dict) else type(stored).__name__
        raise CheckpointError(f"{path} has no mapping 'state_dict', found {found}")
    return dict(tensors)


def _configuration(
    settings: dict[str, Any], tensors: dict[str, Tensor], source: Path, heads: int | None
) -> ModelConfig:
    _check_supported(settings)
    embedder = _shape(tensors, f'{_DENOISER}.x_embedder.proj.weight', 4, source)
    hidden = _shape(tensors, f'{_DENOISER}.blocks.0.mlp.fc1.weight', 2, source)
    positions = _shape(tensors, f'{_BACKBONE}.pos_embed', 3, source)
    width, backbone_width = embedder[0], positions[2]
    if positions[1] != 1 + PRETRAIN_GRID**2:
        raise CheckpointError(
            f'{source}: the backbone has {positions[1]} positions, '
            f'expected {1 + PRETRAIN_GRID**2} as in DINOv2'
        )
    depth = _blocks(tensors, _DENOISER)
    if settings.get('model.depth', depth) != depth:
        raise CheckpointError(
            f'{source} has {depth} blocks, but hydra/config.yaml says model.depth '
            f'{settings["model.depth"]}'
        )
    steps = _need(settings, 'noise_scheduler.max_timesteps', int)
    grid = _need(settings, 'model.num_patches_x', int)
    predicts_rays = _need(settings, 'model.pred_x0', bool)
    try:
        return ModelConfig(
            backbone='dinov2',
            backbone_width=backbone_width,
            backbone_depth=_blocks(tensors, _BACKBONE),
            backbone_heads=_backbone_heads(backbone_width) if heads is None else heads,
            image_size=PATCH * grid,
            grid=grid,
            width=width,
            depth=depth,
            heads=HEADS,
            mlp_ratio=hidden[0] / width,
            max_views=_need(settings, 'model.num_images', int),
            geometry='ndc',
            prediction='x0' if predicts_rays else 'epsilon',
            regression=bool(settings.get('training.regression', False)),
            steps=steps,
            beta_start=float(_need(settings, 'noise_scheduler.beta_start', (int, float))),
            beta_end=float(_need(settings, 'noise_scheduler.beta_end', (int, float))),
            # The published numbers read the rays at index 70 of 100; a noise only at the end.
            readout=steps - 1 - 7 * steps // 10 if predicts_rays else 0,
        )
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{source}: {error}') from error


def _check_supported(settings: dict[str, Any]) -> None:
    supported = {
        'model.model_type': 'dit',
        'model.feature_extractor': 'dino',
        'model.append_ndc': True,
        'noise_scheduler.type': 'linear',
        # Another gauge: the origin is camera 1 instead of the point that the cameras look at.
        'training.normalize_first_camera': False,
    }
    for name, value in supported.items():
        if settings.get(name, value) != value:
            raise CheckpointError(
                f'hydra/config.yaml has {name} {settings[name]!r}, only {value!r} is supported'
            )
    across, down = settings.get('model.num_patches_x'), settings.get('model.num_patches_y')
    if down is not None and down != across:
        raise CheckpointError(
            f'hydra/config.yaml has {across}x{down} patches, only squares are supported'
        )


def _need(settings: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    if name not in settings:
        raise CheckpointError(f'hydra/config.yaml lacks {name}')
    value = settings[name]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise CheckpointError(f'hydra/config.yaml has {name} {value!r}, expected a number or bool')
    return value


def _shape(tensors: dict[str, Tensor], key: str, dims: int, source: Path) -> tuple[int, ...]:
    tensor = tensors.get(key)
    if not isinstance(tensor, Tensor) or tensor.dim() != dims:
        found = f'{len(tensors)} others' if tensors else 'nothing'
        raise CheckpointError(f'{source} is of another network: no tensor {key} among {found}')
    return tuple(tensor.shape)


def _blocks(tensors: dict[str, Tensor], part: str) -> int:
    matches = (re.match(rf'{re.escape(part)}\.blocks\.(\d+)\.', key) for key in tensors)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def _backbone_heads(width: int) -> int:
    """Heads of 64 channels, as in every released DINOv2 (384, 768, 1024, 1536 wide).

    Other widths only occur in toy networks, and their heads cannot be told from the tensors.
    """
    if width % 64 == 0:
        return width // 64
    heads = math.gcd(width, UNKNOWN_BACKBONE_HEADS)
    _log.warning(
        'a DINOv2 backbone %d wide is none of the released ones: %d heads assumed, '
        'give backbone_heads if that is wrong',
        width,
        heads,
    )
    return heads
