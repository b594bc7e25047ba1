"""
Photographed surfaces and surroundings for synthetic scenes.

Patterns that a program draws lack what photographs have: a network that never saw dirt, grain and
weather takes them for something else. See photograph_packing.py for the files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import cv2
import numpy as np


class Photographs:
    """Packed pictures and panoramas.

    Args:
        path: .npz file of photograph_packing.
        share: of textures and of panoramas that are photographed where this is in use.

    Raises ValueError for a file without pictures.
    """

    def __init__(self, path: str | Path, share: float = 0.5):
        if not 0 <= share <= 1:
            raise ValueError(f'share of photographs is {share}, expected 0 to 1')
        with np.load(path, allow_pickle=False) as file:
            self._pictures = [file[k] for k in sorted(file.files) if k.startswith('picture')]
            if not self._pictures:
                raise ValueError(f'{path} has no pictures; expected a file of photograph_packing')
            self._panoramas = [file[k] for k in sorted(file.files) if k.startswith('panorama')]
            self._places = np.flatnonzero(file['place'])
        self.share = share

    def texture(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """A piece of a picture (size, size, 3) uint8 RGB, turned, tinted, sometimes mirrored."""
        image = _decode(self._pictures[rng.integers(len(self._pictures))])
        side = int(min(image.shape[:2]) * rng.uniform(0.3, 1))
        y, x = (int(rng.integers(0, s - side + 1)) for s in image.shape[:2])
        image = np.rot90(image[y : y + side, x : x + side], int(rng.integers(4)))
        if rng.random() < 0.4:  # mirrored, so that it has no seam where it repeats
            half = _resized(image, size // 2)
            image = np.concatenate([half, half[:, ::-1]], axis=1)
            image = np.concatenate([image, image[::-1]], axis=0)
        else:
            image = _resized(image, size)
        return _tinted(rng, image)

    def panorama(self, rng: np.random.Generator, width: int = 1024) -> np.ndarray:
        """Equirectangular surroundings (width / 2, width, 3) uint8 RGB, turned at random."""
        if self._panoramas and (len(self._places) < 4 or rng.random() < 0.7):
            image = _decode(self._panoramas[rng.integers(len(self._panoramas))])
            image = cv2.resize(image, (width, width // 2), interpolation=cv2.INTER_AREA)
            if rng.random() < 0.5:
                image = image[:, ::-1]
        else:
            image = self._places_around(rng, width)
        return _tinted(rng, np.roll(image, int(rng.integers(width)), axis=1))

    def _places_around(self, rng: np.random.Generator, width: int) -> np.ndarray:
        """Pictures of places side by side; sky and ground continue their upper and lower rims."""
        count = int(rng.integers(4, 8))
        among = self._places if len(self._places) >= 4 else np.arange(len(self._pictures))
        chosen = rng.choice(among, count, replace=count > len(among))
        edges = np.linspace(0, width, count + 1).astype(int)
        overlap, high = width // (4 * count), int(width * rng.uniform(0.18, 0.3))
        band = np.zeros((high, width, 3), np.float32)
        weight = np.zeros((1, width, 1), np.float32)
        for k, number in enumerate(chosen):
            wide = edges[k + 1] - edges[k] + 2 * overlap
            image = _decode(self._pictures[number]).astype(np.float32)
            ramp = np.minimum(np.arange(1, wide + 1), np.arange(wide, 0, -1)) / (2 * overlap)
            ramp = np.clip(ramp, 0, 1)[None, :, None].astype(np.float32)
            columns = np.arange(edges[k] - overlap, edges[k + 1] + overlap) % width
            image = cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA)
            band[:, columns] += ramp * image
            weight[:, columns] += ramp
        band /= np.maximum(weight, 1e-3)
        height = width // 2
        top = int((height - high) * rng.uniform(0.35, 0.6))
        border = cv2.BORDER_REFLECT if top < high else cv2.BORDER_REPLICATE
        whole = cv2.copyMakeBorder(band, top, height - high - top, 0, 0, border)
        soft = cv2.GaussianBlur(whole, (0, 0), width / 50)
        rows = np.arange(height)[:, None, None]
        outside = np.maximum(top - rows, rows - (top + high - 1)) / (0.1 * high)
        mix = np.clip(outside, 0, 1).astype(np.float32)
        return np.clip(whole + mix * (soft - whole), 0, 255).astype(np.uint8)


_in_use: ContextVar[Photographs | None] = ContextVar('photographs', default=None)


@contextmanager
def using(photographs: Photographs | None) -> Iterator[None]:
    """Textures and panoramas that are drawn in here come from these photographs in part."""
    token = _in_use.set(photographs)
    try:
        yield
    finally:
        _in_use.reset(token)


def in_use() -> bool:
    """Whether textures and panoramas come from photographs in part."""
    return _in_use.get() is not None


def drawn(rng: np.random.Generator) -> Photographs | None:
    """The photographs in use, with the probability of their share, else None.

    Without photographs in use nothing is drawn from `rng`: scenes stay what they are.
    """
    photographs = _in_use.get()
    if photographs is None or rng.random() >= photographs.share:
        return None
    return photographs


def _decode(data: np.ndarray) -> np.ndarray:
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    shrinks = image.shape[0] > size
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=way)


def _tinted(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Another light: gains of the channels and a gamma."""
    gains = np.exp(rng.normal(0, 0.12, 3) + rng.normal(0, 0.15))
    gamma = np.exp(rng.normal(0, 0.15))
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gains
    table = np.clip(255 * levels, 0, 255).astype(np.uint8)
    return np.stack([table[image[..., c], c] for c in range(3)], axis=-1)
