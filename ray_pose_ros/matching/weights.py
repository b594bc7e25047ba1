"""Weights of learned matchers, out of packages that carry them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .matchers import MatcherUnavailable

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_weights(package: str, file: str, command: str) -> dict[str, Tensor]:
    """The tensors in a file of an installed package, which is not imported.

    Only its file is needed, and importing it would need more packages than the file does.
    Raises MatcherUnavailable, with the `command` that installs it, where it is missing.
    """
    import torch

    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders))) / file if folders else None
    if path is None:
        raise MatcherUnavailable(f'the package {package} is not installed: {command}')
    if not path.is_file():
        raise MatcherUnavailable(f'the installed {package} lacks {file}: {command}')
    return torch.load(path, map_location='cpu', weights_only=True)


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Fill the network and freeze it. Raises MatcherUnavailable where the names do not fit."""
    missing = [name for name in network.state_dict() if name not in weights]
    if missing:
        raise MatcherUnavailable(
            f'{source} has other parameters than expected: {missing[0]} is missing; '
            'another version of the package may have it'
        )
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    network.eval().requires_grad_(False)
