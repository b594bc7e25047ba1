"""The 3D points that matches show, of cameras that are known: a sparse reconstruction.

Matches of several pairs that share a feature are one track, and a track is one point: where its
rays miss it by the least angles. What no point explains is left out, and so are points of which
their rays hardly tell how far away they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ray_pose_ros.geometry.so3 import camera_centres

from .two_view import RayMatches

LEAST_WEIGHT = 0.99  # of a match by features; the network's own are coarse, and weigh less
_SAME_RAY = 1e-7  # rad: rays of one feature, which each pair computes for itself
_REACH = 3.0  # deviations of a ray, beyond which an observation is none of its track
_COMMON = 1e-3  # rad: what rays miss their point by besides, by the cameras
_MOST_SIGMA = 0.05  # of a point, over its distance from the nearest camera that sees it
_ROUNDS = 3
_EYE = np.eye(3)
# odd, and without pattern: sums of products with them, modulo 2^64, differ where the factors do
_MIXED = np.random.default_rng(0).integers(1 << 63, size=4, dtype=np.uint64) * 2 + 1


class Points(NamedTuple):
    """P points, and the T observations of them, a point's together.

    Attributes:
        xyz: (P, 3) world. sigma: (P,) one standard deviation, rms distance.
        point, view: (T,) which point is seen in which view; every point in two views or more, and
            in none twice.
        ray: (T, 3) where, a unit ray of the camera.
    """

    xyz: np.ndarray
    sigma: np.ndarray
    point: np.ndarray
    view: np.ndarray
    ray: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def triangulate(
    R: np.ndarray, t: np.ndarray, matches: dict[tuple[int, int], RayMatches]
) -> Points:
    """Points of cameras R (N, 3, 3), t (N, 3), world to camera, and matches of pairs (i, j)."""
    seen = _tracks(matches)
    centres = camera_centres(R, t)
    for last in (False, False, True):  # twice without what turns out not to belong to it
        xyz, error, ahead, information = _solve(seen, R, centres)
        fits = ahead & (error < _REACH * np.hypot(seen.sigma, _COMMON))
        if last or fits.all():
            break
        seen = seen.take(fits)
    if not len(seen.track):
        return Points(np.zeros((0, 3)), np.zeros(0), *_nothing())
    bad = np.bincount(seen.track, ~fits, len(xyz)) > 0
    # a point that all rays see in one direction is at any distance
    bent = np.linalg.eigvalsh(information)[:, 0] > 1e-9 * np.trace(information, axis1=1, axis2=2)
    covariance = np.linalg.inv(np.where(bent[:, None, None], information, _EYE))
    sigma = np.sqrt(np.trace(covariance, axis1=1, axis2=2))
    away = np.linalg.norm(xyz[seen.track] - centres[seen.view], axis=1)
    away = np.minimum.reduceat(away, np.searchsorted(seen.track, np.arange(len(xyz))))
    good = bent & ~bad & (sigma < _MOST_SIGMA * away)
    kept = seen.take(good[seen.track])
    return Points(xyz[good], sigma[good], kept.track, kept.view, kept.ray)


class _Seen(NamedTuple):
    """Observations (T,), those of a track together, tracks counted from 0."""

    track: np.ndarray
    view: np.ndarray
    ray: np.ndarray
    sigma: np.ndarray

    def take(self, which: np.ndarray) -> _Seen:
        """The chosen ones, of tracks that still have two."""
        left = _Seen(*(x[which] for x in self))
        if not len(left.track):
            return left
        left = _Seen(*(x[np.bincount(left.track)[left.track] > 1] for x in left))
        _, track = np.unique(left.track, return_inverse=True)
        return left._replace(track=track.reshape(-1))


def _nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 3))


def _tracks(matches: dict[tuple[int, int], RayMatches]) -> _Seen:
    """Features that are joined by matches; not those of which a view has two in one track."""
    ends, deviations = ([], []), []
    views = ([], [])
    for (i, j), m in matches.items():
        fine = np.ones(len(m), dtype=bool) if m.weight is None else m.weight > LEAST_WEIGHT
        for side, view, rays in ((0, i, m.a), (1, j, m.b)):
            ends[side].append(rays[fine])
            views[side].append(np.full(fine.sum(), view))
        deviations.append(m.sigma[fine])
    if not deviations or not sum(map(len, deviations)):
        return _Seen(np.zeros(0, dtype=int), *_nothing()[1:], np.zeros(0))
    view = np.concatenate([*views[0], *views[1]])
    ray = np.concatenate([*ends[0], *ends[1]])
    sigma = np.tile(np.concatenate(deviations), 2)
    parts = np.concatenate([view[:, None], np.round(ray / _SAME_RAY)], axis=1).astype(np.int64)
    # one number each, since rows take ten times as long to sort
    key = (parts.view(np.uint64) * _MIXED).sum(axis=1, dtype=np.uint64)
    _, first, feature = np.unique(key, return_index=True, return_inverse=True)
    count, half = len(first), len(feature) // 2
    joined = coo_array((np.ones(half), (feature[:half], feature[half:])), (count, count))
    _, track = connected_components(joined, directed=False)
    seen = _Seen(track, view[first], ray[first], sigma[first])
    order = np.lexsort((seen.view, seen.track))
    seen = _Seen(*(x[order] for x in seen))
    twice = (seen.track[1:] == seen.track[:-1]) & (seen.view[1:] == seen.view[:-1])
    doubtful = np.unique(seen.track[1:][twice])
    return seen.take(~np.isin(seen.track, doubtful))


def _solve(seen: _Seen, R: np.ndarray, centres: np.ndarray):
    """Points (P, 3), errors (T,) in rad, which are ahead (T,), and information (P, 3, 3)."""
    if not len(seen.track):
        return np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=bool), np.zeros((0, 3, 3))
    begin = np.searchsorted(seen.track, np.arange(seen.track[-1] + 1))
    c = centres[seen.view]
    ray = (seen.ray[:, None] @ R[seen.view])[:, 0]  # in the world
    across = _EYE - ray[:, :, None] * ray[:, None]
    distance, xyz = np.ones(len(ray)), None
    for _ in range(_ROUNDS):
        weight = 1 / (np.hypot(seen.sigma, _COMMON) * distance) ** 2
        part = weight[:, None, None] * across
        A = np.add.reduceat(part, begin)
        b = np.add.reduceat((part @ c[..., None])[..., 0], begin)
        # rays that are parallel meet nowhere: the point stays where it does no harm
        held = 1e-9 * np.trace(A, axis1=1, axis2=2)[:, None, None] * _EYE
        xyz = np.linalg.solve(A + held, b[..., None])[..., 0]
        to = xyz[seen.track] - c
        distance = np.maximum(np.linalg.norm(to, axis=1), 1e-9)
    along = (to * ray).sum(1)
    error = np.arctan2(np.linalg.norm(np.cross(ray, to), axis=1), along)
    return xyz, error, along > 0, A
