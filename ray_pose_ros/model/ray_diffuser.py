"""The whole network: image backbone, denoiser and noise schedule."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .denoiser import Context, RayDenoiser
from .dinov2 import DinoFeatures, DinoV2
from .efficientnet import EARLY_CHANNELS, EfficientNetLite0
from .locating import Locator, locate_matches
from .matching import MutualMatches, Rematch, mutual_matches
from .schedule import NoiseSchedule
from .upright import UprightHead

PATCH = 14  # pixels; the only size that DINOv2 comes in


class RayDiffuser(nn.Module):
    """Images and crop geometry in, rays out. Submodules are named as in the official release.

    Use: `features = encode(images)` once a view, `context = condition(features, geometry)` once a
    window, then `sampler.sample(model, context)`, which calls `denoise` once a step.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.noise_scheduler = NoiseSchedule(config.steps, config.beta_start, config.beta_end)
        self.feature_extractor = _backbone(config)
        self.ray_predictor = RayDenoiser(config, self.feature_extractor.channels)
        self.upright = None
        if config.upright:
            channels = self.feature_extractor.channels
            self.upright = UprightHead(channels, config.grid, config.upright)
        self.locator = Locator(EARLY_CHANNELS, config.locate) if config.locate else None

    def with_heads(
        self, upright: UprightHead | None = None, locator: Locator | None = None
    ) -> 'RayDiffuser':
        """A model that shares everything with this one but the heads that are given."""
        upright, locator = upright or self.upright, locator or self.locator
        widths = {
            'upright': upright.reduce.out_channels if upright else 0,
            'locate': locator.width if locator else 0,
        }
        grown = RayDiffuser(replace(self.config, **widths))
        grown.feature_extractor, grown.ray_predictor = self.feature_extractor, self.ray_predictor
        grown.upright, grown.locator = upright, locator
        return grown.eval().requires_grad_(False)

    @property
    def max_views(self) -> int | None:
        """Largest number of views in one pass; None where no code of the place limits it."""
        return self.config.max_views if self.config.view_code == 'index' else None

    @property
    def precision(self) -> torch.dtype:
        """Floating type that backbone and denoiser compute in."""
        return self.ray_predictor.x_embedder.proj.weight.dtype

    def set_precision(self, precision: torch.dtype) -> 'RayDiffuser':
        """Compute in float32, float16 or bfloat16. Returns self.

        Schedule and sampler states stay in float32: `half()` on the whole model would round
        1 - alpha_bar, which is 1e-4 at the last step, to nothing.
        """
        self.feature_extractor.to(precision)
        self.ray_predictor.to(precision)
        for head in (self.upright, self.locator):
            if head is not None:
                head.to(precision)
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, N, C, h, w) of square crops (B, N, 3, S, S) in [0, 1].

        Normalisation is done here. Raises ValueError for images of another size.
        """
        return self.encode_with_details(images)[0]

    def encode_with_details(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `encode` returns, and what places matches within cells, (B, N, D, S/8, S/8).

        The latter is None for a network that cannot. Raises ValueError as `encode`.
        """
        size = self.config.image_size
        if images.dim() != 5 or images.shape[2:] != (3, size, size):
            raise ValueError(
                f'images have shape {tuple(images.shape)}, expected (B, N, 3, {size}, {size})'
            )
        flat, window = images.flatten(0, 1).to(self.precision), images.shape[:2]
        if self.locator is None:
            return self.feature_extractor(flat).unflatten(0, window), None
        features, early = self.feature_extractor.with_early(flat)
        details = self.locator.describe(early)
        return features.unflatten(0, window), details.unflatten(0, window)

    def turned(self, features: Tensor) -> Tensor | None:
        """Log probabilities (M, 4) that crops are turned by 0 to 3 right angles.

        `features` (M, C, h, w) from `encode`; turned as `torch.rot90` turns, from upright. None
        for a network without this head.
        """
        if self.upright is None:
            return None
        return self.upright(features.to(self.precision)).float().log_softmax(dim=-1)

    def condition(
        self,
        features: Tensor,
        geometry: Tensor,
        order: Tensor | None = None,
        shown: Tensor | None = None,
    ) -> Context:
        """Everything that depends on neither rays nor time.

        Args:
            features: (B, N, C, h, w) from `encode`.
            geometry: where each patch looks. NDC of the patch centres (B, N, 2, h, w) for
                `config.geometry` 'ndc'; unit directions in the virtual camera (B, N, 3, h, w)
                for 'directions'.
            order: view numbers (S, N), for S windows of the same views in other orders; B is 1.
            shown: (B,), 0 where patches are told what they match but not what they look like.
        """
        grid, channels = self.config.grid, self.ray_predictor.feature_channels
        window = tuple(features.shape[:2])
        for name, maps, depth in (
            ('features', features, channels),
            ('geometry', geometry, self.config.geometry_channels),
        ):
            if tuple(maps.shape) != (*window, depth, grid, grid):
                raise ValueError(
                    f'{name} have shape {tuple(maps.shape)}, '
                    f'expected {(*window, depth, grid, grid)}'
                )
        precision = self.precision
        if order is not None and len(features) != 1:
            raise ValueError(f'{len(features)} windows to put in order, expected 1')
        features, geometry = features.to(precision), geometry.to(precision)
        return self.ray_predictor.condition(features, geometry, order, shown)

    def denoise(
        self,
        x: Tensor,
        t: int | Tensor,
        context: Context,
        found: list[Rematch] | None = None,
    ) -> Tensor:
        """The network's prediction (B, N, 6, h, w) for noisy rays `x` at time `t`, int or (B,).

        A context of batch 1 serves any number of samples. What repeated matching found is appended
        to `found`.
        """
        batch, like = x.shape[0], x.dtype
        if x.shape[1] != context.views:
            raise ValueError(f'{x.shape[1]} views of rays for a context of {context.views}')
        if context.embedded.shape[0] != batch:
            context = context.expand(batch)
        t = torch.as_tensor(t, device=x.device).expand(batch)
        alpha_bar = None
        if self.config.scale_input:
            # A regression model is called one step past the schedule.
            alpha_bar = self.noise_scheduler.alphas_cumprod[t.clamp(max=self.config.steps - 1)]
            alpha_bar = alpha_bar.to(self.precision)
        x = x.to(self.precision)
        return self.ray_predictor(x, t, context, alpha_bar, found).to(like)

    def mutual_matches(
        self, found: Rematch, order: Tensor, details: Tensor | None = None
    ) -> MutualMatches:
        """What the views of S windows have in common, from `found` by the last repeated matching.

        `order` (S, N) are the windows' view numbers. With `details` (N, D, S/8, S/8) of the views,
        from `encode_with_details`, matches are placed within cells.
        """
        scale = self.ray_predictor.rematchers[-1].log_temperature.exp()[-1]
        matches = mutual_matches(found, scale, order)
        if self.locator is None or details is None:
            return matches
        return locate_matches(self.locator, matches, details, 2 * self.config.grid)


def _backbone(config: ModelConfig) -> nn.Module:
    if config.backbone == 'efficientnet_lite0':
        return EfficientNetLite0()
    if config.image_size != PATCH * config.grid:
        raise ValueError(
            f'image_size is {config.image_size}, expected {PATCH} times the grid {config.grid}'
        )
    return DinoFeatures(
        DinoV2(config.backbone_width, config.backbone_depth, config.backbone_heads, PATCH)
    )
