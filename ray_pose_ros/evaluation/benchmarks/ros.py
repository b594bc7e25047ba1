"""Measurements in a real ROS graph; the programs that speak ROS are processes of their own.

Every run has its own domain and hears this machine only. The shared-memory profile is the one that
the launch file and the demo use.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

from ray_pose_ros.node.demo_processes import PROFILE_VARIABLES, isolated_environment

from .timing import spread
from .workload import Options

PACKAGE = 'ray_pose_ros.node.benchmarks'
SIZES = {'VGA': (640, 480), '1080p': (1920, 1080)}
TRANSPORTS = {'Fast DDS default': False, 'shipped profile': True}
_TIMEOUT_S = 600


def check_available() -> None:
    """ValueError where there is no ROS."""
    if find_spec('rclpy') is None:
        raise ValueError('--ros needs ROS 2, but there is no module rclpy; source it first')


def measure(options: Options, frames: int = 100, rate: float = 15.0) -> dict:
    """Latency, cost of dropped frames, and frames lost on the way; see the programs' texts."""
    check_available()
    settings = {
        'device': options.device,
        'checkpoint': str(options.checkpoint.resolve()) if options.checkpoint else '',
    }
    return {
        'latency': latency(settings | {'images': max(options.repeats, 2)}),
        'drops': [
            row
            for compressed in (False, True)
            for row in program(
                'ros_drops',
                compressed=compressed,
                frames=max(2, round(0.6 * frames)),
                rate=rate,
                checkpoint=settings['checkpoint'],
            )
        ],
        'loss': [
            loss(name, profile, size, frames, rate)
            for size in SIZES
            for name, profile in TRANSPORTS.items()
        ],
        'settings': {'rate': rate, 'frames': frames, 'window': 8},
    }


def latency(settings: dict) -> list[dict]:
    """A row for each size: `spread` of milliseconds by stage, and images shown again."""
    rows = []
    for size, images in program('ros_latency', **settings).items():
        row = {'size': size, 'resent': sum(image.pop('resent') for image in images)}
        rows.append(row | {stage: spread([x[stage] for x in images]) for stage in images[0]})
    return rows


def loss(name: str, profile: bool, size: str, frames: int, rate: float) -> dict:
    """How many of `frames` raw images get from one process to another."""
    environment = _environment(profile)
    width, height = SIZES[size]
    counter = _start(environment, 'ros_counter', camera='camera')
    try:
        sent = _finish(
            _start(
                environment,
                'ros_publisher',
                width=width,
                height=height,
                rate=rate,
                count=frames,
            )
        )
        got = _finish(counter)
    finally:
        if counter.poll() is None:
            counter.kill()
            counter.wait()
    return {'transport': name, 'size': size, 'rate': frames / sent['seconds'], **sent, **got}


def program(name: str, **arguments) -> dict | list:
    """Run one of this package's ROS programs; what it prints, or RuntimeError with its errors."""
    return _finish(_start(_environment(True), name, **arguments))


def _environment(profile: bool) -> dict[str, str]:
    environment, _ = isolated_environment()
    if profile:
        return environment
    return {k: v for k, v in environment.items() if k not in PROFILE_VARIABLES}


def _start(environment: dict[str, str], name: str, **arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, '-m', f'{PACKAGE}.{name}', json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen) -> dict | list:
    try:
        out, errors = process.communicate(timeout=_TIMEOUT_S)
    except BaseException:
        # it has children of its own
        os.killpg(process.pid, 9)
        process.communicate()
        raise
    if process.returncode:
        reason = ' / '.join(errors.strip().splitlines()[-3:])
        raise RuntimeError(f'{process.args[2]} failed: {reason}')
    return json.loads(out.strip().splitlines()[-1])
