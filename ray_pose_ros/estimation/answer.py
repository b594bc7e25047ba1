"""Cameras from what the network has told of a window: rays of several samples, and matches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ray_pose_ros.estimation.consensus import consensus, fit_residuals
from ray_pose_ros.estimation.preparation import Prepared
from ray_pose_ros.estimation.settling import Settled, put_together, ray_matches, settle
from ray_pose_ros.estimation.solution import (
    EstimationError,
    patch_directions,
    publish,
    recover,
)
from ray_pose_ros.estimation.uncertainty import Doubts, MatchedDoubts
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.matching import MutualMatches
from ray_pose_ros.multiview.two_view import RayMatches


@dataclass(frozen=True)
class Answer:
    """Cameras of N views in the published world.

    Attributes:
        R, t: (N, 3, 3), (N, 3) by the rays alone, averaged over the samples.
        cameras: intrinsics used or found. rays: (N, P, 6) of the sample nearest to the average.
        samples: (S, N, 3, 3) rotations. agreement, modes: see `consensus`.
        doubts: what the uncertainty of R, t is made from.
        rotation_sigma, centre_sigma: (N,) that uncertainty, rad and world units.
        settled: the cameras adjusted to the matches; None without any.
        matches: of each look at other crops, as the network tells them, by pair of views.
    """

    R: np.ndarray
    t: np.ndarray
    cameras: tuple[CameraModel, ...]
    rays: Tensor
    samples: np.ndarray
    agreement: float
    modes: int
    doubts: Doubts
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    settled: Settled | None = None
    matches: tuple[dict[tuple[int, int], RayMatches], ...] = ()

    def final(self, config: ModelConfig):
        """R, t, their doubts and their standard deviations (N,), matches included if any."""
        settled = self.settled
        if settled is None:
            return self.R, self.t, self.doubts, self.rotation_sigma, self.centre_sigma
        doubts = MatchedDoubts(
            settled.rotation_deviation,
            self.rotation_sigma,
            settled.centre_deviation,
            self.centre_sigma,
            settled.support,
        )
        return settled.R, settled.t, doubts, *doubts.sigmas(config)


def answer(
    prepared: Sequence[Prepared],
    rays: Tensor,
    matches: MutualMatches | None,
    config: ModelConfig,
    first: Answer | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> Answer:
    """The cameras that rays (S, N, P, 6) float64 and matches tell.

    first: what the network told before it was shown these cameras, or near ones. The samples of
    a second look are no independent answers, so that their spread tells nothing: uncertainty,
    samples and modes stay those of the first, and so do the rays, which are of its crops. Its
    matches, if it has any, count beside the new ones. pulse: called between steps; it may raise.

    Raises EstimationError where numbers are not finite or no cameras fit them.
    """
    names = [p.name for p in prepared]
    _check_finite(rays, names, 'the network predicted NaN or infinite rays')
    R, t, cameras = recover(prepared, rays)
    R, t, rays = publish(R, t, rays)
    _check_finite(torch.cat([R.flatten(2), t], dim=-1), names, 'no camera fits the rays')
    agreed = consensus(R, t)
    best = agreed.index
    used = tuple(of_samples[best] for of_samples in cameras)
    directions = torch.stack([patch_directions(*x) for x in zip(prepared, used, strict=True)])
    angle, miss = fit_residuals(rays[best], R[best], t[best], directions)
    doubts = Doubts(
        len(R), *(x.numpy() for x in (agreed.rotation_sigma, angle, agreed.centre_sigma, miss))
    )
    found = Answer(
        agreed.R.numpy(),
        agreed.t.numpy(),
        used,
        rays[best],
        R.numpy(),
        agreed.agreement,
        agreed.modes,
        doubts,
        *doubts.sigmas(config),
    )
    others = found.samples
    if first is not None:
        kept = 'rays', 'samples', 'agreement', 'modes', 'doubts', 'rotation_sigma', 'centre_sigma'
        found = replace(found, **{name: getattr(first, name) for name in kept})
        others = first.settled.R[None]
    if matches is None:
        return found
    own = ray_matches(prepared, matches, 2 * config.grid)
    every = (*first.matches, own) if first else (own,)
    settled = settle(found.R, found.t, found.rotation_sigma, put_together(every), others, pulse)
    return replace(found, settled=settled, matches=every)


def _check_finite(values: Tensor, names: Sequence[str], what: str) -> None:
    """`values` (S, N, ...)."""
    bad = ~torch.isfinite(values).flatten(2).all(dim=-1).all(dim=0)
    if bad.any():
        which = ', '.join(name for name, wrong in zip(names, bad.tolist(), strict=True) if wrong)
        raise EstimationError(f'{what} for {which}')
