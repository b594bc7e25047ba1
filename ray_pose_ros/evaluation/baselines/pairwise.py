"""Baseline of pairs: relative poses by essential matrices, then averaged to cameras."""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np

from ray_pose_ros.evaluation.methods import Answer
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.geometry.so3 import camera_translations
from ray_pose_ros.matching import Matcher

from .averaging import average_rotations, average_translations, largest_component
from .cache import MatchedViews, solve_sorted

_FAR = 1e4  # baselines: points further off than this count as not in front


@dataclass(frozen=True)
class Relative:
    """x_b = R x_a + t, with |t| = 1, the number of matches that agree, and the median angle
    between their two rays in radians."""

    R: np.ndarray
    t: np.ndarray
    inliers: int
    parallax: float


class PairwiseMethod:
    """See the package for the options. Views outside of the largest group of views that pairs
    connect are not placed."""

    def __init__(self, name: str, matcher: Matcher, min_inliers: int = 15, pixels: float = 1.0):
        self.name, self.min_inliers, self.pixels = name, min_inliers, pixels
        self._matched = MatchedViews(matcher)

    def begin(self, sequence: Sequence) -> None:
        """See Method."""
        self._matched.begin(sequence)

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        """See Method; nothing here is random."""
        return solve_sorted(self._solve, indices)

    def _solve(self, indices: np.ndarray) -> Answer:
        cache, views = self._matched.cache, len(indices)
        cache.spent = 0.0
        edges, found = [], []
        for a, b, seen_a, seen_b, matches in self._matched.pairs(indices):
            plane = seen_a.plane[matches.indices[:, 0]], seen_b.plane[matches.indices[:, 1]]
            limit = 2 * self.pixels / (seen_a.focal + seen_b.focal)
            key = 'pose', int(indices[a]), int(indices[b])
            pose = cache.get(key, lambda p=plane, e=limit: relative_pose(*p, e))
            if pose is not None and pose.inliers >= self.min_inliers:
                edges.append((a, b))
                found.append(pose)
        start = time.perf_counter()
        answer = _join(views, edges, found)
        seconds = cache.spent + time.perf_counter() - start
        if answer is None:
            return Answer.nothing(views, seconds)
        return Answer(*answer, seconds=seconds)


def relative_pose(a: np.ndarray, b: np.ndarray, limit: float) -> Relative | None:
    """Pose of the second camera in the first's frame, from matches (K, 2), (K, 2) on the plane
    z = 1, with errors up to `limit` on it; None where there is none."""
    if len(a) < 8:
        return None
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    eye = np.eye(3)
    E, inliers = cv2.findEssentialMat(a, b, eye, cv2.USAC_MAGSAC, 0.9999, limit)
    if E is None or E.shape != (3, 3) or not np.isfinite(E).all():
        return None
    # of the four answers, the one with most matches in front of both cameras, however far
    mask = inliers.copy()
    _, R, t, agree, _ = cv2.recoverPose(E, a, b, eye, distanceThresh=_FAR, mask=mask)
    agree = agree[:, 0] > 0
    if not agree.any() or not np.isfinite(R).all() or not np.isfinite(t).all():
        return None
    one, other = (_unit(x[agree]) for x in (a, b))
    cosine = ((one @ R.T) * other).sum(-1)
    parallax = float(np.median(np.arccos(np.clip(cosine, -1, 1))))
    return Relative(R, t[:, 0] / np.linalg.norm(t), int(agree.sum()), parallax)


def _unit(plane: np.ndarray) -> np.ndarray:
    rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _join(views: int, edges: list, found: list[Relative]):
    """R (N, 3, 3), t (N, 3), placed (N,), or None where no two views are connected."""
    weights = np.array([pose.inliers for pose in found], dtype=np.float64)
    members = largest_component(views, edges, weights)
    if len(members) < 2:
        return None
    place = {view: position for position, view in enumerate(members)}
    inside = [k for k, (a, _) in enumerate(edges) if a in place]
    local = np.array([[place[v] for v in edges[k]] for k in inside])
    R_pair = np.stack([found[k].R for k in inside])
    t_pair = np.stack([found[k].t for k in inside])
    R = average_rotations(local, R_pair, weights[inside])
    # all cameras look at about the same distance, so a pair's parallax tells its baseline
    parallax = np.array([max(found[k].parallax, 1e-3) for k in inside])
    centres = average_translations(local, R, t_pair, R_pair, weights[inside], parallax)
    R_all, t_all = np.tile(np.eye(3), (views, 1, 1)), np.zeros((views, 3))
    placed = np.zeros(views, dtype=bool)
    R_all[members], placed[members] = R, True
    t_all[members] = camera_translations(R, centres)
    return R_all, t_all, placed
