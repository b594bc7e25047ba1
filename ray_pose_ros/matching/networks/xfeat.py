"""XFeat: small and fast, 64 numbers a point.

Source: Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .peaks import local_maxima, parabola_offsets, sample


class XFeat(nn.Module):
    """Parameter names are those of the published weights (its matcher of dense maps left out)."""

    def __init__(self, threshold: float = 0.05):
        super().__init__()
        self.threshold = threshold
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = _chain((1, 4), (4, 8, 3, 2), (8, 8), (8, 24, 3, 2))
        self.block2 = _chain((24, 24), (24, 24))
        self.block3 = _chain((24, 64, 3, 2), (64, 64), (64, 64, 1))
        self.block4 = _chain((64, 64, 3, 2), (64, 64), (64, 64))
        self.block5 = _chain((64, 128, 3, 2), (128, 128), (128, 128), (128, 64, 1))
        self.block_fusion = _chain((64, 64), (64, 64)).append(nn.Conv2d(64, 64, 1))
        self.heatmap_head = _chain((64, 64, 1), (64, 64, 1)).append(nn.Conv2d(64, 1, 1))
        self.keypoint_head = _chain((64, 64, 1), (64, 64, 1), (64, 64, 1)).append(
            nn.Conv2d(64, 65, 1)
        )

    @torch.no_grad()
    def forward(self, image: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
        """See the package."""
        features, corners, reliable = self.maps(image)
        # each cell of 8 x 8 pixels has the probabilities of its pixels, and of none
        heat = F.pixel_shuffle(corners.softmax(1)[:, :64], 8)[0, 0]  # (H, W)
        xy = local_maxima(heat, 2, self.threshold, heat.numel())
        size = torch.tensor(heat.shape[::-1], device=heat.device)
        points = xy + 0.5 + parabola_offsets(heat.clamp_min(1e-6).log(), xy)
        scores = heat[xy[:, 1], xy[:, 0]] * sample(reliable, points / size)[:, 0]
        best = torch.sort(scores, descending=True, stable=True).indices[:limit]
        points, scores = points[best], scores[best]
        descriptors = sample(F.normalize(features, dim=1), points / size, 'bicubic')
        return points, F.normalize(descriptors, dim=-1), scores

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (1, 64, H/8, W/8), logits of corners (1, 65, ...), reliability (1, 1, ...)."""
        x = F.instance_norm(image.mean(1, keepdim=True))
        x2 = self.block2(self.block1(x) + self.skip1(x))
        x3 = self.block3(x2)
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        coarse = [F.interpolate(y, x3.shape[-2:], mode='bilinear') for y in (x4, x5)]
        features = self.block_fusion(x3 + sum(coarse))
        cells = F.pixel_unshuffle(x, 8)
        return features, self.keypoint_head(cells), self.heatmap_head(features).sigmoid()


class _Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _chain(*layers: tuple[int, ...]) -> nn.Sequential:
    return nn.Sequential(*[_Layer(*layer) for layer in layers])
