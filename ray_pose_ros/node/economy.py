"""
Solving with less when memory runs out, and with everything again later. No ROS import.

Levels are gone down one by one until a solve succeeds: all; a quarter of the samples; one sample;
one sample of the newer half of the window; the CPU. After a while on a lower level the one above
is tried again, less and less often as long as that fails.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# (samples are divided by, views are divided by, on the CPU, in words)
_LEVELS = (
    (1, 1, False, ''),
    (4, 1, False, 'a quarter of the samples'),
    (10**6, 1, False, 'one sample'),
    (10**6, 2, False, 'one sample of half of the keyframes'),
    (10**6, 1, True, 'one sample on the CPU'),
)
_CPU = len(_LEVELS) - 1
FIRST_RETRY_S, LAST_RETRY_S = 30.0, 600.0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError':
        return True
    words = ('out of memory', 'ALLOC_FAILED', "can't allocate memory")
    return isinstance(error, RuntimeError) and any(w in str(error) for w in words)


class Economy:
    """The level one estimator works on; used by the worker's thread only."""

    def __init__(self, estimator: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._estimator, self._clock = estimator, clock
        self._samples = getattr(estimator, 'samples', 1)
        self._device = getattr(estimator, 'device', 'cpu')
        self._can_leave_gpu = _kind(self._device) != 'cpu' and hasattr(estimator, 'model')
        self._level = 0
        self._wait, self._climb_at = FIRST_RETRY_S, 0.0

    @property
    def words(self) -> str:
        """What is done now, '' when nothing is left out."""
        return _LEVELS[self._level][3]

    def prepare(self, view: Any) -> Any:
        """Call `estimator.prepare`; on the CPU when the GPU has no room for a single view."""
        try:
            return self._estimator.prepare(view)
        except Exception as error:
            if not (is_out_of_memory(error) and self._can_leave_gpu) or self._level == _CPU:
                raise
        # out of the except clause: the traceback holds on to the tensors of what failed
        give_back()
        self._go_to(_CPU)
        self._climb_at = self._clock() + self._wait
        return self._estimator.prepare(view)

    def looks(self, prepared: Sequence[Any], progress: Callable) -> Iterator[tuple[Any, int]]:
        """
        Solve the views, or the newest of them: yield (estimate, how many of them).

        Where the estimator looks a second time, another one follows, for which nothing is done
        before it is asked for; none does where memory does not suffice. Raises what
        `estimator.looks` raises, when memory runs out on the last level too.
        """
        looks, estimate, count = self._first(prepared, progress)
        yield estimate, count
        try:
            for better in looks:
                yield better, count
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        give_back()

    def refine(self, prepared: Sequence[Any], estimate: Any, progress: Callable) -> Any | None:
        """`estimator.refine`; None where it has no such method or memory does not suffice."""
        refine = getattr(self._estimator, 'refine', None)
        if refine is None:
            return None
        try:
            return refine(prepared, estimate, progress=progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        give_back()
        return None

    def focal(
        self, prepared: Sequence[Any], estimate: Any, known: float, before: Any, progress: Callable
    ) -> Any | None:
        """`estimator.focal`; None where it has no such method."""
        focal = getattr(self._estimator, 'focal', None)
        return focal and focal(prepared, estimate, known, before, progress=progress)

    def refocused(self, prepared: Any, view: Any) -> Any:
        """`estimator.refocused`."""
        return self._estimator.refocused(prepared, view)

    def _first(self, prepared: Sequence[Any], progress: Callable) -> tuple[Iterator, Any, int]:
        """The first answer, how many views it has, and what comes after it."""
        before = level = self._level
        if level and self._clock() >= self._climb_at:
            level -= 1
        climbing = level < before
        while True:
            try:
                self._go_to(level)
                answer = self._solve(prepared, progress)
                break
            except Exception as error:
                lower = self._below(level, len(prepared)) if is_out_of_memory(error) else None
                if lower is None:
                    raise
                level = lower
            give_back()
        if level > before or climbing:
            failed = climbing and level >= before
            self._wait = min(LAST_RETRY_S, 2 * self._wait) if failed else FIRST_RETRY_S
            self._climb_at = self._clock() + self._wait
        return answer

    def _solve(self, prepared: Sequence[Any], progress: Callable) -> tuple[Iterator, Any, int]:
        divisor, share, _, _ = _LEVELS[self._level]
        kept = prepared[-max(2, len(prepared) // share) :]
        moved = [_on_device(p, getattr(self._estimator, 'device', None)) for p in kept]
        self._estimator.samples = max(1, self._samples // divisor)
        try:
            looks = self._estimator.looks(moved, progress=progress)
            return looks, next(looks), len(kept)
        finally:
            self._estimator.samples = self._samples

    def _below(self, level: int, views: int) -> int | None:
        """Next lower level that asks for less; None when there is none."""
        samples = max(1, self._samples // _LEVELS[level][0])
        for lower in range(level + 1, len(_LEVELS)):
            divisor, share, cpu, _ = _LEVELS[lower]
            less = max(1, self._samples // divisor) < samples or (share > 1 and views > 2)
            if self._can_leave_gpu if cpu else less:
                return lower
        return None

    def _go_to(self, level: int) -> None:
        """Move the model to the CPU or back; raises what is out of memory when it does not fit."""
        target = 'cpu' if _LEVELS[level][2] else self._device
        if _kind(getattr(self._estimator, 'device', 'cpu')) != _kind(target):
            model = self._estimator.model
            try:
                model.to(target)
            except Exception:
                model.to('cpu')  # a part of it may have moved
                raise
            self._estimator.device = _device(target)
            give_back()
        self._level = level


def settle() -> None:
    """
    Exempt what lives now from the garbage collector, until `give_back`.

    Nearly all of it are the modules, which never go. Going through them takes 0.1 to 0.2 s in
    which no callback runs; what comes later is gone through in a few milliseconds.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Free what is not used any more, on the GPU too."""
    gc.unfreeze()  # the model may be among it, and have cycles
    gc.collect()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kind(device: Any) -> str:
    return str(device).split(':')[0]


def _device(target: Any) -> Any:
    torch = sys.modules.get('torch')
    return target if torch is None or not isinstance(target, str) else torch.device(target)


def _on_device(prepared: Any, device: Any) -> Any:
    """Bring the tensors that the network reads to its device; what has none stays as it is."""
    features = getattr(prepared, 'features', None)
    if not hasattr(features, 'device') or features.device == device:
        return prepared
    read = {name: getattr(prepared, name, None) for name in ('features', 'geometry', 'details')}
    moved = {name: tensor.to(device) for name, tensor in read.items() if tensor is not None}
    return dataclasses.replace(prepared, **moved)
