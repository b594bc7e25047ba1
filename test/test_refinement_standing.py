"""Matches on what stands still before a camera while the scene moves, or the other way round."""

import numpy as np
from matching_fixtures import textured_views
from refinement_fixtures import PIXEL, ring, see

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.refinement.refine import default_matchers, keyframe, refine
from ray_pose_ros.refinement.standing import without_standing


def seen(rng, count=200, wrong=0.0):
    R, t = ring(2, 30.0)
    return see(R, t, 0, 1, 0.3 * rng.normal(size=(count, 3)), rng, wrong)


def fixed(rng, count):
    """Matches of points that the camera has always at the same place."""
    ray = rng.normal(size=(count, 3)) * [0.2, 0.2, 0.0] + [0, 0, 1]
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
    assert abs(len(left) - len(scene)) <= 4  # one or two points of the scene are where they were
    few = seen(rng, 60).and_also(fixed(rng, 900))  # of a far view, wrong ones mostly
    assert len(without_standing(few)) < 70


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
