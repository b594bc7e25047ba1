"""Cameras that are adjusted to the network's own matches."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refinement_fixtures import PIXEL, noisy_prior, relative_errors, ring, see

from ray_pose_ros.estimation import settling
from ray_pose_ros.estimation.settling import put_together, ray_matches, settle
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop, patch_centres
from ray_pose_ros.geometry.gauge import viewing_rotation
from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.model.matching import MutualMatches, Rematch, mutual_matches
from ray_pose_ros.multiview.adjust import centre_deviations, deviations
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.residuals import Problem, agreement
from ray_pose_ros.multiview.two_view import RayMatches, epipolar_errors

SIDE = 14


def cloud(rng, count=60):
    return rng.normal(size=(count, 3)) * 0.25


def prior_and_matches(seed, views=4, rms_deg=15.0, wrong=0.0):
    """True cameras, a noisy guess in the published world, and matches of all pairs."""
    rng = np.random.default_rng(seed)
    R, t = ring(views)
    prior = noisy_prior(R, t, rms_deg, rng)
    guess_t = -np.einsum('nij,nj->ni', prior.R, prior.centres)
    matches = {
        (i, j): see(R, t, i, j, cloud(rng), rng, wrong)
        for i in range(views)
        for j in range(i + 1, views)
    }
    return R, t, prior.R, guess_t, prior.rotation_sigma, matches


@pytest.mark.parametrize('seed', range(4))
def test_matches_make_rough_cameras_exact(seed):
    R, _, guess_R, guess_t, sigma, matches = prior_and_matches(seed, wrong=0.2)
    before = relative_errors(guess_R, R)
    found = settle(guess_R, guess_t, sigma, matches)
    after = relative_errors(found.R, R)
    assert before.max() > 5
    assert after.max() < 1
    assert (found.rotation_deviation[1:] < np.radians(2)).all()


def test_matches_of_two_looks_count_half_each():
    *_, first = prior_and_matches(3, views=3)
    *_, second = prior_and_matches(4, views=3)
    first[0, 1] = first[0, 1].weighed(0.6)
    del first[1, 2], second[0, 2]
    found = put_together([first, second])
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    both, (a, b) = found[0, 1], (first[0, 1], second[0, 1])
    assert both.a == pytest.approx(np.concatenate([a.a, b.a]))
    assert both.weight == pytest.approx([0.3] * len(a) + [0.5] * len(b))
    assert both.sigma == pytest.approx(np.concatenate([a.sigma, b.sigma]))
    assert found[0, 2].weight == pytest.approx(0.5)


def test_the_answer_is_in_the_published_world():
    _, _, guess_R, guess_t, sigma, matches = prior_and_matches(9)
    found = settle(guess_R, guess_t, sigma, matches)
    assert found.R[0] == pytest.approx(np.eye(3), abs=1e-9)
    # the object stays on the ray through the first crop's centre, at distance 1
    assert found.t[0] == pytest.approx(guess_t[0], abs=1e-9)
    assert np.linalg.det(found.R) == pytest.approx(np.ones(4))


def test_matches_of_no_weight_have_no_say():
    R, _, guess_R, guess_t, sigma, matches = prior_and_matches(3)
    rng = np.random.default_rng(0)
    spoiled = {}
    for pair, m in matches.items():
        wrong = rng.permutation(m.b)[: len(m)]
        weight = np.concatenate([np.ones(len(m)), np.zeros(len(m))])
        spoiled[pair] = RayMatches(
            np.concatenate([m.a, m.a]),
            np.concatenate([m.b, wrong]),
            np.full(2 * len(m), PIXEL),
            m.centre_a,
            m.centre_b,
            weight,
        )
    clean = settle(guess_R, guess_t, sigma, matches)
    found = settle(guess_R, guess_t, sigma, spoiled)
    assert found.R == pytest.approx(clean.R, abs=1e-6)
    assert found.rotation_deviation == pytest.approx(clean.rotation_deviation, rel=1e-4)


def test_a_view_without_matches_stays_about_where_it_was():
    R, _, guess_R, guess_t, sigma, matches = prior_and_matches(5)
    lone = {pair: m for pair, m in matches.items() if 3 not in pair}
    found = settle(guess_R, guess_t, sigma, lone)
    assert relative_errors(found.R, R)[:2].max() < 1
    # the others have turned the world under it by what was wrong with the first camera
    assert np.degrees(angle_between(found.R[3], guess_R[3])) < 40
    assert found.rotation_deviation[3] > 5 * found.rotation_deviation[1:3].max()


def test_support_is_that_of_the_weakest_link():
    _, _, guess_R, guess_t, sigma, matches = prior_and_matches(6)
    chain = {pair: m for pair, m in matches.items() if pair in ((0, 1), (1, 2))}
    chain[1, 2] = chain[1, 2].take(np.arange(12))
    found = settle(guess_R, guess_t, sigma, chain)
    assert found.support[1] > 3 * found.support[2] > 0
    assert found.support[3] == 0
    assert found.support[0] == found.support[1]
    assert set(found.matches) == set(chain)


def test_without_matches_there_is_no_answer():
    _, _, guess_R, guess_t, sigma, matches = prior_and_matches(1)
    few = {pair: m.take(np.arange(3)) for pair, m in matches.items()}
    assert settle(guess_R, guess_t, sigma, {}) is None
    assert settle(guess_R, guess_t, sigma, few) is None


def lost(views=5, seed=0):
    """A guess with one camera turned half way round, and other guesses, one of which is near."""
    R, t, guess_R, guess_t, sigma, matches = prior_and_matches(seed, views, rms_deg=8.0)
    wrong = guess_R.copy()
    wrong[2] = np.diag([-1.0, 1.0, -1.0]) @ wrong[2]
    others = np.stack([wrong, guess_R, wrong])
    return R, wrong, guess_t, np.full(views, np.radians(60.0)), matches, others


def test_other_answers_lead_out_of_a_wrong_place(monkeypatch):
    R, wrong, guess_t, sigma, matches, others = lost()
    monkeypatch.setattr(settling, 'regrouped', lambda found, *_: found)
    alone = settle(wrong, guess_t, sigma, matches)
    helped = settle(wrong, guess_t, sigma, matches, others)
    assert relative_errors(alone.R, R).max() > 60
    assert relative_errors(helped.R, R).max() < 1


def test_matches_of_single_pairs_lead_out_of_a_wrong_place():
    R, wrong, guess_t, sigma, matches, _ = lost()
    assert relative_errors(settle(wrong, guess_t, sigma, matches).R, R).max() < 1


def test_nothing_else_is_tried_where_matches_agree(monkeypatch):
    R, _, guess_R, guess_t, sigma, matches = prior_and_matches(0, 5, rms_deg=8.0)
    calls = []
    plain = settling.adjust
    monkeypatch.setattr(settling, 'adjust', lambda *a: calls.append(1) or plain(*a))
    monkeypatch.setattr(settling, 'regrouped', lambda *a: pytest.fail('not needed'))
    found = settle(guess_R, guess_t, sigma, matches, np.stack([guess_R] * 3))
    assert relative_errors(found.R, R).max() < 1
    assert len(calls) == 1


def test_agreement_is_the_share_by_weight():
    R, t, *_, matches = prior_and_matches(2, wrong=0.0)
    rng = np.random.default_rng(0)
    half = {}
    for pair, m in matches.items():
        b = np.concatenate([m.b, rng.permutation(-m.b)])  # behind the camera
        weight = np.concatenate([np.full(len(m), 3.0), np.ones(len(m))])
        a, sigma = np.tile(m.a, (2, 1)), np.tile(m.sigma, 2)
        half[pair] = RayMatches(a, b, sigma, m.centre_a, m.centre_b, weight)
    prior = Prior(R, t, np.ones(len(R)), np.zeros(len(R)), np.zeros((0, len(R), 3, 3)))
    assert agreement(R, t, Problem(matches, prior, t)) > 0.95
    assert agreement(R, t, Problem(half, prior, t)) == pytest.approx(0.75, abs=0.02)


def test_deviations_are_those_of_turns_against_the_first_camera():
    R, _ = ring(3)
    # the same turn of the world in all cameras: known against each other, not as a whole
    shared = np.vstack([R[i] for i in range(3)])  # (9, 3): w_i = R_i w
    own = 0.01**2 * np.eye(9)
    turns = shared @ shared.T + own
    covariance = np.zeros((3, 6, 3, 6))
    covariance[:, :3, :, :3] = turns.reshape(3, 3, 3, 3)
    covariance[:, 3:, :, 3:] = (0.02**2 * np.eye(9)).reshape(3, 3, 3, 3)
    information = np.linalg.inv(covariance.reshape(18, 18))
    rotation, centre = deviations(R, information)
    assert rotation == pytest.approx([0, 0.01 * 6**0.5, 0.01 * 6**0.5], rel=1e-3)
    assert centre == pytest.approx(np.full(3, 0.02 * 3**0.5), rel=1e-6)


def test_deviations_of_centres_have_nothing_of_what_all_do_together():
    R, t = ring(5)
    centres = -np.einsum('nji,nj->ni', R, t)
    world = np.zeros((5, 6, 7))  # how cameras change when the world turns, moves or grows
    world[:, :3, :3] = -R
    world[:, 3:, :3] = [[[0, z, -y], [-z, 0, x], [y, -x, 0]] for x, y, z in centres]
    world[:, 3:, 3:6] = np.eye(3)
    world[:, 3:, 6] = centres
    world = world.reshape(30, 7)
    own = np.full((5, 6), 1e-9)
    own[:, 3:] = [[1e-9], [0.01], [0.02], [0.01], [0.3]]  # the last one is lost
    information = np.linalg.inv(np.diag(own.reshape(-1) ** 2) + 1e-2 * world @ world.T)
    found = centre_deviations(R, t, information)
    assert found[0] < 1e-6
    # of three directions one may have gone into the unit, of the surest most
    assert (found[1:] <= np.array([0.01, 0.02, 0.01, 0.3]) * 3**0.5 * 1.01).all()
    assert (found[1:] >= np.array([0.01, 0.02, 0.01, 0.3]) * 2**0.5 * 0.9).all()


def planted(order, permutation, noise=0.0):
    """A Rematch in which cell permutation[v][k] of view v shows point k."""
    generator = torch.Generator().manual_seed(0)
    cells, width = SIDE**2, 64
    points = torch.nn.functional.normalize(torch.randn(cells, width, generator=generator), dim=-1)
    of_view = torch.zeros(len(permutation), cells, width)
    for view, places in enumerate(permutation):
        of_view[view, places] = points
    of_view = of_view + noise * torch.randn(of_view.shape, generator=generator)
    descriptors = of_view[order]
    seen = torch.where(torch.arange(cells) < cells // 2, 4.0, -4.0).expand(*order.shape, cells)
    tokens = torch.zeros(len(order), 1)
    return Rematch(tokens, descriptors, seen, torch.zeros(*order.shape, cells))


def shuffles(views):
    generator = torch.Generator().manual_seed(1)
    return [torch.randperm(SIDE**2, generator=generator) for _ in range(views)]


def cell_number(cells):
    x, y = cells.floor().long().unbind(dim=1)
    return y * SIDE + x


@pytest.mark.parametrize('order', [[[0, 1, 2]], [[0, 1, 2], [1, 0, 2], [2, 0, 1]]])
def test_planted_matches_are_found_in_every_order(order):
    places = shuffles(3)
    order = torch.tensor(order)
    found = mutual_matches(planted(order, places, 0.02), torch.tensor(20.0), order)
    expected = [[0, 1], [0, 2]] + ([[1, 2]] if len(order) == 3 else [])
    assert found.pairs.tolist() == expected
    for e, (i, j) in enumerate(expected):
        mine = found.pair == e
        a, b = cell_number(found.cell_i[mine]), cell_number(found.cell_j[mine])
        assert mine.sum() == SIDE**2
        point_of_a = torch.argsort(places[i])[a]
        assert torch.equal(places[j][point_of_a], b)


def test_sight_is_that_of_both_views():
    order = torch.tensor([[0, 1], [1, 0]])
    places = [torch.arange(SIDE**2), torch.arange(SIDE**2).flip(0)]
    found = mutual_matches(planted(order, places), torch.tensor(20.0), order)
    # one view says that it is seen, the other that it is not: nothing is known
    assert found.seen == pytest.approx(torch.full((SIDE**2,), 0.5))
    found = mutual_matches(planted(order[:1], places), torch.tensor(20.0), order[:1])
    assert found.seen.max() > 0.95 and found.seen.min() < 0.05


def test_cells_that_choose_each_other_say_how_surely():
    order = torch.tensor([[0, 1]])
    places = [torch.arange(SIDE**2)] * 2
    sure = mutual_matches(planted(order, places), torch.tensor(20.0), order)
    vague = mutual_matches(planted(order, places), torch.tensor(2.0), order)
    assert sure.chosen.min() > 0.95
    assert vague.chosen.max() < 0.1
    first, second = planted(order, places).descriptors[0]
    for scale, found in ((20.0, sure), (2.0, vague)):
        logits = scale * first @ second.T
        both = (logits.softmax(0) * logits.softmax(1)).diagonal()
        assert found.chosen[cell_number(found.cell_i).argsort()] == pytest.approx(both, rel=1e-3)


def test_a_match_between_cells_is_put_between_them():
    logits = torch.full((1, SIDE**2), -50.0)
    logits[0, [5 * SIDE + 6, 5 * SIDE + 7]] = torch.tensor([3.0, 3.0 - 1e-4])
    from ray_pose_ros.model.matching import _cell_centre

    centre = _cell_centre(logits, torch.tensor([5 * SIDE + 6]))
    # a share of the half cell: the match's other end takes another
    assert 6.5 + 0.25 < centre[0, 0] < 6.5 + 0.4 and centre[0, 1] == pytest.approx(5.5, abs=1e-3)
    corner = _cell_centre(torch.eye(SIDE**2)[:1] * 80, torch.tensor([0]))
    assert corner[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_cells_become_rays_of_the_camera():
    K = torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], dtype=torch.float64)
    camera = CameraModel(K, 320, 240)
    crop = Crop(x0=100, y0=-20, side=140)
    pixels = patch_centres(crop, 7)
    directions = camera.unproject(pixels, extrapolate=True)
    turn = viewing_rotation(camera.unproject(torch.tensor(crop.centre, dtype=torch.float64)))
    view = SimpleNamespace(
        camera=camera, crop=crop, size=(320, 240), directions=directions, turn=turn, turned=0
    )
    cells = torch.tensor([[0.5, 0.5], [7.0, 7.0], [13.5, 13.5]])
    pair = torch.zeros(3, dtype=torch.long)
    seen, chosen = torch.full((3,), 0.8), torch.tensor([0.5, 1e6, 0.05])
    found = MutualMatches(torch.tensor([[0, 1]]), pair, cells, cells, seen, chosen)
    matches = ray_matches([view, view], found, SIDE)[0, 1]
    # the first cell lies in the padding above the image
    assert len(matches) == 2
    # seen by both, and as likely as not to be right where the cells hardly choose each other
    assert matches.weight == pytest.approx([0.8, 0.4], abs=1e-6)
    middle = torch.tensor([[170.0, 50.0]], dtype=torch.float64)
    assert matches.a[0] == pytest.approx(camera.unproject(middle)[0].numpy())
    assert matches.centre_a == pytest.approx(matches.a[0])
    # a cell is 10 of 300 pixels wide
    assert matches.sigma == pytest.approx(np.full(2, 0.17 * 10 / 300), rel=0.1)
    far = np.array([1.0, 0, 0])
    assert np.abs(epipolar_errors(np.eye(3), far, matches.a, matches.b)).max() < 1e-12
