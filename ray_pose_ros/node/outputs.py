"""An estimate as ROS messages: poses, path, pose with covariance, markers (/tf: transforms.py)."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseArray,
    PoseStamped,
    PoseWithCovarianceStamped,
)
from nav_msgs.msg import Path
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from ray_pose_ros.node.conversions import (
    camera_from_pose,
    pose_from_camera,
    time_message,
)
from ray_pose_ros.node.keyframe_image import keyframe_message
from ray_pose_ros.node.point_cloud import cloud_message
from ray_pose_ros.node.transform_buffer import Rigid
from ray_pose_ros.node.transforms import Transforms, newest_index

LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# What a single sample cannot tell is published as not known well, never as certain.
UNKNOWN_ROTATION, UNKNOWN_CENTRE = math.radians(20.0), 0.2
LEAST_ROTATION, LEAST_CENTRE = math.radians(0.1), 1e-3
_RED_AT = math.radians(30.0)
_LEFT = ColorRGBA(r=0.6, g=0.65, b=0.75, a=0.8)  # of cameras that have left the window


class Outputs:
    """The publishers and the estimate they published last."""

    def __init__(self, node, settings) -> None:
        self._settings = settings
        self.transforms = Transforms(node, settings)
        self._poses = node.create_publisher(PoseArray, '~/poses', LATCHED)
        self._path = node.create_publisher(Path, '~/path', LATCHED)
        self._map = node.create_publisher(Path, '~/map', LATCHED)
        self._pose = node.create_publisher(PoseWithCovarianceStamped, '~/pose', 10)
        self._markers = node.create_publisher(MarkerArray, '~/markers', LATCHED)
        self._keyframe = node.create_publisher(Image, '~/keyframe', LATCHED)
        self._points = node.create_publisher(PointCloud2, '~/points', LATCHED)
        self._has_points = False

    def show_keyframe(self, keyframe) -> None:
        """Publish the image of a new keyframe, before it is known where it was taken."""
        msg = keyframe_message(keyframe)
        if msg is not None:
            self._keyframe.publish(msg)

    def show_points(self, clouded, metric) -> None:
        """Publish a Clouded, in metres where the estimate that it is of is."""
        if not (len(clouded.xyz) or self._has_points) or self.transforms.lost:
            return
        xyz = clouded.xyz * (metric.metres_per_unit if metric else 1.0)
        self._publish_points(xyz, clouded.rgb, clouded.stamp_ns)

    def _publish_points(self, xyz: np.ndarray, rgb: np.ndarray, stamp_ns: int) -> None:
        frame = self._settings.reference_frame
        self._points.publish(cloud_message(xyz, rgb, frame, stamp_ns))
        self._has_points = bool(len(xyz))

    def publish(self, solved, seen_ns: int, place: Rigid | None = None) -> None:
        """
        Publish a Solved on all topics, stamped with its newest image; /tf: `seen_ns`, the newest
        one that was seen since time went back, of which the window may know nothing; 0: none was.

        `place` is the pose of `reference_frame` in `motion_frame`.
        """
        keyframes, estimate = solved.keyframes, solved.estimate
        newest = newest_index(keyframes, seen_ns)
        stamp_ns = keyframes[newest].stamp_ns
        poses = _poses(estimate)
        sigmas = [_sigmas(estimate, i) for i in range(len(keyframes))]
        # a long chain of windows is no reason to be lost: what counts is the newest window
        own = float(solved.window_sigma[newest])
        sigma = own if math.isfinite(own) and own > 0 else sigmas[newest][0]
        self.transforms.publish(keyframes, poses, sigma, seen_ns or stamp_ns, place)
        self._publish_poses(keyframes, poses, stamp_ns)
        mapped = solved.mapped or solved
        self._map.publish(self._as_path(mapped.keyframes, _poses(mapped.estimate), stamp_ns))
        scale_sigma = estimate.metric.log_sigma if estimate.metric else 0.0
        self._publish_newest(poses[newest], sigmas[newest], scale_sigma, stamp_ns)
        drawn = self._drawing(keyframes, poses, estimate, sigmas, newest, stamp_ns)
        left = self._left(keyframes, mapped, stamp_ns)
        self._markers.publish(MarkerArray(markers=drawn + left))

    def apply_settings(self, settings) -> None:
        """Take over parameters that may change at any time."""
        self._settings = settings
        self.transforms.apply_settings(settings)

    def clear(self, stamp_ns: int) -> None:
        """Publish that nothing is known any more."""
        self.transforms.clear()
        self._publish_poses([], [], stamp_ns)
        self._map.publish(self._as_path([], [], stamp_ns))
        if self._has_points:
            self._publish_points(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), stamp_ns)
        self._markers.publish(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))

    # -- messages -------------------------------------------------------------------------------

    def _publish_poses(self, keyframes, poses, stamp_ns: int) -> None:
        array = PoseArray(poses=poses)
        array.header.stamp = time_message(stamp_ns)
        array.header.frame_id = self._settings.reference_frame
        self._poses.publish(array)
        self._path.publish(self._as_path(keyframes, poses, stamp_ns))

    def _as_path(self, keyframes, poses, stamp_ns: int) -> Path:
        path = Path()
        path.header.stamp = time_message(stamp_ns)
        path.header.frame_id = self._settings.reference_frame
        for keyframe, pose in zip(keyframes, poses, strict=True):
            stamped = PoseStamped(pose=pose)
            stamped.header.frame_id = self._settings.reference_frame
            stamped.header.stamp = time_message(keyframe.stamp_ns)
            path.poses.append(stamped)
        return path

    def _publish_newest(
        self, pose: Pose, sigma: tuple[float, float], scale_sigma: float, stamp_ns: int
    ) -> None:
        msg = PoseWithCovarianceStamped()
        msg.header.stamp = time_message(stamp_ns)
        msg.header.frame_id = self._settings.reference_frame
        msg.pose.pose = pose
        rotation, centre = sigma
        # x, y, z, then rotations about them; isotropic: the spread is known as one number each
        covariance = np.diag([centre**2] * 3 + [rotation**2] * 3)
        # an error of the scale moves the camera on the line to the object
        p = np.array([pose.position.x, pose.position.y, pose.position.z])
        covariance[:3, :3] += scale_sigma**2 * np.outer(p, p)
        msg.pose.covariance = covariance.ravel()
        self._pose.publish(msg)

    def _drawing(
        self, keyframes, poses, estimate, sigmas, newest: int, stamp_ns: int
    ) -> list[Marker]:
        scale = self._settings.marker_scale * _unit(estimate)
        older = self._marker('cameras', 0, 0.05 * scale, stamp_ns)
        latest = self._marker('newest_camera', 0, 0.12 * scale, stamp_ns)
        for i, keyframe in enumerate(keyframes):
            marker = latest if i == newest else older
            colour = _colour(sigmas[i][0])
            size = getattr(keyframe.view, 'image', np.zeros((1, 1))).shape[:2]
            for a, b in _frustum(poses[i], estimate.K[i], size, scale):
                marker.points += [_point(a), _point(b)]
                marker.colors += [colour, colour]
        axes = self._marker('object', 0, 0.06 * scale, stamp_ns)
        for k in range(3):
            axes.points += [Point(), _point(np.eye(3)[k] * scale)]
            rgb = [0.15, 0.15, 0.15]
            rgb[k] = 1.0
            axes.colors += [ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=1.0)] * 2
        drawn = [m for m in (older, latest, axes) if m.points]
        return [Marker(action=Marker.DELETEALL), *drawn]

    def _left(self, window, mapped, stamp_ns: int) -> list[Marker]:
        """The cameras of the map that have left the window."""
        scale = self._settings.marker_scale * _unit(mapped.estimate)
        marker = self._marker('map', 0, 0.03 * scale, stamp_ns)
        marker.color = _LEFT
        inside = {k.id for k in window}
        for i, pose in enumerate(_poses(mapped.estimate)):
            if mapped.keyframes[i].id in inside:
                continue
            for a, b in _frustum(pose, mapped.estimate.K[i], (0, 0), 0.6 * scale):
                marker.points += [_point(a), _point(b)]
        return [marker] if marker.points else []

    def _marker(self, name: str, number: int, width: float, stamp_ns: int) -> Marker:
        marker = Marker(ns=name, id=number, type=Marker.LINE_LIST, action=Marker.ADD)
        marker.header.frame_id = self._settings.reference_frame
        marker.header.stamp = time_message(stamp_ns)
        marker.pose.orientation.w = 1.0
        marker.scale.x = float(width)
        return marker


def _poses(estimate) -> list[Pose]:
    return [pose_from_camera(R, t) for R, t in zip(estimate.R, estimate.t, strict=True)]


def _unit(estimate) -> float:
    """The length that an estimate without metric scale has as its unit."""
    return estimate.metric.metres_per_unit if estimate.metric else 1.0


def _sigmas(estimate, i: int) -> tuple[float, float]:
    """Give standard deviations (rad, length) of camera i that are finite and not zero."""
    out, unit = [], _unit(estimate)
    for value, least, unknown in (
        (estimate.rotation_sigma[i], LEAST_ROTATION, UNKNOWN_ROTATION),
        (estimate.centre_sigma[i], LEAST_CENTRE * unit, UNKNOWN_CENTRE * unit),
    ):
        value = float(value)
        # exactly zero is no spread at all: one sample, or an implementation that has none
        out.append(max(value, least) if math.isfinite(value) and value > 0 else unknown)
    return out[0], out[1]


def _colour(rotation_sigma: float) -> ColorRGBA:
    """Green for a certain camera through yellow to red for one with 30 degrees or more."""
    hue = (1 - min(rotation_sigma / _RED_AT, 1.0)) / 3
    r, g, b = colorsys.hsv_to_rgb(hue, 0.9, 0.95)
    return ColorRGBA(r=r, g=g, b=b, a=1.0)


def _point(p) -> Point:
    return Point(x=float(p[0]), y=float(p[1]), z=float(p[2]))


def _frustum(pose: Pose, K: np.ndarray, size: tuple[int, int], depth: float):
    """Return eight line segments in the parent frame: four edges, the image's border, its top."""
    R, t = camera_from_pose(pose)
    height, width = size if min(size) > 1 else (2 * K[1, 2], 2 * K[0, 2])
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    rays = corners @ np.linalg.inv(K).T * depth
    world = (rays - t) @ R
    centre = -t @ R
    segments = [(centre, c) for c in world]
    segments += [(world[k], world[(k + 1) % 4]) for k in range(4)]
    return segments
