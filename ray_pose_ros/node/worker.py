"""
The one thread that owns the model, and its queues; what it does is in `pipeline`. No ROS import.

Newest wins: candidates wait in a queue no longer than the window, the oldest gives way, and the
window is solved once for all that came meanwhile. So every keyframe that can still matter is used
and the thread never falls behind the cameras. Better answers that an estimator finds by looking a
second time, or by matching, are delivered after the first one, and given up when newer keyframes
have waited for as long as they may.

A thread cannot be ended from outside. One that hangs is left alone: `restart` begins another, with
the same keyframes and no model, and whatever the old one still comes up with is void. Until it
returns, if it ever does, its model stays in memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ray_pose_ros.node.economy import Economy, give_back
from ray_pose_ros.node.lenses import Lenses
from ray_pose_ros.node.pipeline import Pipeline, Turn
from ray_pose_ros.node.work import Abandoned, Candidate, Result, WorkerLost

_GRACE_S = 0.5  # for a thread that was given up and may be ending just now
Task = Callable[[Callable[[], bool]], None]  # is given a way to ask whether it still counts


class Worker:
    """The thread and its queues. All methods may be called from any thread but the worker's."""

    def __init__(self, deliver: Callable[[Result], None]) -> None:
        self._deliver = deliver
        self._wake = threading.Condition()
        self._tasks: deque[tuple[Task, Future]] = deque()
        self._pending: deque[Candidate] = deque()
        self._running: Future | None = None
        self._epoch = self._generation = self._released = 0
        self._stopping = self._again = False
        self._economy: Economy | None = None
        self._pipeline = Pipeline(self._wake)
        self._window_size, self._patience = 2, 0.0
        self._lost: list[threading.Thread] = []
        self._moved = 0.0
        self.busy_since: float | None = None
        self.loading = False
        self.device = ''
        self._begin()

    def _begin(self) -> None:
        self._moved = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(self._generation,), name='ray_pose_worker', daemon=True
        )
        self._thread.start()

    @property
    def epoch(self) -> int:
        """Number of resets so far."""
        return self._epoch

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether the thread was told to end."""
        return self._stopping

    @property
    def lost(self) -> int:
        """Threads that were given up and have not ended since."""
        self._lost = [t for t in self._lost if t.is_alive()]
        return len(self._lost)

    @property
    def idle_s(self) -> float:
        """Seconds without a sign of life from work that is under way; 0 when there is none."""
        return time.monotonic() - self._moved if self.busy_since is not None else 0.0

    @property
    def lenses(self) -> Lenses:
        """What is known of the focal length of cameras that nobody has calibrated."""
        return self._pipeline.lenses

    @property
    def matching(self) -> str:
        """How far the matching of keyframes is, in words; '' while nothing is matched."""
        pairs = self._pipeline.pairs if self.busy_since is not None else None
        return '{} of {} pairs'.format(*pairs) if pairs else ''

    @property
    def waiting(self) -> int:
        """Candidates in the queue."""
        return len(self._pending)

    def load(
        self,
        make_estimator: Callable[[], Any],
        window_size: int,
        min_views: int,
        map_size: int = 0,
        patience: float = 0.0,
        points: bool = False,
    ) -> Future:
        """
        Make the estimator on the worker's thread; the Future carries what that raised.

        With a `map_size` windows are joined; with 0 each has a world of its own. `patience`:
        seconds after a first answer in which newer keyframes wait for the better ones. `points`:
        deliver a Clouded after answers.
        """

        def task(counts: Callable[[], bool]) -> None:
            with self._wake:
                self._window_size, self._patience = window_size, patience
                self._pipeline.configure(window_size, min_views, map_size, points)
                self.loading = self._economy is None
            if not self.loading:
                return
            try:
                estimator = make_estimator()
            finally:
                if counts():
                    self.loading = False
            with self._wake:
                if counts():
                    self._economy = Economy(estimator)
                    self.device = str(getattr(estimator, 'device', 'unknown'))

        return self._submit(task)

    def release(self) -> Future:
        """Drop the model and give its memory back; keyframes stay, a solve under way ends."""

        def task(counts: Callable[[], bool]) -> None:
            self._economy = None
            give_back()

        with self._wake:
            self._released += 1
        return self._submit(task)

    def offer(self, candidate: Candidate) -> Candidate | None:
        """Queue a candidate; returns the older one that had to give way to it, if any."""
        with self._wake:
            evicted = None
            if len(self._pending) >= self._window_size:
                evicted = self._pending.popleft()
            self._pending.append(candidate)
            self._wake.notify()
            return evicted

    def offer_all(self, candidates: list[Candidate]) -> int:
        """Queue candidates that belong together; returns how many older ones had to give way."""
        with self._wake:  # not released in between: they are taken as one batch
            return sum(self.offer(c) is not None for c in candidates)

    def solve_again(self) -> None:
        """Solve the window once more, without new keyframes."""
        with self._wake:
            self._again = True
            self._wake.notify()

    def reset(self, lenses: bool = False) -> None:
        """Forget all keyframes and candidates, and what they told of the lenses if that is to be
        forgotten, too; a result under way is void."""
        with self._wake:
            self._epoch += 1
            self._pending.clear()
            self._pipeline.forget(lenses)

    def drop_pending(self) -> int:
        """Forget the candidates only; returns how many there were."""
        with self._wake:
            count = len(self._pending)
            self._pending.clear()
            return count

    def restart(self) -> None:
        """Give the thread up, dead or alive, and begin another; its model has to be loaded."""
        with self._wake:
            self._generation += 1
            self._lost.append(self._thread)
            futures = [future for _, future in self._tasks]
            if self._running is not None:
                futures.append(self._running)
            self._tasks.clear()
            self._economy, self._running, self.busy_since = None, None, None
            self._pipeline.leave()
            self.loading = False
            self._wake.notify_all()  # the old thread, so that it takes nobody else's call
        for future in futures:
            if not future.done():
                future.set_exception(WorkerLost('the worker thread was given up'))
        self._begin()

    def stop(self, timeout: float) -> bool:
        """End the thread after the step it is at; False when that takes longer than `timeout`."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)
        for thread in self._lost:  # one that is just coming back
            thread.join(_GRACE_S)
        return not self._thread.is_alive() and not self.lost

    # -- on the worker's thread -----------------------------------------------------------------

    def _submit(self, task: Task) -> Future:
        future: Future = Future()
        with self._wake:
            self._tasks.append((task, future))
            self._wake.notify()
        return future

    def _run(self, generation: int) -> None:
        while True:
            with self._wake:
                while self._generation == generation and not self._has_work():
                    self._wake.wait()
                if self._generation != generation or self._stopping:
                    return
                task, self._running = self._tasks.popleft() if self._tasks else (None, None)
                batch = [] if task else list(self._pending)
                if not task:
                    self._pending.clear()
                    self._again = False
                key = generation, self._epoch, self._released
                economy, future = self._economy, self._running
                self._moved = self.busy_since = time.monotonic()  # in this order, see idle_s
            if task:
                self._do(task, future, generation)
            else:
                self._pipeline.advance(economy, batch, self._turn(key))
            del economy, batch  # what is released or used up must not be held on to here
            with self._wake:
                if self._generation == generation:
                    self.busy_since = self._running = None

    def _has_work(self) -> bool:
        wanted = self._pending or self._again
        return self._stopping or bool(self._tasks) or bool(wanted and self._economy)

    def _do(self, task: Task, future: Future, generation: int) -> None:
        if not future.set_running_or_notify_cancel():
            return
        error = None
        try:
            task(lambda: self._generation == generation)
        except BaseException as raised:  # the caller decides what it means
            error = raised
        with self._wake:
            if self._generation != generation:
                return  # restart() has answered
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _turn(self, key: tuple) -> Turn:
        return Turn(
            epoch=key[1],
            void=lambda: self._void(key),
            check=lambda since: self._check(key, since),
            moved=self._move,
            newer=lambda: bool(self._pending),
            deliver=lambda result: self._hand_over(result, key),
        )

    def _move(self) -> None:
        self._moved = time.monotonic()

    def _void(self, key: tuple) -> bool:
        return self._stopping or key != (self._generation, self._epoch, self._released)

    def _check(self, key: tuple, since: float | None = None) -> None:
        """
        Between two steps of an estimate: leave when nobody waits for the answer any more.

        `since`: when a first answer was delivered. A better one is not worth more than patience
        when there are newer keyframes, and none when there is a task.
        """
        now = time.monotonic()
        better = since is not None
        late = better and now - since >= self._patience
        if self._void(key) or (better and self._tasks) or (late and self._pending):
            raise Abandoned
        self._moved = now

    def _hand_over(self, result: Result, key: tuple) -> None:
        """Deliver what a thread found out that has not been given up since."""
        if key[0] == self._generation:
            self._deliver(result)
