"""What the node counts, and how /diagnostics tells it."""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter, deque

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT_S = 10.0  # how long a refusal keeps the input at WARN
FAILURES_IN_A_ROW = 3  # from here on it is no accident
UNCALIBRATED = 'focal length of uncalibrated cameras'
LONGEST = 300  # characters of a message, some of which quote what came in


class Throttle:
    """Lets a message through once in `period` seconds for each key."""

    def __init__(self, period: float = 5.0) -> None:
        self._period = period
        self._last: dict[object, float] = {}

    def __call__(self, key: object) -> bool:
        now = time.monotonic()
        if now - self._last.get(key, -1e9) < self._period:
            return False
        self._last[key] = now
        return True


class Health:
    """Counts and latencies since the start; `status_array` makes the message."""

    def __init__(self) -> None:
        self.keyframes = 0
        self.estimates = 0
        self.failures = 0
        self.drops: Counter[str] = Counter()  # 'reason', all cameras together
        self.refusals: Counter[str] = Counter()
        self.last_refusal: tuple[float, str] | None = None
        self.last_failure: str | None = None  # None again after a success
        self.failures_in_a_row = 0
        self.trouble: str | None = None  # what the watchdog says
        self.restarts = 0
        self.reduced = ''  # what is left out for want of memory
        self.last_save: str | None = None
        self.scale = ''  # what the unit of lengths is
        self.estimated = False  # whether there is an estimate that holds
        self.lost: str | None = None  # why nothing is on /tf
        self.namesakes = 0
        self.unpublished: set[str] = set()  # topics of images that nobody publishes
        self.seconds: dict[str, float] = {}
        self.device = ''
        self.model = 'not loaded'
        self.model_error: str | None = None
        self._rate: deque[tuple[float, int]] = deque(maxlen=11)

    def refuse(self, reason: str, text: str) -> None:
        """Count a message that cannot be used."""
        self.refusals[reason] += 1
        self.last_refusal = (time.monotonic(), text)

    def fail(self, error: str) -> None:
        """Count an estimate that failed."""
        self.failures += 1
        self.failures_in_a_row += 1
        self.last_failure = error

    def succeed(self, reduced: str) -> None:
        """Count an estimate."""
        self.estimates += 1
        self.forget_failure()
        self.trouble, self.reduced = None, reduced

    def forget_failure(self) -> None:
        """Say no more of the last failure than that it is counted."""
        self.failures_in_a_row, self.last_failure = 0, None

    def status_array(self, node: str, stamp, cameras, settings, worker, state) -> DiagnosticArray:
        """Make the DiagnosticArray: one status for the inputs, one for the estimates."""
        array = DiagnosticArray()
        array.header.stamp = stamp
        array.status = [
            self._inputs(node, cameras, settings, state),
            self._estimates(node, worker, state),
        ]
        return array

    def _inputs(self, node: str, cameras, settings, state: str) -> DiagnosticStatus:
        now = time.monotonic()
        received = sum(c.received for c in cameras)
        self._rate.append((now, received))
        (t0, n0), (t1, n1) = self._rate[0], self._rate[-1]
        level, message = OK, 'images arrive'
        silent = [
            c
            for c in cameras
            if c.last_received is None or now - c.last_received > settings.camera_timeout
        ]
        if state != 'active':
            message = f'the node is {state}'
        elif silent:
            level = WARN
            message = 'no images on ' + ', '.join(
                c.image_topic + (' (no publisher)' if c.image_topic in self.unpublished else '')
                for c in silent
            )
        if self.last_refusal and now - self.last_refusal[0] < RECENT_S:
            # a camera that is dead is told first, however often another's messages are refused
            before = f'{message}; ' if level == WARN or state != 'active' else ''
            level = WARN
            message = before + self.last_refusal[1]
        values = {
            'images received': received,
            'image rate [Hz]': f'{(n1 - n0) / (t1 - t0):.2f}' if t1 > t0 and n1 >= n0 else '0',
            'keyframes': self.keyframes,
            **{f'received on {c.image_topic}': c.received for c in cameras},
            **{f'dropped: {k}': v for k, v in sorted(self.drops.items())},
            **{f'refused: {k}': v for k, v in sorted(self.refusals.items())},
        }
        return _status(level, f'{node}: input', message, node, values)

    def _estimates(self, node: str, worker, state: str) -> DiagnosticStatus:
        level, message = OK, 'estimating' if self.estimated else 'waiting for keyframes'
        if state != 'active':
            message = f'the node is {state}'
        elif self.lost:
            level, message = WARN, f'lost: {self.lost}'
        if self.namesakes:
            level, message = WARN, f'{self.namesakes} more node(s) have the name of this one'
        if self.reduced:
            level, message = WARN, f'memory ran out, working with {self.reduced}'
        if self.last_failure:
            level = ERROR if self.failures_in_a_row >= FAILURES_IN_A_ROW else WARN
            message = f'the last estimate failed: {self.last_failure}'
        if self.model_error:
            level, message = ERROR, self.model_error
        if self.trouble:
            level, message = WARN if self.model == 'ready' else ERROR, self.trouble
        busy = worker.busy_since
        values = {
            'state': state,
            'model': self.model,
            'device': self.device,
            'scale': self.scale,
            UNCALIBRATED: worker.lenses,
            'estimates': self.estimates,
            'failures': self.failures,
            'worker restarts': self.restarts,
            'worker threads given up': worker.lost,
            'left out for want of memory': self.reduced or 'nothing',
            'candidates waiting': worker.waiting,
            'matching': worker.matching or 'nothing',
            'working for [s]': f'{time.monotonic() - busy:.2f}' if busy else '0',
            **{
                f'latency {k} [ms]': f'{1e3 * v:.1f}'
                for k, v in self.seconds.items()
                if isinstance(v, (int, float))
            },
            'last save': self.last_save or 'none',
            'memory resident [MB]': f'{_resident_megabytes():.0f}',
            'memory resident peak [MB]': f'{_peak_megabytes():.0f}',
        }
        values.update(_gpu_memory())
        return _status(level, f'{node}: estimate', message, node, values)


def _status(level, name: str, message: str, node: str, values: dict) -> DiagnosticStatus:
    pairs = [KeyValue(key=str(k), value=str(v)) for k, v in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message[:LONGEST], hardware_id=node, values=pairs
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident_megabytes() -> float:
    try:
        with open('/proc/self/statm', encoding='ascii') as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:  # not Linux
        return float('nan')


def _gpu_memory() -> dict[str, str]:
    torch = sys.modules.get('torch')
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {'GPU memory allocated [MB]': f'{torch.cuda.memory_allocated() / 2**20:.0f}'}
