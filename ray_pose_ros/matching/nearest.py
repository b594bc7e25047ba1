"""Matching by descriptors alone: mutual nearest neighbours."""

from __future__ import annotations

import numpy as np

from .features import NO_MATCHES, Matches

_BLOCK = 2048  # rows of the table of similarities that are held at once


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
    forth, cosine, clear = _nearest(a, b, max_ratio)
    back, _, clear_back = _nearest(b, a, max_ratio)
    index = np.arange(len(a))
    keep = (back[forth] == index) & clear & clear_back[forth] & (cosine >= min_cosine)
    indices = np.stack([index[keep], forth[keep]], axis=1)
    return Matches(indices, np.clip(cosine[keep], 0, 1).astype(np.float64))


def _nearest(a: np.ndarray, b: np.ndarray, max_ratio: float):
    """Index in b (M,), cosine (M,), and whether the second nearest is far enough off (M,)."""
    index, cosine = np.empty(len(a), dtype=np.int64), np.empty(len(a), dtype=np.float32)
    clear = np.ones(len(a), dtype=bool)
    for start in range(0, len(a), _BLOCK):
        part = slice(start, start + _BLOCK)
        table = a[part] @ b.T
        rows = np.arange(len(table))
        index[part] = table.argmax(1)
        cosine[part] = table[rows, index[part]]
        if max_ratio < 1 and len(b) > 1:
            table[rows, index[part]] = -2
            # of unit vectors |x - y|^2 = 2 - 2 cos
            first, second = 1 - cosine[part], 1 - table.max(1)
            clear[part] = np.maximum(first, 0) <= max_ratio**2 * second
    return index, cosine, clear
