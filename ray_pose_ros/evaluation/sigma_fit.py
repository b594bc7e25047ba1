"""The terms of an uncertainty, fitted to errors: maximum likelihood."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ray_pose_ros.estimation.uncertainty import matched_deviation, ray_deviation


@dataclass(frozen=True)
class Formula:
    """How inputs become a standard deviation (`estimation/uncertainty.py`), and how it is fitted.

    `positive` terms are fitted by their logarithms, which `start`, `others` and `bounds` are of.
    """

    deviation: Callable
    positive: tuple[bool, ...]
    start: tuple[float, ...]
    bounds: tuple[tuple[float, float], ...]
    others: tuple[tuple[float, ...], ...] = ()

    def terms(self, x) -> list[float]:
        """The terms of what is fitted."""
        return [math.exp(a) if log else a for a, log in zip(x, self.positive, strict=True)]

    def cost(self, terms, table) -> float:
        """Mean negative log-likelihood of rows (inputs, error): a Gaussian alike about three axes.

        The told sigma is the root mean square of the error, sigma^2 / 3 about each axis.
        """
        variance = self.deviation(table[:, :-1], terms) ** 2 / 3
        square = table[:, -1] ** 2
        return float(np.mean(square / (2 * variance) + 1.5 * np.log(2 * np.pi * variance)))


_FLOOR = math.log(2e-3), 1.0
RAYS = Formula(
    ray_deviation,
    (True, False, True, True),
    (0.0, 0.0, 0.0, math.log(0.05)),
    ((-5, 3), (-1, 1), (-5, 3), _FLOOR),
)
MATCHED = Formula(
    matched_deviation,
    (True, False, False, False, True),
    (0.0, 0.3, 0.5, -0.5, math.log(0.02)),
    ((-7, 7), (0, 2), (0, 2), (-3, 0), _FLOOR),
    others=((0.0, 1.0, 0.0, 0.0, math.log(0.02)), (0.0, 0.0, 1.0, -1.0, math.log(0.02))),
)


def fit_terms(formula: Formula, tables) -> tuple[float, ...]:
    """The terms that make rows most likely, all tables alike."""

    def objective(x):
        return np.mean([formula.cost(formula.terms(x), table) for table in tables])

    starts = (formula.start, *formula.others)
    fits = [minimize(objective, x, method='L-BFGS-B', bounds=formula.bounds) for x in starts]
    return tuple(map(float, formula.terms(min(fits, key=lambda fit: fit.fun).x)))
