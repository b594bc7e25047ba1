"""Whether an image, its CameraInfo and its object go together, and the candidate made of them."""

from __future__ import annotations

from functools import partial

from sensor_msgs.msg import CameraInfo

from ray_pose_ros.estimation.keyframes import frame_safe
from ray_pose_ros.estimation.views import View
from ray_pose_ros.node.conversions import (
    camera_from_info,
    expected_size,
    image_from_message,
    mask_from_message,
)
from ray_pose_ros.node.encodings import ImageError
from ray_pose_ros.node.object_hints import Hint
from ray_pose_ros.node.rig_settings import box_of
from ray_pose_ros.node.work import Candidate


def mismatch(frame, info: CameraInfo | None, info_topic: str, settings) -> tuple[str, str] | None:
    """Say why a frame and its CameraInfo do not go together: (reason, text); None if they do."""
    if info is None:
        if settings.require_camera_info:
            return (
                'no_camera_info',
                f'there is no usable message on {info_topic}, expected the calibration '
                '(parameter require_camera_info)',
            )
        return None
    if any(info.k) and expected_size(info) != tuple(frame.size):
        return (
            'wrong_size',
            f'image is {frame.size[0]}x{frame.size[1]}, but {info_topic} is for '
            '{}x{} (ROI and binning applied)'.format(*expected_size(info)),
        )
    frames = frame.msg.header.frame_id, info.header.frame_id
    if all(frames) and frames[0] != frames[1]:
        return (
            'wrong_frame',
            f'frame_id is {frames[0]!r}, but {frames[1]!r} on {info_topic}',
        )
    return None


def candidate(frame, image_topic: str, settings) -> Candidate:
    """Make the worker's candidate of a frame; it is decoded on the worker's thread."""
    calibrated = frame.info is not None and any(frame.info.k)
    name = f'{frame_safe(frame.camera)}_{frame.stamp_ns}.png'
    make_view = partial(
        _make_view,
        frame.msg,
        frame.info if calibrated else None,
        frame.hint,
        box_of(settings, frame.camera),
        settings,
        name,
        frame.stamp_ns * 1e-9,
    )
    frame_id = frame.msg.header.frame_id
    return Candidate(frame.camera, image_topic, frame.stamp_ns, frame_id, make_view)


def _make_view(msg, info, hint: Hint, box, settings, name: str, stamp: float) -> View:
    image = image_from_message(msg, settings.max_image_megapixels)
    height, width = image.shape[:2]
    camera = None if info is None else camera_from_info(info, width, height, settings.rectified)
    if hint.mask is not None:
        mask = mask_from_message(hint.mask, settings.max_image_megapixels)
        view = View(image, camera, mask=mask, name=name, stamp=stamp)
    else:
        view = View(image, camera, box=hint.box or box, name=name, stamp=stamp)
    side = view.crop().side
    if side**2 > settings.max_image_megapixels * 1e6:
        # the square is cut out whole: a region of another image's size would fill the memory
        raise ImageError(
            f'the square round the object is {side} pixels wide, image {width}x{height}, expected '
            f'at most {settings.max_image_megapixels:g} megapixels (parameter '
            'max_image_megapixels)'
        )
    return view
