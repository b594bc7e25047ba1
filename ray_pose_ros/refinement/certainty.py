"""How far to trust each refined camera: the joint covariance, and who is joined to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ray_pose_ros.geometry.so3 import camera_translations
from ray_pose_ros.multiview.adjust import centre_deviations, deviations
from ray_pose_ros.multiview.links import other_ways, weakest_links
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.two_view import RayMatches

from .hypotheses import Hypothesis

SURE = np.radians(5.0)  # rad: a camera joined to the first and less uncertain is sure
# Chance that a link of belief x, nats, is a look-alike: logistic, from what photographs showed.
_HALF, _SLOPE = 3.0, 0.6
_LOST = np.radians(70.0)  # rad, rms: how far off a camera is whose matches are all wrong
_INFLATION = 2.0  # of the covariance's deviations: lenses and matches have errors in common
_ROTATION_FLOOR, _CENTRE_FLOOR = np.radians(0.2), 0.003


@dataclass(frozen=True)
class Certainty:
    """Refined cameras in the published world; fields as in RefinedEstimate.

    ray_matches: what they have been adjusted to; empty where nothing was learned from matches.
    """

    R: np.ndarray
    t: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    sure: np.ndarray
    matches: np.ndarray
    pairs: np.ndarray
    ray_matches: dict[tuple[int, int], RayMatches] = field(default_factory=dict)

    @classmethod
    def of_prior(cls, prior: Prior) -> Certainty:
        """Nothing was learned from matches."""
        n = len(prior.R)
        return cls(
            prior.R,
            camera_translations(prior.R, prior.centres),
            prior.rotation_sigma,
            prior.centre_sigma,
            np.zeros(n, dtype=bool),
            np.zeros(n, dtype=int),
            np.zeros((0, 2), dtype=int),
        )


def certainty(
    R: np.ndarray,
    t: np.ndarray,
    information: np.ndarray,
    prior: Prior,
    chosen: dict[tuple[int, int], Hypothesis],
) -> Certainty:
    """Move adjusted cameras to the published world and say how far off they may be.

    information (6N, 6N) is `adjust`'s. Spread and doubt are added: the spread is the joint
    covariance relative to the first camera; the doubt, the chance that the links to it are
    look-alikes, in which case the camera may be anywhere.
    """
    n = len(R)
    scale = np.linalg.norm(t[0])
    rotation, _ = deviations(R, information)
    centre = centre_deviations(R, t, information) / scale
    links = strengths(chosen, n)
    wrong = 1 / (1 + np.exp(np.clip(_SLOPE * (links - _HALF), -30, 30)))
    # nobody is lost further than the prior lets it be
    lost = np.minimum(_LOST * np.sqrt(wrong), prior.rotation_sigma * 2**0.5)
    rotation = np.sqrt((_INFLATION * rotation) ** 2 + lost**2 + _ROTATION_FLOOR**2)
    distance = np.linalg.norm(t, axis=1) / scale
    centre = np.sqrt((_INFLATION * centre) ** 2 + (lost * distance) ** 2)
    # where the first camera is and looks is what the world is made of: its own share is in all
    # the others
    rotation[0], centre[0] = rotation[1:].min(), centre[1:].min()
    matches = np.zeros(n, dtype=int)
    for (i, j), h in chosen.items():
        matches[[i, j]] += int(h.inliers.sum())
    turned = R @ R[0].T
    return Certainty(
        turned,
        t / scale,
        rotation,
        np.hypot(centre, _CENTRE_FLOOR),
        (links > 0) & (rotation < SURE),
        matches,
        np.array(sorted(chosen), dtype=int).reshape(-1, 2),
    )


def strengths(chosen: dict[tuple[int, int], Hypothesis], n: int) -> np.ndarray:
    """Nats (N,) of the weakest link on the strongest way to camera 0; for 0, its best link.

    A pair that two others confirm round a triangle is worth what they are, too; and at least what
    the weakest pair of the strongest ring is that it closes.
    """
    direct = np.full((n, n), -np.inf)
    for (i, j), h in chosen.items():
        direct[i, j] = direct[j, i] = h.belief
    rings = np.maximum(other_ways(direct), 0.0)
    link = direct.copy()
    for i, j in chosen:
        through = np.minimum(direct[i], direct[j])
        triangles = through[through > 0].sum()
        link[i, j] = link[j, i] = direct[i, j] + max(triangles, rings[i, j])
    return weakest_links(link)
