"""Repeated measurements: interleaved, so that a noisy moment hits every case alike."""

import math
import random
import time
from collections.abc import Callable, Mapping

Measured = dict[str, list[float]]  # seconds of each run, by stage


def interleave(
    cases: Mapping[str, Callable[[], Mapping[str, float] | None]],
    repeats: int,
    seed: int = 0,
    warm_up: bool = True,
) -> dict[str, Measured]:
    """Run every case once in each of `repeats` rounds, in a new order each round.

    A case may return seconds by stage. Added are 'wall', the seconds that the call took, and
    'cpu', those that this process computed, all threads together: other programs hardly change
    the latter. `warm_up` runs every case once before, untimed.

    Raises ValueError for fewer than one repeat.
    """
    if repeats < 1:
        raise ValueError(f'{repeats} repeats, expected 1 or more')
    found: dict[str, Measured] = {name: {} for name in cases}
    if warm_up:
        for case in cases.values():
            case()
    order, shuffle = list(cases), random.Random(seed).shuffle
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            cpu, wall = time.process_time(), time.perf_counter()
            stages = dict(cases[name]() or {})
            stages['wall'] = time.perf_counter() - wall
            stages['cpu'] = time.process_time() - cpu
            for stage, seconds in stages.items():
                found[name].setdefault(stage, []).append(seconds)
    return found


def spread(values: list[float], unit: float = 1.0) -> dict[str, float]:
    """Median and quartiles of the values times `unit`, and how many there are."""
    ordered = sorted(float(v) * unit for v in values)
    if not ordered:
        raise ValueError('0 values, expected at least 1')
    return {
        'median': _quantile(ordered, 0.5),
        'low': _quantile(ordered, 0.25),
        'high': _quantile(ordered, 0.75),
        'runs': len(ordered),
    }


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """`spread` of how many times longer `slow` took, run by run of the same round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def slope(sizes: list[float], values: list[float]) -> float:
    """Exponent p of values ~ sizes^p, by least squares on logarithms. At least two sizes."""
    if len(sizes) < 2 or len(sizes) != len(values):
        raise ValueError(f'{len(sizes)} sizes and {len(values)} values, expected at least 2 each')
    x, y = [math.log(s) for s in sizes], [math.log(max(v, 1e-12)) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean_x) ** 2 for a in x)


def _quantile(ordered: list[float], share: float) -> float:
    """Linear between the neighbouring values."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
