"""One camera's messages and sets of cameras, without a middleware: what becomes of every image."""

import array
import time
from collections import Counter
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_harness import FRAME, IMAGES, SECOND, pinhole
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from ray_pose_ros.node import camera_input, rig
from ray_pose_ros.node.calibrations import MISSED
from ray_pose_ros.node.camera_input import HELD_S, CameraInput
from ray_pose_ros.node.conversions import time_message
from ray_pose_ros.node.encodings import FORMATS
from ray_pose_ros.node.object_hints import ObjectHints
from ray_pose_ros.node.parameter import ParameterError
from ray_pose_ros.node.rig import Rig
from ray_pose_ros.node.rig_settings import box_of, leading_camera, rig_names
from ray_pose_ros.node.settings import make_settings
from ray_pose_ros.synthetic.camera_publisher import image_message, info_message

NOT_AN_IMAGE = {'bad_camera_info', 'bad_mask'}  # and a time_jump is said of an image that goes on


class Host:
    """Stands in for the node; counts as it does."""

    def __init__(self, **values) -> None:
        self.settings = make_settings({'keyframe_min_change': 0.05, **values})
        self.enabled = True
        self.offered: list = []
        self.drops: Counter = Counter()
        self.refusals: Counter = Counter()
        self.said: list[str] = []

    def now_ns(self) -> int:
        return 500 * SECOND

    def offer_all(self, candidates) -> None:
        self.offered.append(candidates)

    def drop(self, camera, reason) -> None:
        self.drops[reason] += 1

    def refuse(self, camera, topic, reason, text) -> None:
        self.refusals[reason] += 1
        self.said.append(text)

    @property
    def stamps(self) -> list[list[float]]:
        """Seconds of what was offered, a list for each time."""
        return [[c.stamp_ns / SECOND for c in group] for group in self.offered]

    def accounted(self) -> int:
        """Count the images that something has become of."""
        refused = sum(n for k, n in self.refusals.items() if k not in NOT_AN_IMAGE | {'time_jump'})
        return sum(map(len, self.offered)) + sum(self.drops.values()) + refused


def camera_of(host, name='camera') -> CameraInput:
    return CameraInput(host, name, f'/{name}/image_raw', f'/{name}/camera_info', f'/{name}/mask')


def info_at(seconds: float) -> CameraInfo:
    return info_message(pinhole(), (64, 48), time_message(round(seconds * SECOND)), FRAME)


def image_at(seconds: float, k: int = 0) -> Image:
    return image_message(IMAGES[k], time_message(round(seconds * SECOND)), FRAME)


def show(camera, seconds: float, k: int = 0) -> None:
    camera.on_info(info_at(seconds))
    camera.on_image(image_at(seconds, k))


# -- every image is accounted for ---------------------------------------------------------------

stamps = st.one_of(
    st.integers(0, 8).map(lambda k: k * SECOND // 4),
    st.integers(-(2**31) * SECOND, (2**31 - 1) * SECOND),
)
headers = st.tuples(stamps, st.sampled_from([FRAME, '', 'other']))


@st.composite
def image_messages(draw):
    """Make images whose parts need not agree, good ones among them."""
    if draw(st.booleans()):
        msg = image_message(IMAGES[draw(st.integers(0, 11))], time_message(0), '')
    else:
        sizes = st.one_of(st.integers(0, 70), st.just(2**32 - 1))
        msg = Image(width=draw(sizes), height=draw(sizes), step=draw(sizes))
        msg.encoding = draw(st.sampled_from([*FORMATS, '32FC1', '', 'x' * 100]))
        msg.is_bigendian = draw(st.integers(0, 255))
        msg.data = array.array('B', bytes(draw(st.integers(0, 5000))))
    return msg


@st.composite
def compressed_messages(draw):
    suffix = draw(st.sampled_from(['.png', '.jpg']))
    data = cv2.imencode(suffix, IMAGES[draw(st.integers(0, 11))])[1].tobytes()
    data = data[: draw(st.sampled_from([len(data), len(data) // 2, 30, 0]))]
    data += draw(st.sampled_from([b'', b'IEND', b'\xff\xd9']))
    formats = ['', 'jpeg', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; png compressed ', ';;', 'x']
    return CompressedImage(format=draw(st.sampled_from(formats)), data=array.array('B', data))


@st.composite
def infos(draw):
    msg = info_at(0)
    if draw(st.booleans()):
        msg.width = draw(st.sampled_from([0, 64, 2**32 - 1]))
        msg.k = np.full(9, draw(st.floats()))
        msg.d = array.array('d', draw(st.lists(st.floats(), max_size=6)))
        msg.distortion_model = draw(st.sampled_from(['', 'plumb_bob', 'equidistant', 'x']))
        msg.binning_x = draw(st.sampled_from([0, 1, 2**32 - 1]))
        msg.roi.width = msg.roi.height = draw(st.sampled_from([0, 10, 2**32 - 1]))
    return msg


@st.composite
def regions(draw):
    sizes = st.sampled_from([0, 1, 20, 2**32 - 1])
    return RegionOfInterest(
        x_offset=draw(sizes), y_offset=draw(sizes), width=draw(sizes), height=draw(sizes)
    )


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    events=st.lists(st.sampled_from('iiiinnnmrtcep'), max_size=14),
    compressed=st.booleans(),
    require=st.booleans(),
    rectified=st.booleans(),
    interval=st.sampled_from([0.0, 0.5]),
)
def test_any_messages_in_any_order(data, events, compressed, require, rectified, interval):
    """Nothing raises, and every image is offered, held, or counted under a named reason."""
    host = Host(
        require_camera_info=require, rectified=rectified, keyframe_min_interval=interval,
        max_image_megapixels=1.0, object_timeout=data.draw(st.sampled_from([0.0, 0.3])),
        stale_timeout=data.draw(st.sampled_from([0.0, 1.0])),
    )  # fmt: skip
    camera = camera_of(host)
    kinds = {'i': compressed_messages() if compressed else image_messages(), 'n': infos(),
             'm': image_messages(), 'r': regions()}  # fmt: skip
    takes = {'i': camera.on_image, 'n': camera.on_info, 'm': camera.on_mask, 'r': camera.on_roi}
    for event in events:
        if event in kinds:
            msg = data.draw(kinds[event])
            if event != 'r':
                stamp, msg.header.frame_id = data.draw(headers)
                msg.header.stamp = time_message(stamp)
            takes[event](msg)
            camera.wants_images()
        elif event == 't':
            camera.tick()
        elif event == 'c':
            camera.capture()
        elif event == 'e':
            host.enabled = not host.enabled
        else:
            camera.retry()
    camera._settle(now=True)
    assert host.accounted() == camera.received
    for candidate in (c for group in host.offered for c in group):
        try:
            view = candidate.make_view()
        except ValueError:
            continue  # the worker counts it as unusable
        assert view.image.shape[2] == 3


# -- images that are announced by their CameraInfo ----------------------------------------------


def test_images_that_cannot_become_keyframes_are_not_taken():
    host = Host(keyframe_min_interval=0.5)
    camera = camera_of(host)
    assert camera.wants_images()
    show(camera, 10.0)
    assert host.stamps == [[10.0]] and not camera.wants_images()
    for k in range(1, 5):
        camera.on_info(info_at(10 + k / 10))
        assert not camera.wants_images()
    assert camera.received == 5 and host.drops == {'too_soon': 4}
    assert camera.last_stamp_ns == 10.4 * SECOND  # transforms are repeated up to here
    camera.on_info(info_at(10.5))
    assert camera.wants_images() and camera.received == 5
    camera.on_image(image_at(10.4, 1))  # was in the queue still, and is counted already
    assert camera.received == 5 and len(host.offered) == 1
    camera.on_image(image_at(10.5, 1))
    assert host.stamps == [[10.0], [10.5]]


def test_images_are_taken_again_when_they_are_asked_for_or_not_announced(monkeypatch):
    host = Host(keyframe_min_interval=0.5)
    camera = camera_of(host)
    show(camera, 10.0)
    assert not camera.wants_images()
    camera.capture()
    assert camera.wants_images()
    show(camera, 10.1)
    assert not camera.wants_images()
    now = camera_input.time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now + 0.6)  # no CameraInfo meanwhile
    monkeypatch.setattr('ray_pose_ros.node.calibrations.time', clock)
    assert camera.wants_images()
    camera.on_info(info_at(10.2))
    assert not camera.wants_images()
    clock.monotonic = lambda: now + 1.2  # a sign of life is due
    camera.on_info(info_at(10.3))
    assert camera.wants_images()


def test_calibrations_with_stamps_of_their_own_announce_nothing():
    camera = camera_of(Host(keyframe_min_interval=0.5))
    camera.on_info(info_at(9.9))
    camera.on_image(image_at(10.0))
    camera.on_info(info_at(10.05))
    camera.on_image(image_at(10.03))
    assert camera.wants_images()


def test_a_bag_that_starts_again_is_not_taken_for_what_was_skipped():
    host = Host(keyframe_min_interval=0.5)
    camera = camera_of(host)
    for k in range(30):
        camera.on_info(info_at(10 + k / 10))
        if camera.wants_images():
            camera.on_image(image_at(10 + k / 10, k // 5))
    before = len(host.offered)
    assert before == 6
    for k in range(1, 30):  # from a stamp on that was skipped before
        camera.on_info(info_at(10 + k / 10))
        if camera.wants_images():
            camera.on_image(image_at(10 + k / 10, k // 5))
    assert host.refusals == {'time_jump': 1} and host.stamps[before] == [10.1]
    assert camera.received == 59


def test_an_unchanged_scene_is_looked_at_now_and_then():
    host = Host(keyframe_min_interval=0.5)
    camera = camera_of(host)
    for k in range(21):
        show(camera, 10 + k / 10)
    assert host.drops['unchanged'] == 8 and host.drops['too_soon'] == 12
    camera.retry()  # the first turned out to be unusable
    show(camera, 12.1)
    assert host.stamps == [[10.0], [12.1]]


# -- where the object is ------------------------------------------------------------------------


def mask_at(seconds: float, x0: int) -> Image:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, x0 : x0 + 8] = 255
    msg = Image(height=48, width=64, encoding='mono8', step=64)
    msg.data = array.array('B', mask.tobytes())
    msg.header.stamp = time_message(round(seconds * SECOND))
    return msg


def test_the_region_nearest_in_time_counts():
    hints = ObjectHints()
    assert hints.find(0, 5.0, 1.0) == ObjectHints().find(7, 0.0, 1.0)  # nothing said
    for at in (1.0, 2.0, 3.0):
        hints.add_roi(RegionOfInterest(x_offset=int(at), y_offset=4, width=10, height=20), at)
    assert hints.find(0, 2.2, 0.5).box == [2.0, 4.0, 12.0, 24.0]
    late = hints.find(0, 9.0, 0.5)
    assert late.box is None and '6.00 s away, expected at most 0.5 s' in late.problem
    assert hints.find(0, 9.0, 0.0).box == [3.0, 4.0, 13.0, 24.0]  # 0: however old
    hints.add_roi(RegionOfInterest(), 9.0)
    assert hints.find(0, 9.0, 0.5) == ObjectHints().find(0, 0.0, 0.0)


def test_an_image_waits_for_the_region_that_is_found_in_it(monkeypatch):
    host = Host(keyframe_min_interval=0.0, object_timeout=1.0)
    camera, now = camera_of(host), [0.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    for k, at in enumerate((10.0, 12.0, 14.0)):  # a slow camera; each is looked through in 50 ms
        now[0] = at
        show(camera, at, k)
        now[0] = at + 0.05
        camera.on_roi(RegionOfInterest(x_offset=5 * k, y_offset=4, width=20, height=20))
        if k == 0:
            now[0] = at + HELD_S + 0.1  # nobody knew that regions come
            camera.tick()
    # what came once may be meant for all; when it comes again, it belongs to what was seen last
    assert host.stamps == [[10.0], [14.0]] and host.refusals == {'no_object': 1}
    assert host.offered[1][0].make_view().object_box[0] == 10


def test_a_calibration_that_comes_when_it_changes_holds_for_all_images_after_it():
    host = Host(keyframe_min_interval=0.0)
    camera = camera_of(host)
    camera.on_info(info_at(1.0))
    for k in range(MISSED):
        camera.on_image(image_at(10.0 + k, k))
        camera._settle(now=True)
    camera.on_image(image_at(14.0, 3))
    assert host.stamps[-1] == [14.0]  # none of its own is waited for any more
    other = info_at(15.0)
    other.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    camera.on_info(other)
    camera.on_image(image_at(16.0, 4))
    assert host.stamps[-1] == [16.0] and not host.refusals


def test_a_camera_whose_calibrations_come_late_and_after_its_images_has_one_for_each():
    host = Host(keyframe_min_interval=0.0)
    camera = camera_of(host)
    for k in range(MISSED):  # before the other topic is heard
        camera.on_image(image_at(10.0 + k, k))
        camera._settle(now=True)
    for k, bent in ((3, 0.0), (4, 0.1), (5, 0.2)):  # a zoom
        camera.on_image(image_at(10.0 + k, k))
        own = info_at(10.0 + k)
        own.d = [bent, 0.0, 0.0, 0.0, 0.0]
        camera.on_info(own)
    assert host.stamps == [[14.0], [15.0]]  # the one before was when nothing was known yet
    views = [group[0].make_view() for group in host.offered]
    assert [float(v.camera.distortion[0]) for v in views] == [0.1, 0.2]


def test_calibrations_of_each_image_that_change_serve_no_other_until_a_reset():
    host = Host(keyframe_min_interval=0.0)
    camera = camera_of(host)
    show(camera, 10.0)
    other = info_at(11.0)
    other.d = [0.1, 0.0, 0.0, 0.0, 0.0]
    camera.on_info(other)
    camera.on_image(image_at(12.0, 1))
    camera._settle(now=True)
    assert host.refusals == {'no_camera_info': 1}
    camera.reset()
    camera.on_image(image_at(13.0, 2))
    camera._settle(now=True)
    assert host.stamps == [[10.0], [13.0]]


def test_an_image_whose_calibration_is_refused_gets_no_other():
    for first in 'info', 'image':
        host = Host(keyframe_min_interval=0.0, keyframe_min_change=0.0)
        camera = camera_of(host)
        show(camera, 100)
        zeros = info_message(None, (64, 48), time_message(101 * SECOND), FRAME)
        if first == 'info':
            camera.on_info(zeros)
        camera.on_image(image_at(101, 1))
        if first == 'image':
            camera.on_info(zeros)
        assert host.refusals == {'bad_camera_info': 1, 'no_camera_info': 1}
        show(camera, 102, 2)
        assert host.stamps == [[100], [102]]


def test_images_that_wait_for_simulated_time_say_so():
    host = Host(stale_timeout=5.0)
    host.now_ns = lambda: 0
    show(camera_of(host), 100)
    assert 'use_sim_time is set, and /clock has not told the time' in host.said[0]


def test_the_mask_of_the_first_image_after_time_went_back_stays():
    hints = ObjectHints()
    hints.add_mask('old', 100 * SECOND)
    hints.add_mask('new', SECOND)
    hints.rewind(2 * SECOND)
    assert hints.find(SECOND, 0.0, 1.0).mask == 'new'


def test_an_image_waits_for_the_mask_of_its_stamp_and_gets_no_other():
    host = Host(keyframe_min_interval=0.0, object_timeout=0.1)
    camera = camera_of(host)
    camera.on_mask(mask_at(10.0, 5))
    show(camera, 10.0)
    show(camera, 10.2, 1)
    assert host.stamps == [[10.0]]  # masks come, so this one will
    camera.on_mask(mask_at(10.2, 30))
    assert host.stamps == [[10.0], [10.2]]
    views = [group[0].make_view() for group in host.offered]
    assert [v.object_box for v in views] == [(5, 10, 13, 20), (30, 10, 38, 20)]
    show(camera, 11.0, 2)
    camera._settle(now=True)
    assert host.refusals == {'no_object': 1} and '0.80 s away' in host.said[0]


def test_what_a_mask_must_be():
    host = Host(keyframe_min_interval=0.0, max_image_megapixels=0.01)
    camera = camera_of(host)
    camera.on_mask(Image(width=2000, height=2000))
    assert host.refusals == {'bad_mask': 1}
    small = mask_at(10.0, 5)
    small.height = 24
    camera.on_mask(small)
    show(camera, 10.0)
    with pytest.raises(ValueError, match=r'mask has shape \(24, 64\), expected \(48, 64\)'):
        host.offered[0][0].make_view()


def test_a_fixed_box_for_all_or_for_each_camera():
    two = {'cameras': ['a', 'b']}
    settings = make_settings(two | {'box': [1.0, 2.0, 3.0, 4.0]})
    assert box_of(settings, 'a') == box_of(settings, 'b') == [1, 2, 3, 4]
    settings = make_settings(two | {'box': [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0]})
    assert box_of(settings, 'a') is None and box_of(settings, 'b') == [1, 2, 3, 4]
    with pytest.raises(ParameterError, match='four for each of 2 cameras'):
        make_settings(two | {'box': [1.0] * 12})
    with pytest.raises(ParameterError, match='for b, expected x_min < x_max'):
        make_settings(two | {'box': [0.0, 0.0, 0.0, 0.0, 5.0, 2.0, 3.0, 4.0]})


def test_rectified_images_have_the_projection_of_p():
    host = Host(keyframe_min_interval=0.0, rectified=True)
    camera = camera_of(host)
    info = info_at(10.0)
    info.distortion_model, info.d = 'plumb_bob', [0.3, 0.1, 0.0, 0.0, 0.0]
    info.p = np.array([40.0, 0, 30, 0, 0, 41, 20, 0, 0, 0, 1, 0])
    camera.on_info(info)
    camera.on_image(image_at(10.0))
    lens = host.offered[0][0].make_view().camera
    assert lens.distortion_model == 'none'
    assert lens.matrix.numpy().tolist() == [[40, 0, 30], [0, 41, 20], [0, 0, 1]]


# -- rig ----------------------------------------------------------------------------------------

RIG = {'cameras': ['left', 'right', 'top'], 'rig': True, 'keyframe_min_interval': 0.5}


def rig_of(**values):
    host = Host(**RIG | values)
    cameras = {name: camera_of(host, name) for name in host.settings.cameras}
    members = [cameras[name] for name in rig_names(host.settings)]
    made = Rig(host, members)
    for camera in members:
        camera.in_rig, camera.pass_on = True, made.add
    return host, cameras, made


def names(host) -> list[list[str]]:
    return [[c.camera for c in group] for group in host.offered]


def test_a_set_is_complete_with_all_cameras_leading_one_first():
    host, cameras, _ = rig_of(leading_camera='right')
    show(cameras['left'], 10.0, 0)
    show(cameras['top'], 10.01, 1)
    assert not host.offered
    show(cameras['right'], 10.02, 2)
    assert names(host) == [['right', 'left', 'top']]
    assert host.stamps == [[10.02, 10.0, 10.01]]


def test_images_too_far_apart_are_no_set():
    host, cameras, made = rig_of(cameras=['left', 'right'], sync_slop=0.02)
    show(cameras['left'], 10.0)
    show(cameras['right'], 10.03)
    assert not host.offered
    show(cameras['left'], 10.033, 1)
    assert host.stamps == [[10.033, 10.03]]
    assert host.drops == {'unsynchronised': 1}


def test_the_closest_of_several_images_are_put_together():
    host, cameras, _ = rig_of(cameras=['left', 'right'], sync_slop=0.05)
    for seconds in (10.0, 10.033, 10.066):
        show(cameras['left'], seconds)
    show(cameras['right'], 10.03)
    assert host.stamps == [[10.033, 10.03]]


def test_a_set_goes_without_a_dead_camera_and_again_when_it_returns(monkeypatch):
    now = [100.0]
    for module in (rig, camera_input):
        monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    host, cameras, made = rig_of()
    show(cameras['left'], 10.0, 0)
    show(cameras['right'], 10.0, 1)
    made.tick()
    assert not host.offered  # the third may be about to start
    now[0] += 0.3
    made.tick()
    assert names(host) == [['left', 'right']]
    show(cameras['left'], 11.0, 2)
    show(cameras['right'], 11.0, 3)
    assert len(host.offered) == 2  # nobody waits for what is not there
    for seconds in (12.0, 12.5):
        for camera in ('top', 'left', 'right'):
            show(cameras[camera], seconds, 3 if camera == 'right' else 2)
    assert names(host)[2:] == [['left', 'right', 'top']]  # once, though nothing has changed
    assert host.drops['unchanged'] == 3


def test_a_lonely_camera_is_no_set(monkeypatch):
    now = [100.0]
    for module in (rig, camera_input):
        monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: now[0]))
    host, cameras, made = rig_of()
    show(cameras['left'], 10.0)
    now[0] += 0.3
    made.tick()
    assert not host.offered and host.drops == {'unsynchronised': 1}


@settings(max_examples=80, deadline=None)
@given(
    shown=st.lists(
        st.tuples(st.sampled_from(['left', 'right', 'top']), st.integers(-30, 60),
                  st.integers(0, 11)), max_size=25
    ),
    slop=st.sampled_from([0.0, 0.1, 10.0]),
    least=st.integers(1, 3),
)  # fmt: skip
def test_sets_of_any_images(shown, slop, least):
    """Sets are within the slop, have a camera once, and every image is accounted for."""
    host, cameras, made = rig_of(sync_slop=slop, min_cameras=least)
    for camera, tenths, k in shown:
        show(cameras[camera], 10 + tenths / 10, k)
        made.tick()
    for group in host.offered:
        assert len({c.camera for c in group}) == len(group) >= least
        assert max(c.stamp_ns for c in group) - min(c.stamp_ns for c in group) <= slop * SECOND
    waiting = sum(len(q) for q in made._waiting.values())
    assert host.accounted() + waiting == sum(c.received for c in cameras.values())


@pytest.mark.parametrize(
    'values, message',
    [
        ({'rig_cameras': ['left', 'rear']}, "name 'rear', expected some of cameras"),
        ({'leading_camera': 'rear'}, "name 'rear', expected some of cameras"),
        ({'rig_cameras': ['left']}, 'expected two different ones or more'),
        ({'rig_cameras': ['left', 'top'], 'leading_camera': 'right'}, 'a camera of the rig'),
        ({'min_cameras': 4}, 'min_cameras is 4, expected at most the 3 cameras'),
        ({'window_size': 2}, 'window_size is 2, expected at least the 3 cameras'),
    ],
)
def test_rigs_that_are_none(values, message):
    with pytest.raises(ParameterError, match=message):
        make_settings(RIG | values)


def test_who_is_in_the_rig():
    assert rig_names(make_settings({'cameras': ['a', 'b']})) == []
    some = make_settings(RIG | {'rig_cameras': ['top', 'left']})
    assert rig_names(some) == ['top', 'left'] and leading_camera(some) == 'top'
    assert leading_camera(make_settings({'cameras': ['a', 'b'], 'leading_camera': 'b'})) == 'b'
