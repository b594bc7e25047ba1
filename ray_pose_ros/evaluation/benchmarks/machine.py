"""The machine that figures come from, and whether others were using it meanwhile."""

import os
import platform
import time
from pathlib import Path

_BUSY = 0.15  # of one core in use by others: more than this blurs milliseconds
_WATCH_S = 0.5


def describe(device: str = 'cpu') -> dict:
    """Name processor, GPU (when `device` is one), memory, system and versions."""
    import torch

    found = {
        'processor': processor_name(),
        'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None,
        'memory_gib': _memory_gib(),
        'system': _system_name(),
        'python': platform.python_version(),
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'gpu': None,
    }
    if str(device).startswith('cuda'):
        found['gpu'] = torch.cuda.get_device_name(torch.device(device))
        found['cuda'] = torch.version.cuda
    return found


def load() -> dict:
    """Look for half a second how busy the machine is with other things.

    `load_average` is the last minute's, runnable tasks; `cores_in_use` counts what all processes
    took meanwhile, this one sleeping. None where the system does not tell.
    """
    before = _busy_seconds()
    begin = time.perf_counter()
    time.sleep(_WATCH_S)
    after = _busy_seconds()
    seconds = time.perf_counter() - begin
    used = None if before is None or after is None else (after - before) / seconds
    average = os.getloadavg()[0] if hasattr(os, 'getloadavg') else None
    return {'load_average': average, 'cores_in_use': used}


def warning(loads: list[dict]) -> str | None:
    """Say that the machine was busy at one of these moments (`load`), or None."""
    used = max((x['cores_in_use'] or 0.0 for x in loads), default=0.0)
    if used <= _BUSY:
        return None
    average = max(x['load_average'] or 0.0 for x in loads)
    return (
        f'the machine was busy with other things: {used:.1f} cores in use, load average '
        f'{average:.1f}; absolute times are too long, ratios measured side by side hold better'
    )


def processor_name() -> str:
    """The processor's model name, from /proc/cpuinfo where there is one."""
    path = Path('/proc/cpuinfo')
    if path.is_file():
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            key, _, value = line.partition(':')
            if key.strip() in ('model name', 'Model', 'Hardware') and value.strip():
                return ' '.join(value.split())
    return platform.processor() or platform.machine()


def _busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the start, from /proc/stat."""
    path = Path('/proc/stat')
    if not path.is_file():
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(x) for x in path.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf('SC_CLK_TCK')


def _memory_gib() -> float | None:
    if 'SC_PHYS_PAGES' not in getattr(os, 'sysconf_names', {}):
        return None
    return round(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30, 1)


def _system_name() -> str:
    path = Path('/etc/os-release')
    if path.is_file():
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            if line.startswith('PRETTY_NAME='):
                return line.partition('=')[2].strip('"')
    return platform.system()
