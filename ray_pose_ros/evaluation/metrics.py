"""Accuracy of recovered cameras, by the definitions of the official evaluation.

Rotation: share of ordered pairs of views whose relative rotation is off by less than a threshold.
Camera centre: share of centres nearer to the truth than 0.1 of the scene's scale after the best
similarity; the scale is the distance from the centroid of all the sequence's cameras to the
furthest. With two views any answer aligns, so centre accuracy is 1 by construction.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from ray_pose_ros.geometry.rays import camera_centres
from ray_pose_ros.geometry.similarity import (
    camera_centre_errors,
    ordered_pairs,
    relative_rotation_errors,
    scene_scale,
)

ANGLE_BINS = (0, 15, 30, 45, 60, 90, 120, 180)  # degrees between optical axes


@dataclass
class Errors:
    """Errors of many subsets, pooled.

    Attributes:
        rotation: degrees, one an ordered pair.
        angle: true angle between the optical axes of each of these pairs, degrees.
        centre: fractions of the scene's scale, one a camera.
    """

    rotation: list[np.ndarray] = field(default_factory=list)
    angle: list[np.ndarray] = field(default_factory=list)
    centre: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        R: np.ndarray,
        t: np.ndarray,
        R_true: np.ndarray,
        t_true: np.ndarray,
        all_centres: np.ndarray,
    ) -> None:
        """Add one answer for N views; `all_centres` (M, 3) are those of the whole sequence."""
        R, t, R_true, t_true, all_centres = (
            torch.as_tensor(np.asarray(x, dtype=np.float64))
            for x in (R, t, R_true, t_true, all_centres)
        )
        i, j = ordered_pairs(len(R_true)).unbind(-1)
        cosine = (R_true[i, 2] * R_true[j, 2]).sum(-1).clamp(-1, 1)
        self.rotation.append(relative_rotation_errors(R, R_true).numpy())
        self.angle.append(torch.rad2deg(torch.acos(cosine)).numpy())
        centres = camera_centres(R, t), camera_centres(R_true, t_true)
        self.centre.append(camera_centre_errors(*centres, scene_scale(all_centres)).numpy())

    def summary(self) -> dict[str, float]:
        """R@5, R@15, R@30, CC@0.1 as fractions; median and 90th percentile rotation error."""
        rotation, centre = np.concatenate(self.rotation), np.concatenate(self.centre)
        return {
            'R@5': float((rotation < 5).mean()),
            'R@15': float((rotation < 15).mean()),
            'R@30': float((rotation < 30).mean()),
            'median': float(np.median(rotation)),
            'p90': float(np.percentile(rotation, 90)),
            'CC@0.1': float((centre < 0.1).mean()),
            'pairs': len(rotation),
        }

    def by_angle(self) -> dict[str, dict[str, float]]:
        """R@15 and the number of pairs by the true angle between optical axes."""
        rotation, angle = np.concatenate(self.rotation), np.concatenate(self.angle)
        found = {}
        for low, high in zip(ANGLE_BINS[:-1], ANGLE_BINS[1:]):
            inside = (angle >= low) & (angle < high if high < 180 else angle <= high)
            if inside.any():
                right = float((rotation[inside] < 15).mean())
                found[f'{low}-{high}'] = {'R@15': right, 'pairs': int(inside.sum())}
        return found


def same_cameras(views: int) -> tuple[np.ndarray, np.ndarray]:
    """The answer 'all cameras the same', (N, 3, 3), (N, 3)."""
    return np.tile(np.eye(3), (views, 1, 1)), np.tile([0.0, 0.0, 1.0], (views, 1))


def random_azimuth(
    R: np.ndarray, t: np.ndarray, up: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """True elevation and roll, but each camera turned about the vertical at random."""
    up = torch.as_tensor(up / np.linalg.norm(up))
    angle = torch.as_tensor(rng.uniform(0, 2 * np.pi, len(R)))
    cross = torch.zeros(3, 3, dtype=up.dtype)
    cross[0, 1], cross[0, 2], cross[1, 2] = -up[2], up[1], -up[0]
    cross = cross - cross.T
    turn = torch.linalg.matrix_exp(angle[:, None, None] * cross).numpy()
    return R @ turn, t
