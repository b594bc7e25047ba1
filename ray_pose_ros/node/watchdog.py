"""
Notices a worker that hangs or has died, and says when another may begin. No ROS import.

What it can do is limited by what a process can do to its own threads: it cannot end one. A hung
thread keeps its model's memory until it returns, so that only a few may be given up; and a call
that hangs without letting other Python threads run stops the watchdog with everything else.
"""

from __future__ import annotations

from collections.abc import Callable

from ray_pose_ros.node.worker import Worker

MOST_LOST = 3  # hung threads, each with a model in memory
SLOWER = 10  # how much longer the CPU, and loading from a disk, may take


class Watchdog:
    """
    Looks at one worker now and then.

    `trouble` is the sentence for diagnostics while something is wrong, None otherwise.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.restarts = 0
        self.trouble: str | None = None
        self.gave_up = False

    def look(self, worker: Worker, timeout_s: float) -> bool:
        """
        Restart the worker if it needs that; returns whether it did (and the model is gone).

        `timeout_s` is how long a step on a GPU may take; 0 switches off the judgement of hanging.
        """
        if self.gave_up and worker.lost < MOST_LOST:
            self.gave_up = False
        reason = self._reason(worker, timeout_s)
        if reason is None or self.gave_up or worker.stopping:
            return False
        if worker.lost >= MOST_LOST:
            self.gave_up = True
            self.trouble = (
                f'{reason}; {worker.lost} earlier ones hang too, no further one is begun: restart '
                'the process'
            )
        else:
            self.trouble = f'{reason}; another is begun'
            self.restarts += 1
            worker.restart()
        self._warn(self.trouble)
        return not self.gave_up

    def all_is_well(self) -> None:
        """Be told that the worker has done what it is for."""
        self.trouble = None

    @staticmethod
    def _reason(worker: Worker, timeout_s: float) -> str | None:
        if not worker.alive:
            return 'the worker thread has died'
        slow = worker.loading or worker.device in ('', 'cpu')
        limit = timeout_s * (SLOWER if slow else 1)
        if timeout_s > 0 and worker.idle_s > limit:
            what = 'loading the model' if worker.loading else 'the model'
            return f'{what} has hung for {worker.idle_s:.0f} s (parameter watchdog_timeout)'
        return None
