"""Whether the compiled code can be used here."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType


@cache
def compiled_code() -> ModuleType | None:
    """The module `compiled`, ready; None, and a warning, where numba does not work.

    The first call compiles it, or reads what an earlier process has compiled, so whoever will be
    in a hurry calls this before. numba often does not work where another numpy was installed
    beside a distribution's. NUMBA_DISABLE_JIT=1 does without it, too.
    """
    try:
        import numba

        if numba.config.DISABLE_JIT:
            return None
        from . import compiled

        compiled.compile_all()
    except Exception as error:  # there are many ways in which it fails
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        logging.getLogger(__name__).warning('poses are found by slower code: %s', reason)
        return None
    return compiled
