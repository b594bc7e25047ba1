"""Sequences of views with true cameras: folders of photographs, and rendered test scenes."""

import os
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Sequential
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation.images import read_image, supposed_orientations
from ray_pose_ros.estimation.intrinsics import IntrinsicsFile
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import camera_centres

_KEPT = 64  # photographs in memory at a time


@dataclass(frozen=True)
class Sequence:
    """Views of one object and their true cameras.

    Attributes:
        name: for tables.
        views: M views with intrinsics, read from disk when they are asked for.
        R, t: true cameras (M, 3, 3), (M, 3), world-to-camera, float64.
        up: upward direction in the world (3,), or None where nobody knows it.
    """

    name: str
    views: Sequential[View]
    R: np.ndarray
    t: np.ndarray
    up: np.ndarray | None = None

    @property
    def centres(self) -> np.ndarray:
        """True camera centres (M, 3)."""
        return camera_centres(self.R, self.t)


class LazyViews(Sequential):
    """Views read by `read(index)` when first asked for; the last few are kept."""

    def __init__(self, count: int, read: Callable[[int], View]):
        self._count, self._read = count, read
        self._kept: dict[int, View] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> View:
        index = int(index)
        if not 0 <= index < self._count:
            raise IndexError(f'view {index} of {self._count}')
        if index not in self._kept:
            while len(self._kept) >= _KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[index] = self._read(index)
        return self._kept[index]

    def __iter__(self) -> Iterator[View]:
        return (self[index] for index in range(self._count))


def read_folder(folder: Path) -> Sequence:
    """A folder with `poses.json` (K, R, t, perhaps bbox_xyxy, of each image).

    Raises ValueError where the file is missing, a frame has no pose or no image.
    """
    folder = Path(folder)
    path = folder / 'poses.json'
    if not path.is_file():
        raise ValueError(f'{folder}: no poses.json in it')
    file = IntrinsicsFile(path)
    frames = file.frames
    for name, entry in frames.items():
        if entry.R is None or entry.t is None:
            raise ValueError(f'{path}: frame {name} has no R and t')
    names, entries = list(frames), list(frames.values())
    images = [find_image(folder, name, file.files_from) for name in names]
    turned_by = supposed_orientations(
        images, [entry.size for entry in entries], [entry.exif_orientation for entry in entries]
    )

    def read(index: int) -> View:
        entry = entries[index]
        pixels = read_image(images[index], entry.size, True, turned_by[index]).pixels
        height, width = pixels.shape[:2]
        return View(pixels, entry.camera(width, height), entry.box, name=names[index])

    return Sequence(
        os.path.basename(os.path.abspath(folder)),
        LazyViews(len(names), read),
        np.stack([entry.R for entry in entries]),
        np.stack([entry.t for entry in entries]),
    )


def render_scene(seed: int, views: int = 20, size: int = 224) -> Sequence:
    """A scene of the test split, with cameras all around it; the views are square crops.

    Args:
        seed: of the scene.
        views: how many.
        size: side of the crops in pixels; networks see 224, matchers profit from more.
    """
    from ray_pose_ros.synthetic.cameras import sample_cameras
    from ray_pose_ros.synthetic.scenes import sample_scene
    from ray_pose_ros.synthetic.training_view import training_view

    scene = sample_scene(seed, 'test')
    rng = np.random.default_rng([seed, 11])
    found, rotations, translations = [], [], []
    for camera, rotation, translation in sample_cameras(rng, scene, 2 * views, (640, 480)):
        # the square that a detector's box gives, jittered as boxes are
        shown = training_view(
            scene, camera, rotation, translation, rng, size=size, scale=(1.1, 1.2), loose=0.0
        )
        if shown.mask.mean() < 0.02:
            continue
        matrix = torch.from_numpy(np.asarray(shown.K_crop, dtype=np.float64))
        name = f'{seed:04d}_{len(found):02d}'
        found.append(View(shown.image, CameraModel(matrix, size, size), name=name))
        rotations.append(shown.R)
        translations.append(shown.t)
        if len(found) == views:
            break
    return Sequence(
        f'rendered {seed}',
        tuple(found),
        np.stack(rotations),
        np.stack(translations),
        np.asarray(scene.up, dtype=np.float64),
    )


def find_image(folder: Path, name: str, other: Path) -> Path:
    """An image in the folder, in its `images/` or in another (ValueError where it is in none)."""
    for candidate in (folder / name, folder / 'images' / name, other / name):
        if candidate.is_file():
            return candidate
    raise ValueError(f'{folder}: image {name} is neither there nor in images/ nor in {other}/')
