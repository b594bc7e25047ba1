"""
A camera on another host, for test_node_network.py: shows pictures and tells what comes back.

    python test/far_camera.py RATE     (images a second, JPEG, until it is ended)

Five times a second a line of JSON: images shown, subscribers, poses that came back, the stamp of
the last transform (ns) and the node's own count of images received.
"""

from __future__ import annotations

import array
import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]

import cv2  # noqa: E402
import rclpy  # noqa: E402
from node_harness import FRAME, Client, pictures, pinhole  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from ray_pose_ros.node.conversions import nanoseconds, time_message  # noqa: E402
from ray_pose_ros.synthetic.camera_publisher import info_message  # noqa: E402

WIDTH, HEIGHT = 640, 480
TELL_S = 0.2


def jpegs(count: int) -> list[array.array]:
    """Pictures that differ a lot, as a camera driver would compress them."""
    return [
        array.array('B', cv2.imencode('.jpg', p)[1].tobytes())
        for p in pictures(count, WIDTH, HEIGHT)
    ]


def main(rate: float) -> None:
    """Publish and tell, until the process is ended."""
    context = rclpy.Context()
    rclpy.init(context=context)
    client = Client(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(client)
    images, camera, shown, next_words = jpegs(16), pinhole(WIDTH, HEIGHT), 0, 0.0
    begin = time.monotonic()
    while True:
        stamp = time_message(time.time_ns())
        client.infos.publish(info_message(camera, (WIDTH, HEIGHT), stamp, FRAME))
        msg = CompressedImage(format='rgb8; jpeg compressed bgr8', data=images[shown % 16])
        msg.header.stamp, msg.header.frame_id = stamp, FRAME
        client.compressed.publish(msg)
        shown += 1
        while (left := begin + shown / rate - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=left)
        begin = max(begin, time.monotonic() - shown / rate - 1.0)  # no burst after a pause
        if time.monotonic() >= next_words:
            next_words = time.monotonic() + TELL_S
            last = client.tf[-1].transforms[0].header.stamp if client.tf else None
            words = {
                'shown': shown,
                'subscribers': client.compressed.get_subscription_count(),
                'poses': len(client.poses),
                'tf_ns': nanoseconds(last) if last else 0,
                'received': int(client.diagnostics.get('images received', 0)),
            }
            print(json.dumps(words), flush=True)


if __name__ == '__main__':
    main(float(sys.argv[1]))
