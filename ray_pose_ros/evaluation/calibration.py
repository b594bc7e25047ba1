"""Is the uncertainty right? Told standard deviations of rotations against their true errors.

A told sigma is the root mean square of the error's angle. For an error that is Gaussian about
three axes alike, sigma^2 / 3 each, the angle over sigma is chi-distributed with three degrees of
freedom over sqrt(3): 61 % of the errors are under one sigma, 99.3 % under two.
"""

from collections.abc import Sequence

import numpy as np

_BINS = 10
LEVELS = (0.5, 1.0, 1.5, 2.0, 3.0)  # sigmas


def gaussian_coverage(sigmas: np.ndarray | float) -> np.ndarray:
    """Share of errors under this many sigmas if the model above were true."""
    from scipy.stats import chi

    return chi.cdf(np.sqrt(3) * np.asarray(sigmas), df=3)


def calibration(sigma: Sequence[float], error: Sequence[float]) -> dict | None:
    """Measures of K told sigmas and true errors, both in radians; None for fewer than 10.

    Returns a dict of
        count; coverage: share of errors under each of LEVELS sigmas;
        ratio: root mean square of error / sigma, 1 if right, above 1 if over-confident;
        nll: mean negative log-likelihood under the Gaussian of three axes (radians);
        ence: expected normalised calibration error, the mean over bins of equal size, by sigma, of
            |rms sigma - rms error| / rms sigma (Levi et al., "Evaluating and calibrating
            uncertainty prediction in regression tasks", Sensors 2022);
        ause: area between the curves of the mean error left when the least certain, or the truly
            worst, are thrown out one after the other, over the mean error; 0 if the order by sigma
            is that by error (Ilg et al., ECCV 2018);
        spearman: rank correlation of sigma and error;
        bins: [rms sigma, rms error] of each bin, degrees.
    """
    sigma, error = np.asarray(sigma, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if sigma.shape != error.shape:
        raise ValueError(f'{len(sigma)} sigmas for {len(error)} errors')
    if len(sigma) < 10:
        return None
    scaled = error / sigma
    variance = sigma**2 / 3
    order = np.argsort(sigma, kind='stable')
    bins = []
    for part in np.array_split(order, min(_BINS, len(sigma) // 5)):
        bins.append([float(np.sqrt(np.mean(x[part] ** 2))) for x in (sigma, error)])
    told, true = np.array(bins).T
    return {
        'count': len(sigma),
        'coverage': [float((scaled < level).mean()) for level in LEVELS],
        'ratio': float(np.sqrt(np.mean(scaled**2))),
        'nll': float(np.mean(error**2 / (2 * variance) + 1.5 * np.log(2 * np.pi * variance))),
        'ence': float(np.mean(np.abs(told - true) / told)),
        'ause': _sparsification(sigma, error),
        'spearman': _rank_correlation(sigma, error),
        'bins': np.degrees(bins).tolist(),
    }


def _sparsification(sigma: np.ndarray, error: np.ndarray) -> float:
    """Area between the sparsification curves by sigma and by error, over the mean error."""
    mean = error.mean()
    if mean == 0:
        return 0.0
    left = np.arange(1, len(error) + 1)
    curves = [np.cumsum(error[np.argsort(by, kind='stable')]) / left for by in (sigma, error)]
    return float((curves[0] - curves[1]).mean() / mean)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(a), rankdata(b)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
