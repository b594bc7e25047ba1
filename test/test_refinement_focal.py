"""The focal length that matches of several views tell."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from refinement_fixtures import CAMERA, PIXEL, estimate_of, noisy_prior, ring, see

from ray_pose_ros.refinement import refining
from ray_pose_ros.refinement.command import _of_focal
from ray_pose_ros.refinement.focal import TRIED, _scaled, find_focal, scaled_cameras
from ray_pose_ros.refinement.pairing import Pairs
from ray_pose_ros.refinement.refine import RefinedEstimate
from ray_pose_ros.refinement.standing import without_standing


def seen(count, factor, sources=None, step=25.0):
    """Estimate of cameras on a ring whose focal lengths are told too short by `factor`, and their
    matches; where the sources say 'given', they are right."""
    rng = np.random.default_rng(0)
    R, t = ring(count, step)
    sources = sources or ('assumed',) * count
    prior = noisy_prior(R, t, 12.0, rng)
    wrong = np.array([s != 'given' for s in sources])
    matches = {}
    for i in range(count):
        for j in range(i + 1, min(count, i + 3)):
            true = see(R, t, i, j, 0.25 * rng.normal(size=(80, 3)), rng, wrong=0.1)
            matches |= _scaled({(i, j): true}, wrong, 1 / factor)
    cameras = scaled_cameras([CAMERA] * count, wrong, 1 / factor)
    return estimate_of(prior, cameras, sources), Pairs(matches, {})


@pytest.mark.parametrize('factor', [0.6, 0.85, 1.0, 1.5])
def test_views_round_an_object_tell_the_focal_length(factor):
    assert find_focal(*seen(6, factor)).factor == pytest.approx(factor, rel=0.03)


def test_the_room_before_which_an_object_turns_does_not_count():
    estimate, found = seen(6, 0.7)
    rng = np.random.default_rng(1)
    angle = rng.uniform(0, 2 * np.pi, 600)
    room = np.stack([0.7 * np.cos(angle), 0.7 * np.sin(angle), np.ones(600)], 1)
    room /= np.linalg.norm(room, axis=1, keepdims=True)
    matches = {}
    for i in range(6):
        for j in range(i + 1, 6):
            own = found.matches.get((i, j), found.matches[0, 1].take(slice(0)))
            still = dataclasses.replace(own, a=room, b=room, sigma=np.full(600, PIXEL))
            matches[i, j] = without_standing(own.and_also(still))
    told = find_focal(estimate, Pairs(matches, {}))
    assert told.factor == pytest.approx(0.7, rel=0.03)


def test_what_is_known_is_not_changed():
    sources = ('given', 'assumed', 'given', 'assumed', 'assumed')
    assert find_focal(*seen(5, 0.7, sources)).factor == pytest.approx(0.7, rel=0.03)
    cameras = scaled_cameras([CAMERA] * 2, np.array([True, False]), 0.5)
    assert cameras[0].matrix[:2].tolist() == [[250, 0, 320], [0, 255, 240]]
    assert cameras[1] is CAMERA


def test_what_a_photograph_tells_is_hardly_doubted():
    told = find_focal(*seen(6, 0.6, ('exif',) * 6)).factor
    assert 0.6 < told < 1.0  # however sure the matches are
    assert find_focal(*seen(6, 0.97, ('exif',) * 6)).factor == pytest.approx(0.97, abs=0.02)


def test_it_goes_on_from_what_is_known():
    told = find_focal(*seen(6, 0.7), known=1.4)  # the estimate's are twice what they ought to be
    assert told.factor == pytest.approx(0.98, rel=0.03)


def test_other_windows_count():
    estimate, found = seen(4, 0.8, step=50.0)
    alone = find_focal(estimate, found)
    before = 1e3 * (TRIED == TRIED[5])
    told = find_focal(estimate, found, before=before)
    assert abs(np.log(told.factor) - 0.35 * TRIED[5]) < 0.16
    assert told.sigma < alone.sigma
    np.testing.assert_array_equal(told.nats, alone.nats)


def test_it_is_said_how_well_it_is_known():
    surely, hardly = (find_focal(*seen(n, 0.8, step=s)) for n, s in ((6, 25.0), (3, 3.0)))
    assert surely.sigma < 0.04 and hardly.sigma > 0.12  # from nearly the same place


@pytest.mark.parametrize(
    ('sigma', 'source', 'said'),
    [
        (0.05, 'matches', 'focal length by matches, to about 5 %'),
        (0.3, 'matches', 'the matches hardly tell the focal length, to about 30 %'),
        (0.3, 'assumed', 'the matches do not tell the focal length: if it is not as assumed'),
        (None, 'assumed', 'the matches do not tell the focal length: if it is not as assumed'),
    ],
)
def test_what_is_said_of_it_is_what_the_table_has(sigma, source, said):
    found = SimpleNamespace(focal_sigma=sigma, intrinsics_source=('given', source))
    assert _of_focal(found).startswith(said)


def test_two_views_and_views_without_matches_tell_nothing():
    assert find_focal(*seen(2, 0.6)) is None
    estimate, _ = seen(5, 0.6)
    assert find_focal(estimate, Pairs({}, {})) is None


def test_it_can_be_abandoned():
    class Abandoned(Exception):
        pass

    def leave():
        raise Abandoned

    with pytest.raises(Abandoned):
        find_focal(*seen(4, 0.8), leave)


def test_views_are_solved_again_with_what_was_found(monkeypatch):
    estimate, found = seen(4, 0.8)
    estimate = RefinedEstimate(**vars(estimate))
    solved = []

    @dataclasses.dataclass(frozen=True)
    class View:
        camera: object = None
        camera_source: str = 'given'

    class Estimator:
        def prepare(self, view, other_crops):
            assert not other_crops
            return view

        def look(self, views, progress):
            solved.append(views)
            cameras = tuple(view.camera for view in views)
            sources = tuple(view.camera_source for view in views)
            return SimpleNamespace(
                estimate=dataclasses.replace(estimate, cameras=cameras, intrinsics_source=sources)
            )

    monkeypatch.setattr(refining, 'match_pairs', lambda *_: iter([found]))
    monkeypatch.setattr(refining, 'refined_looks', lambda _, look, *__: [look.estimate])
    views = [View() for _ in range(4)]
    look = SimpleNamespace(estimate=estimate)
    got = refining.refined(Estimator(), look, views, [None] * 4, [])
    assert got.intrinsics_source == ('matches',) * 4
    for camera in got.cameras:
        assert float(camera.matrix[0, 0]) == pytest.approx(500, rel=0.03)
    known = dataclasses.replace(estimate, intrinsics_source=('given',) * 4)
    look = SimpleNamespace(estimate=known)
    same = refining.refined(Estimator(), look, views, [None] * 4, [])
    assert same.cameras is known.cameras and len(solved) == 1
    assert 'focal' in got.timings and 'focal' not in same.timings
    assert 0.03 <= got.focal_sigma < 0.1 and same.focal_sigma is None
