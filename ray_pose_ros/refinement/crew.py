"""Several images or pairs at once.

Finding and matching features are calls that run outside of Python's lock (OpenCV, BLAS, torch)
and are too short to gain much from threads within them, so each core gets a pair of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier, Event
from typing import TypeVar

import torch

Job, Result = TypeVar('Job'), TypeVar('Result')
MOST = 8
_PULSE_S = 0.05
_STILL_S = 10.0  # without a step: longer than any takes that does not hang


class GivenUp(Exception):  # no error
    """What a job's `step` raises when nobody waits for it any more."""


class Crew:
    """Threads for one refinement, as many as torch may use in the thread that makes them.

    A context manager. On leaving by an exception what has not begun is given up, and what has
    ends at its next `step`.

    Args:
        pulse: called often while results are waited for, in the thread that waits, as long as
            jobs take steps; it may be a sign of life. It may raise.
    """

    def __init__(self, pulse: Callable[[], None] = lambda: None):
        threads = torch.get_num_threads()
        self._pool, self._pulse, self._over = None, pulse, Event()
        self._moved = 0.0  # when a job took its last step
        if threads < 2:
            return
        count = min(threads, MOST)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix='refine')
        together = Barrier(count + 1)

        def begin() -> None:
            torch.get_num_threads()  # else the first operation would set it to the process' own
            torch.set_num_threads(1)
            together.wait()

        for _ in range(count):
            self._pool.submit(begin)
        together.wait()
        # it sets the number for threads to come, too
        torch.set_num_threads(threads)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self._over.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def step(self) -> None:
        """To be called by jobs between things that take long; raises where they are given up."""
        if self._pool is None:
            self._pulse()
        elif self._over.is_set():
            raise GivenUp
        else:
            self._moved = time.monotonic()

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; without threads each is made when it is asked for."""
        if self._pool is None:
            return map(work, jobs)
        return self._results([self._pool.submit(work, job) for job in jobs])

    def _results(self, futures: list[Future]) -> Iterator:
        for future in futures:
            self._moved = time.monotonic()
            while not wait((future,), _PULSE_S).done:
                if time.monotonic() - self._moved < _STILL_S:
                    self._pulse()
            yield future.result()
