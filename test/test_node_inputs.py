"""What the node takes, drops and refuses, through real rclpy."""

import array
import time

import cv2
import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    FRAME,
    IMAGES,
    SECOND,
    set_parameter,
    show,
    starter,
)
from sensor_msgs.msg import CompressedImage
from test_node_lenses import Telling

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.node.conversions import time_message
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

start = pytest.fixture(starter)


# -- gate and services --------------------------------------------------------------------------


def test_frames_that_are_not_needed_are_not_decoded(start):
    harness = start(parameters=EVERY_FRAME | {'keyframe_min_interval': 0.5,
                                              'keyframe_min_change': 0.05})  # fmt: skip
    for k in range(10):  # ten a second, the same picture for all but the last
        harness.client.show(IMAGES[k // 9], 100 * SECOND + k * SECOND // 10, CAMERA)
    assert harness.until(lambda: harness.count == 2)
    assert harness.diagnosed('images received', '10')
    said = harness.client.diagnostics
    # looked at: 0, 5, 7, 9; an unchanged scene is not looked at every time
    assert said['dropped: too_soon'] == '6' and said['dropped: unchanged'] == '2'
    assert len(harness.estimator.prepared) == 2


# -- bad input ----------------------------------------------------------------------------------


def broken(change):
    msg = image_message(IMAGES[5], time_message(150 * SECOND), FRAME)
    change(msg)
    return msg


@pytest.mark.parametrize(
    'reason, words, change',
    [
        ('bad_image', "encoding 'rgb9' is not known", lambda m: setattr(m, 'encoding', 'rgb9')),
        ('bad_image', 'data has 100 bytes, expected',
         lambda m: setattr(m, 'data', array.array('B', bytes(100)))),
        ('wrong_size', 'image is 64x24, but', lambda m: setattr(m, 'height', 24)),
        ('wrong_frame', "frame_id is 'other', but",
         lambda m: setattr(m.header, 'frame_id', 'other')),
    ],
)  # fmt: skip
def test_bad_images_are_refused_and_counted_and_the_node_goes_on(start, reason, words, change):
    harness = start(parameters=EVERY_FRAME)
    show(harness, [0])
    harness.client.images.publish(broken(change))
    assert harness.diagnosed(f'refused: {reason}', '1')
    level, message = harness.client.levels['/ray_pose: input']
    assert level == b'\x01' and words in message
    assert message.startswith('/camera/image_raw: ')
    harness.client.show(IMAGES[1], 160 * SECOND, CAMERA)
    assert harness.until(lambda: harness.count == 2)


@pytest.mark.parametrize('K', [np.zeros(9), np.full(9, np.nan)])
def test_bad_calibrations_are_refused_on_their_own_topic(start, K):
    harness = start(parameters=EVERY_FRAME)
    stamp = time_message(100 * SECOND)
    info = info_message(CAMERA, (64, 48), stamp, FRAME)
    info.k = K
    harness.client.infos.publish(info)
    harness.client.images.publish(image_message(IMAGES[0], stamp, FRAME))
    assert harness.diagnosed('refused: bad_camera_info', '1')
    assert harness.diagnosed('refused: no_camera_info', '1')
    show(harness, range(2), 200)
    assert harness.until(lambda: harness.count == 2)


def test_without_calibration_where_that_is_allowed(start):
    harness = start(parameters=EVERY_FRAME | {'require_camera_info': False})
    show(harness, range(2), camera=None)
    assert harness.until(lambda: harness.count == 2)
    assert all(v.camera is None for v in harness.estimator.prepared)
    assert harness.diagnosed('focal length of uncalibrated cameras', 'assumed')


def test_matches_tell_the_focal_length_of_a_camera_that_nobody_has_calibrated(start):
    parameters = EVERY_FRAME | {'require_camera_info': False}
    harness = start(lambda settings: Telling(), parameters)
    key = 'focal length of uncalibrated cameras'
    show(harness, range(3), camera=None)
    assert harness.diagnosed(key, 'by matches, 1.2 times the assumed one, +-10 %')
    # the poses published last are those of cameras with it
    assert harness.until(lambda: harness.client.poses[-1].poses[0].position.z < -1.1)
    assert harness.trigger('reset').success
    assert harness.diagnosed(key, 'by matches, 1.2 times the assumed one, +-10 %')
    for step in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        request = ChangeState.Request(transition=Transition(id=step))
        assert harness.call(ChangeState, 'change_state', request).success
    assert harness.diagnosed(key, 'assumed')


def test_each_image_gets_the_calibration_of_its_own_stamp(start):
    """Photographs with a K each, and the CameraInfo arriving after its image."""
    harness = start(parameters=EVERY_FRAME)
    cameras = [CameraModel.from_fov(64, 48, 0.5 + 0.1 * k) for k in range(3)]
    for k, camera in enumerate(cameras):
        stamp = time_message((100 + k) * SECOND)
        harness.client.images.publish(image_message(IMAGES[k], stamp, FRAME))
        harness.until(lambda: False, 0.05)
        harness.client.infos.publish(info_message(camera, (64, 48), stamp, FRAME))
        assert harness.until(lambda k=k: len(harness.estimator.prepared) == k + 1)
    assert [v.camera for v in harness.estimator.prepared] == cameras


def test_one_calibration_for_all_images_is_enough(start):
    harness = start(parameters=EVERY_FRAME)
    harness.client.infos.publish(info_message(CAMERA, (64, 48), time_message(1), FRAME))
    for k in range(3):
        stamp = time_message((100 + k) * SECOND)
        harness.client.images.publish(image_message(IMAGES[k], stamp, FRAME))
    assert harness.until(lambda: harness.count == 3)  # the last one after a short wait


def test_time_that_goes_back_stale_and_repeated_stamps(start):
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2), 100)
    show(harness, [1], 100)  # the same stamp again
    assert harness.diagnosed('dropped: duplicate', '1')
    harness.client.show(IMAGES[2], 101 * SECOND - SECOND // 2, CAMERA)
    assert harness.diagnosed('dropped: out_of_order', '1')
    show(harness, [3], 10)  # a bag that starts again
    assert harness.until(lambda: harness.count == 3)
    assert harness.diagnosed('refused: time_jump', '1')
    assert harness.client.tf[-1].transforms[0].header.stamp.sec <= 101
    assert set_parameter(harness, 'stale_timeout', 2.0).successful
    show(harness, [4], 20)
    assert harness.diagnosed('refused: stale', '1')
    harness.client.show(IMAGES[5], time.time_ns(), CAMERA)
    assert harness.until(lambda: harness.count == 4)


def test_compressed_images(start):
    harness = start(parameters=EVERY_FRAME | {'image_transport': 'compressed'})
    for k in range(3):
        data = cv2.imencode('.png', IMAGES[k][..., ::-1])[1].tobytes()
        data = data[: len(data) // 2] if k == 1 else data
        msg = CompressedImage(format='rgb8; png compressed bgr8', data=array.array('B', data))
        msg.header.stamp, msg.header.frame_id = time_message((100 + k) * SECOND), FRAME
        harness.client.infos.publish(info_message(CAMERA, (64, 48), msg.header.stamp, FRAME))
        harness.client.compressed.publish(msg)
    assert harness.until(lambda: harness.count == 2)
    assert np.array_equal(harness.estimator.prepared[1].image, IMAGES[2])
    assert harness.diagnosed('refused: bad_image', '1')
    assert 'truncated' in harness.client.levels['/ray_pose: input'][1]


def test_a_failing_model_is_an_entry_in_diagnostics_and_no_end(start):
    harness = start(parameters=EVERY_FRAME)
    harness.estimator.fail = RuntimeError('CUDA out of memory')
    show(harness, range(2))
    assert harness.diagnosed('failures', '1')
    assert 'out of memory' in harness.client.levels['/ray_pose: estimate'][1]
    harness.estimator.fail = None
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)
