"""ALIKED-n16: points and descriptors by convolutions that look where the image tells them to.

Source: Zhao et al., "ALIKED: A Lighter Keypoint and Descriptor Extraction Network via Deformable
Transformation", 2023. The maps at full resolution, which the paper describes, are not made: the
head of scores is linear up to there, and descriptors need only a few places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deformable import DeformableConv
from .peaks import local_maxima

_RADIUS = 2
_SAMPLES = 16  # places that a descriptor is made of
_TEMPERATURE = 0.1  # of the soft maximum that places a point between pixels


class Aliked(nn.Module):
    """Parameter names are those of the published weights of aliked-n16 and aliked-n16rot."""

    def __init__(self, threshold: float = 0.2):
        super().__init__()
        self.threshold = threshold
        self.block1 = _ConvBlock(3, 16)
        self.block2 = _ResidualBlock(16, 32, _convolution)
        self.block3 = _ResidualBlock(32, 64, DeformableConv)
        self.block4 = _ResidualBlock(64, 128, DeformableConv)
        self.conv1 = nn.Conv2d(16, 32, 1, bias=False)
        self.conv2 = nn.Conv2d(32, 32, 1, bias=False)
        self.conv3 = nn.Conv2d(64, 32, 1, bias=False)
        self.conv4 = nn.Conv2d(128, 32, 1, bias=False)
        self.score_head = nn.Sequential(
            nn.Conv2d(128, 8, 1, bias=False),
            nn.SELU(inplace=True),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.SELU(inplace=True),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.SELU(inplace=True),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
        )
        self.desc_head = _DescriptorHead(128)

    @torch.no_grad()
    def forward(self, image: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
        """See the package."""
        maps = self.maps(image)
        heat = self.heat(maps, image.shape[-2:])
        xy = local_maxima(heat, _RADIUS, self.threshold, limit)
        pixels = xy + _soft_offsets(heat, xy)
        descriptors = self.desc_head(_Sampler(maps, image.shape[-2:]), pixels)
        return pixels + 0.5, descriptors, heat[xy[:, 1], xy[:, 0]]

    def maps(self, image: Tensor) -> list[Tensor]:
        """Four maps of 32 channels each, at 1, 1/2, 1/8 and 1/32 of the image's resolution."""
        x1 = self.block1(image)
        x2 = self.block2(F.avg_pool2d(x1, 2))
        x3 = self.block3(F.avg_pool2d(x2, 4))
        x4 = self.block4(F.avg_pool2d(x3, 4))
        reduced = zip((self.conv1, self.conv2, self.conv3, self.conv4), (x1, x2, x3, x4))
        return [_selu(conv(x)) for conv, x in reduced]

    def heat(self, maps: list[Tensor], size: torch.Size) -> Tensor:
        """Scores (H, W) in [0, 1]. The first layer mixes channels only, so it comes before the
        maps are enlarged to full size, which is the same and far less work."""
        parts = self.score_head[0].weight.split([x.shape[1] for x in maps], dim=1)
        x = sum(_enlarge(F.conv2d(x, part), size) for x, part in zip(maps, parts))
        return self.score_head[1:](x).sigmoid()[0, 0]


class _DescriptorHead(nn.Module):
    """Each point asks for places around it and sums up what is there (section III.B)."""

    def __init__(self, width: int):
        super().__init__()
        self.offset_conv = nn.Sequential(
            nn.Conv2d(width, 2 * _SAMPLES, 3),
            nn.SELU(inplace=True),
            nn.Conv2d(2 * _SAMPLES, 2 * _SAMPLES, 1),
        )
        self.sf_conv = nn.Conv2d(width, width, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.empty(_SAMPLES, width, width))

    def forward(self, sampler: _Sampler, pixels: Tensor) -> Tensor:
        """Unit descriptors (M, width) at pixels (M, 2), centres at whole numbers."""
        count = len(pixels)
        around = torch.arange(-1, 2, device=pixels.device)
        dy, dx = torch.meshgrid(around, around, indexing='ij')
        places = pixels.long()[:, None] + torch.stack([dx, dy], dim=-1).reshape(9, 2)
        patches = sampler.at(places.reshape(-1, 2)).T.unflatten(1, (count, 3, 3)).transpose(0, 1)
        limit = max(sampler.size) / 4
        offsets = self.offset_conv(patches).clamp(-limit, limit)
        offsets = offsets.reshape(count, 2, _SAMPLES).transpose(1, 2)  # (M, S, 2)
        found = sampler.between((pixels[:, None] + offsets).reshape(-1, 2))
        found = _selu(found @ self.sf_conv.weight[:, :, 0, 0].T)
        found = found.reshape(count, _SAMPLES, found.shape[1])
        return F.normalize(torch.einsum('nsc,scd->nd', found, self.agg_weights), dim=-1)


class _Sampler:
    """Unit features of the image at single pixels, without the map of all of them."""

    def __init__(self, maps: list[Tensor], size: torch.Size):
        self.maps, self.size = maps, size

    def at(self, pixels: Tensor) -> Tensor:
        """(P, 128) at whole pixels (P, 2); zeros outside of the image."""
        height, width = self.size
        last = torch.tensor([width - 1, height - 1], device=pixels.device)
        grid = (2 * pixels / last - 1)[None, :, None].to(self.maps[0].dtype)
        found = [F.grid_sample(x, grid, align_corners=True)[0, :, :, 0] for x in self.maps]
        inside = ((pixels >= 0) & (pixels <= last)).all(-1, keepdim=True)
        return F.normalize(torch.cat(found).T, dim=-1) * inside

    def between(self, pixels: Tensor) -> Tensor:
        """(P, 128) at any places, bilinear between the four pixels around them."""
        corner = pixels.floor()
        part = pixels - corner
        total = 0
        for dx in (0, 1):
            for dy in (0, 1):
                step = torch.tensor([dx, dy], device=pixels.device)
                weight = (1 - (part - step).abs()).prod(-1, keepdim=True)
                total = total + weight * self.at(corner + step)
        return total


class _ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.bn1 = _convolution(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _convolution(outputs, outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return _selu(self.bn2(self.conv2(_selu(self.bn1(self.conv1(x))))))


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, convolution):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(_selu(self.bn1(self.conv1(x)))))
        return _selu(out + self.downsample(x))


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def _selu(x: Tensor) -> Tensor:
    """In place: at full resolution the memory costs as much time as the function."""
    return F.selu(x, inplace=True)


def _enlarge(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode='bilinear', align_corners=True)


def _soft_offsets(heat: Tensor, xy: Tensor) -> Tensor:
    """Mean place (M, 2) of the pixels within _RADIUS, weighted by the exponential of the score."""
    around = torch.arange(-_RADIUS, _RADIUS + 1, device=heat.device)
    dy, dx = torch.meshgrid(around, around, indexing='ij')
    dx, dy = dx.flatten(), dy.flatten()
    values = heat[xy[:, 1:] + dy, xy[:, :1] + dx]  # (M, 25)
    weight = (values / _TEMPERATURE).softmax(-1)
    return weight @ torch.stack([dx, dy], dim=-1).to(heat.dtype)
