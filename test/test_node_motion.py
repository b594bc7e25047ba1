"""Metric scale and the motion gate from /tf, through real rclpy."""

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from metric_fixtures import scene
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    FRAME,
    IMAGES,
    SECOND,
    FakeEstimator,
    set_parameter,
    starter,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from ray_pose_ros.evaluation.scale import true_object
from ray_pose_ros.evaluation.sequences import Sequence, render_scene
from ray_pose_ros.geometry.so3 import rotation_from_vector
from ray_pose_ros.model.checkpoint import default_checkpoint
from ray_pose_ros.node import camera_input, frame_tree
from ray_pose_ros.node.conversions import (
    camera_from_pose,
    pose_from_camera,
    time_message,
    transform_from_pose,
)
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.outputs import LATCHED
from ray_pose_ros.node.parameter import ParameterError
from ray_pose_ros.node.settings import make_settings
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

start = pytest.fixture(starter)
SCALE = 0.7
METRIC = EVERY_FRAME | {'motion_frame': 'odom'}


@pytest.fixture(autouse=True)
def short_listening(monkeypatch):
    monkeypatch.setattr(frame_tree, 'LISTEN_S', 0.2)


class Scene:
    """Cameras 0 to 7, known in metres, and what a perfect estimate says of some of them."""

    def __init__(self) -> None:
        self.R_known, self.centres, *_, self.object, _ = scene(np.random.default_rng(5), 8, SCALE)

    def estimate(self, numbers):
        """R, t of a window in its own unit and axes, those of its first camera."""
        R_known, centres = self.R_known[numbers], self.centres[numbers]
        first = R_known[0]
        towards = self.object - centres
        unit = np.linalg.norm(towards[0])
        return R_known @ first.T, np.einsum('nij,nj->ni', R_known, towards) / unit


SCENE = Scene()


class KnowingEstimator(FakeEstimator):
    """Answers with the scene's cameras; which one a view is of, its stamp or name tells."""

    def __init__(self) -> None:
        super().__init__()
        self.number = lambda view: round(view.stamp) % 100

    def cameras(self, n):
        return SCENE.estimate([self.number(view) for view in self.solved[-1]])

    def solve(self, prepared, progress=None):
        estimate = super().solve(prepared, progress)
        estimate.centre_sigma[:] = 0.02
        return estimate


def transform(parent, child, R, centre, seconds=0.0) -> TransformStamped:
    """Make the pose of a frame: x_child = R x_parent + t, with its origin at `centre`."""
    msg = TransformStamped()
    msg.header.frame_id, msg.child_frame_id = parent, child
    msg.header.stamp = time_message(round(seconds * SECOND))
    msg.transform = transform_from_pose(pose_from_camera(R, -R @ centre))
    return msg


class Robot:
    """Tells /tf where the camera is: odom -> base -> camera, the latter static."""

    def __init__(self, harness) -> None:
        client = harness.client
        self.moving = client.create_publisher(TFMessage, '/tf', 100)
        self.static = client.create_publisher(TFMessage, '/tf_static', LATCHED)
        assert harness.until(self.moving.get_subscription_count)
        self.mount = transform('base', FRAME, np.eye(3), np.array([0.1, 0.0, 0.3]))
        self.static.publish(TFMessage(transforms=[self.mount]))
        harness.until(lambda: False, 0.3)

    def be(self, k: int, seconds: float, R=None, centre=None) -> None:
        """Say that the camera is at the scene's camera k, or elsewhere."""
        R = SCENE.R_known[k] if R is None else R
        centre = SCENE.centres[k] if centre is None else centre
        base = centre - R.T @ np.array([0.1, 0.0, 0.3])
        self.moving.publish(TFMessage(transforms=[transform('odom', 'base', R, base, seconds)]))


def begin(start, parameters=METRIC):
    estimator = KnowingEstimator()
    harness = start(lambda settings: estimator, parameters)
    harness.estimator = estimator
    harness.statuses = []
    harness.client.create_subscription(
        DiagnosticStatus, '/ray_pose/status', harness.statuses.append, LATCHED
    )
    return harness, Robot(harness)


def said(harness) -> dict[str, str]:
    return {v.key: v.value for v in harness.statuses[-1].values} if harness.statuses else {}


def scale_is(harness, words: str, timeout: float = 20.0) -> bool:
    return harness.until(lambda: said(harness).get('scale', '').startswith(words), timeout)


def drive(harness, robot, numbers, first=100) -> None:
    """Take a keyframe at each of these cameras, a second apart."""
    for k in numbers:
        robot.be(k, first + k)
        harness.until(lambda: False, 0.05)
        count = len(harness.estimator.prepared)
        harness.show([k], IMAGES, CAMERA, first)
        assert harness.until(lambda n=count: len(harness.estimator.prepared) == n + 1)


def sent(harness) -> dict[str, TransformStamped]:
    return {t.child_frame_id: t for m in harness.client.tf for t in m.transforms
            if t.child_frame_id not in ('base', FRAME)}  # fmt: skip


# -- the scale ----------------------------------------------------------------------------------


def test_with_motion_all_lengths_are_metres_and_the_object_is_in_the_robots_frame(start):
    harness, robot = begin(start)
    assert scale_is(harness, 'arbitrary (TF odom: there is no estimate yet)')
    drive(harness, robot, range(4))
    assert harness.until(lambda: harness.count == 4)
    assert scale_is(harness, 'metric (from TF odom, +-')
    told = harness.client.diagnostics
    assert harness.until(lambda: told.get('scale') == said(harness)['scale'])
    R, t = SCENE.estimate(range(4))
    expected = -np.einsum('nji,nj->ni', R, SCALE * t)
    found = [[p.position.x, p.position.y, p.position.z] for p in harness.client.poses[-1].poses]
    assert np.allclose(found, expected, atol=1e-6)
    of_path = harness.client.paths[-1].poses[2].pose.position
    assert np.allclose([of_path.x, of_path.y, of_path.z], expected[2], atol=1e-6)

    # covariance: that of the place in metres, and the scale's along the line to the object
    assert harness.until(lambda: harness.client.newest[-1].header.stamp.sec == 103)
    covariance = np.asarray(harness.client.newest[-1].pose.covariance).reshape(6, 6)
    sigma = harness.node._last.estimate.metric.log_sigma
    place = (0.02 * SCALE) ** 2 * np.eye(3) + sigma**2 * np.outer(expected[3], expected[3])
    assert np.allclose(covariance[:3, :3], place, rtol=1e-6) and 0.02 <= sigma < 0.1

    # ~/save writes this one
    assert np.allclose(harness.node._last.estimate.t, SCALE * t, atol=1e-6)

    # drawn as large as it was, with respect to the scene
    drawn = {m.ns: m for m in harness.client.markers[-1].markers[1:]}
    assert drawn['object'].points[1].x == pytest.approx(0.2 * SCALE)

    # odom -> reference frame -> object
    assert harness.until(lambda: 'ray_pose_world' in sent(harness))
    world = sent(harness)['ray_pose_world']
    assert world.header.frame_id == 'odom'
    at, turn = world.transform.translation, world.transform.rotation
    assert np.allclose([at.x, at.y, at.z], SCENE.object, atol=1e-6)
    pose = pose_from_camera(np.eye(3), np.zeros(3))
    pose.orientation = turn
    Q = camera_from_pose(pose)[0].T
    assert np.allclose(Q @ expected.T + SCENE.object[:, None], SCENE.centres[:4].T, atol=1e-6)
    keyframe = sent(harness)['camera_keyframe_2']
    assert keyframe.header.frame_id == 'ray_pose_world'
    moved = keyframe.transform.translation
    assert np.allclose([moved.x, moved.y, moved.z], expected[2], atol=1e-6)


def test_the_scale_stays_when_the_window_moves_on_and_goes_with_the_keyframes(start):
    harness, robot = begin(start, METRIC | {'window_size': 3})
    drive(harness, robot, range(8))
    assert harness.until(lambda: harness.seconds == [105, 106, 107])
    unit = np.linalg.norm(SCENE.object - SCENE.centres[5])
    first = harness.client.poses[-1].poses[0].position
    assert np.linalg.norm([first.x, first.y, first.z]) == pytest.approx(unit, rel=1e-6)
    assert scale_is(harness, 'metric')
    assert harness.trigger('reset').success
    assert scale_is(harness, 'arbitrary (TF odom: there is no estimate yet)')


def test_tf_that_comes_after_the_image_counts_and_nothing_waits_for_it(start):
    harness, robot = begin(start, METRIC | {'motion_timeout': 10.0})
    harness.show(range(3), IMAGES, CAMERA)
    assert harness.until(lambda: harness.count == 3)
    assert scale_is(harness, 'arbitrary (TF odom: poses are known of 0 cameras')
    first = harness.client.poses[-1].poses[0].position
    assert np.linalg.norm([first.x, first.y, first.z]) == pytest.approx(1.0)
    for k in range(3):
        robot.be(k, 100 + k)
    assert scale_is(harness, 'metric')  # without another image
    assert harness.until(
        lambda: np.isclose(harness.client.poses[-1].poses[0].position.z, -SCALE, atol=1e-6)
    )
    assert 'refused: no_motion' not in harness.client.diagnostics


def test_tf_that_does_not_come_is_said_and_stops_nothing(start):
    harness, robot = begin(start, METRIC | {'motion_timeout': 0.2})
    harness.show(range(3), IMAGES, CAMERA)
    assert harness.until(lambda: harness.count == 3)
    assert harness.diagnosed('refused: no_motion', '3')
    assert 'is not known' in harness.client.levels['/ray_pose: input'][1]
    assert "no known pose in 'odom'" in harness.client.levels['/ray_pose: input'][1]
    drive(harness, robot, range(3, 6))  # from here on TF knows
    assert scale_is(harness, 'metric')


def test_standing_still_or_against_the_motion_the_scale_is_arbitrary(start):
    harness, robot = begin(start)
    for k in range(3):
        robot.be(0, 100 + k)
    harness.until(lambda: False, 0.1)
    harness.show(range(3), IMAGES, CAMERA, 100)
    assert harness.until(lambda: harness.count == 3)
    assert scale_is(harness, 'arbitrary (TF odom: the cameras are within 1 mm')
    harness.trigger('reset')
    for k in range(3):  # rolled by 120 degrees each, of which the images know nothing
        roll = rotation_from_vector(np.array([0.0, 0.0, k * 2 * np.pi / 3]))
        robot.be(k, 200 + k, R=roll @ SCENE.R_known[k], centre=SCENE.centres[k])
    harness.until(lambda: False, 0.1)
    harness.show(range(3), IMAGES, CAMERA, 200)
    assert harness.until(lambda: harness.count == 3)
    assert scale_is(harness, 'arbitrary (TF odom: the known motion contradicts the estimate')
    assert 'ray_pose_world' not in sent(harness)


def test_a_jump_of_time_and_being_lost_forget_the_scale(start):
    harness, robot = begin(start)
    drive(harness, robot, range(4))
    assert scale_is(harness, 'metric')
    harness.show([4], IMAGES, CAMERA, 0)  # time goes back, and TF knows nothing of it
    assert harness.diagnosed('refused: time_jump', '1')
    assert scale_is(harness, 'arbitrary (TF odom: poses are known of 0 cameras')
    harness.client.tf.clear()
    harness.until(lambda: False, 0.5)
    assert 'ray_pose_world' not in sent(harness)
    harness.trigger('reset')
    drive(harness, robot, range(5, 8))
    assert scale_is(harness, 'metric')
    harness.estimator.fail = RuntimeError('no')
    robot.be(0, 200)
    harness.show([0], IMAGES, CAMERA, 200)
    assert harness.until(lambda: harness.statuses[-1].message.startswith('lost'))
    assert harness.node._metric._filter.scale(1.0) is None


def test_the_world_gets_no_second_parent(start):
    harness, robot = begin(start)
    other = harness.client.create_publisher(TFMessage, '/tf_static', LATCHED)
    other.publish(
        TFMessage(transforms=[transform('map', 'ray_pose_world', np.eye(3), np.zeros(3))])
    )
    harness.until(lambda: False, 0.5)
    drive(harness, robot, range(3))
    assert scale_is(harness, 'metric')
    assert harness.until(lambda: int(harness.client.diagnostics.get('refused: tf_conflict', 0)))
    assert "'ray_pose_world' has the parent 'map' already" in str(harness.client.levels)
    assert 'ray_pose_object' in sent(harness) and 'ray_pose_world' not in sent(harness)


def test_publish_in_motion_frame_can_be_switched_off(start):
    harness, robot = begin(start, METRIC | {'publish_in_motion_frame': False})
    drive(harness, robot, range(3))
    assert scale_is(harness, 'metric')
    assert harness.until(lambda: 'ray_pose_object' in sent(harness))
    harness.until(lambda: False, 0.5)
    assert 'ray_pose_world' not in sent(harness)
    assert set_parameter(harness, 'publish_in_motion_frame', True).successful
    assert harness.until(lambda: 'ray_pose_world' in sent(harness), 5)  # of the same estimate
    drive(harness, robot, [3])
    assert set_parameter(harness, 'publish_in_motion_frame', False).successful
    harness.until(lambda: False, 0.3)
    harness.client.tf.clear()
    harness.estimator.fail = RuntimeError('no')
    assert set_parameter(harness, 'keyframe_min_interval', 60.0).successful
    harness.show([4], IMAGES, CAMERA)  # no keyframe: the last estimate is repeated
    assert harness.until(lambda: 'ray_pose_object' in sent(harness))
    assert 'ray_pose_world' not in sent(harness)


def test_frames_that_exclude_each_other_are_refused():
    with pytest.raises(ParameterError, match='one parent only'):
        make_settings({'motion_frame': 'odom', 'invert_tf': True})
    make_settings({'invert_tf': True})
    make_settings({'motion_frame': 'odom', 'invert_tf': True, 'publish_in_motion_frame': False})
    for name in ('ray_pose_world', 'ray_pose_object', '/odom'):
        with pytest.raises(ParameterError, match='motion_frame is'):
            make_settings({'motion_frame': name})


# -- a rig --------------------------------------------------------------------------------------


def rig_of(start, parameters):
    """A rig of three cameras, numbers 0, 1, 2 of the scene, that see one set."""
    names = ['left', 'right', 'top']
    estimator = KnowingEstimator()
    estimator.number = lambda view: names.index(view.name.split('_')[0])
    harness = start(
        lambda settings: estimator,
        METRIC | {'cameras': names, 'rig': True, 'window_size': 3} | parameters,
        ready=False,
    )
    harness.estimator, harness.statuses = estimator, []
    client = harness.client
    client.create_subscription(
        DiagnosticStatus, '/ray_pose/status', harness.statuses.append, LATCHED
    )
    qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
    made = [(client.create_publisher(CameraInfo, f'/{n}/camera_info', qos),
             client.create_publisher(Image, f'/{n}/image_raw', qos)) for n in names]  # fmt: skip
    assert harness.until(lambda: all(p.get_subscription_count() for x in made for p in x))
    harness.until(lambda: False, 0.3)

    def look(seconds):
        for k, (infos, images) in enumerate(made):
            stamp, frame = time_message(seconds * SECOND), f'{names[k]}_optical'
            infos.publish(info_message(CAMERA, (64, 48), stamp, frame))
            images.publish(image_message(IMAGES[k], stamp, frame))

    return harness, names, look


def test_the_calibration_of_a_rig_tells_the_scale(start):
    harness, names, look = rig_of(start, {'motion_frame': 'rig'})
    static = harness.client.create_publisher(TFMessage, '/tf_static', LATCHED)
    static.publish(
        TFMessage(
            transforms=[
                transform('rig', f'{n}_optical', SCENE.R_known[k], SCENE.centres[k])
                for k, n in enumerate(names)
            ]
        )
    )
    harness.until(lambda: False, 0.5)
    look(10)
    assert harness.until(lambda: harness.count == 3)
    assert scale_is(harness, 'metric (from TF rig')
    first = harness.client.poses[-1].poses[0].position
    assert first.z == pytest.approx(-SCALE)
    look(11)
    assert harness.until(lambda: 'ray_pose_world' in sent(harness))
    at = sent(harness)['ray_pose_world'].transform.translation
    assert np.allclose([at.x, at.y, at.z], SCENE.object, atol=1e-6)
    # their frames are calibrated: neither published anew nor a conflict
    assert not {f'{n}_optical' for n in names} & {
        t.child_frame_id for m in harness.client.tf for t in m.transforms
    }
    assert 'refused: tf_conflict' not in harness.client.diagnostics


def test_what_the_node_publishes_itself_tells_no_scale(start):
    """Without calibration the node says where the other cameras are; it must not believe that."""
    harness, names, look = rig_of(start, {'motion_frame': 'left_optical', 'motion_timeout': 0.3})
    harness.until(lambda: False, 0.3)
    for seconds in range(10, 13):
        look(seconds)
        assert harness.until(lambda s=seconds: harness.seconds == [s] * 3)
    assert harness.until(lambda: 'right_optical' in sent(harness))
    assert scale_is(harness, 'arbitrary (TF left_optical: poses are known of 1 cameras')
    harness.until(lambda: False, 0.5)
    assert scale_is(harness, 'arbitrary')


# -- the gate -----------------------------------------------------------------------------------


def test_a_camera_that_has_not_moved_takes_no_keyframe_and_is_not_looked_at(start, monkeypatch):
    looked = []
    look = camera_input.glance
    monkeypatch.setattr(camera_input, 'glance', lambda *a: (looked.append(1), look(*a))[1])
    harness, robot = begin(
        start, METRIC | {'keyframe_min_translation': 0.1, 'keyframe_min_rotation': 10.0}
    )
    R, c = SCENE.R_known[0], SCENE.centres[0]

    def image_at(k, seconds, shift=0.0, turn=0.0):
        """Publish TF about the image's time and then the image; returns whether it was taken."""
        angle = np.radians(turn)
        about_y = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                            [-np.sin(angle), 0, np.cos(angle)]])  # fmt: skip
        for at in (seconds - 0.1, seconds + 0.1):
            robot.be(0, at, about_y @ R, c + [shift, 0, 0])
        harness.until(lambda: False, 0.1)
        count = harness.node.health.keyframes
        harness.show([k], IMAGES, CAMERA, round(seconds) - k)
        return harness.until(lambda: harness.node.health.keyframes > count, 0.4)

    assert image_at(0, 100)
    assert not image_at(1, 101, shift=0.09, turn=9.0)  # another image, from the same place
    assert len(looked) == 1
    assert harness.diagnosed('dropped: not_moved', '1')
    assert image_at(1, 102, shift=0.11)
    assert not image_at(2, 103, shift=0.11, turn=9.0)
    assert image_at(2, 104, shift=0.11, turn=11.0)
    assert harness.trigger('capture').success  # goes before
    assert image_at(3, 105, shift=0.11, turn=11.0)
    # TF is silent from here on: the image decides
    count = harness.node.health.keyframes
    harness.show([4], IMAGES, CAMERA, 110)
    assert harness.until(lambda: harness.node.health.keyframes == count + 1)
    assert set_parameter(harness, 'keyframe_min_translation', 0.0).successful
    assert set_parameter(harness, 'keyframe_min_rotation', 0.0).successful
    assert image_at(5, 120) and image_at(6, 121)


def test_tf_that_is_a_little_behind_the_image_tells_whether_it_moves(start):
    harness, robot = begin(start, METRIC | {'keyframe_min_translation': 0.1})
    robot.be(0, 99.0)
    robot.be(0, 100.0)
    harness.until(lambda: False, 0.1)
    harness.show([0], IMAGES, CAMERA)
    assert harness.until(lambda: harness.node.health.keyframes == 1)
    robot.be(0, 100.9)
    harness.until(lambda: False, 0.1)
    harness.show([1], IMAGES, CAMERA)  # at 101.0, when TF is at 100.9
    assert harness.diagnosed('dropped: not_moved', '1')
    harness.show([2], IMAGES, CAMERA)  # at 102.0: that is too long ago to tell
    assert harness.until(lambda: harness.node.health.keyframes == 2)


def test_the_gate_is_off_by_default_and_max_interval_opens_it(start):
    harness, robot = begin(start)
    for k in range(3):
        robot.be(0, 100 + k)
    harness.until(lambda: False, 0.1)
    harness.show(range(3), IMAGES, CAMERA)
    assert harness.until(lambda: harness.node.health.keyframes == 3)
    set_parameter(harness, 'keyframe_min_translation', 0.1)
    set_parameter(harness, 'keyframe_max_interval', 5.0)
    for k in (4, 8):
        robot.be(0, 100 + k)
    harness.until(lambda: False, 0.1)
    harness.show([4], IMAGES, CAMERA)
    assert harness.diagnosed('dropped: not_moved', '1')
    harness.show([8], IMAGES, CAMERA)
    assert harness.until(lambda: harness.node.health.keyframes == 4)


def test_a_busy_tf_costs_little(start):
    """A hundred frames at once, again and again, while images come: nothing is lost by it."""
    harness, robot = begin(start)
    crowd = [transform('odom', f'thing_{k}', np.eye(3), np.zeros(3)) for k in range(100)]
    begun = time.monotonic()
    for k in range(4):
        for j in range(25):
            for msg in crowd:
                msg.header.stamp = time_message((100 + k) * SECOND + j * SECOND // 25)
            robot.moving.publish(TFMessage(transforms=crowd))
            harness.until(lambda: False, 0.005)  # a burst may be more than a socket holds
        robot.be(k, 100 + k)
        harness.until(lambda: False, 0.1)
        harness.show([k], IMAGES, CAMERA)
    assert harness.until(lambda: harness.count == 4)
    assert scale_is(harness, 'metric')
    assert time.monotonic() - begun < 20


def test_the_shipped_model_and_tf_put_a_rendered_object_where_it_is(start):
    """All of it: pictures and TF in; the object, in metres in the robot's frame, out."""
    if not (default_checkpoint() / 'model.safetensors').is_file():
        pytest.skip('this checkout has no weights')
    sequence = render_scene(3, size=224)
    metres = 0.25  # of a unit of the renderer, where the object is about 1 large, at the origin
    centres = metres * sequence.centres
    harness = start(make_estimator, METRIC | {'device': 'cpu', 'lost_rotation_sigma': 0.8})
    robot = Robot(harness)
    chosen = range(5)
    for k in chosen:
        robot.be(0, 100 + k, R=sequence.R[k], centre=centres[k])
        harness.until(lambda: False, 0.05)
        view = sequence.views[k]
        harness.client.show(view.image, (100 + k) * SECOND, view.camera)
    assert harness.until(lambda: harness.count == len(chosen), 60)
    assert harness.until(lambda: 'ray_pose_world' in sent(harness))
    metric = harness.node._last.estimate.metric
    place, unit = true_object(Sequence('', sequence.views, sequence.R, -np.einsum(
        'nij,nj->ni', sequence.R, centres)), list(chosen))  # fmt: skip
    at = sent(harness)['ray_pose_world'].transform.translation
    assert abs(np.log(metric.metres_per_unit / unit)) < 2 * metric.log_sigma < 0.3
    assert np.linalg.norm(place - [at.x, at.y, at.z]) < 0.1 * unit
