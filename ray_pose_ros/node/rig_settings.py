"""What the parameters say of several cameras: who forms a rig, who leads, whose box is whose."""

from __future__ import annotations

from ray_pose_ros.node.parameter import ParameterError


def rig_names(settings) -> list[str]:
    """Return the cameras of the rig, its leading one first; none where there is no rig."""
    if not settings.rig:
        return []
    names = [n for n in settings.rig_cameras if n] or list(settings.cameras)
    leading = settings.leading_camera or names[0]
    return [leading, *(n for n in names if n != leading)]


def leading_camera(settings) -> str:
    """Return the camera that leads: of the rig, or the first of all."""
    return settings.leading_camera or (rig_names(settings) or settings.cameras)[0]


def box_of(settings, camera: str) -> list[float] | None:
    """Return the fixed box of a camera, its own or that of all; None where there is none."""
    boxes = list(settings.box)
    at = 4 * settings.cameras.index(camera) if len(boxes) > 4 else 0
    box = boxes[at : at + 4]
    return box if any(box) else None


def check_cameras(settings) -> None:
    """Raise ParameterError for a rig or boxes that do not fit the cameras."""
    cameras = list(settings.cameras)
    for name in (*(n for n in settings.rig_cameras if n), settings.leading_camera or cameras[0]):
        if name not in cameras:
            raise ParameterError(
                f'parameters rig_cameras and leading_camera name {name!r}, expected some of '
                f'cameras, {cameras}'
            )
    if len(settings.box) not in (4, 4 * len(cameras)):
        raise ParameterError(
            f'parameter box is {list(settings.box)}, expected four numbers, or four for each of '
            f'{len(cameras)} cameras'
        )
    for name in cameras:
        box = box_of(settings, name)
        if box and not (box[0] < box[2] and box[1] < box[3]):
            raise ParameterError(
                f'parameter box has {box} for {name}, expected x_min < x_max and y_min < y_max'
            )
    if settings.rig:
        _check_rig(settings, cameras)


def _check_rig(settings, cameras: list[str]) -> None:
    members = [n for n in settings.rig_cameras if n] or cameras
    if len(set(members)) != len(members) or len(members) < 2:
        raise ParameterError(
            f'parameter rig is true for the cameras {members}, expected two different ones or more'
        )
    if settings.leading_camera and settings.leading_camera not in members:
        raise ParameterError(
            f'parameter leading_camera is {settings.leading_camera!r}, expected a camera of the '
            f'rig, {members}'
        )
    if settings.min_cameras > len(members):
        raise ParameterError(
            f'parameter min_cameras is {settings.min_cameras}, expected at most the '
            f'{len(members)} cameras of the rig'
        )
    if settings.window_size < len(members):
        raise ParameterError(
            f'parameter window_size is {settings.window_size}, expected at least the '
            f'{len(members)} cameras of the rig'
        )
