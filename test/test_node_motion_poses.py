"""What is remembered of TF for keyframes, and who stands still, without a running node."""

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node import motion as module
from ray_pose_ros.node.conversions import time_message
from ray_pose_ros.node.motion import Motion
from ray_pose_ros.node.settings import make_settings

S = 1_000_000_000


def tf(parent, child, seconds, x=0.0, q=(0.0, 0.0, 0.0, 1.0)) -> TFMessage:
    msg = TransformStamped()
    msg.header.frame_id, msg.child_frame_id = parent, child
    msg.header.stamp = time_message(round(seconds * S))
    msg.transform.translation.x = x
    r = msg.transform.rotation
    r.x, r.y, r.z, r.w = q
    return TFMessage(transforms=[msg])


def motion_of(reports=None, **values) -> Motion:
    values = {'motion_frame': 'odom', 'keyframe_min_translation': 0.1} | values
    said = [] if reports is None else reports
    return Motion(make_settings(values), lambda *pair: pair == ('mine', 'own'), said.append)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    return now


def test_a_pose_is_waited_for_and_then_given_up_with_one_word(clock):
    reports = []
    motion = motion_of(reports)
    motion.want('left', 5 * S, '/cam')
    motion.want('left', 6 * S, 'cam')
    motion.want('right', 6 * S, '')
    assert motion.settle() == set() and not reports
    motion.on_tf(tf('/odom', '/cam', 4.5, 1.0))
    motion.on_tf(tf('odom', 'cam', 5.5, 2.0))
    assert motion.settle() == {('left', 5 * S)}
    (pose, missing) = motion.poses([('left', 5 * S), ('left', 6 * S)])
    assert np.allclose(pose.p, [1.5, 0, 0]) and missing is None
    clock[0] += 1.1
    assert motion.settle() == set()
    assert len(reports) == 2 and 'up to 5.500 s only, not at 6.000 s' in reports[0]
    assert 'the images of right name no frame' in reports[1]
    motion.on_tf(tf('odom', 'cam', 7.0))
    assert motion.settle() == set() and len(reports) == 2  # not asked for any more


def test_transforms_that_are_none_and_ones_own_are_left_out():
    motion = motion_of()
    motion.on_tf(tf('mine', 'own', 1))
    motion.on_tf(tf('odom', 'cam', 1, q=(0.0, 0.0, 0.0, 0.0)))
    motion.on_tf(tf('odom', 'cam', 1, q=(0.0, 0.0, 0.0, float('nan'))))
    motion.on_tf(tf('odom', 'cam', 1, x=float('inf')))
    motion.on_tf(tf('odom', 'odom', 1))
    motion.on_tf(tf('', 'cam', 1))
    assert len(motion.buffer) == 0


def test_without_a_motion_frame_nothing_is_kept():
    motion = motion_of(motion_frame='')
    motion.want('left', S, 'cam')
    assert not motion.settle() and not motion._waiting
    assert not motion.stands_still(['left'], S)


def test_what_is_remembered_is_bounded_and_the_window_stays(monkeypatch):
    monkeypatch.setattr(module, 'KEPT', 80)
    motion = motion_of()
    motion.on_tf(tf('odom', 'cam', 0), static=True)
    motion.want('a', 1, 'cam')
    motion.keep('a', 1)
    for k in range(2, 300):
        motion.want('a', k, 'cam')
    assert len(motion._known) == 80
    assert motion.poses([('a', 1)])[0] is not None and motion.poses([('a', 2)]) == [None]
    motion.rewind()
    assert motion.poses([('a', 1)]) == [None]
    for k in range(300):
        motion.want('a', k, 'unknown')
    assert len(motion._waiting) == 80


def test_a_rig_stands_still_only_if_all_of_it_does():
    motion = motion_of()
    for frame in ('left', 'right'):
        motion.on_tf(tf('odom', frame, 1.0))
        motion.want(frame, S, frame)
    motion.on_tf(tf('odom', 'left', 2.0, 0.05))
    motion.on_tf(tf('odom', 'right', 2.0, 0.2))
    assert motion.stands_still(['left'], 2 * S)
    assert not motion.stands_still(['right'], 2 * S)
    assert not motion.stands_still(['left', 'right'], 2 * S)
    assert not motion.stands_still(['left', 'other'], 2 * S)  # never seen
    motion.apply_settings(make_settings({'motion_frame': 'odom', 'keyframe_min_rotation': 5.0}))
    assert motion.stands_still(['left', 'right'], 2 * S)  # only turning counts now
    assert not motion.stands_still(['left'], 3 * S)  # TF is a second behind
    assert not motion.stands_still(['left'], S // 2)  # before all that is known
