"""
Where the cameras were in `motion_frame`, by /tf: of each keyframe, and whether they stand still.

Everything is on the executor's thread and nothing waits: what TF does not know yet of a keyframe
is asked again at each tick, for `motion_timeout` seconds.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

import numpy as np
from tf2_msgs.msg import TFMessage

from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.node.conversions import matrix_from_quaternion, nanoseconds
from ray_pose_ros.node.transform_buffer import NoTransform, Rigid, TransformBuffer

KEPT = 512  # keyframes and candidates whose pose is remembered
MOST_VIEWS = 64  # of a window; these are remembered whatever comes after them
LATE_NS = 500_000_000  # TF that is no older than this tells whether a camera moves now
Key = tuple[str, int]  # camera, stamp in nanoseconds


class Motion:
    """
    Poses of the cameras, camera-to-`motion_frame`. Does nothing while that parameter is empty.

    `is_own(parent, child)` tells the transforms that this node publishes itself: to take the scale
    from them would be to ask itself. `report(text)` is called for a keyframe without a pose.
    """

    def __init__(self, settings, is_own: Callable[[str, str], bool], report: Callable) -> None:
        self.buffer = TransformBuffer()
        self._settings, self._is_own, self._report = settings, is_own, report
        self._known: OrderedDict[Key, Rigid] = OrderedDict()
        self._waiting: OrderedDict[Key, tuple[str, float]] = OrderedDict()  # frame, until when
        self._kept: deque[Key] = deque(maxlen=MOST_VIEWS)
        self._last: dict[str, tuple[Key, str]] = {}  # of each camera's last keyframe: its frame
        self._still: dict[str, int] = {}  # a stamp at which a camera was found standing still

    @property
    def wanted(self) -> bool:
        """Whether there is a frame to look for."""
        return bool(self._settings.motion_frame)

    def apply_settings(self, settings) -> None:
        """Take over parameters that may change at any time."""
        self._settings = settings
        self._still.clear()

    def forget(self) -> None:
        """Forget all keyframes."""
        for of_keyframes in (self._known, self._waiting, self._kept, self._last, self._still):
            of_keyframes.clear()

    def rewind(self) -> None:
        """Forget all that moves: time went back, and old poses may be of another motion frame."""
        self.forget()
        self.buffer.clear()

    # -- /tf ------------------------------------------------------------------------------------

    def on_tf(self, msg: TFMessage, static: bool = False) -> None:
        """Note transforms; those that are none are left out, as tf2 does."""
        for transform in msg.transforms:
            parent = transform.header.frame_id.lstrip('/')
            child = transform.child_frame_id.lstrip('/')
            if not parent or not child or parent == child or self._is_own(parent, child):
                continue
            p, q = transform.transform.translation, transform.transform.rotation
            place = np.array([p.x, p.y, p.z])
            try:
                pose = Rigid(matrix_from_quaternion([q.x, q.y, q.z, q.w]), place)
            except ValueError:
                continue
            if not np.isfinite(place).all():
                continue
            if static:
                self.buffer.add_static(parent, child, pose)
            else:
                self.buffer.add(parent, child, nanoseconds(transform.header.stamp), pose)

    # -- keyframes ------------------------------------------------------------------------------

    def want(self, camera: str, stamp_ns: int, frame_id: str) -> None:
        """Have the pose of a camera at the time of a keyframe looked up, now or soon."""
        if not self.wanted:
            return
        key = camera, stamp_ns
        self._waiting[key] = frame_id.lstrip('/'), time.monotonic() + self._settings.motion_timeout
        self._last[camera] = key, frame_id.lstrip('/')
        self._still.pop(camera, None)
        self._ask(key)
        if len(self._waiting) > KEPT:
            self._waiting.popitem(last=False)

    def keep(self, camera: str, stamp_ns: int) -> None:
        """Remember a keyframe's pose for as long as it can be in the window."""
        self._kept.append((camera, stamp_ns))

    def settle(self) -> set[Key]:
        """Look up what is waited for; returns the keyframes whose pose is known from now on."""
        return {key for key in list(self._waiting) if self._ask(key)}

    def _ask(self, key: Key) -> bool:
        """Look up a keyframe's pose and stop waiting for it if that is in vain."""
        frame, until = self._waiting[key]
        try:
            if not frame:
                raise NoTransform(f'the images of {key[0]} name no frame')
            pose = self.buffer.look_up(self._frame, frame, key[1])
        except NoTransform as missing:
            if time.monotonic() > until:
                del self._waiting[key]
                self._report(
                    f'{missing}; a keyframe has no known pose in {self._frame!r} (parameters '
                    'motion_frame and motion_timeout)'
                )
            return False
        del self._waiting[key]
        self._known[key] = pose
        if len(self._known) > KEPT:
            # never empty: those that are kept whatever comes are fewer
            del self._known[next(k for k in self._known if k not in self._kept)]
        return True

    def poses(self, keys: Iterable[Key]) -> list[Rigid | None]:
        """The poses of keyframes, None where TF has not told them."""
        return [self._known.get(key) for key in keys]

    @property
    def _frame(self) -> str:
        return self._settings.motion_frame

    # -- the gate -------------------------------------------------------------------------------

    def stands_still(self, cameras: list[str], stamp_ns: int) -> bool:
        """
        Whether all of these cameras are, at a time, known to be where their last keyframe was.

        Their newest pose stands for that of an image which TF is just behind; what is not known is
        not standing still.
        """
        settings = self._settings
        if not self.wanted or not (
            settings.keyframe_min_translation or settings.keyframe_min_rotation
        ):
            return False
        return all(self._still.get(c) == stamp_ns or self._is_still(c, stamp_ns) for c in cameras)

    def _is_still(self, camera: str, stamp_ns: int) -> bool:
        key, frame = self._last.get(camera, (None, ''))
        before = self._known.get(key)
        if before is None:
            return False
        newest_ns = self.buffer.newest_ns(self._frame, frame)
        if newest_ns is None or (newest_ns and stamp_ns - newest_ns > LATE_NS):
            return False
        try:
            at_ns = min(stamp_ns, newest_ns) if newest_ns else stamp_ns
            now = self.buffer.look_up(self._frame, frame, at_ns)
        except NoTransform:
            return False
        moved = float(np.linalg.norm(now.p - before.p))
        turned = math.degrees(float(angle_between(before.R, now.R)))
        settings = self._settings
        for least, found in (
            (settings.keyframe_min_translation, moved),
            (settings.keyframe_min_rotation, turned),
        ):
            if 0 < least <= found:
                return False
        self._still[camera] = stamp_ns
        return True
