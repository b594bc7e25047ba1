"""The worker thread, without ROS messages: order, newest wins, reset, faults, stopping."""

import copy
import threading
import time
import weakref

import numpy as np
import pytest
from node_harness import FakeEstimator

from ray_pose_ros.estimation.views import View
from ray_pose_ros.node.work import Candidate, Failed, Kept, Refused, Solved
from ray_pose_ros.node.worker import Worker


class Results(list):
    """What was delivered, with a way to wait for it."""

    def wait(self, kind, count=1, timeout=5.0):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = [r for r in self if isinstance(r, kind)]
            if len(found) >= count:
                return found
            time.sleep(0.005)
        raise AssertionError(f'{count} {kind.__name__} expected, got {list(self)}')


@pytest.fixture
def results():
    return Results()


@pytest.fixture
def worker(results):
    out = Worker(results.append)
    yield out
    assert out.stop(5.0)


def candidate(number, broken=False):
    def make_view():
        if broken:
            raise ValueError('corrupt')
        return View(np.full((8, 8, 3), number, np.uint8), name=f'{number}')

    return Candidate('camera', '/camera/image_raw', number, 'optical', make_view)


def loaded(worker, estimator, window=3, least=2, **more):
    worker.load(lambda: estimator, window, least, **more).result(5.0)
    return estimator


def test_each_keyframe_is_prepared_once_and_the_window_slides(worker, results):
    estimator = loaded(worker, FakeEstimator())
    for k in range(5):
        worker.offer(candidate(k))
        results.wait(Kept, k + 1)
        if k:
            results.wait(Solved, k)
    assert [v.name for v in estimator.prepared] == list('01234')
    assert [[v.name for v in w] for w in estimator.solved] == [
        ['0', '1'], ['0', '1', '2'], ['1', '2', '3'], ['2', '3', '4']
    ]  # fmt: skip
    last = results.wait(Solved, 4)[-1]
    assert [k.id for k in last.keyframes] == [2, 3, 4]
    assert {'queue', 'decode', 'features', 'solve', 'denoise', 'recover'} <= set(last.seconds)


def test_newest_wins_and_a_burst_is_solved_once(worker, results):
    for k in range(2):  # nothing is loaded yet, the window is of the default two
        assert worker.offer(candidate(k)) is None
    assert worker.offer(candidate(2)).stamp_ns == 0
    assert worker.waiting == 2
    estimator = loaded(worker, FakeEstimator())
    results.wait(Solved)
    assert [v.name for v in estimator.prepared] == ['1', '2']
    assert len(estimator.solved) == 1


def test_images_are_let_go_once_they_are_keyframes(worker, results):
    """Those that came are as large as what was made of them, and the next ones may be far off."""
    loaded(worker, FakeEstimator())
    offered = [candidate(0), candidate(1)]
    kept = [weakref.ref(c) for c in offered]
    worker.offer_all(offered)
    offered.clear()
    results.wait(Solved)
    end = time.monotonic() + 5
    while any(c() for c in kept):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_bad_view_is_refused_and_the_others_go_on(worker, results):
    estimator = loaded(worker, FakeEstimator())
    for c in (candidate(0), candidate(1, broken=True), candidate(2)):
        worker.offer(c)
    refused = results.wait(Refused)[0]
    assert refused.reason == 'corrupt' and refused.candidate.stamp_ns == 1
    results.wait(Kept, 2)
    results.wait(Solved)
    assert [v.name for v in estimator.solved[-1]] == ['0', '2']


def test_a_failed_solve_keeps_the_keyframes(worker, results):
    estimator = loaded(worker, FakeEstimator())
    estimator.fail = RuntimeError('CUDA out of memory')
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    assert results.wait(Failed)[0].error == 'RuntimeError: CUDA out of memory'
    estimator.fail = None
    worker.offer(candidate(2))
    assert len(results.wait(Solved)[0].keyframes) == 3


def test_an_answer_that_is_not_finite_is_a_failure(worker, results):
    class Broken(FakeEstimator):
        def solve(self, prepared, progress=None):
            out = super().solve(prepared, progress)
            out.t[0, 0] = np.nan
            return out

    loaded(worker, Broken())
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    assert 'not finite' in results.wait(Failed)[0].error


def test_reset_abandons_the_solve_under_way(worker, results):
    estimator = loaded(worker, FakeEstimator(seconds=30))
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    while not estimator.solved:
        time.sleep(0.005)
    worker.reset()
    estimator.seconds = 0
    worker.offer(candidate(2))
    worker.offer(candidate(3))
    solved = results.wait(Solved)[0]
    assert [k.stamp_ns for k in solved.keyframes] == [2, 3]
    assert solved.epoch == worker.epoch == 1
    assert [k.id for k in solved.keyframes] == [2, 3]  # ids are not used again


class Twice(FakeEstimator):
    """Looks again, `pause` seconds long; raises `then` in the middle of it."""

    pause, then = 0.0, None

    def looks(self, prepared, progress=None):
        yield self.solve(prepared, progress)
        for _ in range(1 + int(self.pause / 0.01)):
            time.sleep(0.01)
            progress(1, 2)
        if self.then is not None:
            raise self.then
        yield self.solve(prepared, progress)


def test_a_better_answer_follows_the_first(worker, results):
    loaded(worker, Twice())
    worker.offer_all([candidate(0), candidate(1)])
    first, second = results.wait(Solved, 2)
    assert (first.again, second.again) == (False, True)
    assert first.keyframes == second.keyframes
    assert 'solve' in first.seconds and set(second.seconds) == {'second_look'}


def test_matching_that_was_given_up_is_not_told_of_what_comes_next(worker, results):
    told, go_on = [], threading.Event()

    class Matching(FakeEstimator):
        hangs = False

        def prepare(self, view):
            told.append(worker.matching)
            return super().prepare(view)

        def looks(self, prepared, progress=None):
            answer = self.solve(prepared, progress)
            answer.model = answer
            yield answer
            progress(12, 40)
            told.append(worker.matching)
            if self.hangs:
                go_on.wait(60.0)
            raise RuntimeError('something')

    estimator = loaded(worker, Matching())
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Failed)
    worker.offer(candidate(2))
    results.wait(Failed, 2)
    assert told == ['', '', '12 of 40 pairs', '', '12 of 40 pairs']
    estimator.hangs = True
    worker.offer(candidate(3))
    while len(told) < 7:
        time.sleep(0.005)
    worker.restart()
    loaded(worker, FakeEstimator()).prepare = lambda view: told.append(worker.matching)
    worker.offer(candidate(4))
    while len(told) < 8:
        time.sleep(0.005)
    go_on.set()
    assert told[5:] == ['', '12 of 40 pairs', '']


def test_nobody_waits_for_a_second_look_once_there_is_something_new(worker, results):
    estimator = loaded(worker, Twice())
    estimator.pause = 60.0
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Solved)
    start = time.monotonic()
    worker.offer(candidate(2))
    newest = results.wait(Solved, 2)[1]
    assert time.monotonic() - start < 5
    assert not newest.again and [k.stamp_ns for k in newest.keyframes] == [0, 1, 2]
    worker.reset()  # nor after that
    estimator.pause = 0.0
    worker.offer_all([candidate(3), candidate(4)])
    assert [r.again for r in results.wait(Solved, 4)[2:]] == [False, True]


def test_newer_keyframes_wait_for_a_better_answer_as_long_as_they_may(worker, results):
    estimator = loaded(worker, Twice(), patience=0.3)
    estimator.pause = 60.0
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Solved)
    start = time.monotonic()
    worker.offer(candidate(2))
    assert [r.again for r in results.wait(Solved, 2)] == [False, False]
    assert 0.25 < time.monotonic() - start < 5
    estimator.pause = 0.05  # less than they may wait
    worker.offer(candidate(3))
    worker.offer(candidate(4))
    assert any(r.again for r in results.wait(Solved, 4))


def test_a_task_waits_for_no_better_answer(worker, results):
    estimator = loaded(worker, Twice(), patience=60.0)
    estimator.pause = 60.0
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Solved)
    worker.release().result(5.0)


def test_the_time_of_matching_is_told_by_its_own_name(worker, results):
    estimator = Twice()
    loaded(worker, estimator)
    first = estimator.looks

    def looks(prepared, progress=None):
        early, later = first(prepared, progress)
        yield early
        for seconds in 1.0, 2.0:  # of a few pairs, and of all
            matched = {'match': seconds, 'refine': 0.5}
            between = copy.copy(early)
            between.timings = {**early.timings, **matched}
            yield between
        later.timings = {**later.timings, **matched}
        yield later

    estimator.looks = looks
    worker.offer_all([candidate(0), candidate(1)])
    _, *matched, last = results.wait(Solved, 4)
    assert [m.seconds for m in matched] == [{'match': x, 'refine': 0.5} for x in (1.0, 2.0)]
    assert all(m.again for m in matched)
    assert last.again and set(last.seconds) == {'second_look'}


def test_a_second_look_that_fails_is_told_from_a_first_one(worker, results):
    estimator = loaded(worker, Twice())
    estimator.then = RuntimeError('something')
    worker.offer_all([candidate(0), candidate(1)])
    assert results.wait(Failed)[0] == Failed(0, 'RuntimeError: something', True)
    estimator.fail = RuntimeError('else')
    worker.offer(candidate(2))
    assert results.wait(Failed, 2)[1] == Failed(0, 'RuntimeError: else', False)


def test_a_window_is_solved_again_without_new_keyframes(worker, results):
    estimator = loaded(worker, FakeEstimator())
    worker.solve_again()  # there is none yet
    estimator.fail = RuntimeError('something')
    worker.offer_all([candidate(0), candidate(1)])
    results.wait(Failed)
    estimator.fail = None
    worker.solve_again()
    solved = results.wait(Solved)[0]
    assert [k.stamp_ns for k in solved.keyframes] == [0, 1] and not solved.again
    assert len(estimator.prepared) == 2 and len(estimator.solved) == 2


def test_loading_says_what_went_wrong_and_can_be_repeated(worker):
    def broken():
        raise FileNotFoundError('no weights')

    with pytest.raises(FileNotFoundError, match='no weights'):
        worker.load(broken, 3, 2).result(5.0)
    assert worker.alive
    loaded(worker, FakeEstimator())
    assert worker.device == 'fake'


def test_release_drops_the_model_and_candidates_wait_for_the_next(worker, results):
    first = loaded(worker, FakeEstimator())
    worker.release().result(5.0)
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    time.sleep(0.05)
    assert not first.prepared and worker.waiting == 2
    second = loaded(worker, FakeEstimator())
    results.wait(Solved)
    assert len(second.prepared) == 2


def test_stop_during_a_solve_is_quick(results):
    worker = Worker(results.append)
    estimator = loaded(worker, FakeEstimator(seconds=30))
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    while not estimator.solved:
        time.sleep(0.005)
    start = time.monotonic()
    assert worker.stop(5.0)
    assert time.monotonic() - start < 1.0 and not worker.alive


def test_stop_does_not_wait_for_a_model_that_hangs(results):
    worker = Worker(results.append)
    begun, hang = threading.Event(), threading.Event()
    worker.load(lambda: (begun.set(), hang.wait()), 3, 2)
    assert begun.wait(5.0)
    assert not worker.stop(0.05)
    hang.set()
    assert worker.stop(5.0)


def test_stop_waits_for_a_thread_that_is_coming_back(results):
    """Given up as hung, but ending just now: the process may be tidied up after it."""
    worker = Worker(results.append)
    begun = threading.Event()
    worker.load(lambda: (begun.set(), time.sleep(0.15)), 3, 2)
    assert begun.wait(5.0)
    worker.restart()
    assert worker.lost == 1
    assert worker.stop(5.0) and worker.lost == 0
