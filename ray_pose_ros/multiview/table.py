"""The matches of all pairs of views in a form in which many sets of cameras are tried at once.

The error of a match under a pair's essential matrix E = [t]x R is that of `two_view`: b^T E a over
the length of its gradient. All that it is made of is linear in products of the rays' components
once E, R and t are known, and so are its sums over a pair's matches, as long as the weights are:
with these products at hand, matrix products do nearly all of the work, for one set of cameras as
for eight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import hat

from .two_view import PARALLEL, RayMatches

_SIZE = 32  # matches of a block; all are of one pair, and a pair's last block is filled up
_UPPER_3 = np.triu_indices(3)
_UPPER_9 = np.triu_indices(9)
_TWICE = np.array([1.0, 2, 2, 1, 2, 1])  # how often an upper triangle's entries are in a matrix


class Meeting(NamedTuple):
    """How matches (B, S) meet under C sets of cameras; all (B, S, C).

    value: b^T E a. precision: one over the squared length of its gradient. error: rad, signed.
    ahead: whether rays meet in front of both cameras.
    """

    value: np.ndarray
    precision: np.ndarray
    error: np.ndarray
    ahead: np.ndarray


class Table:
    """The matches of all E pairs in B blocks of S; pairs without any are left out.

    Attributes:
        i, j: (E,) the pairs' views. of: (B,) which pair a block is of. first: (E,) a pair's first
            block.
        sigma, weight: (B, S, 1); what fills up a block weighs nothing. total: (E,) weight of a
            pair's matches.
    """

    def __init__(self, matches: dict[tuple[int, int], RayMatches]):
        matches = {pair: m for pair, m in matches.items() if len(m)}
        self.i, self.j = np.array(list(matches), dtype=int).reshape(-1, 2).T
        blocks = np.array([-(-len(m) // _SIZE) for m in matches.values()], dtype=int)
        self.first = np.cumsum(blocks) - blocks
        self.of = np.repeat(np.arange(len(blocks)), blocks)
        count = len(self.of)
        self._a, self._b = np.tile([0.0, 0.0, 1.0], (2, count, _SIZE, 1))
        self.sigma, self.weight = np.ones((count, _SIZE, 1)), np.zeros((count, _SIZE, 1))
        for m, begin in zip(matches.values(), self.first * _SIZE, strict=True):
            mine = slice(begin, begin + len(m))
            weight = np.ones(len(m)) if m.weight is None else m.weight
            for whole, part in (
                (self._a, m.a),
                (self._b, m.b),
                (self.sigma, m.sigma[:, None]),
                (self.weight, weight[:, None]),
            ):
                whole.reshape(count * _SIZE, -1)[mine] = part
        self.total = np.maximum(self.sums(self.weight)[:, 0], 1e-9)
        outer = self._b[..., :, None] * self._a[..., None, :]
        self._outer = outer.reshape(count, _SIZE, 9)  # with E (9,): b^T E a
        own = [_upper(x[..., :, None] * x[..., None, :]) for x in (self._a, self._b)]
        self._own = np.concatenate(own, axis=-1)  # with E^T E and E E^T: the gradient's length
        self._products = self._outer[..., _UPPER_9[0]] * self._outer[..., _UPPER_9[1]]

    def __len__(self) -> int:
        return len(self.i)

    def meet(self, relative: np.ndarray, t: np.ndarray) -> Meeting:
        """Under the pairs' R (C, E, 3, 3) and unit t (C, E, 3)."""
        count = len(t)
        E = hat(t) @ relative
        Et, Rt = np.swapaxes(E, -1, -2), np.swapaxes(relative, -1, -2)
        both = np.concatenate([E, relative]).reshape(2 * count, -1, 9)
        both = self._outer @ self._of_blocks(both)
        value, cosine = both[..., :count], both[..., count:]
        squares = [_TWICE * _upper(x) for x in (Et @ E, E @ Et)]
        square = self._own @ self._of_blocks(np.concatenate(squares, axis=-1))
        precision = 1 / np.maximum(square - 2 * value**2, 1e-18)
        td = self._a @ self._of_blocks((Rt @ t[..., None])[..., 0])
        tb = self._b @ self._of_blocks(t)
        ahead = (cosine * tb > td) & (tb > cosine * td)
        flat = 1 - cosine**2 < PARALLEL
        if flat.any():
            ahead = np.where(flat, cosine > 0, ahead)
        return Meeting(value, precision, value * np.sqrt(precision), ahead)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(E, ...) of values (B, S, ...) of the matches of each pair."""
        return self._over_blocks(values.sum(1))

    def shares(self, per_pair: np.ndarray) -> np.ndarray:
        """(B, 1, ...) of values (E, ...) of pairs, to go with those of matches."""
        return per_pair[self.of, None]

    def normal(
        self, E: np.ndarray, meeting: Meeting, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients (C, E, 9) of half the squared errors by E (C, E, 3, 3), and second derivatives
        (C, E, 9, 9) as Gauss and Newton have them, without what the errors themselves turn by.

        weight: (B, S, C) of matches, which is held.
        """
        count = E.shape[:2]
        value, precision, error, _ = meeting
        curved = weight * precision
        bent = curved * error**2
        # d(error^2) = precision d(value^2) + value^2 d(precision)
        pull = self._back(self._outer, (curved + 2 * bent) * value)
        turned = self._back(self._own, bent)
        of_a, of_b = (_whole(x, 3) for x in (turned[..., :6], turned[..., 6:]))
        gradient = pull - (E @ of_a + of_b @ E).reshape(*count, 9)
        return gradient, _whole(self._back(self._products, curved), 9)

    def _of_blocks(self, per_pair: np.ndarray) -> np.ndarray:
        """(B, F, C) of values (C, E, F) of pairs."""
        return np.ascontiguousarray(per_pair.transpose(1, 2, 0))[self.of]

    def _back(self, features: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(C, E, F): features (B, S, F) times values (B, S, C), summed over pairs' matches."""
        return self._over_blocks(np.swapaxes(features, 1, 2) @ values).transpose(2, 0, 1)

    def _over_blocks(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, self.first, axis=0)


def _upper(M: np.ndarray) -> np.ndarray:
    """(..., 6): the upper triangle of symmetric matrices (..., 3, 3)."""
    return M[..., _UPPER_3[0], _UPPER_3[1]]


def _whole(upper: np.ndarray, n: int) -> np.ndarray:
    """Symmetric matrices (..., n, n) of upper triangles (..., n (n + 1) / 2)."""
    where = np.zeros((n, n), dtype=int)
    where[np.triu_indices(n)] = np.arange(n * (n + 1) // 2)
    return upper[..., np.maximum(where, where.T)]
