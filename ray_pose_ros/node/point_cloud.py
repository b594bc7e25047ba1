"""`~/points`: the points that matches show, as a sensor_msgs/PointCloud2, and back."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from ray_pose_ros.node.conversions import time_message

# x, y, z, and the colour as rviz wants it: 0x00rrggbb in the place of a float
_FIELDS = [*((name, '<f4') for name in 'xyz'), ('rgb', '<u4')]
_STEP = 16


def cloud_message(xyz: np.ndarray, rgb: np.ndarray, frame_id: str, stamp_ns: int) -> PointCloud2:
    """Points (P, 3) with colours (P, 3) uint8."""
    rows = np.zeros(len(xyz), dtype=_FIELDS)
    for axis, name in enumerate('xyz'):
        rows[name] = xyz[:, axis]
    rows['rgb'] = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    msg = PointCloud2(height=1, width=len(rows), point_step=_STEP, row_step=_STEP * len(rows))
    msg.header.frame_id, msg.header.stamp = frame_id, time_message(stamp_ns)
    msg.is_dense = True
    msg.fields = [
        PointField(name=name, offset=4 * k, datatype=PointField.FLOAT32, count=1)
        for k, (name, _) in enumerate(_FIELDS)
    ]
    # other types than array.array are set element by element, which takes seconds
    msg.data = array.array('B', rows.tobytes())
    return msg


def points_of_message(msg: PointCloud2) -> tuple[np.ndarray, np.ndarray]:
    """What went into `cloud_message`: (P, 3) float64 and (P, 3) uint8."""
    rows = np.frombuffer(bytes(msg.data), dtype=_FIELDS)
    xyz = np.stack([rows[name] for name in 'xyz'], axis=1).astype(np.float64)
    rgb = rows['rgb'][:, None] >> np.array([16, 8, 0], dtype=np.uint32) & 255
    return xyz, rgb.astype(np.uint8)
