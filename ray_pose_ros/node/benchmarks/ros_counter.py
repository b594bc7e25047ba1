"""A subscriber that counts images, best effort, depth 5, as the node does. A ROS program.

    python -m ray_pose_ros.node.benchmarks.ros_counter '{"camera": "vga", "quiet": 2}'

prints one line of JSON when no image has come for `quiet` seconds after the first, or for
`patience` seconds at all.
"""

import json
import sys
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image


def main(camera='camera', quiet=2.0, patience=120.0) -> dict[str, int]:
    """Count until it is quiet. Calibrations show that the publisher is at work: they are small."""
    rclpy.init()
    node = Node('benchmark_counter')
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    images, last = [], [None]

    def heard(_):
        last[0] = time.monotonic()

    def seen(msg):
        images.append(len(msg.data))
        heard(msg)

    node.create_subscription(Image, f'/{camera}/image_raw', seen, qos)
    node.create_subscription(CameraInfo, f'/{camera}/camera_info', heard, qos)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + patience
    while time.monotonic() < (end if last[0] is None else last[0] + quiet):
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return {'received': len(images)}


if __name__ == '__main__':
    print(json.dumps(main(**json.loads(sys.argv[1]))), flush=True)
