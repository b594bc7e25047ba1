"""Building blocks of textures: colours that go together, fractal noise, colour ramps."""

import colorsys
from functools import lru_cache

import numpy as np


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """Colours (count, 3) in [0, 1] that look natural together: few hues, moderate saturation."""
    base = rng.random()
    vivid = rng.random() < 0.3
    colours = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.25:  # grey, white, black
            colour = colorsys.hsv_to_rgb(base, rng.uniform(0, 0.12), rng.uniform(0.08, 0.97))
        else:
            hue = base + rng.normal(0, 0.06) if kind < 0.7 else base + rng.choice([0.33, 0.5, 0.6])
            if rng.random() < 0.35:  # skin, wood, leather, earth
                hue = rng.uniform(0.04, 0.14)
            saturation = rng.uniform(0.5, 0.95) if vivid else rng.uniform(0.15, 0.65)
            colour = colorsys.hsv_to_rgb(hue % 1, saturation, rng.uniform(0.25, 0.95))
        colours.append(colour)
    return np.array(colours)


@lru_cache(maxsize=64)
def _cubic_weights(size: int, base: int) -> np.ndarray:
    """Periodic Catmull-Rom interpolation of `base` values at `size` points: (size, base)."""
    at = (np.arange(size) + 0.5) * base / size - 0.5
    low = np.floor(at).astype(int)
    s = at - low
    taps = (
        ((2 - s) * s - 1) * s / 2,
        ((3 * s - 5) * s * s + 2) / 2,
        ((4 - 3 * s) * s + 1) * s / 2,
        (s - 1) * s * s / 2,
    )
    weights = np.zeros((size, base), np.float32)
    for k, tap in enumerate(taps):
        np.add.at(weights, (np.arange(size), (low + k - 1) % base), tap)
    return weights


def fractal(rng, size: int, base: int = 3, octaves: int = 5, gain: float = 0.55) -> np.ndarray:
    """Periodic multi-octave value noise (size, size) float32, about 0 with unit deviation."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for _ in range(octaves):
        if base * 2 > size:
            break
        matrix = _cubic_weights(size, base)
        cells = rng.standard_normal((base, base), np.float32)
        total += matrix @ (np.float32(weight) * cells) @ matrix.T
        weight *= gain
        base *= 2
    return total / max(float(total.std()), 1e-6)


def ramp(values: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colours by values in [0, 1] (h, w), piecewise linear along colours (n, 3); float32."""
    table = np.linspace(0, len(colours) - 1, 256)
    table = np.stack(
        [np.interp(table, np.arange(len(colours)), colours[:, k]) for k in range(3)], axis=1
    )
    return table.astype(np.float32)[np.clip(values * 255, 0, 255).astype(np.uint8)]


def grid(size: int):
    x = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.meshgrid(x, x)
