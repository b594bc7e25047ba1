"""
ROS messages to numpy and back: the only place where the two meet.

cv_bridge is used for encodings that `encodings` does not know, and only where it is installed.
"""

from __future__ import annotations

import numpy as np
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Transform
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ray_pose_ros.geometry import distortion
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.node.encodings import (
    FORMATS,
    ImageError,
    check_bytes,
    check_size,
    compressed_size,
    decode_compressed,
    glance_compressed,
    mask_from_pixels,
    pixels,
    to_rgb,
)

try:
    from cv_bridge import CvBridge
except ImportError:  # the usual case outside an apt installation
    CvBridge = None

DISTORTION_MODELS = {
    '': 'none',
    'none': 'none',
    'plumb_bob': 'plumb_bob',
    'rational_polynomial': 'rational_polynomial',
    'equidistant': 'equidistant',
    'fisheye': 'equidistant',
}
_MOST_COEFFICIENTS = max(map(max, distortion.COEFFICIENTS.values()))
_LONGEST_NAME = 256  # of a frame: these are kept by the dozen


class CameraInfoError(ValueError):
    """A CameraInfo that cannot be used; the text says the value found and what was expected."""


# -- images -------------------------------------------------------------------------------------


def image_from_message(msg: Image | CompressedImage, max_megapixels: float = 1e3) -> np.ndarray:
    """Decode an Image or CompressedImage to (H, W, 3) uint8 RGB; raises ImageError."""
    check_message(msg, max_megapixels)
    if hasattr(msg, 'format'):
        if 'compressedDepth' in msg.format:
            raise ImageError(f'format is {msg.format!r}, expected a JPEG or PNG colour image')
        return decode_compressed(msg.data, max_megapixels, msg.format)
    if msg.encoding not in FORMATS and CvBridge is not None:
        return _by_cv_bridge(msg)
    return to_rgb(msg.encoding, _pixels(msg))


def glance(msg: Image | CompressedImage, max_megapixels: float) -> tuple[np.ndarray, int, int]:
    """
    Look at an image as cheaply as possible: (array to take a thumbnail of, width, height).

    A raw image is not copied, a compressed one decoded at an eighth of its size. Everything that
    `image_from_message` would refuse is refused here, corrupt compressed bodies excepted.
    """
    check_message(msg, max_megapixels)
    if hasattr(msg, 'format'):
        if 'compressedDepth' in msg.format:
            raise ImageError(f'format is {msg.format!r}, expected a JPEG or PNG colour image')
        return glance_compressed(msg.data, max_megapixels, msg.format)
    if msg.encoding not in FORMATS and CvBridge is not None:
        return _by_cv_bridge(msg), msg.width, msg.height
    return _pixels(msg), msg.width, msg.height


def mask_from_message(msg: Image, max_megapixels: float = 1e3) -> np.ndarray:
    """Decode a mask, any known encoding, to (H, W) bool: true where not zero. ImageError."""
    check_message(msg, max_megapixels)
    return mask_from_pixels(_pixels(msg)[: msg.height])


def check_message(msg: Image | CompressedImage, max_megapixels: float) -> None:
    """Raise ImageError for more pixels (by the fields of a raw image) or bytes than may be."""
    if not hasattr(msg, 'format'):
        check_size(msg.width, msg.height, max_megapixels)
    check_bytes(len(msg.data), max_megapixels)


def message_size(msg: Image | CompressedImage) -> tuple[int, int]:
    """Return (width, height) of an image message without decoding it."""
    return compressed_size(msg.data) if hasattr(msg, 'format') else (msg.width, msg.height)


def _pixels(msg: Image) -> np.ndarray:
    return pixels(msg.encoding, msg.width, msg.height, msg.step, bool(msg.is_bigendian), msg.data)


def _by_cv_bridge(msg: Image) -> np.ndarray:
    try:
        return CvBridge().imgmsg_to_cv2(msg, 'rgb8')
    except Exception as error:  # cv_bridge raises its own and OpenCV's errors
        raise ImageError(f'encoding {msg.encoding!r} is not known ({error})') from None


# -- cameras ------------------------------------------------------------------------------------


def check_camera_info(info: CameraInfo) -> None:
    """Raise CameraInfoError for a CameraInfo that is not a calibration."""
    K = np.asarray(info.k, float).reshape(3, 3)
    if not np.isfinite(K).all():
        raise CameraInfoError(f'K has values that are not finite: {K.ravel().tolist()}')
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        raise CameraInfoError(
            f'focal lengths are {K[0, 0]:g} and {K[1, 1]:g}, expected positive ones (an '
            'uncalibrated camera publishes zeros)'
        )
    if info.width < 1 or info.height < 1:
        raise CameraInfoError(f"size is {info.width}x{info.height}, expected the image's")
    if info.distortion_model not in DISTORTION_MODELS:
        raise CameraInfoError(
            f'distortion_model is {info.distortion_model!r}, expected one of '
            f'{sorted(k for k in DISTORTION_MODELS if k)}'
        )
    if len(info.d) > _MOST_COEFFICIENTS:
        raise CameraInfoError(
            f'D has {len(info.d)} coefficients, expected at most {_MOST_COEFFICIENTS}'
        )
    if len(info.header.frame_id) > _LONGEST_NAME:
        raise CameraInfoError(
            f'frame_id has {len(info.header.frame_id)} characters, expected at most '
            f'{_LONGEST_NAME}'
        )
    if not np.isfinite(np.asarray(info.d, float)).all():
        raise CameraInfoError(f'D has values that are not finite: {list(info.d)}')


def expected_size(info: CameraInfo) -> tuple[int, int]:
    """Return the (width, height) that images of this CameraInfo have, ROI and binning applied."""
    roi = info.roi
    whole = roi.width == 0 or roi.height == 0
    width, height = (info.width, info.height) if whole else (roi.width, roi.height)
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def camera_from_info(
    info: CameraInfo, width: int, height: int, rectified: bool = False
) -> CameraModel:
    """
    Build the model of the camera that took a width x height image with this CameraInfo.

    K and D, and P for a rectified image, refer to the full resolution; region of interest and
    binning are applied here (REP-104). A size that disagrees with the image raises
    CameraInfoError.
    """
    check_camera_info(info)
    expected = expected_size(info)
    if expected != (width, height):
        raise CameraInfoError(
            f'size is {expected[0]}x{expected[1]} (ROI and binning applied), but the image is '
            f'{width}x{height}'
        )
    K = np.asarray(info.k, float).reshape(3, 3).copy()
    if rectified:
        K = np.asarray(info.p, float).reshape(3, 4)[:, :3].copy()
        if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise CameraInfoError(
                f'P is {np.asarray(info.p).tolist()}, expected the projection of the rectified '
                'image (parameter rectified)'
            )
    if info.roi.width and info.roi.height:
        K[0, 2] -= info.roi.x_offset
        K[1, 2] -= info.roi.y_offset
    K[0] /= max(1, info.binning_x)
    K[1] /= max(1, info.binning_y)
    model = DISTORTION_MODELS[info.distortion_model]
    coefficients = tuple(float(d) for d in info.d)
    if rectified:
        model, coefficients = 'none', ()
    elif not any(coefficients):
        # without coefficients a fisheye is still no pinhole, the others are
        model, coefficients = (model, (0.0,) * 4) if model == 'equidistant' else ('none', ())
    try:
        with np.errstate(all='ignore'):  # of values that are finite and nonsense
            return CameraModel(torch.from_numpy(K), width, height, model, coefficients)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise CameraInfoError(str(error)) from None


# -- poses --------------------------------------------------------------------------------------


def quaternion_from_matrix(R: np.ndarray) -> np.ndarray:
    """Turn a rotation (3, 3) into a unit quaternion xyzw with w >= 0 (largest-pivot method)."""
    R = np.asarray(R, float)
    # four times the outer product q q^T; its row with the largest diagonal is the stablest q
    trace = np.trace(R)
    outer = np.empty((4, 4))
    outer[:3, :3] = R + R.T + (1 - trace) * np.eye(3)
    outer[3, 3] = 1 + trace
    outer[:3, 3] = outer[3, :3] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    q = outer[int(np.argmax(np.diag(outer)))]
    q = q / np.linalg.norm(q)
    return -q if q[3] < 0 else q


def matrix_from_quaternion(q: np.ndarray) -> np.ndarray:
    """Turn a quaternion xyzw of any length into a rotation (3, 3); ValueError for a zero one."""
    q = np.asarray(q, float)
    norm = np.linalg.norm(q)
    if not np.isfinite(norm) or norm < 1e-9:
        raise ValueError(f'quaternion is {q.tolist()}, expected one of length 1')
    x, y, z, w = q / norm
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def pose_from_camera(R: np.ndarray, t: np.ndarray) -> Pose:
    """Make the camera-to-parent Pose of a camera x_cam = R x_parent + t."""
    pose = Pose()
    centre, q = -R.T @ t, quaternion_from_matrix(R.T)
    pose.position.x, pose.position.y, pose.position.z = (float(v) for v in centre)
    o = pose.orientation
    o.x, o.y, o.z, o.w = (float(v) for v in q)
    return pose


def camera_from_pose(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """Return R (3, 3), t (3,) of x_cam = R x_parent + t from a camera-to-parent Pose."""
    p, o = pose.position, pose.orientation
    R = matrix_from_quaternion([o.x, o.y, o.z, o.w]).T
    return R, -R @ np.array([p.x, p.y, p.z])


def transform_from_pose(pose: Pose) -> Transform:
    """Make the Transform child-to-parent with a Pose's numbers."""
    transform = Transform()
    v, p = transform.translation, pose.position
    v.x, v.y, v.z = p.x, p.y, p.z
    transform.rotation = pose.orientation
    return transform


def pose_from_transform(transform: Transform) -> Pose:
    """Make the Pose with a Transform's numbers."""
    pose = Pose()
    v, p = transform.translation, pose.position
    p.x, p.y, p.z = v.x, v.y, v.z
    pose.orientation = transform.rotation
    return pose


# -- time ---------------------------------------------------------------------------------------


def nanoseconds(stamp: Time) -> int:
    """Return a stamp in integer nanoseconds, which keeps all its digits."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def check_stamp(stamp: Time) -> None:
    """Raise ValueError for a stamp that is none: it could not be given back (`time_message`)."""
    if stamp.nanosec >= 1_000_000_000:
        raise ValueError(f'stamp has {stamp.nanosec} nanoseconds, expected less than 1000000000')


def time_message(stamp_ns: int) -> Time:
    """Make a stamp of integer nanoseconds; outside int32 seconds it raises ValueError."""
    seconds, rest = divmod(int(stamp_ns), 1_000_000_000)
    if not -(2**31) <= seconds < 2**31:
        raise ValueError(f'stamp is {seconds} s, expected one that fits 32 bits')
    return Time(sec=seconds, nanosec=rest)
