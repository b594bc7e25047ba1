"""
One camera's messages: validate, gate, pair with CameraInfo and object, hand over.

Runs on the executor's thread and does as little as it can: most frames are dropped by their stamp
alone, without their image being taken from the middleware where a CameraInfo of the same stamp
announces them. The rest get a look at a thumbnail, and those that pass are decoded elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from ray_pose_ros.estimation.keyframes import (
    NOT_MOVED,
    TOO_SOON,
    UNCHANGED,
    KeyframeGate,
    thumbnail,
)
from ray_pose_ros.node.calibrations import Calibrations
from ray_pose_ros.node.conversions import (
    CameraInfoError,
    check_camera_info,
    check_message,
    check_stamp,
    glance,
    nanoseconds,
)
from ray_pose_ros.node.encodings import ImageError
from ray_pose_ros.node.frame_checks import candidate, mismatch
from ray_pose_ros.node.object_hints import Hint, ObjectHints
from ray_pose_ros.node.work import Candidate

JUMP_NS = 1_000_000_000  # stamps that go back further mean that time was reset, not disorder
HELD_S = 0.3  # how long an image waits for its CameraInfo, and its mask or region
LOOK_SHARE = 0.4  # of keyframe_min_interval passes between two looks at an unchanged scene


class Host(Protocol):
    """What a camera needs of the node."""

    settings: object
    enabled: bool

    def now_ns(self) -> int:
        """Return the node's clock."""

    def offer_all(self, candidates: list[Candidate]) -> None:
        """Take frames that passed, of one time."""

    def drop(self, camera: str, reason: str) -> None:
        """Count a frame that is not needed."""

    def refuse(self, camera: str, topic: str, reason: str, text: str) -> None:
        """Count a message that cannot be used, and say so."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image that passed its camera's gate; what belongs to it is added as it comes."""

    camera: str
    msg: Image | CompressedImage
    stamp_ns: int
    size: tuple[int, int]
    small: np.ndarray
    changed: bool  # against the camera's last keyframe
    arrived: float  # by the monotonic clock
    info: CameraInfo | None = None
    hint: Hint = Hint()


class CameraInput:
    """The state of one camera between its messages."""

    def __init__(
        self, host: Host, name: str, image_topic: str, info_topic: str, mask_topic: str = ''
    ) -> None:
        self.name, self.image_topic, self.info_topic = name, image_topic, info_topic
        self.mask_topic = mask_topic
        self.received = 0
        self.last_stamp_ns: int | None = None  # of the newest image that is known of
        self.last_received: float | None = None
        self.pass_on: Callable[[Frame], None] = self._send  # a rig takes this over
        self.in_rig = False
        self.stands_still: Callable[[int], bool] = lambda stamp_ns: False  # by /tf
        self._host = host
        self._gate = KeyframeGate()
        self._hints = ObjectHints()
        self._infos = Calibrations()
        self._held: Frame | None = None
        self._looked_ns: int | None = None  # an unchanged frame
        self._retry = False
        self._taken_ns: int | None = None  # of the last image that could be used
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
        self._looked_ns = None

    def retry(self) -> None:
        """Take the next image in time whatever it shows: the last keyframe was none after all."""
        self._retry, self._looked_ns = True, None

    def reset(self) -> None:
        """Forget the last keyframe and what waits; the calibration stays."""
        self._gate.reset()
        self._infos.forget_change()
        if self._held:
            self._host.drop(self.name, 'reset')
        self._held = self._looked_ns = None

    # -- camera_info, roi, mask -----------------------------------------------------------------

    def on_info(self, msg: CameraInfo) -> None:
        """Keep a CameraInfo; an image that waited for it goes on."""
        try:
            check_stamp(msg.header.stamp)
        except ValueError as error:
            self._refuse(self.info_topic, 'bad_camera_info', str(error))
            return
        stamp_ns = nanoseconds(msg.header.stamp)
        try:
            check_camera_info(msg)
        except CameraInfoError as error:
            if self._host.settings.require_camera_info or any(msg.k):
                self._infos.add_unusable(stamp_ns)
                self._refuse(self.info_topic, 'bad_camera_info', str(error))
                self._settle()
                return
        self._infos.add(msg, stamp_ns)
        newest_ns = self.last_stamp_ns or 0
        if newest_ns - stamp_ns > JUMP_NS:
            self._infos.forget_skipped()  # time went back; the image will say so
        reason = None if self.wants_images() else self._needless(stamp_ns)
        if reason and stamp_ns > newest_ns:
            self._infos.skip(stamp_ns)
            self.received += 1
            self.last_stamp_ns, self.last_received = stamp_ns, time.monotonic()
            self._host.drop(self.name, reason)
        self._settle()

    def on_roi(self, msg: RegionOfInterest) -> None:
        """Note where the object is from now on; an image that waited for it goes on."""
        self._hints.add_roi(msg, time.monotonic())
        self._settle()

    def on_mask(self, msg: Image) -> None:
        """Keep a mask of the object; an image that waited for it goes on."""
        try:
            check_message(msg, self._host.settings.max_image_megapixels)
        except ImageError as error:
            self._refuse(self.mask_topic, 'bad_mask', str(error))
            return
        self._hints.add_mask(msg, nanoseconds(msg.header.stamp) or self._host.now_ns())
        self._settle()

    def tick(self) -> None:
        """Let an image go that has waited long enough for what belongs to it."""
        self._settle()

    # -- images ---------------------------------------------------------------------------------

    def wants_images(self) -> bool:
        """Say whether images are to be taken from the middleware at all now."""
        return not self._infos.announce_images() or not self._needless(self._infos.newest_ns)

    def on_image(self, msg: Image | CompressedImage) -> None:
        """Take an image message: most end here, by their time stamp or as too like the last."""
        self.last_received = now = time.monotonic()
        try:
            check_stamp(msg.header.stamp)
        except ValueError as error:
            self.received += 1
            self._refuse(self.image_topic, 'bad_stamp', str(error))
            return
        stamp_ns = nanoseconds(msg.header.stamp) or self._host.now_ns()
        if not self._infos.note_image(stamp_ns):
            return
        self.received += 1
        if not self._host.enabled:
            self._host.drop(self.name, 'paused')
            return
        settings = self._host.settings
        if not self._in_time(stamp_ns, settings.stale_timeout):
            return
        reason = self._needless(stamp_ns)
        if reason:
            self._note(stamp_ns)
            self._host.drop(self.name, reason)
            return
        if self._held:
            self._settle(now=True)
        try:
            seen, width, height = glance(msg, settings.max_image_megapixels)
        except ImageError as error:
            self._refuse(self.image_topic, 'bad_image', str(error))
            return
        self._note(stamp_ns)
        small = thumbnail(seen)
        changed = self._retry or self._gate.refuses_image(stamp_ns * 1e-9, small) is None
        frame = Frame(self.name, msg, stamp_ns, (width, height), small, changed, now)
        if not changed and not self.in_rig:
            self.unchanged(frame)
            return
        self._held = frame
        self._settle()

    def _note(self, stamp_ns: int) -> None:
        """Remember the stamp of an image that was taken."""
        self._taken_ns = stamp_ns
        self.last_stamp_ns = max(stamp_ns, self.last_stamp_ns or 0)

    def _needless(self, stamp_ns: int) -> str | None:
        """Say why an image of this stamp needs no look, None for one that does."""
        if not self._host.enabled:
            return 'paused'
        if self._gate.refuses_time(stamp_ns * 1e-9):
            return TOO_SOON
        interval = round(self._gate.min_interval * 1e9)
        for since, wait in (
            (self._looked_ns, LOOK_SHARE * interval),
            (self._held.stamp_ns if self._held else None, interval),
        ):
            if since is not None and 0 <= stamp_ns - since < wait:
                return TOO_SOON
        if self._retry or not self._gate.heeds_motion(stamp_ns * 1e-9):
            return None
        return NOT_MOVED if self.stands_still(stamp_ns) else None

    def _in_time(self, stamp_ns: int, stale_timeout: float) -> bool:
        now_ns = self._host.now_ns()
        age = (now_ns - stamp_ns) * 1e-9
        if 0 < stale_timeout < abs(age):
            where = 'old' if age > 0 else 'ahead of this clock'
            guess = 'is a bag played without use_sim_time?'
            if not now_ns:
                guess = 'use_sim_time is set, and /clock has not told the time'
            self._refuse(
                self.image_topic,
                'stale',
                f'image is {abs(age):.1f} s {where}, expected at most {stale_timeout:g} s '
                f'(parameter stale_timeout; {guess})',
            )
            return False
        last = self._taken_ns
        if last is None or stamp_ns > last:
            return True
        if last - stamp_ns > JUMP_NS:
            self._refuse(
                self.image_topic,
                'time_jump',
                f'stamps went back by {(last - stamp_ns) * 1e-9:.1f} s; starting afresh from here',
            )
            self.reset()
            self._hints.rewind(stamp_ns + JUMP_NS)
            self._infos.forget_skipped()
            self.last_stamp_ns = None
            return True
        self._host.drop(self.name, 'duplicate' if stamp_ns == last else 'out_of_order')
        return False

    # -- a frame that passed --------------------------------------------------------------------

    def _settle(self, now: bool = False) -> None:
        """Send the held image on with what belongs to it, when that is there or will not come."""
        frame = self._held
        if frame is None:
            return
        calibrated = frame.stamp_ns in self._infos or not self._infos.awaited
        complete = calibrated and not self._hints.waits_for(frame.stamp_ns, frame.arrived)
        if not (now or complete or time.monotonic() - frame.arrived > HELD_S):
            return
        self._held = None
        info, certain = self._infos.of(frame.stamp_ns)
        settings = self._host.settings
        problem = mismatch(frame, info, self.info_topic, settings)
        if not certain:
            problem = (
                'no_camera_info',
                f'no message on {self.info_topic} has the stamp of this image, and the '
                'calibration there changes, expected one for each image',
            )
        hint = self._hints.find(frame.stamp_ns, frame.arrived, settings.object_timeout)
        if problem is None and hint.problem:
            problem = ('no_object', hint.problem)
        if problem:
            self._refuse(self.image_topic, *problem)
            return
        self.pass_on(replace(frame, info=info, hint=hint))

    def _send(self, frame: Frame) -> None:
        self._host.offer_all([self.accept(frame)])

    def accept(self, frame: Frame) -> Candidate:
        """Remember a frame as the camera's last keyframe and make a candidate of it."""
        self._gate.accept(frame.stamp_ns * 1e-9, frame.small)
        self._looked_ns, self._retry = None, False
        return candidate(frame, self.image_topic, self._host.settings)

    def unchanged(self, frame: Frame) -> None:
        """Drop a frame that shows what the last keyframe did; the next look may wait."""
        self._looked_ns = frame.stamp_ns
        self._host.drop(self.name, UNCHANGED)

    def _refuse(self, topic: str, reason: str, text: str) -> None:
        self._host.refuse(self.name, topic, reason, text)
