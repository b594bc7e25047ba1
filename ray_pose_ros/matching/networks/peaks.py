"""Points where a map of scores has its maxima."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_maxima(heat: Tensor, radius: int, threshold: float, limit: int) -> Tensor:
    """Whole pixels x, y (M, 2) int64 of the maxima of heat (H, W), best first, at most `limit`.

    A maximum is above `threshold` and the highest within `radius` pixels each way, and further
    than that from the border.
    """
    highest = F.max_pool2d(heat[None, None], 2 * radius + 1, 1, radius)[0, 0]
    is_peak = (heat == highest) & (heat > threshold)
    inside = torch.zeros_like(is_peak)
    inside[radius + 1 : -radius - 1, radius + 1 : -radius - 1] = True
    y, x = torch.nonzero(is_peak & inside, as_tuple=True)
    order = torch.sort(heat[y, x], descending=True, stable=True).indices[:limit]
    return torch.stack([x, y], dim=-1)[order]


def parabola_offsets(heat: Tensor, xy: Tensor) -> Tensor:
    """Where between pixels (M, 2) the maximum is, by a parabola along each axis; within half a
    pixel of xy (M, 2), which must not lie on the border of heat (H, W)."""
    x, y = xy.unbind(-1)
    middle = heat[y, x]
    offsets = []
    for before, after in (
        (heat[y, x - 1], heat[y, x + 1]),
        (heat[y - 1, x], heat[y + 1, x]),
    ):
        bend = (2 * middle - before - after).clamp_min(1e-12)
        offsets.append(((after - before) / (2 * bend)).clamp(-0.5, 0.5))
    return torch.stack(offsets, dim=-1)


def sample(maps: Tensor, points: Tensor, mode: str = 'bilinear') -> Tensor:
    """Values (M, C) of maps (1, C, h, w) at points (M, 2) given in [0, 1] of its width, height."""
    grid = (2 * points - 1)[None, :, None]  # (1, M, 1, 2)
    return F.grid_sample(maps, grid, mode=mode, align_corners=False)[0, :, :, 0].T
