"""Deformable convolution in plain torch, so that no compiled extension is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableConv(nn.Module):
    """A 3 x 3 convolution whose nine taps lie where another convolution says.

    Source: Dai et al., "Deformable Convolutional Networks", 2017, section 2.1.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.offset_conv = nn.Conv2d(inputs, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # the limit of the published weights
        limit = max(x.shape[-2:]) / 4
        offsets = self.offset_conv(x).clamp(-limit, limit)
        return deform_conv(x, offsets, self.regular_conv.weight)


def deform_conv(x: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Convolve x (B, C, H, W) with weight (O, C, k, k), stride 1, size kept, zeros outside.

    offsets (B, 2 k k, H, W) in pixels, dy before dx for each tap, taps row by row.
    """
    batch, channels, height, width = x.shape
    outputs, _, size, _ = weight.shape
    taps = torch.arange(size, device=x.device) - size // 2
    dy, dx = torch.meshgrid(taps, taps, indexing='ij')
    offsets = offsets.reshape(batch, size * size, 2, height, width)
    y = torch.arange(height, device=x.device)[:, None] + dy.reshape(-1, 1, 1) + offsets[:, :, 0]
    z = torch.arange(width, device=x.device) + dx.reshape(-1, 1, 1) + offsets[:, :, 1]
    # grid_sample counts from -1 to 1 over the pixels' outer edges
    grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    sampled = F.grid_sample(x, grid.flatten(1, 2), align_corners=False)  # (B, C, kk H, W)
    columns = sampled.reshape(batch, channels * size * size, height * width)
    return (weight.reshape(outputs, -1) @ columns).reshape(batch, outputs, height, width)
