"""Matching by descriptors alone: mutual nearest neighbours."""

from __future__ import annotations

import numpy as np

from .features import NO_MATCHES, Matches

_LARGEST = 1 << 25  # similarities that are held at once


def mutual_nearest(
    a: np.ndarray, b: np.ndarray, max_ratio: float = 1.0, min_cosine: float = -1.0
) -> Matches:
    """Pairs of unit descriptors (M, D), (N, D) that are each other's nearest.

    `max_ratio` is Lowe's: the distance to the nearest over that to the second nearest, in both
    directions; 1 asks for nothing. The score is the cosine, from `min_cosine` up.
    Source: Lowe, "Distinctive image features from scale-invariant keypoints", 2004, 7.1.
    """
    if not len(a) or not len(b):
        return NO_MATCHES
    rows = max(1, _LARGEST // len(b))
    parts = [slice(start, start + rows) for start in range(0, len(a), rows)]
    tables = _Tables(a, b, parts)
    index, cosine = np.empty(len(a), dtype=np.int64), np.empty(len(a), dtype=np.float32)
    highest = np.full(len(b), -2, dtype=np.float32)  # of each column
    for number, part in enumerate(parts):
        table = tables[number]
        index[part] = table.argmax(1)
        cosine[part] = np.take_along_axis(table, index[part, None], 1)[:, 0]
        np.maximum(highest, table.max(0), out=highest)
    mutual = np.flatnonzero(cosine >= np.maximum(highest[index], min_cosine))
    # equal descriptors are all as near: the first has it
    mutual = mutual[np.sort(np.unique(index[mutual], return_index=True)[1])]
    if max_ratio < 1:
        next_row, next_column = np.full(len(a), -2.0), np.full(len(b), -2.0)
        for number, part in enumerate(parts):
            table = tables[number]
            mine = mutual[(mutual >= part.start) & (mutual < part.stop)]
            table[mine - part.start, index[mine]] = -2
            next_row[part] = table.max(1)
            np.maximum(next_column, table.max(0), out=next_column)
        second = np.maximum(next_row[mutual], next_column[index[mutual]])
        # of unit vectors |x - y|^2 = 2 - 2 cos; without a second there is nothing to confuse
        clear = np.maximum(1 - cosine[mutual], 0) <= max_ratio**2 * (1 - second)
        mutual = mutual[clear]
    indices = np.stack([mutual, index[mutual]], axis=1)
    return Matches(indices, np.clip(cosine[mutual], 0, 1).astype(np.float64))


class _Tables:
    """Similarities of some rows of a with all of b; a single table is made only once."""

    def __init__(self, a: np.ndarray, b: np.ndarray, parts: list[slice]):
        self.a, self.b, self.parts = a, b, parts
        self.only = a @ b.T if len(parts) == 1 else None

    def __getitem__(self, number: int) -> np.ndarray:
        return self.a[self.parts[number]] @ self.b.T if self.only is None else self.only
