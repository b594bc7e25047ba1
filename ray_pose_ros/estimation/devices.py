"""Devices that networks run on, and the precision of their arithmetic."""

from __future__ import annotations

import torch

PRECISIONS = {
    'float32': torch.float32,
    'float16': torch.float16,
    'bfloat16': torch.bfloat16,
}


def usable_device(device: str | torch.device) -> torch.device:
    """The device, checked to exist (ValueError); 'auto' is a CUDA GPU or else the CPU."""
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    expected = f'device is {str(device)!r}, expected auto, cpu, cuda or cuda:N'
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(expected) from error
    if device.type not in ('cpu', 'cuda'):  # nothing was tried on others
        raise ValueError(expected)
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device is {str(device)!r}, but torch finds no CUDA GPU; use cpu')
    if device.index and device.type == 'cuda' and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f'device is {str(device)!r}, but the last CUDA GPU is cuda:{last}')
    return device
