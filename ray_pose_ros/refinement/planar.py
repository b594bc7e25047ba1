"""Relative poses of matches that lie on a plane.

Matches on a plane, a table top say, have two meanings that fit them equally well (Longuet-Higgins,
"The reconstruction of a plane surface from two perspective projections", 1986), often 30 degrees
and more apart. Estimators of essential matrices return one of them, whichever noise prefers, so
both are made hypotheses here: what lies off the plane, the prior and the other views decide.
"""

import cv2
import numpy as np

from ray_pose_ros.multiview.essential import image_points
from ray_pose_ros.multiview.two_view import RayMatches

FEWEST = 8  # matches on the plane
_WIDEN = 1.6  # times the threshold of epipolar errors: here errors have two components


def planar_poses(matches: RayMatches, threshold: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Relative poses (R, t), |t| = 1, that a homography of the matches may mean: up to four.

    Half of them have the plane behind a camera; `support` tells. None where fewer than FEWEST
    matches lie on one plane, or where the camera only turned. threshold: of the epipolar error, in
    standard deviations of a typical match.
    """
    turn_a, turn_b, first, second = image_points(matches)
    if len(first) < FEWEST:
        return []
    cv2.setRNGSeed(0)
    limit = _WIDEN * threshold * float(np.median(matches.sigma))
    H, on = cv2.findHomography(first, second, cv2.RANSAC, limit)
    if H is None or not np.isfinite(H).all() or on.sum() < FEWEST:
        return []
    _, rotations, moves, _ = cv2.decomposeHomographyMat(H, np.eye(3))
    poses = []
    for R, t in zip(rotations, moves, strict=True):
        length = np.linalg.norm(t)
        if np.isfinite(R).all() and length > 1e-6:
            poses.append((turn_b.T @ R @ turn_a, turn_b.T @ t[:, 0] / length))
    return poses
