"""
The one thread that owns the model: prepares keyframes, solves windows. No ROS import.

Newest wins: candidates wait in a queue no longer than the window, the oldest gives way, and the
window is solved once for all that came meanwhile. So every keyframe that can still matter is used
and the thread never falls behind the cameras.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ray_pose_ros.estimation.keyframes import Keyframe, KeyframeBuffer


@dataclass(frozen=True)
class Candidate:
    """A frame that passed the gate; `make_view` decodes it, on the worker's thread."""

    camera: str
    topic: str
    stamp_ns: int
    frame_id: str
    make_view: Callable[[], Any]
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Result:
    """What the worker hands back; `epoch` tells results from before a reset."""

    epoch: int


@dataclass(frozen=True)
class Kept(Result):
    """A candidate became a keyframe."""

    keyframe: Keyframe
    seconds: dict[str, float]


@dataclass(frozen=True)
class Refused(Result):
    """A candidate turned out to be unusable."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Solved(Result):
    """A window was solved; `seconds` splits the time since its newest image was received."""

    keyframes: tuple[Keyframe, ...]
    estimate: Any
    seconds: dict[str, float]
    received: float


@dataclass(frozen=True)
class Failed(Result):
    """A window could not be solved; the keyframes stay and the next one tries again."""

    error: str


class Abandoned(Exception):  # no error
    """The answer under way is void: reset, or the worker is to stop."""


class Worker:
    """The thread and its queues. All methods may be called from any thread but the worker's."""

    def __init__(self, deliver: Callable[[Result], None]) -> None:
        self._deliver = deliver
        self._wake = threading.Condition()
        self._tasks: deque[tuple[Callable[[], None], Future]] = deque()
        self._pending: deque[Candidate] = deque()
        self._epoch = 0
        self._stopping = False
        self._estimator = None
        self._buffer = KeyframeBuffer(2)
        self._window_size, self._min_views = 2, 2
        self.busy_since: float | None = None
        self.device = ''
        self._thread = threading.Thread(target=self._run, name='ray_pose_worker', daemon=True)
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
    def waiting(self) -> int:
        """Candidates in the queue."""
        return len(self._pending)

    def load(self, make_estimator: Callable[[], Any], window_size: int, min_views: int) -> Future:
        """Make the estimator on the worker's thread; the Future carries what that raised."""

        def task():
            self._buffer.resize(window_size)
            self._window_size, self._min_views = window_size, min_views
            if self._estimator is None:
                self._estimator = make_estimator()
            self.device = str(getattr(self._estimator, 'device', 'unknown'))

        return self._submit(task)

    def release(self) -> Future:
        """Drop the model and give its memory back; keyframes stay."""

        def task():
            self._estimator = None
            gc.collect()
            torch = sys.modules.get('torch')
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()

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

    def reset(self) -> None:
        """Forget all keyframes and candidates; a result under way is void."""
        with self._wake:
            self._epoch += 1
            self._pending.clear()
        self._submit(self._buffer.clear)

    def drop_pending(self) -> int:
        """Forget the candidates only; returns how many there were."""
        with self._wake:
            count = len(self._pending)
            self._pending.clear()
            return count

    def stop(self, timeout: float) -> bool:
        """End the thread after the step it is at; False when that takes longer than `timeout`."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- on the worker's thread -----------------------------------------------------------------

    def _submit(self, task: Callable[[], None]) -> Future:
        future: Future = Future()
        with self._wake:
            self._tasks.append((task, future))
            self._wake.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopping or self._tasks or (self._pending and self._estimator)):
                    self._wake.wait()
                if self._stopping:
                    return
                task = self._tasks.popleft() if self._tasks else None
                batch = [] if task else list(self._pending)
                if not task:
                    self._pending.clear()
                epoch = self._epoch
            self.busy_since = time.monotonic()
            if task:
                self._do(*task)
            else:
                self._advance(batch, epoch)
            self.busy_since = None

    @staticmethod
    def _do(task: Callable[[], None], future: Future) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(task())
        except BaseException as error:  # the caller decides what it means
            future.set_exception(error)

    def _void(self, epoch: int) -> bool:
        return self._stopping or epoch != self._epoch

    def _check(self, epoch: int) -> None:
        """Between two steps of the network: leave when nobody waits for the answer any more."""
        if self._void(epoch):
            raise Abandoned

    def _advance(self, batch: list[Candidate], epoch: int) -> None:
        """Prepare the new keyframes, each once, then solve the window, once."""
        newest, seconds = None, {}
        for candidate in batch:
            if self._void(epoch):
                return
            start = time.monotonic()
            try:
                view = candidate.make_view()
                decoded = time.monotonic()
                prepared = self._estimator.prepare(view)
            except Exception as error:  # any input may be bad; say so, go on
                self._deliver(Refused(epoch, candidate, _words(error)))
                continue
            done = time.monotonic()
            seconds = {
                'queue': start - candidate.received,
                'decode': decoded - start,
                'features': done - decoded,
            }
            keyframe = self._buffer.add(
                candidate.camera, candidate.stamp_ns, candidate.frame_id, prepared, view
            )
            newest = candidate
            self._deliver(Kept(epoch, keyframe, seconds))
        window = self._buffer.window()
        if newest is None or len(window) < self._min_views or self._void(epoch):
            return
        start = time.monotonic()
        try:
            estimate = self._estimator.solve(
                [k.prepared for k in window], progress=lambda *_: self._check(epoch)
            )
            if not (np.isfinite(estimate.R).all() and np.isfinite(estimate.t).all()):
                raise FloatingPointError('the solution is not finite')
        except Abandoned:
            return
        except Exception as error:  # the node must outlive a failed inference
            self._deliver(Failed(epoch, _words(error)))
            return
        seconds['solve'] = time.monotonic() - start
        # its 'features' are those of the whole window, most of them computed long ago
        seconds.update({k: v for k, v in estimate.timings.items() if k != 'features'})
        self._deliver(Solved(epoch, window, estimate, seconds, newest.received))


def _words(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    kind = type(error).__name__
    first = text[0] if text else ''
    return first if first and isinstance(error, ValueError) else f'{kind}: {first}'
