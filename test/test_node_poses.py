"""The node through real rclpy: images on a topic come out as poses."""

import time

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseArray
from matching_fixtures import textured_views
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    FRAME,
    IMAGES,
    SECOND,
    save_tiny_model,
    set_parameter,
    show,
    starter,
)
from sensor_msgs.msg import CameraInfo, Image

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.metric import MetricScale
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.model.checkpoint import default_checkpoint
from ray_pose_ros.node.conversions import camera_from_pose, nanoseconds, time_message
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.outputs import LATCHED
from ray_pose_ros.node.point_cloud import points_of_message
from ray_pose_ros.node.work import Clouded
from ray_pose_ros.refinement.refine import default_matchers
from ray_pose_ros.refinement.refining import RefiningEstimator
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

start = pytest.fixture(starter)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Write a model with random weights: the numbers mean nothing, but must be the same."""
    return save_tiny_model(tmp_path_factory.mktemp('checkpoint'))


def test_points_that_matches_show_are_published(start):
    harness = start(make_estimator, EVERY_FRAME | {'device': 'cpu', 'matcher': 'sift'})
    client = harness.client
    seen = textured_views(4, 24)
    harness.show(range(4), [image.image for *_, image in seen], seen[0][0])
    assert harness.until(lambda: client.points and client.points[-1].header.stamp.sec == 103)
    msg = client.points[-1]
    assert msg.header.frame_id == 'ray_pose_world'
    assert [f.name for f in msg.fields] == ['x', 'y', 'z', 'rgb']
    assert msg.width == len(msg.data) // msg.point_step > 50
    xyz, rgb = points_of_message(msg)
    # in front of all cameras, at pixels of their colour
    harness.until(lambda: False, 0.5)
    near = 0
    for pose, (lens, *_, image) in zip(client.poses[-1].poses, seen, strict=True):
        R, t = camera_from_pose(pose)
        there = xyz @ R.T + t
        assert (there[:, 2] > 0).all()
        pixel = lens.project(torch.from_numpy(there)).numpy()
        inside = ((pixel >= 1) & (pixel < (lens.width - 1, lens.height - 1))).all(1)
        x, y = pixel[inside].astype(int).T
        off = np.abs(image.image[y, x].astype(float) - rgb[inside]).mean(1)
        near += (off < 30).sum()
    assert near > 2 * len(xyz) * 0.8  # each is seen in two or three
    assert harness.trigger('reset').success
    assert harness.until(lambda: client.points[-1].width == 0)


def test_points_are_in_metres_where_the_poses_are(start):
    harness = start()
    outputs, client = harness.node._outputs, harness.client
    xyz, rgb = np.array([[1.0, 2.0, 3.0]]), np.array([[250, 128, 1]], dtype=np.uint8)
    clouded = Clouded(0, xyz, rgb, 5 * SECOND, {})
    outputs.show_points(clouded, MetricScale(0.5, 0.1, 'TF odom'))
    assert harness.until(lambda: client.points)
    told, colours = points_of_message(client.points[-1])
    np.testing.assert_allclose(told, xyz / 2)
    np.testing.assert_array_equal(colours, rgb)
    outputs.transforms.lose('a reason')
    outputs.show_points(clouded, None)
    harness.until(lambda: False, 0.3)
    assert len(client.points) == 1  # nothing while lost


def test_refined_poses_of_the_same_keyframes_follow_the_first_ones(start, checkpoint):
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'device': 'cpu', 'window_size': 2}
    harness = start(make_estimator, parameters | {'map_size': 0, 'matcher': 'sift'})
    client = harness.client
    (lens, *_, first), (*_, second) = textured_views(2)
    shown = [first.image, second.image]
    harness.show([0, 1], shown, lens)
    assert harness.until(lambda: len(client.poses) == 2)
    estimator = RefiningEstimator(Estimator(checkpoint), default_matchers('sift'))
    looks = list(estimator.looks([estimator.prepare(View(image, lens)) for image in shown]))
    assert len(looks[1].pairs) == 1
    assert np.abs(looks[1].R - looks[0].R).max() > 1e-3
    assert len(looks) == 2
    for published, expected in zip(client.poses, looks, strict=True):
        for pose, R, t in zip(published.poses, expected.R, expected.t, strict=True):
            told = camera_from_pose(pose)
            assert np.abs(told[0] - R).max() < 1e-6 and np.abs(told[1] - t).max() < 1e-6


def test_poses_of_a_wider_window_follow_those_of_the_window(start, checkpoint):
    """What has left the window is matched with what has come, and all of it solved anew."""
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'device': 'cpu', 'window_size': 2}
    harness = start(make_estimator, parameters | {'matcher': 'sift'})
    client = harness.client
    views = textured_views(3)
    lens, shown = views[0][0], [view.image for *_, view in views]
    estimator = RefiningEstimator(Estimator(checkpoint), default_matchers('sift'))
    prepared = [estimator.prepare(View(image, lens)) for image in shown]
    map_, expected, counts = KeyframeMap(50), [], []
    for window in ((0, 1), (1, 2)):
        taken = [Keyframe(k, 'camera', 0, FRAME, prepared[k], View(shown[k])) for k in window]
        for look in estimator.looks([k.prepared for k in taken]):
            expected.append(map_.join(taken, look))
        map_.tell(taken, look.model)
        counts.append(len(expected))
    wide = map_.wider(taken, look.model)
    refined = estimator.refine([k.prepared for k in wide.keyframes], wide.estimate)
    assert len(refined.pairs) == 3
    map_.correct(wide.keyframes, refined)
    expected.append(map_.part(taken, expected[-1]))

    harness.show([0, 1], shown, lens)
    assert harness.until(lambda: len(client.poses) == counts[0], 20)
    harness.show([2], shown, lens)
    assert harness.until(lambda: len(client.poses) == len(expected), 20)
    for published, estimate in zip(client.poses, expected, strict=True):
        for pose, R, t in zip(published.poses, estimate.R, estimate.t, strict=True):
            told = camera_from_pose(pose)
            assert np.abs(told[0] - R).max() < 1e-6 and np.abs(told[1] - t).max() < 1e-6
    assert harness.until(lambda: 'latency wider_window [ms]' in client.diagnostics)


@pytest.mark.parametrize('map_size', [0, 50])
def test_topics_tell_what_the_estimator_tells(start, checkpoint, map_size):
    """
    Images on a topic give the poses of `ray-pose estimate`, also after the window moved on.

    With a map, windows are joined as `KeyframeMap` does it.
    """
    lens = CameraModel(CAMERA.matrix, 64, 48, 'plumb_bob', (0.1, -0.05, 0.001, 0.002, 0.01))
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'device': 'cpu', 'window_size': 4}
    parameters |= {'map_size': map_size, 'refine': False}
    harness = start(make_estimator, parameters)
    client = harness.client
    estimator = Estimator(checkpoint, seed=0)
    for last in range(1, 6):
        show(harness, [0, 1] if last == 1 else [last], camera=lens)
        stamps = [(100 + k) * SECOND for k in range(last + 1)][-4:]
        assert harness.until(
            lambda stamps=stamps: (
                client.paths
                and [nanoseconds(p.header.stamp) for p in client.paths[-1].poses] == stamps
            )
        )
    map_ = KeyframeMap(map_size) if map_size else None
    for window, at in ((range(4), -3), (range(1, 5), -2), (range(2, 6), -1)):
        expected = estimator.estimate([View(IMAGES[k], lens) for k in window])
        if map_ is not None:
            taken = [Keyframe(k, 'camera', 0, FRAME, None) for k in window]
            expected = map_.join(taken, expected)
        for i, pose in enumerate(client.poses[at].poses):
            R, t = camera_from_pose(pose)
            assert np.abs(R - expected.R[i]).max() < 1e-6
            assert np.abs(t - expected.t[i]).max() < 1e-6
    assert harness.until(
        lambda: client.tf and client.tf[-1].transforms[0].child_frame_id == 'camera_keyframe_2'
    )
    assert len(client.tf[-1].transforms) == 5
    for i, transform in enumerate(client.tf[-1].transforms[:4]):
        assert transform.header.frame_id == 'ray_pose_world'
        assert transform.child_frame_id == f'camera_keyframe_{i + 2}'
        centre = transform.transform.translation
        assert np.allclose([centre.x, centre.y, centre.z], expected.centres[i], atol=1e-6)
    assert harness.until(lambda: client.newest[-1].header.stamp.sec == 105)
    covariance = np.asarray(client.newest[-1].pose.covariance).reshape(6, 6)
    assert np.allclose(np.diag(covariance)[:3], expected.centre_sigma[-1] ** 2, rtol=1e-5)
    assert np.allclose(np.diag(covariance)[3:], expected.rotation_sigma[-1] ** 2, rtol=1e-5)


@pytest.mark.parametrize('second_look', [False, True])
def test_the_model_of_the_package_does_the_same_in_the_node(start, second_look):
    if not (default_checkpoint() / 'model.safetensors').is_file():
        pytest.skip('this checkout has no weights')
    settings = {'samples': 1, 'seed': 5, 'second_look': second_look}
    harness = start(make_estimator, EVERY_FRAME | {'device': 'cpu'} | settings)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2, 30)
    estimator = RefiningEstimator(Estimator(**settings), default_matchers())
    prepared = [estimator.prepare(View(IMAGES[k], CAMERA)) for k in range(2)]
    expected = list(estimator.looks(prepared))
    # in noise there is nothing to match, and what the network matches agrees with nothing
    assert len(expected) == 2 + second_look
    published = harness.client.poses
    assert harness.until(lambda: len([p for p in published if p.poses]) == len(expected), 30)
    for message, estimate in zip(published[-len(expected) :], expected, strict=True):
        for i, pose in enumerate(message.poses):
            R, t = camera_from_pose(pose)
            assert np.abs(R - estimate.R[i]).max() < 1e-6
            assert np.abs(t - estimate.t[i]).max() < 1e-6
    assert harness.diagnosed('estimates', '1')  # a message may still be from before
    said = harness.client.diagnostics
    if second_look:
        assert harness.until(lambda: 'latency second_look [ms]' in said)
    assert harness.diagnosed('working for [s]', '0')
    assert said['estimates'] == '1' and ('latency second_look [ms]' in said) == second_look


def test_save_writes_what_the_command_line_writes(start, checkpoint, tmp_path):
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'output_directory': str(tmp_path)}
    harness = start(make_estimator, parameters)
    answer = harness.trigger('save')
    assert not answer.success and 'no estimate yet' in answer.message
    show(harness, range(3))
    assert harness.until(lambda: harness.count == 3)
    answer = harness.trigger('save')
    assert answer.success, answer.message
    (folder,) = tmp_path.iterdir()
    names = {p.name for p in folder.iterdir()}
    assert {'poses.json', 'poses.tum', 'transforms.json', 'colmap', 'poses.png'} <= names
    assert 'camera_100000000000.png' in names


def test_save_says_what_it_leaves_out(start, checkpoint, tmp_path):
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'output_directory': str(tmp_path)}
    harness = start(make_estimator, parameters)
    prism = (0.0,) * 8 + (1e-3,) * 4
    camera = CameraModel(CAMERA.matrix, 64, 48, 'rational_polynomial', prism)
    show(harness, range(2), camera=camera)
    assert harness.until(lambda: harness.count == 2)
    answer = harness.trigger('save')
    (folder,) = tmp_path.iterdir()
    assert answer.success and not (folder / 'colmap').exists()
    assert 'poses.png; transforms.json is left out: thin prism and tilt' in answer.message
    assert '; colmap is left out: thin prism and tilt' in answer.message


def test_a_checkpoint_that_is_none_leaves_the_node_unconfigured_and_is_said(start, tmp_path):
    parameters = {'checkpoint': str(tmp_path / 'nothing')}
    harness = start(make_estimator, parameters, ready=False)
    name = '/ray_pose: estimate'
    assert harness.until(
        lambda: harness.client.levels.get(name, (b'\x00',))[0] == b'\x02', timeout=10
    )
    assert 'cannot be loaded' in harness.client.levels[name][1]
    assert 'nothing' in harness.client.levels[name][1]
    assert harness.node.state == 'unconfigured'


# -- outputs ------------------------------------------------------------------------------------


def test_all_outputs_of_an_estimate(start):
    harness = start(parameters=EVERY_FRAME)
    client = harness.client
    show(harness, range(3))
    assert harness.until(
        lambda: harness.count == 3 and client.newest and client.markers and client.tf
    )
    harness.until(lambda: False, 0.3)
    stamp = time_message(102 * SECOND)
    assert client.poses[-1].header.stamp == client.newest[-1].header.stamp == stamp
    assert client.poses[-1].header.frame_id == 'ray_pose_world'
    assert [round(p.position.x, 6) for p in client.poses[-1].poses] == [0.0, 0.1, 0.2]
    assert harness.seconds == [100, 101, 102]
    children = [t.child_frame_id for t in client.tf[-1].transforms]
    assert children == [*(f'camera_keyframe_{k}' for k in range(3)), 'ray_pose_object']
    assert {t.header.stamp.sec for t in client.tf[-1].transforms} == {102}
    covariance = np.diag(np.asarray(client.newest[-1].pose.covariance).reshape(6, 6))
    assert np.allclose(covariance[:3], 0.2**2)  # the fake one has no spread: not known, not 0
    assert np.allclose(covariance[3:], 0.05**2)
    drawn = {m.ns: m for m in client.markers[-1].markers[1:]}
    assert set(drawn) == {'cameras', 'newest_camera', 'object'}
    assert len(drawn['cameras'].points) == 2 * 16
    assert len(drawn['newest_camera'].colors) == len(drawn['newest_camera'].points) == 16
    assert harness.until(lambda: int(client.diagnostics.get('estimates', 0)) >= 1)
    assert harness.diagnosed('keyframes', '3')
    assert client.diagnostics['scale'] == 'arbitrary'
    assert client.diagnostics['device'] == 'fake'
    assert float(client.diagnostics['latency total [ms]']) > 0


def test_late_subscribers_get_the_last_estimate(start):
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)
    got = []
    harness.client.create_subscription(PoseArray, '/ray_pose/poses', got.append, LATCHED)
    assert harness.until(lambda: got)
    assert len(got[-1].poses) == 2


def test_transforms_move_on_with_the_images_and_stop_with_publish_tf(start):
    harness = start(parameters=EVERY_FRAME | {'keyframe_min_interval': 60.0})
    client = harness.client
    harness.trigger('capture')
    show(harness, [0])
    harness.until(lambda: harness.node.health.keyframes == 1)
    harness.trigger('capture')
    show(harness, [1])
    assert harness.until(lambda: harness.count == 2)
    show(harness, [2])  # no keyframe, but the transforms now hold for its time
    assert harness.until(lambda: client.tf and client.tf[-1].transforms[0].header.stamp.sec == 102)
    assert harness.count == 2
    assert set_parameter(harness, 'publish_tf', False).successful
    harness.until(lambda: False, 0.3)
    told = len(client.tf)
    show(harness, [3])
    harness.until(lambda: False, 0.5)
    assert len(client.tf) == told


def test_transforms_are_repeated_at_a_rate_above_that_of_the_tick(start):
    harness = start(parameters=EVERY_FRAME | {'keyframe_min_interval': 60.0, 'tf_rate': 1.0})
    client = harness.client
    for k in range(2):
        harness.trigger('capture')
        show(harness, [k])
        assert harness.until(lambda k=k: harness.node.health.keyframes == k + 1)
    assert harness.until(lambda: harness.count == 2)

    def told_a_second(begin: int) -> float:
        client.tf.clear()
        start = time.monotonic()
        for k in range(50):
            client.show(IMAGES[2], begin * SECOND + k * SECOND // 50, CAMERA)
            harness.until(lambda: False, 0.02)
        return len(client.tf) / (time.monotonic() - start)

    assert 0 < told_a_second(110) < 5
    assert set_parameter(harness, 'tf_rate', 50.0).successful
    assert told_a_second(120) > 13  # ten ticks a second would give ten
    assert set_parameter(harness, 'tf_rate', 0.0).successful
    harness.until(lambda: False, 0.3)
    assert told_a_second(130) == 0


def test_namespace_cameras_and_frames(start):
    harness = start(
        parameters=EVERY_FRAME | {'cameras': ['camera', 'side/left'], 'object_frame': 'cup'},
        namespace='robot',
        ready=False,
    )
    publishers = []
    client = harness.client
    for camera in ('camera', 'side/left'):
        publishers.append(
            (
                client.create_publisher(Image,
                                        f'/robot/{camera}/image_raw', 5),
                client.create_publisher(CameraInfo, f'/robot/{camera}/camera_info', 5),
            )
        )  # fmt: skip
    assert harness.until(lambda: all(p.get_subscription_count() for x in publishers for p in x))
    harness.until(lambda: False, 0.2)
    for k, (images, infos) in enumerate(publishers):
        infos.publish(info_message(CAMERA, (64, 48), time_message(SECOND), FRAME))
        images.publish(image_message(IMAGES[k], time_message(SECOND), FRAME))
    assert harness.until(lambda: harness.count == 2 and client.tf)
    children = {t.child_frame_id for t in client.tf[-1].transforms}
    assert {c.rsplit('_', 1)[0] for c in children} == {
        'camera_keyframe', 'side_left_keyframe', ['cup'][0]
    }  # fmt: skip
