"""Whether the compiled code can be used here, and having it compiled."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType


@cache
def compiled_code() -> ModuleType | None:
    """The module `compiled`; None, and a warning, where numba does not work, or is told not to.

    It often does not where another numpy has been installed beside a distribution's numba.
    """
    try:
        import numba

        if numba.config.DISABLE_JIT:
            return None
        from . import compiled
    except Exception as error:  # there are many ways in which it fails
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        logging.getLogger(__name__).warning('poses are found by slower code: %s', reason)
        return None
    return compiled


def compile_ahead() -> None:
    """Have compiled what solving needs, or read from where it is kept, before there is a hurry."""
    if compiled_code() is None:
        return
    import numpy as np

    from .adjust import adjust  # which imports this module
    from .prior import Prior
    from .residuals import Problem, costs
    from .two_view import RayMatches, refine_poses

    R, t = np.stack([np.eye(3)] * 2), np.array([[0.0, 0.0, 1.0], [-0.5, 0.0, 1.0]])
    a, b = np.array([[0.0, 0.0, 1.0]]), np.array([[-0.5, 0.0, 1.0]]) / np.hypot(0.5, 1.0)
    matches = RayMatches(a, b, np.array([0.01]), a[0], b[0])
    prior = Prior(R, np.array([[0.0, 0.0, -1.0], [0.5, 0.0, -1.0]]), np.ones(2), np.ones(2), R[:0])
    problem = Problem({(0, 1): matches}, prior, t)
    adjust(R, t, problem, rounds=1)
    costs(R[None], t, problem)
    refine_poses(R[:1], np.array([[-1.0, 0.0, 0.0]]), matches, 2.5, rounds=1)
