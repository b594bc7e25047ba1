"""Keyframes, how images are turned before matching, and `refine` from photographs on."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.matching import Features, Matches
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.refinement.correspond import correspond
from ray_pose_ros.refinement.hypotheses import search
from ray_pose_ros.refinement.keyframe import Keyframe, matched_before, turn_between, unturned
from ray_pose_ros.refinement.pairing import _turns
from ray_pose_ros.refinement.refine import default_matchers, keyframe, refine
from ray_pose_ros.refinement.rolls import Rolls

WIDTH, HEIGHT = 240, 180
CAMERA = CameraModel.from_fov(WIDTH, HEIGHT, math.radians(50))


def texture(seed, width=WIDTH, height=HEIGHT):
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3))
    return cv2.resize(noise.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def warped(image, R):
    """The image after the camera turned by R: x_new = R x."""
    import cv2

    K = CAMERA.matrix.numpy()
    return cv2.warpPerspective(image, K @ R @ np.linalg.inv(K), (WIDTH, HEIGHT))


def estimate_of(R, sigma_deg=20.0, count=2):
    t = np.tile([0.0, 0.0, 1.0], (count, 1))
    sigma = np.full(count, math.radians(sigma_deg))
    view = View(np.zeros((HEIGHT, WIDTH, 3), np.uint8), CAMERA)
    return Estimate(
        R=np.stack([np.eye(3), R])[:count],
        t=t,
        cameras=(CAMERA,) * count,
        intrinsics_source=('given',) * count,
        names=('a', 'b'),
        stamps=(None,) * count,
        crops=(view.crop(),) * count,
        rotation_sigma=sigma,
        centre_sigma=sigma,
        agreement=1.0,
        modes=1,
        rays=np.zeros((count, 6, 1, 1), np.float32),
    )


def keyframes(*images, masks=(None, None)):
    return [keyframe(View(i, CAMERA, mask=m)) for i, m in zip(images, masks, strict=True)]


@pytest.mark.parametrize('turn', range(4))
def test_points_of_a_turned_image_are_those_of_the_photograph(turn):
    image = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    turned = np.rot90(image, turn)
    row, column = 17, 40
    pixel = np.array([[column + 0.5, row + 0.5]])
    x, y = (unturned(pixel, turn, WIDTH, HEIGHT)[0] - 0.5).astype(int)
    assert image[y, x] == turned[row, column]


@pytest.mark.parametrize('turn', range(4))
def test_the_turn_that_makes_an_image_upright_undoes_the_roll(turn):
    # a point right of the middle in view 1 is found there again in the turned view 2
    R = rotation_from_vector(np.array([0.0, 0.0, turn * math.pi / 2 + 0.3]))
    assert turn_between(R) == turn
    side = R @ [0.5, 0.0, 1.0]
    size = 200
    pixel = size / 2 + 100 * side[:2] / side[2]
    image = np.zeros((size, size), bool)
    image[int(pixel[1]), int(pixel[0])] = True
    row, column = np.argwhere(np.rot90(image, turn))[0]
    assert column > size / 2 and abs(row - size / 2) < 40


def test_a_view_turned_about_its_centre_is_found_by_matches():
    turn = rotation_from_vector(np.radians([4.0, 9.0, -2.0]))
    image = texture(0)
    start = estimate_of(rotation_from_vector(np.radians([0.0, 0.0, 8.0])))
    seen = []
    found = refine(
        start,
        keyframes(image, warped(image, turn)),
        default_matchers('sift'),
        progress=lambda *x: seen.append(x),
    )
    assert np.degrees(angle_between(found.R[1], turn)) < 1.5
    assert found.matches.min() > 20 and found.pairs.tolist() == [[0, 1]]
    assert found.rotation_sigma[1] < start.rotation_sigma[1]
    assert {'match', 'refine'} <= set(found.timings) and seen[-1] == (1, 1)
    assert found.names == start.names and np.array_equal(found.rays, start.rays)


def test_a_turntables_background_fools_nobody():
    background = texture(1)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[50:130, 70:170] = True
    # the object shows another side in each view
    views = [np.where(mask[..., None], texture(seed), background) for seed in (2, 3)]
    start = estimate_of(rotation_from_vector(np.array([0.0, 1.5, 0.0])))
    matchers = default_matchers('sift')
    frames = keyframes(*views, masks=(mask, mask))
    points = frames[0].features(matchers[0]).points.astype(int)
    assert len(points) > 20 and mask[points[:, 1], points[:, 0]].all()
    found = refine(start, frames, matchers)
    assert np.array_equal(found.R, start.R) and not found.sure.any()
    unsure = estimate_of(start.R[1], sigma_deg=500.0)
    found = refine(unsure, keyframes(*views), matchers)
    assert found.turns and np.array_equal(found.R, start.R) and not found.sure.any()


def test_what_matches_mean_is_found_once_for_the_same_matches(monkeypatch):
    calls = []

    def counting(matches):
        calls.append(len(matches))
        return search(matches)

    monkeypatch.setattr('ray_pose_ros.refinement.pairing.search', counting)
    turn = rotation_from_vector(np.radians([4.0, 9.0, -2.0]))
    image = texture(0)
    frames = keyframes(image, warped(image, turn))
    start = estimate_of(rotation_from_vector(np.radians([0.0, 0.0, 8.0])))
    first = refine(start, frames, default_matchers('sift'))
    seconds = frames[0].matching_seconds(frames)
    again = refine(start, frames, default_matchers('sift'))
    assert len(calls) == 1 and np.array_equal(first.R, again.R)
    assert frames[0].matching_seconds(frames) == seconds > 0
    # another lens, other rays
    wide = CameraModel.from_fov(WIDTH, HEIGHT, math.radians(80))
    refine(dataclasses.replace(start, cameras=(wide, wide)), frames, default_matchers('sift'))
    assert len(calls) == 2


def test_images_without_texture_leave_the_estimate_as_it_was():
    plain = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    start = estimate_of(rotation_from_vector(np.array([0.0, 1.0, 0.0])))
    found = refine(start, keyframes(plain, plain), default_matchers('sift'))
    assert np.array_equal(found.R, start.R) and np.array_equal(found.t, start.t)
    assert np.array_equal(found.rotation_sigma, start.rotation_sigma)


def test_a_deadline_stops_matching_and_features_are_found_once():
    class Counting:
        name, max_side, calls = 'counting', 1000, 0

        def extract(self, image, mask=None):
            self.calls += 1
            return Features(np.zeros((0, 2)), np.zeros((0, 8)), np.zeros(0), WIDTH, HEIGHT)

        def match(self, a, b):
            return Matches(np.zeros((0, 2), dtype=np.int64), np.zeros(0))

    matcher, frames = Counting(), keyframes(texture(0), texture(1))
    start = estimate_of(np.eye(3), sigma_deg=10.0)
    refine(start, frames, [matcher], deadline=1e-9)
    assert matcher.calls == 0
    refine(start, frames, [matcher])
    first = matcher.calls
    refine(start, frames, [matcher])
    assert first == matcher.calls == 2


@pytest.mark.parametrize(
    'change, message',
    [({'keyframes': []}, '0 keyframes, expected 2'), ({'deadline': 0}, 'deadline is 0')],
)
def test_bad_input_is_refused(change, message):
    given = {'keyframes': keyframes(texture(0), texture(1)), 'matchers': [], **change}
    with pytest.raises(ValueError, match=message):
        refine(estimate_of(np.eye(3)), **given)


def test_keyframes_know_which_of_them_were_matched():
    frames = keyframes(texture(0), texture(1), texture(2), masks=(None,) * 3)
    assert matched_before(frames) == []
    frames[0].matches(frames[2], default_matchers('sift')[0])
    assert matched_before(frames) == [(0, 2)]


def test_progress_may_abandon_the_run():
    def stop(done, total):
        raise KeyboardInterrupt

    frames = keyframes(texture(0), texture(1))
    with pytest.raises(KeyboardInterrupt):
        refine(estimate_of(np.eye(3)), frames, default_matchers('sift'), progress=stop)


@pytest.mark.parametrize('known', [True, False])
def test_a_matcher_that_minds_the_roll_sees_images_upright(known):
    class Upright:
        """Finds the brightest pixel, and matches where it has the same place in both."""

        name = 'upright'

        def extract(self, image, mask=None):
            y, x = np.argwhere(image[..., 0] == 255)[0]
            place = np.array([[x / image.shape[1], y / image.shape[0]]])
            points, one = np.array([[x + 0.5, y + 0.5]]), np.ones(1)
            return Features(points, one[None], one, 9, 9, {'place': place})

        def match(self, a, b):
            same = np.abs(a.extra['place'] - b.extra['place']).max() < 0.1
            return Matches(np.zeros((int(same), 2), dtype=np.int64), np.ones(int(same)))

    size = 200
    camera = CameraModel.from_fov(size, size, 1.0)
    a = np.zeros((size, size, 3), np.uint8)
    a[40, 150] = 255
    b = np.ascontiguousarray(np.rot90(a, -1))  # the camera rolled: its image turns clockwise
    roll = rotation_from_vector(np.array([0.0, 0.0, math.pi / 2]))
    sigma = np.full(2, math.radians(10.0 if known else 500.0))
    R = np.stack([np.eye(3), roll if known else np.eye(3)])
    prior = Prior(R, np.zeros((2, 3)), sigma, sigma, np.zeros((0, 2, 3, 3)))
    axis = np.array([0.0, 0.0, 1.0])
    frames = Keyframe(a), Keyframe(b)
    turns = _turns(Rolls(2), prior, 0, 1)
    assert turns == ([1] if known else [0, 1, 3, 2])
    ways = [(0, turn) for turn in turns]
    found, shown = correspond(*frames, (camera,) * 2, (axis,) * 2, [Upright()], ways)
    assert len(found) == 1 and shown is None
    assert found.b[0] == pytest.approx(roll @ found.a[0], abs=0.01)
    assert found.a[0] == pytest.approx(
        camera.unproject(torch.tensor([150.5, 40.5], dtype=torch.float64)).numpy()
    )


def test_rolls_of_two_pairs_tell_that_of_the_third():
    rolls = Rolls(5)
    assert rolls.known(0, 1) is None and rolls.known(2, 2) == 0
    truth = [0, 3, 1, 2, 0]
    for i, j in ((1, 2), (3, 4), (2, 4)):
        rolls.learn(i, j, (truth[j] - truth[i]) % 4)
    for i in range(1, 5):
        for j in range(1, 5):
            assert rolls.known(i, j) == (truth[j] - truth[i]) % 4
        assert rolls.known(0, i) is None
    rolls.learn(1, 4, 2)  # what is known stays
    assert rolls.known(1, 4) == 1
    rolls.learn(0, 3, 2)
    assert rolls.known(0, 1) == 3


def test_views_are_turned_as_they_were_before():
    rolls = Rolls(4, told=[1, 0, 2, 2])
    assert rolls.ways(0, 1, [3]) == [(1, 0)]  # the first is upright
    rolls.learn(0, 1, 3)
    assert rolls.ways(0, 2, [1]) == [(1, 2)]
    rolls.learn(0, 2, 1)
    # 3 is unknown; 1 and 2 tell 2 to be upright where it was turned before
    assert rolls.ways(2, 3, [0, 1, 3, 2]) == [(2, 2), (2, 3), (2, 1), (2, 0)]
    # all ways up of it are there, so that the other one is not turned
    assert rolls.ways(1, 3, [0, 1, 3, 2]) == [(0, 0), (0, 1), (0, 3), (0, 2)]
    assert rolls.ways(0, 3, [2]) == [(1, 3)]
    rolls = Rolls(3)
    assert rolls.ways(0, 1, [0, 1, 3, 2]) == [(0, 0), (0, 1), (0, 3), (0, 2)]
    assert rolls.ways(1, 2, [0, 1, 3, 2]) == [(0, 0), (3, 0), (1, 0), (2, 0)]
    assert rolls.ways(1, 2, [2]) == [(2, 0)]


def test_most_of_a_group_say_what_is_upright():
    rolls = Rolls(4, told=[0, 3, 3, 3])
    rolls.learn(0, 1, 2)
    rolls.learn(0, 2, 2)
    assert rolls.ways(0, 3, [0]) == [(1, 1)]


def test_one_way_up_is_enough_where_rolls_are_known():
    """Each view once, however they are rolled."""
    rng = np.random.default_rng(0)
    rolled = rng.integers(0, 4, 7)
    rolls = Rolls(7)
    for k in range(1, 7):
        rolls.learn(k - 1, k, int(rolled[k] - rolled[k - 1]) % 4)
    seen = {}
    for i in range(7):
        for j in range(i + 1, 7):
            ((first, second),) = rolls.ways(i, j, [rolls.known(i, j)])
            assert seen.setdefault(i, first) == first and seen.setdefault(j, second) == second


def test_a_hopeless_pair_of_upright_views_is_matched_one_way_up_only():
    class Counting:
        name, max_side = 'counting', 1000

        def __init__(self):
            self.turned = []

        def extract(self, image, mask=None):
            self.turned.append(image.shape[:2])
            return Features(np.zeros((0, 2)), np.zeros((0, 8)), np.zeros(0), WIDTH, HEIGHT)

        def match(self, a, b):
            return Matches(np.zeros((0, 2), dtype=np.int64), np.zeros(0))

    image = texture(0)
    near = warped(image, rotation_from_vector(np.radians([0.0, 6.0, 0.0])))
    counting = Counting()
    matchers = [*default_matchers('sift'), counting]
    vague = estimate_of(np.eye(3), sigma_deg=500.0)
    refine(vague, keyframes(image, near), matchers)
    # SIFT has told that the two are the same way up
    assert counting.turned == [(HEIGHT, WIDTH)] * 2
    counting.turned.clear()
    refine(vague, keyframes(image, texture(7)), matchers)
    assert len(counting.turned) == 5  # one as it is, the other in all four ways


@pytest.mark.parametrize('turns', [[1, 0, 3, 2], [0, 3, 2, 1]])
def test_features_that_look_alike_tell_which_turns_are_worth_matching(turns):
    """Of four ways to turn an image only the likely ones are matched, which is what costs."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(40, 16)).astype(np.float32)

    class Looking:
        name, max_side = 'looking', 1000

        def __init__(self):
            self.tried = []

        def extract(self, image, mask=None):
            descriptors = rng.normal(size=(40, 16)).astype(np.float32)
            upright, upside_down = image[0, 0, 0] == 255, image[-1, -1, 0] == 255
            if upright:
                descriptors[:30] = looks[:30]
            elif upside_down:  # it looks like itself, a little
                descriptors[:8] = looks[:8]
            descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
            points = np.full((40, 2), 5.0)
            return Features(points, descriptors, np.full(40, float(upright)), 9, 9, {})

        def match(self, a, b):
            self.tried.append(bool(b.scores.all()))
            return Matches(np.zeros((0, 2), dtype=np.int64), np.zeros(0))

    a = np.zeros((9, 9, 3), np.uint8)
    a[0, 0] = 255
    b = np.ascontiguousarray(np.rot90(a, -1))
    camera, axis = CameraModel.from_fov(9, 9, 1.0), np.array([0.0, 0.0, 1.0])
    matcher = Looking()
    ways = [(0, turn) for turn in turns]
    found, _ = correspond(Keyframe(a), Keyframe(b), (camera,) * 2, (axis,) * 2, [matcher], ways)
    assert len(found) == 0
    # the first turn, and where that is not the one that looks alike by far, the likeliest other
    assert matcher.tried == ([True] if turns[0] == 1 else [False, True])
