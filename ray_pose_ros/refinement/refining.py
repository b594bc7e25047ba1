"""An estimator that refines its answers, for whoever keeps views and solves them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.estimator import Estimator, Look
from ray_pose_ros.estimation.packed_view import PackedView
from ray_pose_ros.estimation.preparation import Prepared
from ray_pose_ros.estimation.progress import pulse_of
from ray_pose_ros.estimation.views import View
from ray_pose_ros.matching import Matcher

from .focal import Focal, find_focal, scaled_cameras, unknown
from .keyframe import Keyframe
from .pairing import known_pairs, match_pairs, rolls_of
from .refine import (
    RefinedEstimate,
    keyframe,
    prior_of,
    refine,
    refine_by,
    refine_known,
    refined_steps,
)
from .rounds import Rounds, some
from .swept import swept_area


@dataclass(frozen=True)
class RefinablePrepared(Prepared):
    """A prepared view and the photograph itself, whose matches with others are kept in it."""

    keyframe: Keyframe = field(kw_only=True)

    def apart(self) -> RefinablePrepared:
        """The same for another thread, see `Keyframe.apart`."""
        return replace(self, keyframe=self.keyframe.apart())

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

    def refocus(self) -> None:
        """Another camera has taken it than was thought."""
        self.keyframe.refocus()


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
        prepared = prepared_for_refinement(self.estimator, view)
        kept = {f.name: getattr(prepared, f.name) for f in fields(Prepared)}
        return RefinablePrepared(**kept, keyframe=keyframe(view))

    def refocused(self, prepared: RefinablePrepared, view: View) -> RefinablePrepared:
        """The same photograph with another camera: features and matches with others are kept."""
        prepared.keyframe.refocus()
        return replace(self.prepare(view), keyframe=prepared.keyframe)

    def focal(
        self,
        prepared: Sequence[RefinablePrepared],
        estimate: Estimate,
        known: float,
        before: np.ndarray | float,
        progress: Callable[[int, int], None] | None = None,
    ) -> Focal | None:
        """What the matches between these views that are known tell of their focal length.

        estimate: of the model. known, before: see `find_focal`.
        """
        found = known_pairs(estimate, _keyframes(prepared))
        return find_focal(estimate, found, pulse_of(progress, found.tried), known, before)

    def solve(
        self,
        prepared: Sequence[RefinablePrepared],
        progress: Callable[[int, int], None] | None = None,
    ) -> RefinedEstimate:
        """As `Estimator.solve`, refined. `progress` is called through all of it."""
        look = self.estimator.look(prepared, progress)
        *_, found = refined_looks(
            self.estimator, look, _keyframes(prepared), self.matchers, progress=progress
        )
        return found

    def looks(
        self,
        prepared: Sequence[RefinablePrepared],
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[RefinedEstimate]:
        """The model's first answer, then those of `refined_looks`, early ones among them.

        Nothing is matched for the first, but it is refined by what is known from the solutions of
        other windows, or from this one's when it was abandoned.
        """
        keyframes = _keyframes(prepared)
        look = self.estimator.look(prepared, progress)
        yield refine_known(look.estimate, keyframes)
        yield from refined_looks(
            self.estimator, look, keyframes, self.matchers, progress=progress, early=True
        )

    def refine(
        self,
        prepared: Sequence[RefinablePrepared | Left],
        estimate: Estimate,
        progress: Callable[[int, int], None] | None = None,
    ) -> RefinedEstimate:
        """An estimate of these views, which may be of several windows, refined."""
        return refine(estimate, _keyframes(prepared), self.matchers, progress=progress)

    def estimate(self, views: Sequence[View]) -> RefinedEstimate:
        """Prepare, then as `refined`."""
        prepared = [self.prepare(view) for view in views]
        look = self.estimator.look(prepared)
        return refined(self.estimator, look, views, _keyframes(prepared), self.matchers)


def prepared_for_refinement(estimator: Estimator, view: View) -> Prepared:
    """A view whose answers are going to be refined.

    Later looks at other crops, which cost their features, tell nothing more beside matches of
    photographs.
    """
    return estimator.prepare(view, other_crops=False)


def refined(
    estimator: Estimator,
    look: Look,
    views: Sequence[View],
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RefinedEstimate:
    """The last of `refined_looks`, after the focal length that was not given has been found.

    Where that tells that the object turns before a camera that stands still, and views have no
    masks or boxes, all is done again with masks of where they differ. `timings` have also 'focal'
    and 'unmasked', seconds, where that was done.

    Args:
        estimator: looks at the views again, where another focal length fits their matches better.
        look: its at these views. Others as of `refine`.
    """
    begin = time.perf_counter()
    end = np.inf if deadline is None else begin + deadline
    estimate = look.estimate
    free, spent, sigma = unknown(estimate), {}, None
    if free.any() and len(keyframes) == len(views) == len(free):
        few = some(estimate.R)
        part = estimate.of_views(few)
        *_, found = match_pairs(
            Rounds(len(few)).first(part.R),
            part,
            prior_of(part),
            [keyframes[i] for i in few],
            matchers,
            rolls_of(part),
            end,
            progress,
        )
        matched = time.perf_counter()
        pulse = pulse_of(progress, found.tried)
        focal = find_focal(part, found, pulse)
        if focal is not None and focal.changes:
            cameras = scaled_cameras(estimate.cameras, free, focal.factor)
            views = [
                replace(view, camera=camera, camera_source='matches') if changed else view
                for view, camera, changed in zip(views, cameras, free, strict=True)
            ]
            look = _looked_at(estimator, views, pulse)
        sigma = None if focal is None else focal.sigma
        spent = {'match': matched - begin, 'focal': time.perf_counter() - matched}

    def answered(look: Look, keyframes: Sequence[Keyframe]) -> RefinedEstimate:
        # what is known is refined all the same
        left = None if deadline is None else max(end - time.perf_counter(), 1e-3)
        *_, last = refined_looks(estimator, look, keyframes, matchers, left, progress)
        return last

    answer = answered(look, keyframes)
    masked = _masked(views) if answer.turns else None
    if masked is not None:
        look = _looked_at(estimator, masked, pulse_of(progress, len(answer.pairs)))
        spent['unmasked'] = sum(answer.timings.values())
        answer = answered(look, [keyframe(view, stands=True) for view in masked])
        answer = replace(answer, turns=True)
    timings = {k: v + spent.pop(k, 0.0) for k, v in answer.timings.items()} | spent
    return replace(answer, timings=timings, focal_sigma=sigma)


def _looked_at(estimator: Estimator, views: Sequence[View], pulse: Callable[[], None]) -> Look:
    """A look at views that have changed; pulse is called through all of it."""
    prepared = []
    for view in views:
        pulse()
        prepared.append(prepared_for_refinement(estimator, view))
    return estimator.look(prepared, lambda *_: pulse())


def _masked(views: Sequence[View]) -> list[View] | None:
    """Views with masks of where they differ, None where they have any, or none can be told."""
    if any(view.mask is not None or view.box is not None for view in views):
        return None
    area = swept_area([view.image for view in views])
    return None if area is None else [replace(view, mask=area) for view in views]


def refined_looks(
    estimator: Estimator,
    look: Look,
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    early: bool = False,
) -> Iterator[RefinedEstimate]:
    """What the model told, refined, and where that leaves views unsure, a better answer.

    With `early` there may be one before; see `refined_steps`.

    The network is shown the refined cameras then: next to views that stand where they belong it
    sees better where the others are. Its answer is refined by the same matches. Nothing is
    computed for it before it is asked for. Args as of `refined`.
    """
    for step in refined_steps(look.estimate, keyframes, matchers, deadline, progress, early):
        yield step[0]
    first, found = step
    if first.sure.all() or not (len(first.pairs) or look.disagrees):
        return
    pulse = pulse_of(progress, found.tried)
    again = estimator.look_again(look, (first.R, first.t), lambda *_: pulse())
    if again is None:
        return
    second = refine_by(again.estimate, found, pulse)
    timings = second.timings | {
        'match': first.timings['match'],
        'refine': first.timings['refine'] + second.timings['refine'],
    }
    yield replace(second, timings=timings)


def _keyframes(prepared: Sequence[RefinablePrepared | Left]) -> list[Keyframe]:
    return [p.keyframe for p in prepared]
