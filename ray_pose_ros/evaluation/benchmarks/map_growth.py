"""What a map costs: one window more joined to as many keyframes, their points, and images."""

import copy
import time
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.packed_view import packed
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.so3 import rotation_from_vector
from ray_pose_ros.multiview.points import triangulate
from ray_pose_ros.multiview.two_view import RayMatches

from .keyframes import SIZES
from .scale import end_slopes, with_slopes
from .timing import interleave, spread
from .workload import Options

COUNTS = (10, 25, 50, 100)
STEPS = 'join', 'points'
WINDOW, MATCHES = 8, 150  # keyframes of a window, and matches of each of its pairs
_NOISE = 0.01  # rad and distances by which windows err, of matches a tenth


@dataclass(frozen=True)
class _Told:
    """What the map reads of an estimate."""

    R: np.ndarray
    t: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    rays: np.ndarray
    ray_matches: dict


def measure(options: Options) -> dict:
    """Rows by number of keyframes: a window with one new keyframe joined to the others, and the
    points that their matches show, if they are those of features (ms).

    'packed_mib' is what one keyframe that has left the window holds, by image size.
    """
    found = interleave({n: _join(n) for n in COUNTS}, min(options.repeats, 5))
    rows = [
        {'keyframes': n, **{step: spread(found[n][step], 1e3) for step in STEPS}} for n in COUNTS
    ]
    return {
        'rows': with_slopes(rows, 'keyframes', STEPS),
        'slopes': end_slopes(rows, 'keyframes', STEPS),
        'settings': {'window': WINDOW, 'matches': MATCHES},
        'packed_mib': {name: _packed_mib(size) for name, size in SIZES.items()},
    }


def _join(count: int):
    """Joining the last of `count` keyframes of a camera on its way round an object."""
    R, t = _tour(count)
    map_ = KeyframeMap(count)
    for end in range(WINDOW, count):
        _take(map_, R, t, end)

    def run() -> dict[str, float]:
        before = copy.deepcopy(map_)
        begin = time.perf_counter()
        told = _take(before, R, t, count)
        joined = time.perf_counter()
        estimate = before.whole(told).estimate
        features = {pair: replace(m, weight=None) for pair, m in estimate.ray_matches.items()}
        triangulate(estimate.R, estimate.t, features)
        return {'join': joined - begin, 'points': time.perf_counter() - joined}

    return run


def _tour(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cameras (K, 3, 3), (K, 3) that look at the origin, on two rounds about it."""
    angle = 4 * np.pi * np.arange(count) / count
    tilts = rotation_from_vector(np.outer(0.5 * np.sin(angle / 4), [1.0, 0.0, 0.0]))
    turns = rotation_from_vector(np.outer(angle, [0.0, 1.0, 0.0]))
    return tilts @ turns, np.tile([0.0, 0.0, 2.0], (count, 1))


def _take(map_: KeyframeMap, R: np.ndarray, t: np.ndarray, end: int) -> _Told:
    """Have the map join the window that ends before keyframe `end`; what it makes of it."""
    rng = np.random.default_rng(end)
    ids = np.arange(end - WINDOW, end)
    unit = np.linalg.norm(t[ids[0]])
    turned = rotation_from_vector(_NOISE * rng.normal(size=(WINDOW, 3))) @ R[ids] @ R[ids[0]].T
    moved = t[ids] / unit + _NOISE * rng.normal(size=(WINDOW, 3))
    matches = {}
    for i in range(WINDOW):
        for j in range(i + 1, WINDOW):
            points = 0.5 * rng.normal(size=(MATCHES, 3))
            a, b = (points @ R[ids[k]].T + t[ids[k]] for k in (i, j))
            a, b = (x + 0.1 * _NOISE * rng.normal(size=x.shape) for x in (a, b))
            a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
            middle, ones = np.array([0.0, 0.0, 1.0]), np.ones(MATCHES)
            matches[i, j] = RayMatches(a, b, 0.2 * _NOISE * ones, middle, middle, 0.5 * ones)
    estimate = _Told(
        R=turned,
        t=moved,
        rotation_sigma=np.full(WINDOW, 5 * _NOISE),
        centre_sigma=np.full(WINDOW, 5 * _NOISE),
        rays=np.zeros((WINDOW, 6, 7, 7), np.float32),
        ray_matches=matches,
    )
    return map_.join([Keyframe(int(k), 'camera', int(k), '', None) for k in ids], estimate)


def _packed_mib(size: tuple[int, int]) -> float:
    """An image that is neither flat nor all noise: blobs of 8 pixels, and a deviation of 2."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    noisy = image + rng.normal(0, 2, image.shape)
    image = np.clip(noisy, 0, 255).astype(np.uint8)
    return len(packed(View(image)).jpeg) / 2**20
