"""Which views are taken together: random subsets of a sequence, the same for all methods."""

import copy
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .sequences import Sequence as ViewSequence


@dataclass(frozen=True)
class Draw:
    """Indices (N,) of one subset, and the state of the random numbers that methods get."""

    indices: np.ndarray
    rng: np.random.Generator


def draw_subset(R: np.ndarray, views: int, within: float, rng) -> np.ndarray | None:
    """Indices of `views` random views whose axes lie within an angle of the first's, or None."""
    order = rng.permutation(len(R))
    angle = np.degrees(np.arccos(np.clip(R[:, 2] @ R[order[0], 2], -1, 1)))
    chosen = [order[0]] + [index for index in order[1:] if angle[index] <= within]
    return np.array(chosen[:views]) if len(chosen) >= views else None


def draw_subsets(
    sequence: ViewSequence,
    views: int,
    subsets: int,
    within: float,
    seed: int,
    tour: bool = False,
) -> list[Draw]:
    """The subsets of a sequence: its own draws, whatever else is evaluated with it.

    Those of a `tour` are in the order of a camera on its way from each to the nearest.
    """
    rng = np.random.default_rng([seed, views, zlib.crc32(sequence.name.encode())])
    found = []
    for _ in range(subsets):
        chosen = draw_subset(sequence.R, views, within, rng)
        if chosen is None:
            continue
        if tour:
            chosen = _tour(sequence.R, chosen)
        # Every method gets the same numbers, so that none depends on which others run. What a
        # random azimuth takes is skipped: the sets stay those of figures published before.
        found.append(Draw(chosen, copy.deepcopy(rng)))
        if sequence.up is not None:
            rng.uniform(size=views)
    return found


def _tour(R: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Each view followed by that of those left whose axis is nearest to its own."""
    left = chosen.tolist()
    order = [left.pop(0)]
    while left:
        nearest = int(np.argmax(R[left, 2] @ R[order[-1], 2]))
        order.append(left.pop(nearest))
    return np.array(order)


def identity(sequence: ViewSequence, draws: Sequence[Draw]) -> str:
    """The same for the same subsets, true cameras and pixels, in hexadecimal."""
    digest = hashlib.sha256()
    for draw in draws:
        digest.update(np.asarray(draw.indices, dtype=np.int64).tobytes())
        for truth in (sequence.R, sequence.t):
            digest.update((np.round(truth[draw.indices], 6) + 0.0).tobytes())
    for index in sorted({int(i) for draw in draws for i in draw.indices}):
        digest.update(_crc(sequence.views[index].image))
    return digest.hexdigest()[:16]


def _crc(image: np.ndarray) -> bytes:
    return zlib.crc32(np.ascontiguousarray(image)).to_bytes(4, 'little')
