"""Cameras that nobody has calibrated: their focal length, told by matches while the node runs."""

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from test_node_solving import OfModel, Refining
from test_node_worker import Results, candidate, loaded, results, worker

from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.preparation import ASSUMED_FOCAL, assumed_camera
from ray_pose_ros.estimation.views import View
from ray_pose_ros.node.lenses import SETTLED, Lenses
from ray_pose_ros.node.work import Failed, Kept, Refocused, Solved
from ray_pose_ros.refinement.focal import HARDLY, Focal

__all__ = ['results', 'worker']  # fixtures
NATS = np.arange(7.0)
IMAGE = np.zeros((30, 40, 3), np.uint8)


@dataclass(frozen=True)
class Prepared:
    """What the worker and the lenses read of one."""

    name: str
    intrinsics_source: str
    focal: float

    def left(self, view):
        return self


def window(*ids, source='assumed'):
    return [Keyframe(i, 'camera', i, 'optical', Prepared(f'{i}', source, 1.0)) for i in ids]


def told(*windows, factor=1.2, sigma=0.1):
    lenses = Lenses()
    for ids in windows:
        lenses = lenses.after(window(*ids), Focal(factor, sigma, NATS))
    return lenses


def test_it_is_assumed_until_it_is_told():
    view = View(IMAGE)
    assert Lenses().on(view) is view and str(Lenses()) == 'assumed'
    hardly = told((0, 1, 2), sigma=HARDLY + 0.01)
    assert hardly.on(view) is view and not hardly.known
    known = told((0, 1, 2))
    seen = known.on(view)
    assert seen.camera_source == 'matches'
    assert float(seen.camera.matrix[0, 0]) == pytest.approx(1.2 * ASSUMED_FOCAL * 40)
    assert float(known.on(replace(seen, camera=assumed_camera(40, 30))).camera.matrix[0, 0]) == (
        pytest.approx(1.2 * ASSUMED_FOCAL * 40)
    )
    assert '1.2 times' in str(known) and '10 %' in str(known)
    calibrated = View(IMAGE, assumed_camera(40, 30))
    assert known.on(calibrated) is calibrated
    assert known.on('no view') == 'no view'


def test_windows_tell_it_together_and_overlapping_ones_replace_each_other():
    lenses = told((0, 1, 2, 3), (1, 2, 3, 4))
    assert len(lenses.told) == 1 and lenses.tries == 2
    lenses = told((0, 1, 2, 3), (3, 4, 5, 6))
    assert len(lenses.told) == 2
    np.testing.assert_array_equal(lenses.nats, 2 * NATS)
    np.testing.assert_array_equal(lenses.before(window(4, 5, 6, 7)), NATS)
    np.testing.assert_array_equal(lenses.before(window(7, 8, 9)), 2 * NATS)
    assert lenses.after(window(8, 9), None).told == lenses.told


def test_small_changes_and_doubtful_ones_are_not_taken_over():
    lenses = told((0, 1, 2), factor=1.2)
    near = lenses.after(window(3, 4, 5), Focal(1.205, 0.05, NATS))
    assert near.factor == 1.2 and near.sigma == 0.05
    doubtful = lenses.after(window(3, 4, 5), Focal(2.0, 0.3, NATS))
    assert doubtful.factor == 1.2 and doubtful.known
    assert lenses.after(window(3, 4, 5), Focal(1.3, 0.05, NATS)).factor == 1.3


def test_what_is_worth_a_look():
    blank = Lenses()
    assert not blank.wants(window(0, 1)) and blank.wants(window(0, 1, 2))
    assert not blank.wants(window(0, 1, 2, source='given'))
    assert not blank.wants(window(0, 1, 2, source='estimated'))
    hardly = told((0, 1, 2, 3), sigma=0.3)
    assert hardly.wants(window(1, 2, 3, 4)) and not hardly.urgent(window(1, 2, 3, 4))
    assert hardly.urgent(window(2, 3, 4, 5))
    known = told((0, 1, 2, 3))
    assert not known.wants(window(1, 2, 3, 4)) and known.wants(window(2, 3, 4, 5))
    assert not known.urgent(window(2, 3, 4, 5))
    enough = told(*((4 * k, 4 * k + 1, 4 * k + 2) for k in range(SETTLED)))
    assert enough.settled and not enough.wants(window(90, 91, 92))
    never = told(*((4 * k, 4 * k + 1, 4 * k + 2) for k in range(12)), sigma=0.3)
    assert never.settled and not never.known


class Telling(Refining):
    """Tells `factor` of the true focal length over the one it is shown; `then` is raised."""

    def __init__(self, factor=1.2, sigma=0.1):
        super().__init__()
        self.factor, self.sigma, self.asked, self.pause_focal = factor, sigma, [], 0.0
        self.focal_error = None

    def looks(self, prepared, progress=None):
        first = self.solve(prepared, progress)
        yield first
        yield replace(first, timings={'match': 0.1, 'refine': 0.1, **first.timings})

    def solve(self, prepared, progress=None):
        found = super().solve(prepared, progress)
        found.t[:] *= prepared[0].focal
        return OfModel(**vars(found))

    def prepare(self, view):
        super().prepare(view)
        source = 'assumed' if view.camera is None else view.camera_source
        focal = 1.0
        if view.camera is not None:
            focal = float(view.camera.matrix[0, 0]) / (ASSUMED_FOCAL * 8)
        return Prepared(view.name, source, focal)

    def refocused(self, prepared, view):
        return self.prepare(view)

    def focal(self, prepared, estimate, known, before, progress):
        self.asked.append((tuple(p.name for p in prepared), known))
        for _ in range(int(self.pause_focal / 0.01)):
            time.sleep(0.01)
            progress(1, 2)
        if self.focal_error:
            raise self.focal_error
        return Focal(self.factor, self.sigma, NATS)


def show(worker, results, numbers):
    for k in numbers:
        worker.offer(candidate(k))
        results.wait(Kept, k + 1)


def settle(worker):
    end = time.monotonic() + 5
    while worker.busy_since is not None or worker.waiting:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_window_is_solved_again_with_it_and_later_keyframes_have_it(worker, results):
    estimator = loaded(worker, Telling(), window=4, map_size=10)
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Solved, 2)
    settle(worker)
    assert not estimator.asked and not worker.lenses.known
    worker.offer(candidate(2))
    (words,) = (r.words for r in results.wait(Refocused))
    settle(worker)
    assert '1.2 times' in words
    solved = [r for r in results if isinstance(r, Solved)][2:]
    # with the assumed one first answer and better one, then only a better one, in a new map
    assert [r.again for r in solved] == [False, True, True]
    assert [k.prepared.focal for k in solved[-1].keyframes] == pytest.approx([1.2] * 3)
    assert [k.id for k in solved[-1].keyframes] == [k.id for k in solved[0].keyframes]
    assert all(k.view.camera_source == 'matches' for k in solved[-1].keyframes)
    assert [k.prepared.focal for k in solved[-1].mapped.keyframes] == pytest.approx([1.2] * 3)
    worker.offer(candidate(3))
    last = results.wait(Solved, 7)[-1]
    assert last.keyframes[-1].prepared.focal == pytest.approx(1.2)
    assert estimator.asked == [(('0', '1', '2'), 1.0)]


def test_it_is_looked_for_after_wider_windows_too(worker, results):
    estimator = loaded(worker, Telling(sigma=0.3), window=3, map_size=10)
    for k in range(5):
        worker.offer(candidate(k))
        results.wait(Kept, k + 1)
        settle(worker)
    assert [names for names, _ in estimator.asked] == [
        ('0', '1', '2'), ('1', '2', '3'), ('2', '3', '4'),
    ]  # fmt: skip
    assert estimator.refined  # those of the wider windows


def test_a_reset_keeps_it_unless_it_is_to_go(worker, results):
    loaded(worker, Telling(), window=4)
    worker.offer_all([candidate(k) for k in range(3)])
    results.wait(Refocused)
    settle(worker)
    worker.reset()
    assert worker.lenses.known
    worker.reset(lenses=True)
    assert not worker.lenses.known


def test_one_that_is_not_told_changes_nothing(worker, results):
    estimator = loaded(worker, Telling(sigma=0.3), window=4)
    worker.offer_all([candidate(k) for k in range(3)])
    results.wait(Solved, 2)
    settle(worker)
    assert len(estimator.asked) == 1 and worker.lenses.tries == 1
    assert not any(isinstance(r, Refocused) for r in results)
    assert len([r for r in results if isinstance(r, Solved)]) == 2


def test_a_reset_ends_the_search(worker, results):
    estimator = loaded(worker, Telling(), window=4)
    estimator.pause_focal = 60.0
    worker.offer_all([candidate(k) for k in range(3)])
    results.wait(Solved, 2)
    while not estimator.asked:
        time.sleep(0.01)
    worker.reset()
    settle(worker)
    assert worker.lenses.tries == 0


def test_newer_keyframes_wait_only_where_half_of_them_are_new(worker, results):
    estimator = loaded(worker, Telling(sigma=0.3), window=4)
    worker.offer_all([candidate(k) for k in range(3)])
    results.wait(Solved, 2)
    settle(worker)
    estimator.pause_focal = 60.0
    worker.offer(candidate(3))  # three of four keyframes were looked at before
    while len(estimator.asked) < 2:
        time.sleep(0.01)
    begin = time.monotonic()
    worker.offer(candidate(4))
    results.wait(Solved, 5)
    assert time.monotonic() - begin < 5.0


def test_where_it_fails_the_window_stands(worker, results):
    estimator = loaded(worker, Telling(), window=4)
    estimator.focal_error = ValueError('something')
    worker.offer_all([candidate(k) for k in range(3)])
    (failed,) = results.wait(Failed)
    assert failed.again and failed.error == 'something'
    estimator.focal_error = None
    worker.offer(candidate(3))
    results.wait(Refocused)


def test_calibrated_cameras_are_left_alone(worker, results):
    estimator = loaded(worker, Telling(), window=4)

    def calibrated(k):
        view = View(np.zeros((8, 8, 3), np.uint8), assumed_camera(8, 8), name=f'{k}')
        return replace(candidate(k), make_view=lambda: view)

    worker.offer_all([calibrated(k) for k in range(3)])
    assert isinstance(results, Results)
    results.wait(Solved, 2)
    settle(worker)
    assert not estimator.asked
