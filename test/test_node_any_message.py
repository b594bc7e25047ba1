"""Whatever a message holds: it is used or refused by the module's own error, within limits."""

import array
import struct
import tracemalloc
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from node_harness import FRAME, pictures, pinhole
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest

from ray_pose_ros.estimation.keyframes import thumbnail
from ray_pose_ros.node import conversions as c
from ray_pose_ros.node.camera_input import CameraInput
from ray_pose_ros.node.encodings import FORMATS, ImageError, compressed_size, decode_compressed
from ray_pose_ros.node.frame_checks import candidate
from ray_pose_ros.node.object_hints import Hint
from ray_pose_ros.node.settings import make_settings
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

LIMIT = 0.01  # megapixels
UINT32 = 2**32 - 1
PICTURE = pictures(1, 96, 64)[0]
SMALL_OR_HUGE = st.one_of(st.integers(0, 12), st.sampled_from([100, 20_000, 2**31, UINT32]))


# -- raw images ---------------------------------------------------------------------------------


@st.composite
def raw_images(draw):
    """Images whose fields may say anything, with bytes that often fit them all the same."""
    encoding = draw(st.sampled_from([*sorted(FORMATS), '', 'rgb9', '32FC1', 'RGB8', 'x' * 1000]))
    msg = Image(width=draw(SMALL_OR_HUGE), height=draw(SMALL_OR_HUGE), encoding=encoding)
    msg.is_bigendian = draw(st.sampled_from([0, 1, 255]))
    form = FORMATS.get(encoding, FORMATS['rgb8'])
    row = msg.width * form.channels * form.itemsize
    msg.step = draw(st.one_of(st.just(min(row + draw(st.integers(0, 9)), UINT32)), SMALL_OR_HUGE))
    needed = msg.step * int(msg.height * form.rows)
    count = max(0, min(needed, 3000) + draw(st.integers(-9, 9)))
    msg.data = array.array('B', draw(st.binary(min_size=count, max_size=count)))
    return msg


@settings(max_examples=300, deadline=None)
@given(msg=raw_images())
def test_any_raw_image_is_looked_at_and_decoded_or_refused(msg):
    tracemalloc.start()
    try:
        try:
            seen, width, height = c.glance(msg, LIMIT)
        except ImageError:
            with pytest.raises(ImageError):  # by both or by none: a keyframe is not taken back
                c.image_from_message(msg, LIMIT)
            return
        assert np.isfinite(thumbnail(seen)).all()
        image = c.image_from_message(msg, LIMIT)
        mask = c.mask_from_message(msg, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (width, height) == (msg.width, msg.height)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert mask.shape == (height, width) and mask.dtype == bool
    assert peak < 1e6 + 30 * LIMIT * 1e6


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(sorted(FORMATS)),
    width=st.integers(1, 13),
    height=st.integers(1, 13),
    pad=st.integers(0, 7),
    cut=st.booleans(),
    seed=st.integers(0, 9),
)
def test_padding_and_byte_order_change_nothing(encoding, width, height, pad, cut, seed):
    form = FORMATS[encoding]
    rows = int(height * form.rows)
    shape = (rows, width, form.channels)
    values = np.random.default_rng(seed).integers(0, 256**form.itemsize, shape)
    answers = []
    for padding, order in ((0, '<'), (pad, '<'), (pad, '>')):
        packed = values.astype(f'{order}u{form.itemsize}').reshape(rows, -1).view(np.uint8)
        packed = np.pad(packed, ((0, 0), (0, padding)), constant_values=255)
        data = packed.tobytes()
        msg = Image(width=width, height=height, encoding=encoding, step=packed.shape[1])
        msg.is_bigendian = int(order == '>')
        # the padding of the last row need not be there
        msg.data = array.array('B', data[: len(data) - padding] if cut else data)
        try:
            answers.append(c.image_from_message(msg, LIMIT).tolist())
        except ImageError as error:
            assert 'even' in str(error)
            odd = width % 2 or height % 2 or min(width, height) < 4
            assert odd and form.to_rgb in ('bayer', 'yuv', 'planar')
            answers.append('refused')
    assert answers[0] == answers[1] == answers[2]


def test_more_bytes_than_any_image_has_are_not_kept():
    msg = image_message(PICTURE, Time(), FRAME)
    msg.data = array.array('B', bytes(80_001))
    for look in (c.glance, c.image_from_message, c.mask_from_message):
        with pytest.raises(ImageError, match='data has 80001 bytes, expected at most 80000'):
            look(msg, LIMIT)
    with pytest.raises(ImageError, match='data has 80001 bytes'):
        c.glance(CompressedImage(data=msg.data), LIMIT)


# -- compressed images --------------------------------------------------------------------------

WHOLE = {suffix: cv2.imencode(suffix, PICTURE)[1].tobytes() for suffix in ('.jpg', '.png')}
WHOLE['16-bit .png'] = cv2.imencode('.png', PICTURE[..., 0].astype(np.uint16) * 16)[1].tobytes()
WHOLE['progressive .jpg'] = cv2.imencode('.jpg', PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
    1
].tobytes()


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 400), st.integers(0, 20_000)),  # most are in the head
            st.integers(0, 9),
            st.binary(max_size=9),
        ),
        min_size=1,
        max_size=4,
    ),
    format_=st.sampled_from(
        ['', 'jpeg', 'bayer_rggb8; png compressed', 'bayer_gbrg16;', ';;', 'ÿ']
    ),
)
def test_any_damage_to_a_compressed_image(kind, changes, format_):
    data = bytearray(WHOLE[kind])
    for at, gone, put in changes:
        data[at % len(data) : at % len(data) + gone] = put
    msg = CompressedImage(format=format_, data=array.array('B', bytes(data)))
    try:
        width, height = compressed_size(msg.data)
        seen = c.glance(msg, LIMIT)
        assert seen[1:] == (width, height)
        image = c.image_from_message(msg, LIMIT)
    except ImageError:
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert width * height <= LIMIT * 1e6


@pytest.mark.parametrize('size', [(96, 63), (95, 64), (2, 2)])
def test_a_mosaic_of_odd_size_is_refused_before_it_is_kept(size):
    data = cv2.imencode('.png', np.zeros(size[::-1], np.uint8))[1].tobytes()
    msg = CompressedImage(format='bayer_rggb8; png compressed', data=array.array('B', data))
    for look in (c.glance, c.image_from_message):
        with pytest.raises(ImageError, match='expected even, at least 4x4'):
            look(msg, LIMIT)
    msg.format = 'bayer_rggb8; png compressed bgr8'  # made colour before
    assert c.image_from_message(msg, LIMIT).shape[:2] == size[::-1]


def frame_header(width: int, height: int) -> bytes:
    """Make a JPEG's SOF0 segment of three components."""
    return (
        b'\xff\xc0'
        + struct.pack('>HBHHB', 17, 8, height, width, 3)
        + bytes([1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    )


@pytest.mark.parametrize('marker', [0x00, 0x01, *range(0xD0, 0xDA)])
def test_a_jpeg_cannot_hide_its_size(marker):
    """Decoders know markers without a length: what follows those is no length but the next one."""
    whole = WHOLE['.jpg']
    at = whole.index(b'\xff\xc0')
    end = at + 2 + struct.unpack('>H', whole[at + 2 : at + 4])[0]
    hidden, shown = frame_header(4000, 3000), frame_header(96, 64)
    comment = b'\xff\xfe' + struct.pack('>H', 2 + len(shown))  # hides the small one in turn
    jump = bytes([0xFF, marker]) + struct.pack('>H', 2 + len(hidden) + len(comment))
    bomb = whole[:at] + jump + hidden + comment + shown + whole[end:]
    with pytest.raises(ImageError, match='truncated or corrupt'):
        decode_compressed(bomb, LIMIT)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def test_a_png_cannot_hide_its_size():
    signature = b'\x89PNG\r\n\x1a\n'
    large = chunk(b'IHDR', struct.pack('>IIBBBBB', 4000, 3000, 8, 2, 0, 0, 0))
    pixels = chunk(b'IDAT', zlib.compress(bytes(3000 * (4000 * 3 + 1)), 9))
    end = chunk(b'IEND', b'')
    with pytest.raises(ImageError, match='is 4000x3000 = 12.0 megapixels'):
        decode_compressed(signature + large + pixels + end, LIMIT)
    private = chunk(b'prVt', struct.pack('>II', 8, 8))
    with pytest.raises(ImageError, match="begins with chunk b'prVt', expected IHDR"):
        decode_compressed(signature + private + large + pixels + end, LIMIT)
    small = chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError):
        decode_compressed(signature + small + large + pixels + end, LIMIT)


# -- calibrations -------------------------------------------------------------------------------

ANY = st.one_of(
    st.floats(-2, 2),
    st.floats(),
    st.sampled_from([0.0, 1.0, 300.0, 1e-320, 1e308, -1e308, float('nan'), float('inf')]),
)


@st.composite
def calibrations(draw):
    """A CameraInfo that is right but for a few fields."""
    info = info_message(pinhole(96, 64), (96, 64), Time(), FRAME)
    for name, count in (('k', 9), ('p', 12)):
        values = list(getattr(info, name))
        for at in draw(st.lists(st.integers(0, count - 1), max_size=2)):
            values[at] = draw(ANY)
        setattr(info, name, values)
    names = [*c.DISTORTION_MODELS, 'thin_prism_fisheye', 'PLUMB_BOB', 'x' * 500]
    info.distortion_model = draw(st.sampled_from(names))
    count = draw(st.sampled_from([0, 1, 3, 4, 5, 8, 12, 14, 15, 1000]))
    info.d = [draw(ANY)] * count if draw(st.booleans()) else [0.01] * count
    sizes = st.one_of(st.just(0), st.integers(0, 200), st.sampled_from([2**31, UINT32]))
    if draw(st.booleans()):
        info.width, info.height = draw(sizes), draw(sizes)
    if draw(st.booleans()):
        info.binning_x, info.binning_y = draw(sizes), draw(sizes)
    if draw(st.booleans()):
        roi = info.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = (draw(sizes) for _ in range(4))
    return info


@settings(max_examples=400, deadline=None)
@given(info=calibrations(), rectified=st.booleans(), fits=st.booleans())
def test_any_calibration_is_a_camera_or_refused(info, rectified, fits):
    size = c.expected_size(info) if fits else (96, 64)
    try:
        c.check_camera_info(info)
        camera = c.camera_from_info(info, *size, rectified)
    except c.CameraInfoError as error:
        assert str(error)
        return
    assert (camera.width, camera.height) == size and min(size) > 0
    assert torch.isfinite(camera.matrix).all() and camera.matrix[0, 0] > 0
    pixels = torch.tensor([[0.0, 0.0], [size[0] / 2, size[1] / 2]], dtype=torch.float64)
    rays = camera.unproject(pixels)  # nan where the lens sees nothing
    lengths = rays.norm(dim=-1)
    assert rays.shape == (2, 3) and (lengths[lengths.isfinite()] - 1 < 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(
    binning=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    corner=st.tuples(st.integers(0, 300), st.integers(0, 200)),
    size=st.tuples(st.integers(5, 340), st.integers(5, 280)),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_region_and_binning_keep_every_ray(binning, corner, size, at):
    """REP 104: the pixel of the small image looks where its pixel of the full one does."""
    full = pinhole(640, 480)
    info = info_message(full, (640, 480), Time(), FRAME)
    info.binning_x, info.binning_y = binning
    info.roi = RegionOfInterest(
        x_offset=corner[0], y_offset=corner[1], width=size[0], height=size[1]
    )
    width, height = c.expected_size(info)
    step = torch.tensor([max(1, b) for b in binning], dtype=torch.float64)
    assert (width, height) == (size[0] // int(step[0]), size[1] // int(step[1]))
    pixel = torch.tensor([at[0] * width, at[1] * height], dtype=torch.float64)
    ray = c.camera_from_info(info, width, height).unproject(pixel)
    expected = full.unproject(pixel * step + torch.tensor(corner, dtype=torch.float64))
    assert torch.allclose(ray, expected, atol=1e-12)


@pytest.mark.parametrize(
    'change, expected',
    [
        (lambda i: setattr(i, 'd', [0.0] * 15), 'D has 15 coefficients, expected at most 14'),
        (lambda i: setattr(i.header, 'frame_id', 'x' * 257), 'frame_id has 257 characters'),
    ],
)
def test_a_calibration_of_any_length_is_not_kept(change, expected):
    info = info_message(pinhole(), (64, 48), Time(), FRAME)
    change(info)
    with pytest.raises(c.CameraInfoError, match=expected):
        c.check_camera_info(info)


# -- objects ------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    size=st.sampled_from([(96, 64), (5000, 2), (1, 9000)]),
    region=st.tuples(*[st.one_of(st.integers(0, 200), st.integers(0, UINT32))] * 4),
    mask=st.booleans(),
)
def test_the_square_round_any_object_fits_the_limit(size, region, mask):
    """It is cut out as a whole, so that its size is memory, whatever the image's is."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    x, y, w, h = region
    assume(w and h)
    hint = Hint(box=[float(x), float(y), float(x) + w, float(y) + h])
    if mask:
        pixels = np.full((height, width, 3), 255, np.uint8)
        hint = Hint(mask=image_message(pixels, Time(), FRAME))
    msg = image_message(image, Time(), FRAME)
    frame = SimpleNamespace(camera='camera', stamp_ns=5, msg=msg, info=None, hint=hint)
    make_view = candidate(frame, '/t', make_settings({'max_image_megapixels': 0.05})).make_view
    try:
        view = make_view()
    except ValueError:
        assert not (size == (96, 64) and x + w <= 96 and y + h <= 64)
        return
    assert view.crop().side ** 2 <= 0.05e6


def test_a_region_of_another_images_size_is_refused_with_the_reason():
    frame = SimpleNamespace(
        camera='camera', stamp_ns=5, msg=image_message(PICTURE, Time(), FRAME), info=None,
        hint=Hint(box=[0.0, 0.0, 9000.0, 9000.0]),
    )  # fmt: skip
    with pytest.raises(ValueError, match='is 10350 pixels wide, image 96x64, expected at most 50'):
        candidate(frame, '/t', make_settings({})).make_view()


# -- stamps -------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    stamps=st.lists(
        st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, UINT32), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_every_stamp_that_is_taken_can_be_given_back(stamps):
    """What /tf repeats is the newest image's stamp: one that does not fit would end all of it."""
    refused = []
    host = SimpleNamespace(
        settings=make_settings({'require_camera_info': False}),
        enabled=True,
        now_ns=lambda: 0,
        offer_all=lambda candidates: None,
        drop=lambda camera, reason: None,
        refuse=lambda camera, topic, reason, text: refused.append(reason),
    )
    camera = CameraInput(host, 'camera', '/i', '/n', '/m')
    for sec, nanosec, of_info in stamps:
        stamp, before = Time(sec=sec, nanosec=nanosec), len(refused)
        if of_info:
            camera.on_info(info_message(pinhole(96, 64), (96, 64), stamp, FRAME))
        else:
            camera.on_image(image_message(PICTURE, stamp, FRAME))
        if nanosec >= 1_000_000_000:
            assert refused[before:] == ['bad_camera_info' if of_info else 'bad_stamp']
        c.time_message(camera.last_stamp_ns or 0)
