"""
One camera's subscriptions: validate, gate, pair with CameraInfo, hand over.

Runs on the executor's thread and does as little as it can: most frames are dropped by their stamp
alone, the rest after a look at a thumbnail, and only those that pass are decoded, elsewhere.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from typing import Protocol

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ray_pose_ros.estimation.keyframes import KeyframeGate, frame_safe, thumbnail
from ray_pose_ros.estimation.views import View
from ray_pose_ros.node.conversions import (
    CameraInfoError,
    camera_from_info,
    check_camera_info,
    expected_size,
    glance,
    image_from_message,
    nanoseconds,
)
from ray_pose_ros.node.encodings import ImageError
from ray_pose_ros.node.worker import Candidate

JUMP_NS = 1_000_000_000  # stamps that go back further mean that time was reset, not disorder
HELD_S = 0.3  # how long an image waits for the CameraInfo of its stamp
KEPT_INFOS = 60


class Host(Protocol):
    """What a camera needs of the node."""

    settings: object
    enabled: bool

    def now_ns(self) -> int:
        """Return the node's clock."""

    def offer(self, candidate: Candidate) -> None:
        """Take a frame that passed."""

    def drop(self, camera: str, reason: str) -> None:
        """Count a frame that is not needed."""

    def refuse(self, camera: str, topic: str, reason: str, text: str) -> None:
        """Count a message that cannot be used, and say so."""


class CameraInput:
    """The state of one camera between its messages."""

    def __init__(self, host: Host, name: str, image_topic: str, info_topic: str) -> None:
        self.name, self.image_topic, self.info_topic = name, image_topic, info_topic
        self.received = 0
        self.last_stamp_ns: int | None = None  # of the newest image that could be used
        self.last_received: float | None = None
        self._host = host
        self._gate = KeyframeGate()
        self._infos: OrderedDict[int, CameraInfo] = OrderedDict()
        self._latest: CameraInfo | None = None
        self._varies = False
        self._held: tuple | None = None
        self.apply_settings()

    def apply_settings(self) -> None:
        """Take over parameters that may change at any time."""
        settings = self._host.settings
        self._gate.min_interval = settings.keyframe_min_interval
        self._gate.min_change = settings.keyframe_min_change
        self._gate.max_interval = settings.keyframe_max_interval

    def capture(self) -> None:
        """Let the next image become a keyframe."""
        self._gate.force()

    def reset(self) -> None:
        """Forget the last keyframe and what waits; the calibration stays."""
        self._gate.reset()
        self._held = None

    # -- camera_info ----------------------------------------------------------------------------

    def on_info(self, msg: CameraInfo) -> None:
        """Keep a CameraInfo; an image that waited for it goes on."""
        try:
            check_camera_info(msg)
        except CameraInfoError as error:
            if self._host.settings.require_camera_info or any(msg.k):
                self._refuse(self.info_topic, 'bad_camera_info', str(error))
                return
        if self._latest is not None and not _same_calibration(self._latest, msg):
            self._varies = True
        self._latest = msg
        self._infos[nanoseconds(msg.header.stamp)] = msg
        while len(self._infos) > KEPT_INFOS:
            self._infos.popitem(last=False)
        if self._held and nanoseconds(msg.header.stamp) == self._held[1]:
            self._release()

    def tick(self) -> None:
        """Let an image go that has waited long enough for its CameraInfo."""
        if self._held and time.monotonic() - self._held[3] > HELD_S:
            self._release()

    # -- images ---------------------------------------------------------------------------------

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Take an image message: most end here, by their time stamp or as too like the last."""
        self.received += 1
        self.last_received = time.monotonic()
        if self._held:
            self._release()
        if not self._host.enabled:
            self._host.drop(self.name, 'paused')
            return
        settings = self._host.settings
        stamp_ns = nanoseconds(msg.header.stamp) or self._host.now_ns()
        if not self._in_time(stamp_ns, settings.stale_timeout):
            return
        seconds = stamp_ns * 1e-9
        reason = self._gate.refuses_time(seconds)
        if reason:
            self.last_stamp_ns = stamp_ns
            self._host.drop(self.name, reason)
            return
        try:
            seen, width, height = glance(msg, settings.max_image_megapixels)
        except ImageError as error:
            self._refuse(self.image_topic, 'bad_image', str(error))
            return
        self.last_stamp_ns = stamp_ns
        small = thumbnail(seen)
        reason = self._gate.refuses_image(seconds, small)
        if reason:
            self._host.drop(self.name, reason)
            return
        self._held = (msg, stamp_ns, small, time.monotonic(), (width, height))
        if stamp_ns in self._infos:
            self._release()

    def _in_time(self, stamp_ns: int, stale_timeout: float) -> bool:
        age = (self._host.now_ns() - stamp_ns) * 1e-9
        if stale_timeout > 0 and age > stale_timeout:
            self._refuse(
                self.image_topic,
                'stale',
                f'image is {age:.1f} s old, expected at most {stale_timeout:g} s (parameter '
                'stale_timeout; is a bag played without use_sim_time?)',
            )
            return False
        last = self.last_stamp_ns
        if last is None or stamp_ns > last:
            return True
        if last - stamp_ns > JUMP_NS:
            self._refuse(
                self.image_topic,
                'time_jump',
                f'stamps went back by {(last - stamp_ns) * 1e-9:.1f} s; starting afresh from here',
            )
            self._gate.reset()
            return True
        self._host.drop(self.name, 'duplicate' if stamp_ns == last else 'out_of_order')
        return False

    def _release(self) -> None:
        """Send the held image on with its CameraInfo, or refuse it."""
        msg, stamp_ns, small, _, size = self._held
        self._held = None
        info = self._infos.get(stamp_ns)
        if info is None and self._latest is not None:
            if self._varies:
                self._refuse(
                    self.image_topic,
                    'no_camera_info',
                    f'no message on {self.info_topic} has the stamp of this image, and the '
                    'calibration there changes, expected one for each image',
                )
                return
            info = self._latest
        problem = self._mismatch(msg, info, size)
        if problem:
            self._refuse(self.image_topic, *problem)
            return
        self._gate.accept(stamp_ns * 1e-9, small)
        settings = self._host.settings
        calibrated = info is not None and any(info.k)
        make_view = partial(
            _make_view,
            msg,
            info if calibrated else None,
            settings.max_image_megapixels,
            list(settings.box) if any(settings.box) else None,
            f'{frame_safe(self.name)}_{stamp_ns}.png',
            stamp_ns * 1e-9,
        )
        self._host.offer(
            Candidate(self.name, self.image_topic, stamp_ns, msg.header.frame_id, make_view)
        )

    def _mismatch(self, msg, info: CameraInfo | None, size) -> tuple[str, str] | None:
        if info is None:
            if self._host.settings.require_camera_info:
                return (
                    'no_camera_info',
                    f'there is no usable message on {self.info_topic}, expected the calibration '
                    '(parameter require_camera_info)',
                )
            return None
        if any(info.k) and expected_size(info) != tuple(size):
            return (
                'wrong_size',
                f'image is {size[0]}x{size[1]}, but {self.info_topic} is for '
                '{}x{} (ROI and binning applied)'.format(*expected_size(info)),
            )
        frames = msg.header.frame_id, info.header.frame_id
        if all(frames) and frames[0] != frames[1]:
            return (
                'wrong_frame',
                f'frame_id is {frames[0]!r}, but {frames[1]!r} on {self.info_topic}',
            )
        return None

    def _refuse(self, topic: str, reason: str, text: str) -> None:
        self._host.refuse(self.name, topic, reason, text)


def _make_view(msg, info, max_megapixels: float, box, name: str, stamp: float) -> View:
    """Decode a message to a View; on the worker's thread."""
    image = image_from_message(msg, max_megapixels)
    height, width = image.shape[:2]
    camera = None if info is None else camera_from_info(info, width, height)
    return View(image, camera, box=box, name=name, stamp=stamp)


def _same_calibration(a: CameraInfo, b: CameraInfo) -> bool:
    return (
        (a.width, a.height, a.binning_x, a.binning_y, a.distortion_model)
        == (b.width, b.height, b.binning_x, b.binning_y, b.distortion_model)
        and list(a.k) == list(b.k)
        and list(a.d) == list(b.d)
        and a.roi == b.roi
    )
