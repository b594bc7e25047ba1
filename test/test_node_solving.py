"""The worker's answers for a window, up to those of wider ones."""

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from node_harness import FakeEstimate, FakeEstimator
from test_node_worker import candidate, loaded, results, worker

from ray_pose_ros.node.work import Failed, Kept, Solved

__all__ = ['results', 'worker']  # fixtures
WINDOW = 3


@dataclass
class OfModel(FakeEstimate):
    """An estimate that was refined from another."""

    ray_matches: dict = field(default_factory=dict)
    model: Any = None


class Refining(FakeEstimator):
    """Refines wider windows by lifting every camera; `then` is raised in the middle of it."""

    def __init__(self):
        super().__init__()
        self.refined, self.then, self.pause, self.broken = [], None, 0.0, False

    def solve(self, prepared, progress=None):
        found = super().solve(prepared, progress)
        found.t[0, 0] = np.nan if self.broken else 0.0
        return OfModel(**vars(found), model=OfModel(**vars(found)))

    def prepare(self, view):
        super().prepare(view)
        return Prepared(view.name)

    def refine(self, prepared, estimate, progress):
        assert np.isfinite(estimate.t).all()
        self.refined.append([p.name for p in prepared])
        for _ in range(int(self.pause / 0.01)):
            time.sleep(0.01)
            progress(1, 2)
        if self.then is not None:
            raise self.then
        return replace(
            estimate, t=estimate.t + [0.0, 0.5, 0.0], rotation_sigma=0 * estimate.t[:, 0]
        )


@dataclass(frozen=True)
class Prepared:
    name: str

    def left(self, view):
        assert view.unpacked().image.shape == (8, 8, 3)
        return Prepared(f'{self.name.removesuffix(" left")} left')


@pytest.fixture
def refining(worker):
    return loaded(worker, Refining(), window=WINDOW, map_size=10)


def show(worker, results, numbers):
    for k in numbers:
        worker.offer(candidate(k))
        results.wait(Kept, k + 1)
        if k:
            results.wait(Solved, k)


def test_a_wider_window_is_refined_after_one_that_is_full(worker, results, refining):
    show(worker, results, range(WINDOW))
    time.sleep(0.1)
    assert not refining.refined  # there is no more than the window
    worker.offer(candidate(3))
    plain, wider = results.wait(Solved, 4)[2:]
    assert (plain.again, wider.again) == (False, True)
    assert refining.refined == [['0 left', '1', '2', '3']]
    assert wider.keyframes == plain.keyframes and len(wider.keyframes) == WINDOW
    assert set(wider.seconds) == {'wider_window'}
    assert [k.id for k in wider.mapped.keyframes] == [0, 1, 2, 3]
    assert np.array_equal(wider.mapped.estimate.t[-WINDOW:], wider.estimate.t)
    assert not np.allclose(wider.estimate.t, plain.estimate.t)
    assert np.array_equal(wider.window_sigma, np.zeros(WINDOW))


def test_it_gives_way_to_what_is_new_and_nothing_of_the_window_is_lost(worker, results, refining):
    refining.pause = 60.0
    show(worker, results, range(6))
    end = time.monotonic() + 5
    while len(refining.refined) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not any(r.again for r in results if isinstance(r, Solved))
    refining.pause = 0.0
    worker.offer(candidate(6))
    last = results.wait(Solved, 7)[-1]
    assert last.again and [k.id for k in last.keyframes] == [4, 5, 6]
    # 1 and 2 have been in windows that were given up
    assert refining.refined[-1] == ['0 left', '1 left', '2 left', '4', '5', '6']


def test_where_it_fails_the_window_stands(worker, results, refining):
    refining.then = MemoryError('not for so many')
    show(worker, results, range(4))
    while worker.busy_since is not None:  # with the wider window of the last one
        time.sleep(0.01)
    refining.then = ValueError('something')
    worker.offer(candidate(4))
    (failed,) = results.wait(Failed)
    assert failed.again and failed.error == 'something'
    assert not any(r.again for r in results if isinstance(r, Solved))


def test_what_is_not_finite_is_told_to_no_wider_window(worker, results, refining):
    show(worker, results, range(3))
    refining.broken = True
    worker.offer(candidate(3))
    assert 'not finite' in results.wait(Failed)[0].error
    refining.broken = False
    worker.offer(candidate(4))
    assert results.wait(Solved, 4)[-1].again
    assert refining.refined == [['0 left', '1 left', '2', '3', '4']]


def test_without_a_map_there_is_none(worker, results):
    estimator = loaded(worker, Refining(), window=WINDOW)
    show(worker, results, range(5))
    worker.load(lambda: None, WINDOW, 2).result(5.0)  # after all that was under way
    assert not estimator.refined
