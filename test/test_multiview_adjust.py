"""Cameras adjusted to matches: many starts at once, and the derivatives that lead downhill."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refinement_fixtures import noisy_prior, ring, see

from ray_pose_ros.geometry.so3 import camera_centres, rotation_from_vector
from ray_pose_ros.multiview.adjust import _linearise, adjust, adjust_each
from ray_pose_ros.multiview.links import pair_support
from ray_pose_ros.multiview.residuals import LIMIT, Problem
from ray_pose_ros.multiview.table import Table
from ray_pose_ros.multiview.two_view import agreement_nats, epipolar_terms


def scene(seed, views=4, counts=(7, 90)):
    """True cameras and a problem: all pairs have matches, as many as there are between `counts`, a
    fifth of them wrong, with weights."""
    rng = np.random.default_rng(seed)
    R, t = ring(views)
    matches = {}
    for i in range(views):
        for j in range(i + 1, views):
            points = rng.normal(size=(rng.integers(*counts), 3)) * 0.25
            m = see(R, t, i, j, points, rng, 0.2)
            weight = rng.uniform(0.1, 1, len(m))
            matches[i, j] = type(m)(m.a, m.b, 5 * m.sigma, m.centre_a, m.centre_b, weight)
    return R, t, Problem(matches, noisy_prior(R, t, 10.0, rng), t)


def starts_near(R, count, seed, rms=0.2):
    turns = np.random.default_rng(seed).normal(size=(count, len(R), 3)) * rms
    return rotation_from_vector(turns) @ R


@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.0, 0.5), st.sampled_from([1.0, 2.0]))
def test_the_gradient_is_that_of_the_cost(seed, views, off, widen):
    R, t, problem = scene(seed, views)
    rng = np.random.default_rng(seed)
    R = rotation_from_vector(rng.normal(size=(views, 3)) * off) @ R
    centres = camera_centres(R, t) + rng.normal(size=(views, 3)) * 0.1
    direction = rng.normal(size=(views, 6))
    step = 1e-6
    both = np.array([-step, step])[:, None, None] * direction
    moved = rotation_from_vector(both[..., :3]) @ R, centres + both[..., 3:]
    cost = _linearise(*moved, problem, np.full(2, widen))[0]
    _, _, (downhill,) = _linearise(R[None], centres[None], problem, np.array([widen]))
    slope = (cost[1] - cost[0]) / (2 * step)
    assert slope == pytest.approx(-downhill @ direction.ravel(), rel=2e-3, abs=0.05)


def test_curvature_is_that_of_small_errors():
    """Where all matches are right, the normal matrix is the sum of their squared derivatives."""
    rng = np.random.default_rng(0)
    R, t = ring(2, 40)
    m = see(R, t, 0, 1, rng.normal(size=(41, 3)) * 0.25, rng)
    problem = Problem({(0, 1): m}, noisy_prior(R, t, 5.0, rng), t)
    centres = camera_centres(R, t)
    _, (with_matches,), _ = _linearise(R[None], centres[None], problem, np.full(1, 1e6))
    alone = Problem({}, problem.prior, t)
    _, (without,), _ = _linearise(R[None], centres[None], alone, np.full(1, 1e6))
    relative, move = R[1] @ R[0].T, t[1] - R[1] @ R[0].T @ t[0]
    length = np.linalg.norm(move)
    found = epipolar_terms(relative, move / length, m.a.T, m.b.T)
    # a turn of the second camera turns the pair's R and t, a move of the first moves its t
    by_turn = found.turn + np.cross((move / length)[:, None], found.move, axis=0)
    by_move = R[1].T @ found.move / length
    J = np.concatenate([by_move, by_turn])
    of_both = np.r_[3:6, 6:9]
    expected = (J / m.sigma**2) @ J.T
    measured = (with_matches - without)[np.ix_(of_both, of_both)]
    assert measured == pytest.approx(expected, rel=0.02, abs=0.02 * np.abs(expected).max())


@pytest.mark.parametrize('count', [1, 3, 8, 11])
def test_starts_are_adjusted_each_for_itself(count):
    R, t, problem = scene(1)
    starts = starts_near(R, count, 2)
    together = adjust_each(starts, t, problem)
    assert len(together) == count
    for start, found in zip(starts, together, strict=True):
        alone = adjust(start, t, problem)
        assert found.cost == pytest.approx(alone.cost, rel=1e-6)
        np.testing.assert_allclose(found.R, alone.R, atol=1e-5)
        np.testing.assert_allclose(found.information, alone.information, rtol=1e-3, atol=1.0)


def test_what_is_started_from_stays_as_it_is():
    R, t, problem = scene(2)
    start, told = starts_near(problem.prior.R, 1, 3), problem.prior.R.copy()
    before = start.copy(), t.copy()
    found = adjust_each(start, t, problem)[0]
    adjust(problem.prior.R, t, problem)  # as is usual, from where the prior has them
    assert not np.allclose(found.R, start[0])
    assert np.array_equal(start, before[0]) and np.array_equal(t, before[1])
    assert np.array_equal(problem.prior.R, told)


def test_adjusting_ends_at_the_truth_and_where_no_step_is_downhill():
    R, t, problem = scene(3, views=5)
    for found in adjust_each(starts_near(R, 6, 4, 0.05), t, problem):
        centres = camera_centres(found.R, found.t)
        _, (normal,), (downhill,) = _linearise(found.R[None], centres[None], problem, np.ones(1))
        assert np.abs(np.linalg.solve(normal, downhill)).max() < 2e-3
        turned = found.R @ found.R[0].T
        assert np.degrees(np.arccos((np.trace(turned[1] @ R[1].T) - 1) / 2)) < 1


@given(st.integers(0, 1000))
def test_support_is_that_of_each_pair_by_itself(seed):
    R, t, problem = scene(seed, 3, (7, 200))
    R = starts_near(R, 1, seed, 0.05)[0]
    support = pair_support(R, t, problem)
    assert np.array_equal(support, support.T) and not support.diagonal().any()
    for (i, j), m in problem.matches.items():
        relative = R[j] @ R[i].T
        move = t[j] - relative @ t[i]
        alone = agreement_nats(relative, move / np.linalg.norm(move), m, LIMIT)
        assert support[i, j] == pytest.approx(alone, rel=1e-9)


def test_the_table_has_each_match_once():
    R, t, problem = scene(5, 3)
    matches = {**problem.matches, (0, 2): problem.matches[0, 2].take(np.arange(0))}
    table = Table(matches)
    assert len(table) == 2  # one pair has none
    weights = [m.weight.sum() for m in matches.values() if len(m)]
    assert table.total == pytest.approx(weights)
    assert table.sums(table.weight)[:, 0] == pytest.approx(weights)


def test_without_matches_the_prior_decides():
    R, t, problem = scene(6)
    alone = Problem({}, problem.prior, t)
    (found,) = adjust_each(starts_near(problem.prior.R, 1, 7, 0.1), t, alone)
    np.testing.assert_allclose(found.R, problem.prior.R, atol=1e-3)
