"""Views that are kept for later: a compressed image takes a tenth of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel

_QUALITY = 95  # of JPEG


@dataclass(frozen=True)
class PackedView:
    """A View whose image is a JPEG file in memory, and whose mask has become its box."""

    jpeg: bytes
    camera: CameraModel | None
    box: tuple[float, float, float, float] | None
    name: str
    stamp: float | None

    def unpacked(self) -> View:
        """The view, with the losses of JPEG."""
        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        image = np.ascontiguousarray(bgr[..., ::-1])
        return View(image, self.camera, self.box, name=self.name, stamp=self.stamp)


def packed(view: Any) -> Any:
    """A View packed; anything else, such as one that is packed already, as it is."""
    if not isinstance(view, View):
        return view
    _, jpeg = cv2.imencode('.jpg', view.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return PackedView(jpeg.tobytes(), view.camera, view.object_box, view.name, view.stamp)


def unpacked(view: Any) -> Any:
    """A PackedView as a View; anything else as it is."""
    return view.unpacked() if isinstance(view, PackedView) else view


class Unpacked(Sequence):
    """Views, packed or not, each unpacked when it is asked for and not kept."""

    def __init__(self, views: Sequence[View | PackedView]):
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: int) -> View:
        return unpacked(self._views[index])


def small_image(view: View | PackedView) -> np.ndarray:
    """The image (H, W, 3) uint8 of a view, of a packed one at a quarter of its size."""
    if not isinstance(view, PackedView):
        return view.image
    bgr = cv2.imdecode(np.frombuffer(view.jpeg, np.uint8), cv2.IMREAD_REDUCED_COLOR_4)
    return bgr[..., ::-1]
