"""Explicit correspondence as input: which patch of one view looks like which of another.

A set transformer on image features alone takes very long to discover matching. Here descriptors
on a grid twice as fine as the rays' are compared between views, and the denoiser is told for each
patch where in the reference view its best matches lie and how sure they are. Similarities between
all pairs of views bias the attention that runs over views.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .efficientnet import TAPS, unstack_fine


class Matcher(nn.Module):
    """Descriptors on the stride-16 grid and what their comparison says."""

    temperatures = 2
    channels = 4 * 4 * temperatures  # 2x2 fine cells; slope x, slope y, confidence, cycle

    def __init__(self, width: int, hidden: int = 128):
        super().__init__()
        self.describe = nn.Sequential(
            nn.Conv2d(sum(TAPS.values()), hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, width, 3, padding=1),
        )
        self.pool = nn.Conv2d(width, width, 2, stride=2)
        self.log_temperature = nn.Parameter(torch.tensor([10.0, 30.0]).log())

    def descriptors(self, features: Tensor) -> Tensor:
        """Features (B, N, 928, g, g) -> unit descriptors (B, N, 4 g^2, width), row-major."""
        maps = self.describe(unstack_fine(features.flatten(0, 1)))  # (B N, width, 2g, 2g)
        descriptors = functional.normalize(maps.flatten(2).transpose(1, 2), dim=-1)
        return descriptors.unflatten(0, features.shape[:2])

    def evidence(self, descriptors: Tensor, directions: Tensor) -> Tensor:
        """Matches of each view's cells in the first view, (B, N, channels, g, g).

        For each fine cell and temperature: the expected slope (x/z, y/z) of the matching ray in
        the reference camera, the largest matching probability, and the probability of matching
        forth and back to the same cell. `directions` are (B, N, 3, g, g).
        """
        grid = directions.shape[-1]
        slopes = fine_slopes(directions[:, 0])  # (B, M, 2)
        logits = reference_similarity(descriptors)
        kept = []
        for scale in self.log_temperature.exp():
            forth = (scale * logits).softmax(dim=-1)
            back = (scale * logits).softmax(dim=-2)
            kept += [
                forth @ slopes[:, None],
                forth.amax(dim=-1, keepdim=True),
                (forth * back).sum(dim=-1, keepdim=True),
            ]
        maps = torch.cat(kept, dim=-1).transpose(2, 3).unflatten(-1, (2 * grid, 2 * grid))
        return functional.pixel_unshuffle(maps, 2)

    def token_similarity(self, descriptors: Tensor) -> Tensor:
        """Cosines between the ray patches of all views, (B, N g^2, N g^2)."""
        batch, views, cells, width = descriptors.shape
        side = int(cells**0.5)
        maps = descriptors.transpose(2, 3).reshape(batch * views, width, side, side)
        pooled = functional.normalize(self.pool(maps).flatten(2), dim=1)  # (B N, width, g^2)
        flat = pooled.transpose(1, 2).reshape(batch, -1, width)
        return flat @ flat.transpose(1, 2)


def reference_similarity(descriptors: Tensor) -> Tensor:
    """Cosines (B, N, M, M) of each view's cells with those of the first view."""
    return descriptors @ descriptors[:, :1].transpose(2, 3)


def fine_slopes(directions: Tensor) -> Tensor:
    """Slopes (x/z, y/z) on a grid twice as fine, (B, 3, g, g) -> (B, 4 g^2, 2), row-major.

    Slopes are interpolated between patch centres and extrapolated linearly at the border.
    """
    slopes = directions[:, :2] / directions[:, 2:].clamp(min=1e-3)
    for dim in (-1, -2):
        first, last = slopes.narrow(dim, 0, 2), slopes.narrow(dim, slopes.shape[dim] - 2, 2)
        before = 2 * first.narrow(dim, 0, 1) - first.narrow(dim, 1, 1)
        after = 2 * last.narrow(dim, 1, 1) - last.narrow(dim, 0, 1)
        slopes = torch.cat([before, slopes, after], dim=dim)
    fine = functional.interpolate(slopes, scale_factor=2, mode='bilinear', align_corners=False)
    return fine[:, :, 2:-2, 2:-2].flatten(2).transpose(1, 2)
