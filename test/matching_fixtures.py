"""Rendered views with truth for the tests of matchers and of the baselines built on them."""

from __future__ import annotations

from functools import cache

import numpy as np

from ray_pose_ros.matching import MatcherUnavailable, create_matcher
from ray_pose_ros.synthetic import orbit, sample_scene

WIDTH, HEIGHT = 400, 300


@cache
def textured_views(count: int = 4, steps: int = 24):
    """(camera, R, t, rendering) of an object on a textured floor, 360 / steps degrees apart."""
    scene = sample_scene(0, 'test')
    cameras = orbit(scene, steps, WIDTH, HEIGHT)[:count]
    # a backdrop would stay while the camera moves
    black = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [(c, R, t, scene.render(c, R, t, background=black)) for c, R, t in cameras]


def epipolar_distances(one, other, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pixels (K,) from points b (K, 2) to the true epipolar lines of points a (K, 2)."""
    (camera_a, R_a, t_a, _), (camera_b, R_b, t_b, _) = one, other
    R = R_b @ R_a.T
    x, y, z = t_b - R @ t_a
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    K_a, K_b = (np.asarray(c.matrix) for c in (camera_a, camera_b))
    F = np.linalg.inv(K_b).T @ cross @ R @ np.linalg.inv(K_a)
    lines = np.c_[a, np.ones(len(a))] @ F.T
    found = (lines * np.c_[b, np.ones(len(b))]).sum(1)
    return np.abs(found) / np.linalg.norm(lines[:, :2], axis=1)


@cache
def matcher_or_reason(name: str):
    """The matcher, or in words why it is not there."""
    try:
        return create_matcher(name)
    except MatcherUnavailable as error:
        return str(error)
