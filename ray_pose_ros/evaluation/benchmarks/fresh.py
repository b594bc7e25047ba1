"""Estimates in a process of its own: how long the start takes and how much memory at most.

    python -m ray_pose_ros.evaluation.benchmarks.fresh '{"views": 8}'

prints one line of JSON: seconds and MiB. Keys: views, device, checkpoint, steps, samples,
precision, runs.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

_TIMEOUT_S = 600


def in_fresh_process(**settings) -> dict:
    """Run this module as a program and return what it prints.

    Raises RuntimeError with the end of its errors when it fails.
    """
    command = [sys.executable, '-m', __name__, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        reason = '\n'.join(done.stderr.strip().splitlines()[-3:])
        raise RuntimeError(f'a fresh process with {settings} failed: {reason}')
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    views=8,
    device='cpu',
    checkpoint=None,
    steps=None,
    samples=0,
    precision='float32',
    runs=2,
):
    """Import, load, infer `runs` times; see the module's text."""
    found = {'started_mib': _peak_mib()}
    begin = time.perf_counter()
    import torch

    imported = time.perf_counter()
    from ray_pose_ros.estimation.estimator import Estimator
    from ray_pose_ros.evaluation.benchmarks.workload import random_views

    ready = time.perf_counter()
    found['imported_mib'] = _peak_mib()
    estimator = Estimator(
        checkpoint and Path(checkpoint),
        device=device,
        steps=steps,
        samples=samples,
        precision=precision,
    )
    loaded = time.perf_counter()
    found['loaded_mib'] = _peak_mib()
    images = random_views(views)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        estimator.estimate(images)
        times.append(time.perf_counter() - start)
    found |= {
        'import_torch_s': imported - begin,
        'import_rest_s': ready - imported,
        'load_s': loaded - ready,
        'first_s': times[0],
        'second_s': times[-1],
        'start_to_first_answer_s': loaded - begin + times[0],
        'peak_mib': _peak_mib(),
        'gpu_peak_mib': None,
    }
    if estimator.device.type == 'cuda':
        found['gpu_peak_mib'] = torch.cuda.max_memory_allocated(estimator.device) / 2**20
    return found


def _peak_mib() -> float:
    """Resident memory's high-water mark of this process (VmHWM where Linux tells it)."""
    status = Path('/proc/self/status')
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
