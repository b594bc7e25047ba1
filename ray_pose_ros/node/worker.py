"""
The one thread that owns the model: prepares keyframes, solves windows. No ROS import.

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

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Any

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import KeyframeBuffer
from ray_pose_ros.node.economy import Economy, give_back
from ray_pose_ros.node.lenses import Lenses, learned
from ray_pose_ros.node.solving import Answer, answers
from ray_pose_ros.node.work import (
    Abandoned,
    Candidate,
    Clouded,
    Failed,
    Kept,
    Refocused,
    Refused,
    Result,
    Solved,
    WorkerLost,
)

CLOUD_S = 3.0  # between two clouds of points, where newer keyframes wait
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
        self._stopping = False
        self._economy: Economy | None = None
        self._buffer = KeyframeBuffer(2)
        self._window_size, self._min_views = 2, 2
        self._map: KeyframeMap | None = None
        self._patience = 0.0
        self._lenses = Lenses()
        self._points, self._clouded = False, -math.inf
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
        return self._lenses

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
                self._buffer.resize(window_size)
                self._window_size, self._min_views = window_size, min_views
                self._patience, self._points = patience, points
                if map_size != (0 if self._map is None else self._map.size):
                    self._map = KeyframeMap(map_size) if map_size else None
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

    def reset(self, lenses: bool = False) -> None:
        """Forget all keyframes and candidates, and what they told of the lenses if that is to be
        forgotten, too; a result under way is void."""
        with self._wake:
            self._epoch += 1
            if lenses:
                self._lenses = Lenses()
            self._pending.clear()
            self._buffer.clear()
            self._clear_map()

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
            self._clear_map()  # the thread that is left alone may be at it
            self.loading = False
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

    def _clear_map(self) -> None:
        if self._map is not None:
            self._map = KeyframeMap(self._map.size)

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
                turn = generation, self._epoch, self._released
                economy, future = self._economy, self._running
                self.busy_since = self._moved = time.monotonic()
            if task:
                self._do(task, future, generation)
            else:
                self._advance(economy, batch, turn)
            del economy  # what is released meanwhile must not be held on to here
            with self._wake:
                if self._generation == generation:
                    self.busy_since = self._running = None

    def _has_work(self) -> bool:
        return self._stopping or bool(self._tasks) or bool(self._pending and self._economy)

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

    def _void(self, turn: tuple) -> bool:
        return self._stopping or turn != (self._generation, self._epoch, self._released)

    def _check(self, turn: tuple, since: float | None = None) -> None:
        """
        Between two steps of an estimate: leave when nobody waits for the answer any more.

        `since`: when a first answer was delivered. A better one is not worth more than patience
        when there are newer keyframes, and none when there is a task.
        """
        now = time.monotonic()
        better = since is not None
        late = better and now - since >= self._patience
        if self._void(turn) or (better and self._tasks) or (late and self._pending):
            raise Abandoned
        self._moved = now

    def _advance(self, economy: Economy, batch: list[Candidate], turn: tuple) -> None:
        """Prepare the new keyframes, each once, then solve the window, once."""
        epoch = turn[1]
        newest, seconds = None, {}
        for candidate in batch:
            if self._void(turn):
                return
            self._moved = start = time.monotonic()
            try:
                view = self._lenses.on(candidate.make_view())
                decoded = time.monotonic()
                prepared = economy.prepare(view)
            except Exception as error:  # any input may be bad; say so, go on
                self._hand_over(Refused(epoch, candidate, _words(error)), turn)
                continue
            done = time.monotonic()
            seconds = {
                'queue': start - candidate.received,
                'decode': decoded - start,
                'features': done - decoded,
            }
            with self._wake:
                if self._void(turn):
                    return
                keyframe = self._buffer.add(
                    candidate.camera, candidate.stamp_ns, candidate.frame_id, prepared, view
                )
            newest = candidate
            self._hand_over(Kept(epoch, keyframe, seconds), turn)
        with self._wake:
            window, map_ = self._buffer.window(), self._map
        if newest is None or len(window) < self._min_views or self._void(turn):
            return
        answer = self._solve(economy, window, map_, newest.received, seconds, turn)
        if answer is None or not self._refocus(economy, answer, turn):
            return
        with self._wake:
            window, map_ = self._buffer.window(), self._map
        if not self._void(turn):
            self._solve(economy, window, map_, newest.received, {}, turn, again=True)

    def _solve(
        self, economy: Economy, window, map_, received, seconds, turn: tuple, again: bool = False
    ) -> Answer | None:
        """
        Solve a window; its newest image was `received` then, and `seconds` since are told.

        `again`: it was solved before, so its first answer, which is not the best one, is kept
        back. Returns the last answer that counts, None where there is none.
        """
        self._moved = time.monotonic()
        since = None  # when the first answer was there
        last = None
        try:
            with closing(
                answers(economy, window, map_, lambda *_: self._check(turn, since))
            ) as found:
                for answer in found:
                    if self._void(turn):
                        return None
                    better = since is not None
                    told = answer.seconds if better else {**seconds, **answer.seconds}
                    what = answer.keyframes, answer.estimate, told, received, economy.words
                    own = answer.window_sigma
                    if better or not again:
                        more = better or again, answer.mapped, own
                        self._hand_over(Solved(turn[1], *what, *more), turn)
                    since, last = since or time.monotonic(), answer
                    self._check(turn, since)
        except Abandoned:
            pass
        except Exception as error:  # the node must outlive a failed inference
            self._hand_over(Failed(turn[1], _words(error), again or since is not None), turn)
        if last is None or self._void(turn):
            return None
        self._cloud(last, turn)
        return last

    def _cloud(self, answer: Answer, turn: tuple) -> None:
        """Deliver the points that an answer's matches show, not too often."""
        of = answer.mapped or answer
        begin = time.monotonic()
        soon = bool(self._pending) and begin - self._clouded < CLOUD_S
        if soon or not self._points or not getattr(of.estimate, 'ray_matches', None):
            return
        from ray_pose_ros.estimation.cloud import cloud_of_keyframes

        try:
            cloud = cloud_of_keyframes(of.keyframes, of.estimate)
        except Exception as error:
            self._hand_over(Failed(turn[1], _words(error), again=True), turn)
            return
        self._moved = self._clouded = time.monotonic()
        newest = max(k.stamp_ns for k in answer.keyframes)
        seconds = {'points': self._clouded - begin}
        self._hand_over(Clouded(turn[1], cloud.xyz, cloud.rgb, newest, seconds), turn)

    def _refocus(self, economy: Economy, answer: Answer, turn: tuple) -> bool:
        """
        Have matches tell the focal length of cameras that nobody has calibrated.

        Where it is another one than was thought, the window's keyframes are prepared with it, the
        map is told, and True is returned. Until it is known, newer keyframes wait for this.
        """
        keyframes, lenses = answer.keyframes, self._lenses
        if answer.model is None or not lenses.wants(keyframes):
            return False
        # so that it is left for any other work, where it can wait
        since = None if lenses.urgent(keyframes) else -math.inf
        try:
            self._check(turn, since)
            window = self._buffer.window()
            lenses, others = learned(
                lenses, economy, keyframes, answer.model, window, lambda: self._check(turn, since)
            )
        except Abandoned:
            return False
        except Exception as error:
            self._hand_over(Failed(turn[1], _words(error), again=True), turn)
            return False
        with self._wake:
            if self._void(turn):
                return False
            longer = lenses.factor / self._lenses.factor
            self._lenses = lenses
            if others:
                self._buffer.exchange(others)
                if self._map is not None:
                    self._map.refocus(others, longer)
        if others:
            self._hand_over(Refocused(turn[1], str(lenses)), turn)
        return bool(others)

    def _hand_over(self, result: Result, turn: tuple) -> None:
        """Deliver what a thread found out that has not been given up since."""
        if turn[0] == self._generation:
            self._deliver(result)


def _words(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    kind = type(error).__name__
    first = text[0] if text else ''
    return first if first and isinstance(error, ValueError) else f'{kind}: {first}'
