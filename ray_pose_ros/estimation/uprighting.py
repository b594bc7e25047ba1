"""How many right angles each view of a window is turned by, as far as the network can tell.

Views of one camera are mostly turned alike, and most are not turned at all. A view that is turned
in error costs more than one that is left as it is, so both are believed until the views together
say otherwise.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

# Prior probabilities that a window's views are all turned alike, or each in one of two ways; the
# rest is for any turns. And that views which are turned alike are upright.
_ALIKE, _TWO_WAYS = 0.85, 0.1
_UPRIGHT = 0.9
# Chance that the thing itself is told wrongly, in all views alike: a shape that looks as if it lay
# on its side. And how far else what is told of one view is told of the others as well. Chosen so
# that of rendered scenes, of odd shapes, one in twenty is touched, and of upright captures none.
_ODD, _CORRELATION = 0.07, 0.15


def choose_turns(told: np.ndarray) -> np.ndarray:
    """The likeliest turns (N,), 0 to 3, from log probabilities (N, 4) of each view's own turn.

    Raises ValueError for another shape.
    """
    told = np.asarray(told, dtype=np.float64)
    if told.ndim != 2 or told.shape[1] != 4 or not len(told):
        raise ValueError(f'log probabilities have shape {told.shape}, expected (N, 4)')
    told = told / (1 + (len(told) - 1) * _CORRELATION)
    told = told - np.logaddexp.reduce(told, axis=1, keepdims=True)
    among = max(_MANNERS, key=lambda turns: _MANNERS[turns] + _log_likelihood(told, turns))
    return np.array(among)[told[:, list(among)].argmax(axis=1)]


def _log_likelihood(told: np.ndarray, among: tuple[int, ...]) -> float:
    """Of views each of which is turned in one of some ways; all may look turned further."""
    further = np.arange(4)
    ways = told[:, (np.array(among)[:, None] + further) % 4]  # (N, ways, further)
    of_each = np.logaddexp.reduce(ways, axis=1) - np.log(len(among))
    chance = np.where(further, _ODD / 3, 1 - _ODD)
    return float(np.logaddexp.reduce(of_each.sum(axis=0) + np.log(chance)))


def _manners() -> dict[tuple[int, ...], float]:
    """Log prior of the ways in which the views of a window may be turned."""
    alike = {(k,): _ALIKE * (_UPRIGHT if k == 0 else (1 - _UPRIGHT) / 3) for k in range(4)}
    two_ways = dict.fromkeys(combinations(range(4), 2), _TWO_WAYS / 6)
    anyhow = {(0, 1, 2, 3): 1 - _ALIKE - _TWO_WAYS}
    return {turns: float(np.log(p)) for turns, p in (alike | two_ways | anyhow).items()}


_MANNERS = _manners()
