"""A snapshot of all parameters, made only of values that are good by themselves and together."""

from __future__ import annotations

import re
from dataclasses import field, make_dataclass
from typing import Any

from ray_pose_ros.estimation.keyframes import frame_safe
from ray_pose_ros.node.parameter import ParameterError
from ray_pose_ros.node.parameters import BY_NAME, PARAMETERS
from ray_pose_ros.node.rig_settings import check_cameras

# what ROS takes before `/image_raw`, with its substitutions `~` and `{node}`
_TOPIC = re.compile(r'(~|/?[A-Za-z_{][\w{}]*)(/[A-Za-z_{][\w{}]*)*', re.ASCII)

Settings = make_dataclass(
    'Settings',
    [(p.name, type(p.default), field(default_factory=lambda d=p.default: d)) for p in PARAMETERS],
    frozen=True,
)
Settings.__doc__ = 'A checked snapshot of all parameters, one attribute each; see PARAMETERS.'


def make_settings(values: dict[str, Any]) -> Settings:
    """Build Settings from {name: value}; ParameterError for a bad value or contradiction."""
    for name, value in values.items():
        if name not in BY_NAME:
            raise ParameterError(f'parameter {name} is not known')
        BY_NAME[name].check(value)
    values = {k: list(v) if isinstance(BY_NAME[k].default, list) else v for k, v in values.items()}
    settings = Settings(**values)
    names = [frame_safe(c) for c in settings.cameras]
    if not names or not all(names) or len(set(names)) != len(names):
        raise ParameterError(
            f'parameter cameras is {settings.cameras!r}, expected different, non-empty '
            'names, also with _ for each /, as in frames and files'
        )
    for name in settings.cameras:
        if not _TOPIC.fullmatch(name):
            raise ParameterError(
                f'parameter cameras names {name!r}, expected a topic name of ROS: letters, '
                'digits, _ and single /, none at its end, no part that begins with a digit'
            )
    if settings.min_views > settings.window_size:
        raise ParameterError(
            f'parameter min_views is {settings.min_views}, expected at most window_size, '
            f'{settings.window_size}'
        )
    if 0 < settings.keyframe_max_interval < settings.keyframe_min_interval:
        raise ParameterError(
            f'parameter keyframe_max_interval is {settings.keyframe_max_interval:g}, expected 0 '
            f'or at least keyframe_min_interval, {settings.keyframe_min_interval:g}'
        )
    check_cameras(settings)
    _check_frames(settings)
    return settings


def _check_frames(settings: Settings) -> None:
    frames = (settings.reference_frame, settings.object_frame)
    if not all(frames) or frames[0] == frames[1] or any(f.startswith('/') for f in frames):
        raise ParameterError(
            f'parameters reference_frame and object_frame are {frames!r}, expected two different '
            'names without a leading /'
        )
    motion = settings.motion_frame
    if motion in frames or motion.startswith('/'):
        raise ParameterError(
            f'parameter motion_frame is {motion!r}, expected a frame that the robot publishes, '
            'without a leading /'
        )
    if motion and settings.invert_tf and settings.publish_in_motion_frame:
        raise ParameterError(
            'parameters invert_tf and publish_in_motion_frame are both true with a motion_frame, '
            'expected one of them: reference_frame can have one parent only'
        )
