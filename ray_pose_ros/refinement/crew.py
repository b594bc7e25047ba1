"""Several images or pairs at once.

Finding and matching features are calls that run outside of Python's lock (OpenCV, BLAS, torch)
and are too short to gain much from threads within them, so each core gets a pair of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Job, Result = TypeVar('Job'), TypeVar('Result')
MOST = 8


class Crew:
    """Threads for one refinement, as many as torch may use in the thread that makes them.

    A context manager. On leaving by an exception what has not begun is given up, and what has is
    waited for.
    """

    def __init__(self):
        threads = torch.get_num_threads()
        self._pool = None
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

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; without threads each is made when it is asked for."""
        if self._pool is None:
            return map(work, jobs)
        return self._pool.map(work, jobs)
