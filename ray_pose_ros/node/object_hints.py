"""Where the object is in a camera's images: what `<camera>/roi` and `<camera>/mask` said."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from sensor_msgs.msg import Image, RegionOfInterest

KEPT_ROIS, KEPT_MASKS = 60, 12


@dataclass(frozen=True)
class Hint:
    """A box (xyxy, pixels) or a mask message, or why there is neither; all None: nothing said."""

    box: list[float] | None = None
    mask: Image | None = None
    problem: str | None = None


class ObjectHints:
    """
    The last regions and masks of one camera; the nearest in time is that of an image.

    Masks are compared by stamp. A RegionOfInterest has none, so the times count at which image and
    region arrived, in seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._rois: deque[tuple[float, RegionOfInterest]] = deque(maxlen=KEPT_ROIS)
        self._masks: OrderedDict[int, Image] = OrderedDict()

    def add_roi(self, roi: RegionOfInterest, arrived: float) -> None:
        """Keep a region; one without a size takes back what was said before."""
        if roi.width and roi.height:
            self._rois.append((arrived, roi))
        else:
            self._rois.clear()

    def add_mask(self, mask: Image, stamp_ns: int) -> None:
        """Keep a mask."""
        self._masks[stamp_ns] = mask
        while len(self._masks) > KEPT_MASKS:
            self._masks.popitem(last=False)

    def rewind(self, stamp_ns: int) -> None:
        """Forget masks of later stamps, after time went back."""
        for late in [s for s in self._masks if s > stamp_ns]:
            del self._masks[late]

    def waits_for(self, stamp_ns: int, arrived: float) -> bool:
        """
        Say whether masks come, but the one of an image's stamp has not yet; or so for regions.

        A region that came once holds for all images: none is waited for.
        """
        if self._masks:
            return max(self._masks) < stamp_ns
        return len(self._rois) > 1 and self._rois[-1][0] < arrived

    def find(self, stamp_ns: int, arrived: float, timeout: float) -> Hint:
        """
        Find what holds for the image of a stamp that arrived at a time.

        A mask goes before a region. `timeout` in seconds is how far away in time one may be, 0 is
        any distance. That all are further away is the `problem`: an object that its detector has
        lost is not in the middle of the image instead.
        """
        ages = []
        if self._masks:
            nearest = min(self._masks, key=lambda s: abs(s - stamp_ns))
            ages.append(('mask', abs(nearest - stamp_ns) * 1e-9))
            if not timeout or ages[-1][1] <= timeout:
                return Hint(mask=self._masks[nearest])
        if self._rois:
            at, roi = min(self._rois, key=lambda pair: abs(pair[0] - arrived))
            ages.append(('region', abs(at - arrived)))
            if not timeout or ages[-1][1] <= timeout:
                x, y = float(roi.x_offset), float(roi.y_offset)
                return Hint(box=[x, y, x + roi.width, y + roi.height])
        if not ages:
            return Hint()
        kind, age = min(ages, key=lambda pair: pair[1])
        return Hint(
            problem=f'the nearest {kind} of the object is {age:.2f} s away, expected at most '
            f'{timeout:g} s (parameter object_timeout)'
        )
