"""Where matches lie to a fraction of a cell, how surely, and whether they are matches at all.

Repeated matching compares cells of 16 pixels; most of what is left of the error of a pose is that
right matches lie a quarter of a cell off. Here the neighbourhoods of both ends of a match are
compared with each other at stride 8: all similarities of the one's positions with the other's, and
of the one's with each other, which say what there is to be located. Similarities know nothing of
what the thing looks like, so that little data goes far. The coarse-to-fine idea is LoFTR's (Sun et
al., CVPR 2021), section 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import HEADS
from .matching import MutualMatches

STRIDE = 8  # pixels between places of the lattice
# Matches less likely to be right are not looked for: of a hundred right ones in a window at most
# one is lost, of the wrong ones a third to a half.
_HOPELESS = 0.05
_AT_ONCE = 2048  # places, so that memory does not grow with a window's size
NEAR, FAR = 4, 6  # positions along a side of the reference's window, and of the one searched
# The lattice's places are samples of depth (training/dataset.py), half a pixel from the corners
# of the features' cells.
_PLACE = 0.5
_LOG_DEVIATION = -4.0, 0.5  # least and most, in steps of the lattice


class Located(NamedTuple):
    """K places that were looked for in another view.

    `at` (K, 2) pixels (x, y) of the crop; `deviation` (K,) of x and of y, pixels; `right` (K,)
    logits that the place is seen there.
    """

    at: Tensor
    deviation: Tensor
    right: Tensor


class Directed(NamedTuple):
    """K places to look for.

    Places (K, 2) of the lattice in views (K,), about which place of which other view they are
    looked for, and logits `known` (K, 2) of being seen and of being chosen.
    """

    view: Tensor
    place: Tensor
    other: Tensor
    about: Tensor
    known: Tensor


class Locator(nn.Module):
    """Compares neighbourhoods of two views around the ends of a match."""

    def __init__(self, channels: int, width: int, hidden: int = 256):
        super().__init__()
        self.width = width
        self.register_buffer('mean', torch.zeros(channels))
        self.register_buffer('std', torch.ones(channels))
        self.describe_maps = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 1),
        )
        compared = HEADS * NEAR**2 * FAR**2 + HEADS * NEAR**4 + 2
        self.read = nn.Linear(compared, hidden)
        self.think = nn.Linear(hidden, hidden)
        self.tell = nn.Linear(hidden, FAR**2 + 4)
        self.register_buffer('steps', _window(FAR).float() + 0.5, persistent=False)

    def describe(self, maps: Tensor) -> Tensor:
        """Unit descriptors (M, width, g, g) of each head, from early features (M, C, g, g)."""
        maps = (maps - self.mean[:, None, None]) / self.std[:, None, None]
        found = self.describe_maps(maps).unflatten(1, (HEADS, -1))
        return functional.normalize(found, dim=2).flatten(1, 2)

    def forward(
        self,
        described: Tensor,
        view: Tensor,
        place: Tensor,
        other: Tensor,
        about: Tensor,
        known: Tensor,
    ) -> Located:
        """Look for places of the lattice.

        Args:
            described: (N, width, g, g) from `describe`.
            view, place: (K,), (K, 2) what is looked for: places (x, y) of the lattice in views.
            other, about: (K,), (K, 2) about which place of which view it is looked for.
            known: (K, 2) logits that are known of the match: of being seen, of being chosen.
        """
        mine = self._cut(described, view, place, NEAR)  # (K, heads, 16, width)
        theirs = self._cut(described, other, about, FAR)
        across = mine @ theirs.transpose(-1, -2)
        own = mine @ mine.transpose(-1, -2)
        told = torch.cat([across.flatten(1), own.flatten(1), 0.1 * known], dim=1)
        y = functional.gelu(self.read(told))
        y = y + functional.gelu(self.think(y))
        y = self.tell(y).float()
        share = y[:, : FAR**2].softmax(dim=-1)
        step = share @ self.steps + y[:, -4:-2]
        at = STRIDE * (about + step) + _PLACE
        deviation = STRIDE * y[:, -2].clamp(*_LOG_DEVIATION).exp()
        return Located(at, deviation, y[:, -1])

    def _cut(self, described: Tensor, view: Tensor, place: Tensor, side: int) -> Tensor:
        """Windows (K, heads, side^2, width of a head) about places; 0 beyond the border."""
        grid, border = described.shape[-1], FAR
        padded = functional.pad(described, (border,) * 4)
        flat = padded.permute(0, 2, 3, 1).reshape(-1, described.shape[1])
        wide = grid + 2 * border
        x, y = (place[:, None] + _window(side).to(place) + border).unbind(dim=-1)
        rows = flat[(view[:, None] * wide + y) * wide + x]
        return rows.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def both_ways(matches: MutualMatches, pixels: float, grid: int) -> Directed:
    """Each match twice: its place in the first view is looked for in the second, and the reverse.

    `pixels` are those of a cell's side, `grid` is that of the lattice.
    """
    i, j = matches.pairs.to(matches.pair.device)[matches.pair].unbind(dim=1)
    at_i, at_j = (lattice(pixels * c, grid) for c in (matches.cell_i, matches.cell_j))
    known = torch.stack([matches.seen, matches.chosen], dim=1).clamp(1e-5, 1 - 1e-4).logit()
    return Directed(
        torch.cat([i, j]),
        torch.cat([at_i, at_j]),
        torch.cat([j, i]),
        torch.cat([at_j, at_i]),
        known.repeat(2, 1),
    )


@torch.inference_mode()
def locate_matches(
    locator: Locator, matches: MutualMatches, details: Tensor, side: int
) -> MutualMatches:
    """Matches placed within cells, each twice: what lies at either end is looked for at the other.

    Those that are hardly ever right are left out. `details` (N, D, g, g) of the views from
    `describe`; `side` is the number of cells along a crop.
    """
    matches = matches.take(matches.likelihood() > _HOPELESS)
    count, grid = len(matches.pair), details.shape[-1]
    pixels = STRIDE * grid / side
    ends = both_ways(matches, pixels, grid)
    parts = [
        locator(details, *(x[k : k + _AT_ONCE] for x in ends))
        for k in range(0, 2 * count, _AT_ONCE)
    ]
    if not parts:
        return matches
    at, deviation, right = (torch.cat(x) for x in zip(*parts, strict=True))
    place = place_pixels(ends.place)
    return MutualMatches(
        matches.pairs,
        matches.pair.repeat(2),
        torch.cat([place[:count], at[count:]]) / pixels,
        torch.cat([at[:count], place[count:]]) / pixels,
        matches.seen.repeat(2),
        matches.chosen.repeat(2),
        right.sigmoid(),
        deviation / pixels,
    )


def lattice(pixels: Tensor, grid: int) -> Tensor:
    """The places (K, 2) of a lattice of `grid` cells that are nearest to pixels (K, 2)."""
    return ((pixels - _PLACE) / STRIDE).round().long().clamp(0, grid)


def place_pixels(place: Tensor) -> Tensor:
    """Pixels of the lattice's places."""
    return STRIDE * place + _PLACE


def _window(side: int) -> Tensor:
    """Steps (side^2, 2), x first, from a place to the cells around it, the upper left corner."""
    span = torch.arange(side) - side // 2
    y, x = torch.meshgrid(span, span, indexing='ij')
    return torch.stack([x, y], dim=-1).flatten(0, 1)
