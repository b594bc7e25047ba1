"""Several answers of a generative model: what they say together, and how far to trust it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ray_pose_ros.geometry.rays import camera_centres, normalise_rays
from ray_pose_ros.geometry.rotations import geodesic_angle
from ray_pose_ros.geometry.similarity import transform_cameras
from ray_pose_ros.geometry.so3 import angle_between, nearest_rotation

MODE_ANGLE = math.radians(15.0)  # answers within this angle in every view are the same answer
_INLIER_ANGLE, _INLIER_SHIFT = math.radians(15.0), 0.25  # errors beyond lose their say
_ROUNDS = 15


@dataclass(frozen=True)
class Consensus:
    """What S samples of N cameras agree on.

    Attributes:
        R, t: (N, 3, 3), (N, 3), the robust average of the samples, first camera unrotated at
            distance 1; a single sample as it is.
        index: of the medoid, the sample nearest to all others.
        rotation_sigma, centre_sigma: (N,) spread around R, t, rad and gauge units; no floor yet.
        agreement: fraction of the samples in the medoid's mode, 1 for a single sample.
        modes: number of different answers among the samples.
    """

    R: Tensor
    t: Tensor
    index: int
    rotation_sigma: Tensor
    centre_sigma: Tensor
    agreement: float
    modes: int


def consensus(R: Tensor, t: Tensor) -> Consensus:
    """Compare samples R (S, N, 3, 3), t (S, N, 3) of the same cameras.

    Each is in the published world by its own first camera. That camera's error is then in all
    views of the sample, so for the average every sample is first turned and scaled as a whole.
    """
    centres = camera_centres(R, t)
    angles = geodesic_angle(R[:, None], R[None])  # (S, S, N)
    shifts = torch.linalg.vector_norm(centres[:, None] - centres[None], dim=-1)
    # One radian weighs as much as the first camera's distance.
    apart = (angles.square() + shifts.square()).mean(dim=-1).sqrt()
    index = int(apart.sum(dim=1).argmin())
    same = angles.amax(dim=-1) < MODE_ANGLE  # (S, S)
    mean_R, mean_t = (R[0], t[0]) if len(R) == 1 else robust_average(R, t, index)
    off = geodesic_angle(R, mean_R)
    shift = torch.linalg.vector_norm(centres - camera_centres(mean_R, mean_t), dim=-1)
    others = max(len(R) - 1, 1)
    return Consensus(
        R=mean_R,
        t=mean_t,
        index=index,
        rotation_sigma=(off.square().sum(dim=0) / others).sqrt(),
        centre_sigma=(shift.square().sum(dim=0) / others).sqrt(),
        agreement=float(same[index].double().mean()),
        modes=_count_modes(same),
    )


def robust_average(R: Tensor, t: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Average samples R (S, N, 3, 3), t (S, N, 3) from sample `start` on: R (N, 3, 3), t (N, 3).

    Rotation averaging over whole sets of cameras: in turns, each sample is rotated and scaled
    onto the average about the common origin, the object, and the average taken again, with
    Cauchy weights (Hartley et al., "Rotation averaging", IJCV 2013, for the problem).

    In NumPy and float64: on matrices this small a call of torch costs several times the work.
    """
    mean_R, mean_c = _average(R.double().numpy(), camera_centres(R, t).double().numpy(), start)
    mean_R, mean_c = torch.from_numpy(mean_R).to(R), torch.from_numpy(mean_c).to(t)
    mean_t = -(mean_R @ mean_c[..., None])[..., 0]
    distance = torch.linalg.vector_norm(mean_c[0])
    return transform_cameras(mean_R, mean_t, 1 / distance, mean_R[0], torch.zeros_like(mean_t[0]))


def _average(R: np.ndarray, centres: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The average rotations (N, 3, 3) and centres (N, 3), in the world of sample `start`."""
    mean_R, mean_c = R[start], centres[start]
    weight, weight_c = np.ones(R.shape[:2]), np.ones(R.shape[:2])
    back = R.swapaxes(-1, -2)
    for _ in range(_ROUNDS):
        turn = nearest_rotation(((weight[..., None, None] * back) @ mean_R).sum(axis=1))
        turned_R = R @ turn[:, None]
        turned_c = centres @ turn
        inner = (weight_c * (turned_c * mean_c).sum(axis=2)).sum(axis=1)
        square = (weight_c * (turned_c * turned_c).sum(axis=2)).sum(axis=1)
        # a sample on the other side of the object must not be scaled to nothing
        turned_c = turned_c * np.clip(inner / square, 0.5, 2.0)[:, None, None]
        angle = angle_between(turned_R, mean_R)
        off = turned_c - mean_c
        weight = 1 / (1 + (angle / _INLIER_ANGLE) ** 2)
        weight_c = 1 / (1 + (off * off).sum(axis=2) / _INLIER_SHIFT**2)
        mean_R = nearest_rotation((weight[..., None, None] * turned_R).sum(axis=0))
        mean_c = (weight_c[..., None] * turned_c).sum(axis=0) / weight_c.sum(axis=0)[:, None]
    return mean_R, mean_c


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
