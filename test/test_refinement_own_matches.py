"""The network's own matches in refinement, and how they are counted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from refinement_fixtures import noisy_prior, relative_errors, ring, see, unit

from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.multiview.links import weakest_links
from ray_pose_ros.multiview.residuals import LIMIT
from ray_pose_ros.multiview.two_view import MOST_MATCHES, agreement_nats
from ray_pose_ros.refinement.certainty import strengths
from ray_pose_ros.refinement.hypotheses import judge
from ray_pose_ros.refinement.refine import solve


def cloud(rng, count=60):
    return rng.normal(size=(count, 3)) * 0.25


def coarse(matches, weight=0.2):
    """As the network tells them: ten times less exact, weighed."""
    return replace(matches, sigma=10 * matches.sigma, weight=np.full(len(matches), weight))


def pose(R, t, i, j):
    relative = R[j] @ R[i].T
    return relative, unit(t[j] - relative @ t[i])


def test_matches_that_agree_exactly_are_worth_most():
    rng = np.random.default_rng(0)
    R, t = ring(2, 40)
    m = coarse(see(R, t, 0, 1, cloud(rng), rng), 0.5)
    right = agreement_nats(*pose(R, t, 0, 1), m, LIMIT)
    most = 0.5 * LIMIT**2 * 0.5 * len(m)
    assert 0.9 * most < right <= most
    relative, move = pose(R, t, 0, 1)
    wrong = rotation_from_vector(np.array([0, 1.0, 0])) @ relative
    both = agreement_nats(np.stack([relative, wrong]), np.stack([move, move]), m, LIMIT)
    assert both.shape == (2,)
    assert both[0] == pytest.approx(right) and both[1] < 0.3 * right


def test_many_matches_are_worth_no_more_than_the_most():
    rng = np.random.default_rng(1)
    R, t = ring(2, 40)
    m = replace(coarse(see(R, t, 0, 1, cloud(rng, 400), rng)), weight=None)
    worth = agreement_nats(*pose(R, t, 0, 1), m, LIMIT)
    assert worth == pytest.approx(0.5 * LIMIT**2 * MOST_MATCHES, rel=0.1)


def test_the_weakest_link_on_the_strongest_way():
    links = np.zeros((5, 5))
    for i, j, strength in ((0, 1, 9), (1, 2, 7), (0, 2, 2), (2, 3, 4)):
        links[i, j] = links[j, i] = strength
    assert weakest_links(links).tolist() == [9, 9, 7, 4, 0]


def test_what_closes_a_ring_is_stronger_for_it():
    def chosen(pairs):
        return {pair: SimpleNamespace(belief=belief) for pair, belief in pairs.items()}

    chain = {(0, 1): 5.0, (1, 2): 4.0, (2, 3): 6.0, (3, 4): 5.0}
    assert strengths(chosen(chain), 5).tolist() == [5, 5, 4, 4, 4]
    # each is worth the weakest of the others, too
    assert strengths(chosen(chain | {(0, 4): 3.0}), 5).tolist() == [8, 8, 7, 7, 7]
    # or the triangles together, where they are worth more than the ring
    two = {(0, 1): 5.0, (1, 2): 4.0, (0, 2): 2.0, (0, 3): 3.0, (1, 3): 3.0}
    assert strengths(chosen(two), 4)[1] == 5 + 2 + 3
    # what is not believed confirms nothing
    assert strengths(chosen(chain | {(0, 4): -1.0}), 5).tolist() == [5, 5, 4, 4, 4]


def test_a_pose_loses_where_the_networks_own_matches_are_not_explained():
    rng = np.random.default_rng(2)
    R, t = ring(2, 40)
    prior = noisy_prior(R, t, 1e-3, rng, told_deg=40.0)
    features = see(R, t, 0, 1, cloud(rng, 20), rng)
    own = {(0, 1): coarse(see(R, t, 0, 1, cloud(rng), rng))}
    relative, move = pose(R, t, 0, 1)
    wrong = rotation_from_vector(np.radians([0, 25.0, 0])) @ relative
    covariance = np.eye(3) * 1e-4
    for R_pair, loses in ((relative, False), (wrong, True)):
        arguments = R_pair[None], move[None], covariance[None], features
        (alone,) = judge(*arguments, prior, 0, 1)
        (held,) = judge(*arguments, replace(prior, matches=own), 0, 1)
        assert (held.belief < alone.belief - 1) == loses
        assert held.evidence == alone.evidence
        assert held.belief <= alone.belief


def test_own_matches_hold_a_view_that_no_features_join():
    rng = np.random.default_rng(3)
    R, t = ring(4)
    prior = noisy_prior(R, t, 12.0, rng)
    every = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    features = {(i, j): see(R, t, i, j, cloud(rng), rng) for i, j in every if j < 3}
    own = {(i, j): coarse(see(R, t, i, j, cloud(rng), rng)) for i, j in every}
    alone = solve(prior, features, t)
    held = solve(replace(prior, matches=own), features, t)
    assert relative_errors(held.R, R)[:2].max() < 0.5
    assert relative_errors(held.R, R)[2] < 0.5 * relative_errors(alone.R, R)[2]
    assert not held.sure[3]


def test_exact_matches_are_not_led_astray_by_the_networks():
    rng = np.random.default_rng(4)
    R, t = ring(4)
    prior = noisy_prior(R, t, 12.0, rng)
    wrong = rotation_from_vector(np.radians(rng.normal(size=(4, 3)) * 40)) @ R
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    features = {(i, j): see(R, t, i, j, cloud(rng), rng) for i, j in pairs}
    own = {(i, j): coarse(see(wrong, t, i, j, cloud(rng), rng)) for i, j in pairs}
    found = solve(replace(prior, matches=own), features, t)
    assert relative_errors(found.R, R).max() < 1
    assert angle_between(found.R[0], np.eye(3)) < 1e-6
