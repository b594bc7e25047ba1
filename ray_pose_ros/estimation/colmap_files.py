"""COLMAP models: cameras, images and points as text or binary files, without COLMAP.

`QW QX QY QZ TX TY TZ` is world to camera, OpenCV axes. Layout: COLMAP's documentation, "Output
Format".
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation.cloud import Cloud
from ray_pose_ros.estimation.posed_cameras import (
    PosedCameras,
    camera_of_model,
    intrinsic_matrix,
    model_names,
    model_of,
)
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix

# COLMAP's camera models in the order of their numbers, and how many parameters each has.
PARAMETERS = {
    'SIMPLE_PINHOLE': 3,
    'PINHOLE': 4,
    'SIMPLE_RADIAL': 4,
    'RADIAL': 5,
    'OPENCV': 8,
    'OPENCV_FISHEYE': 8,
    'FULL_OPENCV': 12,
    'FOV': 5,
    'SIMPLE_RADIAL_FISHEYE': 4,
    'RADIAL_FISHEYE': 5,
    'THIN_PRISM_FISHEYE': 12,
}
# Those with one focal length for both axes: the general ones.
_SIMPLER = {
    'SIMPLE_PINHOLE': 'PINHOLE',
    'SIMPLE_RADIAL': 'OPENCV',
    'RADIAL': 'OPENCV',
    'SIMPLE_RADIAL_FISHEYE': 'OPENCV_FISHEYE',
    'RADIAL_FISHEYE': 'OPENCV_FISHEYE',
}


def write_colmap(folder: str | Path, posed: PosedCameras, cloud: Cloud | None = None) -> None:
    """Write a COLMAP model: cameras, images, and points3D, empty without cloud.

    As text (.txt), or binary (.bin) where a name has blanks, at which COLMAP's text ends.

    Raises:
        NotRepresentable: a distortion model that COLMAP has no name for.
    """
    folder, model = Path(folder), _Model(posed, cloud)
    if any(any(c.isspace() for c in name) for name in posed.names):
        _replace_files(folder, model.binary(), '.bin', '.txt')
    else:
        _replace_files(folder, model.text(), '.txt', '.bin')


class _Model:
    """Cameras, each once, images and points as COLMAP numbers them, from 1 on; its files."""

    def __init__(self, posed: PosedCameras, cloud: Cloud | None):
        self.posed, self.cloud = posed, cloud
        self.points = 0 if cloud is None else len(cloud)
        lenses: dict[str, tuple[int, tuple]] = {}  # by what text says of them
        self.camera = []  # of each image
        for camera in posed.cameras:
            model, distortion = model_of(camera)
            K = intrinsic_matrix(camera)
            numbers = (K[0, 0], K[1, 1], K[0, 2], K[1, 2], *distortion)
            words = [model, camera.width, camera.height, *(f'{x:.12g}' for x in numbers)]
            found = len(lenses) + 1, (model, camera.width, camera.height, numbers)
            self.camera.append(lenses.setdefault(' '.join(map(str, words)), found)[0])
        self.lenses = {words: lens for words, (_, lens) in lenses.items()}
        quaternions = quaternion_from_matrix(torch.from_numpy(posed.R)).numpy()
        self.poses = np.concatenate([quaternions[:, [3, 0, 1, 2]], posed.t], axis=1)
        self.seen: list[list[int]] = [[] for _ in posed.names]  # observations of each image
        self.tracks: list[list[int]] = [[] for _ in range(self.points)]  # image, place, image, ...
        for k in range(len(cloud.view) if self.points else 0):
            of_view = self.seen[cloud.view[k]]
            self.tracks[cloud.point[k]] += [int(cloud.view[k]) + 1, len(of_view)]
            of_view.append(k)

    def text(self) -> dict[str, bytes]:
        """Of each file without its suffix."""
        cloud = self.cloud
        cameras = ['# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]']
        cameras += [f'{n} {words}' for n, words in enumerate(self.lenses, 1)]
        images = ['# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME', '# X Y POINT3D_ID ...']
        for i, name in enumerate(self.posed.names):
            pose = ' '.join(f'{v:.12g}' for v in self.poses[i])
            images.append(f'{i + 1} {pose} {self.camera[i]} {name}')
            places = ((*cloud.pixel[k], cloud.point[k] + 1) for k in self.seen[i])
            images.append(' '.join(f'{x:.3f} {y:.3f} {point}' for x, y, point in places))
        points = ['# POINT3D_ID X Y Z R G B ERROR TRACK[] as (IMAGE_ID, POINT2D_IDX)']
        for k, track in enumerate(self.tracks):
            where = ' '.join(f'{x:.9g}' for x in cloud.xyz[k])
            words = ' '.join(map(str, track))
            colour = ' '.join(map(str, cloud.rgb[k]))
            points.append(f'{k + 1} {where} {colour} {cloud.error[k]:.3f} {words}')
        files = {'cameras': cameras, 'images': images, 'points3D': points}
        return {name: ('\n'.join(lines) + '\n').encode() for name, lines in files.items()}

    def binary(self) -> dict[str, bytes]:
        """Of each file without its suffix."""
        cloud = self.cloud
        cameras = [struct.pack('<Q', len(self.lenses))]
        for n, (model, width, height, numbers) in enumerate(self.lenses.values(), 1):
            head = n, [*PARAMETERS].index(model), width, height
            cameras.append(struct.pack(f'<IiQQ{len(numbers)}d', *head, *numbers))
        images = [struct.pack('<Q', len(self.posed.names))]
        for i, name in enumerate(self.posed.names):
            images.append(struct.pack('<I7dI', i + 1, *self.poses[i], self.camera[i]))
            images.append(name.encode() + b'\0' + struct.pack('<Q', len(self.seen[i])))
            for k in self.seen[i]:
                images.append(struct.pack('<2dQ', *cloud.pixel[k], cloud.point[k] + 1))
        points = [struct.pack('<Q', self.points)]
        for k, track in enumerate(self.tracks):
            numbers = *cloud.xyz[k], *cloud.rgb[k], cloud.error[k]
            points.append(struct.pack('<Q3d3Bd', k + 1, *numbers))
            points.append(struct.pack(f'<Q{len(track)}I', len(track) // 2, *track))
        files = {'cameras': cameras, 'images': images, 'points3D': points}
        return {name: b''.join(parts) for name, parts in files.items()}


def _replace_files(folder: Path, contents: dict[str, bytes], suffix: str, other: str) -> None:
    """Write files, and remove what they replace: COLMAP reads one of two models in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f'{name}{suffix}').write_bytes(content)
        (folder / f'{name}{other}').unlink(missing_ok=True)


def read_colmap(folder: str | Path) -> PosedCameras:
    """Read a COLMAP text model written by COLMAP or by `write_colmap`; points are ignored.

    Raises:
        ValueError: a camera model that this project does not have, or a malformed file.
    """
    path, cameras = Path(folder) / 'cameras.txt', {}
    for line in filter(None, _lines(path)):
        try:
            index, model, width, height, *params = line.split()
            params = [float(x) for x in params]
            cameras[index] = colmap_camera(model, params, int(width), int(height))
        except ValueError as error:
            raise ValueError(f'{path}: {line[:99]!r} is no camera: {error}') from error
    path, rows = Path(folder) / 'images.txt', {}
    for line in filter(None, _lines(path)[::2]):
        words = line.split(maxsplit=9)
        try:
            if len(words) < 10:
                raise ValueError('expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME')
            (w, x, y, z, *t), (index, name) = map(float, words[1:8]), words[8:]
            R = matrix_from_quaternion(torch.tensor([x, y, z, w], dtype=torch.float64))
            if not np.isfinite(t).all():
                raise ValueError(f'its translation is {t}, expected finite numbers')
            if index not in cameras:
                raise ValueError(f'camera {index} is not in cameras.txt')
            if name in rows:
                raise ValueError(f'{name} has been there before')
        except ValueError as error:
            raise ValueError(f'{path}: {line[:99]!r} is no image: {error}') from error
        rows[name] = cameras[index], R.numpy(), t
    return PosedCameras(
        names=list(rows),
        cameras=[camera for camera, _, _ in rows.values()],
        R=np.array([R for _, R, _ in rows.values()]).reshape(-1, 3, 3),
        t=np.array([t for _, _, t in rows.values()]).reshape(-1, 3),
        stamps=np.arange(len(rows), dtype=np.float64),
    )


def colmap_camera(model: str, params: Sequence[float], width: int, height: int) -> CameraModel:
    """The camera of COLMAP's model name and parameters.

    Raises:
        ValueError: a model that this project does not have, or another number of parameters.
    """
    general = _SIMPLER.get(model, model)
    if general not in model_names():
        known = sorted({*model_names(), *_SIMPLER})
        raise ValueError(f'unknown camera model {model}, expected one of {", ".join(known)}')
    if len(params) != PARAMETERS[model]:
        raise ValueError(f'{model} has {len(params)} parameters, expected {PARAMETERS[model]}')
    numbers = list(params)
    if general != model:  # and only the first distortion parameters
        numbers = [numbers[0], *numbers]
        numbers += [0.0] * (PARAMETERS[general] - len(numbers))
    return camera_of_model(numbers, width, height, general)


def _lines(path: Path) -> list[str]:
    """Lines but comments; empty ones stay, they hold the place of an image's points."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error
    return [line.strip() for line in lines if not line.startswith('#')]
