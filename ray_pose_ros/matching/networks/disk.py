"""DISK: a U-net whose points were learned by reward; precise and slow.

Source: Tyszkiewicz et al., "DISK: Learning local features with policy gradient", 2020.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .peaks import local_maxima, parabola_offsets


class Disk(nn.Module):
    """Parameter names are those of the published weights."""

    def __init__(self):
        super().__init__()
        self.unet = _UNet((3, 16, 32, 64, 64, 64), (64, 64, 64, 129))

    @torch.no_grad()
    def forward(self, image: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
        """See the package."""
        maps = self.unet(image)[0]
        heat = maps[-1]
        xy = local_maxima(heat, 2, 0.0, limit)
        x, y = xy.unbind(-1)
        descriptors = F.normalize(maps[:-1, y, x].T, dim=-1)
        return xy + 0.5 + parabola_offsets(heat, xy), descriptors, heat[y, x]


class _UNet(nn.Module):
    def __init__(self, down: tuple[int, ...], up: tuple[int, ...]):
        super().__init__()
        self.path_down = nn.ModuleList(
            [
                nn.Sequential(nn.Identity(), _Conv(a, b, first=index == 0))
                if index == 0
                else nn.Sequential(nn.AvgPool2d(2), _Conv(a, b))
                for index, (a, b) in enumerate(zip(down[:-1], down[1:]))
            ]
        )
        bottom = (down[-1], *up)
        self.path_up = nn.ModuleList(
            [_Up(b + beside, out) for b, beside, out in zip(bottom, down[-2:0:-1], up)]
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.path_down:
            x = layer(x)
            kept.append(x)
        for layer, beside in zip(self.path_up, kept[-2::-1]):
            x = layer(x, beside)
        return x


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = _Conv(inputs, outputs)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
        return self.conv(torch.cat([x, beside], dim=1))


class _Conv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, first: bool = False):
        before = [nn.InstanceNorm2d(inputs), nn.PReLU(inputs)]
        if first:
            before = [nn.Identity(), nn.Identity()]
        super().__init__(*before, nn.Identity(), nn.Conv2d(inputs, outputs, 5, padding=2))
