"""A camera for measurements: one picture again and again, each with its own stamp. A ROS program.

    python -m ray_pose_ros.node.benchmarks.ros_publisher '{"camera": "vga", "width": 640}'

prints one line of JSON when it has published all: how many, in how many seconds.
"""

import json
import sys
import time

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

FRAME = 'camera_optical_frame'
_SETTLE_S = 0.5  # between the first sight of a subscriber and the moment data reaches it
_PATIENCE_S = 120.0


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth patterns with a little noise (H, W, 3): compresses about as a photograph does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 225, (9, 12, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 4, (height, width, 1))
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def compressed_message(image: np.ndarray, stamp, frame_id: str) -> CompressedImage:
    """A JPEG of quality 90 of an RGB image (H, W, 3)."""
    msg = CompressedImage(format='rgb8; jpeg compressed bgr8')
    msg.header.stamp, msg.header.frame_id = stamp, frame_id
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    msg.data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return msg


class Publisher:
    """Publishers of a camera's images and calibration, best effort, depth 5."""

    def __init__(self, node: Node, camera: str, compressed: bool) -> None:
        self.node, self.compressed = node, compressed
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        kind = CompressedImage if compressed else Image
        topic = f'/{camera}/image_raw' + ('/compressed' if compressed else '')
        self.images = node.create_publisher(kind, topic, qos)
        self.infos = node.create_publisher(CameraInfo, f'/{camera}/camera_info', qos)

    def message(self, image: np.ndarray):
        """An image message, to be published any number of times."""
        make = compressed_message if self.compressed else image_message
        return make(image, self.node.get_clock().now().to_msg(), FRAME)

    def show(self, message, size: tuple[int, int]) -> int:
        """Publish it with its calibration, stamped now; the stamp in nanoseconds."""
        now = self.node.get_clock().now()
        message.header.stamp = now.to_msg()
        camera = CameraModel.from_fov(*size, np.pi / 3)
        self.infos.publish(info_message(camera, size, message.header.stamp, FRAME))
        self.images.publish(message)
        return now.nanoseconds

    def wait(self) -> None:
        """Wait for a subscriber; TimeoutError when none comes."""
        end = time.monotonic() + _PATIENCE_S
        while not self.images.get_subscription_count():
            if time.monotonic() > end:
                raise TimeoutError(f'nobody subscribed in {_PATIENCE_S:g} s')
            time.sleep(0.05)
        time.sleep(_SETTLE_S)


def main(
    camera='camera', width=640, height=480, rate=15.0, count=100, compressed=False
) -> dict[str, float]:
    """Publish `count` images at `rate` a second."""
    rclpy.init()
    node = Node('benchmark_camera')
    publisher = Publisher(node, camera, compressed)
    message = publisher.message(picture(width, height))
    publisher.wait()
    begin = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
        publisher.show(message, (width, height))
    seconds = time.monotonic() - begin
    time.sleep(_SETTLE_S)  # the last ones are on their way
    node.destroy_node()
    rclpy.try_shutdown()
    return {'published': count, 'seconds': seconds, 'bytes': len(message.data)}


if __name__ == '__main__':
    print(json.dumps(main(**json.loads(sys.argv[1]))), flush=True)
