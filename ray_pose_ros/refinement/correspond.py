"""Matches of two keyframes as rays: which way up to match them, and by which matchers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.matching import Matcher
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.two_view import RayMatches

from .keyframe import TURNING, Keyframe, turn_between

_CERTAIN = np.radians(35.0)  # rad: a prior surer than this tells how images are rolled
_PLENTY = 60  # matches that show that the images are the right way up
_VOTES = 12  # SIFT matches that tell the roll by their orientations


def correspond(
    a: Keyframe,
    b: Keyframe,
    cameras: tuple[CameraModel, CameraModel],
    centres: tuple[np.ndarray, np.ndarray],
    matchers: Sequence[Matcher],
    prior: Prior,
    i: int,
    j: int,
) -> RayMatches:
    """All matches between keyframes a and b, views i and j of the prior.

    centres are the unit rays (3,) through the object's place in the images. Matchers that mind
    the roll get it from the prior, else from SIFT's orientations, else all four are tried.
    """
    rays_a, rays_b, sigmas = [], [], []
    turns = None
    if prior.pair_sigma(i, j) < _CERTAIN:
        turns = [turn_between(prior.R[j] @ prior.R[i].T)]
    for matcher in sorted(matchers, key=lambda m: m.name not in TURNING):
        if matcher.name in TURNING:
            fa, fb = a.features(matcher), b.features(matcher)
            found = a.matches(b, matcher)
            turns = turns or _voted(fa, fb, found)
        else:
            fa, fb, found = _most(a, b, matcher, turns or [0, 1, 3, 2])
        points = fa.points[found.indices[:, 0]], fb.points[found.indices[:, 1]]
        ray_a, ray_b = (rays(c, p) for c, p in zip(cameras, points, strict=True))
        keep = np.isfinite(ray_a).all(1) & np.isfinite(ray_b).all(1)
        rays_a.append(ray_a[keep])
        rays_b.append(ray_b[keep])
        angle = [k.pixel_sigma(matcher) / focal(c) for k, c in zip((a, b), cameras, strict=True)]
        sigmas.append(np.full(keep.sum(), float(np.mean(angle))))
    return RayMatches(
        np.concatenate(rays_a), np.concatenate(rays_b), np.concatenate(sigmas), *centres
    )


def rays(camera: CameraModel, pixels: np.ndarray) -> np.ndarray:
    """Unit rays (M, 3) of continuous pixels (M, 2), nan where the lens sees nothing."""
    return camera.unproject(torch.from_numpy(np.asarray(pixels, dtype=np.float64))).numpy()


def focal(camera: CameraModel) -> float:
    """Pixels a radian, near the axis."""
    return float((camera.matrix[0, 0] * camera.matrix[1, 1]).sqrt())


def _voted(fa, fb, found) -> list[int] | None:
    """The turn that most SIFT matches show by their orientations, if they agree."""
    if len(found) < _VOTES:
        return None
    angle_a, angle_b = fa.extra['angle'], fb.extra['angle']
    roll = angle_b[found.indices[:, 1]] - angle_a[found.indices[:, 0]]
    votes = np.bincount(np.round(roll / (np.pi / 2)).astype(int) % 4, minlength=4)
    return [int(votes.argmax())] if votes.max() > 0.5 * len(found) else None


def _most(a: Keyframe, b: Keyframe, matcher: Matcher, turns: Sequence[int]):
    best = None
    for turn in turns:
        fa, fb = a.features(matcher), b.features(matcher, turn)
        found = a.matches(b, matcher, turn)
        if best is None or len(found) > len(best[2]):
            best = fa, fb, found
        if len(found) >= _PLENTY:
            break
    return best
