"""The gate that chooses keyframes and the window that keeps them."""

import numpy as np
import pytest

from ray_pose_ros.estimation.keyframes import (
    TOO_SOON,
    UNCHANGED,
    KeyframeBuffer,
    KeyframeGate,
    frame_safe,
    image_change,
    thumbnail,
)

RNG = np.random.default_rng(0)


def scene(seed=0, height=240, width=320):
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 20, width // 20, 3))
    return coarse.repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)


@pytest.mark.parametrize(
    'shape, dtype',
    [
        ((480, 640), np.uint8),
        ((1080, 1920, 3), np.uint8),
        ((7, 5, 2), np.uint8),
        ((1, 1), np.uint8),
        ((50, 60, 1), '>u2'),
    ],
)
def test_thumbnail_of_any_layout(shape, dtype):
    small = thumbnail(np.full(shape, 100, dtype))
    assert small.shape == (30, 40)
    assert np.allclose(small, 100 if np.dtype(dtype).itemsize == 1 else 100 * 255 / 1023)


def test_thumbnail_refuses_other_shapes():
    with pytest.raises(ValueError, match=r'shape \(3,\)'):
        thumbnail(np.zeros(3, np.uint8))


def test_noise_and_brightness_are_no_change_but_another_view_is():
    image = scene()
    noisy = np.clip(image + RNG.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    brighter = np.clip(image * 0.7 + 40, 0, 255).astype(np.uint8)
    moved = np.roll(image, 60, axis=1)
    a = thumbnail(image)
    assert abs(image_change(a, a)) < 1e-6
    assert image_change(a, thumbnail(noisy)) < 0.01
    assert image_change(a, thumbnail(brighter)) < 0.01
    assert image_change(a, thumbnail(moved)) > 0.5
    assert image_change(a, thumbnail(255 - image)) > 1.9


def test_a_covered_lens_does_not_change_by_its_noise():
    dark = [RNG.integers(8, 14, (240, 320, 3)).astype(np.uint8) for _ in range(2)]
    assert image_change(thumbnail(dark[0]), thumbnail(dark[1])) < 0.05
    assert image_change(thumbnail(dark[0]), thumbnail(scene())) > 0.5


def test_gate_wants_time_and_change():
    gate = KeyframeGate(min_interval=0.5, min_change=0.1)
    a, b = thumbnail(scene(0)), thumbnail(scene(1))
    assert gate.refuses_time(10.0) is None
    assert gate.refuses_image(10.0, a) is None
    gate.accept(10.0, a)
    assert gate.refuses_time(10.4) == TOO_SOON
    assert gate.refuses_time(10.5) is None
    assert gate.refuses_image(10.5, a) == UNCHANGED
    assert gate.refuses_image(10.5, b) is None


def test_gate_takes_an_unchanged_image_after_max_interval():
    gate = KeyframeGate(min_interval=0.5, min_change=0.1, max_interval=3.0)
    a = thumbnail(scene())
    gate.accept(10.0, a)
    assert gate.refuses_image(12.9, a) == UNCHANGED
    assert gate.refuses_image(13.0, a) is None


def test_gate_survives_a_clock_that_jumps_back():
    gate = KeyframeGate(min_interval=0.5, min_change=0.0)
    gate.accept(100.0, thumbnail(scene()))
    assert gate.refuses_time(3.0) is None


def test_force_and_reset_let_the_next_frame_pass_once():
    gate = KeyframeGate(min_interval=0.5, min_change=0.1)
    a = thumbnail(scene())
    for arm in (gate.force, gate.reset):
        gate.accept(10.0, a)
        arm()
        assert gate.refuses_time(10.1) is None
        assert gate.refuses_image(10.1, a) is None
        gate.accept(10.1, a)
        assert gate.refuses_time(10.2) == TOO_SOON


def test_buffer_keeps_the_newest_in_order_and_never_reuses_an_id():
    buffer = KeyframeBuffer(3)
    for i in range(5):
        buffer.add('/front/camera', i, 'optical', f'prepared {i}')
    assert [k.id for k in buffer.window()] == [2, 3, 4]
    assert buffer.window()[0].name == 'front_camera_keyframe_2'
    buffer.resize(2)
    assert [k.id for k in buffer.window()] == [3, 4]
    buffer.clear()
    assert len(buffer) == 0
    assert buffer.add('c', 9, '', None).id == 5
    with pytest.raises(ValueError, match='window size is 1'):
        KeyframeBuffer(1)


def test_frame_safe():
    assert frame_safe('/a/b') == 'a_b'
    assert frame_safe('camera') == 'camera'
