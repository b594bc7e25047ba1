"""Square crops around the object: boxes, pixels, patch centres, official crop parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A crop this many times larger than the image holds no object, but would fill the memory.
MAX_SIDE_RATIO = 16


@dataclass(frozen=True)
class Crop:
    """A square of pixels [x0, x0 + side] x [y0, y0 + side]; it may reach beyond the image."""

    x0: int
    y0: int
    side: int

    def __post_init__(self):
        if self.side <= 0:
            raise ValueError(f'crop side is {self.side}, expected at least 1 pixel')

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) in continuous pixels."""
        return self.x0 + self.side / 2, self.y0 + self.side / 2

    def scaled(self, factor: float) -> Crop:
        """The square about the same place, to a pixel, with `factor` times the side."""
        side = max(1, round(self.side * factor))
        x, y = self.centre
        return Crop(round(x - side / 2), round(y - side / 2), side)

    def seen_of(self, width: int, height: int) -> int:
        """How many pixels of an image of this size are in it."""
        across = min(self.x0 + self.side, width) - max(self.x0, 0)
        down = min(self.y0 + self.side, height) - max(self.y0, 0)
        return max(across, 0) * max(down, 0)


def square_crop(box_xyxy: Sequence[float], scale: float = 1.15) -> Crop:
    """The square around the box's centre with side scale * max(box width, box height).

    Rounded to whole pixels as the official demo does: corner first, then side.
    Raises ValueError for a box that is not finite or has no area, and for scale <= 0.
    """
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
        raise ValueError(f'box {(x0, y0, x1, y1)} is not finite with x0 < x1 and y0 < y1')
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f'crop scale is {scale}, expected above 0')
    half = max(x1 - x0, y1 - y0) / 2 * scale
    left, top = round((x0 + x1) / 2 - half), round((y0 + y1) / 2 - half)
    return Crop(left, top, max(1, round(2 * half)))


def centred_square(width: int, height: int) -> Crop:
    """The largest square in the middle of an image (half a pixel up/left if it cannot be)."""
    side = min(width, height)
    return Crop((width - side) // 2, (height - side) // 2, side)


def box_from_mask(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (x0, y0, x1, y1), x1 and y1 exclusive, of a mask (H, W); not zero is object.

    Raises ValueError for a mask without object or of another shape.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f'mask has shape {mask.shape}, expected (H, W)')
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        raise ValueError('mask is empty, expected at least one object pixel')
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def extract_crop(image: np.ndarray, crop: Crop, size: int) -> Tensor:
    """Pixels of a crop as a float32 tensor (3, size, size) in [0, 1], black beyond the image.

    image (H, W, 3) uint8. Antialiased bilinear resize of the float crop, as the official
    preprocessing. Raises ValueError for another image, a crop that misses the image, or one
    more than MAX_SIDE_RATIO times larger than it.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f'image is {image.dtype} of shape {image.shape}, expected uint8 of (H, W, 3)'
        )
    height, width = image.shape[:2]
    x0, y0 = max(crop.x0, 0), max(crop.y0, 0)
    x1, y1 = min(crop.x0 + crop.side, width), min(crop.y0 + crop.side, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f'{crop} lies outside of the image of {width} x {height}')
    if crop.side > MAX_SIDE_RATIO * max(width, height):
        raise ValueError(f'{crop} is over {MAX_SIDE_RATIO} times the image of {width} x {height}')
    inside = torch.from_numpy(np.array(image[y0:y1, x0:x1], order='C'))
    rows, columns = slice(y0 - crop.y0, y1 - crop.y0), slice(x0 - crop.x0, x1 - crop.x0)
    # one direction after the other, so that the whole square, mostly black, never is in memory
    wide = torch.zeros(1, 3, y1 - y0, crop.side)
    wide[0, :, :, columns] = inside.permute(2, 0, 1).float() / 255
    tall = torch.zeros(1, 3, crop.side, size)
    tall[:, :, rows] = _resized(wide, (y1 - y0, size))
    return _resized(tall, (size, size))[0].clamp_(0, 1)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(
        maps, size=size, mode='bilinear', align_corners=False, antialias=True
    )


def patch_centres(crop: Crop, grid: int) -> Tensor:
    """Continuous pixels (grid*grid, 2) float64 of the patches' centres, row-major."""
    if grid < 1:
        raise ValueError(f'grid is {grid}, expected at least 1')
    step = (torch.arange(grid, dtype=torch.float64) + 0.5) * (crop.side / grid)
    y, x = torch.meshgrid(crop.y0 + step, crop.x0 + step, indexing='ij')
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def official_crop_params(
    crop: Crop,
    width: int,
    height: int,
    variant: str = 'training',
    raw_box: Sequence[float] | None = None,
) -> Tensor:
    """The official model's description of a crop, (4,) float32: -centre x, -centre y, width, s.

    In PyTorch3D's NDC (short side of the image spans [-1, 1], +x left, +y up), with
    s = long side / short side. 'training' (also the official evaluation) is consistent with the
    crop; 'demo' repeats the official demo, which leaves out the shift that centres a non-square
    image and takes the width from raw_box, the box before it was squared and enlarged.
    """
    long, s = max(width, height), max(width, height) / min(width, height)
    cx, cy = crop.centre
    if variant == 'training':
        cx, cy = cx + (long - width) / 2, cy + (long - height) / 2
        side = float(crop.side)
    elif variant == 'demo':
        if raw_box is None:
            raise ValueError("crop parameters of variant 'demo' need raw_box")
        side = float(raw_box[2]) - float(raw_box[0])
    else:
        raise ValueError(f"crop variant is {variant!r}, expected 'training' or 'demo'")
    unit = 2 * s / long
    return torch.tensor([cx * unit - s, cy * unit - s, side * unit, s], dtype=torch.float32)


def ndc_grid(crop_params: Tensor, grid: int | tuple[int, int] = 16) -> Tensor:
    """NDC (..., rows, columns, 2) = (x, y) of the patches' centres of crops (..., 4).

    grid is one number, or (rows, columns). The whole centred square is (0, 0, 2, any).
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    p = crop_params

    def steps(n):  # n centres from +1 to -1: PyTorch3D's axes point left and up
        return 1 - (torch.arange(n, dtype=p.dtype, device=p.device) + 0.5) * (2 / n)

    half = p[..., 2, None, None] / 2
    x = steps(columns)[None, :] * half - p[..., 0, None, None]
    y = steps(rows)[:, None] * half - p[..., 1, None, None]
    return torch.stack(torch.broadcast_tensors(x, y), dim=-1)
