"""Cameras of a turntable's photographs: equal steps round one axis, before a plain background.

General structure from motion fails on most of them: small pictures, long lenses, little texture.
Here all photographs share a handful of unknowns, the axis in the camera's frame and the focal
length, so a few hundred matches in all settle them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from ray_pose_ros.estimation.colmap_package import import_pycolmap
from ray_pose_ros.geometry.so3 import rotation_from_vector
from ray_pose_ros.multiview.two_view import epipolar_errors

from .reconstruction import reconstruct

FARTHEST = np.radians(75.0)  # turn between two photographs whose matches are looked at
FEWEST_MATCHES, FEWEST_POINTS = 150, 100  # of a whole turn
_PAIR, _LEAST = 80, 5  # matches of a pair taken at most, and at least
_MOST, _FEW = 4000, 400  # matches of all pairs together, and those that choose the start
_LOWEST = np.radians(-5.0)  # tilt: a turntable is seen from above
_SCALE = 1.5  # pixels: beyond this an epipolar error counts less and less
_LARGEST = 1.5  # pixels, median: with more it was no even turn
_SHORTEST, _LONGEST = 0.6, 20.0  # focal lengths, in the picture's longer side
_FOCALS, _TILTS = (1.2, 2.4, 5.0), np.radians([5.0, 25.0, 55.0])


@dataclass(frozen=True)
class Turntable:
    """What the photographs of a turn share; the k-th is turned by k / steps of a full turn.

    Attributes:
        focal: pixels.
        axis: (3,) unit, camera frame; the thing turns about it by the right-hand rule.
        centre: (3,) a point of the axis, camera frame, at depth 1.
        error: pixels, median epipolar error of the matches.
    """

    focal: float
    axis: np.ndarray
    centre: np.ndarray
    error: float

    def pose(self, angle: float) -> tuple[np.ndarray, np.ndarray]:
        """R (3, 3), t (3,), world to camera, after a turn by `angle` rad."""
        R = rotation_from_vector(self.axis * angle)
        return R, self.centre - R @ self.centre


def solve_turntable(
    matches: Sequence[tuple[float, np.ndarray, np.ndarray]], width: int, height: int
) -> Turntable:
    """Axis and focal length from matches between photographs of a turn.

    Args:
        matches: of each pair the turn from the first to the second, rad, positive in the order of
            the photographs, and both points (K, 2) in pixels. The direction of the turn is found.
        width, height: of the photographs; the principal point is taken to be their middle.

    Raises ValueError where there are too few matches.
    """
    angles = np.concatenate([np.full(len(a), turn) for turn, a, _ in matches] or [[]])
    if len(angles) < FEWEST_MATCHES:
        raise ValueError(f'{len(angles)} matches, expected {FEWEST_MATCHES} or more')
    middle, side = np.array([width, height]) / 2, float(max(width, height))
    first, second = ((np.concatenate([m[k] for m in matches]) - middle) / side for k in (1, 2))
    chosen = np.random.default_rng(0).permutation(len(angles))[:_MOST]
    angles, first, second = angles[chosen], first[chosen], second[chosen]

    def errors(x: np.ndarray, way: int, count: int) -> np.ndarray:
        focal, axis, centre = _shared(x)
        rays = [np.column_stack([p[:count] / focal, np.ones(count)]) for p in (first, second)]
        rays = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rays]
        R = rotation_from_vector(way * angles[:count, None] * axis)
        t = centre - R @ centre
        t = t / np.maximum(np.linalg.norm(t, axis=1, keepdims=True), 1e-12)
        off = epipolar_errors(R, t, rays[0][:, None], rays[1][:, None])[:, 0]
        return off * focal * side

    def residuals(x: np.ndarray, way: int, count: int) -> np.ndarray:
        # where on the axis the centre lies is of no account
        return np.append(errors(x, way, count) / _SCALE, 3.0 * x[4])

    # pixels are errors' unit: without bounds a lens of no length would have none
    # and long lenses hardly tell a thing seen from above from one seen from below, turned back
    least = [np.log(_SHORTEST), _LOWEST, -0.6, -1.0, -1.0]
    bounds = least, [np.log(_LONGEST), np.pi / 2, 0.6, 1.0, 1.0]

    def fit(start: np.ndarray, way: int, count: int, steps: int):
        return least_squares(
            residuals, start, args=(way, count), bounds=bounds, loss='cauchy', max_nfev=steps
        )

    few = min(_FEW, len(angles))
    starts = product((1, -1), _FOCALS, _TILTS)
    tried = [
        (fit(np.array([np.log(focal), tilt, 0.0, 0.0, 0.0]), way, few, 15), way)
        for way, focal, tilt in starts
    ]
    rough, way = min(tried, key=lambda x: x[0].cost)
    x = fit(rough.x, way, len(angles), 40).x
    focal, axis, centre = _shared(x)
    error = float(np.median(np.abs(errors(x, way, len(angles)))))
    return Turntable(float(focal * side), way * axis, centre, error)


def _shared(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Focal length, upward axis (3,) and centre (3,) of the five unknowns."""
    focal, tilt, roll, across, along = x
    level = np.cos(tilt)
    axis = np.array([np.sin(roll) * level, -np.cos(roll) * level, -np.sin(tilt)])
    return float(np.exp(focal)), axis, np.array([across, along, 1.0])


def reconstruct_turntable(folder: Path, threads: int = -1) -> bool:
    """Solve a capture of one whole turn in equal steps, in the order of names, into `sparse/0`.

    Returns whether that was possible; a capture that has a model is left alone. Raises ValueError
    for photographs of different sizes.
    """
    return reconstruct(folder, threads, _turned)


def _turned(database: Path, images: Path, working: Path, threads: int):
    """A COLMAP model of one even turn, None where the matches show none."""
    pycolmap = import_pycolmap()
    with pycolmap.Database.open(database) as known:
        photographs = sorted(known.read_all_images(), key=lambda image: image.name)
        cameras = known.read_all_cameras()
        pairs = _pairs(known, [photograph.image_id for photograph in photographs])
    if len(cameras) != 1:
        raise ValueError(f'{images}: photographs of different sizes, expected one of all')
    camera = cameras[0]
    try:
        table = solve_turntable(pairs, camera.width, camera.height)
    except ValueError:
        return None
    if table.error > _LARGEST:
        return None
    model = _posed(table, photographs, camera)
    model = pycolmap.triangulate_points(model, database, images, working)
    return model if model.num_points3D() >= FEWEST_POINTS else None


def _pairs(database, numbers: list[int]) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Matches of photographs not far apart, for `solve_turntable`."""
    count = len(numbers)
    points = [np.array(database.read_keypoints(k))[:, :2] for k in numbers]
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(count):
        for j in range(i + 1, count):
            steps = (j - i + count // 2) % count - count // 2  # the shorter way round
            turn = 2 * np.pi * steps / count
            found = database.read_matches(numbers[i], numbers[j])
            if abs(turn) > FARTHEST or len(found) < _LEAST:
                continue
            found = rng.permutation(np.array(found))[:_PAIR]
            pairs.append((turn, points[i][found[:, 0]], points[j][found[:, 1]]))
    return pairs


def _posed(table: Turntable, photographs, camera):
    """A COLMAP model of the turn without points."""
    pycolmap = import_pycolmap()
    model = pycolmap.Reconstruction()
    camera.model = 'SIMPLE_RADIAL'  # as COLMAP itself has begun with
    camera.params = [table.focal, camera.width / 2, camera.height / 2, 0.0]
    model.add_camera_with_trivial_rig(camera)
    for k, photograph in enumerate(photographs):
        R, t = table.pose(2 * np.pi * k / len(photographs))
        image = pycolmap.Image(
            name=photograph.name, camera_id=camera.camera_id, image_id=photograph.image_id
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(R), t))
    return model
