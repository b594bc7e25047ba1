"""Which way up a photograph is, told from the features that the denoiser sees.

The network learns from views that are mostly upright within a few degrees, and on photographs that
are turned by a right angle it is hardly better than chance. So views are turned upright first.
"""

from __future__ import annotations

from torch import Tensor, nn

TURNS = 4  # right angles


class UprightHead(nn.Module):
    """Features of a crop to the scores of the four ways that it may be turned.

    Turned by k means that torch.rot90 by k, counter-clockwise, made it out of an upright crop.
    """

    def __init__(self, channels: int, grid: int, width: int, hidden: int = 64, drop: float = 0.3):
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1)
        self.gather = nn.Linear(width * grid * grid, hidden)
        self.score = nn.Linear(hidden, TURNS)
        self.drop_maps, self.drop = nn.Dropout2d(drop), nn.Dropout(drop)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (M, 4) from features (M, C, g, g)."""
        maps = self.drop_maps(self.reduce(features).relu())
        return self.score(self.drop(self.gather(maps.flatten(1)).relu()))
