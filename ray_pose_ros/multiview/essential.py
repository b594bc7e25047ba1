"""Relative poses from matches alone: robust five-point estimation on unit rays.

PoseLib where it is installed (locally optimised RANSAC: better and faster in our measurements),
OpenCV otherwise. Both want points of a plane, so rays are first turned to look forwards and those
at more than MAX_ANGLE from the middle are left out; what is left serves any central camera.
"""

from __future__ import annotations

import cv2
import numpy as np

from ray_pose_ros.geometry.so3 import rotation_from_vector

from .two_view import RayMatches, support

MAX_ANGLE = np.radians(75.0)
_UNIT = 1000.0  # pixels that PoseLib is told the focal length to be


def essential_poses(
    matches: RayMatches, threshold: float, iterations: int = 3000, solver: str | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Relative poses (R, t), at most one; none where there are too few matches.

    Args:
        matches: at least 6 for an answer.
        threshold: of the epipolar error, in standard deviations of a typical match.
        iterations: of RANSAC at most.
        solver: 'poselib' or 'opencv'; by default the first that is there.
    """
    turn_a, turn_b, first, second = image_points(matches)
    if len(first) < 6:
        return []
    threshold = threshold * float(np.median(matches.sigma))
    solve = _opencv if (solver or default_solver()) == 'opencv' else _poselib
    return [
        (turn_b.T @ R @ turn_a, turn_b.T @ t)
        for R, t in solve(first, second, threshold, iterations)
    ]


def image_points(matches: RayMatches) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Matches as points of two image planes, for solvers that know no other.

    Returns the turns (3, 3) that take the rays of the first and the second camera forwards, and
    the points (K', 2) of those matches of which no ray is farther than MAX_ANGLE from forwards.
    """
    turn_a, turn_b = _turn_forwards(matches.a), _turn_forwards(matches.b)
    a, b = matches.a @ turn_a.T, matches.b @ turn_b.T
    limit = np.cos(MAX_ANGLE)
    keep = (a[:, 2] > limit) & (b[:, 2] > limit)
    return turn_a, turn_b, a[keep, :2] / a[keep, 2:], b[keep, :2] / b[keep, 2:]


def default_solver() -> str:
    """'poselib' where it is installed, else 'opencv'."""
    try:
        import poselib  # noqa: F401
    except ImportError:
        return 'opencv'
    return 'poselib'


def _turn_forwards(rays: np.ndarray) -> np.ndarray:
    """The smallest rotation (3, 3) that takes the rays' (K, 3) middle to +z."""
    middle = rays.mean(0)
    length = np.linalg.norm(middle)
    if length < 1e-6:
        return np.eye(3)
    middle = middle / length
    axis = np.cross(middle, [0.0, 0.0, 1.0])
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return np.eye(3) if middle[2] > 0 else np.diag([1.0, -1.0, -1.0])
    return rotation_from_vector(axis / sine * np.arctan2(sine, middle[2]))


def _poselib(first, second, threshold, iterations):
    import poselib

    camera = {'model': 'SIMPLE_PINHOLE', 'width': 1, 'height': 1, 'params': [_UNIT, 0.0, 0.0]}
    options = {
        'max_epipolar_error': threshold * _UNIT,
        'max_iterations': iterations,
        'min_iterations': min(100, iterations),
        'seed': 0,
    }
    pose, info = poselib.estimate_relative_pose(
        first * _UNIT, second * _UNIT, camera, camera, options, {}
    )
    t = np.asarray(pose.t)
    length = np.linalg.norm(t)
    if info['num_inliers'] < 5 or not np.isfinite(length) or length < 1e-12:
        return []
    return [(np.asarray(pose.R), t / length)]


def _opencv(first, second, threshold, iterations):
    cv2.setRNGSeed(0)
    E, _ = cv2.findEssentialMat(
        first,
        second,
        np.eye(3),
        method=cv2.USAC_MAGSAC,
        prob=0.9999,
        threshold=threshold,
        maxIters=iterations,
    )
    if E is None or E.shape != (3, 3) or not np.isfinite(E).all():
        return []
    R1, R2, t = cv2.decomposeEssentialMat(E)
    t = t[:, 0]
    rays = [np.column_stack([x, np.ones(len(x))]) for x in (first, second)]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rays)
    plain = RayMatches(a, b, np.full(len(a), threshold), a[0], b[0])
    candidates = [(R, s * t) for R in (R1, R2) for s in (1, -1)]
    scores = [support(R, t, plain, 1.0)[0] for R, t in candidates]
    return [candidates[int(np.argmax(scores))]]
