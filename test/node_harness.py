"""What the node's tests share: a node that spins, a client beside it, stand-ins for the model."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from ray_pose_ros.estimation.metric import MetricScale
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.node import pose_node
from ray_pose_ros.node.conversions import nanoseconds, time_message
from ray_pose_ros.node.outputs import LATCHED
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

pose_node.DIAGNOSTICS_S = 0.1  # tests wait for it often
DOMAIN = int(os.environ.get('ROS_DOMAIN_ID', '1'))
FRAME = 'camera_optical_frame'
EVERY_FRAME = {
    'qos_reliability': 'reliable',
    'qos_depth': 20,
    'keyframe_min_interval': 0.0,
    'keyframe_min_change': 0.0,
    'lost_rotation_sigma': 0.0,  # the models of the tests know nothing
}


@dataclass
class FakeEstimate:
    """What the node reads of an Estimate."""

    R: np.ndarray
    t: np.ndarray
    K: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    rays: np.ndarray
    timings: dict
    metric: MetricScale | None = None
    caution: str | None = None


class FakeEstimator:
    """Gives camera k of a window the pose k * 0.1 along x; counts what it is asked."""

    device = 'fake'

    def __init__(self, seconds: float = 0.0) -> None:
        self.prepared: list = []
        self.solved: list = []
        self.seconds = seconds
        self.fail: Exception | None = None
        self.caution = None

    def prepare(self, view):
        self.prepared.append(view)
        return view

    def cameras(self, n: int):
        """World-to-camera R (n, 3, 3), t (n, 3) of a window."""
        t = np.zeros((n, 3))
        t[:, 0], t[:, 2] = -0.1 * np.arange(n), 1.0
        return np.stack([np.eye(3)] * n), t

    def looks(self, prepared, progress=None):
        yield self.solve(prepared, progress)

    def solve(self, prepared, progress=None):
        self.solved.append(list(prepared))
        for _ in range(int(self.seconds / 0.01)):
            time.sleep(0.01)
            progress(1, 2)
        if self.fail is not None:
            raise self.fail
        n = len(prepared)
        R, t = self.cameras(n)
        return FakeEstimate(
            R=R,
            t=t,
            K=np.stack([np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])] * n),
            rotation_sigma=np.full(n, 0.05),
            centre_sigma=np.zeros(n),
            rays=np.zeros((n, 6, 1, 1), np.float32),
            timings={'denoise': 0.001, 'recover': 0.002},
            caution=self.caution,
        )


class Client(Node):
    """Publishes to the node and keeps what it says."""

    def __init__(self, context, node_name: str = '/ray_pose', camera: str = '/camera') -> None:
        super().__init__('client', context=context)
        self.poses: list[PoseArray] = []
        self.paths: list[Path] = []
        self.newest: list[PoseWithCovarianceStamped] = []
        self.markers: list[MarkerArray] = []
        self.points: list[PointCloud2] = []
        self.tf: list[TFMessage] = []
        self.diagnostics: dict[str, str] = {}
        self.levels: dict[str, tuple] = {}
        self.name = node_name
        every = QoSProfile(
            depth=20, reliability=LATCHED.reliability, durability=LATCHED.durability
        )
        for kind, topic, to, qos in (
            (PoseArray, f'{node_name}/poses', self.poses.append, every),
            (Path, f'{node_name}/path', self.paths.append, every),
            (PoseWithCovarianceStamped, f'{node_name}/pose', self.newest.append, 10),
            (MarkerArray, f'{node_name}/markers', self.markers.append, LATCHED),
            (PointCloud2, f'{node_name}/points', self.points.append, LATCHED),
            (TFMessage, '/tf', self.tf.append, 100),
            (DiagnosticArray, '/diagnostics', self._on_diagnostics, 10),
        ):
            self.create_subscription(kind, topic, to, qos)
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self.images = self.create_publisher(Image, f'{camera}/image_raw', qos)
        self.compressed = self.create_publisher(
            CompressedImage, f'{camera}/image_raw/compressed', qos
        )
        self.infos = self.create_publisher(CameraInfo, f'{camera}/camera_info', qos)

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self.levels[status.name] = (status.level, status.message)
            self.diagnostics.update({v.key: v.value for v in status.values})

    def show(self, image: np.ndarray, stamp_ns: int, camera: CameraModel | None) -> None:
        """Publish an image with its CameraInfo."""
        stamp = time_message(stamp_ns)
        self.infos.publish(info_message(camera, image.shape[1::-1], stamp, FRAME))
        self.images.publish(image_message(image, stamp, FRAME))


class Harness:
    """A PoseNode spun by a thread of its own, and a Client spun by `until`."""

    def __init__(self, factory, parameters=None, **kwargs) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        overrides = [Parameter(k, value=v) for k, v in (parameters or {}).items()]
        self.node = pose_node.PoseNode(
            estimator_factory=factory,
            context=self.context,
            parameter_overrides=overrides,
            **kwargs,
        )
        self.client = Client(self.context, self.node.get_fully_qualified_name())
        self._spinner = SingleThreadedExecutor(context=self.context)
        self._spinner.add_node(self.node)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.client)
        self._thread = threading.Thread(target=self._spinner.spin, daemon=True)
        self._thread.start()

    def until(self, condition, timeout: float = 30.0) -> bool:
        """Spin the client until something holds; false when it does not within `timeout`."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def ready(self) -> Harness:
        """Wait until the node listens to the client's images, and the client to the node."""
        client = self.client
        heard = {subscription.topic_name for subscription in client.subscriptions}
        assert self.until(
            lambda: (
                (
                    client.images.get_subscription_count()
                    + client.compressed.get_subscription_count()
                )
                and client.infos.get_subscription_count()
                and client.count_publishers(f'{client.name}/poses')
                and self.node.count_publishers(client.infos.topic_name)
                and self.node.count_publishers(client.images.topic_name)
                and all(
                    publisher.get_subscription_count()
                    for publisher in list(self.node.publishers)
                    if publisher.topic_name in heard
                )
            )
        )
        return self

    def call(self, kind, name: str, request, timeout: float = 30.0):
        """Call a service of the node."""
        client = self.client.create_client(kind, f'{self.client.name}/{name}')
        assert self.until(client.service_is_ready, timeout)
        future = client.call_async(request)
        assert self.until(future.done, timeout), f'{name} did not answer'
        self.client.destroy_client(client)
        return future.result()

    def trigger(self, name: str):
        """Call a Trigger service."""
        return self.call(Trigger, name, Trigger.Request())

    def enable(self, value: bool):
        """Call ~/enable."""
        return self.call(SetBool, 'enable', SetBool.Request(data=value))

    def diagnosed(self, key: str, value: str, timeout: float = 20.0) -> bool:
        """Wait until diagnostics say `key: value`."""
        return self.until(lambda: self.client.diagnostics.get(key) == value, timeout)

    def show(self, numbers, images, camera, begin: int = 100) -> None:
        """Publish images[k] stamped begin + k seconds, one after the other."""
        for k in numbers:
            self.client.show(images[k], (begin + k) * SECOND, camera)

    @property
    def count(self) -> int:
        """How many poses the node published last."""
        return len(self.client.poses[-1].poses) if self.client.poses else 0

    @property
    def seconds(self) -> list[float]:
        """Stamps of the path published last."""
        paths = self.client.paths
        return [nanoseconds(p.header.stamp) / SECOND for p in paths[-1].poses] if paths else []

    def close(self) -> None:
        """End in the order that main() uses."""
        assert self.node.stop(10.0)
        self._spinner.shutdown(timeout_sec=5.0)
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=5.0)
        self.node.destroy_node()
        self.client.destroy_node()
        rclpy.try_shutdown(context=self.context)


SECOND = 1_000_000_000


def starter():
    """Make the fixture `start`: start harnesses that end with the test."""
    running = []

    def make(factory=None, parameters=None, ready=True, **kwargs):
        estimator = FakeEstimator()
        harness = Harness(factory or (lambda settings: estimator), parameters, **kwargs)
        harness.estimator = estimator
        running.append(harness)
        return harness.ready() if ready else harness

    yield make
    for harness in running:
        harness.close()


def set_parameter(harness: Harness, name: str, value):
    """Change a parameter from outside; returns ROS' answer."""
    request = SetParameters.Request()
    request.parameters = [Parameter(name, value=value).to_parameter_msg()]
    return harness.call(SetParameters, 'set_parameters', request).results[0]


def save_tiny_model(path, **changes) -> str:
    """Write a model with random weights: its poses mean nothing, but must be the same anywhere."""
    torch.manual_seed(0)
    sizes = {'width': 24, 'depth': 2, 'heads': 2, 'image_size': 56, 'grid': 4}
    sizes |= {'backbone_width': 24, 'backbone_depth': 1, 'backbone_heads': 2}
    sizes |= {'geometry': 'directions', 'anchor_reference': True, 'steps': 10, 'readout': 3}
    save_checkpoint(RayDiffuser(ModelConfig(**sizes | changes)), path, half=False)
    return str(path)


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Make images (H, W, 3) that differ a lot."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2))


def pinhole(width: int = 64, height: int = 48) -> CameraModel:
    """Make a camera with 60 degrees."""
    return CameraModel.from_fov(width, height, np.pi / 3)


IMAGES = pictures(12)
CAMERA = pinhole()


def show(harness, numbers, begin=100, camera=CAMERA):
    """Publish images one after the other, a second apart."""
    harness.show(numbers, IMAGES, camera, begin)


def write_bag(path, images, camera, begin_s=100):
    """A rosbag2 of /front/image_raw and its camera_info, an image a second."""
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = store.types['sensor_msgs/msg/Image']
    header = store.types['std_msgs/msg/Header']
    time = store.types['builtin_interfaces/msg/Time']
    info = store.types['sensor_msgs/msg/CameraInfo']
    roi = store.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    K = camera.matrix.numpy().ravel()
    with rosbag2.Writer(path, version=9) as writer:
        pictures = writer.add_connection('/front/image_raw', kind.__msgtype__, typestore=store)
        infos = writer.add_connection('/front/camera_info', info.__msgtype__, typestore=store)
        for k, image in enumerate(images):
            height, width = image.shape[:2]
            at = header(time(begin_s + k, 0), 'optical')
            calibration = info(at, height, width, 'plumb_bob', np.zeros(5), K, np.eye(3).ravel(),
                               np.zeros(12), 0, 0, roi)  # fmt: skip
            picture = kind(at, height, width, 'rgb8', 0, 3 * width, image.ravel())
            when = (begin_s + k) * 10**9
            writer.write(infos, when, store.serialize_cdr(calibration, info.__msgtype__))
            writer.write(pictures, when, store.serialize_cdr(picture, kind.__msgtype__))
