"""Transformer layers of the denoiser: adaLN-Zero blocks as in DiT (Peebles and Xie, 2023)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift tokens `x` (B, L, D) by a vector (B, D) a sample."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


class Attention(nn.Module):
    """Multi-head self-attention with one qkv projection, rows ordered q, k, v."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x` (B, L, D); `bias` broadcastable to (B, heads, L, L) is added to the logits."""
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, D / heads)
        x = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(x.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two linear layers; `approximate` chooses the tanh or the exact GELU."""

    def __init__(self, width: int, hidden: int, approximate: str = 'none'):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x), approximate=self.approximate))


class Block(nn.Module):
    """Attention and MLP, each modulated and gated by the time embedding (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, int(width * mlp_ratio), approximate='tanh')
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self._start_open(width)

    def _start_open(self, width: int) -> None:
        """Begin as a plain transformer: no modulation, gates at 1.

        DiT begins with closed gates, which suits its very long training; open ones learn faster
        at first, which is what a small budget needs.
        """
        linear = self.adaLN_modulation[-1]
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        with torch.no_grad():
            linear.bias[2 * width : 3 * width] = 1
            linear.bias[5 * width :] = 1

    def forward(self, x: Tensor, time: Tensor, views: int = 1, bias: Tensor | None = None):
        """`x` (B, L, D), `time` (B, D). With `views` > 1 attention stays within each view."""
        batch, length, width = x.shape
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(time).chunk(
            6, dim=1
        )
        y = modulate(_norm(x), shift_a, scale_a)
        y = self.attn(y.view(batch * views, length // views, width), bias)
        x = torch.addcmul(x, gate_a.unsqueeze(1), y.reshape(batch, length, width))
        y = self.mlp(modulate(_norm(x), shift_m, scale_m))
        return torch.addcmul(x, gate_m.unsqueeze(1), y)


class FinalLayer(nn.Module):
    """Modulated norm and a linear map to the output channels."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time).chunk(2, dim=1)
        return self.linear(modulate(_norm(x), shift, scale))


class TimeEmbedding(nn.Module):
    """Integer time to a vector: 256 cosines and sines, then a two-layer MLP."""

    frequencies = 128

    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * self.frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, t: Tensor) -> Tensor:
        """`t` (B,) -> (B, width)."""
        k = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
        angle = t.float()[:, None] * torch.exp(-math.log(10000) * k / self.frequencies)
        code = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
        return self.mlp(code.to(self.mlp[0].weight.dtype))


class PositionTables(nn.Module):
    """Fixed sinusoidal codes of a view's place in the set and of a patch's place in the view.

    The official model uses the base 10000 for views and 70007 for patches (row-major).
    """

    def __init__(self, views: int, patches: int, width: int):
        super().__init__()
        self.register_buffer('image_pos_table', sinusoid_table(views, width, 10000))
        self.register_buffer('token_pos_table', sinusoid_table(patches, width, 70007))


def sinusoid_table(positions: int, width: int, base: float) -> Tensor:
    """(1, positions, width): sine in even and cosine in odd channels, computed in float64."""
    channel = torch.arange(width, dtype=torch.float64)
    frequency = base ** (-2 * torch.div(channel, 2, rounding_mode='floor') / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()[None]


def _norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)
