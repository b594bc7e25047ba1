"""`~/keyframe`: the last keyframe's image, small, with the square that the network looks at."""

from __future__ import annotations

import array

import cv2
import numpy as np
from sensor_msgs.msg import Image

from ray_pose_ros.geometry.crops import Crop
from ray_pose_ros.node.conversions import time_message

LONGER_SIDE = 640  # for people to look at; the images themselves are on the cameras' topics
_COLOUR = (255, 170, 0)


def keyframe_message(keyframe) -> Image | None:
    """Make the Image of a keyframe, rgb8; None where it has none to show."""
    image = getattr(keyframe.view, 'image', None)
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = min(1.0, LONGER_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    crop = getattr(keyframe.prepared, 'crop', None)
    if isinstance(crop, Crop):
        corners = np.array([[crop.x0, crop.y0], [crop.x0 + crop.side, crop.y0 + crop.side]])
        first, last = (corners * scale).round().astype(int).tolist()
        cv2.rectangle(small, first, last, _COLOUR, 2)
    msg = Image(height=size[1], width=size[0], encoding='rgb8', step=3 * size[0])
    msg.header.stamp = time_message(keyframe.stamp_ns)
    msg.header.frame_id = keyframe.frame_id
    # other types than array.array are set element by element, which takes seconds
    msg.data = array.array('B', np.ascontiguousarray(small).tobytes())
    return msg
