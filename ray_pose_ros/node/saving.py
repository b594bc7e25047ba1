"""`~/save`: the last estimate as files, the same that `ray-pose estimate` writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2


def output_directory(settings) -> Path:
    """Return where files go: the parameter, or `ray_pose` in $ROS_HOME (~/.ros)."""
    if settings.output_directory:
        return Path(settings.output_directory).expanduser()
    return Path(os.environ.get('ROS_HOME') or Path.home() / '.ros') / 'ray_pose'


def save(solved, settings) -> tuple[bool, str]:
    """
    Write poses, picture and keyframe images to a new folder; return (success, what to say).

    `solved` is the worker's last Solved, or None.
    """
    if solved is None:
        return False, 'there is no estimate yet'
    from ray_pose_ros.estimation import results  # matplotlib comes with it

    folder = output_directory(settings) / time.strftime('%Y-%m-%d_%H-%M-%S')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        views = [k.view for k in solved.keyframes]
        for view in views:
            bgr = cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR)
            if not cv2.imwrite(str(folder / view.name), bgr):
                return False, f'{folder / view.name} cannot be written'
        written = results.write_all(folder, solved.estimate, views)
    except (OSError, ValueError) as error:
        return False, f'{folder}: {error}'
    return True, f'{folder}: {", ".join(written)}'
