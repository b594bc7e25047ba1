"""Which frames become keyframes, and the window of them that is solved together."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

THUMBNAIL_ROWS, THUMBNAIL_COLUMNS = 30, 40
_SAMPLES = 4  # samples a cell and axis: averaging 16 of them keeps sensor noise out of the gate
_FLAT = 2.0  # grey levels of contrast below which an image counts as flat

TOO_SOON, UNCHANGED, NOT_MOVED = 'too_soon', 'unchanged', 'not_moved'


def thumbnail(image: np.ndarray) -> np.ndarray:
    """
    Sample an image (H, W) or (H, W, C), any packed pixel format, down to (30, 40) float32.

    Looks at under 20000 pixels whatever the size, and needs no decoding: channels are averaged as
    they are, because only a change between two images of one camera is ever measured. A 16-bit
    image is scaled by its largest value, since cameras of 10 to 14 bits use the lower ones only.
    """
    if image.ndim not in (2, 3) or image.shape[0] < 1 or image.shape[1] < 1:
        raise ValueError(f'image has shape {image.shape}, expected (H, W) or (H, W, C)')
    height, width = image.shape[:2]
    rows = (np.arange(THUMBNAIL_ROWS * _SAMPLES) + 0.5) * height / (THUMBNAIL_ROWS * _SAMPLES)
    cols = (np.arange(THUMBNAIL_COLUMNS * _SAMPLES) + 0.5) * width / (THUMBNAIL_COLUMNS * _SAMPLES)
    picked = image[rows.astype(np.intp)[:, None], cols.astype(np.intp)[None, :]]
    picked = picked.astype(np.float32)
    if image.dtype.itemsize == 2:
        picked *= 255.0 / max(float(picked.max()), 1023.0)
    if picked.ndim == 3:
        picked = picked.mean(axis=2)
    cells = picked.reshape(THUMBNAIL_ROWS, _SAMPLES, THUMBNAIL_COLUMNS, _SAMPLES)
    return cells.mean(axis=(1, 3))


def image_change(a: np.ndarray, b: np.ndarray) -> float:
    """
    Say how different two thumbnails are: 0 the same, about 1 unrelated, 2 negatives.

    One minus their correlation, so that a change of exposure is no change; regularised so that two
    flat images (a covered lens) do not differ by their noise.
    """
    a = a - a.mean()
    b = b - b.mean()
    flat = _FLAT**2
    energy = (float((a * a).mean()) + flat) * (float((b * b).mean()) + flat)
    return 1 - (float((a * b).mean()) + flat) / energy**0.5


@dataclass
class KeyframeGate:
    """
    The gate of one camera: a frame passes when enough time has gone by and the image has changed.

    Times in seconds. `max_interval` > 0 lets a frame pass after that long even without a change.
    A clock that jumps back (a bag that loops, a simulation that restarts) re-arms the gate.
    """

    min_interval: float = 0.5
    min_change: float = 0.05
    max_interval: float = 0.0
    _stamp: float | None = field(default=None, repr=False)
    _thumbnail: np.ndarray | None = field(default=None, repr=False)
    _forced: bool = field(default=False, repr=False)

    def refuses_time(self, stamp: float) -> str | None:
        """Say `TOO_SOON` for a frame that needs no look at all, None for one that does."""
        if self._stamp is None or self._forced:
            return None
        elapsed = stamp - self._stamp
        return TOO_SOON if 0 <= elapsed < self.min_interval else None

    def heeds_motion(self, stamp: float) -> bool:
        """Whether a camera that stands where it took its last keyframe need not be looked at."""
        if self._stamp is None or self._forced:
            return False
        return self.max_interval <= 0 or 0 <= stamp - self._stamp < self.max_interval

    def refuses_image(self, stamp: float, small: np.ndarray) -> str | None:
        """Say `UNCHANGED` for an image too like the last keyframe, None for one that passes."""
        if self._thumbnail is None or self._forced or self.min_change <= 0:
            return None
        if self.max_interval > 0 and not 0 <= stamp - self._stamp < self.max_interval:
            return None
        return UNCHANGED if image_change(self._thumbnail, small) < self.min_change else None

    def accept(self, stamp: float, small: np.ndarray) -> None:
        """Remember this frame as the camera's last keyframe."""
        self._stamp, self._thumbnail, self._forced = stamp, small, False

    def force(self) -> None:
        """Let the next frame pass whatever it shows."""
        self._forced = True

    def reset(self) -> None:
        """Forget the last keyframe: the next frame passes."""
        self._stamp, self._thumbnail, self._forced = None, None, False


@dataclass(frozen=True)
class Keyframe:
    """A kept view: who took it, when, and what the estimator prepared from it (computed once)."""

    id: int
    camera: str
    stamp_ns: int
    frame_id: str
    prepared: Any
    view: Any = None

    @property
    def name(self) -> str:
        """Name of the keyframe and of its coordinate frame, `<camera>_keyframe_<id>`."""
        return f'{frame_safe(self.camera)}_keyframe_{self.id}'


def frame_safe(camera: str) -> str:
    """Turn a camera's topic prefix into something a frame and a file may be called.

    `/a/b` -> `a_b`, `~/a` -> `_a`.
    """
    return re.sub(r'\W+', '_', camera.strip('/'))


class KeyframeBuffer:
    """The last `size` keyframes in the order they were taken; ids count up and are not reused."""

    def __init__(self, size: int) -> None:
        self._next_id = 0
        self._window: deque[Keyframe] = deque()
        self.resize(size)

    def resize(self, size: int) -> None:
        """Set how many keyframes are kept; the newest of the present ones stay."""
        if size < 2:
            raise ValueError(f'window size is {size}, expected at least 2')
        self._window = deque(self._window, maxlen=size)

    def __len__(self) -> int:
        return len(self._window)

    def add(self, camera: str, stamp_ns: int, frame_id: str, prepared, view=None) -> Keyframe:
        """Append a keyframe under the next id; the oldest leaves a full window."""
        keyframe = Keyframe(self._next_id, camera, stamp_ns, frame_id, prepared, view)
        self._next_id += 1
        self._window.append(keyframe)
        return keyframe

    def exchange(self, keyframes: Iterable[Keyframe]) -> None:
        """Put others in the place of those with the same ids, as far as they are still there."""
        others = {k.id: k for k in keyframes}
        window = [others.get(k.id, k) for k in self._window]
        self._window = deque(window, maxlen=self._window.maxlen)

    def window(self) -> tuple[Keyframe, ...]:
        """Return the keyframes now in the window, oldest first."""
        return tuple(self._window)

    def clear(self) -> None:
        """Forget the keyframes; ids go on so that no frame ever changes its meaning."""
        self._window.clear()
