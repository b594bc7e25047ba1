"""The ray model's answer made exact where feature matches allow it.

A match's rays meet; the ray model says where to look, which look-alikes to distrust, and where
the views stand that share nothing. See the modules for the steps: `correspond`, `hypotheses`,
`averaging`, `adjust`, `certainty`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from ray_pose_ros.estimation.estimator import Estimate
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.so3 import vector_from_rotation
from ray_pose_ros.matching import Matcher, MatcherUnavailable, create_matcher
from ray_pose_ros.multiview.adjust import adjust
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import Problem

from .averaging import agree
from .certainty import Certainty, certainty
from .correspond import correspond, rays
from .crew import Crew
from .hypotheses import hypotheses, near, search
from .keyframe import TURNING, Keyframe, turn_between
from .place import place
from .rolls import Rolls, vote
from .trust import trusted

# Learned matchers, the most accurate first. Both of them together tell no more than the first.
LEARNED = 'aliked', 'lighterglue'
FEATURES = 768  # of a learned matcher, an image: more cost more than they bring
# Of SIFT beside a learned matcher: the longer side in pixels, and features. Twice as many of
# larger images tell no better poses and take twice the time.
_SIFT = 1024, 2048
# rad: a prior surer than this tells how images are rolled, or which way to try first
_CERTAIN, _HINT = np.radians(25.0), np.radians(60.0)
_FEWEST = 8  # matches of a pair worth looking at
_OWN = 0.5  # of their weight: what the network's own matches count beside those of features
# Beside feature matches the network is taken to be this much less sure than it tells: on things
# that are strange to it, it is surer than right, and what it tells then outweighs true matches.
_DOUBT = 2.0
_WAVE, _OPEN = 16, 2  # pairs matched at the same time, and those of them that try several turns


@dataclass(frozen=True)
class RefinedEstimate(Estimate):
    """An Estimate after refinement; `rays` stay as the model predicted them.

    Attributes:
        sure: (N,) bool, joined to the first camera (or, for it, to any) by matches that can be
            trusted. The others stand where the ray model and weak matches put them.
        matches: (N,) int, matches of each view that agree with the answer.
        pairs: (E, 2) int, the pairs of views that matches join.
        ray_matches: those of features too, as far as the answer explains them.
        timings: also 'match' and 'refine', seconds.
    """

    sure: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    matches: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=int))


def default_matchers(name: str | None = None, device: str = 'cpu') -> list[Matcher]:
    """Matchers for refinement: SIFT, exact where views are near, with a learned one for the rest.

    name: of the learned one, or 'sift' for SIFT alone; None for the first of LEARNED that is
        installed.
    device: of torch, for the learned one.
    Raises ValueError and MatcherUnavailable as create_matcher.
    """
    if name == 'sift':
        return [create_matcher('sift')]
    for learned in [name] if name else LEARNED:
        try:
            matcher = create_matcher(learned, None, FEATURES, device, fast=True)
        except MatcherUnavailable:
            if name:
                raise
        else:
            return [create_matcher('sift', *_SIFT), matcher]
    return [create_matcher('sift')]


def keyframe(view: View) -> Keyframe:
    """The view as `refine` wants it; keep it for as long as the view is used."""
    return Keyframe(view.image, view.mask)


def refine(
    estimate: Estimate,
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RefinedEstimate:
    """Refine an estimate by matches between its views.

    Args:
        estimate: of the ray model.
        keyframes: of the same views; features are kept in them.
        matchers: see default_matchers.
        deadline: seconds after which no further pair is matched; the nearest views, by the
            estimate, come first.
        progress: called with (pairs done, pairs in all). It may raise to abandon the run.

    Without trustworthy matches the estimate comes back as it was. Raises ValueError for another
    number of keyframes than views, or a deadline that is not positive.
    """
    count = len(estimate.R)
    if len(keyframes) != count:
        raise ValueError(f'{len(keyframes)} keyframes, expected {count} as in the estimate')
    if deadline is not None and not deadline > 0:
        raise ValueError(f'deadline is {deadline}, expected seconds above 0')
    begin = time.perf_counter()
    prior = prior_of(estimate)
    centres = [
        rays(c, np.array([crop.centre]))[0]
        for c, crop in zip(estimate.cameras, estimate.crops, strict=True)
    ]
    # a crop beyond what the lens sees: the object is where the estimate has it
    for i, ray in enumerate(centres):
        if not np.isfinite(ray).all():
            centres[i] = estimate.t[i] / np.linalg.norm(estimate.t[i])
    found, poses = {}, {}
    order = _near_first(estimate.R)

    def late() -> bool:
        return deadline is not None and time.perf_counter() - begin > deadline

    def match(job: tuple[tuple[int, int], Sequence[int]]):
        (i, j), turns = job
        if late():
            return None
        cameras = estimate.cameras[i], estimate.cameras[j]
        pair = (centres[i], centres[j])
        matches, shown = correspond(keyframes[i], keyframes[j], cameras, pair, matchers, turns)
        if len(matches) < _FEWEST:
            return None, shown
        # looked for here, while other pairs are matched outside of Python's lock
        return (matches, keyframes[i].meaning(keyframes[j], matches, search)), shown

    rolls = Rolls(count)
    with Crew() as crew:
        for i, j, turn in _votes(order, keyframes, matchers, crew, late, progress):
            rolls.learn(i, j, turn)
        done = 0
        while done < len(order) and not late():
            wave = _wave(order[done:], lambda i, j: _turns(rolls, prior, i, j))
            for ((i, j), _), answer in zip(wave, crew.map(match, wave), strict=True):
                if answer is not None:
                    enough, shown = answer
                    if shown is not None:
                        rolls.learn(i, j, shown)
                    if enough is not None:
                        found[i, j], poses[i, j] = enough
                done += 1
                if progress:
                    progress(done, len(order))
    middle = time.perf_counter()
    solved = solve(prior, found, np.array(estimate.t), poses)
    timings = {
        **estimate.timings,
        'match': middle - begin,
        'refine': time.perf_counter() - middle,
    }
    kept = {f.name: getattr(estimate, f.name) for f in fields(Estimate)}
    return RefinedEstimate(
        **kept
        | {
            'R': solved.R,
            't': solved.t,
            'rotation_sigma': solved.rotation_sigma,
            'centre_sigma': solved.centre_sigma,
            'ray_matches': solved.ray_matches or estimate.ray_matches,
            'timings': timings,
        },
        sure=solved.sure,
        matches=solved.matches,
        pairs=solved.pairs,
    )


def solve(prior: Prior, found: dict, looking: np.ndarray, poses: dict | None = None) -> Certainty:
    """Cameras from ray matches of pairs (i, j), i < j, in the published world.

    looking (N, 3): the object in the frame of each camera, as far as the prior knows. poses: what
    `search` has found in each pair's matches; None to have it do so.
    """
    told = prior
    if poses is None:
        poses = {pair: search(m) for pair, m in found.items()}
    doubted = replace(told, rotation_sigma=_DOUBT * told.rotation_sigma)
    prior, looking = trusted(doubted, found, looking, poses)
    pairs = {(i, j): hypotheses(m, prior, i, j, poses[i, j]) for (i, j), m in found.items()}
    agreed = agree(pairs, prior)
    if not agreed.chosen:
        return Certainty.of_prior(told)
    # only what the chosen meaning explains: a look-alike may have more matches than the truth
    explained = {
        key: found[key].take(near(h.R, h.t, found[key])) for key, h in agreed.chosen.items()
    }
    problem = Problem(explained, prior.aligned(agreed.R), looking)
    placed = place(agreed.R, agreed.chosen, looking)
    R, t, information, _ = adjust(agreed.R, placed, problem)
    if prior.matches:
        # The network's own hold the views that no others join. They are many and coarse: only
        # where exact ones have led the cameras they lead nobody astray.
        problem = replace(problem, matches=_joined(explained, prior.matches))
        R, t, information, _ = adjust(R, t, problem)
    believed = problem.prior
    if prior is doubted:  # and not what pairs of views have proven
        believed = replace(believed, rotation_sigma=told.rotation_sigma)
    found = certainty(R, t, information, believed, agreed.chosen)
    return replace(found, ray_matches=problem.matches)


def _joined(first: dict, second: dict) -> dict:
    """The matches of pairs in either, put together where they are in both."""
    both = {pair: m.and_also(second[pair]) if pair in second else m for pair, m in first.items()}
    return {**second, **both}


def prior_of(estimate: Estimate) -> Prior:
    """The estimate as belief."""
    samples = estimate.samples
    if samples is None or len(samples) < 2:
        samples = np.zeros((0, *estimate.R.shape))
    return Prior(
        estimate.R,
        estimate.centres,
        estimate.rotation_sigma,
        estimate.centre_sigma,
        samples,
        {pair: m.weighed(_OWN) for pair, m in estimate.ray_matches.items()},
    )


def _votes(
    order: list[tuple[int, int]],
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    crew: Crew,
    late: Callable[[], bool],
    progress: Callable[[int, int], None] | None,
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
        if progress:
            progress(0, len(order))
    return [tuple(x) for _, *x in sorted(votes, reverse=True)]


def _wave(
    pairs: list[tuple[int, int]], turns: Callable[[int, int], list[int]]
) -> list[tuple[tuple[int, int], list[int]]]:
    """The first pairs with their turns, which may be matched at the same time.

    A pair that has to try several turns may teach the next ones theirs, so there are few of them;
    how many does not depend on the machine, so that answers do not either.
    """
    wave, open_ = [], 0
    for pair in pairs[:_WAVE]:
        wave.append((pair, turns(*pair)))
        open_ += len(wave[-1][1]) > 1
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


def _near_first(R: np.ndarray) -> list[tuple[int, int]]:
    count = len(R)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    turned = {p: np.linalg.norm(vector_from_rotation(R[p[1]] @ R[p[0]].T)) for p in pairs}
    return sorted(pairs, key=turned.__getitem__)
