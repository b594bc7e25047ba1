"""The compiled code against what it stands for."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_fixtures import noisy_prior, ring
from test_refinement import all_pairs, cloud

from ray_pose_ros.geometry.so3 import (
    camera_translations,
    rotation_from_vector,
    tangent_basis,
    vector_from_rotation,
)
from ray_pose_ros.multiview import acceleration, adjust, residuals, two_view
from ray_pose_ros.multiview.residuals import LIMITS, Problem, costs
from ray_pose_ros.multiview.two_view import RayMatches, refine_poses

compiled = acceleration.compiled_code()
pytestmark = pytest.mark.skipif(compiled is None, reason='numba does not work here')


@pytest.fixture
def plain(monkeypatch):
    """Calls a function with numpy alone."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            for module in (adjust, residuals, two_view):
                patch.setattr(module, 'compiled_code', lambda: None)
            return function(*args)

    return call


def problem_of(seed, views=5, off=20.0, wrong=0.2):
    """A problem, and cameras that are not its solution."""
    rng = np.random.default_rng(seed)
    R, t = ring(views)
    prior = noisy_prior(R, t, off, rng)
    matches = all_pairs(R, t, cloud(rng), rng, wrong=wrong)
    weights = {pair: rng.uniform(0.1, 1.0, len(m)) for pair, m in matches.items()}
    matches = {pair: replace(m, weight=weights[pair]) for pair, m in matches.items()}
    return Problem(matches, prior, t), prior.R, camera_translations(prior.R, prior.centres)


def linearised(R, centres, problem, widen):
    n = len(R)
    A, b = np.empty((6 * n, 6 * n)), np.empty(6 * n)
    given = *problem.table.arrays, problem.believed
    return compiled.linearise(R, centres, *given, widen, LIMITS, A, b), A, b


def cameras_of_all_kinds():
    """Names and changes (R, centres) -> None of cameras that are easily got wrong."""

    def turned_back(R, centres):
        R[1] = rotation_from_vector(np.array([0.0, np.pi, 0.0])) @ R[1]

    def together(R, centres):
        centres[2] = centres[1]

    def at_the_object(R, centres):
        centres[1] = 0.0

    return {'as they are': lambda R, centres: None, 'turned back': turned_back,
            'two at one place': together, 'at the object': at_the_object}  # fmt: skip


@pytest.mark.parametrize('kind', cameras_of_all_kinds())
@pytest.mark.parametrize('widen', [1.0, 2.0])
def test_the_equations_are_the_same(kind, widen):
    problem, R, t = problem_of(3)
    R, centres = R.copy(), -np.einsum('nji,nj->ni', R, t)
    cameras_of_all_kinds()[kind](R, centres)
    expected = adjust._linearise(R, centres, problem, widen)
    for found, wanted in zip(linearised(R, centres, problem, widen), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize('views', [2, 3, 8])
def test_cameras_are_adjusted_to_the_same(plain, views):
    for seed in range(5):
        problem, R, t = problem_of(seed, views, wrong=0.1)
        found = adjust.adjust(R, t, problem)
        expected = plain(adjust.adjust, R, t, problem)
        np.testing.assert_allclose(found.R, expected.R, atol=1e-6)
        np.testing.assert_allclose(found.t, expected.t, atol=1e-6)
        assert found.cost == pytest.approx(expected.cost, rel=1e-6)
        scale = np.abs(expected.information).max()
        np.testing.assert_allclose(found.information, expected.information, atol=1e-5 * scale)


def test_without_matches_cameras_go_to_the_prior(plain):
    problem, R, t = problem_of(0)
    problem = Problem({}, problem.prior, problem.looking)
    start = rotation_from_vector(np.array([0.1, 0.2, 0.0])) @ R
    found = adjust.adjust(start, t, problem)
    np.testing.assert_allclose(found.R, R, atol=1e-3)
    np.testing.assert_allclose(found.R, plain(adjust.adjust, start, t, problem).R, atol=1e-6)


def test_what_is_not_finite_ends(plain):
    problem, R, t = problem_of(0)
    t = np.full_like(t, np.nan)
    with np.errstate(invalid='ignore'):
        assert np.isnan(plain(adjust.adjust, R, t, problem).t).all()
    assert np.isnan(adjust.adjust(R, t, problem).t).all()


def test_costs_of_many_cameras_are_the_same(plain):
    problem, R, t = problem_of(1)
    turns = rotation_from_vector(0.3 * np.random.default_rng(0).normal(size=(7, 5, 3)))
    many = turns @ R
    across = np.arange(len(problem.table.i)) % 3 > 0
    for pairs in (None, across, np.zeros_like(across)):
        expected = plain(costs, many, t, problem, pairs)
        np.testing.assert_allclose(costs(many, t, problem, pairs), expected, rtol=1e-10)


def test_poses_of_pairs_are_refined_to_the_same(plain):
    problem, _, _ = problem_of(4, wrong=0.3)
    rng = np.random.default_rng(0)
    for (i, j), m in problem.matches.items():
        R, t = ring(5)
        true = R[j] @ R[i].T
        starts = rotation_from_vector(0.15 * rng.normal(size=(3, 3))) @ true
        move = t[j] - true @ t[i]
        moves = move + 0.2 * rng.normal(size=(3, 3))
        moves /= np.linalg.norm(moves, axis=-1, keepdims=True)
        found = refine_poses(starts, moves, m, 2.5)
        expected = plain(refine_poses, starts, moves, m, 2.5)
        for x, y, tolerance in zip(found, expected, (1e-4, 1e-4, 1e-6), strict=True):
            np.testing.assert_allclose(x, y, atol=tolerance)


def test_a_pose_without_matches_is_refined_by_the_object_alone(plain):
    none = np.zeros((0, 3))
    centre = np.array([0.0, 0.1, 1.0]) / np.hypot(0.1, 1.0)
    m = RayMatches(none, none, none[:, 0], centre, centre)
    start = np.eye(3)[None], np.array([[1.0, 0.0, 0.0]])
    found, expected = refine_poses(*start, m, 2.5), plain(refine_poses, *start, m, 2.5)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)


vectors = st.tuples(*[st.floats(-4.0, 4.0)] * 3).map(np.array)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_rotations_are_the_same(w):
    found = np.empty((3, 3))
    compiled._turn(tuple(w), np.eye(3), found)
    np.testing.assert_allclose(found, rotation_from_vector(w), atol=1e-12)
    back = np.array(compiled._vector(found))
    expected = vector_from_rotation(found)
    if np.linalg.norm(expected) < np.pi - 1e-4:
        np.testing.assert_allclose(back, expected, atol=1e-9)
    np.testing.assert_allclose(rotation_from_vector(back), found, atol=1e-6)
    if np.linalg.norm(w) > 1e-3:
        v = w / np.linalg.norm(w)
        np.testing.assert_allclose(
            np.stack(compiled._tangents(tuple(v)), -1), tangent_basis(v), atol=1e-12
        )


def test_half_turns_come_back():
    for axis in np.eye(3):
        R = rotation_from_vector(np.pi * axis)
        np.testing.assert_allclose(np.abs(compiled._vector(R)), np.pi * axis, atol=1e-6)


def test_threads_solve_at_once():
    problems = [problem_of(seed, 6) for seed in range(8)]
    alone = [adjust.adjust(R, t, problem).R for problem, R, t in problems]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda p: adjust.adjust(p[1], p[2], p[0]).R, problems)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


def test_one_layout_of_arrays_is_compiled():
    problem, R, t = problem_of(0)
    adjust.adjust(R, t, problem)
    adjust.adjust(np.asfortranarray(R), t[::-1][::-1], problem)
    adjust.adjust(R, t, Problem({}, problem.prior, problem.looking))
    costs(R[None], t, problem, np.arange(len(problem.table.i)) > 2)
    m = next(iter(problem.matches.values()))
    refine_poses(R[1:3], t[1:3] / np.linalg.norm(t[1:3], axis=1)[:, None], m, 2)
    for function in (compiled.adjust, compiled.costs, compiled.refine_poses):
        assert len(function.signatures) == 1


# -- where numba does not work --------------------------------------------------------------------


@pytest.fixture
def asked_again():
    """Nothing is remembered of whether it works."""
    acceleration.compiled_code.cache_clear()
    yield
    acceleration.compiled_code.cache_clear()


@pytest.mark.usefixtures('asked_again')
def test_a_numba_that_fails_is_done_without(monkeypatch, caplog):
    problem, R, t = problem_of(0)
    monkeypatch.setitem(sys.modules, 'numba', None)
    with caplog.at_level(logging.WARNING):
        found = adjust.adjust(R, t, problem)
        assert acceleration.compiled_code() is None
    assert len(caplog.records) == 1 and 'slower code' in caplog.text and 'numba' in caplog.text
    np.testing.assert_allclose(found.R, adjust._adjust(
        R, -np.einsum('nji,nj->ni', R, t), problem, 25)[0], atol=1e-12)  # fmt: skip


@pytest.mark.usefixtures('asked_again')
def test_code_that_does_not_compile_is_done_without(monkeypatch, caplog):
    def fail():
        raise TypeError('cannot determine Numba type')

    monkeypatch.setattr(compiled, 'compile_all', fail)
    assert acceleration.compiled_code() is None and 'Numba type' in caplog.text


@pytest.mark.usefixtures('asked_again')
def test_numba_may_be_told_not_to(monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, 'DISABLE_JIT', True)
    assert acceleration.compiled_code() is None


def test_code_that_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    settings, made = [], compiled.njit

    def njit(**given):
        settings.append(given)
        if given.get('cache'):
            raise RuntimeError('cannot cache function: no locator available')
        return made(**given)

    monkeypatch.setattr(compiled, 'njit', njit)
    assert compiled._compiled(lambda x: x + 1)(1) == 2 and len(settings) == 2
