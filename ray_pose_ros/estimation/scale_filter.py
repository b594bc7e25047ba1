"""The metric scale over windows: kept steady while the window slides and its unit changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ray_pose_ros.estimation.metric import MetricFit

STEP = 0.05  # least deviation of what one camera's two distances tell of a change of the unit
_SURPRISE = 3.0  # standard deviations between two scales that cannot both be right
_LEAST = 1e-9  # distance of a camera from the object, world units
_PATIENCE = 2  # surprises in a row after which a new scale is believed, or none any more


class ScaleFilter:
    """Metres per unit of the newest window, by information (the inverse variance) of logarithms.

    The unit of a window is the distance of its first camera from the object. Cameras that are in
    two windows relate their units: each has its distance from the object in both.

    Successive windows share most of their keyframes, so that their scales are not independent: a
    new one counts as much as its share of keyframes that were not counted before, or as what it
    knows more than all before, whichever is more. Errors that all windows of an object have in
    common do not average, so it never becomes surer than they are.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the scale."""
        self._log: float | None = None
        self._variance = math.inf
        self._distances: dict[int, float] = {}  # of keyframes in the last window, by id
        self._first: int | None = None  # the keyframe whose distance is the unit
        self._counted: set[int] = set()
        self._surprises = 0

    def move(self, ids: Sequence[int], t: np.ndarray) -> None:
        """Go on to a window with these keyframes; t (N, 3) as estimated, world to camera."""
        lengths = np.maximum(np.linalg.norm(t, axis=1), _LEAST)
        distances = dict(zip(ids, lengths.tolist(), strict=True))
        shared = [i for i in distances if i in self._distances]
        if self._log is not None and not shared:
            self.reset()
        elif self._log is not None and ids[0] != self._first:
            ratios = np.log([self._distances[i] / distances[i] for i in shared])
            middle = np.median(ratios)
            spread = 1.4826 * np.median(np.abs(ratios - middle))
            self._log += float(middle)
            self._variance += float(max(spread, STEP) ** 2 / len(shared))
        self._distances, self._first = distances, ids[0]

    def update(self, fit: MetricFit, ids: Sequence[int]) -> bool:
        """
        Take in what the window itself tells, from the keyframes `ids` whose pose is known.

        False for one that cannot be true if what was known before is: it does not count.
        """
        log, variance = math.log(fit.scale), fit.log_sigma**2
        fresh = len(set(ids) - self._counted) / len(ids)
        if self._log is not None:
            apart = abs(log - self._log)
            self._surprises += 1
            if apart <= _SURPRISE * math.sqrt(variance + self._variance):
                self._surprises = 0
            elif self._surprises < _PATIENCE:
                return False
        if self._log is None or self._surprises:
            self._log, self._variance, self._surprises = log, variance, 0
            self._counted = set(ids)
            return True
        before = 1 / self._variance
        gain = max(fresh / variance, 1 / variance - before)
        self._log += gain / (before + gain) * (log - self._log)
        self._variance = max(1 / (before + gain), fit.common**2)
        self._counted = (self._counted & set(self._distances)) | set(ids)
        return True

    def doubt(self) -> None:
        """Hear that a window contradicts what is known of its cameras; of several, forget."""
        self._surprises += 1
        if self._surprises > _PATIENCE:
            self.reset()

    def scale(self, most_sigma: float) -> tuple[float, float] | None:
        """Metres per unit and the deviation of its logarithm; None while not known that well."""
        if self._log is None or self._variance > most_sigma**2:
            return None
        return math.exp(self._log), math.sqrt(self._variance)
