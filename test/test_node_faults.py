"""What can go wrong around the node: each is named in diagnostics, and the node goes on."""

import array
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    FRAME,
    IMAGES,
    SECOND,
    FakeEstimator,
    Harness,
    save_tiny_model,
    set_parameter,
    show,
    starter,
)
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from ray_pose_ros.node import pose_node
from ray_pose_ros.node.conversions import time_message
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.outputs import LATCHED
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

start = pytest.fixture(starter)
WARN, ERROR = b'\x01', b'\x02'


def level(harness, which):
    """Return (level, message) of one status."""
    return harness.client.levels.get(f'{harness.client.name}: {which}', (b'', ''))


def said(harness, which, words, timeout=20.0):
    """Wait until a status says these words."""
    assert harness.until(lambda: words in level(harness, which)[1], timeout), level(harness, which)
    return level(harness, which)[0]


def positions(harness):
    """Return the poses published last, as numbers."""
    return [(p.position.x, p.position.y, p.position.z) for p in harness.client.poses[-1].poses]


# -- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'reason, change',
    [
        ('bad_image', {'data': array.array('B', bytes(64 * 48 * 3 - 1))}),
        ('bad_image', {'data': array.array('B')}),
        ('bad_image', {'step': 10}),
        ('bad_image', {'step': 2**32 - 1}),
        ('bad_image', {'width': 0}),
        ('bad_image', {'height': 2**32 - 1}),
        ('bad_image', {'width': 2**31, 'height': 2**31}),
        ('bad_image', {'encoding': ''}),
        ('bad_image', {'encoding': '32FC1'}),
        ('wrong_size', {'width': 32, 'step': 64 * 3}),
    ],
)
def test_an_image_that_cannot_be_one(start, reason, change):
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)
    before = positions(harness)
    msg = image_message(IMAGES[5], time_message(150 * SECOND), FRAME)
    for name, value in change.items():
        setattr(msg, name, value)
    harness.client.infos.publish(info_message(CAMERA, (64, 48), msg.header.stamp, FRAME))
    harness.client.images.publish(msg)
    assert harness.diagnosed(f'refused: {reason}', '1')
    assert said(harness, 'input', '/camera/image_raw: ') == WARN
    assert positions(harness) == before
    show(harness, [2], 200)
    assert harness.until(lambda: harness.count == 3)
    assert positions(harness)[:2] == before


def test_black_white_and_noise(start, tmp_path):
    """They are pictures, if bad ones: whatever comes out is finite, or is said to be none."""
    parameters = {'checkpoint': save_tiny_model(tmp_path), 'device': 'cpu'}
    harness = start(make_estimator, EVERY_FRAME | parameters)
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    pictures = [np.zeros_like(noise), np.full_like(noise, 255), noise, np.zeros_like(noise)]
    for k, image in enumerate(pictures):
        harness.client.show(image, (100 + k) * SECOND, CAMERA)
    assert harness.until(lambda: harness.count == 4 or harness.node.health.failures)
    assert np.isfinite(positions(harness)).all()
    show(harness, range(4, 8), 200)
    assert harness.until(lambda: harness.count == 8)
    assert np.isfinite(positions(harness)).all()


def test_a_burst_neither_fills_the_memory_nor_delays_the_newest(start):
    slow = FakeEstimator(seconds=0.3)
    harness = start(lambda settings: slow, EVERY_FRAME | {'window_size': 3, 'qos_depth': 100})
    show(harness, range(2))
    assert harness.until(lambda: slow.solved)
    most = 0
    for k in range(60):
        harness.client.show(IMAGES[k % 12], 200 * SECOND + k * SECOND // 100, CAMERA)
        most = max(most, harness.node.worker.waiting)
    assert harness.until(lambda: harness.seconds and harness.seconds[-1] > 200.58)
    assert most <= 3 and len(slow.prepared) < 40
    assert harness.until(lambda: int(harness.client.diagnostics.get('dropped: superseded', 0)) > 9)


# -- camera_info --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'change, words',
    [
        ({'k': np.zeros(9)}, 'focal lengths are 0'),
        ({'k': np.full(9, np.nan)}, 'not finite'),
        ({'k': np.full(9, np.inf)}, 'not finite'),
        ({'width': 0}, 'size is 0x48'),
        ({'distortion_model': 'crystal ball'}, "'crystal ball'"),
        ({'d': [float('nan')] * 5}, 'not finite'),
    ],
)
def test_a_calibration_that_cannot_be_one(start, change, words):
    harness = start(parameters=EVERY_FRAME)
    info = info_message(CAMERA, (64, 48), time_message(100 * SECOND), FRAME)
    for name, value in change.items():
        setattr(info, name, value)
    harness.client.infos.publish(info)
    assert harness.diagnosed('refused: bad_camera_info', '1')
    assert said(harness, 'input', words) == WARN
    show(harness, range(2), 200)
    assert harness.until(lambda: harness.count == 2)


def test_a_distortion_without_end_is_refused_or_harmless(start):
    harness = start(parameters=EVERY_FRAME)
    info = info_message(CAMERA, (64, 48), time_message(100 * SECOND), FRAME)
    info.d = [0.1] * 100_000
    harness.client.infos.publish(info)
    harness.client.images.publish(image_message(IMAGES[0], info.header.stamp, FRAME))
    assert harness.until(lambda: sum(harness.node.health.refusals.values()) > 0)
    assert harness.until(lambda: level(harness, 'input')[0] == WARN)
    assert len(level(harness, 'input')[1]) <= 300
    show(harness, range(2), 200)
    assert harness.until(lambda: harness.count == 2)
    assert harness.node.health.refusals == {'bad_camera_info': 1, 'no_camera_info': 1}


def test_camera_info_that_never_comes_is_asked_for(start):
    harness = start(parameters=EVERY_FRAME)
    stamp = time_message(100 * SECOND)
    harness.client.images.publish(image_message(IMAGES[0], stamp, FRAME))
    assert harness.diagnosed('refused: no_camera_info', '1')
    assert said(harness, 'input', '/camera/camera_info') == WARN
    show(harness, range(2), 200)
    assert harness.until(lambda: harness.count == 2)


def test_images_of_mixed_sizes(start):
    """A camera whose mode is switched: with its own CameraInfo each size is as good as another."""
    harness = start(parameters=EVERY_FRAME)
    small = IMAGES[1][:24, :32]
    for k, image in enumerate((IMAGES[0], small, IMAGES[2])):
        stamp = time_message((100 + k) * SECOND)
        camera = CAMERA if image is not small else CAMERA.resized(32, 24)
        size = image.shape[1::-1]
        harness.client.infos.publish(info_message(camera, size, stamp, FRAME))
        harness.client.images.publish(image_message(np.ascontiguousarray(image), stamp, FRAME))
        assert harness.until(lambda k=k: harness.node.health.keyframes == k + 1)
    assert [v.image.shape[1] for v in harness.estimator.prepared] == [64, 32, 64]


# -- time ---------------------------------------------------------------------------------------


def test_stamps_of_zero_take_the_time_of_the_node(start):
    harness = start(parameters=EVERY_FRAME)
    for k in range(3):
        harness.client.infos.publish(info_message(CAMERA, (64, 48), time_message(0), FRAME))
        harness.client.images.publish(image_message(IMAGES[k], time_message(0), FRAME))
        assert harness.until(lambda k=k: harness.node.health.keyframes == k + 1)
    assert harness.until(lambda: harness.count == 3)
    assert abs(harness.seconds[-1] - time.time()) < 60


def test_one_stamp_far_ahead_does_not_end_everything(start):
    """A clock that is set while the camera runs: a frame from 2015 among those of 1970."""
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)
    harness.client.show(IMAGES[2], 2_860_000_000 * SECOND // 2, CAMERA)
    harness.until(lambda: False, 0.5)
    show(harness, [3, 4], 104)
    assert harness.until(lambda: harness.seconds[-1:] == [108])
    assert harness.until(lambda: harness.client.tf[-1].transforms[0].header.stamp.sec == 108)
    assert harness.until(lambda: harness.client.newest[-1].header.stamp.sec == 108)


def test_images_far_ahead_are_refused_where_clocks_agree(start):
    harness = start(parameters=EVERY_FRAME | {'stale_timeout': 5.0})
    harness.client.show(IMAGES[0], time.time_ns() + 100 * SECOND, CAMERA)
    assert harness.diagnosed('refused: stale', '1')
    assert said(harness, 'input', 's ahead of this clock') == WARN
    for k in range(2):
        harness.client.show(IMAGES[k], time.time_ns(), CAMERA)
    assert harness.until(lambda: harness.count == 2)


def test_a_bag_that_loops(start):
    harness = start(parameters=EVERY_FRAME | {'window_size': 4})
    for turn in range(3):
        show(harness, range(4))
        assert harness.until(lambda t=turn: harness.node.health.keyframes == 4 * (t + 1))
    assert harness.diagnosed('refused: time_jump', '2')
    assert harness.until(lambda: harness.seconds == [100, 101, 102, 103])


def stamps_of_tf(harness):
    """Return the seconds of all transforms that came, each once."""
    return {t.header.stamp.sec for m in harness.client.tf for t in m.transforms}


def test_a_window_from_before_the_jump_does_not_put_tf_ahead(start):
    slow = FakeEstimator(seconds=1.0)
    harness = start(lambda settings: slow, EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: slow.solved)
    show(harness, [2], 10)
    assert harness.until(lambda: harness.count == 2)
    assert harness.until(lambda: harness.count == 3)
    harness.until(lambda: False, 0.5)
    assert stamps_of_tf(harness) == {12}
    slow.seconds = 0
    show(harness, [3], 10)
    assert harness.until(lambda: 13 in stamps_of_tf(harness))


# -- cameras ------------------------------------------------------------------------------------


def two_cameras(harness):
    """Make publishers of the second camera; the client has those of the first."""
    client = harness.client
    out = [(client.images, client.infos)]
    out.append(
        (
            client.create_publisher(Image, '/other/image_raw', 5),
            client.create_publisher(CameraInfo, '/other/camera_info', 5),
        )
    )
    assert harness.until(lambda: all(p.get_subscription_count() for p in out[1]))
    harness.until(lambda: False, 0.2)
    return out


def publish(publishers, number, stamp_ns):
    images, infos = publishers
    stamp = time_message(stamp_ns)
    infos.publish(info_message(CAMERA, (64, 48), stamp, FRAME))
    images.publish(image_message(IMAGES[number], stamp, FRAME))


def test_cameras_out_of_order_and_one_that_dies_and_returns(start):
    parameters = {'cameras': ['camera', 'other'], 'camera_timeout': 0.5, 'window_size': 8}
    harness = start(parameters=EVERY_FRAME | parameters)
    first, second = two_cameras(harness)
    publish(first, 0, 105 * SECOND)
    publish(second, 1, 101 * SECOND)  # its images take longer on their way
    assert harness.until(lambda: sorted(harness.seconds) == [101, 105])
    publish(first, 2, 106 * SECOND)
    publish(second, 3, 102 * SECOND)
    assert harness.until(lambda: harness.count == 4)
    # the second one dies: it is named, and the first goes on
    end = time.monotonic() + 20
    stamp = 107 * SECOND
    while 'no images on /other/image_raw' not in level(harness, 'input')[1]:
        assert time.monotonic() < end
        stamp += SECOND // 5
        publish(first, int(stamp // 1e8) % 12, stamp)
        harness.until(lambda: False, 0.1)
    assert level(harness, 'input')[0] == WARN
    assert 'no publisher' not in level(harness, 'input')[1]
    publish(second, 4, stamp)
    assert harness.until(lambda: 'other' in {k.camera for k in harness.node._last.keyframes[-2:]})


def test_a_camera_that_died_before_the_jump_does_not_hold_tf(start):
    harness = start(parameters=EVERY_FRAME | {'cameras': ['camera', 'other']})
    first, second = two_cameras(harness)
    publish(second, 0, 105 * SECOND)
    publish(first, 1, 101 * SECOND)
    assert harness.until(lambda: 105 in stamps_of_tf(harness))
    publish(first, 2, 10 * SECOND)
    assert harness.diagnosed('refused: time_jump', '1')
    assert harness.until(lambda: harness.count == 3)
    assert harness.until(lambda: 10 in stamps_of_tf(harness))
    harness.until(lambda: False, 0.3)
    harness.client.tf.clear()
    publish(first, 3, 11 * SECOND)
    assert harness.until(lambda: 11 in stamps_of_tf(harness))
    harness.until(lambda: False, 0.3)
    assert stamps_of_tf(harness) == {11}
    publish(second, 4, 12 * SECOND)  # it is back
    assert harness.until(lambda: 12 in stamps_of_tf(harness))


def test_a_camera_that_died_before_the_jump_is_not_the_newest(start):
    harness = start(parameters=EVERY_FRAME | {'cameras': ['camera', 'other']})
    first, second = two_cameras(harness)
    publish(first, 0, 104 * SECOND)
    publish(second, 1, 105 * SECOND)  # the last one of this camera
    publish(first, 2, 106 * SECOND)
    assert harness.until(lambda: harness.count == 3)
    publish(first, 3, 103 * SECOND)  # the bag begins anew
    assert harness.until(lambda: harness.count == 4)
    for topic in (harness.client.poses, harness.client.newest):
        assert harness.until(lambda topic=topic: topic[-1].header.stamp.sec == 103, 5.0)


def test_an_image_far_ahead_of_a_camera_that_dies_does_not_hold_tf(start):
    parameters = {'cameras': ['camera', 'other'], 'camera_timeout': 0.5}
    harness = start(parameters=EVERY_FRAME | parameters)
    first, second = two_cameras(harness)
    publish(first, 0, 101 * SECOND)
    publish(second, 1, 2_000_000_000 * SECOND)
    assert harness.until(lambda: 2_000_000_000 in stamps_of_tf(harness))
    harness.until(lambda: False, 0.6)
    publish(first, 2, 102 * SECOND)
    assert harness.until(lambda: harness.count == 3)
    assert harness.until(lambda: 102 in stamps_of_tf(harness), 5.0)
    harness.client.tf.clear()
    publish(first, 3, 103 * SECOND)
    assert harness.until(lambda: 103 in stamps_of_tf(harness), 5.0)
    assert stamps_of_tf(harness) <= {102, 103}
    assert harness.until(lambda: harness.client.poses[-1].header.stamp.sec == 103, 5.0)


def test_a_dead_camera_is_named_beside_what_is_refused(start):
    parameters = {'cameras': ['camera', 'other'], 'camera_timeout': 0.5}
    harness = start(parameters=EVERY_FRAME | parameters)
    harness.client.images.publish(image_message(IMAGES[0], time_message(SECOND), FRAME))
    assert harness.diagnosed('refused: no_camera_info', '1')
    words = '/other/image_raw (no publisher); /camera/image_raw: there is no'
    assert said(harness, 'input', words) == WARN
    assert level(harness, 'input')[1].startswith('no images on ')


def test_two_nodes_in_one_domain(start):
    one = start(parameters=EVERY_FRAME, name='left')
    frames = {'reference_frame': 'right_world', 'object_frame': 'right_object'}
    two = start(parameters=EVERY_FRAME | frames, name='right')
    camera = one.client.images, one.client.infos  # both subscribe to it
    assert one.until(lambda: all(p.get_subscription_count() == 2 for p in camera))
    one.until(lambda: False, 0.3)
    show(one, range(2))
    assert one.until(lambda: one.count == 2) and two.until(lambda: two.count == 2)
    assert one.client.poses[-1].header.frame_id != two.client.poses[-1].header.frame_id
    assert two.trigger('reset').success
    assert two.until(lambda: two.count == 0)
    assert one.count == 2
    other = start(parameters=EVERY_FRAME, name='left')
    assert other.until(lambda: 'have the name of this one' in level(other, 'estimate')[1])


# -- the node itself ----------------------------------------------------------------------------


def test_parameter_nonsense_at_run_time_changes_nothing(start):
    harness = start(parameters=EVERY_FRAME)
    before = harness.node.settings
    for name, value in (
        ('keyframe_min_interval', -1.0),
        ('keyframe_min_interval', float('nan')),
        ('keyframe_min_interval', 'soon'),
        ('tf_rate', 1e9),
        ('box', [1.0]),
        ('box', [5.0, 5.0, 1.0, 1.0]),
        ('window_size', 4),
        ('cameras', ['a']),
        ('watchdog_timeout', -5.0),
        ('output_directory', '/etc'),
    ):
        answer = set_parameter(harness, name, value)
        assert not answer.successful and answer.reason, name
    assert harness.node.settings == before
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)


def test_services_answer_in_every_state(start):
    harness = start(parameters=EVERY_FRAME | {'autostart': False}, ready=False)

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert harness.call(ChangeState, 'change_state', request).success

    seen = []
    for transition in (
        None,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    ):
        if transition is not None:
            change(transition)
        state = harness.call(GetState, 'get_state', GetState.Request()).current_state.label
        seen.append(state)
        assert harness.trigger('reset').success
        answer = harness.trigger('save')
        assert not answer.success and 'no estimate' in answer.message
        capture = harness.trigger('capture')
        assert capture.success == (state == 'active') and state in capture.message + state
        assert harness.enable(False).success and harness.enable(True).success
        assert harness.diagnosed('state', state)
    assert seen == ['unconfigured', 'inactive', 'active', 'inactive', 'unconfigured', 'finalized']


def test_what_was_published_outlives_faults(start, tmp_path):
    """An estimate that came once can be saved after everything has gone wrong since."""
    harness = start(make_estimator, EVERY_FRAME | {
        'checkpoint': save_tiny_model(tmp_path / 'model'), 'device': 'cpu',
        'output_directory': str(tmp_path / 'out')})  # fmt: skip
    show(harness, range(3))
    assert harness.until(lambda: harness.count == 3)
    before = positions(harness)
    harness.node.worker._economy._estimator.look = fail  # of the model, before any refinement
    for k in range(3):
        show(harness, [3 + k])
        assert harness.diagnosed('failures', str(k + 1))
    assert said(harness, 'estimate', 'rays of NaN') == ERROR
    harness.client.images.publish(image_message(IMAGES[0], time_message(0), 'other'))
    assert positions(harness) == before and len(harness.node._last.keyframes) == 3
    answer = harness.call(Trigger, 'save', Trigger.Request(), 120.0)
    assert answer.success, answer.message
    (folder,) = (tmp_path / 'out').iterdir()
    rows = np.loadtxt(folder / 'poses.tum')
    assert np.allclose(rows[:, 1:4], before, atol=1e-9)


def test_a_failed_estimate_is_tried_again_where_the_scene_stands_still(start, monkeypatch):
    monkeypatch.setattr(pose_node, 'TRY_AGAIN_S', 0.2)
    harness = start(parameters=EVERY_FRAME, name='still')
    harness.estimator.fail = FloatingPointError('rays of NaN')
    show(harness, range(2))
    assert said(harness, 'estimate', 'rays of NaN') == WARN
    assert harness.until(lambda: level(harness, 'estimate')[0] == ERROR)  # after three
    harness.estimator.fail = None
    assert harness.until(lambda: harness.count == 2)
    assert said(harness, 'estimate', 'estimating') == b'\x00'
    assert harness.node.health.keyframes == 2


def test_after_a_reset_nothing_is_estimated_and_nothing_has_failed(start):
    harness = start(parameters=EVERY_FRAME, name='forgetful')
    show(harness, range(2))
    assert said(harness, 'estimate', 'estimating') == b'\x00'
    harness.estimator.fail = FloatingPointError('rays of NaN')
    show(harness, [2])
    assert said(harness, 'estimate', 'rays of NaN') == WARN
    assert harness.trigger('reset').success
    assert said(harness, 'estimate', 'waiting for keyframes') == b'\x00'


def fail(*args, **kwargs):
    raise FloatingPointError('rays of NaN')


def test_memory_that_runs_out_is_said_and_comes_back(start, monkeypatch):
    import torch

    from ray_pose_ros.node import economy

    monkeypatch.setattr(economy, 'FIRST_RETRY_S', 0.5)

    class Small(FakeEstimator):
        samples, most = 8, 2

        def solve(self, prepared, progress=None):
            if self.samples > self.most:
                raise torch.cuda.OutOfMemoryError('CUDA out of memory')
            return super().solve(prepared, progress)

    small = Small()
    harness = start(lambda settings: small, EVERY_FRAME, name='small')
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)
    assert said(harness, 'estimate', 'memory ran out, working with a quarter') == WARN
    small.most = 100
    harness.until(lambda: False, 0.6)
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)
    assert harness.until(lambda: level(harness, 'estimate')[0] == b'\x00')
    assert harness.diagnosed('left out for want of memory', 'nothing')


def test_a_second_look_that_fails_takes_nothing_back(start):
    class Unsteady(FakeEstimator):
        then = True

        def looks(self, prepared, progress=None):
            yield self.solve(prepared, progress)
            if self.then:
                raise FloatingPointError('rays of NaN')

    estimator = Unsteady()
    # a name of its own: a node of a test before may still be in the graph for a while
    harness = start(lambda settings: estimator, EVERY_FRAME, name='unsteady')
    statuses = []
    harness.client.create_subscription(
        DiagnosticStatus, '/unsteady/status', statuses.append, LATCHED
    )
    show(harness, range(2))
    assert said(harness, 'estimate', 'the last estimate failed: FloatingPointError') == WARN
    assert harness.count == 2
    assert harness.until(lambda: statuses and statuses[-1].message.startswith('tracking'))
    estimator.then = False
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)
    assert said(harness, 'estimate', 'estimating') == b'\x00'


def test_a_checkpoint_that_vanishes_while_the_node_is_down(start, tmp_path):
    folder = tmp_path / 'model'
    parameters = EVERY_FRAME | {'checkpoint': save_tiny_model(folder), 'device': 'cpu'}
    harness = start(make_estimator, parameters)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return harness.call(ChangeState, 'change_state', request).success

    assert change(Transition.TRANSITION_DEACTIVATE)
    folder.rename(tmp_path / 'moved')
    assert not change(Transition.TRANSITION_ACTIVATE)
    assert said(harness, 'estimate', 'does not exist') == ERROR
    assert harness.count == 2
    (tmp_path / 'moved').rename(folder)
    assert change(Transition.TRANSITION_ACTIVATE)
    harness.ready()
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)


@pytest.mark.parametrize('name', ['a b', '~', 'x' * 300])
def test_camera_names_that_are_no_topics(name):
    """Refused at the start or when subscribing, in words; never a crash on the way."""
    from ray_pose_ros.node.parameter import ParameterError

    try:
        harness = Harness(lambda settings: FakeEstimator(), {'cameras': [name]})
    except ParameterError as error:
        assert 'cameras' in str(error)
        return
    harness.close()
