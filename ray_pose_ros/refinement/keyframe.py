"""Features of a view, found once, in each of the four ways that the image can be turned.

Learned features know one way up only: of two photographs rolled against each other one is turned
by right angles first. Points are always those of the photograph as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ray_pose_ros.matching import Features, Matcher, Matches
from ray_pose_ros.multiview.two_view import RayMatches

# Pixels, one standard deviation of the epipolar error of a good match, at the matcher's own size.
PIXEL_SIGMA = {'sift': 0.5, 'xfeat': 1.1, 'lighterglue': 1.1, 'disk': 0.8, 'aliked': 0.7}
_WORKING_SIDE = 1024
# Matchers that do not mind how an image is turned.
TURNING = {'sift'}
_MEANING = ('meaning',)  # the key under which it is kept
Turns = tuple[int, int]  # of a first and of a second keyframe, right angles counterclockwise


class Keyframe:
    """A photograph and its features by matcher and turn, each found when first asked for.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, features are on it only; None for the whole image.
        stands: whether the camera is known to stand still while the object turns: then what has
            not moved in the image is no match.

    Attributes:
        seconds: spent on all features so far.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray | None = None, stands: bool = False):
        self.stands = stands
        self._load = lambda: (image, mask)
        self._shape, self.seconds = image.shape[:2], 0.0
        self._lens = 0  # counts the cameras that it is taken to be of, one after the other
        self._found: dict[tuple[str, int], Features] = {}
        self._lock = threading.Lock()  # several pairs of a keyframe may be matched at once
        # by the other keyframe, and gone with it
        self._matches: weakref.WeakKeyDictionary[Keyframe, dict] = weakref.WeakKeyDictionary()

    def apart(self) -> Keyframe:
        """The same photograph and features, without matches, for another thread than the one that
        is at this: that may hang and never let go of it."""
        other = copy.copy(self)
        other._found, other._lock = self._found.copy(), threading.Lock()
        other._matches = weakref.WeakKeyDictionary()
        return other

    def pack(self, load: Callable[[], np.ndarray]) -> None:
        """Take less memory; `load` brings the image back where a turn has no features yet."""
        with self._lock:
            self._found = {key: _with_type(x, np.float16) for key, x in self._found.items()}
        _, mask = self._load()
        bits, shape = None if mask is None else np.packbits(mask), self._shape
        self._load = lambda: (load(), _unpacked(bits, shape))

    def features(self, matcher: Matcher, turn: int = 0) -> Features:
        """Features of the image turned counterclockwise by `turn` right angles.

        Descriptors may be in half precision, from `pack` on.
        """
        turn = 0 if matcher.name in TURNING else turn % 4
        kind = 'xfeat' if matcher.name == 'lighterglue' else matcher.name
        with self._lock:
            if (kind, turn) not in self._found:
                begin = time.perf_counter()
                self._found[kind, turn] = self._extract(matcher, turn)
                self.seconds += time.perf_counter() - begin
            return self._found[kind, turn]

    def _extract(self, matcher: Matcher, turn: int) -> Features:
        image, mask = self._load()
        image = np.ascontiguousarray(np.rot90(image, turn))
        if mask is not None:
            mask = np.ascontiguousarray(np.rot90(mask, turn))
        found = matcher.extract(image, mask)
        height, width = self._shape
        return dataclasses.replace(found, points=unturned(found.points, turn, width, height))

    def matches(self, other: Keyframe, matcher: Matcher, turns: Turns = (0, 0)) -> Matches:
        """Matches with another keyframe, each of the two turned so far, found once."""
        return self._once(other, matcher.name, matcher, turns, matcher.match)

    def likeness(self, other: Keyframe, matcher: Matcher, turns: Turns = (0, 0)) -> float:
        """How much features look like those of another turned keyframe; see `_alike`."""
        return self._once(other, f'{matcher.name} alike', matcher, turns, _alike)

    def _once(self, other: Keyframe, name: str, matcher: Matcher, turns: Turns, compare: Callable):
        """What `compare` makes of both keyframes' features, kept by name and turns."""
        own, its = (turn % 4 for turn in turns)
        features = self.features(matcher, own), other.features(matcher, its)

        def make() -> Any:
            return compare(*(_with_type(x, np.float32) for x in features))

        return self._kept(other, (name, own, its), make)

    def matched_with(self, other: Keyframe) -> bool:
        """Whether this was the first of the two when `matches` of both were asked for."""
        return bool(self._matches.get(other))

    def refocus(self) -> None:
        """Another camera has taken it than was thought: features and matches stay, and what
        matches mean is to be found anew."""
        self._lens += 1

    def meaning(
        self, other: Keyframe, matches: RayMatches, find: Callable[[RayMatches], Any]
    ) -> Any:
        """What `find` makes of matches with another keyframe, kept until they are others."""
        lenses = self._lens, other._lens
        _, found, _ = self._kept(
            other,
            _MEANING,
            lambda: (matches, find(matches), lenses),
            lambda last: last[0].same_as(matches) and last[2] == lenses,
        )
        return found

    def known_meaning(self, other: Keyframe) -> tuple[RayMatches, Any] | None:
        """The matches with another keyframe that `meaning` was asked for last, and the answer;
        None where it was not, or not since one of the two was refocused."""
        kept = self._matches.get(other, {}).get(_MEANING)
        if kept is None:
            return None
        (matches, found, lenses), _ = kept
        return (matches, found) if lenses == (self._lens, other._lens) else None

    def _kept(
        self,
        other: Keyframe,
        key: tuple,
        make: Callable[[], Any],
        valid: Callable[[Any], bool] = lambda _: True,
    ) -> Any:
        """What `make` returned the last time, where it was asked for and that is still valid."""
        with self._lock:
            kept = self._matches.setdefault(other, {})
        if key not in kept or not valid(kept[key][0]):
            begin = time.perf_counter()
            made = make()
            kept[key] = made, time.perf_counter() - begin
        return kept[key][0]

    def matching_seconds(self, others: Iterable[Keyframe]) -> float:
        """Spent on the matches with these others that are kept, and on what they mean."""
        return sum(s for o in others for _, s in self._matches.get(o, {}).values())

    def pixel_sigma(self, matcher: Matcher) -> float:
        """Pixels of the photograph, one standard deviation of a match."""
        ratio = max(self._shape) / getattr(matcher, 'max_side', _WORKING_SIDE)
        return PIXEL_SIGMA.get(matcher.name, 1.0) * max(1.0, ratio)


def matched_before(keyframes: Sequence[Keyframe]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of keyframes that have been matched, whose matches are kept."""
    count = len(keyframes)
    pairs = ((i, j) for i in range(count) for j in range(i + 1, count))
    return [(i, j) for i, j in pairs if keyframes[i].matched_with(keyframes[j])]


def _unpacked(bits: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray | None:
    """The mask (H, W) of np.packbits; None for none."""
    if bits is None:
        return None
    return np.unpackbits(bits, count=shape[0] * shape[1]).astype(bool).reshape(shape)


def _with_type(features: Features, kind: type) -> Features:
    """Features whose descriptors are of this type of number."""
    if features.descriptors.dtype == kind:
        return features
    return dataclasses.replace(features, descriptors=features.descriptors.astype(kind))


def _alike(a: Features, b: Features) -> float:
    """Sum over features that are each other's nearest: by which share they are nearer than the
    second nearest, squared."""
    if not len(a) or len(b) < 2:
        return 0.0
    cosine = a.descriptors @ b.descriptors.T
    nearest = cosine.argmax(1)
    mutual = np.flatnonzero(cosine.argmax(0)[nearest] == np.arange(len(a)))
    second, first = np.sort(np.partition(cosine[mutual], -2, axis=1)[:, -2:], axis=1).T
    return float(np.square(1 - (1 - first) / np.maximum(1 - second, 1e-9)).sum())


def unturned(points: np.ndarray, turn: int, width: int, height: int) -> np.ndarray:
    """Pixels (M, 2) of np.rot90(image, turn) as pixels of the image of that width and height."""
    x, y = points[:, 0], points[:, 1]
    if turn == 1:
        return np.stack([width - y, x], 1)
    if turn == 2:
        return np.stack([width - x, height - y], 1)
    if turn == 3:
        return np.stack([y, height - x], 1)
    return points


def turn_between(R: np.ndarray) -> int:
    """Right angles to turn the second image by, so that it is upright to the first.

    R (3, 3) takes the first camera's frame to the second's; its roll is what counts.
    """
    roll = np.arctan2(R[1, 0] - R[0, 1], R[0, 0] + R[1, 1])
    return int(np.round(roll / (np.pi / 2))) % 4
