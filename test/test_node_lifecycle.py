"""Services, transitions and start-up, through real rclpy."""

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    IMAGES,
    SECOND,
    FakeEstimator,
    Harness,
    set_parameter,
    show,
    starter,
)

from ray_pose_ros.node.parameter import ParameterError

start = pytest.fixture(starter)


def test_reset_capture_and_enable(start):
    harness = start(parameters=EVERY_FRAME | {'keyframe_min_change': 0.5})
    client = harness.client
    show(harness, range(3))
    assert harness.until(lambda: harness.count == 3)
    assert harness.trigger('reset').success
    assert harness.until(lambda: harness.count == 0)
    assert harness.until(lambda: len(client.markers[-1].markers) == 1)
    assert client.markers[-1].markers[0].action == 3

    show(harness, range(3, 5))
    assert harness.until(lambda: harness.count == 2)
    assert harness.until(lambda: client.tf[-1].transforms[0].child_frame_id == 'camera_keyframe_3')
    client.show(IMAGES[4], 200 * SECOND, CAMERA)
    assert harness.diagnosed('dropped: unchanged', '1')
    assert harness.trigger('capture').success
    client.show(IMAGES[4], 201 * SECOND, CAMERA)
    assert harness.until(lambda: harness.count == 3)

    assert harness.enable(False).success
    answer = harness.trigger('capture')
    assert not answer.success and 'paused' in answer.message
    client.show(IMAGES[6], 202 * SECOND, CAMERA)
    assert harness.diagnosed('dropped: paused', '1')
    assert harness.enable(True).success
    client.show(IMAGES[6], 203 * SECOND, CAMERA)
    assert harness.until(lambda: harness.count == 4)


# -- lifecycle ----------------------------------------------------------------------------------


def change(harness, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return harness.call(ChangeState, 'change_state', request).success


def label(harness):
    return harness.call(GetState, 'get_state', GetState.Request()).current_state.label


def test_lifecycle_by_hand(start):
    made = []

    def factory(settings):
        made.append(settings)
        return FakeEstimator()

    harness = start(factory, EVERY_FRAME | {'autostart': False}, ready=False)
    assert label(harness) == 'unconfigured' and not made
    assert not change(harness, Transition.TRANSITION_ACTIVATE)  # not from here; and no end
    assert not harness.trigger('capture').success
    assert set_parameter(harness, 'window_size', 3).successful
    assert change(harness, Transition.TRANSITION_CONFIGURE)
    assert label(harness) == 'inactive' and made[-1].window_size == 3
    assert harness.client.images.get_subscription_count() == 0
    answer = set_parameter(harness, 'window_size', 4)
    assert not answer.successful and 'only while the node is unconfigured' in answer.reason
    assert change(harness, Transition.TRANSITION_ACTIVATE)
    harness.ready()
    show(harness, range(4))
    assert harness.until(lambda: harness.seconds == [101, 102, 103])

    assert change(harness, Transition.TRANSITION_DEACTIVATE)
    assert harness.until(lambda: harness.client.images.get_subscription_count() == 0)
    assert harness.diagnosed('model', 'not loaded')
    assert change(harness, Transition.TRANSITION_ACTIVATE)
    assert len(made) == 2  # freed, and loaded again
    harness.ready()
    show(harness, [4])
    assert harness.until(lambda: harness.seconds == [102, 103, 104])  # kept meanwhile

    assert change(harness, Transition.TRANSITION_DEACTIVATE)
    assert change(harness, Transition.TRANSITION_CLEANUP)
    assert harness.until(lambda: harness.count == 0)
    assert change(harness, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert label(harness) == 'finalized'


def test_deactivate_during_inference_and_start_again(start):
    slow = FakeEstimator(seconds=1.0)
    harness = start(lambda settings: slow, EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: slow.solved)
    assert change(harness, Transition.TRANSITION_DEACTIVATE)
    assert harness.until(lambda: harness.client.images.get_subscription_count() == 0)
    assert change(harness, Transition.TRANSITION_ACTIVATE)
    slow.seconds = 0
    harness.ready()
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)


def test_time_that_went_back_while_the_node_was_inactive(start):
    harness = start(parameters=EVERY_FRAME)
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2 and harness.client.tf)
    assert change(harness, Transition.TRANSITION_DEACTIVATE)
    assert change(harness, Transition.TRANSITION_ACTIVATE)
    harness.ready()
    harness.client.tf.clear()
    show(harness, [2], 10)
    assert harness.until(lambda: harness.count == 3)
    assert harness.until(lambda: harness.client.tf)
    assert harness.client.tf[-1].transforms[0].header.stamp.sec == 12


def test_a_transition_that_fails_is_said_and_leaves_no_subscription(start):
    name = 'qos_overrides./other/image_raw.subscription.reliability'
    parameters = EVERY_FRAME | {'cameras': ['camera', 'other'], name: 'sometimes'}
    harness = start(parameters=parameters, ready=False, name='failing')
    client, status = harness.client, '/failing: estimate'
    assert harness.until(lambda: 'on_activate failed' in client.levels.get(status, ' ' * 2)[1])
    assert client.levels[status][0] == b'\x02' and 'sometimes' in client.levels[status][1]
    assert label(harness) == 'unconfigured'
    assert harness.until(lambda: client.images.get_subscription_count() == 0)
    assert set_parameter(harness, 'cameras', ['camera']).successful
    assert change(harness, Transition.TRANSITION_CONFIGURE)
    assert change(harness, Transition.TRANSITION_ACTIVATE)
    harness.ready()
    assert client.images.get_subscription_count() == 1
    assert harness.until(lambda: client.levels[status][0] == b'\x00')
    show(harness, range(2))
    assert harness.until(lambda: harness.count == 2)


def test_bad_parameters_at_the_start():
    with pytest.raises(ParameterError, match=r'window_size.* expected integer from 2 to 64'):
        Harness(lambda settings: None, {'window_size': 1})
    with pytest.raises(ParameterError, match='device'):
        Harness(lambda settings: None, {'device': 'gpu'})
    with pytest.raises(ParameterError, match=r'keyframe_min_interval.*expected double'):
        Harness(lambda settings: None, {'keyframe_min_interval': 1})
    with pytest.raises(ParameterError, match=r"cameras names 'rear-cam', expected a topic name"):
        Harness(lambda settings: None, {'cameras': ['front', 'rear-cam']})
