"""Metrics against the official code's values, closed forms, and what a failed camera costs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ray_pose_ros.evaluation.calibration import calibration, gaussian_coverage
from ray_pose_ros.evaluation.figures import overlap_table
from ray_pose_ros.evaluation.methods import Answer
from ray_pose_ros.evaluation.metrics import (
    MISSED,
    SolveErrors,
    area_under,
    by_angle,
    curve,
    overlapping,
    solve_errors,
    summary,
)
from ray_pose_ros.evaluation.statistics import bootstrap, spread
from ray_pose_ros.geometry.pytorch3d import cameras_p3d_to_opencv
from ray_pose_ros.geometry.rotations import random_rotations

GOLDEN = Path(__file__).parent / 'data' / 'geometry' / 'eval_metrics.npz'


def turn(axis, degrees):
    """Rotation (3, 3) about an axis."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(np.radians(degrees) * cross).numpy()


def ring(views, step=40.0):
    """Cameras on a circle about the origin that look at it, `step` degrees apart."""
    R = np.stack([turn([0, 1, 0], step * i) for i in range(views)])
    return R, np.tile([0.0, 0.0, 3.0], (views, 1))


def centres(R, t):
    return -np.einsum('nji,nj->ni', R, t)


def errors_of(R, t, R_true, t_true, placed=None, **more):
    placed = np.ones(len(R), dtype=bool) if placed is None else np.asarray(placed)
    answer = Answer(R, t, placed, **more)
    return solve_errors(answer, R_true, t_true, centres(R_true, t_true))


def test_rotation_and_centre_errors_are_those_of_the_official_code():
    with np.load(GOLDEN) as g:
        R, t = cameras_p3d_to_opencv(*(torch.from_numpy(g[k]) for k in ('R_pred', 'T_pred')))
        true = cameras_p3d_to_opencv(*(torch.from_numpy(g[k]) for k in ('R_gt', 'T_gt')))
        errors = errors_of(R.numpy(), t.numpy(), *(x.numpy() for x in true))
        # its angles are arccos of a float32 trace
        np.testing.assert_allclose(errors.rotation, g['R_error'], atol=2e-3)
        np.testing.assert_allclose(errors.centre, g['CC_error'], rtol=1e-4)
        found = summary([errors])
        assert found['R@15'] == pytest.approx((g['R_error'] < 15).mean())
        assert found['CC@0.1'] == pytest.approx((g['CC_error'] < 0.1).mean())


def test_any_similarity_of_the_truth_has_no_error():
    R, t = ring(5)
    Q = random_rotations(1, torch.Generator().manual_seed(1))[0].double().numpy()
    moved = R @ Q.T, 2 * (t - np.einsum('nij,j->ni', R @ Q.T, [0.3, -1.0, 0.5]))
    errors = errors_of(*moved, R, t)
    found = summary([errors])
    assert found['R@5'] == found['CC@0.1'] == found['RTA@5'] == 1
    assert found['AUC@30'] == 1 and found['p90'] < 1e-4 and found['translation_p90'] < 1e-4
    assert found['pairs'] == 20


def test_an_error_of_known_size_is_found_in_the_right_pairs():
    R, t = ring(3)
    wrong = R.copy()
    # about its own centre, by 20 degrees
    wrong[2] = turn([1, 0, 0], 20) @ R[2]
    t_wrong = t.copy()
    t_wrong[2] = -wrong[2] @ centres(R, t)[2]
    errors = errors_of(wrong, t_wrong, R, t)
    pairs = [(1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2)]
    expected = [20.0 * (2 in pair) for pair in pairs]
    np.testing.assert_allclose(errors.rotation, expected, atol=1e-6)
    np.testing.assert_allclose(errors.centre, 0, atol=1e-9)
    # seen from the turned camera the others are elsewhere; seen from the others it is not
    assert [error > 1 for error in errors.translation] == [False] * 4 + [True] * 2
    np.testing.assert_allclose(errors.angle, [40, 80, 40, 40, 80, 40], atol=1e-6)
    found = summary([errors])
    assert found['R@15'] == pytest.approx(2 / 6) and found['R@30'] == 1
    # pairs (2, 0) and (2, 1) are right from 21 degrees on, at 10 of 30 thresholds
    worse = np.maximum(errors.rotation, errors.translation)
    by_hand = np.mean([(worse < x).mean() for x in range(1, 31)])
    assert found['AUC@30'] == pytest.approx(by_hand)


def test_area_under_the_curve_in_closed_form():
    assert area_under(np.array([0.5]), 30) == 1
    assert area_under(np.array([30.0]), 30) == 0
    assert area_under(np.array([14.5, 200.0]), 30) == pytest.approx(0.5 * 16 / 30)


def test_the_direction_of_a_translation_has_no_sign():
    R, t = np.tile(np.eye(3), (2, 1, 1)), np.array([[0, 0, 0.0], [1, 0, 0]])
    assert errors_of(R, -t, R, t).translation == pytest.approx([0, 0])
    across = errors_of(R, np.array([[0, 0, 0.0], [0, 1, 0]]), R, t).translation
    assert across == pytest.approx([90, 90])


def test_centres_that_coincide_have_no_direction():
    R, t = ring(3)
    same = np.tile(np.eye(3), (3, 1, 1)), np.tile([0.0, 0, 1], (3, 1))
    assert errors_of(*same, R, t).translation == pytest.approx([90] * 6)
    still = np.stack([turn([0, 1, 0], a) for a in (0, 20, 40)]), np.zeros((3, 3))
    still[1][2] = [0, 0, 5.0]
    errors = errors_of(*still, *still)
    assert np.isnan(errors.translation).sum() == 2
    assert summary([errors])['RTA@5'] == 1


def test_a_view_that_is_not_placed_is_wrong_in_all_its_pairs():
    R, t = ring(4)
    broken = R.copy()
    broken[1] = np.nan
    errors = errors_of(broken, t, R, t, placed=[True, False, True, True])
    assert sum(error == 180 for error in errors.rotation) == 6
    assert sum(error == 90 for error in errors.translation) == 6
    assert errors.centre[1] == MISSED and max(np.delete(errors.centre, 1)) < 1e-6
    found = summary([errors])
    assert found['R@15'] == 0.5 and found['CC@0.1'] == 0.75
    assert found['placed'] == 0.75 and found['all_placed'] == 0 and found['sure'] == 0.5


def test_two_placed_views_of_more_give_no_centres():
    R, t = ring(4)
    errors = errors_of(R, t, R, t, placed=[True, True, False, False])
    assert errors.centre == [MISSED] * 4
    assert summary([errors])['R@5'] == pytest.approx(2 / 12)
    two = errors_of(R[:2], t[:2], R[:2], t[:2])
    assert max(two.centre) < 1e-9
    nothing = solve_errors(Answer.nothing(4), R, t, centres(R, t), failure='it broke')
    found = summary([nothing])
    assert found['R@30'] == found['CC@0.2'] == found['placed'] == 0 and found['failures'] == 1


def test_an_answer_of_another_shape_or_not_finite_is_refused():
    R, t = ring(3)
    with pytest.raises(ValueError, match='3 views has R, t, placed'):
        errors_of(R[:2], t[:2], R, t)
    broken = t.copy()
    broken[0] = np.inf
    with pytest.raises(ValueError, match='not finite'):
        errors_of(R, broken, R, t)


def test_pairs_are_claimed_by_two_sigma():
    R, t = ring(3)
    wrong = R.copy()
    wrong[2] = turn([0, 0, 1], 30) @ R[2]
    sigma = np.radians([1.0, 5.0, 6.0])  # 2 hypot: 10.2, 12.2 and 15.6 degrees
    found = summary([errors_of(wrong, t, R, t, rotation_sigma=sigma)])
    assert found['sure'] == pytest.approx(4 / 6)
    assert found['confident_errors'] == pytest.approx(2 / 6)


def test_sigma_is_held_against_the_error_relative_to_the_first_placed_camera():
    R, t = ring(4)
    wrong = np.stack([turn([0, 0, 1], a) @ r for a, r in zip((5, 0, 3, 10), R)])
    sigma = np.radians([1.0, 2.0, 3.0, 4.0])
    errors = errors_of(wrong, t, R, t, placed=[False, True, True, True], rotation_sigma=sigma)
    np.testing.assert_allclose(np.degrees(errors.sigma), [3, 4])
    np.testing.assert_allclose(np.degrees(errors.off), [3, 10], atol=1e-6)


def test_focal_errors_of_estimated_intrinsics_only():
    R, t = ring(3)
    K = np.tile(np.diag([110.0, 110.0, 1.0]), (3, 1, 1))
    K[1] = np.nan
    answer = Answer(R, t, np.ones(3, dtype=bool), K=K)
    focal = np.array([100.0, 100.0, 220.0])
    errors = solve_errors(answer, R, t, centres(R, t), focal)
    assert errors.focal == pytest.approx([0.1, 0.5])
    assert summary([errors])['focal_median'] == pytest.approx(0.3)
    assert 'focal_median' not in summary([errors_of(R, t, R, t)])


def test_overlapping_pairs_are_those_of_three_views_that_are_joined():
    # 40 degrees apart: 0, 1, 2 overlap over one another; 4 and 5 are two only, and 7 is alone
    at = np.array([0, 40, 80, 160, 200, 280])
    R = np.stack([turn([0, 1, 0], a) for a in at])
    t = np.tile([0.0, 0.0, 3.0], (len(at), 1))
    wrong = R.copy()
    wrong[1] = R[1] @ turn([0, 0, 1], 2.0)  # pairs 0, 1 and 1, 2
    wrong[3:] = R[3:] @ turn([0, 0, 1], 170.0)
    errors = errors_of(wrong, t, R, t)
    found = overlapping([errors])
    assert found['pairs'] == 6 and found['R@5'] == found['R@15'] == 1.0
    assert found['median'] == pytest.approx(2.0)
    assert overlapping([errors, errors])['pairs'] == 12
    apart = errors_of(R[[0, 2, 3, 5]], t[:4], R[[0, 2, 3, 5]], t[:4])
    assert overlapping([apart]) == {}
    good = {'R@5': 1.0, 'R@15': 0.5, 'median': 1.5}
    rows = [
        {'data': 'a', 'views': 5, 'method': 'refined', 'overlapping': good},
        {'data': 'a', 'views': 2, 'method': 'refined', 'overlapping': {}},
    ]
    text = overlap_table(rows, data=False)
    assert '| 5 | refined | 100 % | 50 % | 1.5 deg |' in text and '| 2 |' not in text


def test_by_angle_and_curve_account_for_every_pair():
    R, t = ring(5)
    same = np.tile(np.eye(3), (5, 1, 1)), np.tile([0.0, 0, 1], (5, 1))
    errors = errors_of(*same, R, t)
    bins = by_angle([errors])
    assert {name: entry['pairs'] for name, entry in bins.items()} == {
        '30-45': 8,
        '60-90': 6,
        '90-120': 4,
        '120-180': 2,
    }
    assert all(entry['R@15'] == 0 for entry in bins.values())
    shares = curve([errors])
    assert shares == sorted(shares) and shares[-1] < 1


def test_stored_errors_come_back():
    R, t = ring(3)
    still = R, np.zeros((3, 3))
    still[1][2] = [0, 0, 5.0]
    errors = errors_of(*still, *still, rotation_sigma=np.full(3, 0.1))
    again = SolveErrors.from_dict(errors.as_dict())
    assert summary([again]) == pytest.approx(summary([errors]), abs=1e-4)
    assert again.as_dict() == errors.as_dict()


def draws_of(sigma, count=40000, factor=1.0, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 3)) * (factor * sigma / np.sqrt(3))[:, None]
    return np.linalg.norm(vectors, axis=1)


def test_calibration_of_what_is_told_rightly():
    sigma = np.random.default_rng(1).uniform(0.02, 0.3, 40000)
    found = calibration(sigma, draws_of(sigma))
    np.testing.assert_allclose(found['coverage'], gaussian_coverage(
        np.array([0.5, 1, 1.5, 2, 3])), atol=0.01)  # fmt: skip
    assert found['ratio'] == pytest.approx(1, abs=0.01) and found['ence'] < 0.03
    assert found['spearman'] > 0.6
    doubled = calibration(sigma, draws_of(sigma, factor=2.0))
    assert doubled['ratio'] == pytest.approx(2, abs=0.02)
    assert doubled['ence'] == pytest.approx(1, abs=0.05) and doubled['nll'] > found['nll']
    halved = calibration(sigma, draws_of(sigma, factor=0.5))
    assert halved['coverage'][1] > 0.97
    for factor in (0.8, 1.25):  # the likelihood is highest where sigma is right
        assert calibration(factor * sigma, draws_of(sigma))['nll'] > found['nll']


def test_sparsification_knows_a_perfect_order_and_a_useless_one():
    error = np.linspace(0.01, 1, 500)
    assert calibration(error, error)['ause'] == 0
    assert calibration(error, error)['spearman'] == pytest.approx(1)
    useless = calibration(1.01 - error, error)
    assert useless['ause'] > 0.4 and useless['spearman'] == pytest.approx(-1)
    assert calibration(error[:5], error[:5]) is None


def test_the_bootstrap_agrees_with_the_binomial_and_respects_sequences():
    R, t = ring(2)
    far = turn([0, 0, 1], 90) @ R[1]
    right, wrong = errors_of(R, t, R, t), errors_of(np.stack([R[0], far]), t, R, t)
    apart = spread(bootstrap([[right]] * 50 + [[wrong]] * 50))
    assert apart['se']['R@15'] == pytest.approx(0.05, abs=0.008)
    low, high = apart['ci95']['R@15']
    assert 0.35 < low < 0.5 < high < 0.65
    # the same answers in ten sequences of ten alike: a third of the certainty
    alike = spread(bootstrap([[right] * 10] * 5 + [[wrong] * 10] * 5))
    assert alike['se']['R@15'] == pytest.approx(0.158, abs=0.025)
    # of one sequence its sets are drawn
    one = spread(bootstrap([[right] * 50 + [wrong] * 50]))
    assert one['se']['R@15'] == pytest.approx(0.05, abs=0.008)
