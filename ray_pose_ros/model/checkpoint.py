"""Reading and writing checkpoints. Nothing is downloaded, and nothing in a file is executed.

Two layouts are understood:

* the project's own: `config.json` and `model.safetensors`;
* the official release: `hydra/config.yaml` and `checkpoints/*.pth` (official_checkpoint.py).
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .checkpoint_error import CheckpointError
from .config import ModelConfig
from .official_checkpoint import load_official
from .ray_diffuser import RayDiffuser
from .weights import ANALYTIC, build, fill

FORMAT_VERSION = 1
CONFIG, WEIGHTS = 'config.json', 'model.safetensors'


def default_checkpoint() -> Path:
    """Directory of the weights that the package ships."""
    return Path(__file__).resolve().parent.parent / 'weights' / 'default'


def load_checkpoint(
    path: str | os.PathLike,
    device: str | torch.device = 'cpu',
    *,
    backbone_heads: int | None = None,
    max_views: int | None = None,
) -> RayDiffuser:
    """A network in evaluation mode, float32, on `device`.

    Args:
        path: checkpoint directory, in either layout.
        device: where the network is put.
        backbone_heads: attention heads of the image backbone, which an official checkpoint does
            not tell. By default width / 64, as in all DINOv2 models: 6 for ViT-S.
        max_views: room for another number of views than the checkpoint was trained with, for
            official checkpoints. The codes of the places are analytic, so they can be extended.

    Raises:
        CheckpointError: (a ValueError) for everything that is wrong with the directory.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if not path.is_dir():
        raise CheckpointError(f'checkpoint {path} is a file, expected a directory ({_layouts()})')
    if (path / CONFIG).exists() or (path / WEIGHTS).exists():
        if backbone_heads is not None or max_views is not None:
            raise CheckpointError(
                f'{path} says its backbone_heads and max_views in {CONFIG}: '
                'they can only be given for official checkpoints'
            )
        model = _load_own(path)
    elif (path / 'hydra').is_dir() or (path / 'checkpoints').is_dir():
        model = load_official(path, backbone_heads, max_views)
    else:
        found = sorted(entry.name for entry in path.iterdir())
        listing = ', '.join(found[:8]) + (', ...' if len(found) > 8 else '')
        raise CheckpointError(
            f'{path} is not a checkpoint directory: expected {_layouts()}, '
            f'found {listing or "an empty directory"}'
        )
    return model.to(device).eval().requires_grad_(False)


def save_checkpoint(
    model: RayDiffuser,
    path: str | os.PathLike,
    half: bool = True,
    notes: dict[str, Any] | None = None,
) -> None:
    """Write `model` in the project's own layout.

    Args:
        model: the network.
        path: directory, created if need be; files of the same names are replaced whole.
        half: store matrices in half precision. Vectors (norms, biases, statistics) take no room
            and stay in single precision. Fixed tables are left out: they are computed.
        notes: anything worth keeping with the weights, as JSON (data, licence, metrics).
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for key, tensor in model.state_dict().items():
        if not key.startswith(ANALYTIC):
            kind = torch.float16 if half and tensor.dim() > 1 else torch.float32
            tensors[key] = tensor.detach().to('cpu', kind).contiguous()
    overflow = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if overflow:
        raise ValueError(f'{overflow[0]} is not finite as {tensors[overflow[0]].dtype}')
    # A reader must never see half a file: write beside it, then rename.
    partial = path / (WEIGHTS + '.partial')
    save_file(tensors, partial)
    partial.chmod(0o644)  # safetensors makes it readable by its owner only
    settings = {
        'format_version': FORMAT_VERSION,
        'model': model.config.to_dict(),
        'sha256': sha256(partial),
        'notes': notes or {},
    }
    partial_config = path / (CONFIG + '.partial')
    partial_config.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8')
    partial.replace(path / WEIGHTS)
    partial_config.replace(path / CONFIG)


def change_settings(path: str | os.PathLike, changes: dict[str, Any]) -> None:
    """Change fields of the `ModelConfig` of a checkpoint in the project's own layout.

    Raises:
        CheckpointError: no such checkpoint. ValueError: the new settings make no sense.
    """
    path = Path(path)
    settings = _settings(path / CONFIG)
    if not isinstance(settings.get('model'), dict):
        raise CheckpointError(f"{path / CONFIG} lacks the mapping 'model'")
    config = ModelConfig.from_dict(settings['model'] | changes)
    settings['model'] = config.to_dict()
    partial = path / (CONFIG + '.partial')
    partial.write_text(json.dumps(settings, indent=2) + '\n', encoding='utf-8')
    partial.replace(path / CONFIG)


def read_notes(path: str | os.PathLike) -> dict[str, Any]:
    """The notes that were saved with a checkpoint in the project's own layout."""
    return _settings(Path(path) / CONFIG).get('notes', {})


def _load_own(path: Path) -> RayDiffuser:
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise CheckpointError(f'{path} lacks {name}')
    settings = _settings(path / CONFIG)
    version = settings.get('format_version')
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f'{path / CONFIG} has format_version {version!r}, expected {FORMAT_VERSION}'
        )
    if not isinstance(settings.get('model'), dict):
        raise CheckpointError(f"{path / CONFIG} lacks the mapping 'model'")
    expected = settings.get('sha256')
    if expected is not None and expected != sha256(path / WEIGHTS):
        raise CheckpointError(
            f'{path / WEIGHTS} is damaged or was replaced: its sha256 is not that of {CONFIG}'
        )
    try:
        config = ModelConfig.from_dict(settings['model'])
        model = build(config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f'{path / CONFIG} has an unsupported setting: {error}') from error
    try:
        tensors = load_file(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path / WEIGHTS} cannot be read: {error}') from error
    fill(model, tensors, path / WEIGHTS, optional=ANALYTIC)
    return model


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read as JSON: {error}') from error
    if not isinstance(settings, dict):
        raise CheckpointError(f'{path} holds a {type(settings).__name__}, expected a mapping')
    return settings


def sha256(path: Path) -> str:
    """Hexadecimal sum of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _layouts() -> str:
    return f'{CONFIG} and {WEIGHTS}, or hydra/config.yaml and checkpoints/*.pth'
