"""Progress of work that is told to whoever waits for it, and may be abandoned by them."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # is given (steps done, steps in all); may raise


def pulse_of(progress: Progress | None, steps: int) -> Callable[[], None]:
    """What says, again and again while the rest takes long, that all `steps` are done."""
    if progress is None:
        return lambda: None
    return lambda: progress(steps, steps)
