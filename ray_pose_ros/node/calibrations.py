"""The CameraInfo of one camera: which one an image has, and what they tell of images to come."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

from sensor_msgs.msg import CameraInfo

KEPT = 60
ANNOUNCED_S = 0.5  # without a CameraInfo for so long, images are not announced by them
MISSED = 3  # images without a CameraInfo of their stamp, after which none is waited for
PEEK_S = 1.0  # an image is taken at least this often, as a sign of life


class Calibrations:
    """
    The last CameraInfo by stamp.

    Drivers publish one with each image, of the same stamp. It is a thousandth of the size, so that
    it serves as an announcement: what an image's stamp can tell is known without the image.
    """

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[int, CameraInfo] = OrderedDict()
        self._last: CameraInfo | None = None
        self._vary = self._paired = False
        self._missed: deque[int] = deque(maxlen=KEPT)  # stamps of images that had none yet
        self._announce, self._arrived, self._peek_at = False, 0.0, 0.0
        self._skipped: deque[int] = deque(maxlen=KEPT)
        self._unusable: deque[int] = deque(maxlen=KEPT)

    def __contains__(self, stamp_ns: int) -> bool:
        return stamp_ns in self._by_stamp or stamp_ns in self._unusable

    @property
    def newest_ns(self) -> int:
        """Stamp of the CameraInfo that came last."""
        return next(reversed(self._by_stamp))

    def add(self, msg: CameraInfo, stamp_ns: int) -> None:
        """Keep one."""
        if self._last is not None and not _same(self._last, msg):
            self._vary = True
        self._last = msg
        self._paired |= stamp_ns in self._missed
        self._by_stamp.pop(stamp_ns, None)  # the newest one is the last
        self._by_stamp[stamp_ns] = msg
        while len(self._by_stamp) > KEPT:
            self._by_stamp.popitem(last=False)
        self._arrived = time.monotonic()

    def add_unusable(self, stamp_ns: int) -> None:
        """Note that the image of a stamp has none: that of another image would be a guess."""
        self._unusable.append(stamp_ns)

    @property
    def awaited(self) -> bool:
        """Whether one of an image's own stamp may yet come."""
        return self._paired or len(self._missed) < MISSED

    def of(self, stamp_ns: int) -> tuple[CameraInfo | None, bool]:
        """
        Return that of an image, or the last one, and whether it is the image's for certain.

        The last one is, as long as they do not change, or where none has had an image's stamp:
        then they are published when they change, and not with images.
        """
        found = self._by_stamp.get(stamp_ns)
        if found is not None:
            self._paired = True
            return found, True
        if stamp_ns in self._unusable:
            return None, True
        self._missed.append(stamp_ns)
        return self._last, self._last is None or not (self._vary and self._paired)

    def forget_change(self) -> None:
        """Take the last one for that of all images to come, until they change again."""
        self._vary = False

    # -- announcements --------------------------------------------------------------------------

    def announce_images(self) -> bool:
        """Say whether the newest one tells of an image that has not been taken yet."""
        now = time.monotonic()
        return self._announce and now - self._arrived <= ANNOUNCED_S and now < self._peek_at

    def note_image(self, stamp_ns: int) -> bool:
        """Note an image that was taken; false when it was counted already (`skip`)."""
        self._peek_at = time.monotonic() + PEEK_S
        known = stamp_ns in self._by_stamp
        if known or (self._by_stamp and stamp_ns < self.newest_ns):
            self._announce = known
        return not (known and stamp_ns in self._skipped)

    def skip(self, stamp_ns: int) -> None:
        """Note that the image of a stamp has been counted without being taken."""
        self._skipped.append(stamp_ns)

    def forget_skipped(self) -> None:
        """After time went back, the same stamps are those of other images."""
        self._skipped.clear()


def _same(a: CameraInfo, b: CameraInfo) -> bool:
    """Compare all that the camera model is made of."""
    return (
        (a.width, a.height, a.binning_x, a.binning_y, a.distortion_model)
        == (b.width, b.height, b.binning_x, b.binning_y, b.distortion_model)
        and list(a.k) == list(b.k)
        and list(a.d) == list(b.d)
        and list(a.p) == list(b.p)
        and a.roi == b.roi
    )
