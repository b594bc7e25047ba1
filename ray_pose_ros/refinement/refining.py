"""An estimator that refines its answers, for whoever keeps views and solves them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ray_pose_ros.estimation.estimator import Estimate, Estimator
from ray_pose_ros.estimation.packed_view import PackedView
from ray_pose_ros.estimation.preparation import Prepared
from ray_pose_ros.estimation.progress import pulse_of
from ray_pose_ros.estimation.views import View
from ray_pose_ros.matching import Matcher

from .focal import focal_factor, scaled_cameras, unknown
from .keyframe import Keyframe
from .pairing import match_pairs
from .refine import RefinedEstimate, keyframe, prior_of, refine, refine_known


@dataclass(frozen=True)
class RefinablePrepared(Prepared):
    """A prepared view and the photograph itself, whose matches with others are kept in it."""

    keyframe: Keyframe = field(kw_only=True)

    def left(self, view: PackedView | None) -> Left:
        """What is kept of it when it has left the window, and of its image only the packed one."""
        if view is not None:
            self.keyframe.pack(lambda: view.unpacked().image)
        return Left(self.keyframe)


@dataclass(frozen=True)
class Left:
    """A view that has left the window: its features, and what they were matched with."""

    keyframe: Keyframe

    def left(self, view: PackedView | None) -> Left:
        """Itself."""
        return self


class RefiningEstimator:
    """An `Estimator` followed by `refine`; what it does not have is the estimator's.

    Args:
        estimator: of the ray model.
        matchers: see `default_matchers`.
    """

    def __init__(self, estimator: Estimator, matchers: Sequence[Matcher]):
        # past __setattr__, which speaks to the estimator
        self.__dict__.update(estimator=estimator, matchers=list(matchers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['estimator'], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.estimator, name, value)

    def prepare(self, view: View) -> RefinablePrepared:
        """As `Estimator.prepare`; feature points are found when a match is first asked for."""
        prepared = self.estimator.prepare(view)
        kept = {f.name: getattr(prepared, f.name) for f in fields(Prepared)}
        return RefinablePrepared(**kept, keyframe=keyframe(view))

    def solve(
        self,
        prepared: Sequence[RefinablePrepared],
        progress: Callable[[int, int], None] | None = None,
    ) -> RefinedEstimate:
        """As `Estimator.solve`, then refined. `progress` is called through both."""
        estimate = self.estimator.solve(prepared, progress=progress)
        return refine(estimate, _keyframes(prepared), self.matchers, progress=progress)

    def looks(
        self,
        prepared: Sequence[RefinablePrepared],
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[RefinedEstimate]:
        """As `Estimator.looks`, and at last what `solve` returns.

        Nothing is matched for the answers before that, but they are refined by what is known from
        the solutions of other windows, or from this one's when it was abandoned.
        """
        keyframes = _keyframes(prepared)
        for estimate in self.estimator.looks(prepared, progress=progress):
            yield refine_known(estimate, keyframes)
        yield refine(estimate, keyframes, self.matchers, progress=progress)

    def refine(
        self,
        prepared: Sequence[RefinablePrepared | Left],
        estimate: Estimate,
        progress: Callable[[int, int], None] | None = None,
    ) -> RefinedEstimate:
        """An estimate of these views, which may be of several windows, refined."""
        return refine(estimate, _keyframes(prepared), self.matchers, progress=progress)

    def estimate(self, views: Sequence[View]) -> RefinedEstimate:
        """Prepare, solve, and refine as `refined` does."""
        prepared = [self.prepare(view) for view in views]
        estimate = self.estimator.solve(prepared)
        return refined(self.estimator, estimate, views, _keyframes(prepared), self.matchers)


def refined(
    estimator: Estimator,
    estimate: Estimate,
    views: Sequence[View],
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RefinedEstimate:
    """`refine`, after the focal length that was not given has been found.

    Its `timings` have also 'focal', seconds, where that was looked for.

    Args:
        estimator: solves the views again, where another focal length fits their matches better.
        estimate: its of these views. Others as of `refine`.
    """
    free, spent = unknown(estimate), {}
    if free.any() and len(keyframes) == len(views) == len(free):
        begin = time.perf_counter()
        pairs = len(views) * (len(views) - 1) // 2
        found = match_pairs(estimate, prior_of(estimate), keyframes, matchers, deadline, progress)
        matched = time.perf_counter()
        factor = focal_factor(estimate, found, pulse_of(progress, pairs))
        if factor != 1.0:
            cameras = scaled_cameras(estimate.cameras, free, factor)
            views = [
                replace(view, camera=camera, camera_source='matches') if changed else view
                for view, camera, changed in zip(views, cameras, free, strict=True)
            ]
            estimate = estimator.estimate(views)
        spent = {'match': matched - begin, 'focal': time.perf_counter() - matched}
    answer = refine(estimate, keyframes, matchers, deadline, progress)
    timings = {k: v + spent.pop(k, 0.0) for k, v in answer.timings.items()} | spent
    return replace(answer, timings=timings)


def _keyframes(prepared: Sequence[RefinablePrepared | Left]) -> list[Keyframe]:
    return [p.keyframe for p in prepared]
