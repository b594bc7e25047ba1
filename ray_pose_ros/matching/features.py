"""What a matcher takes and gives: image and mask in, features and matches out."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np


@dataclass(frozen=True)
class Features:
    """Points of one image.

    Attributes:
        points: (M, 2) float64 continuous pixels of the image as given (centres at half-integers).
        descriptors: (M, D) float32 of unit length.
        scores: (M,) float64, higher is better; comparable within one matcher only.
        width, height: of the image, pixels.
        extra: per point, what only some matchers know: 'scale' (M,) pixels and 'angle' (M,)
            radians (x towards y) of SIFT.
        kind: whose descriptors they are, since different kinds cannot be matched.
    """

    points: np.ndarray
    descriptors: np.ndarray
    scores: np.ndarray
    width: int
    height: int
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    kind: str = ''

    def __post_init__(self):
        count = len(self.points)
        shapes = {
            'points': (count, 2),
            'descriptors': (count, *np.shape(self.descriptors)[1:2]),
            'scores': (count,),
        }
        for name, expected in shapes.items():
            found = np.shape(getattr(self, name))
            if found != expected:
                raise ValueError(f'{name} have shape {found}, expected {expected}')

    def __len__(self) -> int:
        return len(self.points)

    def take(self, which: np.ndarray) -> Features:
        """The chosen points: indices or a mask (M,) bool."""
        extra = {name: values[which] for name, values in self.extra.items()}
        chosen = self.points[which], self.descriptors[which], self.scores[which]
        return Features(*chosen, self.width, self.height, extra, self.kind)


@dataclass(frozen=True)
class Matches:
    """`indices` (K, 2) int64 into the points of two images, none of them twice in its column;
    `scores` (K,) in [0, 1], higher is surer."""

    indices: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


NO_MATCHES = Matches(np.zeros((0, 2), dtype=np.int64), np.zeros(0))


def check_image(image: np.ndarray, mask: np.ndarray | None) -> None:
    """Raises ValueError unless the image is uint8 (H, W, 3) and the mask None or bool (H, W)."""
    found = f'{getattr(image, "dtype", type(image).__name__)} {np.shape(image)}'
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if not good or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'image is {found}, expected uint8 (H, W, 3)')
    if mask is None:
        return
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != image.shape[:2]:
        found = f'{getattr(mask, "dtype", type(mask).__name__)} {np.shape(mask)}'
        raise ValueError(f'mask is {found}, expected bool {image.shape[:2]}')


def check_features(a: Features, b: Features, kind: str) -> None:
    """Raises ValueError unless both are of this kind."""
    for features in (a, b):
        if features.kind != kind:
            raise ValueError(f'features are of kind {features.kind!r}, expected {kind!r}')


def on_mask(points: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """(M,) bool: the pixel under each point (M, 2) is in the mask; all true without one."""
    if mask is None:
        return np.ones(len(points), dtype=bool)
    height, width = mask.shape
    x = np.clip(points[:, 0].astype(int), 0, width - 1)
    y = np.clip(points[:, 1].astype(int), 0, height - 1)
    return mask[y, x]


@dataclass(frozen=True)
class Working:
    """The part of an image that features are looked for in, and its place in the image.

    `image` (h, w, 3) uint8; pixel p of the image is at (p - origin) * scale there.
    """

    image: np.ndarray
    origin: np.ndarray
    scale: np.ndarray

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Continuous pixels (M, 2) of the working image as pixels of the whole image."""
        return np.asarray(points, dtype=np.float64).reshape(-1, 2) / self.scale + self.origin


def working_image(
    image: np.ndarray, mask: np.ndarray | None, max_side: int, margin: int = 32
) -> Working | None:
    """Cut to the mask's surroundings, since nothing else is kept, then made no longer than
    `max_side` pixels. None where the mask is empty."""
    x0, y0, y1, x1 = 0, 0, *image.shape[:2]
    if mask is not None:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return None
        x0, x1 = max(columns[0] - margin, 0), min(columns[-1] + 1 + margin, x1)
        y0, y1 = max(rows[0] - margin, 0), min(rows[-1] + 1 + margin, y1)
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    height, width = part.shape[:2]
    ratio = min(1.0, max_side / max(height, width))
    if ratio < 1:
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    scale = np.array([part.shape[1] / width, part.shape[0] / height])
    return Working(part, np.array([x0, y0], dtype=np.float64), scale)
