"""What the matches of two views can mean: several relative poses, each with its belief.

Hypotheses come from RANSAC on all matches, on what is left when the first answer's inliers are
gone (a look-alike side may have more matches than the right one), on those matches that can be
true under each of the prior's modes, and from planes, which have two meanings. All are refined and
judged alike: by the matches that agree, less what agrees by chance, by the prior, and by both
cameras looking at the object. Those that are hardly ever right are worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.multiview.essential import essential_poses
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import LIMIT
from ray_pose_ros.multiview.two_view import (
    RayMatches,
    agreement_nats,
    depths,
    epipolar_errors,
    object_misfit,
    refine_poses,
    support,
)

from .planar import planar_poses

THRESHOLD = 2.5  # standard deviations of a ray within which a match is an inlier
EVIDENCE = 0.35  # nats that the first inliers are worth: matches are not independent
SATURATION = 2.5  # nats, from where on more inliers add less and less
OBJECT_ANGLE, OBJECT_RATIO = np.radians(7.0), 0.3  # how well cameras point at the object
# Log odds that a hypothesis is right, by what its matches show: CONSTANT + RATIO times the squared
# share of all matches that agree + NUMBER times the log of all, less the misfit. By logistic
# regression on 1,541 pairs of 57 captures that the default model was trained on.
CONSTANT, RATIO, NUMBER = -10.8, 7.9, 1.9
# Of two meanings of the same matches the one with more of them is right in nine of ten cases: log
# odds are 2.6 times the difference of the square roots of their supports, by 1,842 pairs of
# photographs and captures, and the misfit tells next to nothing beside it.
_RIVALRY = 2.5
_OBJECT_SHARE = 0.25  # of the misfit's nats: objects are rarely where the crops' middles are
# What a hypothesis loses for each nat by which the network's own matches agree less with it than
# with the network's cameras, and the most: these matches err together.
_LOSS, _MOST_LOST = 1.0, 3.0
LEAST = -1.0  # log odds, below which a hypothesis has no evidence,
CONFIRMED = 4.0  # unless with what the prior says of it they are above this
_SAME = np.radians(6.0)
_MODES = 4  # at most so many different modes of the prior start a search

# R, t and covariance, of one pose of `refine_poses`
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Hypothesis:
    """One meaning of a pair's matches.

    Attributes:
        R, t: x_j = R x_i + t, |t| = 1.
        sigma: rad, rms angle by which R may be off, if it is not altogether wrong.
        support: soft number of inliers. chance: what wrong poses reach with such matches.
        inliers: (K,) bool.
        evidence: log of how much more likely than chance the matches are, nats.
        misfit: how badly both cameras look at the object, and the network's own matches are
            explained, nats.
        belief: evidence less misfit, with the prior, nats.
    """

    R: np.ndarray
    t: np.ndarray
    sigma: float
    support: float
    inliers: np.ndarray
    evidence: float
    misfit: float
    belief: float


def search(matches: RayMatches) -> list[Found]:
    """Poses that matches alone tell, refined."""
    if len(matches) < 6:
        return []
    first = essential_poses(matches, THRESHOLD)
    starts = list(first)
    for R, t in first:
        _, inliers = support(R, t, matches, THRESHOLD)
        rest = matches.take(~inliers)
        if len(rest) >= 12:
            starts += essential_poses(rest, THRESHOLD)
    starts += planar_poses(matches, THRESHOLD)
    return _refined(starts, matches)


def hypotheses(
    matches: RayMatches,
    prior: Prior,
    i: int,
    j: int,
    poses: list[Found],
    count: int = 5,
) -> list[Hypothesis]:
    """At most `count` different hypotheses for views i and j, the most believed first.

    poses: what `search` finds in the matches.
    """
    starts = []
    modes = _modes(prior.pair_rotations(i, j))
    spread = prior.pair_sigma(i, j)
    if len(matches) >= 6 and spread < np.radians(60):
        for R in modes:
            possible = _possible(matches, R, prior, i, j, spread)
            if 6 <= possible.sum() < 0.9 * len(matches):
                starts += essential_poses(matches.take(possible), THRESHOLD)
    if len(matches) >= 3:
        starts += [(R, looking_translation(R, matches)) for R in modes]
    poses = poses + _refined(starts, matches)
    if not poses:
        return []
    found = judge(*map(np.stack, zip(*poses, strict=True)), matches, prior, i, j)
    found = sorted(_rivals(found), key=lambda h: -h.belief)
    R = np.stack([h.R for h in found])
    apart = angle_between(R[:, None], R[None]) > _SAME
    kept: list[int] = []
    for n in range(len(found)):
        if len(kept) < count and apart[n, kept].all():
            kept.append(n)
    return [found[n] for n in kept]


def judge(
    R: np.ndarray,
    t: np.ndarray,
    covariance: np.ndarray,
    matches: RayMatches,
    prior: Prior,
    i: int,
    j: int,
) -> list[Hypothesis]:
    """Relative poses R (P, 3, 3), t (P, 3), with covariances (P, 3, 3) of R, as hypotheses."""
    scores, inliers = support(R, t, matches, THRESHOLD)
    chance = chance_support(len(matches))
    evidence = EVIDENCE * (scores - chance)
    # a look-alike side may have a hundred matches, too
    above = np.maximum(evidence, 0.0)
    evidence = np.minimum(evidence, 0.0) + SATURATION * np.log1p(above / SATURATION)
    misfit = _OBJECT_SHARE * object_misfit(R, t, matches, OBJECT_ANGLE, OBJECT_RATIO)
    told = prior.log_ratio(i, j, R)
    odds = log_odds(scores, len(matches), misfit)
    useless = (odds < LEAST) & (odds + told < CONFIRMED)
    evidence = np.where(useless, np.minimum(evidence, misfit), evidence)
    misfit = misfit + _unexplained(R, t, prior, i, j)
    sigma = np.sqrt(np.trace(covariance, axis1=-2, axis2=-1))
    numbers = zip(
        *(x.tolist() for x in (sigma, scores, evidence, misfit, evidence + told - misfit)),
        strict=True,
    )
    return [
        Hypothesis(R[n], t[n], spread, score, inliers[n], nats, lost, belief)
        for n, (spread, score, nats, lost, belief) in enumerate(numbers)
    ]


def _unexplained(R: np.ndarray, t: np.ndarray, prior: Prior, i: int, j: int) -> np.ndarray:
    """What poses (P, ...) lose for the network's own matches of views i and j, nats (P,)."""
    own = prior.matches.get((i, j))
    if own is None:
        return np.zeros(len(R))
    before = prior.pair_rotations(i, j)[:1], prior.pair_translation(i, j)[None]
    nats = agreement_nats(
        *(np.concatenate(x) for x in zip(before, (R, t), strict=True)), own, LIMIT
    )
    return np.minimum(_LOSS * np.maximum(nats[0] - nats[1:], 0.0), _MOST_LOST)


def _refined(starts: list[tuple[np.ndarray, np.ndarray]], matches: RayMatches) -> list[Found]:
    if not starts:
        return []
    R, t = (np.stack(x) for x in zip(*starts, strict=True))
    return list(zip(*refine_poses(R, t, matches, THRESHOLD), strict=True))


def near(R: np.ndarray, t: np.ndarray, matches: RayMatches) -> np.ndarray:
    """(K,) bool: matches that are inliers of the pose or might become some."""
    return support(R, t, matches, 1.5 * THRESHOLD)[1]


def log_odds(score: np.ndarray, count: int, misfit: np.ndarray) -> np.ndarray:
    """That poses (...) with which `score` of `count` matches agree are right (within 8 degrees).

    Nats, without the prior. Nats of evidence are more generous: pairs confirm each other.
    """
    share = score / max(count, 1)
    return CONSTANT + RATIO * share**2 + NUMBER * float(np.log(max(count, 1))) - misfit


def _rivals(found: list[Hypothesis]) -> list[Hypothesis]:
    """Hypotheses on the same matches, each worth less by as much as the best explains more."""
    best = max(found, key=lambda h: h.support, default=None)
    judged = []
    for h in found:
        behind = _RIVALRY * (max(best.support, 0.0) ** 0.5 - max(h.support, 0.0) ** 0.5)
        loss = max(0.0, behind - (best.evidence - h.evidence))
        judged.append(replace(h, evidence=h.evidence - loss, belief=h.belief - loss))
    return judged


def chance_support(count: int) -> float:
    """Support that the best of many wrong poses finds among `count` unrelated matches.

    Five matches fit exactly; of the others a few in a hundred lie near their epipolar lines.
    """
    return 4.0 + 0.05 * count


def looking_translation(R: np.ndarray, matches: RayMatches) -> np.ndarray:
    """t (3,), |t| = 1, of two cameras that look at one point from the same distance."""
    t = matches.centre_b - R @ matches.centre_a
    length = np.linalg.norm(t)
    return t / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])


def _modes(rotations: np.ndarray) -> list[np.ndarray]:
    """The first rotation and those of the others that differ from all before."""
    kept = [rotations[0]]
    for R in rotations[1:]:
        if len(kept) < _MODES and all(angle_between(R, x) > np.radians(25) for x in kept):
            kept.append(R)
    return kept


def _possible(
    matches: RayMatches, R: np.ndarray, prior: Prior, i: int, j: int, spread: float
) -> np.ndarray:
    """(K,) bool: rays that nearly meet, not far behind, if the prior is about right."""
    t = prior.pair_translation(i, j)
    if angle_between(R, prior.pair_rotations(i, j)[0]) > 1e-6 or np.linalg.norm(t) < 0.5:
        t = looking_translation(R, matches)
    band = max(1.0 * spread, np.radians(3.0))
    errors = np.abs(epipolar_errors(R, t, matches.a, matches.b))
    first, second = depths(R, t, matches.a, matches.b)
    # turning the camera turns far rays apart: behind is behind only beyond the uncertainty
    meeting = np.arccos(np.clip(((matches.a @ R.T) * matches.b).sum(-1), -1, 1))
    ahead = ((first > 0) & (second > 0)) | (meeting < band)
    return (errors < band) & ahead
