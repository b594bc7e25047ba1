"""Filling a network with tensors from a file, strictly."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .checkpoint_error import CheckpointError
from .config import ModelConfig
from .ray_diffuser import RayDiffuser

# Fixed tensors, computed from the configuration and not learned.
ANALYTIC = ('noise_scheduler.', 'ray_predictor.x_pos_enc.')


def build(config: ModelConfig) -> RayDiffuser:
    """A network whose parameters still hold rubbish, to be filled at once.

    Random initialisation of the official network takes seconds, and every number is replaced.
    """
    with _NoInitialisation():
        return RayDiffuser(config)


def fill(
    model: RayDiffuser, tensors: dict[str, Tensor], source: Path, optional: tuple[str, ...] = ()
) -> None:
    """Copy `tensors` into `model`.

    Args:
        model: changed in place.
        tensors: must have the model's names and shapes, any floating type, finite. Fixed tensors
            must be what the configuration says; rounded ones are left as computed.
        source: named in errors.
        optional: prefixes of names that may be missing.

    Raises:
        CheckpointError: naming the first tensors that do not fit.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in tensors and not key.startswith(optional or '\0')]
    unexpected = [key for key in tensors if key not in own]
    if missing or unexpected:
        raise CheckpointError(
            f'{source} is of another network: '
            + ' and '.join(
                f'{len(keys)} {what} ({_first(keys)})'
                for keys, what in ((missing, 'missing'), (unexpected, 'unexpected'))
                if keys
            )
        )
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(f'{source}: {key} is {kind}, expected floating point numbers')
        if tensor.shape != own[key].shape:
            raise CheckpointError(
                f'{source}: {key} has shape {tuple(tensor.shape)}, '
                f'expected {tuple(own[key].shape)}'
            )
        if not tensor.isfinite().all():
            raise CheckpointError(f'{source}: {key} holds numbers that are not finite')
        if key.startswith(ANALYTIC):
            _check_analytic(key, tensor, own[key], source)
    exact = {
        key: tensor
        for key, tensor in tensors.items()
        if tensor.dtype == torch.float32 or not key.startswith(ANALYTIC)
    }
    model.load_state_dict(exact, strict=False)


def _check_analytic(key: str, found: Tensor, expected: Tensor, source: Path) -> None:
    slack = 2 * torch.finfo(found.dtype).eps
    if not torch.allclose(found.double(), expected.double(), rtol=slack + 1e-4, atol=slack + 1e-5):
        raise CheckpointError(
            f'{source}: {key} is not what the configuration says '
            f'(largest difference {float((found - expected).abs().max()):.2g})'
        )


def _first(keys: list[str], count: int = 3) -> str:
    return ', '.join(keys[:count]) + (', ...' if len(keys) > count else '')


class _NoInitialisation(TorchFunctionMode):
    """Turns the functions of `torch.nn.init` into no-operations."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return function(*args, **kwargs)
