"""Processes that work side by side."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS')


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes that are spawned in this context compute with one thread each.

    Two that share two cores with two BLAS threads each may wait for each other for minutes.
    """
    before = {name: os.environ.get(name) for name in _NAMES}
    os.environ.update(dict.fromkeys(_NAMES, '1'))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
