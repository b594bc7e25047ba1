"""Several answers of a generative model: which one to give, and how far to trust it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_pose_ros.geometry.rays import camera_centres, normalise_rays
from ray_pose_ros.geometry.rotations import geodesic_angle

# No estimate is better than this; a covariance of zero would break every filter downstream.
ROTATION_FLOOR = math.radians(0.5)  # rad
CENTRE_FLOOR = 0.005  # of the first camera's distance
MODE_ANGLE = math.radians(15.0)  # answers within this angle in every view are the same answer


@dataclass(frozen=True)
class Consensus:
    """What S samples of N cameras agree on.

    Attributes:
        index: of the medoid, the sample nearest to all others.
        rotation_sigma, centre_sigma: (N,) spread around it, rad and gauge units; no floor yet.
        agreement: fraction of the samples in the medoid's mode, 1 for a single sample.
        modes: number of different answers among the samples.
    """

    index: int
    rotation_sigma: Tensor
    centre_sigma: Tensor
    agreement: float
    modes: int


def consensus(R: Tensor, t: Tensor) -> Consensus:
    """Compare samples R (S, N, 3, 3), t (S, N, 3) of the same cameras in the same gauge."""
    centres = camera_centres(R, t)
    angles = geodesic_angle(R[:, None], R[None])  # (S, S, N)
    shifts = torch.linalg.vector_norm(centres[:, None] - centres[None], dim=-1)
    # One radian weighs as much as the first camera's distance.
    apart = (angles.square() + shifts.square()).mean(dim=-1).sqrt()
    index = int(apart.sum(dim=1).argmin())
    same = angles.amax(dim=-1) < MODE_ANGLE  # (S, S)
    others = max(len(R) - 1, 1)
    return Consensus(
        index=index,
        rotation_sigma=(angles[index].square().sum(dim=0) / others).sqrt(),
        centre_sigma=(shifts[index].square().sum(dim=0) / others).sqrt(),
        agreement=float(same[index].double().mean()),
        modes=_count_modes(same),
    )


def _count_modes(same: Tensor) -> int:
    """Modes by taking the most popular answer's neighbours away until nothing is left."""
    left = torch.ones(len(same), dtype=torch.bool)
    modes = 0
    while left.any():
        popularity = (same & left).sum(dim=1) * left
        left &= ~same[int(popularity.argmax())]
        modes += 1
    return modes


def fit_residuals(rays: Tensor, R: Tensor, t: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """How badly predicted rays (..., P, 6) fit a camera: rms angle (...) and rms distance (...).

    The angle is between predicted directions and the camera's `directions` (..., P, 3); the
    distance is between the predicted lines and the camera's centre.
    """
    rays = normalise_rays(rays)
    d, m = rays[..., :3], rays[..., 3:]
    expected = directions @ R
    angle = torch.atan2(
        torch.linalg.vector_norm(torch.linalg.cross(d, expected, dim=-1), dim=-1),
        (d * expected).sum(dim=-1),
    )
    centre = camera_centres(R, t)[..., None, :].expand_as(d)
    miss = torch.linalg.vector_norm(torch.linalg.cross(centre, d, dim=-1) - m, dim=-1)
    return angle.square().mean(dim=-1).sqrt(), miss.square().mean(dim=-1).sqrt()


def with_floor(spread: Tensor, residual: Tensor, floor: float) -> Tensor:
    """One standard deviation from the spread of samples, the fit's residual and the floor."""
    return (spread.square() + residual.square() + floor**2).sqrt()
