"""Random cameras about an object, and a smooth path for demonstrations."""

import numpy as np

from ray_pose_ros.geometry.cameras import CameraModel

from .renderer import look_at


def _sizes(size) -> tuple[int, int]:
    width, height = (size, size) if np.isscalar(size) else size
    if int(width) < 1 or int(height) < 1:
        raise ValueError(f'image size {size}: expected one or two positive numbers')
    return int(width), int(height)


def _blocked(scene, eye: np.ndarray) -> bool:
    """Whether an obstacle holds the camera or stands between it and most of the object."""
    if len(scene.obstacles) == 0:
        return False
    middle, r = scene.obstacles[:, :3], scene.obstacles[:, 3]
    if (np.linalg.norm(middle - eye, axis=1) < r + 0.15).any():
        return True
    line = scene.centre - eye
    length = np.linalg.norm(line)
    along = np.clip((middle - eye) @ line / length, 0, length)
    aside = np.linalg.norm(middle - eye - along[:, None] * line / length, axis=1)
    # What an obstacle hides grows as it comes nearer to the camera.
    magnified = r * length / np.maximum(along, 1e-3)
    return bool(((magnified - aside * length / np.maximum(along, 1e-3)) > 0.35).any())


def sample_cameras(
    rng,
    scene,
    count: int,
    size=256,
    spread: float = 360.0,
    turned: float = 1 / 12,
    loose_roll: float = 0.0,
    closer: float = 1.0,
):
    """
    Cameras about the scene's object: list of (CameraModel, R (3, 3), t (3,)), world-to-camera.

    size: width and height in pixels (or one number). Field of view of the shorter side 25 to 60
    degrees, the same camera for all views in most sets; the object fills 35 to 95 % of the
    shorter side and is off centre at random; azimuth in a window of `spread` degrees, elevation
    -20 to 80 (above the ground where there is one), roll up to 15 degrees. A share `turned` of the
    sets has a quarter or half turn in every view; in a share `loose_roll` each view has a roll of
    its own, as a camera in a robot's hand. `closer` multiplies how much of the image the object
    fills; above 1 it is cut by the border.
    """
    width, height = _sizes(size)
    shared = rng.random() < 0.75
    fov = np.radians(rng.uniform(25, 60))
    offset = rng.normal(0, 0.015, 2) if rng.random() < 0.5 else np.zeros(2)
    aspect = rng.uniform(0.98, 1.02) if rng.random() < 0.3 else 1.0
    turn = float(rng.choice([90, 180, 270])) if rng.random() < turned else 0.0
    start = rng.uniform(0, 360)
    base_elevation = rng.uniform(0, 55)
    narrow = rng.random() < 0.35  # one height all around, as on a turntable
    base_fill = rng.uniform(0.4, 0.9)
    free = loose_roll > 0 and rng.random() < loose_roll
    cameras = []
    for _ in range(count):
        if not shared:
            fov = np.radians(rng.uniform(25, 60))
        focal = 0.5 * min(width, height) / np.tan(fov / 2)
        K = np.array([
            [focal, 0, width / 2 + offset[0] * width],
            [0, focal * aspect, height / 2 + offset[1] * height],
            [0, 0, 1.0],
        ])  # fmt: skip
        fill = float(np.clip(base_fill * rng.uniform(0.7, 1.3), 0.35, 0.95))
        distance = 0.9 * scene.radius / np.sin(min(fill * closer * fov / 2, 1.2))
        eye = None
        for attempt in range(12):
            azimuth = np.radians(start + rng.uniform(-0.5, 0.5) * spread)
            elevation = base_elevation + rng.normal(0, 6) if narrow else _elevation(rng)
            if scene.ground is not None:
                elevation = max(elevation, rng.uniform(4, 14))
            elevation = np.radians(np.clip(elevation, -20, 80))
            eye = scene.centre + distance * np.array([
                np.cos(azimuth) * np.cos(elevation),
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
            ])  # fmt: skip
            buried = scene.ground is not None and eye[2] < scene.ground + 0.15
            if not buried and not (_blocked(scene, eye) and attempt < 11):
                break
        if scene.ground is not None:
            eye[2] = max(eye[2], scene.ground + 0.15)
        slack = max(0.06, 0.8 * (1 - fill)) * np.tan(fov / 2) * distance * 0.6
        R = look_at(eye, scene.centre)
        target = scene.centre + slack * (rng.uniform(-1, 1, 2) @ R[:2])
        roll = np.radians(np.clip(rng.normal(0, 6), -15, 15) + turn)
        if free:
            roll += np.radians(rng.normal(0, 60))
        R = look_at(eye, target, roll=roll)
        cameras.append((CameraModel(K, width, height), R, -R @ eye))
    return cameras


def _elevation(rng) -> float:
    """Degrees: mostly 0 to 60, now and then from -20 to 80."""
    return rng.uniform(0, 60) if rng.random() < 0.8 else rng.uniform(-20, 80)


def orbit(
    scene,
    count: int,
    width: int = 640,
    height: int = 480,
    fov: float = 50.0,
    distance: float | None = None,
    turns: float = 1.0,
    elevation=(15.0, 45.0),
):
    """
    Smooth path about the object: list of (CameraModel, R, t).

    fov: horizontal, degrees. distance: from the object's centre, by default such that the object
    fills most of the image. The elevation swings between its two values (degrees) twice a turn.
    """
    camera = CameraModel.from_fov(width, height, float(np.radians(fov)))
    half = np.arctan(np.tan(np.radians(fov) / 2) * min(1.0, height / width))
    distance = scene.radius / np.sin(0.75 * half) if distance is None else distance
    views = []
    for k in range(count):
        s = k / max(count, 1)
        azimuth = 2 * np.pi * turns * s
        low, high = elevation
        height_angle = (low + high) / 2 - (high - low) / 2 * np.cos(4 * np.pi * turns * s)
        e = np.radians(height_angle)
        eye = scene.centre + distance * np.array([
            np.cos(azimuth) * np.cos(e), np.sin(azimuth) * np.cos(e), np.sin(e)
        ])  # fmt: skip
        R = look_at(eye, scene.centre)
        views.append((camera, R, -R @ eye))
    return views
