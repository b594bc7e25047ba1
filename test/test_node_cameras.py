"""Several cameras, regions, frames and the quality of service, through real rclpy."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    IMAGES,
    SECOND,
    FakeEstimator,
    set_parameter,
    starter,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node import frame_tree
from ray_pose_ros.node.camera_input import CameraInput
from ray_pose_ros.node.conversions import nanoseconds, time_message
from ray_pose_ros.node.frame_tree import FrameTree
from ray_pose_ros.node.outputs import LATCHED
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

start = pytest.fixture(starter)
RIG = EVERY_FRAME | {'cameras': ['left', 'right'], 'rig': True, 'window_size': 4}


@pytest.fixture(autouse=True)
def short_listening(monkeypatch):
    monkeypatch.setattr(frame_tree, 'LISTEN_S', 0.2)


class Camera:
    """Publishes one camera's images with its own frame."""

    def __init__(self, harness, name: str, frame: str = '') -> None:
        client = harness.client
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
        self.frame = frame or f'{name}_optical_frame'
        self.images = client.create_publisher(Image, f'/{name}/image_raw', qos)
        self.infos = client.create_publisher(CameraInfo, f'/{name}/camera_info', qos)
        assert harness.until(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
        )

    def show(self, k: int, seconds: float) -> None:
        stamp = time_message(round(seconds * SECOND))
        self.infos.publish(info_message(CAMERA, (64, 48), stamp, self.frame))
        self.images.publish(image_message(IMAGES[k], stamp, self.frame))


def cameras_of(harness, *names: str) -> list[Camera]:
    made = [Camera(harness, name) for name in names]
    harness.until(lambda: False, 0.3)
    return made


def sent(harness) -> dict[str, str]:
    """Return all pairs on /tf, child: parent."""
    return {t.child_frame_id: t.header.frame_id for m in harness.client.tf for t in m.transforms}


def static_publisher(harness, parent: str, child: str):
    transform = TransformStamped()
    transform.header.frame_id, transform.child_frame_id = parent, child
    transform.transform.rotation.w = 1.0
    publisher = harness.client.create_publisher(TFMessage, '/tf_static', LATCHED)
    publisher.publish(TFMessage(transforms=[transform]))
    harness.until(lambda: False, 0.5)
    return publisher


# -- rig and frames -----------------------------------------------------------------------------


def test_a_rig_gives_sets_and_the_transforms_between_its_cameras(start):
    harness = start(parameters=RIG, ready=False)
    left, right = cameras_of(harness, 'left', 'right')
    left.show(0, 10.0)
    harness.until(lambda: False, 0.1)
    assert not harness.estimator.prepared  # waits for the other one
    right.show(1, 10.02)
    assert harness.until(lambda: harness.count == 2)
    assert harness.until(lambda: harness.seconds == [10.0, 10.02])
    assert len(harness.estimator.solved) == 1
    assert harness.until(lambda: 'right_optical_frame' in sent(harness))
    assert sent(harness)['right_optical_frame'] == 'left_optical_frame'
    assert 'left_optical_frame' not in sent(harness)
    (between,) = (t for t in harness.client.tf[-1].transforms
                  if t.child_frame_id == 'right_optical_frame')  # fmt: skip
    moved = between.transform.translation
    assert np.allclose([moved.x, moved.y, moved.z], [0.1, 0, 0])  # as FakeEstimator places them
    assert between.header.stamp == time_message(round(10.02 * SECOND))


def test_a_frame_with_a_parent_elsewhere_gets_no_second_one(start):
    harness = start(parameters=RIG, ready=False)
    left, right = cameras_of(harness, 'left', 'right')
    kept = static_publisher(harness, 'robot', 'right_optical_frame')
    left.show(0, 10.0)
    right.show(1, 10.0)
    assert harness.until(lambda: 'ray_pose_object' in sent(harness))
    assert 'right_optical_frame' not in sent(harness)
    assert harness.until(lambda: int(harness.client.diagnostics.get('refused: tf_conflict', 0)))
    level, words = harness.client.levels['/ray_pose: input']
    assert level == b'\x01' and "has the parent 'robot' already" in words
    harness.client.destroy_publisher(kept)


def test_inverted_the_world_hangs_below_the_leading_camera(start):
    harness = start(parameters=EVERY_FRAME | {'invert_tf': True})
    harness.until(lambda: False, 0.3)
    harness.show(range(3), IMAGES, CAMERA)
    assert harness.until(lambda: 'ray_pose_world' in sent(harness))
    assert sent(harness)['ray_pose_world'] == 'camera_optical_frame'
    assert sent(harness)['ray_pose_object'] == 'ray_pose_world'
    harness.until(lambda: False, 0.5)
    mine = [t for m in harness.client.tf for t in m.transforms
            if t.child_frame_id == 'ray_pose_world']  # fmt: skip
    seconds = [t.header.stamp.sec for t in mine]
    assert seconds == sorted(set(seconds)) and seconds[-1] == 102  # once for each keyframe
    # FakeEstimator: x_camera = x_world - 0.1 k along x, at depth 1
    at = mine[-1].transform.translation
    assert np.allclose([at.x, at.y, at.z], [-0.2, 0.0, 1.0])


def world_stamps(harness) -> list[int]:
    """Return the nanoseconds at which the world was put below a camera."""
    return [nanoseconds(t.header.stamp) for m in harness.client.tf for t in m.transforms
            if t.child_frame_id == 'ray_pose_world']  # fmt: skip


def test_inverted_the_better_answer_for_a_keyframe_is_sent_too(start):
    class Twice(FakeEstimator):
        def looks(self, prepared, progress=None):
            yield self.solve(prepared, progress)
            yield self.solve(prepared, progress)

    harness = start(lambda settings: Twice(), EVERY_FRAME | {'invert_tf': True})
    harness.until(lambda: False, 0.3)
    harness.show(range(2), IMAGES, CAMERA)
    assert harness.until(lambda: len(world_stamps(harness)) == 2)
    assert world_stamps(harness) == [101 * SECOND, 101 * SECOND + 1]


def test_inverted_the_world_follows_time_that_goes_back(start):
    slow = FakeEstimator(seconds=1.0)
    harness = start(lambda settings: slow, EVERY_FRAME | {'invert_tf': True})
    harness.until(lambda: False, 0.3)
    harness.show(range(2), IMAGES, CAMERA)
    assert harness.until(lambda: slow.solved)
    for k in (2, 3):  # the first one while the window from before is being solved
        harness.show([k], IMAGES, CAMERA, 10)
        assert harness.until(lambda k=k: (10 + k) * SECOND in world_stamps(harness))
    assert world_stamps(harness) == [12 * SECOND, 13 * SECOND]


def test_a_rig_follows_time_that_goes_back(start):
    harness = start(parameters=RIG, ready=False)
    left, right = cameras_of(harness, 'left', 'right')
    cameras = harness.estimator.cameras

    def wider(n):
        R, t = cameras(n)
        t[:, 0] = -0.1 * np.arange(n) ** 2
        return R, t

    harness.estimator.cameras = wider
    for k, seconds in ((0, 10.0), (2, 5.0)):
        left.show(k, seconds)
        right.show(k + 1, seconds + 0.02)
        assert harness.until(lambda k=k: harness.count == k + 2)
    told = []

    def moved() -> list[float]:
        told[:] = [t.transform.translation.x for m in harness.client.tf for t in m.transforms
                   if t.child_frame_id == 'right_optical_frame']  # fmt: skip
        return told

    assert harness.until(lambda: moved() and np.isclose(told[-1], 0.5)), told


def test_evicted_and_lost_frames_are_published_no_more(start):
    # a name of its own: a node of a test before may still be in the graph for a while
    parameters = EVERY_FRAME | {'window_size': 2, 'tf_rate': 50.0}
    harness = start(parameters=parameters, name='losing')
    statuses: list[DiagnosticStatus] = []
    harness.client.create_subscription(
        DiagnosticStatus, '/losing/status', statuses.append, LATCHED
    )
    for k in range(3):  # one by one: a frame that a busy machine loses would shift the names
        harness.show([k], IMAGES, CAMERA)
        assert harness.until(lambda k=k: len(harness.estimator.prepared) == k + 1)
    assert harness.until(lambda: harness.seconds == [101, 102])
    assert harness.until(
        lambda: statuses and 'camera_keyframe_2' in {v.key for v in statuses[-1].values}
    ), statuses
    assert statuses[-1].message == 'tracking'
    said = {v.key: v.value for v in statuses[-1].values}
    assert said['scale'] == 'arbitrary' and said['keyframes'] == '2'
    # it is told 0.05 of either window, and both have one keyframe in common
    assert 'stamp 102.000000000, rotation_sigma 0.0777 rad' in said['camera_keyframe_2']
    assert said['map'] == '3 keyframes, reference camera_keyframe_0'
    harness.client.tf.clear()
    harness.estimator.caution = 'masks are needed'
    harness.show([3], IMAGES, CAMERA)
    assert harness.until(lambda: 'camera_keyframe_3' in sent(harness))
    assert harness.until(lambda: 'tracking, but masks are needed' in statuses[-1].message)
    harness.estimator.caution = None
    harness.client.tf.clear()
    harness.estimator.fail = RuntimeError('no')
    harness.show([4], IMAGES, CAMERA)
    assert harness.until(lambda: statuses[-1].message.startswith('lost: the last estimate failed'))
    harness.client.tf.clear()
    harness.show([5], IMAGES, CAMERA)
    harness.until(lambda: False, 0.5)
    assert not harness.client.tf
    harness.estimator.fail = None
    assert set_parameter(harness, 'marker_scale', 0.5).successful  # what failed stays lost
    harness.until(lambda: False, 0.3)
    assert not harness.client.tf
    assert set_parameter(harness, 'lost_rotation_sigma', 0.01).successful
    harness.show([6], IMAGES, CAMERA)
    assert harness.until(lambda: 'uncertain by 3 degrees' in statuses[-1].message)
    said = harness.client.levels
    assert harness.until(lambda: said['/losing: estimate'][1].startswith('lost: '), 5), said
    assert not harness.client.tf
    assert set_parameter(harness, 'lost_rotation_sigma', 0.5).successful
    assert harness.until(lambda: 'camera_keyframe_6' in sent(harness), 5)  # nothing new came
    assert set_parameter(harness, 'lost_rotation_sigma', 0.04).successful
    assert harness.until(lambda: statuses[-1].message.startswith('lost: the rotation'), 5)
    harness.client.tf.clear()
    assert set_parameter(harness, 'lost_rotation_sigma', 0.5).successful
    harness.show([7], IMAGES, CAMERA)
    assert harness.until(lambda: 'camera_keyframe_7' in sent(harness))
    assert set(sent(harness)) == {'camera_keyframe_6', 'camera_keyframe_7', 'ray_pose_object'}


def tf(parent: str, child: str) -> TFMessage:
    transform = TransformStamped()
    transform.header.frame_id, transform.child_frame_id = parent, child
    return TFMessage(transforms=[transform])


def test_who_may_be_whose_parent(monkeypatch):
    tree = FrameTree()
    tree.on_static(tf('/base', 'arm'))
    tree.on_tf(tf('arm', 'camera'))
    assert tree.parent('arm') == 'base' and tree.objection('camera', 'world') is None
    assert "has the parent 'arm' already" in tree.objection('world', 'camera')
    assert 'is above' in tree.objection('camera', 'base')  # a circle
    assert 'its own parent' in tree.objection('camera', 'camera')
    tree.claim([('camera', 'world')])
    tree.on_tf(tf('camera', 'world'))  # the echo of what this node sends
    assert tree.objection('camera', 'world') is None
    tree.on_tf(tf('map', 'world'))
    assert "has the parent 'map'" in tree.objection('camera', 'world')
    now = frame_tree.time.monotonic()
    monkeypatch.setattr(frame_tree.time, 'monotonic', lambda: now + frame_tree.FORGET_S + 1)
    assert tree.objection('camera', 'world') is None  # nobody says so any more
    assert tree.parent('arm') == 'base'  # static
    assert tree.listens()
    for _ in range(frame_tree.MESSAGES_A_SECOND):
        tree.on_tf(tf('a', 'b'))
    assert not tree.listens()  # enough of them for this second


# -- what is taken ------------------------------------------------------------------------------


def test_images_stay_in_the_middleware_while_they_cannot_be_keyframes(start, monkeypatch):
    taken = []
    take = CameraInput.on_image
    monkeypatch.setattr(CameraInput, 'on_image', lambda s, m: (taken.append(m), take(s, m)))
    parameters = {'keyframe_min_interval': 60.0, 'qos_depth': 2}
    harness = start(parameters=EVERY_FRAME | parameters)
    for k in range(25):
        harness.client.show(IMAGES[0], 100 * SECOND + k * SECOND // 30, CAMERA)
        harness.until(lambda: False, 0.02)
    # one that is overwritten while the gate is open is never heard of
    assert harness.until(lambda: int(harness.client.diagnostics.get('images received', 0)) >= 18)
    assert int(harness.client.diagnostics['dropped: too_soon']) >= 17
    assert len(taken) <= 9  # the first, and what signs of life find in the queue


def test_a_region_says_where_the_object_is(start):
    harness = start(parameters=EVERY_FRAME | {'box': [1.0, 1.0, 9.0, 9.0]})
    regions = harness.client.create_publisher(RegionOfInterest, '/camera/roi', 5)
    assert harness.until(regions.get_subscription_count)
    harness.until(lambda: False, 0.3)
    harness.show([0], IMAGES, CAMERA)
    assert harness.until(lambda: len(harness.estimator.prepared) == 1)
    regions.publish(RegionOfInterest(x_offset=20, y_offset=10, width=30, height=20))
    harness.until(lambda: False, 0.3)
    harness.show([1], IMAGES, CAMERA)
    assert harness.until(lambda: len(harness.estimator.prepared) == 2)
    boxes = [v.object_box for v in harness.estimator.prepared]
    assert boxes == [(1, 1, 9, 9), (20, 10, 50, 30)]
    assert set_parameter(harness, 'object_timeout', 0.01).successful
    harness.show([2], IMAGES, CAMERA)
    assert harness.diagnosed('refused: no_object', '1')


def test_the_quality_of_service_of_a_topic_can_be_overridden(start, capfd):
    name = 'qos_overrides./camera/image_raw.subscription'
    parameters = EVERY_FRAME | {f'{name}.depth': 3, f'{name}.reliability': 'best_effort'}
    harness = start(parameters=parameters | {f'{name}.dept': 4})
    (info,) = harness.client.get_subscriptions_info_by_topic('/camera/image_raw')
    assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (other,) = harness.client.get_subscriptions_info_by_topic('/camera/camera_info')
    assert other.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    wanted, said = f'{name}.dept is not known and does nothing; is {name}.depth', []
    # it says so after it has subscribed, which is when the test goes on
    assert harness.until(lambda: said.append(capfd.readouterr().err) or wanted in ''.join(said))


def test_a_change_of_the_quality_of_service_counts_after_the_next_start(start):
    harness = start(parameters=EVERY_FRAME)
    answer = set_parameter(harness, 'qos_reliability', 'best_effort')
    assert not answer.successful and 'only while the node is unconfigured' in answer.reason
    node = harness.node
    node._inputs.close()
    settings = type(node.settings)(**{**vars(node.settings), 'qos_reliability': 'best_effort'})
    node._inputs.open_camera('camera', settings)
    said = '/camera/image_raw'
    assert harness.until(
        lambda: [i.qos_profile.reliability
                 for i in harness.client.get_subscriptions_info_by_topic(said)]
        == [ReliabilityPolicy.BEST_EFFORT]
    )  # fmt: skip


def test_simulated_time_decides_what_is_stale(start):
    parameters = EVERY_FRAME | {'use_sim_time': True, 'stale_timeout': 2.0}
    harness = start(parameters=parameters)
    clock = harness.client.create_publisher(Clock, '/clock', 10)
    assert harness.until(clock.get_subscription_count)

    def pass_to(seconds: int) -> None:
        def there() -> bool:
            clock.publish(Clock(clock=time_message(seconds * SECOND)))
            return harness.node.now_ns() == seconds * SECOND

        assert harness.until(there)

    pass_to(101)
    harness.show(range(2), IMAGES, CAMERA)
    assert harness.until(lambda: harness.count == 2)
    pass_to(110)
    harness.show([2], IMAGES, CAMERA)
    assert harness.diagnosed('refused: stale', '1')
    harness.show([9], IMAGES, CAMERA)
    assert harness.until(lambda: harness.count == 3)


def test_topics_can_be_remapped(start):
    harness = start(
        parameters=EVERY_FRAME,
        cli_args=['--ros-args', '-r', 'camera/image_raw:=/usb/pictures',
                  '-r', 'camera/camera_info:=/usb/calibration'],
        ready=False,
    )  # fmt: skip
    client = harness.client
    images = client.create_publisher(Image, '/usb/pictures', 5)
    infos = client.create_publisher(CameraInfo, '/usb/calibration', 5)
    assert harness.until(lambda: images.get_subscription_count())
    harness.until(lambda: False, 0.3)
    for k in range(2):
        stamp = time_message((10 + k) * SECOND)
        infos.publish(info_message(CAMERA, (64, 48), stamp, 'usb'))
        images.publish(image_message(IMAGES[k], stamp, 'usb'))
    assert harness.until(lambda: harness.count == 2)
