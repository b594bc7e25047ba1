"""Matches on what stands still before a camera while the scene moves, or the other way round."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from matching_fixtures import textured_views
from refinement_fixtures import PIXEL, relative_errors, ring, see

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.refinement.refine import default_matchers, keyframe, refine, refine_known
from ray_pose_ros.refinement.refining import prepared_for_refinement, refined
from ray_pose_ros.refinement.standing import turns_before, without_room, without_standing
from ray_pose_ros.refinement.swept import swept_area


def seen(rng, count=200, wrong=0.0):
    R, t = ring(2, 30.0)
    return see(R, t, 0, 1, 0.3 * rng.normal(size=(count, 3)), rng, wrong)


def fixed(rng, count, inner=0.9, outer=1.4):
    """Matches of points that the camera has always at the same places, round the object's."""
    radius, angle = rng.uniform(inner, outer, count), rng.uniform(0, 2 * np.pi, count)
    ray = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.ones(count)], 1)
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    template = seen(rng, 1)
    noise = rng.normal(size=(2, count, 3)) * PIXEL / 4
    sigma = np.full(count, PIXEL)
    return type(template)(
        ray + noise[0], ray + noise[1], sigma, template.centre_a, template.centre_b
    )


def test_what_has_not_moved_is_left_out_where_the_rest_has():
    rng = np.random.default_rng(0)
    scene, room = seen(rng), fixed(rng, 900)
    left = without_standing(scene.and_also(room))
    assert 0.75 * len(scene) < len(left) <= len(scene)  # some is by the room
    assert left.standing.shape == (2, 900, 3)
    few = seen(rng, 20).and_also(room)  # of a far view, or of a plain thing
    assert len(without_standing(few)) <= 20
    # and where it does not fill the middle of the image: fewer of them stand still
    scene = seen(rng).and_also(fixed(rng, 100))
    left = without_standing(scene)
    assert len(left) == pytest.approx(200, abs=4) and left.standing is None


def test_look_alikes_within_the_room_are_no_motion():
    rng = np.random.default_rng(4)
    thing, room = seen(rng, 100), fixed(rng, 900)
    shifted = fixed(rng, 80)  # by the period of a blind, as one
    shifted = replace(shifted, b=shifted.b @ rotation_from_vector(np.array([0, 0.05, 0])).T)
    left = without_standing(thing.and_also(room).and_also(shifted))
    assert 70 < len(left) < 110


def test_something_small_that_moves_beside_the_object_is_no_turntable():
    rng = np.random.default_rng(5)
    same, hand = fixed(rng, 900, 0.0, 0.8), seen(rng, 20)
    aside = rotation_from_vector(np.array([0, 0.9, 0]))
    hand = replace(hand, a=hand.a @ aside.T, b=hand.b @ aside.T)
    both = same.and_also(hand)
    assert without_standing(both) is both


def test_pairs_in_which_nothing_else_is_matched_lose_the_room_when_others_show_it():
    rng = np.random.default_rng(6)
    turned = without_standing(seen(rng).and_also(fixed(rng, 900)))
    touched = fixed(rng, 500)  # the camera was, between the photographs
    touched = replace(touched, b=touched.b @ rotation_from_vector(np.array([0.02, 0, 0])).T)
    known = {(0, 1): turned, (0, 2): fixed(rng, 600), (1, 2): touched.and_also(seen(rng, 50))}
    assert turns_before(known)
    left = without_room(known, known)
    assert len(left[0, 1]) > 0.9 * len(turned)
    assert len(left[0, 2]) == 0
    assert 40 < len(left[1, 2]) < 75
    # beside as many views of a camera that moves all are of the room, which is the scene
    moving = {(i, i + 1): seen(rng) for i in (2, 3, 4)}
    assert not turns_before(known | moving)
    # of a scene that a camera has moved in, once stopping, nothing is lost
    assert not turns_before({(0, 1): seen(rng), (0, 2): fixed(rng, 600)})
    assert not turns_before({})


def test_views_from_one_place_keep_their_matches():
    rng = np.random.default_rng(1)
    same = fixed(rng, 500)
    assert without_standing(same) is same
    some_wrong = same.and_also(seen(rng, 20, wrong=1.0))
    assert without_standing(some_wrong) is some_wrong


def test_a_camera_that_moves_keeps_its_matches():
    rng = np.random.default_rng(2)
    scene = seen(rng)
    assert without_standing(scene) is scene
    # hardly: some points moved by less than can be told, others by a little more
    R, t = ring(1)
    R = np.stack([R[0], rotation_from_vector(np.array([0.0, 0.0, 0.012])) @ R[0]])
    little = see(R, np.stack([t[0], t[0]]), 0, 1, 0.3 * rng.normal(size=(300, 3)), rng)
    assert without_standing(little) is little


def test_a_gripper_in_view_does_not_say_that_the_camera_stood_still():
    shown = textured_views(3, 24)
    noise = np.random.default_rng(3).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    gripper = noise.repeat(2, axis=0).repeat(2, axis=1)
    views, truth = [], []
    for camera, R, _, rendered in shown:
        image = rendered.image.copy()
        image[-80:, 100:300] = gripper
        views.append(View(image, camera))
        truth.append(R)
    estimate = Estimator(samples=1, second_look=False).estimate(views)
    found = refine(estimate, [keyframe(v) for v in views], default_matchers('sift'))
    for i, j in ((0, 1), (1, 2), (0, 2)):
        off = angle_between(found.R[j] @ found.R[i].T, truth[j] @ truth[i].T)
        assert np.degrees(off) < 3


def turning(steps: int, radius: float):
    """Views of an object that turns by 360 / steps degrees before a wall, and true rotations."""
    shown = textured_views(3, steps)
    wall = np.random.default_rng(7).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    views, truth = [], []
    for camera, R, _, rendered in shown:
        height, width = rendered.image.shape[:2]
        around = cv2.resize(wall, (width, height), interpolation=cv2.INTER_NEAREST)
        y, x = np.mgrid[:height, :width]
        disc = np.hypot(x - width / 2, y - height / 2) < radius * height
        views.append(View(np.where(disc[..., None], rendered.image, around), camera))
        truth.append(R)
    return views, np.stack(truth)


def test_an_object_that_turns_before_a_camera_that_stands_still_is_told_by_its_own_matches():
    views, truth = turning(24, 0.45)
    estimate = Estimator(samples=1, second_look=False).estimate(views)
    keyframes = [keyframe(view) for view in views]
    found = refine(estimate, keyframes, default_matchers('sift'))
    assert found.turns and 'masks of the object' in found.caution
    assert relative_errors(found.R, truth).max() < 10 < relative_errors(estimate.R, truth).max()
    assert np.degrees(found.rotation_sigma[~found.sure]).min() > 29
    assert refine_known(estimate, keyframes).turns  # and it is known at once from then on


def test_where_only_the_room_is_matched_nothing_is_sure():
    views, truth = turning(12, 0.33)
    estimate = Estimator(samples=1, second_look=False).estimate(views)
    keyframes = [keyframe(view) for view in views]
    found = refine(estimate, keyframes, default_matchers('sift'))
    assert found.turns and not found.sure.any()
    assert estimate.ray_matches and not found.ray_matches  # of the room, for maps and points
    # of the same view thrice nothing has turned
    keyframes = [keyframe(views[0]) for _ in range(3)]
    found = refine(estimate, keyframes, default_matchers('sift'))
    assert not found.turns and found.sure.all()
    assert relative_errors(found.R, np.tile(np.eye(3), (3, 1, 1))).max() < 0.1


def test_photographs_of_what_turns_get_masks_of_where_they_differ():
    views, truth = turning(24, 0.33)
    height, width = views[0].image.shape[:2]
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(x - width / 2, y - height / 2) < 0.33 * height
    area = swept_area([view.image for view in views])
    assert area[disc].mean() > 0.5 and area[~disc].mean() < 0.1
    estimator, matchers = Estimator(samples=1, second_look=False), default_matchers('sift')

    def solved(views):
        look = estimator.look([prepared_for_refinement(estimator, view) for view in views])
        return refined(estimator, look, views, [keyframe(view) for view in views], matchers)

    found = solved(views)
    assert found.turns and found.timings['unmasked'] > 0
    assert found.crops[0].side < 0.8 * height  # the network looks at the object only
    for i, j in ((0, 1), (1, 2), (0, 2)):
        off = np.degrees(angle_between(found.R[j] @ found.R[i].T, truth[j] @ truth[i].T))
        assert off < 10 or not (found.sure[i] and found.sure[j])
    # who has said where the object is knows better
    boxed = [replace(view, box=(0.0, 0.0, width, height)) for view in views]
    assert 'unmasked' not in solved(boxed).timings


def test_no_area_where_photographs_differ_in_nothing_in_all_or_in_size():
    noise = np.random.default_rng(8).integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)
    noise = [cv2.resize(x, (480, 360), interpolation=cv2.INTER_NEAREST) for x in noise]
    assert swept_area([noise[0], noise[0]]) is None
    assert swept_area(noise) is None
    assert swept_area([noise[0], noise[1][:300]]) is None
    other = noise[0].copy()
    other[150:210, 200:280] = noise[1][150:210, 200:280]
    other[20:30, 0:60] = noise[1][20:30, 0:60]  # something else, aside
    rows, columns = np.nonzero(swept_area([noise[0], other]))
    assert np.abs(np.array([rows.min(), rows.max()]) - [150, 210]).max() < 25
    assert np.abs(np.array([columns.min(), columns.max()]) - [200, 280]).max() < 25
