"""The focal length that photographs of unknown intrinsics were taken with.

With a wrong focal length the rays of matches still meet in any two views, or nearly: two views
hardly tell it (Sturm, "On focal length calibration from two views", CVPR 2001). Three and more
that are to agree do: going round an object, turns that are all too small or too large do not
close. So cameras are solved for with several focal lengths, and what lets most matches agree is
taken, as far as it is not an unlikely one. Views of unknown intrinsics are taken to share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import camera_centres
from ray_pose_ros.multiview.adjust import adjust
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import Problem
from ray_pose_ros.multiview.two_view import RayMatches, support

from .certainty import Certainty
from .crew import Crew
from .hypotheses import THRESHOLD, search
from .pairing import Pairs
from .refine import solve, told_of_object

# Of how photographs are taken: log of the focal length over the assumed one, or over that which
# the photograph tells, one standard deviation.
SPREAD = {'assumed': 0.35, 'exif': 0.08}
TRIED = np.linspace(-2.0, 2.0, 7)  # so many standard deviations from it
_NATS, _MOST = 0.05, 200.0  # for each match that agrees, and the most of them that count of a pair
_EACH = 3  # pairs of each view that are looked at, those with most matches
_NEAR = 0.15  # of the log, within which the best of the steps is improved
_SAME = 0.003  # of the log: no other focal length
# Of the log, one standard deviation, however clearly matches tell which of the steps it is: of 36
# windows of photographs that told it to 0.1 the median error was 0.017, and one was wrong.
_FINE = 0.03
HARDLY = 0.2


class Focal(NamedTuple):
    """A focal length as matches tell it.

    factor: by how much it is longer than the assumed one.
    sigma: of its log, one standard deviation; above HARDLY the matches hardly tell.
    nats: (7,) what these matches say of each length that was TRIED, without what was known before.
    """

    factor: float
    sigma: float
    nats: np.ndarray

    @property
    def known(self) -> bool:
        """Whether it is better known than by how photographs are taken."""
        return self.sigma <= HARDLY

    @property
    def changes(self) -> bool:
        """Whether it is another one than the assumed."""
        return abs(np.log(self.factor)) > _SAME


def unknown(estimate: Estimate) -> np.ndarray:
    """(N,) bool: views whose focal length may be changed."""
    return np.array([source in SPREAD for source in estimate.intrinsics_source])


def find_focal(
    estimate: Estimate,
    found: Pairs,
    pulse: Callable[[], None] = lambda: None,
    known: float = 1.0,
    before: np.ndarray | float = 0.0,
) -> Focal | None:
    """The focal length with which most matches agree; None where they do not tell.

    Args:
        estimate: of views some of which are `unknown`, or from 'matches' that told it before.
        found: their matches. pulse: called between steps; it may raise.
        known: by how much focal lengths in the estimate are longer than assumed already.
        before: (7,) `Focal.nats` of other windows of the same cameras, in sum.
    """
    free = unknown(estimate) | (np.array(estimate.intrinsics_source) == 'matches')
    prior, matches, _ = told_of_object(estimate, found)
    matches = _strongest(matches, free)
    if len(estimate.R) < 3 or len(matches) < 2:
        return None
    sources = np.array(estimate.intrinsics_source)[free]
    logs = TRIED * max(SPREAD.get(source, SPREAD['assumed']) for source in sources)
    looking = np.array(estimate.t)
    solved, nats = [], np.zeros(len(logs))
    with Crew(pulse) as crew:
        for n, log in enumerate(logs):
            factor = float(np.exp(log)) / known
            rays = _scaled(matches, free, factor)
            poses = dict(zip(rays, crew.map(search, rays.values()), strict=True))
            pulse()
            of_model = replace(prior, matches=_scaled(prior.matches, free, factor))
            solved.append(solve(of_model, rays, looking, poses, pulse))
            nats[n] = _NATS * _agreeing(solved[n], rays)
    belief = nats + before - 0.5 * TRIED**2
    best = int(belief.argmax())
    if len(solved[best].pairs) < 2:
        return None
    share = np.exp(belief - belief[best])
    share /= share.sum()
    sigma = float(np.hypot(_FINE, (share @ (logs - share @ logs) ** 2) ** 0.5))
    log = logs[best] + _improved(solved[best], prior, looking, free)
    return Focal(float(np.exp(log)), sigma, nats)


def scaled_cameras(
    cameras: Sequence[CameraModel], free: np.ndarray, factor: float
) -> list[CameraModel]:
    """The cameras, with focal lengths times `factor` where (N,) bool `free`."""
    return [
        camera.refocused(factor) if changes else camera
        for camera, changes in zip(cameras, free, strict=True)
    ]


def _strongest(matches: dict, free: np.ndarray) -> dict:
    """Those pairs with a view that is free which have most matches, several of each view."""
    order = sorted(matches, key=lambda pair: -len(matches[pair]))
    often = np.zeros(len(free), dtype=int)
    chosen = {}
    for i, j in order:
        if (free[i] or free[j]) and min(often[i], often[j]) < _EACH:
            chosen[i, j] = matches[i, j]
            often[[i, j]] += 1
    return chosen


def _scaled(matches: dict, free: np.ndarray, factor: float) -> dict[tuple[int, int], RayMatches]:
    """Matches under focal lengths `factor` times as long of the views that are free."""
    longer = np.where(free, factor, 1.0)
    return {(i, j): m.refocused(longer[i], longer[j]) for (i, j), m in matches.items()}


def _agreeing(solved: Certainty, matches: dict) -> float:
    """Matches that agree with the cameras, softly, of all pairs."""
    total = 0.0
    for (i, j), m in matches.items():
        R = solved.R[j] @ solved.R[i].T
        t = solved.t[j] - R @ solved.t[i]
        length = np.linalg.norm(t)
        if length > 1e-9:
            total += min(float(support(R, t / length, m, THRESHOLD)[0]), _MOST)
    return total


def _improved(solved: Certainty, prior: Prior, looking: np.ndarray, free: np.ndarray) -> float:
    """The log by which the focal length changes where the adjusted cameras fit best."""
    centres = camera_centres(solved.R, solved.t)
    none = prior.samples[:0]
    held = Prior(solved.R, centres, prior.rotation_sigma, prior.centre_sigma, none)

    def cost(log: float) -> float:
        rays = _scaled(solved.ray_matches, free, float(np.exp(log)))
        return adjust(solved.R, solved.t, Problem(rays, held, looking), rounds=10).cost

    found = minimize_scalar(
        cost, bounds=(-_NEAR, _NEAR), method='bounded', options={'xatol': 1e-3}
    )
    return float(found.x)
