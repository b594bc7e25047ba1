"""
A pretended camera: publishes Image and CameraInfo of a rendered orbit, a folder or a rosbag2.

    ros2 run ray_pose_ros camera_publisher --ros-args -p source:=images -p path:=photos

Parameters: `source` orbit | images | bag, `path`, `views` (0: all), `camera` (topic prefix),
`rate` and `hold` (a view is shown `hold` seconds at `rate` images a second, as by a camera that
moves from place to place), `bag_speed`, `bag_topic` (of images; else the first), `loop`, `width`,
`height`, `scene_seed`, `frame_id`, `reliable`, `index_file` (a JSON line for each image published:
its stamp and its view).
True poses, where known, go to `<camera>/ground_truth` (camera to world).
"""

from __future__ import annotations

import argparse
import array
import json
import signal
import sys
import threading
import time

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import quaternion_from_matrix
from ray_pose_ros.synthetic.camera_sources import BagSource, FolderSource, Frame, OrbitSource

DEFAULTS = {
    'source': 'orbit',
    'path': '',
    'views': 8,
    'camera': 'camera',
    'rate': 10.0,
    'hold': 0.7,
    'bag_speed': 1.0,
    'bag_topic': '',
    'loop': False,
    'width': 640,
    'height': 480,
    'scene_seed': 3,
    'frame_id': 'camera_optical_frame',
    'reliable': False,
    'index_file': '',
}
WARM_UP_S = 0.5  # between the first sight of a subscriber and the moment data reaches it


def image_message(image: np.ndarray, stamp: Time, frame_id: str) -> Image:
    """
    Make an rgb8 Image of (H, W, 3) uint8.

    The data goes through array.array: assigning an ndarray takes a second for a 1080p image, and
    `bytes` are checked one by one on Humble.
    """
    msg = Image()
    msg.header.stamp, msg.header.frame_id = stamp, frame_id
    msg.height, msg.width = image.shape[:2]
    msg.encoding, msg.step = 'rgb8', 3 * msg.width
    data = array.array('B')
    data.frombytes(memoryview(np.ascontiguousarray(image)).cast('B'))
    msg.data = data
    return msg


def info_message(
    camera: CameraModel | None, size: tuple[int, int], stamp: Time, frame_id: str
) -> CameraInfo:
    """Make a CameraInfo; None gives that of an uncalibrated camera, whose K is zero."""
    info = CameraInfo()
    info.header.stamp, info.header.frame_id = stamp, frame_id
    info.width, info.height = size
    if camera is None:
        return info
    K = camera.matrix.numpy()
    info.k = K.ravel()
    info.r = np.eye(3).ravel()
    info.p = np.hstack([K, np.zeros((3, 1))]).ravel()
    info.distortion_model = camera.distortion_model
    info.d = [float(d) for d in camera.distortion]
    if camera.distortion_model == 'none':
        info.distortion_model, info.d = 'plumb_bob', [0.0] * 5  # what ROS tools expect
    return info


class CameraPublisher(Node):
    """The node; `play` publishes everything once, or until `stop` is set."""

    def __init__(self, **kwargs) -> None:
        super().__init__('camera_publisher', **kwargs)
        values = {k: self.declare_parameter(k, v).value for k, v in DEFAULTS.items()}
        self.options = values
        kinds = ('orbit', 'images', 'bag')
        if values['source'] not in kinds:
            raise ValueError(f'parameter source is {values["source"]!r}, expected one of {kinds}')
        if not values['rate'] > 0:
            raise ValueError(f'parameter rate is {values["rate"]}, expected more than 0')
        self.source = make_source(values)
        compressed = getattr(self.source, 'compressed', False)
        policy = ReliabilityPolicy.BEST_EFFORT
        if values['reliable']:
            policy = ReliabilityPolicy.RELIABLE
        qos, prefix = QoSProfile(depth=5, reliability=policy), values['camera']
        topic = f'{prefix}/image_raw' + ('/compressed' if compressed else '')
        kind = CompressedImage if compressed else Image
        self._images = self.create_publisher(kind, topic, qos)
        self._infos = self.create_publisher(CameraInfo, f'{prefix}/camera_info', qos)
        self._truth = self.create_publisher(PoseStamped, f'{prefix}/ground_truth', 10)

    def play(self, stop: threading.Event) -> None:
        """Wait for a subscriber, then publish all views; at the end stay on the last one."""
        while not (self._images.get_subscription_count() and self._infos.get_subscription_count()):
            if stop.wait(0.05):
                return
        stop.wait(WARM_UP_S)
        again = True
        while again and not stop.is_set():
            if isinstance(self.source, BagSource):
                self._play_bag(stop)
            else:
                self._play_frames(stop)
            again = self.options['loop']

    def _play_frames(self, stop: threading.Event) -> None:
        for index in range(len(self.source)):
            try:
                frame = self.source[index]
            except ValueError as error:
                self.get_logger().error(f'left out: {error}')
                continue
            until = time.monotonic() + self.options['hold']
            while not stop.is_set():
                self._show(frame, index)
                if stop.wait(1 / self.options['rate']) or time.monotonic() >= until:
                    break
        self.get_logger().info('all views have been shown')
        while not self.options['loop'] and not stop.wait(1 / self.options['rate']):
            self._show(frame, index)  # the camera stands still

    def _show(self, frame: Frame, index: int) -> None:
        now = self.get_clock().now()
        stamp, frame_id = now.to_msg(), self.options['frame_id']
        size = frame.image.shape[1::-1]
        self._infos.publish(info_message(frame.camera, size, stamp, frame_id))
        self._images.publish(image_message(frame.image, stamp, frame_id))
        if frame.R is not None:
            self._truth.publish(_true_pose(frame, stamp))
        if self.options['index_file']:
            with open(self.options['index_file'], 'a', encoding='utf-8') as file:
                file.write(json.dumps({'stamp_ns': now.nanoseconds, 'view': index}) + '\n')

    def _play_bag(self, stop: threading.Event) -> None:
        begin = time.monotonic()
        first = None
        for when, kind, raw in self.source.messages():
            first = when if first is None else first
            due = begin + (when - first) * 1e-9 / max(self.options['bag_speed'], 1e-6)
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            (self._images if kind == 'image' else self._infos).publish(raw)
        self.get_logger().info('the bag has been played')


def make_source(values: dict):
    """Open what the parameters ask for; ValueError when it is not to be had."""
    if values['source'] == 'images':
        return FolderSource(values['path'], values['views'])
    if values['source'] == 'bag':
        return BagSource(values['path'], values['bag_topic'])
    count = values['views'] or DEFAULTS['views']
    return OrbitSource(count, values['scene_seed'], values['width'], values['height'])


def _true_pose(frame: Frame, stamp: Time) -> PoseStamped:
    import torch

    msg = PoseStamped()
    msg.header.stamp, msg.header.frame_id = stamp, 'ground_truth'
    p, o = msg.pose.position, msg.pose.orientation
    p.x, p.y, p.z = (float(v) for v in -frame.R.T @ frame.t)
    o.x, o.y, o.z, o.w = quaternion_from_matrix(torch.from_numpy(frame.R.T.copy())).tolist()
    return msg


def main(args: list[str] | None = None) -> int:
    """Run the camera until a signal comes; exit code 0 then, 2 for bad parameters."""
    argparse.ArgumentParser(
        'camera_publisher',
        usage='%(prog)s [-h] [--ros-args -p NAME:=VALUE ...]',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(remove_ros_args(args)[1:])
    stop = threading.Event()
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda signum, frame: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = CameraPublisher()
    except (ValueError, ImportError, InvalidParameterTypeException) as error:
        print(f'camera_publisher: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    node.play(stop)  # publishing needs no executor
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
