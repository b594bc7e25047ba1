"""Estimated cameras as files that other software reads, and back.

All formats hold the same cameras, world to camera in OpenCV's convention inside this project:

- `poses.json`: this project's own; `frames[] = {file, width, height, K, R, t, ...}`, world to
  camera, OpenCV axes.
- TUM trajectory: `timestamp tx ty tz qx qy qz qw`, camera to world, OpenCV (= ROS optical) axes.
- COLMAP model: `QW QX QY QZ TX TY TZ`, world to camera, OpenCV axes; with points where features
  have been matched. Text, or where an image's name has blanks, which text cannot hold, binary.
- `transforms.json` (nerfstudio, instant-ngp): 4x4 camera to world, OpenGL camera axes (+x right,
  +y up, looking along -z); the world's axes are left as they are.

Pixels are continuous with pixel centres at half-integers, as COLMAP's.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_pose_ros.estimation.cloud import Cloud
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix
from ray_pose_ros.geometry.so3 import camera_centres

CONVENTION = 'OpenCV: x_cam = R x_world + t; pixel = K x_cam; +x right, +y down, +z forward'
_OPENGL = np.diag((1.0, -1.0, -1.0))  # camera axes: OpenCV <-> OpenGL
_OF_A_FRAME = ('file_path', 'transform_matrix')
# COLMAP's name for a model: the distortion parameters that it takes, its number in binary files.
_COLMAP_MODELS = {'PINHOLE': 0, 'OPENCV': 4, 'FULL_OPENCV': 8, 'OPENCV_FISHEYE': 4}
_COLMAP_NUMBERS = {'PINHOLE': 1, 'OPENCV': 4, 'OPENCV_FISHEYE': 5, 'FULL_OPENCV': 6}
# By EXIF orientation: from the axes of a camera whose image was turned to those of the stored one.
_UNTURNED = {
    3: np.diag((-1.0, -1.0, 1.0)),
    6: np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    8: np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
}
# Its models with one focal length: the general one, and how many parameters there are in all.
_COLMAP_SIMPLER = {
    'SIMPLE_PINHOLE': ('PINHOLE', 3),
    'SIMPLE_RADIAL': ('OPENCV', 4),
    'RADIAL': ('OPENCV', 5),
    'SIMPLE_RADIAL_FISHEYE': ('OPENCV_FISHEYE', 4),
    'RADIAL_FISHEYE': ('OPENCV_FISHEYE', 5),
}


class NotRepresentable(ValueError):
    """A file format has no way to say this."""


@dataclass(frozen=True)
class PosedCameras:
    """Cameras with poses, as they are written and read.

    Attributes:
        names: one for each camera, unique (image paths).
        cameras: intrinsics.
        R, t: (N, 3, 3) and (N, 3) float64, world to camera.
        stamps: (N,) seconds.
    """

    names: Sequence[str]
    cameras: Sequence[CameraModel]
    R: np.ndarray
    t: np.ndarray
    stamps: np.ndarray

    def __post_init__(self):
        n = len(self.names)
        if len(set(self.names)) != n:
            raise ValueError(f'names {list(self.names)} are not unique')
        shapes = (len(self.cameras), self.R.shape, self.t.shape, self.stamps.shape)
        if shapes != (n, (n, 3, 3), (n, 3), (n,)):
            raise ValueError(f'{n} names but cameras, R, t and stamps of shapes {shapes}')


def write_poses_json(
    path: str | Path, posed: PosedCameras, extras: Sequence[dict] | None = None, **top: Any
) -> None:
    """Write `poses.json`; `extras` adds keys to each frame, `top` to the file."""
    frames = []
    for i, camera in enumerate(posed.cameras):
        frame = {
            'file': posed.names[i],
            'width': camera.width,
            'height': camera.height,
            'K': _K(camera).tolist(),
            'R': posed.R[i].tolist(),
            't': posed.t[i].tolist(),
        }
        if camera.distortion_model != 'none':
            frame['distortion_model'] = camera.distortion_model
            frame['distortion'] = [float(x) for x in camera.distortion]
        frames.append(frame | (extras[i] if extras else {}))
    _write_json(path, {'convention': CONVENTION} | top | {'frames': frames})


def write_tum(path: str | Path, posed: PosedCameras) -> None:
    """Write a TUM trajectory, one line a camera."""
    R, centres = _camera_to_world(posed.R, posed.t)
    quaternions = quaternion_from_matrix(torch.from_numpy(R)).numpy()  # xyzw
    lines = ['# timestamp tx ty tz qx qy qz qw (camera to world, optical frame)']
    for stamp, c, q in zip(posed.stamps, centres, quaternions, strict=True):
        lines.append(f'{stamp:.9f} ' + ' '.join(f'{x:.12g}' for x in (*c, *q)))
    Path(path).write_text('\n'.join(lines) + '\n', encoding='utf-8')


def read_tum(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a TUM trajectory: stamps (N,), R (N, 3, 3), t (N, 3), world to camera."""
    try:
        rows = np.loadtxt(path, ndmin=2, comments='#')
    except ValueError as error:
        raise ValueError(f'{path}: not a TUM trajectory ({error})') from error
    if rows.shape[1] != 8:
        raise ValueError(f'{path}: {rows.shape[1]} columns, expected 8')
    R = matrix_from_quaternion(torch.from_numpy(rows[:, 4:])).numpy().transpose(0, 2, 1)
    return rows[:, 0], R, -np.einsum('nij,nj->ni', R, rows[:, 1:4])


def as_stored(
    posed: PosedCameras, orientations: Sequence[int], cloud: Cloud | None = None
) -> tuple[PosedCameras, Cloud | None]:
    """The cameras of the pixels that are stored in the files, which other software reads.

    Args:
        posed: of photographs that were turned as their EXIF orientation asks.
        orientations: those tags, one a photograph; 1 where it was not turned.
        cloud: of them, whose pixels are moved likewise.

    Raises:
        NotRepresentable: a mirrored photograph, or a turned one whose lens is not the same all
            round (tangential distortion).
    """
    cameras, R, t = list(posed.cameras), posed.R.copy(), posed.t.copy()
    pixel = None if cloud is None else cloud.pixel.copy()
    for i, orientation in enumerate(orientations):
        if orientation == 1:
            continue
        if orientation not in _UNTURNED:
            raise NotRepresentable(f'{posed.names[i]} is stored mirrored')
        turn, camera = _UNTURNED[orientation], cameras[i]
        tangential = camera.distortion_model != 'equidistant' and (
            any(camera.distortion[2:4]) or any(camera.distortion[8:])
        )
        if tangential:
            raise NotRepresentable(f'{posed.names[i]} was turned, and its lens is not round')
        flat, size = turn[:2, :2], np.array([camera.width, camera.height])
        # what would come to lie left of or above the image begins at its other side
        shift = np.maximum(-flat, 0) @ size
        K = _K(camera)
        stored = np.eye(3)
        stored[[0, 1], [0, 1]] = np.abs(flat) @ K[[0, 1], [0, 1]]
        stored[:2, 2] = flat @ K[:2, 2] + shift
        width, height = (int(x) for x in np.abs(flat) @ size)
        cameras[i] = replace(camera, matrix=torch.from_numpy(stored), width=width, height=height)
        R[i], t[i] = turn @ R[i], turn @ t[i]
        if pixel is not None:
            mine = cloud.view == i
            pixel[mine] = pixel[mine] @ flat.T + shift
    moved = PosedCameras(posed.names, cameras, R, t, posed.stamps)
    return moved, None if cloud is None else replace(cloud, pixel=pixel)


def write_colmap(folder: str | Path, posed: PosedCameras, cloud: Cloud | None = None) -> None:
    """Write a COLMAP model: cameras, images, and points3D, empty without cloud.

    As text (.txt), or binary (.bin) where a name has blanks, at which COLMAP's text ends.

    Raises:
        NotRepresentable: a distortion model that COLMAP has no name for.
    """
    folder, model = Path(folder), _ColmapModel(posed, cloud)
    if any(any(c.isspace() for c in name) for name in posed.names):
        _replace_files(folder, model.binary(), '.bin', '.txt')
    else:
        _replace_files(folder, model.text(), '.txt', '.bin')


class _ColmapModel:
    """Cameras, each once, images and points as COLMAP numbers them, from 1 on; its files."""

    def __init__(self, posed: PosedCameras, cloud: Cloud | None):
        self.posed, self.cloud = posed, cloud
        self.points = 0 if cloud is None else len(cloud)
        lenses: dict[str, tuple[int, tuple]] = {}  # by what text says of them
        self.camera = []  # of each image
        for camera in posed.cameras:
            model, distortion = _colmap_model(camera)
            K = _K(camera)
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
            head = n, _COLMAP_NUMBERS[model], width, height
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
    folder = Path(folder)
    cameras = {}
    for line in _colmap_lines(folder / 'cameras.txt'):
        if not line:
            continue
        index, model, width, height, *numbers = line.split()
        params = [float(x) for x in numbers]
        try:
            cameras[index] = colmap_camera(model, params, int(width), int(height))
        except ValueError as error:
            raise ValueError(f'{folder}: camera {index}: {error}') from error
    lines = _colmap_lines(folder / 'images.txt')
    rows = [line.split(maxsplit=9) for line in lines[::2] if line]
    numbers = np.array([[float(x) for x in row[1:8]] for row in rows]).reshape(-1, 7)
    xyzw = torch.from_numpy(numbers[:, [1, 2, 3, 0]])
    return PosedCameras(
        names=[row[9] for row in rows],
        cameras=[cameras[row[8]] for row in rows],
        R=matrix_from_quaternion(xyzw).numpy(),
        t=numbers[:, 4:],
        stamps=np.arange(len(rows), dtype=np.float64),
    )


def colmap_camera(model: str, params: Sequence[float], width: int, height: int) -> CameraModel:
    """The camera of COLMAP's model name and parameters.

    Raises:
        ValueError: a model that this project does not have, or another number of parameters.
    """
    general, count = _COLMAP_SIMPLER.get(model, (model, None))
    if general not in _COLMAP_MODELS:
        known = sorted({*_COLMAP_MODELS, *_COLMAP_SIMPLER})
        raise ValueError(f'unknown camera model {model}, expected one of {", ".join(known)}')
    size = 4 + _COLMAP_MODELS[general]
    expected = count or size
    if len(params) != expected:
        raise ValueError(f'{model} has {len(params)} parameters, expected {expected}')
    numbers = list(params)
    if count:  # one focal length for both axes, and only the first distortion parameters
        numbers = [numbers[0], *numbers]
        numbers += [0.0] * (size - len(numbers))
    return _camera_from(numbers, width, height, general)


def write_transforms(path: str | Path, posed: PosedCameras, ply: str = '') -> None:
    """Write `transforms.json` with the intrinsics of each frame.

    ply: name of a file with points in the same world, beside it.

    Raises:
        NotRepresentable: fisheye and other cameras together, or distortion that nerfstudio has no
            names for (its k4 is not OpenCV's, which divides).
    """
    R, centres = _camera_to_world(posed.R, posed.t)
    frames, models = [], set()
    for i, camera in enumerate(posed.cameras):
        model, distortion = _colmap_model(camera)
        if model == 'FULL_OPENCV' and any(distortion[5:]):
            raise NotRepresentable('rational distortion cannot be written in this format')
        models.add('OPENCV_FISHEYE' if model == 'OPENCV_FISHEYE' else 'OPENCV')
        K = _K(camera)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = R[i] @ _OPENGL, centres[i]
        frame = {'file_path': posed.names[i], 'w': camera.width, 'h': camera.height}
        frame |= {'fl_x': K[0, 0], 'fl_y': K[1, 1], 'cx': K[0, 2], 'cy': K[1, 2]}
        frame |= dict(zip(_distortion_names(model), distortion, strict=True))
        frames.append(frame | {'transform_matrix': pose.tolist()})
    if len(models) > 1:
        raise NotRepresentable('transforms.json cannot hold fisheye and other cameras together')
    top = {'camera_model': models.pop()}
    lenses = [{k: v for k, v in f.items() if k not in _OF_A_FRAME} for f in frames]
    if all(lens == lenses[0] for lens in lenses):  # some readers look at the top only
        top |= lenses[0]
    if ply:
        top['ply_file_path'] = ply
    _write_json(path, top | {'frames': frames})


def read_transforms(path: str | Path) -> PosedCameras:
    """Read a `transforms.json` with intrinsics at the top or in each frame."""
    content = json.loads(Path(path).read_text(encoding='utf-8'))
    cameras, poses = [], []
    for frame in content['frames']:
        values = content | frame
        fisheye = content.get('camera_model') == 'OPENCV_FISHEYE'
        distorted = any(values.get(name) for name in _distortion_names('FULL_OPENCV'))
        full = any(values.get(name) for name in ('k3', 'k4', 'k5', 'k6'))
        model = 'FULL_OPENCV' if full else 'OPENCV' if distorted else 'PINHOLE'
        model = 'OPENCV_FISHEYE' if fisheye else model
        params = [values[name] for name in ('fl_x', 'fl_y', 'cx', 'cy')]
        params += [values.get(name, 0.0) for name in _distortion_names(model)]
        cameras.append(_camera_from(params, int(values['w']), int(values['h']), model))
        poses.append(frame['transform_matrix'])
    poses = np.array(poses, dtype=np.float64)
    R = (poses[:, :3, :3] @ _OPENGL).transpose(0, 2, 1)
    return PosedCameras(
        names=[frame['file_path'] for frame in content['frames']],
        cameras=cameras,
        R=R,
        t=-np.einsum('nij,nj->ni', R, poses[:, :3, 3]),
        stamps=np.arange(len(cameras), dtype=np.float64),
    )


def _K(camera: CameraModel) -> np.ndarray:
    return camera.matrix.detach().cpu().double().numpy()


def _camera_to_world(R: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(R.transpose(0, 2, 1)), camera_centres(R, t)


def _distortion_names(model: str) -> tuple[str, ...]:
    return {
        'PINHOLE': (),
        'OPENCV': ('k1', 'k2', 'p1', 'p2'),
        'OPENCV_FISHEYE': ('k1', 'k2', 'k3', 'k4'),
        'FULL_OPENCV': ('k1', 'k2', 'p1', 'p2', 'k3', 'k4', 'k5', 'k6'),
    }[model]


def _colmap_model(camera: CameraModel) -> tuple[str, list[float]]:
    """COLMAP's name of a camera's model, and the distortion parameters in its order."""
    d = [float(x) for x in camera.distortion]
    if abs(camera.matrix[0, 1]) > 1e-6 * camera.matrix[0, 0]:
        raise NotRepresentable(f'skew {camera.matrix[0, 1]:g} cannot be written in this format')
    if camera.distortion_model == 'equidistant':
        return 'OPENCV_FISHEYE', d
    if not any(d):
        return 'PINHOLE', []
    if any(d[8:]):
        raise NotRepresentable('thin prism and tilt distortion cannot be written in this format')
    if any(d[4:]):
        return 'FULL_OPENCV', (d + [0.0] * 8)[:8]  # k1 k2 p1 p2 k3 k4 k5 k6, as OpenCV
    return 'OPENCV', d[:4]


def _camera_from(params: list[float], width: int, height: int, model: str) -> CameraModel:
    fx, fy, cx, cy, *distortion = params
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    name = {
        'PINHOLE': 'none',
        'OPENCV': 'plumb_bob',
        'FULL_OPENCV': 'rational_polynomial',
        'OPENCV_FISHEYE': 'equidistant',
    }[model]
    return CameraModel(K, width, height, name, tuple(distortion))


def _colmap_lines(path: Path) -> list[str]:
    """Lines but comments; empty ones stay, they hold the place of an image's points."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error
    return [line.strip() for line in lines if not line.startswith('#')]


def _write_json(path: str | Path, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
