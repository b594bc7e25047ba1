"""One view of the object: pixels, camera, and where in the image the object is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop, box_from_mask, centred_square, square_crop


@dataclass(frozen=True)
class View:
    """A photograph and what is known of it. Checked when made: ValueError names the view.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera: intrinsics of this image, or None if unknown.
        camera_source: who says so: 'given', 'exif' (the photograph itself, its focal length) or
            'matches' (with those of other views).
        box: the object's box, xyxy in continuous pixels, or None.
        mask: (H, W) bool, true on the object; used for its box where no box is given.
        name: for messages and files.
        stamp: seconds, or None.
        exif_orientation: the file's tag by which `image` was turned; 1 where it is as stored.
    """

    image: np.ndarray
    camera: CameraModel | None = None
    box: Sequence[float] | None = None
    mask: np.ndarray | None = None
    name: str = 'view'
    stamp: float | None = None
    camera_source: str = 'given'
    exif_orientation: int = 1

    def __post_init__(self):
        kinds = {'image': np.ndarray, 'mask': np.ndarray, 'camera': CameraModel}
        for what, kind in kinds.items():
            found = getattr(self, what)
            if not isinstance(found, kind) and (found is not None or what == 'image'):
                found = type(found).__name__
                raise ValueError(f'{self.name}: {what} is a {found}, expected a {kind.__name__}')
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f'{self.name}: image is {image.dtype} {image.shape}, expected uint8 (H, W, 3)'
            )
        height, width = image.shape[:2]
        if self.camera is not None and (self.camera.width, self.camera.height) != (width, height):
            raise ValueError(
                f'{self.name}: the camera is for {self.camera.width}x{self.camera.height} pixels, '
                f'but the image has {width}x{height}'
            )
        if self.mask is not None and self.mask.shape != (height, width):
            raise ValueError(
                f'{self.name}: the mask has shape {self.mask.shape}, expected {(height, width)}'
            )
        if self.mask is not None and self.box is None and not self.mask.any():
            raise ValueError(f'{self.name}: the mask is empty')
        if self.box is not None:
            self._check_box()

    @property
    def object_box(self) -> tuple[float, float, float, float] | None:
        """The given box, else the mask's, else None."""
        if self.box is not None:
            return tuple(float(x) for x in self.box)
        return None if self.mask is None else tuple(map(float, box_from_mask(self.mask)))

    def crop(self, scale: float = 1.15) -> Crop:
        """The square shown to the network: round the object, or the middle of the image."""
        box = self.object_box
        if box is None:
            return centred_square(self.image.shape[1], self.image.shape[0])
        return square_crop(box, scale)

    def _check_box(self) -> None:
        height, width = self.image.shape[:2]
        box = np.asarray(self.box, dtype=np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f'{self.name}: box is {self.box}, expected 4 finite numbers (xyxy)')
        x0, y0, x1, y1 = box
        if x1 - x0 < 1 or y1 - y0 < 1:
            raise ValueError(
                f'{self.name}: box {box.tolist()} has no area, expected x0 < x1 and y0 < y1'
            )
        if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
            raise ValueError(
                f'{self.name}: box {box.tolist()} lies outside the image of {width}x{height}'
            )
