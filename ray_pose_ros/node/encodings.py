"""Pixels of an Image or a CompressedImage to RGB. Plain numpy and OpenCV, no ROS import."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_STEP = 4096  # bytes of padding that are looked at at once
MOST_BYTES = 8  # a pixel: four channels of 16 bits


class ImageError(ValueError):
    """An image that cannot be used; the text says the value found and what was expected."""


@dataclass(frozen=True)
class Format:
    """Memory layout of a pixel format: channels a pixel, bytes a channel, how to get RGB."""

    channels: int
    itemsize: int
    to_rgb: str  # 'rgb', 'bgr', 'mono', 'bayer', 'yuv', 'planar'
    code: int = -1  # OpenCV conversion code, where one is needed
    rows: float = 1.0  # rows in memory a row of pixels: a plane of colour may follow


# OpenCV names a Bayer pattern after the second row's second and third pixel, ROS after the first
# row's first two: rggb is OpenCV's "BG".
_BAYER = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}
FORMATS: dict[str, Format] = {
    'rgb8': Format(3, 1, 'rgb'),
    'rgba8': Format(4, 1, 'rgb'),
    'bgr8': Format(3, 1, 'bgr'),
    'bgra8': Format(4, 1, 'bgr'),
    'mono8': Format(1, 1, 'mono'),
    'mono16': Format(1, 2, 'mono'),
    'rgb16': Format(3, 2, 'rgb'),
    'rgba16': Format(4, 2, 'rgb'),
    'bgr16': Format(3, 2, 'bgr'),
    'bgra16': Format(4, 2, 'bgr'),
    '8UC1': Format(1, 1, 'mono'),
    '8UC3': Format(3, 1, 'bgr'),  # OpenCV's own order: that is what fills such messages
    '8UC4': Format(4, 1, 'bgr'),
    '16UC1': Format(1, 2, 'mono'),
    '16UC3': Format(3, 2, 'bgr'),
    '16UC4': Format(4, 2, 'bgr'),
    'yuv422': Format(2, 1, 'yuv', cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': Format(2, 1, 'yuv', cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': Format(2, 1, 'yuv', cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': Format(2, 1, 'yuv', cv2.COLOR_YUV2RGB_YUY2),
    'nv12': Format(1, 1, 'planar', cv2.COLOR_YUV2RGB_NV12, 1.5),
    'nv21': Format(1, 1, 'planar', cv2.COLOR_YUV2RGB_NV21, 1.5),
    **{f'{name}8': Format(1, 1, 'bayer', code) for name, code in _BAYER.items()},
    **{f'{name}16': Format(1, 2, 'bayer', code) for name, code in _BAYER.items()},
}
KNOWN = ', '.join(name for name in FORMATS if FORMATS[name].to_rgb != 'bayer') + ', bayer_*8/16'


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raise ImageError for an empty image or one larger than the limit (protects the memory)."""
    if width < 1 or height < 1:
        raise ImageError(f'image is {width}x{height}, expected at least 1x1')
    if width * height > max_megapixels * 1e6:
        raise ImageError(
            f'image is {width}x{height} = {width * height / 1e6:.1f} megapixels, expected at most '
            f'{max_megapixels:g} (parameter max_image_megapixels)'
        )


def check_bytes(count: int, max_megapixels: float) -> None:
    """Raise ImageError for more data than the largest image has: it would be kept for nothing."""
    most = max_megapixels * 1e6 * MOST_BYTES
    if count > most:
        raise ImageError(
            f'data has {count} bytes, expected at most {most:.0f}, {MOST_BYTES} a pixel '
            '(parameter max_image_megapixels)'
        )


def _check_pattern(encoding: str, width: int, height: int) -> None:
    """Raise ImageError for a size that the colours of several pixels do not fill."""
    kind = FORMATS[encoding].to_rgb
    if kind == 'bayer' and (height < 4 or width < 4 or height % 2 or width % 2):
        raise ImageError(f'{encoding} image is {width}x{height}, expected even, at least 4x4')
    if kind == 'planar' and (width % 2 or height % 2):
        raise ImageError(f'{encoding} image is {width}x{height}, expected even sizes')
    if kind == 'yuv' and width % 2:
        raise ImageError(f'{encoding} image is {width} wide, expected an even width')


def pixels(encoding: str, width: int, height: int, step: int, bigendian: bool, data) -> np.ndarray:
    """
    View the bytes of an image as (H, W, C) without copying; `step` is the bytes of one row.

    For nv12 and nv21, (1.5 H, W, 1): the plane of luma, then that of colour. `data` is anything
    with the buffer protocol. Raises ImageError for an encoding not in FORMATS, a step too short
    for the width, or too few bytes.
    """
    form = FORMATS.get(encoding)
    if form is None:
        raise ImageError(f'encoding {encoding!r} is not known, expected one of {KNOWN}')
    row = width * form.channels * form.itemsize
    if step < row:
        raise ImageError(f'step is {step} bytes, expected at least {row} for {width} {encoding}')
    _check_pattern(encoding, width, height)
    rows = int(height * form.rows)
    flat = np.frombuffer(data, np.uint8)
    # the last row may legally lack its padding
    needed = step * (rows - 1) + row
    if flat.size < needed:
        raise ImageError(
            f'data has {flat.size} bytes, expected {step * rows} for {rows} rows of {step}'
        )
    dtype = np.dtype(np.uint8 if form.itemsize == 1 else ('>u2' if bigendian else '<u2'))
    return np.ndarray(
        (rows, width, form.channels),
        dtype,
        buffer=flat.data,
        strides=(step, form.channels * form.itemsize, form.itemsize),
    )


def to_rgb(encoding: str, packed: np.ndarray) -> np.ndarray:
    """
    Convert what `pixels` gave to a contiguous (H, W, 3) uint8 RGB image.

    Alpha is dropped. YUV is ITU-R BT.601, limited range. 16-bit values: see `narrow`.
    """
    form = FORMATS[encoding]
    if form.itemsize == 2:
        packed = narrow(packed)
    if form.to_rgb == 'rgb':
        return np.ascontiguousarray(packed[..., :3])
    if form.to_rgb == 'bgr':
        return np.ascontiguousarray(packed[..., 2::-1])
    if form.to_rgb == 'mono':
        return np.ascontiguousarray(np.broadcast_to(packed, (*packed.shape[:2], 3)))
    if form.to_rgb == 'yuv':
        return cv2.cvtColor(np.ascontiguousarray(packed), form.code)
    return cv2.cvtColor(np.ascontiguousarray(packed[..., 0]), form.code)


def narrow(wide: np.ndarray) -> np.ndarray:
    """
    Bring uint16 of any byte order to uint8.

    Cameras of 10, 12 and 14 bits fill the lower bits only, and the message does not say how many
    there are: the largest value does. Their upper 8 bits of 16 would be all but black.
    """
    bits = max(8, int(wide.max(initial=0)).bit_length())
    return (wide >> (bits + bits % 2 - 8)).astype(np.uint8)


def mask_from_pixels(packed: np.ndarray) -> np.ndarray:
    """Make the (H, W) bool mask of what `pixels` gave: true where any channel is not zero."""
    return (packed != 0).any(axis=2)


def compressed_size(data) -> tuple[int, int]:
    """
    Read (width, height) from the head of a JPEG or PNG without decoding it.

    Raises ImageError for anything else and for a file whose end is missing: decoders fill the rest
    of a truncated image with grey and say nothing.
    """
    raw = bytes(memoryview(data).cast('B')[:26]) if len(data) else b''
    if raw.startswith(b'\x89PNG\r\n\x1a\n'):
        if len(raw) < 26 or b'IEND' not in _tail(data, 64):
            raise ImageError(f'PNG of {len(data)} bytes is truncated, expected it to end in IEND')
        if raw[12:16] != b'IHDR':
            raise ImageError(f'PNG begins with chunk {raw[12:16]!r}, expected IHDR')
        return int.from_bytes(raw[16:20], 'big'), int.from_bytes(raw[20:24], 'big')
    if raw.startswith(b'\xff\xd8'):
        size = _jpeg_size(memoryview(data).cast('B'))
        if size is None or b'\xff\xd9' not in _tail(data, 1024, padded=True):
            raise ImageError(f'JPEG of {len(data)} bytes is truncated or corrupt')
        return size
    raise ImageError(f'compressed image starts with {raw[:4]!r}, expected a JPEG or a PNG')


def _tail(data, count: int, padded: bool = False) -> bytes:
    """Return the last bytes; of `padded` data, those before the zeros at its end."""
    view = memoryview(data).cast('B')
    end = len(view)
    while padded and end and view[end - 1] == 0:
        begin = max(0, end - _STEP)
        end = begin + len(bytes(view[begin:end]).rstrip(b'\0'))
    return bytes(view[max(0, end - count) : end])


def _jpeg_size(view: memoryview) -> tuple[int, int] | None:
    """
    Walk the JPEG's segments to the frame header (SOF) and read width and height there.

    None for what a decoder would walk through in another way: it could come to another frame
    header, of any size, than the one that is checked here.
    """
    at = 2
    while at + 9 < len(view):
        if view[at] != 0xFF:
            return None
        marker = view[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = int.from_bytes(view[at + 2 : at + 4], 'big')
        # FF 00, TEM, RST0..RST7, SOI and EOI have no length
        if length < 2 or marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            return None
        # SOF0..SOF15 without DHT, JPG, DAC
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(view[at + 5 : at + 7], 'big')
            return int.from_bytes(view[at + 7 : at + 9], 'big'), height
        at += 2 + length
    return None


def decode_compressed(data, max_megapixels: float, format_: str = '') -> np.ndarray:
    """
    Decode a JPEG or PNG of 8 or 16 bits to (H, W, 3) uint8 RGB; EXIF rotation is left alone.

    `format_` is the message's: `bayer_rggb8; png compressed` is a mosaic stored as grey, while
    `bayer_rggb8; jpeg compressed bgr8` was made colour before.
    """
    _, _, mosaic = _checked_head(data, max_megapixels, format_)
    flags = cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR
    image = _imdecode(data, flags | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    image = narrow(image) if image.dtype == np.uint16 else image
    if mosaic:
        return to_rgb(mosaic, image[..., None])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def glance_compressed(
    data, max_megapixels: float, format_: str = ''
) -> tuple[np.ndarray, int, int]:
    """Decode at an eighth of the size in grey, fast: (image (h, w), full width, full height)."""
    width, height, _ = _checked_head(data, max_megapixels, format_)
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION
    return _imdecode(data, flags), width, height


def _checked_head(data, max_megapixels: float, format_: str) -> tuple[int, int, str]:
    """Width, height and the encoding of a mosaic, '' for none; ImageError."""
    width, height = compressed_size(data)
    check_size(width, height, max_megapixels)
    encoding, _, stored = (part.strip() for part in format_.partition(';'))
    form = FORMATS.get(encoding)
    if form is None or form.to_rgb != 'bayer' or 'bgr' in stored:
        return width, height, ''
    _check_pattern(encoding, width, height)
    return width, height, encoding


def _imdecode(data, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f'compressed image cannot be decoded: {error}') from None
    if image is None:
        raise ImageError(f'compressed image of {len(data)} bytes cannot be decoded')
    return image
