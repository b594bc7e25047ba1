"""Where photographs by a camera that stands still differ: masks of what turns before it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_SIDE = 512  # pixels, the longer side at which photographs are compared
_LEAST, _NOISE = 25.0, 3.0  # of 255: what differs does so by more, and by that times the median
_GAP, _RIM = 0.03, 0.01  # of the longer side: gaps that are closed, and what is added round it
_MIDDLE = 0.2  # of the longer side, one deviation: where the thing is expected
_SHARE = 0.005, 0.7  # of the image: the least and the most that a thing takes


def swept_area(images: Sequence[np.ndarray]) -> np.ndarray | None:
    """(H, W) bool, where photographs (H, W, 3) uint8 differ about their middle: one area, without
    holes.

    The same for all of them: a thing that turns leaves it in none. None for photographs of
    different sizes, and where what differs is next to nothing or next to all.
    """
    if len({image.shape for image in images}) != 1:
        return None
    height, width = images[0].shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    low, high = np.full((*size[::-1], 3), 255, np.uint8), np.zeros((*size[::-1], 3), np.uint8)
    for image in images:
        small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 1)
        low, high = np.minimum(low, small), np.maximum(high, small)
    differs = (high - low).max(-1)
    moved = (differs > max(_LEAST, _NOISE * float(np.median(differs)))).astype(np.uint8)
    moved = cv2.morphologyEx(moved, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    moved = cv2.morphologyEx(moved, cv2.MORPH_CLOSE, _disc(_GAP * max(size)))
    count, label = cv2.connectedComponents(moved)
    if count < 2:
        return None
    # edges of the room differ, too, where the camera was touched or has focused anew
    weight = np.outer(*(np.exp(-(_offsets(n, max(size)) ** 2) / 2) for n in moved.shape))
    chosen = 1 + np.argmax(np.bincount(label.ravel(), weight.ravel())[1:])
    outline, _ = cv2.findContours(
        (label == chosen).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    area = cv2.drawContours(np.zeros_like(moved), outline, -1, 1, cv2.FILLED)
    area = cv2.dilate(area, _disc(_RIM * max(size)))
    if not _SHARE[0] <= area.mean() <= _SHARE[1]:
        return None
    return cv2.resize(area, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def _offsets(count: int, longer: int) -> np.ndarray:
    """(count,) of pixels from their middle, in units of _MIDDLE of the longer side."""
    return (np.arange(count) - (count - 1) / 2) / (_MIDDLE * longer)


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
