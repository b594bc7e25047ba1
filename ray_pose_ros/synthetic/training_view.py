"""One training sample: the jittered square crop about the object, rendered directly."""

from typing import NamedTuple

import cv2
import numpy as np

from .augment import augment as disturb
from .environment import backdrop
from .textures import sample_texture


class TrainingView(NamedTuple):
    """
    image (S, S, 3) uint8, depth (S, S) float32 (inf: nothing), mask (S, S) bool, K_crop (3, 3)
    pinhole in pixels of the crop, R (3, 3), t (3,) world-to-camera, centre (3,) of the object.
    """

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    K_crop: np.ndarray
    R: np.ndarray
    t: np.ndarray
    centre: np.ndarray


def object_box(scene, K, R, t, width: int, height: int):
    """Box (4,) xyxy of the projected object, cut to the image, or None when it is out of view."""
    p = scene.points @ (K @ R).T + K @ np.asarray(t).reshape(3)
    p = p[p[:, 2] > 0.02]
    if len(p) == 0:
        return None
    xy = p[:, :2] / p[:, 2:]
    low = np.maximum(xy.min(0), 0)
    high = np.minimum(xy.max(0), (width, height))
    return None if (high - low < 2).any() else np.concatenate([low, high])


def sample_crop(rng, box, width: int, height: int, scale, shift: float, loose: float):
    """Square (x0, y0, side) in pixels: about the box, much looser, or the centred square."""
    kind = rng.random()
    if box is None or kind < 0.5 * loose:
        side = min(width, height)
        return np.array([(width - side) / 2, (height - side) / 2, side])
    extent = float((box[2:] - box[:2]).max())
    factor = rng.uniform(1.35, 2.2) if kind < loose else rng.uniform(*scale)
    side = extent * factor
    middle = (box[:2] + box[2:]) / 2 + rng.uniform(-shift, shift, 2) * extent
    x0, y0 = np.round(middle - side / 2)
    return np.array([x0, y0, max(2.0, np.round(side))])


def occlude(rng, image, depth, mask) -> None:
    """Cover a part of the crop from one side with a textured blob, in place; depth becomes inf."""
    size = image.shape[0]
    angle = rng.uniform(0, 2 * np.pi)
    middle = size / 2 + size * rng.uniform(0.45, 0.7) * np.array([np.cos(angle), np.sin(angle)])
    turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 12))))
    radius = size * rng.uniform(0.12, 0.3) * rng.uniform(0.6, 1.3, len(turns))
    outline = middle + radius[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    cover = np.zeros((size, size), np.uint8)
    cv2.fillPoly(cover, [outline.astype(np.int32)], 1)
    cover = cover > 0
    texture = cv2.resize(sample_texture(rng, 'train', 64), (size, size))
    image[cover], depth[cover], mask[cover] = texture[cover], np.inf, False


def training_view(
    scene,
    camera,
    R,
    t,
    rng: np.random.Generator,
    size: int = 224,
    scale=(1.05, 1.35),
    shift: float = 0.07,
    loose: float = 0.2,
    augment: float = 1.0,
) -> TrainingView:
    """
    Render the square crop of a view that a user's camera and box would give.

    camera: pinhole CameraModel of the whole image; the crop is square, scale times the longer
    side of the object's box, moved by up to shift of it. A share `loose` has looser crops or the
    image's centred square (2 or more: always the square). Pixels of the crop outside the image
    are black, as in real use.
    augment: strength of the disturbances, 0 for none. Deterministic for a state of rng.
    """
    K = np.asarray(camera.matrix, dtype=float)
    R, t = np.asarray(R, dtype=float), np.asarray(t, dtype=float).reshape(3)
    box = object_box(scene, K, R, t, camera.width, camera.height)
    x0, y0, side = sample_crop(rng, box, camera.width, camera.height, scale, shift, loose)
    zoom = size / side
    K_crop = np.array([[zoom, 0, -zoom * x0], [0, zoom, -zoom * y0], [0, 0, 1.0]]) @ K
    background = backdrop(rng, 64) if scene.random_backdrop else None
    gain = np.ones(3)
    if augment > 0:
        gain = np.exp(rng.normal(0, 0.15 * augment) + rng.normal(0, 0.04 * augment, 3))
    image, depth, mask = scene.render_matrix(
        K_crop, R, t, size, size, background=background, exposure=gain
    )
    if augment > 0:
        if rng.random() < 0.06 * augment:
            occlude(rng, image, depth, mask)
        image = disturb(rng, image, augment)
    centres = (np.arange(size) + 0.5) / zoom
    rows = (centres + y0 < 0) | (centres + y0 > camera.height)
    columns = (centres + x0 < 0) | (centres + x0 > camera.width)
    for outside in (np.s_[rows], np.s_[:, columns]):
        image[outside], depth[outside], mask[outside] = 0, np.inf, False
    return TrainingView(image, depth, mask, K_crop, R, t, scene.centre)
