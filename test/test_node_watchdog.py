"""A worker that hangs or dies: given up and replaced, in the node too; and what is never lost."""

import itertools
import threading
import time

import pytest
from node_harness import (
    CAMERA,
    EVERY_FRAME,
    IMAGES,
    SECOND,
    FakeEstimator,
    save_tiny_model,
    show,
    starter,
)
from test_node_worker import Results, candidate, loaded

from ray_pose_ros.matching import create_matcher
from ray_pose_ros.node import managed_model
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.settings import make_settings
from ray_pose_ros.node.watchdog import MOST_LOST, Watchdog
from ray_pose_ros.node.work import Kept, Solved, WorkerLost
from ray_pose_ros.node.worker import Worker
from ray_pose_ros.refinement import crew

start = pytest.fixture(starter)
NUMBERS = itertools.count()


def own_name():
    """Name a node as none was before: ROS forgets one of this process late, and it is warned."""
    return {'name': f'watched_{next(NUMBERS)}'}


class Hanging(FakeEstimator):
    """Hangs in `solve` or `prepare` without any progress, until the event is set."""

    def __init__(self, where='solve'):
        super().__init__()
        self.hang, self.where, self.begun = threading.Event(), where, threading.Event()

    def _wait(self, here):
        if here == self.where:
            self.begun.set()
            self.hang.wait()

    def prepare(self, view):
        self._wait('prepare')
        return super().prepare(view)

    def solve(self, prepared, progress=None):
        self._wait('solve')
        return super().solve(prepared, progress)


@pytest.fixture
def results():
    return Results()


@pytest.fixture
def worker(results):
    out = Worker(results.append)
    yield out
    assert out.stop(5.0)


def until(condition, timeout=10.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize('where', ['solve', 'prepare'])
def test_a_thread_that_was_given_up_says_nothing_any_more(worker, results, where):
    stuck = loaded(worker, Hanging(where))
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    assert stuck.begun.wait(5)
    until(lambda: worker.idle_s > 0.05)
    worker.restart()
    assert worker.lost == 1 and worker.alive and worker.idle_s == 0
    fresh = loaded(worker, FakeEstimator())
    worker.offer(candidate(2))
    worker.offer(candidate(3))
    solved = results.wait(Solved)[0]
    kept = len(results.wait(Kept, 2))
    stuck.hang.set()
    until(lambda: worker.lost == 0)
    # the keyframes of before are still there; what hung is gone and does not come back
    assert [k.stamp_ns for k in solved.keyframes][-2:] == [2, 3]
    assert len(fresh.solved) == 1 and len([r for r in results if isinstance(r, Solved)]) == 1
    assert len([r for r in results if isinstance(r, Kept)]) == kept
    worker.offer(candidate(4))
    ids = [k.id for k in results.wait(Solved, 2)[-1].keyframes]
    assert ids == sorted(set(ids))


class HangingMatcher:
    """SIFT that hangs in `extract`, until the event is set."""

    name = 'sift'

    def __init__(self):
        self.hang, self.begun = threading.Event(), threading.Event()
        self.match = create_matcher('sift').match

    def extract(self, image, mask=None):
        self.begun.set()
        self.hang.wait()
        return create_matcher('sift').extract(image, mask)


def test_a_matcher_that_hangs_is_noticed_and_holds_no_keyframe(
    worker, results, tmp_path, monkeypatch
):
    monkeypatch.setattr(crew, '_STILL_S', 0.1)
    model = {'checkpoint': save_tiny_model(tmp_path / 'model'), 'device': 'cpu'}
    settings = make_settings(model | {'matcher': 'sift'})
    stuck, matcher = make_estimator(settings), HangingMatcher()
    stuck.matchers[:] = [matcher]
    loaded(worker, stuck, map_size=50)
    try:
        worker.offer_all([candidate(0), candidate(1)])
        assert matcher.begun.wait(10)
        until(lambda: worker.idle_s > 0.3)
        worker.restart()
        loaded(worker, make_estimator(settings), map_size=50)
        worker.offer(candidate(2))
        matched = [r for r in results.wait(Solved, 3) if r.again]
        assert [k.stamp_ns for k in matched[0].keyframes] == [0, 1, 2]
    finally:
        matcher.hang.set()
    until(lambda: worker.lost == 0)


def test_loading_that_hangs_is_answered(worker):
    hang = threading.Event()
    future = worker.load(lambda: hang.wait() and FakeEstimator(), 3, 2)
    until(lambda: worker.loading)
    worker.restart()
    with pytest.raises(WorkerLost):
        future.result(5)
    hang.set()
    until(lambda: worker.lost == 0)
    assert loaded(worker, FakeEstimator()) and worker.device == 'fake'


def test_progress_is_a_sign_of_life(worker):
    estimator = loaded(worker, FakeEstimator(seconds=0.5))
    worker.offer(candidate(0))
    worker.offer(candidate(1))
    until(lambda: estimator.solved)
    dog = Watchdog(lambda text: None)
    while worker.busy_since:
        assert not dog.look(worker, 0.3)
        time.sleep(0.02)
    assert dog.restarts == 0


def test_work_that_begins_after_a_long_rest_has_not_hung(results):
    begun = []

    class Watched(Worker):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == 'busy_since' and value:
                begun.append(self._moved >= value)  # as the watchdog may see it right then

    worker = Watched(results.append)
    loaded(worker, FakeEstimator())
    assert worker.stop(5.0) and begun == [True]


class Stub:
    """A worker as the watchdog sees it."""

    alive, stopping, loading, device = True, False, False, 'cuda'
    idle_s, lost, restarted = 0.0, 0, 0

    def restart(self):
        self.restarted += 1
        self.lost += 1


def test_how_long_is_too_long():
    worker, dog = Stub(), Watchdog(lambda text: None)
    for idle, device, loading, hung in (
        (59, 'cuda', False, False),
        (61, 'cuda', False, True),
        (61, 'cpu', False, False),
        (601, 'cpu', False, True),
        (61, 'cuda', True, False),
        (601, 'cuda', True, True),
    ):
        worker.idle_s, worker.device, worker.loading, worker.lost = idle, device, loading, 0
        assert dog.look(worker, 60.0) == hung, (idle, device, loading)
    worker.idle_s = 1e6
    assert not dog.look(worker, 0.0)
    worker.alive = False
    assert dog.look(worker, 0.0) and 'died' in dog.trouble
    worker.stopping = True
    assert not dog.look(worker, 0.0)


def test_it_gives_up_before_memory_is_full_and_takes_heart_again():
    said = []
    worker, dog = Stub(), Watchdog(said.append)
    worker.idle_s = 100.0
    for _ in range(10):
        dog.look(worker, 1.0)
    assert worker.restarted == MOST_LOST and dog.gave_up
    assert 'restart the process' in dog.trouble and len(said) == MOST_LOST + 1
    worker.lost = 1  # one of them has returned
    assert dog.look(worker, 1.0) and not dog.gave_up


# -- in the node --------------------------------------------------------------------------------


def estimate_level(harness):
    return harness.client.levels.get(f'{harness.client.name}: estimate', (b'', ''))


def test_a_model_that_hangs_is_said_and_replaced(start):
    stuck, fresh = Hanging(), FakeEstimator()
    models = iter([stuck, fresh])
    harness = start(
        lambda settings: next(models), EVERY_FRAME | {'watchdog_timeout': 0.5}, **own_name()
    )
    try:
        show(harness, range(2))
        assert stuck.begun.wait(20)
        assert harness.until(lambda: 'has hung for' in estimate_level(harness)[1])
        assert harness.diagnosed('worker restarts', '1')
        assert harness.diagnosed('worker threads given up', '1')
        assert harness.trigger('capture').success  # alive meanwhile
        assert harness.diagnosed('model', 'ready')
        show(harness, [2])
        assert harness.until(lambda: harness.count == 3)  # with the keyframes of before
        assert harness.until(lambda: estimate_level(harness)[0] == b'\x00'), estimate_level(
            harness
        )
        told = len(harness.client.poses)
    finally:
        stuck.hang.set()
    harness.until(lambda: False, 0.3)
    assert len(harness.client.poses) == told  # nothing from the thread that was given up
    assert harness.diagnosed('worker threads given up', '0')


def test_a_scene_that_stands_still_is_solved_by_the_next_worker(start):
    """None of its images would become a keyframe again by what it shows."""
    stuck = Hanging()
    models = iter([stuck, FakeEstimator()])
    parameters = EVERY_FRAME | {'keyframe_min_change': 0.05, 'watchdog_timeout': 0.5}
    harness = start(lambda settings: next(models), parameters, **own_name())
    try:
        show(harness, range(2))
        assert stuck.begun.wait(20)
        assert harness.diagnosed('worker restarts', '1')
        assert harness.diagnosed('model', 'ready')
        harness.client.show(IMAGES[1], 102 * SECOND, CAMERA)
        assert harness.until(lambda: harness.count == 3, 5.0)
        harness.client.show(IMAGES[1], 103 * SECOND, CAMERA)
        assert harness.diagnosed('dropped: unchanged', '1')
    finally:
        stuck.hang.set()


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_worker_that_dies_is_said_and_replaced(start):
    class Deadly(FakeEstimator):
        def solve(self, prepared, progress=None):
            raise SystemExit('from within a library')

    models = iter([Deadly(), FakeEstimator()])
    harness = start(lambda settings: next(models), EVERY_FRAME, **own_name())
    show(harness, range(2))
    assert harness.until(lambda: 'worker thread has died' in estimate_level(harness)[1])
    assert harness.diagnosed('model', 'ready')
    show(harness, [2])
    assert harness.until(lambda: harness.count == 3)


def test_a_model_that_cannot_be_loaded_again_is_tried_until_it_can(start, monkeypatch):
    """The checkpoint was unmounted when the worker had to be replaced, and comes back."""
    monkeypatch.setattr(managed_model, 'RELOAD_S', 0.3)
    stuck, tries = Hanging(), []

    def factory(settings):
        tries.append(time.monotonic())
        if len(tries) == 1:
            return stuck
        if len(tries) < 4:
            raise FileNotFoundError('the weights are gone')
        return FakeEstimator()

    harness = start(factory, EVERY_FRAME | {'watchdog_timeout': 0.5}, **own_name())
    try:
        show(harness, range(2))
        assert stuck.begun.wait(20)
        assert harness.until(lambda: harness.node.health.model_error is not None)
        show(harness, [2])
        assert harness.until(lambda: harness.count == 3)
        assert len(tries) == 4 and min(b - a for a, b in zip(tries[1:], tries[2:])) > 0.25
        assert harness.until(lambda: estimate_level(harness)[0] == b'\x00'), estimate_level(
            harness
        )
    finally:
        stuck.hang.set()


def test_configure_does_not_wait_for_ever(start):
    from lifecycle_msgs.msg import Transition
    from test_node_lifecycle import change, label

    hang = threading.Event()
    models = iter([lambda: hang.wait() and FakeEstimator(), FakeEstimator])
    harness = start(
        lambda settings: next(models)(),
        {'autostart': False, 'watchdog_timeout': 0.03},
        ready=False,
    )
    try:
        assert not change(harness, Transition.TRANSITION_CONFIGURE)
        assert label(harness) == 'unconfigured'
        assert harness.until(lambda: 'loading the model has hung' in estimate_level(harness)[1])
        assert change(harness, Transition.TRANSITION_CONFIGURE)
    finally:
        hang.set()
