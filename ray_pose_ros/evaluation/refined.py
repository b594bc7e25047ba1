"""The ray model with feature matches after it, and what the matching is worth by itself.

`refined` is the model and then `refinement.refine`. `oracle-refined` has, in place of the model,
the true cameras turned about the object at random; `vague-refined` knows nothing but that all
cameras look at the object. The two tell what the matching adds from what the model lacks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.geometry.gauge import axes_intersection

from .methods import Answer, ModelMethod, answer_of, read_options
from .methods import create_method as _create_method
from .windowed import WINDOW, windowed

if TYPE_CHECKING:
    from ray_pose_ros.refinement.refining import RefiningEstimator

NAMES = ('refined', 'oracle-refined', 'vague-refined', 'oracle')
NOISE_DEG = 15.0  # rms angle by which each camera of the oracle is turned about the object
_NOTHING = 9.0  # rad: so uncertain that it says nothing


class RefinedMethod:
    """Estimates of `prior`, refined; features are cached per view.

    Args:
        prior: a `ModelMethod`, or what has its methods but no estimator that could look again.
        matcher: see `refinement.default_matchers`.
        deadline: see `refinement.refine`.
        device: of the learned matcher.
    """

    name = 'refined'

    def __init__(
        self, prior, matcher: str | None = None, deadline: float | None = None, device: str = 'cpu'
    ):
        from ray_pose_ros.refinement.refine import default_matchers

        self.prior, self.deadline = prior, deadline
        self.matchers = default_matchers(matcher, device)

    def begin(self, sequence) -> None:
        from ray_pose_ros.refinement.refine import keyframe

        self.prior.begin(sequence)
        self._views = sequence.views
        self._keyframes = [keyframe(view) for view in sequence.views]

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        found, seconds = self.estimate(indices, rng)
        return replace(answer_of(found), seconds=seconds)

    def estimate(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Estimate, float]:
        """As that of `ModelMethod`."""
        from ray_pose_ros.refinement.refine import refine
        from ray_pose_ros.refinement.refining import refined

        keyframes = [self._keyframes[int(i)] for i in indices]
        # as from nothing: what is kept from another subset is counted again
        seconds = self.cached(indices)
        begin = time.perf_counter()
        if isinstance(self.prior, ModelMethod):
            estimator, views = self.prior.estimator, [self._views[int(i)] for i in indices]
            look = estimator.look(self.prior.prepare(indices))
            found = refined(estimator, look, views, keyframes, self.matchers, self.deadline)
        else:
            estimate, _ = self.prior.estimate(indices, rng)
            found = refine(estimate, keyframes, self.matchers, self.deadline)
        return found, seconds + time.perf_counter() - begin

    def cached(self, indices: np.ndarray) -> float:
        """As that of `ModelMethod`, matches included."""
        keyframes = [self._keyframes[int(i)] for i in indices]
        matching = sum(k.seconds + k.matching_seconds(keyframes) for k in keyframes)
        return self.prior.cached(indices) + matching

    def solver(self) -> RefiningEstimator:
        """What the node would run."""
        from ray_pose_ros.refinement.refining import RefiningEstimator

        return RefiningEstimator(self.prior.estimator, self.matchers)


class TruePrior:
    """True cameras in the published world, each turned about the object by `degrees` rms.

    Distances to the object and where it is in the image stay true. With degrees None all
    cameras are the same instead, looking at the object from distance 1, and nothing is sure.
    """

    def __init__(self, degrees: float | None = NOISE_DEG):
        self.degrees = degrees

    def begin(self, sequence) -> None:
        self._sequence = sequence
        R, t = (
            torch.from_numpy(np.asarray(x, dtype=np.float64)) for x in (sequence.R, sequence.t)
        )
        crops = [view.crop() for view in sequence.views]
        self._crops = crops
        self._looking = torch.stack(
            [
                view.camera.unproject(torch.tensor(crop.centre, dtype=torch.float64))
                for view, crop in zip(sequence.views, crops, strict=True)
            ]
        )
        self._object = axes_intersection(R, t, self._looking)

    def cached(self, indices) -> float:
        return 0.0

    def estimate(self, indices, rng) -> tuple[Estimate, float]:
        s, n = self._sequence, len(indices)
        views = [s.views[int(i)] for i in indices]
        if self.degrees is None:
            looking = self._looking[indices].numpy()
            R, t, sigma = np.tile(np.eye(3), (n, 1, 1)), looking, _NOTHING
        else:
            R = s.R[indices]
            t = s.t[indices] + R @ self._object.numpy()  # of the object, in the camera's frame
            sigma = np.radians(self.degrees)
            R = R @ _turns(rng.normal(size=(n, 3)) * sigma / 3**0.5)
            R, t = R @ R[0].T, t / np.linalg.norm(t[0])
        estimate = Estimate(
            R=R,
            t=t,
            cameras=tuple(view.camera for view in views),
            intrinsics_source=('given',) * n,
            names=tuple(view.name for view in views),
            stamps=(None,) * n,
            crops=tuple(self._crops[int(i)] for i in indices),
            rotation_sigma=np.full(n, sigma),
            centre_sigma=np.linalg.norm(t, axis=1) * sigma,
            agreement=1.0,
            modes=1,
            rays=np.zeros((n, 6, 1, 1), dtype=np.float32),
        )
        return estimate, 0.0


class OracleMethod:
    """The oracle prior by itself, unrefined."""

    name = 'oracle'

    def __init__(self):
        self._prior = TruePrior()

    def begin(self, sequence) -> None:
        self._prior.begin(sequence)

    def solve(self, indices, rng) -> Answer:
        return answer_of(self._prior.estimate(indices, rng)[0])


def create(name: str, options: dict):
    """A method of NAMES; options: matcher, deadline; of 'refined' window and
    those of 'model' too."""
    if name == 'oracle':
        read_options(name, options, {})
        return OracleMethod()
    own = {key: options[key] for key in ('matcher', 'deadline', 'window') if key in options}
    rest = {key: value for key, value in options.items() if key not in own}
    kinds = {'matcher': str, 'deadline': float} | (WINDOW if name == 'refined' else {})
    given = read_options(name, own, kinds)
    window = given.pop('window', None)
    if window is not None and 'deadline' in given:
        raise ValueError('options window and deadline are given, expected one of them')
    if name == 'refined':
        from ray_pose_ros.refinement.refining import prepared_for_refinement

        estimator = _create_method('model', rest).estimator
        prior = ModelMethod(estimator, partial(prepared_for_refinement, estimator))
        return windowed(RefinedMethod(prior, device=str(estimator.device), **given), window)
    read_options(name, rest, {})
    prior = TruePrior(NOISE_DEG if name == 'oracle-refined' else None)
    return RefinedMethod(prior, **given)


def _turns(vectors: np.ndarray) -> np.ndarray:
    from ray_pose_ros.geometry.rotations import rotation_from_vector

    return rotation_from_vector(torch.from_numpy(vectors)).numpy()
