"""Groups of cameras that hold each other at a wrong place are moved together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refinement_fixtures import noisy_prior, relative_errors, ring, see

from ray_pose_ros.geometry.so3 import rotation_from_vector
from ray_pose_ros.multiview.adjust import _linearise, adjust
from ray_pose_ros.multiview.links import groups, other_ways, pair_support, weakest_links
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.regroup import regrouped
from ray_pose_ros.multiview.residuals import SLOWLY, Problem, Table, costs

HALF_ROUND = np.diag([-1.0, 1.0, -1.0])


def scene(seed=0, views=6, between=15, within=60, wrong=0.3, told_deg=60.0):
    """True cameras in two groups, the first half and the second, few matches between them, and a
    problem whose prior has the second group half round the object."""
    rng = np.random.default_rng(seed)
    R, t = ring(views)
    guess = noisy_prior(R, t, 5.0, rng).R
    second = np.arange(views) >= views // 2
    guess[second] = guess[second] @ HALF_ROUND
    matches = {}
    for i in range(views):
        for j in range(i + 1, views):
            count = within if second[i] == second[j] else between
            points = rng.normal(size=(count, 3)) * 0.25
            matches[i, j] = see(R, t, i, j, points, rng, wrong)
    centres = -np.einsum('nji,nj->ni', guess, t)
    sigma = np.full(views, np.radians(told_deg))
    prior = Prior(guess, centres, sigma, sigma, np.zeros((0, views, 3, 3)))
    return R, t, guess, Problem(matches, prior, t)


@pytest.mark.parametrize('seed', range(4))
def test_a_group_at_the_wrong_side_is_brought_back(seed):
    R, t, guess, problem = scene(seed)
    stuck = adjust(guess, t, problem)
    assert relative_errors(stuck.R, R).max() > 90  # downhill alone does not get there
    found = regrouped(stuck, problem)
    assert found.cost < stuck.cost
    assert relative_errors(found.R, R).max() < 1


def test_cameras_that_are_right_stay_as_they_are():
    R, t, _, problem = scene(told_deg=180.0)
    right = adjust(R, t, problem)
    assert regrouped(right, problem) is right


def test_too_few_matches_move_nothing():
    _, t, guess, problem = scene()
    few = {pair: m.take(np.arange(5)) for pair, m in problem.matches.items()}
    problem = Problem(few, problem.prior, t)
    stuck = adjust(guess, t, problem)
    assert regrouped(stuck, problem) is stuck


def test_two_views_of_which_one_is_wrong():
    rng = np.random.default_rng(3)
    R, t = ring(2)
    matches = {(0, 1): see(R, t, 0, 1, rng.normal(size=(60, 3)) * 0.25, rng, 0.3)}
    prior = noisy_prior(R, t, 5.0, rng, told_deg=60.0)
    guess = prior.R.copy()
    guess[1] = guess[1] @ HALF_ROUND
    problem = Problem(matches, prior, t)
    assert relative_errors(regrouped(adjust(guess, t, problem), problem).R, R).max() < 1


def test_matches_that_weigh_little_are_not_asked():
    """Wrong matches, which all agree with one wrong pose but hardly weigh, lead nowhere."""
    R, t, _, problem = scene(told_deg=180.0)
    rng = np.random.default_rng(1)
    turned = R.copy()
    turned[3:] = turned[3:] @ HALF_ROUND
    spoiled = {}
    for (i, j), m in problem.matches.items():
        lie = see(turned, t, i, j, rng.normal(size=(100, 3)) * 0.25, rng)
        both = m.and_also(lie)
        weight = np.concatenate([np.ones(len(m)), np.full(len(lie), 1e-3)])
        spoiled[i, j] = type(m)(both.a, both.b, both.sigma, m.centre_a, m.centre_b, weight)
    problem = Problem(spoiled, problem.prior, t)
    right = adjust(R, t, problem)
    assert relative_errors(regrouped(right, problem).R, R).max() < 1


@given(st.integers(0, 10_000))
def test_costs_are_those_of_adjusting(seed):
    R, t, guess, problem = scene(seed % 3, views=4)
    turns = rotation_from_vector(np.random.default_rng(seed).normal(size=(3, 4, 3)) * 0.5)
    many = turns @ guess
    one_by_one = []
    for cameras in many:
        centres = -np.einsum('nji,nj->ni', cameras, t)
        one_by_one.append(_linearise(cameras, centres, problem, SLOWLY)[0])
    assert costs(many, t, problem) == pytest.approx(one_by_one, rel=1e-9)
    no_matches = Problem({}, problem.prior, t)
    assert costs(many, t, no_matches).shape == (3,)


@given(st.integers(0, 10_000))
def test_moving_a_group_costs_what_its_pairs_with_the_others_do(seed):
    _, t, guess, problem = scene(seed % 3, views=5)
    rng = np.random.default_rng(seed)
    group = np.zeros(5, bool)
    group[1 + rng.choice(4, 2, replace=False)] = True
    many = np.repeat(guess[None], 3, axis=0)
    many[:, group] = many[:, group] @ rotation_from_vector(rng.normal(size=(3, 1, 3)))
    table = problem.table
    across = group[table.i] != group[table.j]
    assert 0 < across.sum() < len(across)
    part = costs(many, t, problem, across) - costs(guess[None], t, problem, across)
    whole = costs(many, t, problem) - costs(guess[None], t, problem)
    assert part == pytest.approx(whole, rel=1e-6, abs=1e-6)


def test_a_part_of_a_table_is_the_table_of_a_part():
    *_, problem = scene(0, views=5)
    kept = np.arange(len(problem.table.i)) % 3 == 1
    pairs = list(problem.matches)
    alone = Table({pair: problem.matches[pair] for pair, k in zip(pairs, kept, strict=True) if k})
    part = problem.table.only(kept)
    for name in ('i', 'j', 'first', 'of', 'a', 'b', 'sigma', 'weight'):
        assert np.array_equal(getattr(part, name), getattr(alone, name)), name
    values = np.arange(len(part.sigma), dtype=float)[None]
    assert np.array_equal(part.products(values, values), alone.products(values, values))
    assert len(problem.table.only(np.zeros(len(kept), bool)).sigma) == 0


@given(st.integers(2, 9), st.integers(0, 10_000))
def test_groups_are_cuts_without_repetition(count, seed):
    links = np.random.default_rng(seed).random((count, count))
    links = links + links.T
    found = groups(links)
    assert all(g.any() and not g.all() for g in found)
    seen = {tuple(g) for g in found} | {tuple(~g) for g in found}
    assert len(seen) == 2 * len(found)
    # every view by itself, and N - 1 cuts of the tree, of which some are the same
    assert all(tuple(np.arange(count) == view) in seen for view in range(count))
    assert len(found) <= 2 * count - 1


@given(st.integers(2, 8), st.floats(0, 1), st.integers(0, 10_000))
def test_other_ways_are_those_without_the_own_link(count, missing, seed):
    rng = np.random.default_rng(seed)
    links = np.triu(rng.random((count, count)), 1)
    links[rng.random((count, count)) < missing] = 0
    links = np.where(links + links.T > 0, links + links.T, -np.inf)
    found = other_ways(links)
    for i in range(count):
        for j in range(i + 1, count):
            without = links.copy()
            without[i, j] = without[j, i] = -np.inf
            order = np.array([i, *(k for k in range(count) if k != i)])
            expected = weakest_links(without[np.ix_(order, order)])[list(order).index(j)]
            assert found[i, j] == found[j, i] == expected


def test_a_cut_parts_what_is_joined_weakly():
    R, t, *_, problem = scene(between=8)
    parted = groups(pair_support(R, t, problem.matches))
    assert any((g == (np.arange(6) >= 3)).all() for g in parted)
