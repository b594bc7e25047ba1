"""Matches of two keyframes as rays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.matching import Matcher
from ray_pose_ros.multiview.two_view import RayMatches

from .keyframe import TURNING, Keyframe, Turns
from .standing import Sides, without_standing

PLENTY = 60  # matches that show that the images are the right way up
_CLEAR = 2.5  # likeness of a turn, as a multiple of the next, that needs no second try


def correspond(
    a: Keyframe,
    b: Keyframe,
    cameras: tuple[CameraModel, CameraModel],
    centres: tuple[np.ndarray, np.ndarray],
    matchers: Sequence[Matcher],
    ways: Sequence[Turns],
    step: Callable[[], None] = lambda: None,
) -> tuple[RayMatches, int | None]:
    """All matches between keyframes a and b, but for what stands still before them.

    Args:
        cameras, centres: of the two; centres are the unit rays (3,) through the object's place in
            the images.
        matchers: whose matches are put together.
        ways: right angles by which a and b may have to be turned to be upright to each other;
            those matchers that mind take the way that gives most matches.
        step: called between things that take long; it may raise.

    Also returns the turn of b against a that PLENTY of such matches have shown, None if there are
    not so many.
    """
    rays_a, rays_b, sigmas, seen = [], [], [], []
    shown = None
    for matcher in matchers:
        if matcher.name in TURNING:
            fa, fb, found, _ = _matched(a, b, matcher, (0, 0), step)
        else:
            fa, fb, found, (own, its) = _most(a, b, matcher, ways, step)
            shown = (its - own) % 4 if len(found) >= PLENTY else shown
        seen.append((fa.points, fb.points, found.indices))
        points = fa.points[found.indices[:, 0]], fb.points[found.indices[:, 1]]
        ray_a, ray_b = (rays(c, p) for c, p in zip(cameras, points, strict=True))
        keep = np.isfinite(ray_a).all(1) & np.isfinite(ray_b).all(1)
        rays_a.append(ray_a[keep])
        rays_b.append(ray_b[keep])
        angle = [k.pixel_sigma(matcher) / focal(c) for k, c in zip((a, b), cameras, strict=True)]
        sigmas.append(np.full(keep.sum(), float(np.mean(angle))))
    found = RayMatches(
        np.concatenate(rays_a), np.concatenate(rays_b), np.concatenate(sigmas), *centres
    )
    stands = a.stands and b.stands
    return without_standing(found, lambda: _features(seen, cameras), stands), shown


def _features(seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]], cameras) -> Sides:
    """Of both images the rays of all features, and which are matched; seen: points and indices of
    each matcher."""
    sides = []
    for side, camera in enumerate(cameras):
        matched = [np.isin(np.arange(len(s[side])), s[2][:, side]) for s in seen]
        found = rays(camera, np.concatenate([s[side] for s in seen]))
        known = np.isfinite(found).all(1)
        sides.append((found[known], np.concatenate(matched)[known]))
    return sides


def rays(camera: CameraModel, pixels: np.ndarray) -> np.ndarray:
    """Unit rays (M, 3) of continuous pixels (M, 2), nan where the lens sees nothing."""
    return camera.unproject(torch.from_numpy(np.asarray(pixels, dtype=np.float64))).numpy()


def focal(camera: CameraModel) -> float:
    """Pixels a radian, near the axis."""
    return float((camera.matrix[0, 0] * camera.matrix[1, 1]).sqrt())


def _most(a: Keyframe, b: Keyframe, matcher: Matcher, ways: Sequence[Turns], step):
    """Features and matches of that way up which gives most of them, and the way.

    The first is tried before a view is looked at in any other way up, which costs more than
    matching; then that one, of the others, in which features look most alike.
    """
    tried = _matched(a, b, matcher, ways[0], step)
    if len(ways) == 1 or len(tried[2]) >= PLENTY:
        return tried
    alike = {}
    for way in ways:
        step()
        alike[way] = a.likeness(b, matcher, way)
    second = max(ways[1:], key=alike.__getitem__)
    if alike[ways[0]] > _CLEAR * alike[second]:
        return tried
    return max(tried, _matched(a, b, matcher, second, step), key=lambda x: len(x[2]))


def _matched(a: Keyframe, b: Keyframe, matcher: Matcher, way: Turns, step):
    own, its = way
    fa = a.features(matcher, own)
    step()
    fb = b.features(matcher, its)
    step()
    return fa, fb, a.matches(b, matcher, way), way
