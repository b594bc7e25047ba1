"""What the node subscribes to: the topics of its cameras, and the transforms of everybody."""

from __future__ import annotations

from collections.abc import Callable

from rcl_interfaces.msg import SetParametersResult
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node.camera_input import CameraInput
from ray_pose_ros.node.frame_tree import FrameTree
from ray_pose_ros.node.gated_group import GatedGroup
from ray_pose_ros.node.motion import Motion

INFO_DEPTH = 20  # these are small, and announce the images
_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class Subscriptions:
    """The node's subscriptions while it is active. `guard` wraps every callback."""

    def __init__(self, node, guard: Callable[[Callable], Callable]) -> None:
        self._node, self._guard = node, guard
        self._made: list = []
        self._declared: dict[str, QoSProfile] = {}

    def open_camera(self, name: str, settings) -> CameraInput:
        """Subscribe to all topics of one camera."""
        node = self._node
        raw = settings.image_transport == 'raw'
        image = f'{name}/image_raw' if raw else f'{name}/image_raw/compressed'
        info, roi, mask = (f'{name}/{topic}' for topic in ('camera_info', 'roi', 'mask'))
        resolved = [node.resolve_topic_name(t) for t in (image, info, mask)]
        camera = CameraInput(node, name, *resolved)
        policy = ReliabilityPolicy.BEST_EFFORT
        if settings.qos_reliability == 'reliable':
            policy = ReliabilityPolicy.RELIABLE
        deep = max(INFO_DEPTH, settings.qos_depth)
        # camera_info first: its callbacks are then looked at first
        self._open(CameraInfo, info, camera.on_info, QoSProfile(depth=deep, reliability=policy))
        self._open(
            Image if raw else CompressedImage,
            image,
            camera.on_image,
            QoSProfile(depth=settings.qos_depth, reliability=policy),
            callback_group=GatedGroup(node.default_callback_group, camera.wants_images),
        )
        easy = ReliabilityPolicy.BEST_EFFORT  # matches everybody
        self._open(RegionOfInterest, roi, camera.on_roi, QoSProfile(depth=5, reliability=easy))
        self._open(Image, mask, camera.on_mask, QoSProfile(depth=5, reliability=easy))
        return camera

    def open_tf(self, tree: FrameTree, motion: Motion) -> None:
        """Subscribe to /tf and /tf_static."""
        tree.begin()
        motion.buffer.clear()

        def on_tf(msg: TFMessage) -> None:
            if tree.listens():
                tree.on_tf(msg)
            if motion.wanted:
                motion.on_tf(msg)

        def on_static(msg: TFMessage) -> None:
            tree.on_static(msg)
            if motion.wanted:
                motion.on_tf(msg, static=True)

        best = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        latched = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        group = GatedGroup(
            self._node.default_callback_group, lambda: motion.wanted or tree.listens()
        )
        self._open(TFMessage, '/tf', on_tf, best, callback_group=group)
        self._open(TFMessage, '/tf_static', on_static, latched)

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made = []

    def _open(self, kind, topic: str, callback: Callable, qos: QoSProfile, **kwargs) -> None:
        options = QoSOverridingOptions(_POLICIES, callback=self._follow_settings(topic, qos))
        self._made.append(
            self._node.create_subscription(
                kind,
                topic,
                self._guard(callback),
                qos,
                qos_overriding_options=options,
                **kwargs,
            )
        )

    def _follow_settings(self, topic: str, qos: QoSProfile) -> Callable:
        """
        Let qos_depth and qos_reliability count again after a change.

        ROS declares the override parameters with the first values they get and keeps these. What
        equals them was not overridden, so that the present values hold.
        """
        first = self._declared.setdefault(
            topic, QoSProfile(depth=qos.depth, reliability=qos.reliability)
        )
        depth, reliability = qos.depth, qos.reliability

        def choose(chosen: QoSProfile) -> SetParametersResult:
            if chosen.depth == first.depth:
                chosen.depth = depth
            if chosen.reliability == first.reliability:
                chosen.reliability = reliability
            return SetParametersResult(successful=True)

        return choose
