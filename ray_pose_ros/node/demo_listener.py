"""What the demo hears from the node, through ROS like everybody else."""

from __future__ import annotations

import json
import time
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import Path as PathMessage
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node.conversions import nanoseconds, pose_from_transform
from ray_pose_ros.node.demo_processes import NODE_NAME
from ray_pose_ros.node.outputs import LATCHED


class Listener:
    """Subscribes to all that the node says; `spin` lets it hear for a moment."""

    def __init__(self, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(
            context=self._context,
            domain_id=domain,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._node = node = Node('ray_pose_demo', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self.poses: PoseArray | None = None
        self.path: PathMessage | None = None
        self.points: PointCloud2 | None = None
        self.transforms: dict[str, object] = {}  # by child frame
        self.diagnostics: dict[str, str] = {}
        self.problems: list[str] = []
        self.changed = time.monotonic()
        topic = f'/{NODE_NAME}/'
        node.create_subscription(PoseArray, topic + 'poses', self._on_poses, LATCHED)
        node.create_subscription(PathMessage, topic + 'path', self._on_path, LATCHED)
        node.create_subscription(PointCloud2, topic + 'points', self._on_points, LATCHED)
        node.create_subscription(TFMessage, '/tf', self._on_tf, 100)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._save = node.create_client(Trigger, topic + 'save')

    def spin(self, seconds: float) -> None:
        """Take messages for this long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    @property
    def stamps_ns(self) -> list[int]:
        """Stamps of the images that the poses are of, empty before the first estimate."""
        return [] if self.path is None else [nanoseconds(p.header.stamp) for p in self.path.poses]

    @property
    def idle(self) -> bool:
        """Whether the node has nothing under way, by its diagnostics."""
        d = self.diagnostics
        return d.get('candidates waiting') == '0' and d.get('working for [s]') == '0'

    def frames(self) -> dict[int, object]:
        """Return the poses of the keyframe frames on /tf, by keyframe id."""
        out = {}
        for child, transform in self.transforms.items():
            _, found, number = child.rpartition('_keyframe_')
            if found:
                out[int(number)] = pose_from_transform(transform.transform)
        return out

    def save(self, timeout: float = 60.0) -> str:
        """Call ~/save; returns what it says. RuntimeError when it fails or does not answer."""
        if not self._save.wait_for_service(timeout_sec=10.0):
            raise RuntimeError('the service ~/save is not there')
        future = self._save.call_async(Trigger.Request())
        self._executor.spin_until_future_complete(future, timeout_sec=timeout)
        if not future.done():
            raise RuntimeError(f'~/save has not answered in {timeout:g} s')
        if not future.result().success:
            raise RuntimeError(f'~/save failed: {future.result().message}')
        return future.result().message

    def close(self) -> None:
        """Leave ROS."""
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _on_poses(self, msg: PoseArray) -> None:
        self.poses = msg

    def _on_path(self, msg: PathMessage) -> None:
        self.path, self.changed = msg, time.monotonic()

    def _on_points(self, msg: PointCloud2) -> None:
        self.points = msg

    def _on_tf(self, msg: TFMessage) -> None:
        for transform in msg.transforms:
            self.transforms[transform.child_frame_id] = transform

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self.diagnostics |= {v.key: v.value for v in status.values}
            if status.level in (b'\x02', b'\x01') and status.message not in self.problems:
                self.problems.append(status.message)


def shown_views(index_file: Path) -> dict[int, int]:
    """Read the camera's index: which view each stamp (ns) was of."""
    if not index_file.is_file():
        return {}
    lines = index_file.read_text(encoding='utf-8').splitlines()
    entries = [json.loads(line) for line in lines if line.endswith('}')]
    return {e['stamp_ns']: e['view'] for e in entries}
