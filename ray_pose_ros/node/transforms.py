"""What goes to /tf: keyframes, object, the cameras of a rig; and what must not."""

from __future__ import annotations

import math

from geometry_msgs.msg import Pose, TransformStamped
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node.conversions import (
    camera_from_pose,
    pose_from_camera,
    time_message,
    transform_from_pose,
)
from ray_pose_ros.node.frame_tree import FrameTree
from ray_pose_ros.node.rig_settings import leading_camera, rig_names
from ray_pose_ros.node.transform_buffer import Rigid


class Transforms:
    """
    The transforms of the last estimate, repeated for newer images until it is lost.

    - `reference_frame` to every keyframe of the window and to `object_frame`;
    - in a rig, the leading camera's own frame to those of the other cameras;
    - with `invert_tf`, the leading camera's own frame to `reference_frame`, once an estimate;
    - `motion_frame` to `reference_frame`, where that is known (`publish_in_motion_frame`).

    One whose child has a parent elsewhere, or that would close a circle, is left out and said.
    """

    def __init__(self, node, settings) -> None:
        self._node, self._settings = node, settings
        self._publisher = node.create_publisher(TFMessage, '/tf', 100)
        self.tree = FrameTree()
        self.lost: str | None = None
        self._fixed: list[TransformStamped] = []  # these hold for every newer image too
        self._stamp_ns = 0  # of what was sent last
        self._inverted_ns = 0

    def apply_settings(self, settings) -> None:
        """Take over parameters that may change at any time."""
        self._settings = settings
        if not settings.publish_in_motion_frame:
            self._drop_place()

    def clear(self) -> None:
        """Publish nothing until the next estimate."""
        self._fixed, self._stamp_ns, self._inverted_ns, self.lost = [], 0, 0, None

    def rewind(self) -> None:
        """Allow earlier stamps again, after time went back; the robot may begin anew elsewhere."""
        self._stamp_ns = self._inverted_ns = 0
        self._drop_place()

    def lose(self, why: str) -> None:
        """Publish nothing until an estimate can be trusted again."""
        self.lost, self._fixed = why, []

    def publish(
        self,
        keyframes,
        poses: list[Pose],
        rotation_sigma: float,
        stamp_ns: int,
        place: Rigid | None = None,
    ) -> None:
        """
        Publish a window: its keyframes, their poses in `reference_frame`, the newest one's spread,
        and the pose of `reference_frame` in `motion_frame`, where that is known.

        `stamp_ns` is the newest image that was seen, from which on the transforms hold: they must
        not be older than those of the estimate before, which were repeated up to there.
        """
        settings = self._settings
        limit = settings.lost_rotation_sigma
        if 0 < limit < rotation_sigma:
            found = math.degrees(min(rotation_sigma, math.pi))  # no rotation is further off
            self.lose(
                f'the rotation of the newest keyframe is uncertain by {found:.0f} degrees, '
                f'expected at most {math.degrees(limit):.3g} (parameter lost_rotation_sigma)'
            )
            return
        self.lost = None
        reference = settings.reference_frame
        self._fixed = [
            _transform(reference, k.name, p) for k, p in zip(keyframes, poses, strict=True)
        ]
        self._fixed.append(_transform(reference, settings.object_frame, Pose()))
        self._fixed += self._rig(keyframes, poses)
        if place is not None and settings.publish_in_motion_frame:
            from_motion = place.inverse()
            pose = pose_from_camera(from_motion.R, from_motion.p)
            self._fixed.append(_transform(settings.motion_frame, reference, pose))
        inverted = self._inverted(keyframes, poses, stamp_ns)
        self.repeat(max(stamp_ns, self._stamp_ns + 1), inverted)

    def repeat(self, stamp_ns: int, more: list[TransformStamped] | None = None) -> None:
        """Publish the transforms of the last estimate for a newer image's time."""
        if not self._fixed or not self._settings.publish_tf or stamp_ns <= self._stamp_ns:
            return
        self._stamp_ns = stamp_ns
        stamp = time_message(stamp_ns)
        for transform in self._fixed:
            transform.header.stamp = stamp
        sent = [*self._fixed, *(more or [])]
        if not self.tree.has_listened:  # somebody else may have put the reference frame somewhere
            sent = [t for t in sent if t.child_frame_id != self._settings.reference_frame]
        allowed = [t for t in sent if self._may(t)]
        self.tree.claim([(t.header.frame_id, t.child_frame_id) for t in allowed])
        self._publisher.publish(TFMessage(transforms=allowed))

    def _drop_place(self) -> None:
        """Repeat no more where `reference_frame` is in `motion_frame`."""
        reference = self._settings.reference_frame
        self._fixed = [t for t in self._fixed if t.child_frame_id != reference]

    def _may(self, transform: TransformStamped) -> bool:
        objection = self.tree.objection(transform.header.frame_id, transform.child_frame_id)
        if objection:
            self._node.refuse('', '/tf', 'tf_conflict', f'not published: {objection}')
        return objection is None

    def _rig(self, keyframes, poses) -> list[TransformStamped]:
        """From the leading camera to the others, of its newest set in the window."""
        names = rig_names(self._settings)
        leader, at = _newest_of(names[:1], keyframes, poses)
        if leader is None or not self.tree.has_listened:
            return []
        R, t = camera_from_pose(at)
        slop, out = round(self._settings.sync_slop * 1e9), {}
        for keyframe, pose in zip(keyframes, poses, strict=True):
            if keyframe.camera not in names[1:] or keyframe.frame_id in ('', leader.frame_id):
                continue  # there are drivers that call all cameras the same
            if self._settings.motion_frame and self.tree.parent(keyframe.frame_id):
                continue  # it is calibrated, and what the scale is from
            if abs(keyframe.stamp_ns - leader.stamp_ns) <= slop:
                Ro, to = camera_from_pose(pose)
                relative = pose_from_camera(Ro @ R.T, to - Ro @ R.T @ t)
                out[keyframe.camera] = _transform(leader.frame_id, keyframe.frame_id, relative)
        return list(out.values())

    def _inverted(self, keyframes, poses, seen_ns: int) -> list[TransformStamped]:
        """From the leading camera to the reference frame, at its newest keyframe."""
        settings = self._settings
        leader, at = _newest_of([leading_camera(settings)], keyframes, poses)
        if not settings.invert_tf or leader is None or not self.tree.has_listened:
            return []
        if leader.stamp_ns > seen_ns:
            return []  # it is from before time went back
        # a better pose of the same keyframe has to be newer than the one before
        self._inverted_ns = max(leader.stamp_ns, self._inverted_ns + 1)
        R, t = camera_from_pose(at)
        # the pose of the reference frame in the camera's, where x_camera = R x_reference + t
        inverse = pose_from_camera(R.T, -R.T @ t)
        transform = _transform(leader.frame_id, settings.reference_frame, inverse)
        transform.header.stamp = time_message(self._inverted_ns)
        return [transform]


def _newest_of(cameras: list[str], keyframes, poses):
    """Return the newest keyframe of some cameras that names its frame, and its pose, or Nones."""
    own = [(k, p) for k, p in zip(keyframes, poses, strict=True) if k.camera in cameras]
    own = [(k, p) for k, p in own if k.frame_id]
    return own[newest_index([k for k, _ in own])] if own else (None, None)


def newest_index(keyframes, seen_ns: int = 0) -> int:
    """
    Index of the newest keyframe, apart from those before the time of any camera went back.

    Nor is it one that is ahead of `seen_ns`, the newest image that counts, where that is told.
    """
    last, left = {}, []
    for i, keyframe in enumerate(keyframes):
        camera, stamp_ns = keyframe.camera, keyframe.stamp_ns
        if stamp_ns < last.get(camera, stamp_ns):  # a camera that is dead by now does not say so
            left = [k for k in left if keyframes[k].stamp_ns <= stamp_ns]
        last[camera] = stamp_ns
        left.append(i)
    seen = [i for i in left if keyframes[i].stamp_ns <= seen_ns]
    return max(seen or left, key=lambda i: (keyframes[i].stamp_ns, i))


def _transform(parent: str, child: str, pose: Pose) -> TransformStamped:
    transform = TransformStamped()
    transform.header.frame_id, transform.child_frame_id = parent, child
    transform.transform = transform_from_pose(pose)
    return transform
