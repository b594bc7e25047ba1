"""The plain sampling loop of the official release, to measure the project's sampler against.

Nothing here is clever on purpose: all hundred steps are run, each embeds features, rays and NDC
anew with the whole 392-channel convolution, adds both position tables, draws noise that is then
multiplied by zero, and keeps every state. Image features are computed once, as the official code
does too. The layers are the model's own, so that a ratio of times tells of the loop alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ray_pose_ros.model.ray_diffuser import RayDiffuser


@dataclass(frozen=True)
class ReferenceRun:
    """`predictions[i]` are the normalised rays predicted at time steps - 1 - i, and `states[i]`
    the state before that call; `states` has one more. All (B, N, 6, h, w)."""

    predictions: list[Tensor]
    states: list[Tensor]


@torch.no_grad()
def reference_loop(
    model: RayDiffuser, images: Tensor, ndc: Tensor, x_init: Tensor | None = None
) -> ReferenceRun:
    """Run every step of the released setting (x0 prediction, `rescale_noise` zero).

    Args:
        model: with the official architecture.
        images: (B, N, 3, S, S) in [0, 1].
        ndc: (B, N, 2, h, w) of the patch centres.
        x_init: noise to start from (B, N, 6, h, w), drawn if None.
    """
    features = model.encode(images)
    shape = (*features.shape[:2], 6, *features.shape[-2:])
    x = torch.randn(shape, device=features.device) if x_init is None else x_init
    schedule = model.noise_scheduler
    predictions, states = [], [x]
    for t in reversed(range(schedule.steps)):
        prediction = reference_forward(model, features, x, ndc, t)
        direction, moment = prediction[:, :, :3], prediction[:, :, 3:]
        length = direction.norm(dim=2, keepdim=True)
        direction = direction / length
        moment = moment - (direction * moment).sum(dim=2, keepdim=True) * direction / length
        prediction = torch.cat([direction, moment], dim=2)

        now = schedule.alphas_cumprod[t]
        then = schedule.alphas_cumprod[t - 1] if t > 0 else torch.ones_like(now)
        mean = then.sqrt() * schedule.betas[t] / (1 - now) * prediction
        mean = mean + schedule.alphas[t].sqrt() * (1 - then) / (1 - now) * x
        noise = torch.randn_like(x) if t > 0 else torch.zeros_like(x)
        x = (mean + 0 * schedule.betas[t] * noise).clamp(-5, 5)
        predictions.append(prediction)
        states.append(x)
    return ReferenceRun(predictions, states)


def reference_forward(
    model: RayDiffuser, features: Tensor, x: Tensor, ndc: Tensor, t: int
) -> Tensor:
    """One call of the network (B, N, 6, h, w), with nothing prepared in advance."""
    network = model.ray_predictor
    batch, views = x.shape[:2]
    y = torch.cat([features, x, ndc], dim=2).flatten(0, 1)  # (B N, C + 8, h, w)
    y = network.x_embedder.proj(y)
    y = y.flatten(2).transpose(1, 2).unflatten(0, (batch, views))  # (B, N, h w, D)
    y = y + network.x_pos_enc.image_pos_table[:, :views].unsqueeze(2)
    y = y + network.x_pos_enc.token_pos_table.unsqueeze(1)
    y = y.flatten(1, 2)  # (B, N h w, D)
    time = network.t_embedder(torch.full((batch,), t, device=x.device))
    for block in network.blocks:
        y = block(y, time)
    y = network.final_layer(y, time)
    grid = x.shape[-1]
    return y.view(batch, views, grid, grid, 6).permute(0, 1, 4, 2, 3)
