"""How far figures may be trusted: bootstrap over sequences."""

import zlib
from collections.abc import Sequence

import numpy as np

from .metrics import SolveErrors, area_under, share_under

FIGURES = ('R@5', 'R@15', 'R@30', 'RTA@15', 'AUC@30', 'median', 'CC@0.1')
REPLICATES = 300


def bootstrap(clusters: Sequence[Sequence[SolveErrors]], seed: int = 0) -> dict[str, np.ndarray]:
    """Replicates (REPLICATES,) of the figures FIGURES.

    Answers for subsets of one sequence resemble each other, so whole sequences are drawn, with
    replacement. Of a single sequence the subsets are drawn: then the spread tells of the choice of
    views and not of the choice of objects.

    Args:
        clusters: answers by sequence.
        seed: of the draws.
    """
    groups = [list(cluster) for cluster in clusters if cluster]
    if len(groups) == 1:
        groups = [[solve] for solve in groups[0]]
    tables = [_arrays(group) for group in groups]
    rng = np.random.default_rng([seed, zlib.crc32(b'bootstrap')])
    found = {key: np.empty(REPLICATES) for key in FIGURES}
    for k in range(REPLICATES):
        drawn = [tables[index] for index in rng.integers(0, len(tables), len(tables))]
        rotation, translation, centre = (
            np.concatenate([t[column] for t in drawn]) for column in range(3)
        )
        directed = np.isfinite(translation)
        for threshold in (5, 15, 30):
            found[f'R@{threshold}'][k] = share_under(rotation, threshold)
        found['RTA@15'][k] = share_under(translation[directed], 15)
        found['AUC@30'][k] = area_under(np.maximum(rotation, translation)[directed], 30)
        found['median'][k] = np.median(rotation)
        found['CC@0.1'][k] = share_under(centre, 0.1)
    return found


def spread(replicates: dict[str, np.ndarray]) -> dict[str, dict]:
    """Standard errors `se` and 95 % intervals `ci95` of bootstrap replicates."""
    return {
        'se': {key: float(np.nanstd(values)) for key, values in replicates.items()},
        'ci95': {
            key: [float(x) for x in np.nanpercentile(values, (2.5, 97.5))]
            for key, values in replicates.items()
        },
    }


def _arrays(solves: Sequence[SolveErrors]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(
        np.concatenate([np.asarray(getattr(solve, key), dtype=np.float64) for solve in solves])
        for key in ('rotation', 'translation', 'centre')
    )
