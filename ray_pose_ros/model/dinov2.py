"""DINOv2 vision transformer (Oquab et al., 2023), patch features only.

Parameter names are those of the original release, so that its weights, and the copy inside an
official ray diffusion checkpoint, load without renaming. No weights are ever downloaded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Attention, Mlp

# The original code adds this to the grid's side before it computes the scale factor of the
# position embedding. It looks like a rounding guard, but moves every sample position a little.
INTERPOLATION_OFFSET = 0.1


class DinoV2(nn.Module):
    """ViT with a class token, learned positions and LayerScale.

    Args:
        width, depth, heads: 384, 12 and 6 for ViT-S.
        patch: side of a patch in pixels.
        pretrain_grid: patches along a side in pretraining (37: 518 px), the size of `pos_embed`.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 14,
        pretrain_grid: int = 37,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f'DINOv2 width {width} is not a multiple of its heads {heads}')
        self.patch = patch
        self.pretrain_grid = pretrain_grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + pretrain_grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # only of use in pretraining
        self.patch_embed = PatchEmbedding(width, patch)
        self.blocks = nn.ModuleList(DinoBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalised images.

        Args:
            images: (M, 3, S, S), S a multiple of `patch`, normalised by the caller.

        Returns:
            (M, width, S / patch, S / patch).

        Raises:
            ValueError: the images are not square or not a multiple of the patch.
        """
        count, _, height, width = images.shape
        if height != width or height % self.patch:
            raise ValueError(
                f'DINOv2 got images of {height}x{width} px, '
                f'expected squares of a multiple of {self.patch} px'
            )
        grid = height // self.patch
        x = self.patch_embed(images).flatten(2).transpose(1, 2)  # (M, P, D)
        x = torch.cat([self.cls_token.expand(count, -1, -1), x], dim=1)
        x = x + self.position_embedding(grid)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)[:, 1:]
        return x.transpose(1, 2).reshape(count, -1, grid, grid)

    def position_embedding(self, grid: int) -> Tensor:
        """`pos_embed` resampled for `grid` x `grid` patches, (1, 1 + grid^2, width).

        Bicubic without antialiasing, by the scale factor (grid + 0.1) / pretrain_grid that the
        original code uses: resizing to the exact size gives other features.
        """
        if grid == self.pretrain_grid:
            return self.pos_embed
        scale = (grid + INTERPOLATION_OFFSET) / self.pretrain_grid
        width = self.pos_embed.shape[-1]
        side = self.pretrain_grid
        table = self.pos_embed[:, 1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
        table = functional.interpolate(
            table, scale_factor=(scale, scale), mode='bicubic', antialias=False
        )
        if table.shape[-2:] != (grid, grid):
            raise ValueError(f'cannot resample {side}x{side} positions to {grid}x{grid}')
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)


class DinoFeatures(nn.Module):
    """The image backbone of the official model: `model` is a `DinoV2` fed with [-1, 1].

    `forward` takes images (M, 3, S, S) in [0, 1]. They are normalised with mean and standard
    deviation 0.5, as the official networks were trained, not with the statistics of ImageNet.
    """

    def __init__(self, model: DinoV2):
        super().__init__()
        self.model = model

    @property
    def channels(self) -> int:
        return self.model.norm.weight.shape[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - 0.5) / 0.5)


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens."""

    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


class DinoBlock(nn.Module):
    """Pre-norm block with exact GELU and LayerScale."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class LayerScale(nn.Module):
    """A learned gain for each channel."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
