"""Matches on what stands still in front of a camera while the object moves.

On a turntable the room behind the object says that no camera has moved, and says it with more and
better matches than the object has. So does the gripper that a wrist camera sees, or what a
recording has printed on its images. Of a scene that a camera moves in, points come back to their
own pixels by chance only; of views from one and the same place, all do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from ray_pose_ros.multiview.two_view import RayMatches

_STILL, _FAR = 2.0, 10.0  # deviations of a match: has not moved, and is where it never was
_FEWEST, _SHARE = 8, 0.05  # matches of either kind
_MOST = 0.5  # of the matches: so many stand still before a camera that does
_LITTLE = 0.01  # of the matches: what moves there may be a small thing, or a plain one
_SHOWN = 0.2  # of the pairs: so many show that the camera stands still,
_OF_VIEWS = 0.5  # and more of the views are in them: others are of a camera that moves
_NEXT, _MIXED = 9, 2  # matches next to one in the image, and those of them that may stand still

_MIDDLE, _FEATURES = 0.1, 20  # the share of an image's features that are the middle; the fewest
_UNMATCHED = 0.5  # of the share that is matched elsewhere: fewer of the middle show another side

Pair = tuple[int, int]
Sides = Sequence[tuple[np.ndarray, np.ndarray]]  # of two images: rays (F, 3), and (F,) bool


def without_standing(
    matches: RayMatches, features: Callable[[], Sides] | None = None, known: bool = False
) -> RayMatches:
    """Matches of two views without those that have not moved in the image, if others have.

    The two cameras may be one or several: what has the same ray in both has not moved. All matches
    where nothing has moved, or nearly nothing but wrong matches, and where little has not. Where
    most have not, the camera has stood still, and what moved has to be about where the object is;
    only that is left, and `standing` has the others. That may be nothing, if `features` tells that
    there are features where the object is, other ones in either image: of both images the rays of
    all features, and whether they are matched. known: that the camera has stood still, so that
    shadows and what looks alike from all sides say nothing either.
    """
    still, rest = _moved(matches)
    if known:
        return _parted(matches, _moving(matches, still, rest), still) if still.any() else matches
    least = max(_FEWEST, _SHARE * len(matches))
    stands = len(matches) >= _FEWEST and still.mean() > _MOST
    if stands and rest.sum() >= max(_FEWEST, _LITTLE * len(matches)):
        ends = ((matches.a, matches.centre_a), (matches.b, matches.centre_b))
        moves = _moving(matches, still, rest)
        central = [_off(x[moves], centre) < _off(x[still], centre) for x, centre in ends]
        if (moves.sum() >= _FEWEST or rest.sum() >= least) and all(central):
            return _parted(matches, moves, still)
    if stands and features and _other_sides(features(), (matches.centre_a, matches.centre_b)):
        return _parted(matches, np.zeros_like(still), still)
    if min(still.sum(), rest.sum()) < least:
        return matches
    return matches.take(~still)


def turns_before(matches: Mapping[Pair, RayMatches]) -> bool:
    """Whether views (i, j) are of a thing that turns before a camera that stands still.

    matches: by `without_standing`, some pairs of which have shown it, where enough stand still.
    """
    if all(m.standing is None for m in matches.values()):
        return False
    stands = [pair for pair, m in matches.items() if _room(m) is not None]
    views = len(np.unique(stands)) / len(np.unique(list(matches)))
    return len(stands) >= _SHOWN * len(matches) and views > _OF_VIEWS


def without_room(
    matches: Mapping[Pair, RayMatches], known: Mapping[Pair, RayMatches]
) -> dict[Pair, RayMatches]:
    """Matches of views (i, j) before which something turns without those in what does not.

    known: of the same views, by `without_standing`: where the camera was touched between two
    photographs, others tell what is the room in each.
    """
    rooms: dict[int, list[np.ndarray]] = {}
    for pair, m in known.items():
        room = _room(m)
        if room is not None:
            for view, rays in zip(pair, room, strict=True):
                rooms.setdefault(view, []).append(rays)
    trees = {view: KDTree(np.concatenate(rays)) for view, rays in rooms.items()}
    left = {}
    for pair, m in matches.items():
        keep = _moved(m)[1]
        for view, rays in zip(pair, (m.a, m.b), strict=True):
            if view in trees:
                keep &= _apart(rays, KDTree(rays), trees[view])
        left[pair] = m if keep.all() else m.take(keep)
    return left


def _moving(matches: RayMatches, still: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(K,) bool: of the matches that have moved, `rest`, those that are not among what is still.

    Look-alikes within the room move too, among much that does not.
    """
    moves = rest.copy()
    for rays in (matches.a, matches.b):
        moves[rest] &= _apart(rays[rest], KDTree(rays[~still]), KDTree(rays[still]))
    return moves


def _parted(matches: RayMatches, moves: np.ndarray, still: np.ndarray) -> RayMatches:
    return replace(matches.take(moves), standing=np.stack([matches.a[still], matches.b[still]]))


def _other_sides(features: Sides, centres: Sequence[np.ndarray]) -> bool:
    """Whether in both images features about the middle of the object's place, (3,), have far
    fewer matches than those around them."""
    for (rays, matched), centre in zip(features, centres, strict=True):
        count = int(_MIDDLE * len(rays))
        if count < _FEATURES:
            return False
        off = np.linalg.norm(rays - centre, axis=1)
        middle = off <= np.partition(off, count)[count]
        if matched[middle].mean() > _UNMATCHED * matched[~middle].mean():
            return False
    return True


def _moved(matches: RayMatches) -> tuple[np.ndarray, np.ndarray]:
    """(K,) bool each: matches that have stood still in the image, and those that clearly moved."""
    moved = np.linalg.norm(matches.a - matches.b, axis=1) / matches.sigma
    return moved < _STILL, moved > _FAR


def _room(matches: RayMatches) -> np.ndarray | None:
    """Rays (2, S, 3) of what stands still in both images of a camera that does; else None."""
    if matches.standing is not None or not len(matches):
        return matches.standing
    still, _ = _moved(matches)
    return np.stack([matches.a[still], matches.b[still]]) if still.mean() > _MOST else None


def _off(rays: np.ndarray, centre: np.ndarray) -> float:
    """How far rays (K, 3) lie from the middle of the object's place, (3,): their median."""
    return float(np.median(np.linalg.norm(rays - centre, axis=1))) if len(rays) else np.inf


def _apart(rays: np.ndarray, moving: KDTree, still: KDTree) -> np.ndarray:
    """(K,) bool: rays (K, 3) next to which are those that move, and hardly one that is still."""
    # of the _NEXT nearest at most _MIXED are still where the last of the others is nearer
    other, _ = moving.query(rays, [_NEXT - _MIXED])
    mixed, _ = still.query(rays, [_MIXED + 1])
    return (other <= mixed)[:, 0]
