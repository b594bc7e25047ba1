"""
Procedural textures: (size, size, 3) uint8 RGB, size a power of two.

TRAIN families are used everywhere. HELD_OUT families (voronoi, chevrons, plaid) appear in objects
of the split 'test' only, so that a test measures generalisation to patterns never seen.
"""

import colorsys
import string

import cv2
import numpy as np

from .patterns import fractal, grid, palette, ramp
from .photographs import drawn


def noise(rng, size):
    """Clouds, marble or camouflage of fractal noise."""
    field = fractal(rng, size, int(rng.integers(2, 6)), 5, rng.uniform(0.4, 0.75))
    style = rng.integers(3)
    if style == 0:
        value = 0.5 + 0.25 * field
    elif style == 1:  # marble veins
        x, y = grid(size)
        turns = rng.integers(1, 5)
        value = 0.5 + 0.5 * np.sin(6.2832 * (turns * x + rng.integers(0, 4) * y) + 1.6 * field)
    else:
        value = np.digitize(field, [-0.6, 0.1, 0.7]) / 3.0
    return ramp(value, palette(rng, 4))


def stripes(rng, size):
    """Stripes of irregular width along one axis."""
    count = int(rng.integers(4, 16))
    edges = np.sort(rng.random(count))
    x, y = grid(size)
    axis = y if rng.random() < 0.6 else x
    if rng.random() < 0.3:
        axis = (x + y * rng.choice([-1, 1])) % 1
    if rng.random() < 0.4:
        axis = (axis + 0.03 * fractal(rng, size, 3, 2)) % 1
    colours = palette(rng, 4)
    return colours[rng.integers(0, 4, count + 1)].astype(np.float32)[np.digitize(axis, edges)]


def checks(rng, size):
    """Checker board with one odd colour strewn in."""
    n, m = rng.integers(2, 9, 2)
    colours = palette(rng, 4)
    board = (np.add.outer(np.arange(n), np.arange(m)) % 2).astype(int)
    board[rng.random((n, m)) < 0.15] = 2
    board[rng.random((n, m)) < 0.05] = 3
    cells = colours[board].astype(np.float32)
    return cv2.resize(cells, (size, size), interpolation=cv2.INTER_NEAREST)


def dots(rng, size):
    """Spots of various sizes on a plain ground."""
    colours = palette(rng, 4)
    image = np.tile(colours[0].astype(np.float32), (size, size, 1))
    biggest = rng.uniform(0.03, 0.16) * size
    for _ in range(int(rng.integers(12, 60))):
        centre = rng.integers(0, size, 2)
        radius = int(biggest * rng.uniform(0.3, 1)) + 1
        colour = [float(c) for c in colours[rng.integers(1, 4)]]
        cv2.circle(image, [int(c) for c in centre], radius, colour, -1, cv2.LINE_AA)
    return image


def gradient(rng, size):
    """Smooth colour gradient with a little noise."""
    x, y = grid(size)
    a, b = rng.uniform(-1, 1, 2)
    value = 0.5 + (a * (x - 0.5) + b * (y - 0.5)) + 0.05 * fractal(rng, size, 4, 4)
    return ramp(value, palette(rng, 3))


def brick(rng, size):
    """Bricks or tiles with joints, every brick in its own shade."""
    rows, columns = int(rng.integers(4, 14)), int(rng.integers(3, 8))
    x, y = grid(size)
    shift = rng.choice([0.0, 0.5])
    row = np.floor(y * rows)
    across = x * columns + shift * (row % 2)
    column = np.floor(across) % columns
    fx, fy = across % 1, y * rows % 1
    joint = rng.uniform(0.03, 0.09)
    gap = (fx < joint) | (fy < joint * rows / columns)
    colours = palette(rng, 3)
    mix = rng.random((rows, columns))[row.astype(int) % rows, column.astype(int)]
    image = ramp(mix, colours[:2]) * (1 + 0.08 * fractal(rng, size, 16, 3))[..., None]
    image[gap] = colours[2] * 0.9
    return image


def wood(rng, size):
    """Grain stretched along one axis, sometimes cut into planks."""
    hue, value = rng.uniform(0.05, 0.11), rng.uniform(0.35, 0.85)
    dark = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.4, 0.7), value * 0.6))
    light = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.25, 0.55), value))
    field = fractal(rng, size, 3, 5, 0.6)
    field = cv2.resize(field[: size // 4], (size, size), interpolation=cv2.INTER_CUBIC)
    x, _ = grid(size)
    planks = int(rng.integers(1, 7))
    plank = np.floor(x * planks).astype(int)
    offset = rng.normal(0, 1.0, planks)[np.minimum(plank, planks - 1)]
    value = 0.5 + 0.35 * np.sin(6.28 * (x * 6 + 0.35 * field + offset)) + 0.15 * offset
    image = ramp(value, np.stack([dark, light]))
    if planks > 1:
        image[(x * planks % 1) < 0.012 * planks] *= 0.45
    return image if rng.random() < 0.5 else image.transpose(1, 0, 2).copy()


def fabric(rng, size):
    """Woven cloth: fine threads and soft stains."""
    x, y = grid(size)
    threads = int(rng.integers(24, 60))
    weave = np.sin(6.2832 * threads * x) * np.sin(6.2832 * threads * y)
    value = 0.5 + 0.2 * weave + 0.14 * fractal(rng, size, 3, 4)
    return ramp(value, palette(rng, 2))


def collage(rng, size):
    """Overlapping random polygons, ellipses and lines over noise: busy, like a photograph."""
    image = np.ascontiguousarray(noise(rng, size), np.float32)
    colours = palette(rng, 6)
    for _ in range(int(rng.integers(8, 26))):
        colour = [float(c) for c in colours[rng.integers(6)]]
        centre = rng.random(2) * size
        extent = size * rng.uniform(0.04, 0.28)
        kind = rng.integers(3)
        if kind == 0:
            points = centre + rng.normal(0, extent * 0.7, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(image, [points.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 1:
            axes = (int(extent * rng.uniform(0.3, 1)) + 1, int(extent * 0.5) + 1)
            at = (int(centre[0]), int(centre[1]))
            cv2.ellipse(image, at, axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            end = centre + rng.normal(0, extent * 2, 2)
            width = int(rng.integers(1, max(2, size // 40)))
            points = np.array([centre, end]).astype(np.int32)
            cv2.polylines(image, [points], False, colour, width, cv2.LINE_AA)
    return image


def label(rng, size):
    """A printed label: title, lines of small text, a logo, a barcode."""
    colours = palette(rng, 4)
    image = np.tile(colours[0].astype(np.float32), (size, size, 1))
    ink = colours[1] if abs(colours[1].mean() - colours[0].mean()) > 0.25 else (
        np.ones(3) if colours[0].mean() < 0.5 else np.zeros(3)
    )  # fmt: skip
    for _ in range(int(rng.integers(1, 4))):
        a, b = rng.integers(0, size, 2), rng.integers(0, size, 2)
        colour = [float(c) for c in colours[rng.integers(2, 4)]]
        cv2.rectangle(image, [int(v) for v in a], [int(v) for v in b], colour, -1)
    stamp_text(rng, image, ink, int(rng.integers(3, 8)))
    if rng.random() < 0.6:
        x, y = (int(v) for v in rng.integers(0, size * 2 // 3, 2))
        bars = np.repeat(rng.integers(0, 2, 24), max(1, size // 100))
        patch = image[y : y + size // 6, x : x + len(bars)]
        patch[:] = np.where(bars[None, : patch.shape[1], None] > 0, 0.05, 0.95)
    return image


def stamp_text(rng, image, colour, count: int) -> None:
    """Write `count` random words on image (float), in place."""
    size = image.shape[0]
    ink = np.zeros((size, size), np.uint8)  # glyphs are drawn into bytes only
    alphabet = list(string.ascii_uppercase + string.digits + string.ascii_lowercase)
    for _ in range(count):
        word = ''.join(rng.choice(alphabet, int(rng.integers(2, 9))))
        font = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, 4, 6, 7]))
        scale = size / 256 * float(rng.choice([0.5, 0.8, 1.4, 2.4, 3.5]))
        at = (int(rng.integers(0, size * 3 // 4)), int(rng.integers(size // 8, size)))
        thick = max(1, int(scale * rng.uniform(1, 3)))
        cv2.putText(ink, word, at, font, scale, 255, thick, cv2.LINE_AA)
    weight = ink[..., None] * np.float32(1 / 255)
    image += weight * (np.asarray(colour, np.float32) - image)


def plain(rng, size):
    """Nearly uniform colour with faint wear."""
    colour = palette(rng, 1)[0]
    wear = 1 + rng.uniform(0, 0.06) * fractal(rng, size, 4, 3)
    return (colour * wear[..., None]).astype(np.float32)


def voronoi(rng, size):
    """Cells about random points, each in its own colour (held out for the test split)."""
    seeds = np.full((size, size), 255, np.uint8)
    points = rng.integers(0, size, (int(rng.integers(12, 70)), 2))
    seeds[points[:, 1], points[:, 0]] = 0
    distance, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5)
    colours = palette(rng, 5)
    image = colours[rng.integers(0, 5, cell.max() + 1)].astype(np.float32)[cell]
    return image * np.clip(1.1 - distance / size * rng.uniform(0, 4), 0.3, 1)[..., None]


def chevrons(rng, size):
    """Zigzag bands (held out for the test split)."""
    x, y = grid(size)
    zigzag = np.abs(x * rng.integers(1, 5) % 1 - 0.5) * rng.uniform(0.3, 1)
    bands = np.floor((y + zigzag) * rng.integers(4, 12)).astype(int)
    return palette(rng, 5).astype(np.float32)[bands * 7 % 5]


def plaid(rng, size):
    """Crossing translucent bands, like tartan (held out for the test split)."""
    warp = stripes(rng, size).mean(0, keepdims=True)
    weft = stripes(rng, size).mean(1, keepdims=True)
    return 0.5 * (warp + weft) + 0 * stripes(rng, size)


TRAIN = {
    f.__name__: f
    for f in (noise, stripes, checks, dots, gradient, brick, wood, fabric, collage, label, plain)
}
HELD_OUT = {f.__name__: f for f in (voronoi, chevrons, plaid)}


def finish(rng, image: np.ndarray, unevenness: float = 0.12) -> np.ndarray:
    """To uint8, after large soft stains that make even a periodic pattern different everywhere."""
    size = image.shape[0]
    stain = np.float32(255) + np.float32(255 * unevenness) * fractal(rng, size, 2, 3)
    image = np.asarray(image, np.float32) * stain[..., None]
    return np.clip(image, 0, 255, out=image).astype(np.uint8)


def sample_texture(rng, split: str = 'train', size: int = 256, family: str | None = None):
    """A texture (size, size, 3) uint8 of a family, by default a random one of the split.

    Where photographs are in use (`photographs.using`) a share of the training textures is theirs.
    """
    if split == 'train' and family not in ('plain', 'gradient'):
        photographs = drawn(rng)
        if photographs is not None:
            return photographs.texture(rng, size)
    families = dict(TRAIN)
    if split == 'test':
        families.update(HELD_OUT)
    if family is None:
        pool = list(HELD_OUT) if split == 'test' and rng.random() < 0.4 else list(TRAIN)
        weight = np.array([2.0 if f in ('collage', 'label', 'noise') else 1.0 for f in pool])
        family = str(rng.choice(pool, p=weight / weight.sum()))
    image = families[family](rng, size)
    low = family in ('plain', 'gradient')
    if not low and rng.random() < 0.25:
        image = np.ascontiguousarray(image, np.float32)
        stamp_text(rng, image, palette(rng, 1)[0], int(rng.integers(1, 3)))
    return finish(rng, image, 0.05 if low else rng.uniform(0.05, 0.2))
