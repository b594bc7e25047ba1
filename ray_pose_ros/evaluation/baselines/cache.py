"""Features of views and matches of pairs, computed once a sequence, their time kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from ray_pose_ros.evaluation.methods import Answer, NotApplicable
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.matching import Features, Matcher, Matches

# Least z of a unit ray: further out, a pinhole's plane is too far from the lens's image.
_MIN_Z = 0.1


class TimedCache:
    """Values by key. `spent` grows by what a value took to make, each time it is asked for, so
    that it tells what an answer would have taken without the cache."""

    def __init__(self):
        self._made: dict[Hashable, tuple[Any, float]] = {}
        self.spent = 0.0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of a key, made where it is not there. `make` must not ask this cache."""
        if key not in self._made:
            start = time.perf_counter()
            value = make()
            self._made[key] = value, time.perf_counter() - start
        value, seconds = self._made[key]
        self.spent += seconds
        return value


def solve_sorted(solve: Callable[[np.ndarray], Answer], indices: np.ndarray) -> Answer:
    """The answer to the sorted indices, put back in their order: random searches would otherwise
    depend on it, and pairs would be matched both ways round."""
    order = np.argsort(indices)
    back = np.argsort(order)
    answer = solve(np.asarray(indices)[order])
    return Answer(answer.R[back], answer.t[back], answer.placed[back], seconds=answer.seconds)


@dataclass(frozen=True)
class Seen:
    """Features of a view, and where they are in a pinhole's image of focal length 1.

    `plane` (M, 2) is x / z, y / z of the points' rays, whatever the lens; `focal` is the mean
    focal length in pixels, for thresholds.
    """

    features: Features
    plane: np.ndarray
    focal: float


class MatchedViews:
    """The views of a sequence and a matcher."""

    def __init__(self, matcher: Matcher):
        self.matcher = matcher
        self.cache = TimedCache()
        self.views: tuple = ()

    def begin(self, sequence: Sequence) -> None:
        """Forget the last sequence. Raises NotApplicable where a view has no camera."""
        for view in sequence.views:
            if view.camera is None:
                raise NotApplicable(f'{sequence.name}: {view.name} has no intrinsics')
        self.views, self.cache = sequence.views, TimedCache()

    def seen(self, index: int) -> Seen:
        """Features of a view."""
        return self.cache.get(('view', index), lambda: self._see(index))

    def pairs(self, indices: np.ndarray) -> list[tuple[int, int, Seen, Seen, Matches]]:
        """For all pairs a < b of positions in `indices`: a, b, features of both, matches."""
        seen = [self.seen(int(index)) for index in indices]
        found = []
        for a, b in combinations(range(len(indices)), 2):
            one, other = seen[a].features, seen[b].features
            key = 'pair', int(indices[a]), int(indices[b])
            matches = self.cache.get(key, lambda x=one, y=other: self.matcher.match(x, y))
            found.append((a, b, seen[a], seen[b], matches))
        return found

    def _see(self, index: int) -> Seen:
        view = self.views[index]
        features = self.matcher.extract(view.image)
        rays = view.camera.unproject(torch.from_numpy(features.points)).numpy()
        usable = np.nan_to_num(rays[:, 2], nan=-1.0) > _MIN_Z
        features, rays = features.take(usable), rays[usable]
        K = view.camera.matrix
        return Seen(features, rays[:, :2] / rays[:, 2:], float(K[0, 0] + K[1, 1]) / 2)
