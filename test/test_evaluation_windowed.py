"""Views one after the other, as a robot gets them."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_estimation_keyframe_map import CENTRES, COUNT, R, T, Told, window

from ray_pose_ros.evaluation.draws import draw_subsets
from ray_pose_ros.evaluation.methods import create_method
from ray_pose_ros.evaluation.metrics import solve_errors
from ray_pose_ros.evaluation.windowed import WindowedMethod, windowed
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.refinement.focal import Focal

CAMERA = CameraModel(torch.eye(3), 8, 6)


@dataclass(frozen=True)
class Answered(Told):
    """What `answer_of` reads besides."""

    intrinsics_source: tuple = ()
    timings: dict | None = None
    model: Told | None = None

    cameras: tuple = ()

    @property
    def K(self):
        return np.stack([camera.matrix.numpy() for camera in self.cameras])


@dataclass(frozen=True)
class Prepared:
    """What the map and the lenses read of one."""

    index: int
    intrinsics_source: str = 'given'
    camera: CameraModel = CAMERA

    def left(self, view):
        return self


class Exact:
    """A method whose solver knows; counts the windows that it was asked for."""

    name = 'exact'

    def __init__(self):
        self.asked = []

    def begin(self, sequence):
        self.asked.clear()

    def solver(self):
        return self

    def prepare(self, view):
        return Prepared(view.index)

    def looks(self, prepared, progress):
        indices = [p.index for p in prepared]
        self.asked.append(indices)
        told = window(indices)
        source = tuple(p.intrinsics_source for p in prepared)
        cameras = tuple(p.camera for p in prepared)
        timings = {'denoise': 1.0}
        yield Answered(**vars(told), intrinsics_source=source, timings=timings, cameras=cameras)


class Refining(Exact):
    """Its windows are wrong, and what it refines is right."""

    def __init__(self):
        super().__init__()
        self.refined = []

    def looks(self, prepared, progress):
        (model,) = super().looks(prepared, progress)
        wrong = window([p.index for p in prepared], noise=0.7)
        yield replace(model, R=wrong.R, t=wrong.t, model=model)

    def refine(self, prepared, estimate, progress):
        kept = [p.index for p in prepared]
        self.refined.append(kept)
        assert np.abs(estimate.R - R[kept] @ R[kept[0]].T).max() < 1e-4
        return estimate


class Blind(Exact):
    """Nobody has calibrated its cameras; the `tells`-th window that is asked tells them."""

    def __init__(self, tells):
        super().__init__()
        self.tells, self.shown, self.found = tells, [], 0

    def prepare(self, view):
        self.shown.append((view.index, view.camera is not None))
        if view.camera is None:
            return Prepared(view.index, 'assumed')
        return Prepared(view.index, 'matches', CAMERA.refocused(0.8))

    def refocused(self, prepared, view):
        return self.prepare(view)

    def looks(self, prepared, progress):
        (model,) = super().looks(prepared, progress)
        yield replace(model, model=model)

    def refine(self, prepared, estimate, progress):
        return estimate

    def focal(self, prepared, estimate, known, before, progress):
        self.found += 1
        sigma = 0.05 if self.found >= self.tells else 0.3
        return Focal(0.8, sigma, np.zeros(7))


@dataclass(frozen=True)
class Shown:
    """What the lenses read of a view."""

    index: int
    camera: object = None
    camera_source: str = 'given'
    image: np.ndarray = field(default_factory=lambda: np.zeros((6, 8, 3), np.uint8))


SEQUENCE = SimpleNamespace(views=[Shown(k) for k in range(COUNT)])


def solved(method, order):
    method.begin(SEQUENCE)
    return method.solve(order, np.random.default_rng(0))


def test_windows_slide_over_the_views_and_all_are_answered():
    method = windowed(exact := Exact(), 5)
    assert isinstance(method, WindowedMethod) and method.name == 'exact'
    order = np.random.default_rng(1).permutation(COUNT)
    answer = solved(method, order)
    assert exact.asked == [order[k : k + 5].tolist() for k in range(COUNT - 4)]
    errors = solve_errors(answer, R[order], T[order], CENTRES)
    assert np.max(errors.rotation) < 1e-3 and np.max(errors.centre) < 1e-5
    assert answer.placed.all() and len(answer.rotation_sigma) == COUNT
    assert 0 < answer.seconds < 10


def test_a_wider_window_follows_each_that_is_refined():
    method = windowed(refining := Refining(), 4)
    answer = solved(method, order := np.arange(8))
    assert refining.refined == [[*range(5)], [*range(6)], [*range(7)], [*range(8)]]
    assert np.max(solve_errors(answer, R[order], T[order], CENTRES[order]).rotation) < 0.01


def test_fewer_views_than_a_window_are_one_window():
    method = windowed(exact := Exact(), 8)
    answer = solved(method, np.arange(3))
    assert exact.asked == [[0, 1, 2]] and len(answer.R) == 3


def test_once_the_focal_length_is_told_all_have_it():
    answer = solved(windowed(blind := Blind(1), 4), np.arange(6))
    # the first window is solved again, and later views come with it
    assert blind.asked[:3] == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert blind.shown[:4] == [(k, False) for k in range(4)]
    assert blind.shown[4:] == [(k, True) for k in range(6)]
    assert answer.placed.all()
    assert answer.K is not None


def test_views_from_before_a_focal_length_that_came_late_stay_in_the_map():
    answer = solved(windowed(Blind(3), 4), order := np.arange(7))
    assert answer.placed.all() and len(answer.R) == 7
    assert np.max(solve_errors(answer, R[order], T[order], CENTRES[order]).rotation) < 0.01
    # those that had left the window are told to have it, too
    np.testing.assert_allclose(answer.K[:, 0, 0], 0.8)


def test_without_the_option_a_method_is_itself_and_nonsense_is_refused():
    assert windowed(exact := Exact(), None) is exact
    with pytest.raises(ValueError, match='option window is 1, expected 2 or more'):
        create_method('model:window=1')
    with pytest.raises(ValueError, match='window'):
        create_method('oracle-refined:window=8')
    with pytest.raises(ValueError, match='window and deadline are given'):
        create_method('refined:window=8,deadline=1')


def test_a_tour_goes_to_the_nearest_view_that_is_left():
    angle = np.radians(np.arange(0, 360, 20))
    z = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], axis=1)
    turns = np.stack([[np.cos(a), 0, -np.sin(a), 0, 1, 0, *d] for a, d in zip(angle, z)])
    sequence = SimpleNamespace(R=turns.reshape(-1, 3, 3), name='ring', up=None)
    plain = draw_subsets(sequence, 9, 6, 180.0, 0)
    toured = draw_subsets(sequence, 9, 6, 180.0, 0, tour=True)
    for one, other in zip(plain, toured, strict=True):
        assert sorted(one.indices) == sorted(other.indices)
        assert one.indices[0] == other.indices[0]
        axes = z[other.indices]
        for k in range(8):
            near = axes[k + 1 :] @ axes[k]
            assert near[0] == pytest.approx(near.max())
    assert any((a.indices != b.indices).any() for a, b in zip(plain, toured, strict=True))
