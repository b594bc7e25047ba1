"""A model with more blocks and repeated matchings than the one that it goes on from."""

import re

import torch
from torch import Tensor

ADDED = re.compile(r'(?:blocks|rematchers)\.\d+\.')
OUTPUTS = ('attn.proj.', 'mlp.fc2.')  # what a block adds to its input passes through these


def grow(weights: dict[str, Tensor], larger: dict[str, Tensor]) -> dict[str, Tensor]:
    """A denoiser's weights in a larger one: its blocks and matchings come first.

    What `weights` lack is taken from `larger`, but blocks that are added change nothing: what they
    would add to the tokens is zero. Raises RuntimeError where the two differ in anything else.
    """
    grown = dict(larger)
    for name, tensor in weights.items():
        if name == 'match_bias' and name in larger:  # a row for each block over all views
            tensor = torch.cat([tensor, larger[name][len(tensor) :].to(tensor)])
        if name not in larger or larger[name].shape != tensor.shape:
            raise RuntimeError(f'weights differ: {name} is not in the other model, or not alike')
        grown[name] = tensor
    missing = [name for name in larger if name not in weights]
    unlike = [name for name in missing if not ADDED.match(name)]
    if unlike:
        raise RuntimeError(f'weights differ: {unlike} missing')
    for name in missing:
        if name.startswith('blocks.') and any(part in name for part in OUTPUTS):
            grown[name] = torch.zeros_like(larger[name])
    return grown
