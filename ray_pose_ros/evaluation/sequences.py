"""Sequences of views with true cameras: folders of photographs, and rendered test scenes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation.images import read_image
from ray_pose_ros.estimation.intrinsics import IntrinsicsFile
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel


@dataclass(frozen=True)
class Sequence:
    """Views of one object and their true cameras.

    Attributes:
        name: for tables.
        views: M views with intrinsics.
        R, t: true cameras (M, 3, 3), (M, 3), world-to-camera, float64.
        up: upward direction in the world (3,), or None where nobody knows it.
    """

    name: str
    views: tuple[View, ...]
    R: np.ndarray
    t: np.ndarray
    up: np.ndarray | None = None


def read_folder(folder: Path) -> Sequence:
    """A folder with `poses.json` (K, R, t, perhaps bbox_xyxy, of each image).

    Raises ValueError where the file is missing or a frame has no pose.
    """
    path = Path(folder) / 'poses.json'
    if not path.is_file():
        raise ValueError(f'{folder}: no poses.json in it')
    file = IntrinsicsFile(path)
    views, rotations, translations = [], [], []
    for name, entry in file.frames.items():
        if entry.R is None or entry.t is None:
            raise ValueError(f'{path}: frame {name} has no R and t')
        image = _find(Path(folder), name)
        pixels = read_image(image, entry.size, annotated=True).pixels
        height, width = pixels.shape[:2]
        views.append(View(pixels, entry.camera(width, height), entry.box, name=name))
        rotations.append(entry.R)
        translations.append(entry.t)
    return Sequence(
        Path(folder).resolve().name, tuple(views), np.stack(rotations), np.stack(translations)
    )


def render_scene(seed: int, views: int = 20) -> Sequence:
    """A scene of the test split, with cameras all around it and the object's projected box."""
    from ray_pose_ros.synthetic.cameras import sample_cameras
    from ray_pose_ros.synthetic.scenes import sample_scene
    from ray_pose_ros.synthetic.training_view import training_view

    scene = sample_scene(seed, 'test')
    rng = np.random.default_rng([seed, 11])
    found, rotations, translations = [], [], []
    for camera, rotation, translation in sample_cameras(rng, scene, 2 * views, (640, 480)):
        # the square that a detector's box gives, jittered as boxes are
        shown = training_view(
            scene, camera, rotation, translation, rng, size=224, scale=(1.1, 1.2), loose=0.0
        )
        if shown.mask.mean() < 0.02:
            continue
        matrix = torch.from_numpy(np.asarray(shown.K_crop, dtype=np.float64))
        name = f'{seed:04d}_{len(found):02d}'
        found.append(View(shown.image, CameraModel(matrix, 224, 224), name=name))
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


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / 'images' / name):
        if candidate.is_file():
            return candidate
    raise ValueError(f'{folder}: image {name} of poses.json is neither there nor in images/')
