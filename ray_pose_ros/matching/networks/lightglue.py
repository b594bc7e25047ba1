"""LightGlue: attention within and between the points of two images decides which are the same.

Source: Lindenberger et al., "LightGlue: Local Feature Matching at Light Speed", 2023. Layers whose
answer is settled are skipped, and points that cannot match are dropped on the way (section 3.3).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LightGlue(nn.Module):
    """Parameter names are those of the published weights.

    Args:
        descriptors: their length.
        width, heads, layers: of the transformer.
        stop: share of points that must be sure of their answer to skip the other layers; None
            never skips, and then points are dropped whether they are sure or not.
        drop: a point is dropped where it is unmatchable with more than this confidence.
    """

    def __init__(
        self,
        descriptors: int,
        width: int = 256,
        heads: int = 4,
        layers: int = 9,
        stop: float | None = 0.95,
        drop: float = 0.99,
    ):
        super().__init__()
        self.stop, self.drop, self.layers = stop, drop, layers
        same = descriptors == width
        self.input_proj = nn.Identity() if same else nn.Linear(descriptors, width)
        self.posenc = PositionalEncoding(width // heads)
        self.transformers = nn.ModuleList([Layer(width, heads) for _ in range(layers)])
        self.log_assignment = nn.ModuleList([Assignment(width) for _ in range(layers)])
        self.token_confidence = nn.ModuleList([Confidence(width) for _ in range(layers - 1)])

    def compute_in(self, precision: torch.dtype) -> LightGlue:
        """Let attention, where the time goes, compute in float32, float16 or bfloat16.

        What the layers add up, and what is made of the sum, stays float32. Returns self.
        """
        self.transformers.to(precision)
        return self

    @property
    def precision(self) -> torch.dtype:
        return next(self.transformers.parameters()).dtype

    @torch.no_grad()
    def forward(
        self, points: tuple[Tensor, Tensor], descriptors: tuple[Tensor, Tensor], threshold: float
    ) -> tuple[Tensor, Tensor]:
        """Matches (K, 2) int64 and their probabilities (K,), at least `threshold`.

        Args:
            points: (M, 2) and (N, 2), centred on the image, its longer side from -1 to 1.
            descriptors: (M, D) and (N, D).
        """
        x = [self.input_proj(d) for d in descriptors]
        turns = [self.posenc(p).to(self.precision) for p in points]
        kept = [torch.arange(len(p), device=p.device) for p in points]
        total = sum(len(p) for p in points)
        for i, layer in enumerate(self.transformers):
            x = layer(x, turns)
            if i == self.layers - 1:
                break
            keep = [self.log_assignment[i].matchable(one) > 1 - self.drop for one in x]
            if self.stop is not None:
                level = 0.8 + 0.1 * math.exp(-4 * i / self.layers)
                sure = [self.token_confidence[i](one) for one in x]
                # dropped points count as sure
                if 1 - sum(int((one < level).sum()) for one in sure) / total > self.stop:
                    break
                keep = [can | (one <= level) for can, one in zip(keep, sure)]
            for side in (0, 1):
                keep[side] = torch.nonzero(keep[side])[:, 0]
                x[side], kept[side] = x[side][keep[side]], kept[side][keep[side]]
                turns[side] = turns[side][:, keep[side]]
            if not len(x[0]) or not len(x[1]):
                break
        if not len(x[0]) or not len(x[1]):
            return kept[0].new_zeros((0, 2)), x[0].new_zeros(0)
        score = self.log_assignment[i](*x)
        best, forth = score.max(1)
        back = score.max(0).indices
        index = torch.arange(len(forth), device=forth.device)
        keep = (back[forth] == index) & (best.exp() > threshold)
        chosen = [kept[0][keep], kept[1][forth[keep]]]
        return torch.stack(chosen, dim=-1), best[keep].exp()


class PositionalEncoding(nn.Module):
    """Cosines and sines (2, M, width) by which queries and keys are turned."""

    def __init__(self, width: int):
        super().__init__()
        self.Wr = nn.Linear(2, width // 2, bias=False)

    def forward(self, points: Tensor) -> Tensor:
        angle = self.Wr(points)
        return torch.stack([angle.cos(), angle.sin()]).repeat_interleave(2, dim=-1)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.self_attn, self.cross_attn = SelfAttention(width, heads), CrossAttention(width, heads)

    def forward(self, x: list[Tensor], turns: list[Tensor]) -> list[Tensor]:
        return self.cross_attn(*[self.self_attn(*one) for one in zip(x, turns)])


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.ffn = _feed_forward(width)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        y = x.to(turns.dtype)
        qkv = self.Wqkv(y).unflatten(-1, (self.heads, -1, 3)).transpose(0, 1)  # (H, M, d, 3)
        q, k, v = qkv.unbind(-1)
        found = _attend(_turn(q, turns), _turn(k, turns), v)
        return x + self.ffn(torch.cat([y, self.out_proj(found)], dim=-1))


class CrossAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_qk, self.to_v = nn.Linear(width, width), nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)
        self.ffn = _feed_forward(width)

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        y = [x.to(self.to_qk.weight.dtype) for x in (a, b)]
        (qa, va), (qb, vb) = ((self._split(self.to_qk(x)), self._split(self.to_v(x))) for x in y)
        found = self.to_out(_attend(qa, qb, vb)), self.to_out(_attend(qb, qa, va))
        return [x + self.ffn(torch.cat([z, m], dim=-1)) for x, z, m in zip((a, b), y, found)]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)


class Assignment(nn.Module):
    """Logarithm of the probability (M, N) that two points are the same."""

    def __init__(self, width: int):
        super().__init__()
        self.matchability, self.final_proj = nn.Linear(width, 1), nn.Linear(width, width)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        similarity = self.final_proj(a) @ self.final_proj(b).T / a.shape[-1] ** 0.5
        can = F.logsigmoid(self.matchability(a)) + F.logsigmoid(self.matchability(b)).T
        return F.log_softmax(similarity, 1) + F.log_softmax(similarity, 0) + can

    def matchable(self, x: Tensor) -> Tensor:
        return self.matchability(x)[:, 0].sigmoid()


class Confidence(nn.Module):
    """How sure a point is of its answer (M,), in [0, 1]."""

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.token(x)[:, 0]


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * width, 2 * width),
        nn.LayerNorm(2 * width),
        nn.GELU(),
        nn.Linear(2 * width, width),
    )


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(H, M, d), (H, N, d), (H, N, d) -> (M, H d)."""
    if q.dtype == torch.bfloat16 and q.device.type == 'cpu':
        # torch's fused attention does not use what the processor has for this precision
        share = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2)).softmax(-1)
        return torch.bmm(share, v).transpose(0, 1).flatten(1)
    found = F.scaled_dot_product_attention(q[None], k[None].contiguous(), v[None].contiguous())
    return found[0].transpose(0, 1).flatten(1)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate each pair of channels of x (H, M, d) by the angles of its point."""
    pairs = x.unflatten(-1, (-1, 2))
    crossed = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x * turns[0] + crossed * turns[1]
