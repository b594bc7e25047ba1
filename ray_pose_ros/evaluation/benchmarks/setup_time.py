"""How long scripts/setup takes from nothing, in an environment that is thrown away again."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / 'scripts' / 'setup'
_TIMEOUT_S = 1800


def check_available() -> None:
    """ValueError where the package is installed without its source tree."""
    if not SCRIPT.is_file():
        raise ValueError(f'--setup needs the source tree, but there is no {SCRIPT}')


def measure() -> dict:
    """Seconds, size and file count of a fresh environment, then seconds of a second run over it.

    Packages come from wherever pip is set up to look, its cache included: the figure is the
    network's as much as the machine's. RuntimeError with its last lines when it fails.
    """
    check_available()
    with tempfile.TemporaryDirectory(prefix='ray_pose_setup_') as folder:
        venv = Path(folder) / 'venv'
        environment = os.environ | {'RAY_POSE_VENV': str(venv)}
        first = _timed(environment)
        files = [f for f in venv.rglob('*') if f.is_file() and not f.is_symlink()]
        size = sum(f.stat().st_size for f in files) / 2**30
        return {'first_s': first, 'again_s': _timed(environment), 'gib': size, 'files': len(files)}


def _timed(environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(
        [str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if done.returncode:
        reason = ' / '.join((done.stdout + done.stderr).strip().splitlines()[-4:])
        raise RuntimeError(f'scripts/setup failed: {reason}')
    return time.perf_counter() - begin
