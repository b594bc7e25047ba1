"""Which pairs of many views are matched."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from refinement_fixtures import CAMERA, estimate_of, noisy_prior, ring, see

from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector
from ray_pose_ros.refinement import refine as refining
from ray_pose_ros.refinement.pairing import Pairs
from ray_pose_ros.refinement.rounds import _NEAR, MANY, Rounds, some

EVERY = {(i, j) for j in range(24) for i in range(j)}


def degree(pairs, count):
    return np.bincount(np.array(sorted(pairs)).ravel(), minlength=count)


@pytest.mark.parametrize('count', [2, 5, MANY])
def test_of_few_views_all_pairs_are_matched_once(count):
    R, _ = ring(count)
    rounds = Rounds(count)
    first = rounds.first(R)
    assert len(first) == len(set(first)) == count * (count - 1) // 2
    assert rounds.further(R, np.zeros(count, bool)) == []
    angles = [angle_between(R[i], R[j]) for i, j in first]
    assert angles == sorted(angles)


def test_of_many_views_each_is_matched_with_those_next_to_it():
    R, _ = ring(24, 15.0)
    rounds = Rounds(24)
    first = rounds.first(R)
    assert len(first) < len(EVERY) / 2 and degree(first, 24).min() >= _NEAR
    assert all(min(j - i, 24 - j + i) <= 5 for i, j in first)  # round the ring
    assert rounds.further(R, np.ones(24, bool), first) == []


def test_the_next_round_is_by_what_matches_tell():
    R, _ = ring(24, 15.0)
    shuffled = R[np.random.default_rng(0).permutation(24)]
    rounds = Rounds(24)
    wrong = set(rounds.first(shuffled))
    more = set(rounds.further(R, np.ones(24, bool), wrong))
    assert more and not more & wrong
    assert set(Rounds(24).first(R)) <= wrong | more == rounds.chosen
    assert rounds.further(R, np.ones(24, bool), wrong | more) == []


def test_views_that_are_not_sure_are_matched_with_all_when_no_near_pair_is_new():
    R, _ = ring(24, 15.0)
    joined = [(i, i + 1) for i in range(23)]
    rounds = Rounds(24)
    rounds.first(R)
    moved = R.copy()
    moved[[7, 19]] = moved[[19, 7]]
    near = rounds.further(moved, np.arange(24) != 7, joined)
    assert near and len(near) < 24
    more = rounds.further(moved, np.arange(24) != 7, joined)
    assert more and all(7 in pair for pair in more)
    assert {pair for pair in EVERY if 7 in pair} <= rounds.chosen
    assert rounds.further(moved, np.arange(24) != 7, joined) == []


def test_parts_that_no_match_joins_are_matched_with_each_other():
    R, _ = ring(24, 15.0)
    rounds = Rounds(24)
    first = set(rounds.first(R))
    part = np.arange(24) >= 20  # from the first view's part nothing leads to these four
    joined = [pair for pair in sorted(first) if part[pair[0]] == part[pair[1]]]
    more = set(rounds.further(R, ~part, joined))
    assert more == {pair for pair in EVERY if part[pair[0]] != part[pair[1]]} - first


def test_a_first_view_that_is_alone_does_not_make_all_others_lost():
    R, _ = ring(24, 15.0)
    rounds = Rounds(24)
    first = set(rounds.first(R))
    joined = [pair for pair in sorted(first) if 0 not in pair]
    more = set(rounds.further(R, np.zeros(24, bool), joined))
    assert more == {(0, j) for j in range(1, 24)} - first


def test_without_any_match_all_pairs_are_tried():
    R, _ = ring(24, 15.0)
    rounds = Rounds(24)
    rounds.first(R)
    rounds.further(R, np.zeros(24, bool))
    assert rounds.chosen == EVERY


def test_rounds_end_however_poses_jump():
    rng = np.random.default_rng(0)
    rounds = Rounds(60)
    new = rounds.first(rotation_from_vector(rng.normal(size=(60, 3))))
    count = 1
    while new:
        new = rounds.further(rotation_from_vector(rng.normal(size=(60, 3))), np.ones(60, bool))
        count += bool(new)
    assert count == 5


def test_what_was_matched_before_is_taken_along():
    R, _ = ring(24, 15.0)
    assert (0, 12) not in Rounds(24).first(R)
    assert (0, 12) in Rounds(24).first(R, [(0, 12)])


@example(17, 1)  # all of them are next to those that are chosen first
@given(st.integers(1, 40), st.integers(0, 1000))
def test_some_views_are_different_ones_and_the_first_among_them(count, seed):
    R = rotation_from_vector(np.random.default_rng(seed).normal(size=(count, 3)))
    found = some(R)
    assert len(set(found.tolist())) == min(count, MANY)
    assert found[0] == 0 and (np.diff(found) > 0).all()


def test_some_views_overlap_and_go_all_the_way_round():
    R, _ = ring(72, 5.0)
    chosen = some(R)
    gaps = np.diff([*chosen, 72])
    assert gaps.max() <= 16  # of 72: all sides
    assert (gaps <= 3).sum() >= 9  # neighbours


def test_a_wrong_guess_of_the_model_is_made_good_by_rounds(monkeypatch):
    """Neighbours by the model are wrong for some views; matches bring them to their places."""
    rng = np.random.default_rng(4)
    R, t = ring(24, 15.0)
    points = rng.normal(size=(400, 3)) * 0.2
    asked = []

    def match(pairs, *_, **__):
        asked.append(len(pairs))
        near = [(i, j) for i, j in pairs if angle_between(R[i], R[j]) < np.radians(50)]
        seen = {(i, j): see(R, t, i, j, points[:80], rng, 0.2) for i, j in near}
        poses = {pair: refining.search(m) for pair, m in seen.items()}
        yield Pairs(seen, poses, len(pairs))

    prior = noisy_prior(R, t, 8.0, rng, told_deg=40.0)
    prior.R[[5, 17]] = prior.R[[17, 5]]
    estimate = estimate_of(prior, [CAMERA] * 24, ['given'] * 24)
    monkeypatch.setattr(refining, 'match_pairs', match)
    told = []
    frames = [refining.Keyframe(np.zeros((8, 8, 3), np.uint8)) for _ in range(24)]
    steps = refining.refined_steps(estimate, frames, [], progress=lambda *x: told.append(x))
    ((found, pairs),) = steps
    assert 1 < len(asked) <= 5 and pairs.tried == sum(asked) < len(EVERY)
    assert found.sure.all()
    off = angle_between(found.R, R @ R[0].T)
    assert np.degrees(off).max() < 0.5
    assert set(found.timings) >= {'match', 'refine'}
    assert told[-1] == (pairs.tried, pairs.tried)


@pytest.mark.parametrize('sides', [1, 5])
def test_views_from_a_few_places_only_are_chosen_among_all_the_same(sides):
    axes = np.stack([rotation_from_vector(np.array([0, 1.0 * k, 0])) for k in range(sides)])
    chosen = some(np.tile(axes, (MANY + 4, 1, 1))[: MANY + 4])
    assert len(set(chosen.tolist())) == MANY and chosen[0] == 0
