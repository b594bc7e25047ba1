"""What a ray diffusion network is made of: read from a checkpoint, never guessed."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

BACKBONES = ('dinov2', 'efficientnet_lite0')
GEOMETRIES = ('ndc', 'directions')
ATTENTIONS = ('global', 'alternating')
VIEW_CODES = ('index', 'reference')
PREDICTIONS = ('x0', 'epsilon')
HEADS = 4  # of the descriptors that place matches (`locating.py`)
SIGMA_TERMS = ('rotation_sigma', 'centre_sigma', 'matched_rotation_sigma', 'matched_centre_sigma')


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of a `RayDiffuser`; the defaults are the official ones.

    The official release (`co3d_diffusion`, `co3d_regression`) and the project's own smaller
    models are the same classes with other numbers. Fields that only the project's own models use
    are off by default.

    Attributes:
        backbone: image features, 'dinov2' or 'efficientnet_lite0'.
        backbone_width, backbone_depth, backbone_heads: DINOv2 only.
        image_size: side of the square crops in pixels.
        grid: patches along a side; one ray each.
        width, depth, heads, mlp_ratio: the denoising transformer.
        max_views: largest number of views that one attention pass takes.
        geometry: what the network is told of a patch: 'ndc' (2 channels, PyTorch3D NDC of its
            centre, as the official model) or 'directions' (3 channels, unit direction in the
            virtual camera looking at the crop's centre).
        attention: 'global' over all views in each block, or 'alternating' within a view and over
            all views.
        view_code: 'index' adds a code for each place in the set; 'reference' only tells the first
            view from the others.
        prediction: what the network returns, 'x0' (rays) or 'epsilon' (noise).
        regression: trained for a single pass from pure noise.
        matching: width of the matching descriptors; 0 turns correspondence input off.
        rematch: number of times that matching is repeated between blocks, with descriptors that
            know the other views (needs `matching` and alternating attention).
        residual: the network's output is added to the rays of an unrotated reference camera.
        anchor_reference: the first view's rays are the gauge: known, and given clean.
        scale_input: noisy rays enter multiplied by sqrt(alpha_bar), so that pure noise enters as
            almost nothing.
        auxiliary: also predict a 3D point a patch and the up vector (used in training).
        upright: width of the head that tells how crops are turned (`upright.py`); 0 for none.
        locate: width of the descriptors that place matches within cells (`locating.py`, needs
            `rematch`); 0 for none.
        steps, beta_start, beta_end: linear noise schedule.
        sample_steps: network calls that sampling takes unless told otherwise; 0 means all that
            the read-out needs.
        readout: the integer time at which the predicted rays are read out.
        second_look: the time to which the rays of cameras that were adjusted to the network's
            matches are noised, for it to look again; 0 for a network that looks once.
        rotation_sigma, centre_sigma: how the spread of S samples and the misfit of the rays become
            a standard deviation, sqrt((a S^b spread)^2 + (c misfit)^2 + d^2): the numbers a, b, c,
            d, in radians and in distances of the first camera. Fitted by `ray-pose calibrate`.
        matched_rotation_sigma, matched_centre_sigma: the same for cameras that were adjusted to
            the network's matches, from the deviation that the adjustment tells, the standard
            deviation from before it, and the nats by which matches join the view to the first:
            sqrt((f deviation^a before^b (1 + nats)^c)^2 + e^2), the numbers f, a, b, c, e.
    """

    backbone: str = 'dinov2'
    backbone_width: int = 384
    backbone_depth: int = 12
    backbone_heads: int = 6
    image_size: int = 224
    grid: int = 16
    width: int = 1152
    depth: int = 16
    heads: int = 16
    mlp_ratio: float = 4.0
    max_views: int = 8
    geometry: str = 'ndc'
    attention: str = 'global'
    view_code: str = 'index'
    prediction: str = 'x0'
    regression: bool = False
    matching: int = 0
    rematch: int = 0
    residual: bool = False
    anchor_reference: bool = False
    scale_input: bool = False
    auxiliary: bool = False
    upright: int = 0
    locate: int = 0
    steps: int = 100
    beta_start: float = 1e-4
    beta_end: float = 0.2
    sample_steps: int = 0
    readout: int = 29
    second_look: int = 0
    rotation_sigma: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.0087)
    centre_sigma: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 0.005)
    matched_rotation_sigma: tuple[float, ...] = (2.0, 1.0, 0.0, 0.0, 0.0087)
    matched_centre_sigma: tuple[float, ...] = (2.0, 1.0, 0.0, 0.0, 0.005)

    def __post_init__(self):
        _check_choice('backbone', self.backbone, BACKBONES)
        _check_choice('geometry', self.geometry, GEOMETRIES)
        _check_choice('attention', self.attention, ATTENTIONS)
        _check_choice('view_code', self.view_code, VIEW_CODES)
        _check_choice('prediction', self.prediction, PREDICTIONS)
        for name in ('image_size', 'grid', 'width', 'depth', 'heads', 'max_views', 'steps'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, expected a positive integer')
        if self.width % self.heads:
            raise ValueError(f'width {self.width} is not a multiple of heads {self.heads}')
        if not 0 <= self.readout < self.steps:
            raise ValueError(f'readout is {self.readout}, expected 0 to {self.steps - 1}')
        if not 0 <= self.second_look < self.steps:
            raise ValueError(f'second_look is {self.second_look}, expected 0 to {self.steps - 1}')
        if self.second_look and not self.rematch:
            raise ValueError(f'second_look is {self.second_look}, but rematch is 0: no matches')
        for name in SIGMA_TERMS:
            terms = tuple(float(term) for term in getattr(self, name))
            object.__setattr__(self, name, terms)  # a list where it comes from JSON
            count = 5 if name.startswith('matched') else 4
            if len(terms) != count or not all(map(math.isfinite, terms)) or not terms[-1] > 0:
                raise ValueError(
                    f'{name} is {terms}, expected {count} numbers, the last of them positive'
                )
        if self.geometry == 'ndc' and (self.residual or self.anchor_reference or self.matching):
            raise ValueError(
                "residual, anchor_reference and matching need geometry 'directions', got 'ndc'"
            )
        if self.upright < 0 or (self.upright and self.geometry == 'ndc'):
            raise ValueError(
                f"upright is {self.upright}, expected 0, or a width with geometry 'directions'"
            )
        if self.locate and (not self.rematch or self.locate < 0 or self.locate % HEADS):
            raise ValueError(
                f'locate is {self.locate}, expected 0, or a multiple of {HEADS} with rematch'
            )
        if self.rematch and (not self.matching or self.attention != 'alternating'):
            raise ValueError("rematch needs matching and attention 'alternating'")
        if not 0 <= self.rematch < max(1, self.depth // 2):
            raise ValueError(
                f'rematch is {self.rematch}, expected 0 to {self.depth // 2 - 1} at depth '
                f'{self.depth}: it happens after blocks over all views but the last'
            )
        if self.matching and self.backbone != 'efficientnet_lite0':
            raise ValueError(f'matching is not available with backbone {self.backbone!r}')

    @property
    def geometry_channels(self) -> int:
        return 2 if self.geometry == 'ndc' else 3

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> 'ModelConfig':
        """Build from a plain mapping; unknown names raise ValueError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f'unknown model settings {unknown}, expected among {sorted(known)}')
        return cls(**values)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name} is {value!r}, expected one of {list(choices)}')
