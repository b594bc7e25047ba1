"""Folders of photographs such as captures are made from."""

from pathlib import Path

import cv2
import numpy as np

from ray_pose_ros.synthetic.renderer import look_at


def photograph(folder: Path, focal: float, angles, distance: float, height: float) -> np.ndarray:
    """Photograph a textured scene from `angles` (rad) round it into `folder/images`.

    focal: pixels; distance and height in the scene's radius and the distance. Returns the cameras'
    rotations (N, 3, 3), world to camera.
    """
    from ray_pose_ros.synthetic import sample_scene

    images = folder / 'images'
    images.mkdir(parents=True)
    scene = sample_scene(7, 'train')
    K = np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1]])
    rotations = []
    for k, angle in enumerate(angles):
        along = np.array([np.cos(angle), np.sin(angle), height])
        eye = scene.centre + distance * scene.radius * along
        R = look_at(eye, scene.centre)
        image = scene.render_matrix(K, R, -R @ eye, 640, 480).image
        cv2.imwrite(str(images / f'{k:02d}.png'), image[:, :, ::-1])
        rotations.append(R)
    return np.array(rotations)


def blank(folder: Path) -> Path:
    """Nine pictures of nothing in `folder/images`, which is returned."""
    images = folder / 'images'
    images.mkdir(parents=True)
    for k in range(9):
        cv2.imwrite(str(images / f'{k}.png'), np.full((120, 160, 3), 20 * k, np.uint8))
    return images
