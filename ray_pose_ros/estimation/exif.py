"""The focal length that a camera has written into its photograph.

EXIF 2.32 (CIPA DC-008): FocalLengthIn35mmFilm is that of a lens with the same diagonal field of
view on 36 mm x 24 mm; FocalPlaneXResolution is pixels of the sensor's image per unit of length.
"""

from __future__ import annotations

import math

from PIL import Image

_DETAILS = 0x8769
_FOCAL_LENGTH, _IN_35_MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_RESOLUTION, _UNIT = 0xA20E, 0xA210
_DIAGONAL_MM = math.hypot(36, 24)
_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of the unit of resolution
_LEAST, _MOST = 0.2, 20.0  # longer sides: what a central camera's pinhole may have
_SAME_SHAPE = 0.02  # the ratio of the sides: else the photograph has been cut
_SENSORS = 4 / 3, 3 / 2  # their sides; cameras that write others cut them, most from the first


def focal_length(image: Image.Image) -> float | None:
    """Focal length in pixels of the image as it is stored; None where it tells none.

    A photograph that was reduced since keeps its field of view, one that was cut does not: its
    sides then have another ratio than those that the camera has noted, and nothing is told.
    """
    try:
        details = image.getexif().get_ifd(_DETAILS)
        tags = (_FOCAL_LENGTH, _IN_35_MM, _WIDTH, _HEIGHT, _RESOLUTION, _UNIT)
        mm, equivalent, width, height, resolution, unit = (_number(details.get(t)) for t in tags)
    except (ValueError, TypeError, OSError, SyntaxError, KeyError):
        return None  # a damaged block
    if width and height and abs(_ratio(width, height) / _ratio(*image.size) - 1) > _SAME_SHAPE:
        return None
    if equivalent:
        focal = equivalent / _DIAGONAL_MM * _diagonal(*image.size)
    elif mm and resolution:
        scale = image.width / width if width else 1.0
        if width and height:  # software turns images and leaves the noted sides as they were
            scale = max(image.size) / max(width, height)
        focal = mm * resolution / _MM.get(int(unit), 25.4) * scale
    else:
        return None
    longer = max(image.size)
    return focal if _LEAST * longer < focal < _MOST * longer else None


def _diagonal(width: int, height: int) -> float:
    """Pixels, of the sensor that a camera has used this much of."""
    ratio = _ratio(width, height)
    if any(abs(ratio / whole - 1) < _SAME_SHAPE for whole in _SENSORS):
        return math.hypot(width, height)
    whole = _SENSORS[0]
    longer = max(width, height) if ratio > whole else whole * min(width, height)
    return math.hypot(longer, longer / whole)


def _ratio(width: float, height: float) -> float:
    return max(width, height) / min(width, height)


def _number(value) -> float:
    """A tag's value; 0, which EXIF says for unknown, for everything that is no number above it."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
