"""Cameras from ray matches and a prior: the usual case, and the cases that have no parallax,
no texture, or too much of the same."""

import numpy as np
import pytest
from refinement_fixtures import noisy_prior, relative_errors, ring, see, unit

from ray_pose_ros.geometry.so3 import (
    angle_between,
    rotation_from_vector,
    vector_from_rotation,
)
from ray_pose_ros.multiview.adjust import _linearise, adjust, deviations
from ray_pose_ros.multiview.essential import essential_poses
from ray_pose_ros.multiview.residuals import Problem
from ray_pose_ros.multiview.two_view import (
    depths,
    epipolar_errors,
    epipolar_terms,
    refine_poses,
    support,
)
from ray_pose_ros.refinement.hypotheses import hypotheses, log_odds, search
from ray_pose_ros.refinement.planar import planar_poses
from ray_pose_ros.refinement.refine import solve
from ray_pose_ros.refinement.trust import trusted


def cloud(rng, count=80, size=0.15):
    return rng.normal(size=(count, 3)) * size


def all_pairs(R, t, points, rng, wrong=0.3, skip=()):
    return {
        (i, j): see(R, t, i, j, points, rng, wrong)
        for i in range(len(R))
        for j in range(i + 1, len(R))
        if not {i, j} & set(skip)
    }


@pytest.mark.parametrize('told', [15.0, 500.0])
def test_overlapping_views_become_exact_with_and_without_a_prior(told):
    rng = np.random.default_rng(0)
    R, t = ring(4)
    prior = noisy_prior(R, t, 15.0, rng, told)
    found = solve(prior, all_pairs(R, t, cloud(rng), rng), t)
    assert relative_errors(found.R, R).max() < 0.5
    assert found.sure.all() and (found.matches > 50).all()
    centres, true = (-np.einsum('nji,nj->ni', r, x) for r, x in ((found.R, found.t), (R, t)))
    # the object's place is the prior's; the shape of the set is the matches'
    shape, expected = (np.linalg.norm(x - x.mean(0), axis=1) for x in (centres, true))
    assert shape / shape.sum() == pytest.approx(expected / expected.sum(), abs=5e-3)
    assert np.linalg.norm(found.t[0]) == pytest.approx(1)


def test_two_views_only():
    rng = np.random.default_rng(1)
    R, t = ring(2, 40)
    prior = noisy_prior(R, t, 15.0, rng)
    found = solve(prior, all_pairs(R, t, cloud(rng), rng), t)
    assert relative_errors(found.R, R).max() < 1
    assert found.pairs.tolist() == [[0, 1]]


def test_centres_are_off_by_what_is_told():
    told, errors = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        R, t = ring(5)
        found = solve(noisy_prior(R, t, 15.0, rng), all_pairs(R, t, cloud(rng), rng), t)
        centres, true = (
            (c - c[0]) @ r[0].T
            for r, c in (
                (r, -np.einsum('nji,nj->ni', r, x)) for r, x in ((found.R, found.t), (R, t))
            )
        )
        true *= (centres * true).sum() / (true * true).sum()
        errors.append(np.linalg.norm(centres - true, axis=1)[1:])
        told.append(found.centre_sigma[1:])
    ratio = np.square(np.concatenate(errors) / np.concatenate(told)).mean() ** 0.5
    assert 0.2 < ratio < 1.2  # they are told twice of what they are, for what is no noise
    assert np.median(told) < 0.02


def test_without_matches_the_model_is_returned_as_it_was():
    rng = np.random.default_rng(2)
    R, t = ring(3)
    prior = noisy_prior(R, t, 15.0, rng)
    for matches in ({}, {(0, 1): see(R, t, 0, 1, cloud(rng, 30), rng, wrong=1.0)}):
        found = solve(prior, matches, t)
        assert np.array_equal(found.R, prior.R)
        assert not found.sure.any() and len(found.pairs) == 0
        assert np.array_equal(found.rotation_sigma, prior.rotation_sigma)


def test_a_view_without_matches_stays_where_the_model_put_it():
    rng = np.random.default_rng(3)
    R, t = ring(4)
    prior = noisy_prior(R, t, 8.0, rng)
    found = solve(prior, all_pairs(R, t, cloud(rng), rng, skip={3}), t)
    errors = relative_errors(found.R, R)
    assert errors[:2].max() < 0.5
    assert errors[2] < relative_errors(prior.R, R)[2] + 8
    assert found.sure.tolist() == [True, True, True, False]
    assert found.rotation_sigma[3] > 5 * found.rotation_sigma[2]


def test_pure_rotation_gives_the_rotation_and_leaves_the_centre_to_the_prior():
    rng = np.random.default_rng(4)
    R, t = ring(2, 0)
    turn = rotation_from_vector(np.radians([0.0, 12.0, 3.0]))
    R, t = np.stack([R[0], turn @ R[0]]), np.stack([t[0], turn @ t[0]])
    prior = noisy_prior(R, t, 5.0, rng, told_deg=15.0)
    far = np.array([0.0, 0.0, 1.0]) + rng.normal(size=(150, 3)) * [2.0, 2.0, 0.5]
    found = solve(prior, all_pairs(R, t, far, rng), t)
    assert relative_errors(found.R, R).max() < 2
    assert np.isfinite(found.t).all()
    assert found.centre_sigma[1] > 0.02


def table_top(rng, count=120, tilt_deg=35.0):
    flat = rng.uniform(-0.4, 0.4, (count, 3)) * [1.0, 0.0, 1.0] + [0.0, 0.1, 0.0]
    return flat @ rotation_from_vector(np.array([np.radians(tilt_deg), 0.0, 0.0])).T


@pytest.mark.parametrize('solver', ['opencv', 'poselib'])
def test_a_planar_scene(solver, monkeypatch):
    if solver == 'poselib':
        pytest.importorskip('poselib')
    monkeypatch.setattr('ray_pose_ros.multiview.essential.default_solver', lambda: solver)
    rng = np.random.default_rng(5)
    R, t = ring(3, 25)
    prior = noisy_prior(R, t, 12.0, rng)
    found = solve(prior, all_pairs(R, t, table_top(rng), rng), t)
    assert relative_errors(found.R, R).max() < 3


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_both_meanings_of_a_plane_are_found_and_the_prior_chooses(seed):
    rng = np.random.default_rng(seed)
    R, t = ring(2, rng.uniform(25, 60))
    matches = see(R, t, 0, 1, table_top(rng), rng, 0.2)
    relative = R[1] @ R[0].T
    poses = planar_poses(matches, 2.5)
    scores = [support(*pose, matches, 2.5)[0] for pose in poses]
    # the other meaning explains less where the cameras see the plane in perspective
    fitting = [pose for pose, s in zip(poses, scores, strict=True) if s > 0.66 * max(scores)]
    off = sorted(np.degrees(angle_between(found, relative)) for found, _ in fitting)
    assert off[0] < 2 and off[-1] > 10  # the matches do not say which of these is true
    for other, _ in fitting:
        believed = np.stack([np.eye(3), other])
        prior = noisy_prior(believed, t, 5.0, rng)
        solved = solve(prior, {(0, 1): matches}, t)
        assert relative_errors(solved.R, believed).max() < 3


def test_no_plane_no_planar_poses():
    rng = np.random.default_rng(8)
    R, t = ring(2, 40)
    assert planar_poses(see(R, t, 0, 1, cloud(rng, 7), rng), 2.5) == []
    lost = see(R, t, 0, 1, cloud(rng, 60), rng, 1.0)
    for pose in planar_poses(lost, 2.5):  # some plane through a few of them
        assert support(*pose, lost, 2.5)[0] < 20
    turned = see(R[[0, 0]], t[[0, 0]], 0, 1, cloud(rng, 60), rng)  # the same place
    for found, move in planar_poses(turned, 2.5):
        assert np.degrees(angle_between(found, np.eye(3))) < 2 and np.isfinite(move).all()


def test_a_look_alike_that_few_matches_tell_does_not_move_the_model():
    # a third of the matches along the grain of a table agree on a pose that is 50 degrees wrong
    rng = np.random.default_rng(11)
    R, t = ring(2, 70)
    false_R, false_t = ring(2, 20)
    grain = see(false_R, false_t, 0, 1, cloud(rng, 30), rng)
    lost = see(R, t, 0, 1, cloud(rng, 60), rng, 1.0)
    both = grain.and_also(lost)
    prior = noisy_prior(R, t, 12.0, rng, told_deg=35.0)
    solved = solve(prior, {(0, 1): both}, t)
    assert relative_errors(solved.R, prior.R).max() < 1
    assert not solved.sure.any()


def test_hypotheses_on_the_same_matches_are_rivals():
    rng = np.random.default_rng(1)
    R, t = ring(2, 50)
    matches = see(R, t, 0, 1, table_top(rng), rng, 0.2)
    nothing = noisy_prior(R, t, 5.0, rng, told_deg=500.0)
    first, second, *_ = hypotheses(matches, nothing, 0, 1, search(matches))
    assert relative_errors(np.stack([np.eye(3), first.R]), R).max() < 2
    assert 0.4 * len(matches) < second.support < first.support  # the plane's other meaning
    apart = 2.5 * (first.support**0.5 - second.support**0.5)
    assert first.evidence - second.evidence == pytest.approx(apart, abs=1e-6)
    assert log_odds(first.support, len(matches), first.misfit) > 0 > log_odds(15.0, 100, 0.0)


def test_duplicate_images():
    rng = np.random.default_rng(6)
    R, t = ring(3)
    R, t = R[[0, 1, 1]], t[[0, 1, 1]]
    prior = noisy_prior(R, t, 15.0, rng)
    found = solve(prior, all_pairs(R, t, cloud(rng), rng, wrong=0.0), t)
    assert relative_errors(found.R, R).max() < 1
    assert np.isfinite(found.rotation_sigma).all() and (found.rotation_sigma > 0).all()


def test_the_prior_sees_through_a_look_alike_side():
    # more matches say that the second camera stands where it does not
    rng = np.random.default_rng(7)
    R, t = ring(2, 50)
    false_R, false_t = ring(2, -90)
    right = see(R, t, 0, 1, cloud(rng, 40), rng)
    false = see(false_R, false_t, 0, 1, cloud(rng, 60), rng)
    both = right.and_also(false)
    informed = solve(noisy_prior(R, t, 12.0, rng), {(0, 1): both}, t)
    assert relative_errors(informed.R, R)[0] < 2
    fooled = solve(noisy_prior(R, t, 12.0, rng, told_deg=500.0), {(0, 1): both}, t)
    assert relative_errors(fooled.R, R)[0] > 90


def sure_and_wrong(R, t, seed):
    """A prior that is 60 degrees off and says 10, and matches of neighbours on a ring."""
    rng = np.random.default_rng(seed)
    prior = noisy_prior(R, t, 60.0, rng, told_deg=10.0)
    return prior, {(i, i + 1): see(R, t, i, i + 1, cloud(rng, 80), rng) for i in range(len(R) - 1)}


def searched(matches):
    return {pair: search(m) for pair, m in matches.items()}


def test_matches_unmask_a_prior_that_is_sure_and_wrong():
    R, t = ring(5)
    prior, matches = sure_and_wrong(R, t, 21)
    believed, looking = trusted(prior, matches, 3 * t, searched(matches))
    assert believed.rotation_sigma.min() > 5
    assert looking == pytest.approx(unit(t), abs=0.01)
    found = solve(prior, matches, t)
    assert relative_errors(found.R, R).max() < 3


def test_a_prior_that_is_as_good_as_it_says_is_trusted():
    R, t = ring(5)
    _, matches = sure_and_wrong(R, t, 22)
    for seed in range(5):
        prior = noisy_prior(R, t, 12.0, np.random.default_rng(seed))
        believed, looking = trusted(prior, matches, t, searched(matches))
        assert believed.rotation_sigma.max() < 2 * np.radians(12.0)
        assert looking is t
    nothing = {pair: m.take(np.arange(0)) for pair, m in matches.items()}
    assert trusted(prior, nothing, t, searched(nothing))[0] is prior


def test_the_mode_that_matches_support_wins():
    rng = np.random.default_rng(8)
    R, t = ring(3, 40)
    flipped = R.copy()
    flipped[2] = flipped[2] @ rotation_from_vector(np.array([0.0, np.pi, 0.0]))
    prior = noisy_prior(flipped, t, 5.0, rng, told_deg=60.0)
    sample = noisy_prior(R, t, 8.0, rng).R
    prior = type(prior)(
        prior.R, prior.centres, prior.rotation_sigma, prior.centre_sigma, sample[None]
    )
    matches = {(1, 2): see(R, t, 1, 2, cloud(rng, 30), rng, 0.3)}
    found = solve(prior, matches, t)
    turned = angle_between(found.R[2] @ found.R[1].T, R[2] @ R[1].T)
    assert np.degrees(turned) < 3


@pytest.mark.parametrize('solver', ['opencv', 'poselib'])
def test_essential_poses_of_rays_beyond_the_image_plane(solver):
    if solver == 'poselib':
        pytest.importorskip('poselib')
    rng = np.random.default_rng(9)
    R, t = ring(2, 40)
    # cameras turned away: the rays point backwards in their frames
    away = rotation_from_vector(np.array([0.0, np.radians(170.0), 0.0]))
    R, t = away @ R, t @ away.T
    matches = see(R, t, 0, 1, cloud(rng, 120), rng, 0.3)
    ((found, move),) = essential_poses(matches, 2.5, solver=solver)
    relative = R[1] @ R[0].T
    assert np.degrees(angle_between(found, relative)) < 3
    expected = unit(t[1] - relative @ t[0])
    assert move @ expected > 0.99


def test_epipolar_errors_are_angles_and_their_jacobian_is_right():
    rng = np.random.default_rng(10)
    R, t = ring(2, 50)
    relative = R[1] @ R[0].T
    move = unit(t[1] - relative @ t[0])
    m = see(R, t, 0, 1, cloud(rng, 400), rng)
    e, turn, shift, ahead = epipolar_terms(relative, move, m.a.T, m.b.T)
    assert np.array_equal(ahead, np.minimum(*depths(relative, move, m.a, m.b)) > 0)
    assert ahead.mean() > 0.9
    assert e == pytest.approx(epipolar_errors(relative, move, m.a, m.b), abs=1e-12)
    assert e.std() == pytest.approx(1e-3 / 2**0.5, rel=0.15)
    step = 1e-6
    for k in range(3):
        w = np.zeros(3)
        w[k] = step
        turned = epipolar_errors(rotation_from_vector(w) @ relative, move, m.a, m.b)
        assert (turned - e) / step == pytest.approx(turn[k], abs=1e-4)
        moved = epipolar_errors(relative, move + w, m.a, m.b)
        assert (moved - e) / step == pytest.approx(shift[k], abs=1e-4)


def test_refined_poses_tell_what_matches_leave_open():
    rng = np.random.default_rng(11)
    R, t = ring(2, 40)
    relative = R[1] @ R[0].T
    move = unit(t[1] - relative @ t[0])
    start = rotation_from_vector(np.radians([[1.0, -1, 1], [-1, 0, 1]])) @ relative
    few = see(R, t, 0, 1, cloud(rng, 12, 0.05), rng)
    many = see(R, t, 0, 1, cloud(rng, 60, 0.2), rng)
    few, many = (refine_poses(start, np.stack([move, move]), m, 2.5) for m in (few, many))
    assert np.degrees(angle_between(many[0], relative)).max() < 1
    assert (np.trace(few[2][0]) > 5 * np.trace(many[2], axis1=1, axis2=2)).all()


def test_poses_are_refined_each_for_itself():
    rng = np.random.default_rng(13)
    R, t = ring(2, 50)
    matches = see(R, t, 0, 1, cloud(rng, 40, 0.2), rng)
    starts = rotation_from_vector(rng.normal(0, 0.4, (5, 3))) @ (R[1] @ R[0].T)
    moves = rng.normal(size=(5, 3))
    moves /= np.linalg.norm(moves, axis=1, keepdims=True)
    together = refine_poses(starts, moves, matches, 2.5)
    for k in range(5):
        alone = refine_poses(starts[k : k + 1], moves[k : k + 1], matches, 2.5)
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_[k], rtol=1e-6, atol=1e-9)


def test_adjust_ends_where_the_cost_is_least():
    rng = np.random.default_rng(12)
    R, t = ring(3)
    prior = noisy_prior(R, t, 10.0, rng)
    matches = all_pairs(R, t, cloud(rng), rng, wrong=0.2)
    problem = Problem(matches, prior.aligned(R), t)
    start = rotation_from_vector(rng.normal(size=(3, 3)) * 0.01) @ R
    found_R, found_t, information, _ = adjust(start, t, problem)
    centres = -np.einsum('nji,nj->ni', found_R, found_t)
    cost, normal, gradient = _linearise(found_R, centres, problem, 1.0)
    assert np.linalg.solve(normal, gradient) == pytest.approx(np.zeros(18), abs=2e-3)
    assert cost <= _linearise(R, -np.einsum('nji,nj->ni', R, t), problem, 1.0)[0]
    assert np.linalg.eigvalsh(information).min() > 0


def test_rotation_vectors_and_back():
    rng = np.random.default_rng(13)
    axes = unit(rng.normal(size=(50, 3)))
    for angle in (0.0, 1e-9, 1e-4, 1.0, 3.0, np.pi - 1e-9, np.pi):
        R = rotation_from_vector(axes * angle)
        back = rotation_from_vector(vector_from_rotation(R))
        assert np.abs(back - R).max() < 1e-6
        assert angle_between(R, np.eye(3)) == pytest.approx(np.full(50, angle), abs=1e-6)


def test_cameras_at_almost_one_place_have_a_covariance():
    R, t = ring(2)
    points = np.random.default_rng(3).normal(size=(60, 3)) * 0.3
    matches = {(0, 1): see(R, t, 0, 1, points, np.random.default_rng(4))}
    R = rotation_from_vector(np.radians([[0.0, 0.0, 0.0], [3.0, 8.0, -2.0]]))
    together = -np.einsum('nij,j->ni', R, [0.0, 0.0, -1.0])
    prior = noisy_prior(R, together, 1.0, np.random.default_rng(5))
    problem = Problem(matches, prior, together)
    centres = np.array([[0.0, 0.0, -1.0], [1e-12, 0.0, -1.0]])
    _, information, _ = _linearise(R, centres, problem, 1.0)
    assert np.linalg.cond(information) < 1e14
    rotation, centre = deviations(R, information)
    assert np.isfinite(rotation).all() and np.isfinite(centre).all() and (centre > 0).all()
