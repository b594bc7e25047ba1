"""From noise to rays: one loop for every plan.

The network's context (image features and geometry, embedded) is made once by
`RayDiffuser.condition` and shared by all steps and by all samples of a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .denoiser import Context
from .matching import Rematch
from .plans import Plan, Step, default_plan

if TYPE_CHECKING:
    from .ray_diffuser import RayDiffuser


@dataclass(frozen=True)
class Progress:
    """Given to the callback after each step: `index` of `total`, time `t`, and (B, N, 6, h, w)
    `before` (the state that the network saw), `prediction` and `after`."""

    index: int
    total: int
    t: int
    before: Tensor
    prediction: Tensor
    after: Tensor


@dataclass(frozen=True)
class Sampled:
    """Result of `sample`, all (B, N, 6, h, w).

    `rays` is the answer: the clean rays predicted by the last call. `before` and `after` are the
    state around that call; the official code's other read-out, its 'final' cameras, is `before`
    of a run to t = 0. `matching` is what the last repeated matching of that call found, None for
    models without.
    """

    rays: Tensor
    before: Tensor
    after: Tensor
    matching: Rematch | None = None


@dataclass(frozen=True)
class KnownRays:
    """Views whose rays are given instead of estimated.

    Attributes:
        rays: (1 or B, N, 6, h, w); only the marked views are read.
        views: (N,) bool.
        until: the views are held at their noised rays while t >= until, and set free below. 0
            holds them to the end; a middle time only starts them from there.
    """

    rays: Tensor
    views: Tensor
    until: int = 0


@torch.inference_mode()
def sample(
    model: 'RayDiffuser',
    context: Context,
    plan: Plan | None = None,
    *,
    samples: int = 1,
    generator: torch.Generator | None = None,
    x_init: Tensor | None = None,
    noises: Tensor | None = None,
    warm_start: Tensor | None = None,
    known: KnownRays | None = None,
    max_views: int | None = None,
    permutations: Tensor | None = None,
    callback: Callable[[Progress], None] | None = None,
) -> Sampled:
    """Denoise the rays of all views of a window.

    Args:
        model: network and schedule.
        context: of one window, batch 1 or `samples`.
        plan: times and weights, by default `default_plan`.
        samples: batch of independent answers B; they share the context.
        generator: of the noise. Draws are made on the generator's device and then moved, so that
            a seed means the same noise on every device. Order: x_init, then one draw a step that
            uses noise.
        x_init: state at the first step (B or 1, N, 6, h, w), instead of a draw. With
            `warm_start` it is the noise that is added.
        noises: recorded fresh noise (steps, B, N, 6, h, w), instead of draws.
        warm_start: clean rays (B or 1, N, 6, h, w) of an earlier answer, noised to the time of
            the plan's first step.
        known: views that are given.
        max_views: largest number of views in one pass, by default what the model can do. Larger
            windows are split, as the official code does: every step, views 1.. are dealt at
            random into groups, each led by view 0, whose predictions are averaged.
        permutations: recorded order of views 1..N-1, counted from 0: (steps, N - 1).
        callback: called after every step. It may raise to abandon the run.

    Raises:
        ValueError: shapes that do not fit the window.
    """
    plan = default_plan(model.config, model.noise_scheduler) if plan is None else plan
    draw = _Noise(model, context, samples, generator)
    noise = draw.given(x_init, 'x_init') if x_init is not None else draw()
    x = noise
    if warm_start is not None:
        rays = draw.given(warm_start, 'warm_start')
        x = model.noise_scheduler.add_noise(rays, noise, plan.steps[0].t)
    if noises is not None and len(noises) < len(plan.steps) - 1:
        raise ValueError(f'{len(noises)} recorded noises for {len(plan.steps)} steps')
    pinned = None if known is None else _Pinned(model, known, draw, noise)
    split = _Split(model, context, max_views, permutations, generator)

    for index, step in enumerate(plan.steps):
        if pinned:
            x = pinned.hold_state(x, step.t)
        found: list[Rematch] = []
        prediction = split.denoise(x, step.t, index, found)
        if plan.noise_to_rays is not None:
            signal, deviation = plan.noise_to_rays[index]
            prediction = (x - deviation * prediction) / signal
        prediction = normalise_prediction(prediction, plan.normalise)
        if pinned:
            prediction = pinned.hold_prediction(prediction, step.t)
        after = _advance(step, prediction, x)
        if step.noise_weight:
            fresh = draw() if noises is None else noises[index].to(x)
            after = after + step.noise_weight * fresh
        if plan.clamp is not None:
            after = after.clamp(-plan.clamp, plan.clamp)
        if callback is not None:
            callback(Progress(index, len(plan.steps), step.t, x, prediction, after))
        before, x = x, after
    rays = x if plan.raw_noise else prediction
    return Sampled(rays, before, x, found[-1] if found else None)


def normalise_prediction(rays: Tensor, kind: str) -> Tensor:
    """Bring predicted rays (B, N, 6, h, w) back to Plücker coordinates.

    'unit' makes directions unit and moments orthogonal to them. 'official' does what the released
    sampler does: the part of the moment along the direction is divided by the direction's length
    once too often before it is taken off, so it only vanishes for directions of unit length.
    'none' leaves the rays as they are.
    """
    if kind == 'none':
        return rays
    direction, moment = rays.split(3, dim=2)
    length = torch.linalg.vector_norm(direction, dim=2, keepdim=True).clamp(min=1e-8)
    direction = direction / length
    along = (direction * moment).sum(dim=2, keepdim=True) * direction
    moment = moment - (along / length if kind == 'official' else along)
    return torch.cat([direction, moment], dim=2)


def _advance(step: Step, prediction: Tensor, x: Tensor) -> Tensor:
    return step.prediction_weight * prediction + step.x_weight * x


class _Noise:
    """Draws and checks tensors of the window's shape."""

    def __init__(self, model, context, samples, generator):
        embedded = context.embedded
        if embedded.shape[0] not in (1, samples):
            raise ValueError(f'context of batch {embedded.shape[0]} for {samples} samples')
        self.shape = (samples, embedded.shape[1], 6, *embedded.shape[-2:])
        self.like = model.noise_scheduler.betas
        self.generator = generator

    def __call__(self) -> Tensor:
        source = 'cpu' if self.generator is None else self.generator.device
        return torch.randn(self.shape, generator=self.generator, device=source).to(self.like)

    def given(self, x: Tensor, name: str) -> Tensor:
        if x.shape[1:] != self.shape[1:] or x.shape[0] not in (1, self.shape[0]):
            raise ValueError(f'{name} has shape {tuple(x.shape)}, expected {self.shape}')
        return x.to(self.like).expand(self.shape)


class _Pinned:
    """Holds known views at their rays, noised with one fixed draw as a sample would be."""

    def __init__(self, model, known: KnownRays, draw: _Noise, noise: Tensor):
        self.schedule = model.noise_scheduler
        self.rays = draw.given(known.rays, 'known rays')
        if known.views.shape != (noise.shape[1],):
            raise ValueError(
                f'known views have shape {tuple(known.views.shape)}, expected ({noise.shape[1]},)'
            )
        self.mask = known.views.to(noise.device, torch.bool).view(1, -1, 1, 1, 1)
        self.until = known.until
        self.noise = noise

    def hold_state(self, x: Tensor, t: int) -> Tensor:
        # A regression's time lies past the schedule, where everything is noise.
        if t < self.until or t >= self.schedule.steps:
            return x
        return torch.where(self.mask, self.schedule.add_noise(self.rays, self.noise, t), x)

    def hold_prediction(self, prediction: Tensor, t: int) -> Tensor:
        return prediction if t < self.until else torch.where(self.mask, self.rays, prediction)


class _Split:
    """Calls the network on the window, in groups where it has more views than fit one pass."""

    def __init__(self, model, context, max_views, permutations, generator):
        self.model, self.context = model, context
        limit = model.max_views if max_views is None else max_views
        self.limit = limit if limit is not None and context.views > limit else None
        if self.limit is not None and self.limit < 2:
            raise ValueError(f'max_views is {limit}, expected at least 2')
        self.permutations, self.generator = permutations, generator

    def denoise(self, x: Tensor, t: int, index: int, found: list[Rematch]) -> Tensor:
        if self.limit is None:
            return self.model.denoise(x, t, self.context, found)
        groups = self._order(index, x.shape[1] - 1).split(self.limit - 1)
        prediction = torch.zeros_like(x)
        for group in groups:
            views = [0, *(group + 1).tolist()]
            part = self.model.denoise(x[:, views], t, self.context.select(views))
            prediction[:, views[1:]] = part[:, 1:]
            prediction[:, 0] += part[:, 0] / len(groups)
        return prediction

    def _order(self, index: int, others: int) -> Tensor:
        if self.permutations is not None:
            return self.permutations[index]
        source = 'cpu' if self.generator is None else self.generator.device
        return torch.randperm(others, generator=self.generator, device=source)
