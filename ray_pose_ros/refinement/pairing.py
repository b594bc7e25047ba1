"""How the views of pairs are turned to be matched, and what they have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.matching import Matcher
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.two_view import RayMatches

from .correspond import correspond, rays
from .crew import Crew
from .hypotheses import Found, search
from .keyframe import TURNING, Keyframe, Turns, turn_between
from .rolls import Rolls, vote

# rad: a prior surer than this tells how images are rolled, or which way to try first
_CERTAIN, _HINT = np.radians(25.0), np.radians(60.0)
FEWEST = 8  # matches of a pair worth looking at
_WAVE, _OPEN = 16, 2  # pairs matched at the same time, and those of them that try several turns


class Pairs(NamedTuple):
    """Matches of pairs of views (i, j), i < j, and what `search` has found in them.

    tried: pairs that have been looked at, most of which may have nothing.
    """

    matches: dict[tuple[int, int], RayMatches]
    poses: dict[tuple[int, int], list[Found]]
    tried: int = 0

    def and_also(self, more: Pairs) -> Pairs:
        """With those of other pairs."""
        return Pairs(
            {**self.matches, **more.matches},
            {**self.poses, **more.poses},
            self.tried + more.tried,
        )


def match_pairs(
    pairs: Sequence[tuple[int, int]],
    estimate: Estimate,
    prior: Prior,
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    rolls: Rolls,
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Pairs]:
    """Match pairs of views, in the order given; what was matched before is not matched again.

    Near views should come first: what they tell of the images' roll saves trying on the others.
    After each pair comes what has been found so far, while others go on being matched; last, and
    at least, what was found of all.

    Args as of `refine`; prior: what the estimate tells; rolls: `rolls_of` it, which learns more.
    deadline: of `time.perf_counter`, seconds.
    """
    order = list(pairs)
    centres = _object_rays(estimate)
    found = Pairs({}, {})

    done = 0

    def late() -> bool:
        return deadline is not None and time.perf_counter() > deadline

    def tell() -> None:
        if progress:
            progress(done, len(order))

    with Crew(tell) as crew:

        def match(job: tuple[tuple[int, int], list[Turns]]):
            (i, j), ways = job
            if late():
                return None
            a, b = keyframes[i], keyframes[j]
            cameras, pair = (estimate.cameras[i], estimate.cameras[j]), (centres[i], centres[j])
            matches, shown = correspond(a, b, cameras, pair, matchers, ways, crew.step)
            if len(matches) < FEWEST and matches.standing is None:
                return None, shown
            crew.step()
            # looked for here, while other pairs are matched outside of Python's lock
            return (matches, a.meaning(b, matches, search)), shown

        for i, j, turn in _votes(order, keyframes, matchers, crew, late, tell):
            rolls.learn(i, j, turn)
        while done < len(order) and not late():
            wave = _wave(order[done:], rolls, prior)
            for ((i, j), _), answer in zip(wave, crew.map(match, wave), strict=True):
                if answer is not None:
                    enough, shown = answer
                    if shown is not None:
                        rolls.learn(i, j, shown)
                    if enough is not None:
                        found.matches[i, j], found.poses[i, j] = enough
                done += 1
                tell()
                if done < len(order):
                    yield Pairs(dict(found.matches), dict(found.poses), done)
    yield found._replace(tried=done)


def rolls_of(estimate: Estimate) -> Rolls:
    """What the estimate tells of how its views are rolled."""
    # they are told clockwise
    return Rolls(len(estimate.R), [-turn % 4 for turn in estimate.turned])


def known_pairs(estimate: Estimate, keyframes: Sequence[Keyframe]) -> Pairs:
    """What `match_pairs` has found between these keyframes before, without matching any more."""
    found = Pairs({}, {})
    if 'estimated' in estimate.intrinsics_source:
        return found  # by each estimate anew, so that rays would be those of other cameras
    for i, first in enumerate(keyframes):
        for j in range(i + 1, len(keyframes)):
            known = first.known_meaning(keyframes[j])
            if known is not None:
                found.matches[i, j], found.poses[i, j] = known
    return found._replace(tried=len(found.matches))


def _object_rays(estimate: Estimate) -> list[np.ndarray]:
    """The unit ray (3,) of each camera through the middle of its crop."""
    centres = [
        rays(c, np.array([crop.centre]))[0]
        for c, crop in zip(estimate.cameras, estimate.crops, strict=True)
    ]
    # a crop beyond what the lens sees: the object is where the estimate has it
    for i, ray in enumerate(centres):
        if not np.isfinite(ray).all():
            centres[i] = estimate.t[i] / np.linalg.norm(estimate.t[i])
    return centres


def _votes(
    order: list[tuple[int, int]],
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    crew: Crew,
    late: Callable[[], bool],
    tell: Callable[[], None],
) -> list[tuple[int, int, int]]:
    """(i, j, turn), the surest first: what the features tell that know their orientation.

    Nothing where no other matcher wants to know it.
    """
    knowing = [m for m in matchers if m.name in TURNING]
    if len(knowing) == len(matchers):
        return []

    def ask(job: tuple[Matcher, tuple[int, int]]) -> tuple[int, int] | None:
        matcher, (i, j) = job
        if late():
            return None
        a, b = keyframes[i], keyframes[j]
        matches = a.matches(b, matcher)
        return vote(a.features(matcher), b.features(matcher), matches)

    jobs = [(matcher, pair) for matcher in knowing for pair in order]
    votes = []
    for (_, pair), voted in zip(jobs, crew.map(ask, jobs), strict=True):
        if voted is not None:
            votes.append((voted[1], *pair, voted[0]))
        tell()
    return [tuple(x) for _, *x in sorted(votes, reverse=True)]


def _wave(
    pairs: list[tuple[int, int]], rolls: Rolls, prior: Prior
) -> list[tuple[tuple[int, int], list[Turns]]]:
    """The first pairs with ways to turn their views, which may be matched at the same time.

    A pair that has to try several turns may teach the next ones theirs, so there are few of them;
    how many does not depend on the machine, so that answers do not either.
    """
    wave, open_ = [], 0
    for pair in pairs[:_WAVE]:
        turns = _turns(rolls, prior, *pair)
        wave.append((pair, rolls.ways(*pair, turns)))
        open_ += len(turns) > 1
        if open_ == _OPEN:
            break
    return wave


def _turns(rolls: Rolls, prior: Prior, i: int, j: int) -> list[int]:
    """By how many right angles view j may be turned against view i."""
    likely = turn_between(prior.R[j] @ prior.R[i].T)
    sigma = prior.pair_sigma(i, j)
    if sigma < _CERTAIN:
        return [likely]
    known = rolls.known(i, j)
    if known is not None:
        return [known]
    first = likely if sigma < _HINT else 0
    return [first, *(turn for turn in (0, 1, 3, 2) if turn != first)]
