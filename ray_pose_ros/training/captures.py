"""Real photographs as training scenes: captures that structure from motion has solved.

A capture is a folder with `images/`, photographs of one thing that stays put, and a COLMAP model
with points in it or in `sparse/0` (see `reconstruction`). Needs pycolmap (PyPI).

The points are few, so depth is known in parts: where three neighbours lie close together in the
image and at much the same depth, it is interpolated, elsewhere it is nan. Losses leave unknown
cells out.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from ray_pose_ros.estimation.colmap_files import colmap_camera
from ray_pose_ros.estimation.colmap_package import import_pycolmap
from ray_pose_ros.estimation.images import read_image
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.gauge import axes_intersection
from ray_pose_ros.synthetic.augment import augment
from ray_pose_ros.synthetic.training_view import sample_crop

from .dataset import DEPTH_STEP, SIZE, work_through, write_shard
from .reconstruction import FEWEST, find_model

WIDEST = 0.14  # longest side of a triangle that depth is interpolated in, of the crop's side
STEEPEST = 0.12  # largest difference of depth within such a triangle, relative
KNOWN = 0.03  # smallest share of known depths of a view that is used
_ATTEMPTS = 60
MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Photo:
    """One photograph of a capture.

    Attributes:
        path: of the file.
        camera: with lens distortion, of the file's pixels.
        R, t: (3, 3), (3,) world to camera.
        points: (P, 3) that were triangulated from it, camera frame.
    """

    path: Path
    camera: CameraModel
    R: np.ndarray
    t: np.ndarray
    points: np.ndarray


@dataclass(frozen=True)
class Capture:
    """Photographs with solved cameras; `points` (P, 3) seen by three or more, `up` (3,), world;
    `middle` (3,) where the optical axes meet best."""

    name: str
    photos: list[Photo]
    points: np.ndarray
    up: np.ndarray
    middle: np.ndarray

    @classmethod
    def read(cls, folder: Path) -> 'Capture':
        """Read a capture's photographs and its COLMAP model, binary or text.

        Raises ValueError where the model is missing, or solves fewer than FEWEST photographs.
        """
        folder = Path(folder)
        model = find_model(folder)
        if model is None:
            raise ValueError(f'{folder}: no COLMAP model with points in it or in sparse/0')
        solved = import_pycolmap().Reconstruction(model)
        photos, tracks = [], dict(solved.points3D)
        for number in sorted(solved.reg_image_ids(), key=lambda k: solved.image(k).name):
            image = solved.image(number)
            path = folder / 'images' / image.name
            if not path.is_file():
                raise ValueError(f'{path} of {model} is missing')
            known = solved.camera(image.camera_id)
            camera = colmap_camera(known.model_name, known.params, known.width, known.height)
            pose = image.cam_from_world()
            R, t = np.array(pose.rotation.matrix()), np.array(pose.translation)
            seen = [tracks[p.point3D_id].xyz for p in image.points2D if p.has_point3D()]
            seen = np.array(seen).reshape(-1, 3) @ R.T + t
            photos.append(Photo(path, camera, R, t, seen[seen[:, 2] > 0]))
        if len(photos) < FEWEST:
            raise ValueError(
                f'{model} solves {len(photos)} photographs, expected {FEWEST} or more'
            )
        points = [p.xyz for p in tracks.values() if p.track.length() >= 3]
        R, t = np.stack([p.R for p in photos]), np.stack([p.t for p in photos])
        middle = axes_intersection(torch.from_numpy(R), torch.from_numpy(t)).numpy()
        return cls(folder.name, photos, np.array(points), upwards(R), middle)


def upwards(R: np.ndarray) -> np.ndarray:
    """The upward direction (3,) of cameras R (N, 3, 3) held level.

    It is square to all cameras' x axes, where these differ, and the mean of their -y axes else.
    """
    mean = -R[:, 1].mean(axis=0)
    values, axes = np.linalg.eigh(np.einsum('ni,nj->ij', R[:, 0], R[:, 0]) / len(R))
    # a second direction hardly spanned: any tilt of the one axis would fit as well
    up = axes[:, 0] if values[1] > 0.05 else mean
    up = up / np.linalg.norm(up)
    return up if up @ mean > 0 else -up


def pack_captures(
    into: Path,
    folders: list[Path],
    scenes: int,
    views: int = 12,
    first_seed: int = 0,
    workers: int = 2,
    shard: int = 16,
    mirrored: float = 0.5,
) -> None:
    """Write `scenes` scenes drawn from each of the captures as shards; see `draw_scene`.

    A share of them, `mirrored`, is seen in a mirror. Shards that exist are kept. Raises ValueError
    for a capture that cannot be read, or a share outside 0 to 1.
    """
    if not 0 <= mirrored <= 1:
        raise ValueError(f'mirrored is {mirrored}, expected 0 to 1')
    into.mkdir(parents=True, exist_ok=True)
    jobs, number = [], first_seed
    everything = [(folder, k) for folder in folders for k in range(scenes)]
    for start in range(0, len(everything), shard):
        chosen = everything[start : start + shard]
        path = into / f'scenes_train_{number:08d}.npz'
        if not path.exists():
            jobs.append((path, chosen, number, views, mirrored))
        number += len(chosen)
    work_through(_pack_shard, jobs, workers, 'packing captures')


_read = lru_cache(maxsize=2)(Capture.read)


def _pack_shard(job: tuple) -> None:
    path, chosen, first, views, mirrored = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    scenes = []
    for seed, (folder, _) in enumerate(chosen, first):
        # a stream of its own, so that a seed's scene is the same one, mirrored or not
        swap = np.random.default_rng([seed, 18]).random() < mirrored
        scenes.append(draw_scene(_read(folder), seed, views, swap))
    write_shard(path, scenes)


def draw_scene(
    capture: Capture, seed: int, views: int, mirrored: bool = False
) -> dict[str, np.ndarray]:
    """One scene's arrays (see `dataset`), drawn from a capture; depends on the arguments only.

    A ball of random size, about where the cameras look or about a random point, stands for the
    object and gives the boxes; in a third of the scenes there are none. Rolls and disturbances
    are those of rendered scenes. Where too few photographs show the ball, some are used twice,
    with other crops. In a mirror, left and right changed over, it is another thing.

    Raises ValueError where no ball is seen well by four photographs.
    """
    rng = np.random.default_rng([seed, 17])
    for _ in range(_ATTEMPTS):
        whole = rng.random() < 0.35
        ball, sizes = capture.middle, (0.18, 0.5)
        if rng.random() < 0.25 and len(capture.points):
            ball, sizes = capture.points[rng.integers(len(capture.points))], (0.15, 0.4)
        distance = np.array([(p.R @ ball + p.t)[2] for p in capture.photos])
        if (distance > 0).sum() < 4:
            continue
        radius = rng.uniform(*sizes) * np.median(distance[distance > 0])
        turn = float(rng.choice([90, 180, 270])) if rng.random() < 1 / 6 else 0.0
        spread = 60.0 if rng.random() < 1 / 10 else rng.uniform(0, 8)
        closer = rng.uniform(1.0, 1.5) if rng.random() < 0.5 else 1.0
        taken, used = [], set()
        for k in [*rng.permutation(len(capture.photos)), *rng.integers(len(distance), size=views)]:
            if distance[k] > 0.2 * radius and len(taken) < views:
                roll = np.radians(turn + rng.normal(0, spread))
                view = _draw_view(
                    rng, capture.photos[k], ball, radius, roll, whole, closer, mirrored
                )
                if view is not None:
                    taken.append(view)
                    used.add(int(k))
        if len(used) < 4:
            continue
        while len(taken) < views:
            taken.append(taken[int(rng.integers(len(taken)))])
        columns = [np.stack(column) for column in zip(*taken, strict=True)]
        names = 'images', 'depth', 'matrix', 'rotation', 'translation'
        return dict(zip(names, columns, strict=True)) | {
            'centre': (MIRROR @ ball if mirrored else ball).astype(np.float32),
            'up': (MIRROR @ capture.up if mirrored else capture.up).astype(np.float32),
            'seed': np.int64(seed),
        }
    raise ValueError(f'{capture.name}: nothing is seen well by four photographs')


def _draw_view(
    rng,
    photo: Photo,
    ball: np.ndarray,
    radius: float,
    roll: float,
    whole: bool,
    closer: float,
    mirrored: bool,
):
    """image, depth, K, R, t of a crop, rolled about the optical axis; None for a poor one."""
    c, s = np.cos(roll), np.sin(roll)
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    camera = photo.camera
    # a pinhole that is rolled about its principal point, which is its origin of pixels
    f = float((camera.matrix[0, 0] * camera.matrix[1, 1]).sqrt())
    shortest = min(camera.width, camera.height)
    R, t = turned @ photo.R, turned @ photo.t
    if whole:
        side = shortest / closer
        ray = camera.unproject(torch.tensor([camera.width / 2, camera.height / 2]).double())
        ray = turned @ ray.numpy()
        middle = f * ray[:2] / ray[2]
    else:
        x = R @ ball + t
        half = f * radius / x[2]
        middle = f * x[:2] / x[2]
        box = np.concatenate([middle - half, middle + half])
        x0, y0, side = sample_crop(rng, box, 0, 0, (1.05, 1.35), 0.07, 0.0)
        if side < 0.12 * shortest or side > 1.6 * shortest:
            return None
        middle = np.array([x0, y0]) + side / 2
    zoom = SIZE / side
    corner = middle - side / 2
    K = np.array([[zoom * f, 0, -zoom * corner[0]], [0, zoom * f, -zoom * corner[1]], [0, 0, 1.0]])
    matrix, points = K.copy(), photo.points @ turned.T
    if mirrored:  # the world, and with it the camera's frame, in the plane x = 0
        R, t, points = MIRROR @ R @ MIRROR, MIRROR @ t, points @ MIRROR
        matrix[0, 2] = SIZE - K[0, 2]
    depth = interpolated_depth(points, matrix)
    if np.isfinite(depth).mean() < KNOWN:
        return None
    pixels = _source_pixels(camera, K, turned)
    if mirrored:
        pixels = pixels[:, ::-1]
    inside = (pixels >= 0).all(-1) & (pixels < [camera.width, camera.height]).all(-1)
    depth[~inside[::DEPTH_STEP, ::DEPTH_STEP]] = np.nan
    if inside.mean() < 0.6 or np.isfinite(depth).mean() < KNOWN:
        return None
    image = augment(rng, _resample(photo, pixels, zoom), 0.7)
    image[~inside] = 0
    matrix, R, t = (value.astype(np.float32) for value in (matrix, R, t))
    return image, depth.astype(np.float16), matrix, R, t


def _source_pixels(camera: CameraModel, K: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Where the pixels of a crop lie in the photograph, (S, S, 2); nan where the lens ends."""
    centres = np.arange(SIZE) + 0.5
    u, v = np.meshgrid(centres, centres)
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T @ turned
    return camera.project(torch.from_numpy(rays)).numpy()


@lru_cache(maxsize=128)
def _image(path: Path, width: int, height: int) -> np.ndarray:
    return read_image(path, (width, height)).pixels


def _resample(photo: Photo, pixels: np.ndarray, zoom: float) -> np.ndarray:
    width, height = photo.camera.width, photo.camera.height
    image = _image(photo.path, width, height)
    if zoom < 1:  # the photograph is made as coarse as the crop first, so that nothing aliases
        small = max(2, round(width * zoom)), max(2, round(height * zoom))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    scale = np.array([image.shape[1] / width, image.shape[0] / height])
    where = np.nan_to_num(pixels * scale - 0.5, nan=-9.0).astype(np.float32)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def interpolated_depth(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """z-depth (28, 28) at every eighth pixel of a crop from points (P, 3), camera frame, or nan.

    Linear in inverse depth, which is exact for planes, within the Delaunay triangles of the
    projected points that are small (WIDEST) and not steep (STEEPEST).
    """
    from scipy.spatial import Delaunay, QhullError

    samples = np.arange(0, SIZE, DEPTH_STEP) + 0.5
    depth = np.full((len(samples), len(samples)), np.nan)
    pixel = points @ K.T
    pixel = pixel[:, :2] / pixel[:, 2:]
    near = ((pixel > -0.2 * SIZE) & (pixel < 1.2 * SIZE)).all(-1)
    pixel, z = pixel[near], points[near, 2]
    if len(z) < 4:
        return depth
    try:
        mesh = Delaunay(pixel)
    except QhullError:  # all on one line
        return depth
    u, v = np.meshgrid(samples, samples)
    at = np.stack([u, v], axis=-1).reshape(-1, 2)
    face = mesh.find_simplex(at)
    corners = mesh.simplices[face]  # -1, outside, is sorted out below
    sides = pixel[corners] - pixel[np.roll(corners, 1, axis=1)]
    low, high = z[corners].min(axis=1), z[corners].max(axis=1)
    good = (face >= 0) & (np.linalg.norm(sides, axis=-1).max(axis=1) < WIDEST * SIZE)
    good &= high - low < STEEPEST * low
    affine = mesh.transform[face]
    first = np.einsum('nij,nj->ni', affine[:, :2], at - affine[:, 2])
    share = np.concatenate([first, 1 - first.sum(axis=1, keepdims=True)], axis=1)
    inverse = (share / z[corners]).sum(axis=1)
    flat = depth.reshape(-1)
    flat[good] = 1 / inverse[good]
    return depth
