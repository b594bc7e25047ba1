"""The interface of matchers, and one by its name."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from .features import Features, Matches


class MatcherUnavailable(RuntimeError):
    """An optional package is missing or does not work here; the message says which, and why."""


class Matcher(Protocol):
    """Finds features in one image at a time, and what two images share.

    Both calls are deterministic. Images or masks of a wrong type or shape, and features of
    another matcher, are ValueErrors; an image without texture gives no features.
    """

    name: str

    def extract(self, image: np.ndarray, mask: np.ndarray | None = None) -> Features:
        """Features of an image (H, W, 3) uint8 RGB, only on the mask (H, W) bool if given."""
        ...

    def match(self, a: Features, b: Features) -> Matches:
        """Pairs of points of a and b that are the same point of the scene."""
        ...


def matcher_names() -> tuple[str, ...]:
    """All that create_matcher knows, whether what they need is installed or not."""
    return ('sift', 'xfeat', 'lighterglue', 'disk', 'aliked')


def create_matcher(
    name: str,
    max_side: int | None = None,
    max_features: int | None = None,
    device: str = 'cpu',
    fast: bool = False,
) -> Matcher:
    """A matcher by its name.

    Args:
        name: 'sift' (OpenCV; always there), 'xfeat' (XFeat, mutual nearest), 'lighterglue'
            (XFeat with LighterGlue), 'disk' and 'aliked' (each with LightGlue).
        max_side: longer images are made that long in pixels first; default: what suits it.
        max_features: only the best so many of an image; default: what suits the matcher.
        device: of torch, for the learned ones.
        fast: LightGlue stops sooner, and computes in half precision where the processor has it:
            two to three times as fast, with nearly the same matches.
    Raises ValueError for an unknown name or numbers that are not above 0, MatcherUnavailable
    (with what to install) where an optional package is missing.
    """
    if name not in matcher_names():
        raise ValueError(f'matcher is {name!r}, expected one of {", ".join(matcher_names())}')
    options = {'max_side': max_side, 'max_features': max_features}
    options = {key: value for key, value in options.items() if value is not None}
    for key, value in options.items():
        if value < 1:
            raise ValueError(f'{key} is {value}, expected 1 or more')
    if name == 'sift':
        from .sift import SiftMatcher

        return SiftMatcher(**options)
    from .learned import LearnedMatcher

    return LearnedMatcher(name, device=device, fast=fast, **options)
