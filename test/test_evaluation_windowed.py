"""Views one after the other, as a robot gets them."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_estimation_keyframe_map import CENTRES, COUNT, R, T, Told, window

from ray_pose_ros.evaluation.draws import draw_subsets
from ray_pose_ros.evaluation.methods import create_method
from ray_pose_ros.evaluation.metrics import solve_errors
from ray_pose_ros.evaluation.windowed import WindowedMethod, windowed


@dataclass(frozen=True)
class Answered(Told):
    """What `answer_of` reads besides."""

    intrinsics_source: tuple = ()
    timings: dict | None = None
    model: Told | None = None


class Exact:
    """A method that knows; counts the windows that it was asked for."""

    name = 'exact'

    def __init__(self):
        self.asked = []

    def begin(self, sequence):
        self.asked.clear()

    def estimate(self, indices, rng):
        self.asked.append(indices.tolist())
        told = window(indices.tolist())
        source = ('given',) * len(indices)
        return Answered(**vars(told), intrinsics_source=source, timings={'denoise': 1.0}), 2.0

    def cached(self, indices):
        return 100.0


class Kept(int):
    def left(self, view):
        return self


class Refining(Exact):
    """Its windows are wrong, and what it refines is right."""

    def __init__(self):
        super().__init__()
        self.refined = []

    def estimate(self, indices, rng):
        model, seconds = super().estimate(indices, rng)
        wrong = window(indices.tolist(), noise=0.7)
        return replace(model, R=wrong.R, t=wrong.t, model=model), seconds

    def kept(self, index):
        return Kept(index)

    def again(self, kept, estimate):
        self.refined.append(kept)
        assert np.abs(estimate.R - R[kept] @ R[kept[0]].T).max() < 1e-4
        return estimate


def test_windows_slide_over_the_views_and_all_are_answered():
    method = windowed(exact := Exact(), 5)
    assert isinstance(method, WindowedMethod) and method.name == 'exact'
    order = np.random.default_rng(1).permutation(COUNT)
    method.begin(None)
    answer = method.solve(order, np.random.default_rng(0))
    assert exact.asked == [order[k : k + 5].tolist() for k in range(COUNT - 4)]
    errors = solve_errors(answer, R[order], T[order], CENTRES)
    assert np.max(errors.rotation) < 1e-3 and np.max(errors.centre) < 1e-5
    assert answer.placed.all() and len(answer.rotation_sigma) == COUNT
    assert 100 < answer.seconds < 101  # what was kept before is counted, once


def test_a_wider_window_follows_each_that_is_refined():
    method = windowed(refining := Refining(), 4)
    answer = method.solve(order := np.arange(8), np.random.default_rng(0))
    assert refining.refined == [[*range(5)], [*range(6)], [*range(7)], [*range(8)]]
    assert np.max(solve_errors(answer, R[order], T[order], CENTRES[order]).rotation) < 0.01


def test_fewer_views_than_a_window_are_one_window():
    method = windowed(exact := Exact(), 8)
    answer = method.solve(np.arange(3), np.random.default_rng(0))
    assert exact.asked == [[0, 1, 2]] and len(answer.R) == 3


def test_without_the_option_a_method_is_itself_and_nonsense_is_refused():
    assert windowed(exact := Exact(), None) is exact
    with pytest.raises(ValueError, match='option window is 1, expected 2 or more'):
        create_method('model:window=1')


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
