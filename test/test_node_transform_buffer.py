"""The buffer answers as tf2's does, in bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.node import transform_buffer
from ray_pose_ros.node.transform_buffer import NoTransform, Rigid, TransformBuffer

S = 1_000_000_000


def pose(x=0.0, y=0.0, z=0.0, turn=0.0) -> Rigid:
    return Rigid(rotation_from_vector(np.array([0, 0, turn])), np.array([x, y, z], float))


def same(a: Rigid, b: Rigid) -> bool:
    return np.allclose(a.R, b.R, atol=1e-9) and np.allclose(a.p, b.p, atol=1e-9)


def test_between_samples_it_interpolates_and_beyond_them_it_refuses():
    buffer = TransformBuffer()
    buffer.add('odom', 'base', 10 * S, pose(1, turn=3.0))
    with pytest.raises(NoTransform, match=r"'base' is known up to 10.000 s only, not at 10.500"):
        buffer.look_up('odom', 'base', 10 * S + S // 2)
    assert same(buffer.look_up('odom', 'base', 10 * S), pose(1, turn=3.0))
    buffer.add('odom', 'base', 11 * S, pose(2, turn=-3.0))  # by pi: the shorter way
    half = buffer.look_up('odom', 'base', 10 * S + S // 2)
    assert same(half, pose(1.5, turn=np.pi))
    quarter = buffer.look_up('odom', 'base', 10 * S + S // 4)
    assert np.allclose(quarter.p, [1.25, 0, 0])
    assert angle_between(quarter.R, pose(turn=3.0).R) == pytest.approx((2 * np.pi - 6) / 4)
    assert same(buffer.look_up('base', 'odom', 10 * S + S // 2), half.inverse())
    with pytest.raises(NoTransform, match='known from 10.000 s only'):
        buffer.look_up('odom', 'base', 9 * S)


def test_a_chain_of_static_and_moving_frames():
    buffer = TransformBuffer()
    buffer.add_static('gripper', 'camera', pose(0, 0, 0.1))
    for k in range(5):
        buffer.add('base', 'arm', k * S, pose(turn=0.1 * k))
        buffer.add('arm', 'gripper', k * S + S // 3, pose(k))
    buffer.add_static('base', 'table', pose(0, 1))
    at = 2 * S + S // 2
    expected = pose(turn=0.25) @ pose(2 + 1 / 6) @ pose(0, 0, 0.1)
    assert same(buffer.look_up('base', 'camera', at), expected)
    assert same(buffer.look_up('table', 'camera', at), pose(0, 1).inverse() @ expected)
    assert same(buffer.look_up('camera', 'table', at), expected.inverse() @ pose(0, 1))
    assert same(buffer.look_up('camera', 'camera', 99 * S), pose())
    assert same(buffer.look_up('base', 'table', 99 * S), pose(0, 1))
    assert buffer.newest_ns('base', 'camera') == 4 * S
    assert buffer.newest_ns('arm', 'camera') == 4 * S + S // 3
    assert buffer.newest_ns('base', 'table') == 0
    assert buffer.newest_ns('base', 'nowhere') is None


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(12)), st.integers(0, 11 * S))
def test_the_order_of_arrival_does_not_matter(order, at):
    buffer = TransformBuffer()
    for k in order:
        buffer.add('odom', 'base', k * S, pose(k * k, turn=0.05 * k))
        buffer.add('odom', 'base', k * S, pose(99))  # again: the first one stays
    try:
        found = buffer.look_up('odom', 'base', at)
    except NoTransform:
        assert at < S  # 11 s before the newest
        return
    k, share = at // S, at % S / S
    expected = pose(k * k).towards(pose((k + 1) ** 2), share).p
    assert np.allclose(found.p, expected)
    assert len(buffer) in (11, 12)


def test_frames_that_are_unknown_apart_or_in_a_circle():
    buffer = TransformBuffer()
    with pytest.raises(NoTransform, match="frame 'camera' is not known"):
        buffer.look_up('odom', 'camera', 0)
    buffer.add_static('base', 'camera', pose())
    with pytest.raises(NoTransform, match="frame 'odom' is not known"):
        buffer.look_up('odom', 'camera', 0)
    buffer.add_static('map', 'odom', pose())
    with pytest.raises(NoTransform, match="'odom' and 'camera' are not connected"):
        buffer.look_up('odom', 'camera', 0)
    buffer.add_static('camera', 'base', pose())
    with pytest.raises(NoTransform, match='go round in a circle'):
        buffer.look_up('odom', 'camera', 0)
    assert buffer.newest_ns('odom', 'camera') is None


def test_a_frame_may_change_its_parent():
    buffer = TransformBuffer()
    buffer.add('hand', 'cup', 1 * S, pose(1))
    buffer.add('table', 'cup', 2 * S, pose(2))
    assert same(buffer.look_up('hand', 'cup', S + S // 2), pose(1))
    assert same(buffer.look_up('table', 'cup', 2 * S), pose(2))
    with pytest.raises(NoTransform):
        buffer.look_up('hand', 'cup', 2 * S)
    buffer.add_static('shelf', 'cup', pose(3))
    assert same(buffer.look_up('shelf', 'cup', 1 * S), pose(3)) and len(buffer) == 0
    buffer.add('hand', 'cup', 9 * S, pose(4))
    assert same(buffer.look_up('hand', 'cup', 9 * S), pose(4))


def test_time_that_goes_back():
    buffer = TransformBuffer()
    buffer.add_static('base', 'camera', pose(z=1))
    buffer.add('odom', 'base', 100 * S, pose(5))
    buffer.add('odom', 'base', 50 * S, pose(6))  # too old to be of use, as for tf2
    assert len(buffer) == 1
    buffer.clear()
    buffer.add('odom', 'base', 50 * S, pose(6))
    assert same(buffer.look_up('odom', 'camera', 50 * S), pose(6, z=1))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(transform_buffer, 'KEPT_FRAMES', 10)
    monkeypatch.setattr(transform_buffer, 'KEPT_SAMPLES', 20)
    monkeypatch.setattr(transform_buffer, 'KEPT_IN_ALL', 50)
    buffer = TransformBuffer()
    for k in range(1000):
        buffer.add('odom', 'base', k * S // 100, pose(k))
    assert len(buffer) == 20  # by number
    assert same(buffer.look_up('odom', 'base', 999 * S // 100), pose(999))
    for k in range(100):
        buffer.add('odom', f'other{k % 5}', k * S, pose())
        buffer.add_static('odom', f'static{k}', pose())
    assert len(buffer) <= 50
    assert 'static9' not in buffer._edges and len(buffer._edges) == 10
    buffer = TransformBuffer()
    for k in range(100):
        buffer.add('odom', 'base', k * S, pose(k))
    assert len(buffer) == 11  # by time
