"""Metric scale: how many metres a unit of the published world is, from known camera poses.

Known are the poses of some of the cameras in a frame in which the object stands still (odometry,
an arm's kinematics, a calibrated rig). What is looked for is the similarity between the two
worlds, `x_motion = scale Q x + p`, see "Similarity transforms" in docs/conventions.md.

The origin of the published world is the object. Each camera, turned by its known orientation,
tells where it sees it: `a_i = R_known_i^T t_i` (world units), so that `p = c_known_i + scale a_i`
for all of them. That is triangulation from known cameras, and hardly minds a wrong estimated
orientation: a camera put onto the other side of the object by mistake still sees it where it is.
The centres themselves, `c_known_i = scale Q c_i + p`, give scales with several times the error,
because estimated rotations are in them (docs/results.md).

The a_i are the noisy side and the c_known_i the exact one, so the first are regressed on the
second, `a_i = u p - u c_known_i` with u = 1 / scale: the other way round, noise would make the
scale too small, and turning on the spot would look like scale zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between, nearest_rotation

AGREES = np.radians(30.0)  # of an estimated orientation with a known one
MOST_SIGMA = 0.25  # deviation of the scale's logarithm that a robot can still use
LEAST_MOTION = 1e-3  # metres between the furthest two cameras; TF is not better than that
# Of the told uncertainty and of errors on photographs (docs/results.md): what a camera says of the
# object is wrong by at least LEAST_ERROR of its distance, and all of a window are wrong alike, as
# the network takes the whole object for nearer or larger, by COMMON of the told sigma and
# LEAST_COMMON. A sigma counts up to TURNED times that of the orientation, over the distance.
LEAST_ERROR, COMMON, LEAST_COMMON = 0.03, 0.3, 0.02
TURNED = 2.0
_FREEDOM = 5.0  # of Student's t, which weighs the cameras
_PRIOR_FREEDOM = 6.0  # how many residuals the told uncertainty is worth against the ones found
_ROUNDS = 20


class NoScale(ValueError):
    """Known poses do not fix the scale; the text says why."""


class Contradiction(NoScale):
    """The known poses and the estimate cannot both be right."""


@dataclass(frozen=True)
class MetricScale:
    """What an estimate in metres was made metric with.

    Attributes:
        metres_per_unit: length of what was the unit, the first camera's distance from the object.
        log_sigma: standard deviation of its logarithm, about the relative one; all lengths of the
            estimate have this error in common.
        source: where it is from, 'TF odom'.
    """

    metres_per_unit: float
    log_sigma: float
    source: str

    def __str__(self) -> str:
        return f'metric (from {self.source}, +-{100 * self.log_sigma:.2g} %)'


def in_metres(estimate: Any, metric: MetricScale) -> Any:
    """An `Estimate` with all its lengths in metres.

    `centre_sigma` then has the shape of the set only; the scale's own error is in `metric`.
    """
    scale = metric.metres_per_unit
    return replace(
        estimate,
        t=scale * estimate.t,
        centre_sigma=scale * estimate.centre_sigma,
        rays=np.concatenate([estimate.rays[:, :3], np.float32(scale) * estimate.rays[:, 3:]], 1),
        metric=metric,
    )


@dataclass(frozen=True)
class MetricFit:
    """The similarity of a window: `x_motion = scale rotation x + translation`, metres.

    Attributes:
        scale: metres per world unit. log_sigma: standard deviation of its logarithm, `common` the
            part of it that more cameras of the same object do not make smaller.
        rotation: (3, 3), from the axes of the world to those of the motion frame.
        towards, centres, weights: (n, 3), (n, 3), (n,) of the cameras with known poses: the
            object from the camera in the motion frame's axes (world units), the camera (metres).
        agreeing: number of cameras whose orientations agree with the known ones.
    """

    scale: float
    log_sigma: float
    common: float
    rotation: np.ndarray
    towards: np.ndarray
    centres: np.ndarray
    weights: np.ndarray
    agreeing: int

    @property
    def translation(self) -> np.ndarray:
        """The object (3,), metres in the motion frame."""
        return self.translation_at(self.scale)

    def translation_at(self, scale: float) -> np.ndarray:
        """The best translation (3,) for another scale, such as one filtered over windows."""
        return self.weights @ (self.centres + scale * self.towards) / self.weights.sum()


def fit_metric(
    R: np.ndarray,
    t: np.ndarray,
    rotation_sigma: np.ndarray,
    centre_sigma: np.ndarray,
    R_known: np.ndarray,
    centres_known: np.ndarray,
    most_sigma: float,
) -> MetricFit:
    """The similarity from the published world to the motion frame.

    Args:
        R, t: (n, 3, 3), (n, 3) estimated, world to camera; only cameras whose pose is known.
        rotation_sigma, centre_sigma: (n,) rad and world units, as the estimate tells them.
        R_known, centres_known: (n, 3, 3), (n, 3) motion frame to camera, and metres.
        most_sigma: refuse a scale whose logarithm is less certain.

    Raises:
        NoScale: fewer than two cameras, no motion, or too uncertain.
        Contradiction: orientations of most cameras are not the known ones.
    """
    n = len(R)
    if n < 2:
        raise NoScale(f'poses are known of {n} cameras of the window, expected 2 or more')
    apart = np.linalg.norm(centres_known[:, None] - centres_known[None], axis=-1).max()
    if apart < LEAST_MOTION:
        raise NoScale(
            f'the cameras are within {1e3 * LEAST_MOTION:g} mm of each other: standing still and '
            'turning on the spot give no scale'
        )
    rotation, agreeing = _common_rotation(R, R_known, rotation_sigma)
    if agreeing < n // 2 + 1:
        raise Contradiction(
            f'the known motion contradicts the estimate: {agreeing} of {n} orientations agree '
            f'within {np.degrees(AGREES):.0f} degrees'
        )
    towards = np.einsum('nji,nj->ni', R_known, t)
    # A camera in a wrong place is turned wrong as well. What its centre is less certain than that
    # it has in common with all others: how far away the object is, which refinement leaves open.
    own = np.minimum(centre_sigma, TURNED * rotation_sigma * np.linalg.norm(t, axis=1))
    inverse, sigma, weights = _regress(towards, centres_known, own)
    common = float(np.hypot(COMMON * np.median(own), LEAST_COMMON))
    if inverse <= 0:
        raise Contradiction(
            'the known motion contradicts the estimate: the object would be behind the cameras'
        )
    log_sigma = float(np.hypot(sigma / inverse, common))
    if log_sigma > most_sigma:
        raise NoScale(
            f'it is uncertain by {100 * log_sigma:.0f} %, expected at most '
            f'{100 * most_sigma:.0f} %: more distance between the cameras helps'
        )
    return MetricFit(
        scale=1 / inverse,
        log_sigma=log_sigma,
        common=common,
        rotation=rotation,
        towards=towards,
        centres=centres_known,
        weights=weights,
        agreeing=agreeing,
    )


def _common_rotation(R, R_known, sigma) -> tuple[np.ndarray, int]:
    """Q (3, 3) that most cameras agree on, and how many of them do.

    Each camera tells one, `Q_i = R_known_i^T R_i`; Cauchy weights from the one nearest to all.
    """
    each = R_known.swapaxes(-1, -2) @ R
    sigma = np.maximum(sigma, LEAST_ERROR)
    between = angle_between(each[:, None], each[None])
    # votes first: in a sum of distances two that are far off outvote two that agree
    votes = (between < AGREES).sum(axis=1)
    best = np.lexsort((np.minimum(between, AGREES).sum(axis=1), -votes))[0]
    Q = each[best]
    for _ in range(_ROUNDS):
        weight = 1 / (sigma**2 + angle_between(each, Q) ** 2)
        Q = nearest_rotation((weight[:, None, None] * each).sum(axis=0))
    return Q, int((angle_between(each, Q) < AGREES).sum())


def _regress(towards, centres, centre_sigma) -> tuple[float, float, np.ndarray]:
    """1 / scale, its standard deviation, and the weights (n,), of `towards = y - u centres`."""
    n = len(towards)
    told = 3 / np.hypot(centre_sigma, LEAST_ERROR) ** 2  # sigmas are of all three axes together
    weights = told
    for _ in range(_ROUNDS):
        share = weights / weights.sum()
        x, y = centres - share @ centres, towards - share @ towards
        information = (weights[:, None] * x * x).sum()
        inverse = -(weights[:, None] * x * y).sum() / information
        square = ((y + inverse * x) ** 2).sum(axis=1)
        weights = told * (_FREEDOM + 3) / (_FREEDOM + told * square)
    found = (_PRIOR_FREEDOM + weights @ square) / (_PRIOR_FREEDOM + 3 * n - 4)
    return float(inverse), float(np.sqrt(found / information)), weights
