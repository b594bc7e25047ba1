"""Cameras that agree with the network's rays and with its own matches.

On its way to the rays of a patch the network matches cells a quarter of that size. Of what the
matches say about cameras, little comes through to the rays: the geometry of many views is easily
computed and hard to learn. So the rays' cameras are taken for a prior, with the uncertainty that
is known of them, and all cameras are adjusted until the matched rays of the views meet as well.
Where they do not, other answers of the network are started from, and groups of views are moved to
where matches of single pairs say that they belong (`multiview.regroup`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ray_pose_ros.estimation.preparation import Prepared, crop_pixels
from ray_pose_ros.geometry.so3 import camera_centres, camera_translations
from ray_pose_ros.model.matching import MutualMatches
from ray_pose_ros.multiview.adjust import Adjusted, adjust, deviations
from ray_pose_ros.multiview.links import pair_support, weakest_links
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.regroup import regrouped
from ray_pose_ros.multiview.residuals import Problem, agreement
from ray_pose_ros.multiview.two_view import RayMatches

# One standard deviation of a match that is placed by its cells, in cells. With twice as much,
# three of a hundred pairs of eight views less are right on photographs that were never trained on,
# and six on rendered ones; anything from 0.1 to 0.2 is as good.
_SIGMA = 0.17
# Where matches are located within cells: what they are held to, in deviations that the network
# tells. The errors have long tails; with 0.2 to 0.5 as much is right. Each match comes twice, from
# either end, and each time counts half.
_TIGHT, _EACH = 0.3, 0.5
# Neighbouring cells err together, so a match says less than one that is found for itself.
_WEIGHT = 0.5
_FEWEST = 6  # matches of a pair worth looking at
# Where more matches disagree than this, the cameras may have come to rest at the wrong place.
_DISAGREE = 0.1
_TAILS = 1 / _TIGHT  # times what a match is held to, where single pairs are judged by RANSAC
_STARTS, _ROUNDS = 8, 6  # other places to start from, at most, and how far to go before choosing
_NEAREST = 3  # of them that are followed to their ends


@dataclass(frozen=True)
class Settled:
    """Adjusted cameras of N views in the published world.

    Attributes:
        R, t: (N, 3, 3), (N, 3).
        rotation_deviation, centre_deviation: (N,) standard deviations if the matches were
            independent and the prior right, rad and world units.
        support: (N,) nats by which matches that agree with the cameras join each view to the
            first, over others if they do so better; of all pairs on the way, the fewest.
        matches: those that the cameras were adjusted to, weighed as there.
        agreed: whether nearly all of them agreed with the first cameras that they led to.
    """

    R: np.ndarray
    t: np.ndarray
    rotation_deviation: np.ndarray
    centre_deviation: np.ndarray
    support: np.ndarray
    matches: dict[tuple[int, int], RayMatches]
    agreed: bool


def settle(
    R: np.ndarray,
    t: np.ndarray,
    rotation_sigma: np.ndarray,
    matches: dict[tuple[int, int], RayMatches],
    samples: np.ndarray | None = None,
    pulse: Callable[[], None] = lambda: None,
) -> Settled | None:
    """Adjust cameras R (N, 3, 3), t (N, 3) of the published world; None without matches.

    Args:
        rotation_sigma: (N,) the cameras' uncertainty, rms rad.
        samples: (S, N, 3, 3) rotations of other answers of the network.
        pulse: called between steps. It may raise to abandon the work.

    Where matches and cameras do not agree, the samples are started from too, groups of views are
    moved together, and what fits best is taken.
    """
    matches = {pair: m.weighed(_WEIGHT) for pair, m in matches.items() if len(m) >= _FEWEST}
    if not matches:
        return None
    n = len(R)
    centres = camera_centres(R, t)
    prior = Prior(R, centres, rotation_sigma, np.zeros(n), np.zeros((0, n, 3, 3)))
    problem = Problem(matches, prior, t)
    best = adjust(R, t, problem)
    agreed = agreement(best.R, best.t, problem) >= 1 - _DISAGREE
    if not agreed:
        if samples is not None and len(samples):
            best = min(best, _elsewhere(samples, t, problem, pulse), key=lambda found: found.cost)
        best = regrouped(best, problem, _TAILS, pulse)
    found_R, found_t, information, _ = best
    rotation, centre = deviations(found_R, information)
    if not (np.isfinite(found_R).all() and np.isfinite(found_t).all()):
        return None
    support = weakest_links(pair_support(found_R, found_t, matches))
    return Settled(*_published(found_R, found_t, t[0]), rotation, centre, support, matches, agreed)


def _elsewhere(samples: np.ndarray, t: np.ndarray, problem: Problem, pulse) -> Adjusted:
    """The best of what the first of other answers (S, N, 3, 3) come to."""

    def follow(R: np.ndarray, t: np.ndarray, *rounds: int) -> Adjusted:
        pulse()
        return adjust(R, t, problem, *rounds)

    starts = [follow(R @ R[0].T, t, _ROUNDS) for R in samples[:_STARTS]]
    nearest = sorted(starts, key=lambda found: found.cost)[:_NEAREST]
    return min((follow(start.R, start.t) for start in nearest), key=lambda found: found.cost)


def ray_matches(
    prepared: Sequence[Prepared], found: MutualMatches, side: int
) -> dict[tuple[int, int], RayMatches]:
    """The network's matches as rays, by pair of views (i, j).

    `side` is the number of fine cells along a crop. Matches of the crop's padding, where there is
    no image, are left out, and so are those where the lens sees nothing. All cameras are known.
    """
    pair = found.pair.cpu().numpy()
    weight, deviation = _weighed(found)
    cells = [x.cpu().double() for x in (found.cell_i, found.cell_j)]
    pairs = found.pairs.cpu().numpy()
    rays = np.full((2, len(pair), 3), np.nan)
    for view, p in enumerate(prepared):
        for end in (0, 1):
            mine = pairs[pair, end] == view
            pixels = crop_pixels(p, cells[end][mine], side)
            inside = ((pixels >= 0) & (pixels < pixels.new_tensor(p.size))).all(dim=1)
            of_view = p.camera.unproject(pixels)
            of_view[~inside] = np.nan
            rays[end, mine] = of_view.numpy()
    usable = np.isfinite(rays).all(axis=(0, 2))
    centre = [p.turn[2].numpy() for p in prepared]  # the virtual camera's axis
    angle = [_cell_angle(p, side) for p in prepared]
    matches = {}
    for e, (i, j) in enumerate(pairs.tolist()):
        mine = usable & (pair == e)
        sigma = deviation[mine] * (angle[i] + angle[j]) / 2
        a, b = rays[:, mine]
        matches[i, j] = RayMatches(a, b, sigma, centre[i], centre[j], weight[mine])
    return matches


def put_together(
    looks: Sequence[dict[tuple[int, int], RayMatches]],
) -> dict[tuple[int, int], RayMatches]:
    """What several looks at the same views have matched. They saw the same things, so that a match
    of one of K looks counts for the K-th part."""
    found: dict[tuple[int, int], RayMatches] = {}
    for look in looks:
        for pair, matches in look.items():
            share = matches.weighed(1 / len(looks))
            found[pair] = found[pair].and_also(share) if pair in found else share
    return found


def _weighed(found: MutualMatches) -> tuple[np.ndarray, np.ndarray]:
    """How likely matches (K,) are right, and standard deviations (K,) of their places, cells."""
    if found.right is not None:
        right, deviation = (x.cpu().double().numpy() for x in (found.right, found.deviation))
        return _EACH * right, _TIGHT * deviation
    likely = found.likelihood().cpu().double().numpy()
    return likely, np.full(len(likely), _SIGMA)


def _cell_angle(p: Prepared, side: int) -> float:
    """rad, between the rays of neighbouring fine cells, as a rule."""
    grid = int(len(p.directions) ** 0.5)
    d = p.directions.numpy().reshape(grid, grid, 3)
    apart = np.linalg.norm(d[:, 1:] - d[:, :-1], axis=-1)
    return float(np.median(apart)) * grid / side


def _published(R: np.ndarray, t: np.ndarray, looking: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cameras in the published world: first camera unrotated, the origin on its ray `looking` (3,)
    at distance 1, where it comes nearest to the adjustment's origin."""
    centres = camera_centres(R, t)
    looking = looking / np.linalg.norm(looking)
    axis = R[0].T @ looking
    distance = -float(centres[0] @ axis)
    if distance < 0.1 * np.linalg.norm(centres[0]):  # it looks away from the object
        distance = float(np.linalg.norm(centres[0]))
    origin = centres[0] + distance * axis
    turned = R @ R[0].T
    moved = (centres - origin) @ R[0].T / distance
    return turned, camera_translations(turned, moved)
