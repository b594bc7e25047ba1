"""The views of one solution as the network sees them, and what it tells of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ray_pose_ros.estimation.preparation import Prepared
from ray_pose_ros.estimation.settling import Settled
from ray_pose_ros.estimation.solution import rays_of_cameras
from ray_pose_ros.geometry.pytorch3d import rays_p3d_to_opencv
from ray_pose_ros.geometry.rays import to_grid, to_tokens
from ray_pose_ros.model.denoiser import Context
from ray_pose_ros.model.matching import MutualMatches
from ray_pose_ros.model.plans import Plan
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.sampler import sample


class Window(NamedTuple):
    """N views as they go into the network, and what it makes of them once, however often it looks.

    order: (S, N) or (1, N) the views of each sample, its reference first.
    """

    prepared: Sequence[Prepared]
    order: Tensor
    samples: int
    context: Context

    @classmethod
    def of(
        cls, model: RayDiffuser, prepared: Sequence[Prepared], samples: int, one_pass: bool
    ) -> Window:
        """These views for so many samples, fewer where more tell nothing new.

        A model that anchors its reference knows that one exactly and the others through it, so
        that each sample takes another view as reference: their errors are then different ones.
        """
        config = model.config
        features = torch.stack([p.features for p in prepared])
        geometry = torch.stack([p.geometry for p in prepared])
        order = torch.arange(len(prepared))[None]
        if config.anchor_reference:
            if config.scale_input and one_pass:
                # which hardly sees the noise: a second one of the same reference tells nothing
                samples = min(samples, len(prepared))
            order = _orders(len(prepared), samples)
        return cls(
            prepared, order, samples, model.condition(features[None], geometry[None], order)
        )

    def rays_of(self, settled: Settled, grid: int) -> Tensor:
        """(S, N, 6, h, w) what cameras look like to the network, to start from."""
        R, t = (torch.from_numpy(x) for x in (settled.R, settled.t))
        rays = rays_of_cameras(self.prepared, R, t, self.order.expand(self.samples, -1))
        return torch.stack([to_grid(x, grid, grid) for x in rays]).float()

    def predict(
        self,
        model: RayDiffuser,
        plan: Plan,
        generator: torch.Generator,
        progress: Callable[[int, int], None] | None = None,
        start: Tensor | None = None,
        use_matches: bool = True,
    ) -> tuple[Tensor, MutualMatches | None]:
        """Rays (S, N, P, 6) float64, OpenCV axes, each sample in its gauge, and the matches.

        start: rays to begin with instead of pure noise. Without matches where the model has none,
        where they are not to be used, and where not all intrinsics are known.
        """
        callback = progress and (lambda state: progress(state.index + 1, state.total))
        sampled = sample(
            model,
            self.context,
            plan,
            samples=self.samples,
            generator=generator,
            warm_start=start,
            callback=callback,
        )
        rays = to_tokens(sampled.rays.detach().cpu().double())
        if len(self.order) > 1:
            back = self.order.argsort(dim=1)
            rays = torch.stack([of_sample[i] for of_sample, i in zip(rays, back, strict=True)])
        if model.config.geometry == 'ndc':
            return rays_p3d_to_opencv(rays), None
        known = all(p.camera is not None for p in self.prepared)
        if sampled.matching is None or not (use_matches and known):
            return rays, None
        details = None
        if all(p.details is not None for p in self.prepared):
            details = torch.stack([p.details for p in self.prepared])
        return rays, model.mutual_matches(sampled.matching, self.order, details)


def _orders(views: int, samples: int) -> Tensor:
    """(S, N): the views with another one in front for each sample, in turns."""
    first = torch.arange(samples) % views
    rest = torch.stack([torch.cat([torch.arange(i), torch.arange(i + 1, views)]) for i in first])
    return torch.cat([first[:, None], rest], dim=1)
