"""The denoiser: a transformer that predicts the clean rays of all views at once.

Cameras as Rays (Zhang et al., ICLR 2024), section 3.2: one token a patch and view, made of image
features, the noisy ray and the patch's place in the camera; full attention over all views;
adaLN-Zero conditioning on the time. Parameter names are those of the official checkpoints.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .layers import Block, FinalLayer, PositionTables, TimeEmbedding
from .matching import Matcher, Rematch, Rematcher, fine_slopes, token_similarity


@dataclass
class Context:
    """What the denoiser knows of a window of views, whatever the rays and the time.

    Attributes:
        embedded: features, geometry and matches, already embedded, (B, N, D, h, w).
        base: rays of an unrotated camera at distance 1, (B, N, 6, h, w); the first view's are
            its true rays in the project's gauge. None for the official geometry.
        similarity: patch similarities between views (B, N h w, N h w), or None.
        descriptors: matching descriptors (B, N, 4 h w, width), or None.
        slopes: (x/z, y/z) of the fine cells (B, N, 4 h w, 2), or None.
    """

    embedded: Tensor
    base: Tensor | None = None
    similarity: Tensor | None = None
    descriptors: Tensor | None = None
    slopes: Tensor | None = None

    @property
    def views(self) -> int:
        return self.embedded.shape[1]

    def expand(self, batch: int) -> 'Context':
        """The same window for `batch` samples denoised side by side."""

        def grow(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.expand(batch, *x.shape[1:])

        return Context(
            grow(self.embedded),
            grow(self.base),
            grow(self.similarity),
            grow(self.descriptors),
            grow(self.slopes),
        )

    def select(self, views: list[int]) -> 'Context':
        """The context of some of the views (no similarity: for the official model)."""
        if self.similarity is not None:
            raise ValueError('a context with matches cannot be split into views')
        base = None if self.base is None else self.base[:, views]
        return Context(self.embedded[:, views], base)


class Embedder(nn.Module):
    """1x1 convolution from the stacked inputs to tokens."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 1)


class RayDenoiser(nn.Module):
    """Transformer from noisy rays to the network's prediction (clean rays, or the noise)."""

    def __init__(self, config: ModelConfig, feature_channels: int):
        super().__init__()
        self.config = config
        self.feature_channels = feature_channels
        self.matcher = Matcher(config.matching) if config.matching else None
        extra = Matcher.channels if config.matching else 0
        inputs = feature_channels + 6 + config.geometry_channels + extra
        self.x_embedder = Embedder(inputs, config.width)
        self.x_pos_enc = PositionTables(
            config.max_views if config.view_code == 'index' else 2, config.grid**2, config.width
        )
        self.t_embedder = TimeEmbedding(config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.final_layer = FinalLayer(config.width, 12 if config.auxiliary else 6)
        if self.matcher is not None:
            across = config.depth // 2 if config.attention == 'alternating' else config.depth
            start = 4.0 * (torch.arange(config.heads) % 2).float()
            self.match_bias = nn.Parameter(start.repeat(across, 1))
        self.rematchers = nn.ModuleList(
            Rematcher(config.width, config.matching) for _ in range(config.rematch)
        )

    def condition(
        self,
        features: Tensor,
        geometry: Tensor,
        order: Tensor | None = None,
        shown: Tensor | None = None,
    ) -> Context:
        """Everything that depends on neither rays nor time; computed once for a window.

        `features` (B, N, C, h, w), `geometry` (B, N, 2 or 3, h, w). Inputs enter the embedding
        in the official order: features, rays, geometry; then the project's matches. With `order`
        (S, N) of view numbers, B is 1 and the context is of S windows with the same views in
        these orders; what does not depend on the order is computed once. Where `shown` (B,) is 0
        the features serve for matching alone.
        """

        def ordered(maps: Tensor) -> Tensor:
            return maps if order is None else maps[0, order]

        weight = self.x_embedder.proj.weight.flatten(1)
        split = [self.feature_channels, 6, weight.shape[1] - self.feature_channels - 6]
        for_features, _, for_rest = weight.split(split, dim=1)
        embedded = _mix(for_features, features)
        if shown is not None:
            embedded = embedded * shown.to(embedded).view(-1, 1, 1, 1, 1)
        embedded = embedded + self.x_embedder.proj.bias[:, None, None]
        embedded, geometry = ordered(embedded), ordered(geometry)
        rest, similarity, descriptors, base, slopes = geometry, None, None, None, None
        if self.config.geometry == 'directions':
            base = reference_rays(geometry)
        if self.matcher is not None:
            descriptors = self.matcher.descriptors(features)
            pooled = ordered(self.matcher.pooled(descriptors))
            descriptors, slopes = ordered(descriptors), fine_slopes(geometry)
            rest = torch.cat([geometry, self.matcher.evidence(descriptors, slopes[:, 0])], dim=2)
            similarity = token_similarity(pooled)
        return Context(embedded + _mix(for_rest, rest), base, similarity, descriptors, slopes)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Context,
        alpha_bar: Tensor | None = None,
        found: list[Rematch] | None = None,
    ) -> Tensor:
        """Predict from noisy rays `x` (B, N, 6, h, w) at integer times `t` (B,).

        `alpha_bar` (B,) is needed when the configuration scales the input; `found` as in `tokens`.
        Returns rays or noise (B, N, 6, h, w).
        """
        return self.decode(self.tokens(x, t, context, alpha_bar, found), t, context)[0]

    def tokens(
        self,
        x: Tensor,
        t: Tensor,
        context: Context,
        alpha_bar: Tensor | None,
        found: list[Rematch] | None = None,
    ) -> Tensor:
        """Tokens after the last block, (B, N h w, D).

        Each repeated matching is appended to `found`.
        """
        config = self.config
        views = x.shape[1]
        if config.scale_input:
            x = x * alpha_bar.sqrt().view(-1, 1, 1, 1, 1)
        if config.anchor_reference:
            x = torch.cat([context.base[:, :1], x[:, 1:]], dim=1)
        start = self.feature_channels
        for_rays = self.x_embedder.proj.weight.flatten(1)[:, start : start + 6]
        y = context.embedded + _mix(for_rays, x)
        y = y.flatten(3).transpose(2, 3)  # (B, N, h w, D)
        y = y + self.x_pos_enc.token_pos_table + self._view_codes(views)
        y = y.flatten(1, 2)  # (B, N h w, D)

        time = self.t_embedder(t)
        similarity, across = context.similarity, 0
        for index, block in enumerate(self.blocks):
            if config.attention == 'alternating' and index % 2 == 0:
                y = block(y, time, views)
                continue
            bias = None
            if self.matcher is not None:
                scale = self.match_bias[across].view(1, -1, 1, 1)
                bias = scale * similarity.unsqueeze(1)
            y = block(y, time, bias=bias)
            if across < len(self.rematchers):
                again = self.rematchers[across](
                    y, context.descriptors, context.slopes, context.base
                )
                y = again.tokens
                similarity = token_similarity(self.matcher.pooled(again.descriptors))
                if found is not None:
                    found.append(again)
            across += 1
        return y

    def decode(self, y: Tensor, t: Tensor, context: Context) -> tuple[Tensor, ...]:
        """Prediction, and for auxiliary models points and up vectors, from the tokens."""
        views = context.views
        out = self.final_layer(y, self.t_embedder(t))
        grid = self.config.grid
        out = out.view(out.shape[0], views, grid, grid, -1).permute(0, 1, 4, 2, 3)
        rays = out[:, :, :6]
        if self.config.residual:
            rays = rays + context.base
        if self.config.anchor_reference:
            rays = torch.cat([context.base[:, :1].expand_as(rays[:, :1]), rays[:, 1:]], dim=1)
        if not self.config.auxiliary:
            return (rays,)
        return rays, out[:, :, 6:9], out[:, :, 9:12].mean(dim=(-1, -2))

    def _view_codes(self, views: int) -> Tensor:
        table = self.x_pos_enc.image_pos_table
        if self.config.view_code == 'reference':
            index = torch.arange(views, device=table.device).clamp(max=1)
            return table[:, index].unsqueeze(2)
        if views > table.shape[1]:
            raise ValueError(
                f'{views} views in one pass, expected at most max_views {table.shape[1]}'
            )
        return table[:, :views].unsqueeze(2)


def reference_rays(directions: Tensor) -> Tensor:
    """Rays (B, N, 6, h, w) of an unrotated camera at (0, 0, -1) with these directions.

    In the project's gauge these are the first view's true rays.
    """
    x, y, _ = directions.unbind(dim=2)
    return torch.cat([directions, torch.stack([y, -x, torch.zeros_like(x)], dim=2)], dim=2)


def _mix(weight: Tensor, maps: Tensor) -> Tensor:
    """A 1x1 convolution over the channels of (B, N, C, h, w)."""
    return torch.einsum('dc,bnchw->bndhw', weight, maps)
