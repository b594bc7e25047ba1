"""The ray model's answer made exact where feature matches allow it.

A match's rays meet; the ray model says where to look, which look-alikes to distrust, and where
the views stand that share nothing. See the modules for the steps: `pairing`, `hypotheses`,
`averaging`, `adjust`, `certainty`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace

import numpy as np

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.progress import Progress, pulse_of
from ray_pose_ros.estimation.views import View
from ray_pose_ros.matching import Matcher, MatcherUnavailable, create_matcher
from ray_pose_ros.multiview.adjust import adjust
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import Problem
from ray_pose_ros.multiview.two_view import RayMatches

from .averaging import agree
from .certainty import Certainty, certainty
from .hypotheses import hypotheses, near, search
from .keyframe import Keyframe, matched_before
from .pairing import FEWEST, Pairs, known_pairs, match_pairs, rolls_of
from .place import place
from .rounds import Rounds
from .standing import turns_before, without_room
from .trust import trusted

TURNS = (  # see `RefinedEstimate.caution`
    'the object turns before a camera that stands still, or much of the images moves with the '
    'camera; that was left out as far as the images tell, and masks of the object are surer'
)
# Learned matchers, the most accurate first. Both of them together tell no more than the first.
LEARNED = 'aliked', 'lighterglue'
FEATURES = 768  # of a learned matcher, an image: more cost more than they bring
# Of SIFT beside a learned matcher: the longer side in pixels, and features. Twice as many of
# larger images tell no better poses and take twice the time.
_SIFT = 1024, 2048
_OWN = 0.5  # of their weight: what the network's own matches count beside those of features
# Beside feature matches the network is taken to be this much less sure than it tells: on things
# that are strange to it, it is surer than right, and what it tells then outweighs true matches.
_DOUBT = 2.0
_DISTRACTED = np.radians(30.0)  # rad: no surer is a network that looks at a room, too
_ANY_TURN = np.pi / 3**0.5  # rad: rms of turns about an axis, where all are as likely
_WORTH_IT = 3  # pairs that are to be matched yet, where an early answer is worth its time


@dataclass(frozen=True)
class RefinedEstimate(Estimate):
    """An Estimate after refinement; `rays` stay as the model predicted them.

    Attributes:
        sure: (N,) bool, joined to the first camera (or, for it, to any) by matches that can be
            trusted. The others stand where the ray model and weak matches put them.
        matches: (N,) int, matches of each view that agree with the answer.
        pairs: (E, 2) int, the pairs of views that matches join.
        ray_matches: those of features too, as far as the answer explains them.
        model: the estimate as it was before.
        focal_sigma: of the log of the focal length, one standard deviation, where nobody told it
            and it was looked for; None where matches tell nothing.
        turns: whether matches show that the object turns before a camera that stands still (or
            much moves with a camera, as a gripper); those of its surroundings have been left out.
        timings: also 'match' and 'refine', seconds.
    """

    sure: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    matches: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=int))
    model: Estimate | None = None
    focal_sigma: float | None = None
    turns: bool = False

    @property
    def caution(self) -> str | None:
        """As of Estimate."""
        return TURNS if self.turns else super().caution


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


def keyframe(view: View, stands: bool = False) -> Keyframe:
    """The view as `refine` wants it; keep it for as long as the view is used.

    stands: as of `Keyframe`.
    """
    return Keyframe(view.image, view.mask, stands)


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
        progress: called with (pairs done, pairs in all); of many views the number of pairs grows
            with what matches tell (`rounds`). It may raise to abandon the run.

    Without trustworthy matches the estimate comes back as it was. Raises ValueError for another
    number of keyframes than views, or a deadline that is not positive.
    """
    *_, (refined, _) = refined_steps(estimate, keyframes, matchers, deadline, progress)
    return refined


def refined_steps(
    estimate: Estimate,
    keyframes: Sequence[Keyframe],
    matchers: Sequence[Matcher],
    deadline: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    early: bool = False,
) -> Iterator[tuple[RefinedEstimate, Pairs]]:
    """What `refine` returns, and what it was refined by; with `early` maybe an answer before.

    That is when each view has matches with two others, for the first time: more pairs make it more
    exact, and surer, and take most of the time. They are being matched meanwhile.
    """
    _check_count(estimate, keyframes)
    if deadline is not None and not deadline > 0:
        raise ValueError(f'deadline is {deadline}, expected seconds above 0')
    begin = time.perf_counter()
    end = np.inf if deadline is None else begin + deadline
    prior, rolls, rounds = prior_of(estimate), rolls_of(estimate), Rounds(len(keyframes))
    known = known_pairs(estimate, keyframes) if early else Pairs({}, {})
    early = early and not _joined_to_two(known, len(keyframes))
    new, found, refining = rounds.first(estimate.R, matched_before(keyframes)), Pairs({}, {}), 0.0
    while True:
        told = progress and _from(progress, found.tried)
        before = found
        steps = match_pairs(new, estimate, prior, keyframes, matchers, rolls, end, told)
        with closing(steps):
            for more in steps:
                found = before.and_also(more)
                all_known, left = known.and_also(found), len(new) - more.tried
                if early and left >= _WORTH_IT and _joined_to_two(all_known, len(keyframes)):
                    early = False
                    refined = refine_by(estimate, all_known, pulse_of(progress, found.tried))
                    refining += refined.timings['refine']
                    yield _timed(refined, refining, begin), all_known
        refined = refine_by(estimate, found, pulse_of(progress, found.tried))
        refining += refined.timings['refine']
        new = rounds.further(refined.R, refined.sure, refined.pairs)
        if not new or time.perf_counter() > end:
            break
    yield _timed(refined, refining, begin), found


def _timed(refined: RefinedEstimate, refining: float, begin: float) -> RefinedEstimate:
    """With the seconds since `begin`, `refining` of which went into that."""
    timings = {'refine': refining, 'match': time.perf_counter() - begin - refining}
    return replace(refined, timings=refined.timings | timings)


def _joined_to_two(found: Pairs, views: int) -> bool:
    """Whether each view has matches with two others."""
    count = Counter(v for pair, m in found.matches.items() if len(m) >= FEWEST for v in pair)
    return all(count[view] >= 2 for view in range(views))


def refine_known(estimate: Estimate, keyframes: Sequence[Keyframe]) -> RefinedEstimate:
    """Refine an estimate by those matches between its views that an earlier `refine` has found.

    Where there are none yet the estimate comes back as it was. Raises ValueError as `refine`.
    """
    _check_count(estimate, keyframes)
    return refine_by(estimate, known_pairs(estimate, keyframes))


def refine_by(
    estimate: Estimate, found: Pairs, pulse: Callable[[], None] = lambda: None
) -> RefinedEstimate:
    """Refine an estimate by given matches of its views. pulse as of `solve`."""
    begin = time.perf_counter()
    prior, matches, turns = told_of_object(estimate, found)
    poses = dict(found.poses)
    for pair, m in matches.items():
        if m is not found.matches[pair]:
            pulse()
            poses[pair] = search(m)
    solved = solve(prior, matches, np.array(estimate.t), poses, pulse)
    if turns:
        least = np.where(solved.sure, 0.0, _DISTRACTED)
        solved = replace(
            solved,
            rotation_sigma=np.maximum(solved.rotation_sigma, least),
            centre_sigma=np.maximum(solved.centre_sigma, least * np.linalg.norm(solved.t, axis=1)),
        )
    timings = {**estimate.timings, 'refine': time.perf_counter() - begin}
    kept = {f.name: getattr(estimate, f.name) for f in fields(Estimate)}
    return RefinedEstimate(
        **kept
        | {
            'R': solved.R,
            't': solved.t,
            'rotation_sigma': solved.rotation_sigma,
            'centre_sigma': solved.centre_sigma,
            'ray_matches': solved.ray_matches or ({} if turns else estimate.ray_matches),
            'timings': timings,
        },
        sure=solved.sure,
        matches=solved.matches,
        pairs=solved.pairs,
        model=estimate,
        turns=turns,
    )


def solve(
    prior: Prior,
    found: dict,
    looking: np.ndarray,
    poses: dict | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> Certainty:
    """Cameras from ray matches of pairs (i, j), i < j, in the published world.

    looking (N, 3): the object in the frame of each camera, as far as the prior knows. poses: what
    `search` has found in each pair's matches; None to have it do so. pulse: called between steps;
    it may raise.
    """
    told = prior
    if poses is None:
        poses = {pair: search(m) for pair, m in found.items()}
    doubted = replace(told, rotation_sigma=_DOUBT * told.rotation_sigma)
    prior, looking = trusted(doubted, found, looking, poses)
    pairs = {}
    for (i, j), m in found.items():
        pulse()
        pairs[i, j] = hypotheses(m, prior, i, j, poses[i, j])
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


def told_of_object(
    estimate: Estimate, found: Pairs
) -> tuple[Prior, dict[tuple[int, int], RayMatches], bool]:
    """The belief and the matches of pairs that have enough, both without the room before which the
    object turns, if it does; and whether."""
    prior, matches = prior_of(estimate), found.matches
    turns = turns_before(matches)
    if turns:
        prior = _without_room(prior, estimate, matches)
        matches = without_room(matches, matches)
    return prior, {pair: m for pair, m in matches.items() if len(m) >= FEWEST}, turns


def _without_room(prior: Prior, estimate: Estimate, known: dict) -> Prior:
    """The belief without what the room tells before which a thing turns.

    known: matches of pairs, see `without_room`. A network that has taken the room for the thing,
    so that all cameras stand at one place, has told nothing of it.
    """
    if not estimate.at_one_place:
        return replace(prior, matches=without_room(prior.matches, known))
    unknown = np.full(len(prior.R), _ANY_TURN)
    return replace(
        prior,
        rotation_sigma=unknown,
        centre_sigma=unknown * np.linalg.norm(estimate.t, axis=1),
        samples=prior.samples[:0],
        matches={},
    )


def _from(progress: Progress, before: int) -> Progress:
    """`progress` of pairs that come after others."""
    return lambda done, total: progress(before + done, before + total)


def _check_count(estimate: Estimate, keyframes: Sequence[Keyframe]) -> None:
    if len(keyframes) != len(estimate.R):
        raise ValueError(
            f'{len(keyframes)} keyframes, expected {len(estimate.R)} as in the estimate'
        )


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
