"""Messages to numpy and back: encodings, calibrations, poses; and what is refused."""

import array

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import FRAME, pictures, pinhole
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import quaternion_from_matrix as geometry_quaternion
from ray_pose_ros.geometry.rotations import random_rotations
from ray_pose_ros.node import conversions as c
from ray_pose_ros.node.encodings import FORMATS, ImageError, decode_compressed, pixels, to_rgb
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

RGB = pictures(1, 40, 32)[0]
SMOOTH = cv2.GaussianBlur(np.kron(RGB, np.ones((4, 4, 1), np.uint8)), (31, 31), 9)


def message(data: np.ndarray, encoding: str, pad: int = 0, bigendian: bool = False) -> Image:
    """Fill an Image with rows padded by `pad` bytes."""
    height, width = data.shape[:2]
    rows = np.ascontiguousarray(data).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    msg = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    msg.is_bigendian = int(bigendian)
    msg.data = array.array('B', rows.tobytes())
    return msg


@pytest.mark.parametrize('pad', [0, 5])
@pytest.mark.parametrize(
    'encoding, data',
    [
        ('rgb8', RGB),
        ('bgr8', RGB[..., ::-1]),
        ('8UC3', RGB[..., ::-1]),
        ('rgba8', np.dstack([RGB, RGB[..., 0]])),
        ('bgra8', np.dstack([RGB[..., ::-1], RGB[..., 0]])),
        ('8UC4', np.dstack([RGB[..., ::-1], RGB[..., 0]])),
    ],
)
def test_colour(encoding, data, pad):
    out = c.image_from_message(message(data, encoding, pad))
    assert out.dtype == np.uint8 and out.flags.c_contiguous
    assert np.array_equal(out, RGB)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey(encoding):
    out = c.image_from_message(message(RGB[..., 0], encoding, 3))
    assert np.array_equal(out, np.dstack([RGB[..., 0]] * 3))


@pytest.mark.parametrize('encoding', ['mono16', '16UC1', 'rgb16', 'bgr16'])
@pytest.mark.parametrize('bigendian', [False, True])
def test_sixteen_bits(encoding, bigendian):
    wide = RGB.astype(np.uint16) * 257
    expected = RGB
    if encoding in ('mono16', '16UC1'):
        wide, expected = wide[..., 0], np.dstack([RGB[..., 0]] * 3)
    elif encoding == 'bgr16':
        wide = wide[..., ::-1]
    stored = wide.astype('>u2' if bigendian else '<u2')
    out = c.image_from_message(message(stored, encoding, 4, bigendian))
    assert np.array_equal(out, expected)


@pytest.mark.parametrize('encoding', ['rgba16', 'bgra16', '16UC3', '16UC4'])
def test_sixteen_bits_with_alpha_and_in_opencv_order(encoding):
    wide = RGB.astype('<u2') * 257
    wide = wide if encoding == 'rgba16' else wide[..., ::-1]
    wide = wide if encoding == '16UC3' else np.dstack([wide, wide[..., 0]])
    assert np.array_equal(c.image_from_message(message(wide, encoding)), RGB)


@pytest.mark.parametrize('bits', [10, 12, 14])
def test_cameras_of_fewer_than_16_bits_are_not_black(bits):
    wide = (RGB[..., 0].astype('<u2') << (bits - 8)) | (1 << (bits - 1))
    out = c.image_from_message(message(wide, 'mono16'))
    assert np.array_equal(out[..., 0], RGB[..., 0] | 128)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_planes_of_luma_and_colour(encoding):
    planes = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_I420)
    height, width = SMOOTH.shape[:2]
    u, v = planes[height:].reshape(2, height // 2, width // 2)
    colour = np.dstack([u, v] if encoding == 'nv12' else [v, u]).reshape(height // 2, width)
    msg = message(np.vstack([planes[:height], colour]), encoding, 6)
    msg.height = height
    out = c.image_from_message(msg)
    assert out.shape == SMOOTH.shape and np.abs(out.astype(int) - SMOOTH).mean() < 4
    assert c.glance(msg, 50.0)[1:] == (width, height)
    msg.data = msg.data[: msg.step * height]
    with pytest.raises(ImageError, match=f'expected {msg.step * height * 3 // 2} for 192 rows'):
        c.image_from_message(msg)
    msg.height = height - 1
    with pytest.raises(ImageError, match='expected even sizes'):
        c.image_from_message(msg)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', ['8', '16'])
def test_bayer_pattern_is_named_by_its_first_row(pattern, bits):
    mosaic = np.empty(SMOOTH.shape[:2], np.uint8)
    for k, letter in enumerate(pattern):
        y, x = divmod(k, 2)
        mosaic[y::2, x::2] = SMOOTH[y::2, x::2, 'rgb'.index(letter)]
    data = mosaic if bits == '8' else mosaic.astype('<u2') * 257
    out = c.image_from_message(message(data, f'bayer_{pattern}{bits}', 2))
    assert np.abs(out[4:-4, 4:-4].astype(int) - SMOOTH[4:-4, 4:-4]).mean() < 4


@pytest.mark.parametrize('encoding, luma', [('yuv422', 1), ('yuv422_yuy2', 0), ('uyvy', 1)])
def test_yuv(encoding, luma):
    ycrcb = cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YCrCb).astype(float)
    y = 16 + ycrcb[..., 0] * 219 / 255
    cr, cb = (128 + (ycrcb[..., k] - 128) * 224 / 255 for k in (1, 2))
    packed = np.empty((*SMOOTH.shape[:2], 2), np.uint8)
    packed[..., luma] = y.round()
    packed[:, 0::2, 1 - luma] = cb[:, 0::2].round()
    packed[:, 1::2, 1 - luma] = cr[:, 0::2].round()
    out = c.image_from_message(message(packed, encoding, 6))
    assert np.abs(out.astype(int) - SMOOTH).mean() < 4


def test_equal_to_cv_bridge_where_installed():
    bridge = pytest.importorskip('cv_bridge').CvBridge()
    for encoding, data in (('rgb8', RGB), ('bgr8', RGB), ('mono8', RGB[..., 0]), ('bgra8', None)):
        data = np.dstack([RGB, RGB[..., 0]]) if data is None else data
        msg = message(data, encoding, 4)
        assert np.array_equal(c.image_from_message(msg), bridge.imgmsg_to_cv2(msg, 'rgb8'))


@pytest.mark.parametrize(
    'change, expected',
    [
        ({'encoding': 'rgb9'}, "encoding 'rgb9' is not known, expected one of"),
        ({'encoding': ''}, 'mono16, rgb16, .* bayer_'),
        ({'step': 119}, 'step is 119 bytes, expected at least 120 for 40 rgb8'),
        ({'height': 33}, 'data has 3840 bytes, expected 3960'),
        ({'width': 0}, 'image is 0x32, expected at least 1x1'),
        ({'width': 2**31, 'height': 2**31}, 'megapixels, expected at most 50'),
        ({'data': array.array('B')}, 'data has 0 bytes'),
    ],
)
def test_unusable_images_are_refused(change, expected):
    msg = message(RGB, 'rgb8')
    for name, value in change.items():
        setattr(msg, name, value)
    for look in (c.image_from_message, c.glance):
        with pytest.raises(ImageError, match=expected):
            look(msg, 50.0)


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from([*sorted(FORMATS), 'nonsense']),
    width=st.integers(0, 9),
    height=st.integers(0, 9),
    step=st.integers(0, 80),
    bigendian=st.booleans(),
    data=st.binary(max_size=400),
)
def test_any_image_is_converted_or_refused(encoding, width, height, step, bigendian, data):
    msg = Image(width=width, height=height, step=step, encoding=encoding)
    msg.is_bigendian, msg.data = int(bigendian), array.array('B', data)
    try:
        out = c.image_from_message(msg, 1.0)
    except ImageError:
        return
    assert out.shape == (height, width, 3) and out.dtype == np.uint8


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_compressed(suffix):
    data = cv2.imencode(suffix, SMOOTH[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    msg = CompressedImage(format=suffix[1:], data=array.array('B', data.tobytes()))
    out = c.image_from_message(msg)
    assert np.abs(out.astype(int) - SMOOTH).max() <= (0 if suffix == '.png' else 12)
    small, width, height = c.glance(msg, 50.0)
    assert (height, width) == SMOOTH.shape[:2] and small.shape == (16, 20)
    assert c.message_size(msg) == (160, 128)


def test_compressed_as_image_transport_says():
    png = array.array('B', cv2.imencode('.png', RGB[..., ::-1])[1].tobytes())
    for words in ('rgb8; png compressed bgr8', 'bayer_rggb8; png compressed bgr8', 'png', ''):
        assert np.array_equal(c.image_from_message(CompressedImage(format=words, data=png)), RGB)
    wide = cv2.imencode('.png', RGB[..., 0].astype(np.uint16) * 257)[1]
    msg = CompressedImage(format='mono16; png compressed ', data=array.array('B', wide.tobytes()))
    assert np.array_equal(c.image_from_message(msg)[..., 1], RGB[..., 0])
    mosaic = np.ascontiguousarray(SMOOTH[..., 1])
    for k, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        mosaic[y::2, x::2] = SMOOTH[y::2, x::2, (0, 1, 1, 2)[k]]
    grey = array.array('B', cv2.imencode('.png', mosaic)[1].tobytes())
    out = c.image_from_message(CompressedImage(format='bayer_rggb8; png compressed ', data=grey))
    assert np.abs(out[4:-4, 4:-4].astype(int) - SMOOTH[4:-4, 4:-4]).mean() < 4


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_truncated_compressed_is_refused_not_filled_with_grey(suffix):
    whole = cv2.imencode(suffix, SMOOTH)[1].tobytes()
    for length in (0, 1, 7, 20, 40, len(whole) // 2, len(whole) - 20):
        msg = CompressedImage(data=array.array('B', whole[:length]))
        for look in (c.image_from_message, c.glance):
            with pytest.raises(ImageError):
                look(msg, 50.0)
    with pytest.raises(ImageError, match='expected at most 0.01'):
        decode_compressed(whole, 0.01)


@pytest.mark.parametrize('padding', [1, 2000, 10_000])
def test_a_padded_jpeg_is_whole(padding):
    whole = cv2.imencode('.jpg', SMOOTH)[1].tobytes()
    padded = CompressedImage(data=array.array('B', whole + bytes(padding)))
    assert c.image_from_message(padded).shape == SMOOTH.shape
    with pytest.raises(ImageError, match='truncated'):
        c.glance(CompressedImage(data=array.array('B', whole[:-200] + bytes(padding))), 50.0)


def test_compressed_depth_is_refused():
    with pytest.raises(ImageError, match="'16UC1; compressedDepth', expected a JPEG or PNG"):
        c.glance(CompressedImage(format='16UC1; compressedDepth'), 50.0)


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300), head=st.sampled_from([b'', b'\xff\xd8', b'\x89PNG\r\n\x1a\n'])
)
def test_any_compressed_bytes_are_decoded_or_refused(data, head):
    try:
        decode_compressed(head + data + b'\xff\xd9IEND', 1.0)
    except ImageError:
        pass


def test_pixels_does_not_copy():
    data = array.array('B', RGB.tobytes())
    view = pixels('rgb8', 40, 32, 120, False, data)
    data[0] = 200
    assert view[0, 0, 0] == 200
    assert to_rgb('rgb8', view)[0, 0, 0] == 200


# -- calibrations -------------------------------------------------------------------------------


def info(**changes) -> CameraInfo:
    out = info_message(pinhole(640, 480), (640, 480), c.time_message(5), FRAME)
    for name, value in changes.items():
        setattr(out, name, value)
    return out


def test_plain_calibration_is_taken_as_it_is():
    camera = c.camera_from_info(info(), 640, 480)
    assert camera == pinhole(640, 480)


@pytest.mark.parametrize(
    'name, model, count',
    [
        ('plumb_bob', 'plumb_bob', 5),
        ('rational_polynomial', 'rational_polynomial', 8),
        ('equidistant', 'equidistant', 4),
    ],
)
def test_distortion_there_and_back(name, model, count):
    d = tuple(0.01 * (k + 1) for k in range(count))
    camera = CameraModel(pinhole(640, 480).matrix, 640, 480, model, d)
    sent = info_message(camera, (640, 480), c.time_message(1), FRAME)
    assert sent.distortion_model == name
    assert c.camera_from_info(sent, 640, 480) == camera


def test_undistorted_models():
    assert c.camera_from_info(info(d=[]), 640, 480).distortion_model == 'none'
    assert c.camera_from_info(info(distortion_model=''), 640, 480).distortion_model == 'none'
    fisheye = c.camera_from_info(info(d=[], distortion_model='equidistant'), 640, 480)
    assert fisheye.distortion_model == 'equidistant' and fisheye.distortion == (0,) * 4


def test_a_fisheye_is_undistorted_by_the_rays_of_its_patches():
    """At 300 pixels and no coefficients, a pixel 300 off the centre is one radian off the axis."""
    sent = info(distortion_model='fisheye', d=[])
    sent.k = np.array([300.0, 0, 320, 0, 300, 240, 0, 0, 1])
    camera = c.camera_from_info(sent, 640, 480)
    ray = camera.unproject(torch.tensor([620.0, 240.0], dtype=torch.float64))
    assert np.allclose(ray, [np.sin(1), 0, np.cos(1)])


def test_the_mask_is_what_is_not_zero():
    for encoding, data in (('mono8', RGB[..., 0] // 128), ('rgb8', RGB // 128)):
        expected = (data != 0) if data.ndim == 2 else (data != 0).any(axis=2)
        assert np.array_equal(c.mask_from_message(message(data, encoding, 3)), expected)


def test_region_of_interest_and_binning():
    """REP-104: K is that of the full resolution. A point must land on the same scene ray."""
    full = pinhole(640, 480)
    sent = info(binning_x=2, binning_y=4)
    sent.roi.x_offset, sent.roi.y_offset, sent.roi.width, sent.roi.height = 100, 40, 400, 200
    assert c.expected_size(sent) == (200, 50)
    camera = c.camera_from_info(sent, 200, 50)
    pixel = torch.tensor([130.0, 20.0], dtype=torch.float64)
    in_full = pixel * torch.tensor([2.0, 4.0]) + torch.tensor([100.0, 40.0])
    assert torch.allclose(camera.unproject(pixel), full.unproject(in_full), atol=1e-12)


@pytest.mark.parametrize(
    'changes, expected',
    [
        ({'k': np.zeros(9)}, 'focal lengths are 0 and 0, expected positive'),
        ({'k': np.full(9, np.nan)}, 'K has values that are not finite'),
        ({'k': np.diag([-300.0, 300, 1]).ravel()}, 'focal lengths are -300 and 300'),
        ({'k': np.diag([300.0, 300, 0]).ravel()}, 'last row 0 0 1'),
        ({'width': 0}, 'size is 0x480'),
        ({'width': 320}, 'size is 320x480 .* but the image is 640x480'),
        ({'distortion_model': 'kannala'}, "distortion_model is 'kannala', expected one of"),
        ({'d': [0.1, float('inf')]}, 'D has values that are not finite'),
        ({'d': [0.1, 0.2, 0.3]}, 'plumb_bob has 3 coefficients'),
    ],
)
def test_unusable_calibrations_are_refused(changes, expected):
    with pytest.raises(c.CameraInfoError, match=expected):
        c.camera_from_info(info(**changes), 640, 480)


# -- poses --------------------------------------------------------------------------------------

ROTATIONS = random_rotations(64, torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
HALF_TURNS = np.stack([np.diag(d).astype(float) for d in ((1, -1, -1), (-1, 1, -1), (-1, -1, 1))])


def test_quaternions_there_and_back_and_as_in_geometry():
    for R in [np.eye(3), *HALF_TURNS, *ROTATIONS]:
        q = c.quaternion_from_matrix(R)
        assert abs(np.linalg.norm(q) - 1) < 1e-12 and q[3] >= 0
        assert np.allclose(c.matrix_from_quaternion(3 * q), R, atol=1e-7)
    ours = np.stack([c.quaternion_from_matrix(R) for R in ROTATIONS])
    assert np.allclose(ours, geometry_quaternion(torch.from_numpy(ROTATIONS)).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match='expected one of length 1'):
        c.matrix_from_quaternion([0, 0, 0, 0])


def test_quaternions_equal_to_tf_transformations_where_installed():
    tf = pytest.importorskip('tf_transformations')
    for R in ROTATIONS:
        whole = np.eye(4)
        whole[:3, :3] = R
        theirs = tf.quaternion_from_matrix(whole)
        ours = c.quaternion_from_matrix(R)
        assert min(np.abs(theirs - ours).max(), np.abs(theirs + ours).max()) < 1e-6


def test_poses_are_camera_to_parent():
    R, t = ROTATIONS[0], np.array([0.3, -1.0, 2.0])
    pose = c.pose_from_camera(R, t)
    at = np.array([pose.position.x, pose.position.y, pose.position.z])
    assert np.allclose(R @ at + t, 0)  # the camera's centre is the camera frame's origin
    ahead = at + c.matrix_from_quaternion(
        [getattr(pose.orientation, k) for k in 'xyzw']
    ) @ np.array([0, 0, 1.0])
    assert np.allclose(R @ ahead + t, [0, 0, 1])
    back = c.camera_from_pose(c.pose_from_transform(c.transform_from_pose(pose)))
    assert np.allclose(back[0], R, atol=1e-7) and np.allclose(back[1], t, atol=1e-7)


def test_image_message_and_time():
    stamp = c.time_message(1_234_567_890_123_456_789)
    assert c.nanoseconds(stamp) == 1_234_567_890_123_456_789
    msg = image_message(RGB[:, ::-1], stamp, FRAME)
    assert isinstance(msg.data, array.array)
    assert np.array_equal(c.image_from_message(msg), RGB[:, ::-1])
    with pytest.raises(ValueError, match='fits 32 bits'):
        c.time_message(10**19)
