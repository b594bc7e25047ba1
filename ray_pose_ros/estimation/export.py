"""Estimated cameras as files that other software reads, and back; COLMAP's are in `colmap_files`.

- `poses.json`: this project's own; `frames[] = {file, width, height, K, R, t, ...}`, world to
  camera, OpenCV axes.
- TUM trajectory: `timestamp tx ty tz qx qy qz qw`, camera to world, OpenCV (= ROS optical) axes.
- `transforms.json` (nerfstudio, instant-ngp): 4x4 camera to world, OpenGL camera axes (+x right,
  +y up, looking along -z); the world's axes are left as they are.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_pose_ros.estimation.posed_cameras import (
    NotRepresentable,
    PosedCameras,
    camera_of_model,
    camera_to_world,
    distortion_names,
    intrinsic_matrix,
    model_of,
)
from ray_pose_ros.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix

CONVENTION = 'OpenCV: x_cam = R x_world + t; pixel = K x_cam; +x right, +y down, +z forward'
_OPENGL = np.diag((1.0, -1.0, -1.0))  # camera axes: OpenCV <-> OpenGL
_OF_A_FRAME = ('file_path', 'transform_matrix')


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
            'K': intrinsic_matrix(camera).tolist(),
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
    R, centres = camera_to_world(posed.R, posed.t)
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


def write_transforms(path: str | Path, posed: PosedCameras, ply: str = '') -> None:
    """Write `transforms.json` with the intrinsics of each frame.

    ply: name of a file with points in the same world, beside it.

    Raises:
        NotRepresentable: fisheye and other cameras together, or distortion that nerfstudio has no
            names for (its k4 is not OpenCV's, which divides).
    """
    R, centres = camera_to_world(posed.R, posed.t)
    frames, models = [], set()
    for i, camera in enumerate(posed.cameras):
        model, distortion = model_of(camera)
        if model == 'FULL_OPENCV' and any(distortion[5:]):
            raise NotRepresentable('rational distortion cannot be written in this format')
        models.add('OPENCV_FISHEYE' if model == 'OPENCV_FISHEYE' else 'OPENCV')
        K = intrinsic_matrix(camera)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = R[i] @ _OPENGL, centres[i]
        frame = {'file_path': posed.names[i], 'w': camera.width, 'h': camera.height}
        frame |= {'fl_x': K[0, 0], 'fl_y': K[1, 1], 'cx': K[0, 2], 'cy': K[1, 2]}
        frame |= dict(zip(distortion_names(model), distortion, strict=True))
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
        distorted = any(values.get(name) for name in distortion_names('FULL_OPENCV'))
        full = any(values.get(name) for name in ('k3', 'k4', 'k5', 'k6'))
        model = 'FULL_OPENCV' if full else 'OPENCV' if distorted else 'PINHOLE'
        model = 'OPENCV_FISHEYE' if fisheye else model
        params = [values[name] for name in ('fl_x', 'fl_y', 'cx', 'cy')]
        params += [values.get(name, 0.0) for name in distortion_names(model)]
        cameras.append(camera_of_model(params, int(values['w']), int(values['h']), model))
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


def _write_json(path: str | Path, content: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
