"""The demo's two processes: the node as the launch file starts it, and a pretended camera."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

NODE_NAME = 'ray_pose'
PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


def shared_file(*parts: str) -> Path:
    """Find a file of the package, installed (share/ray_pose_ros) or in the source tree."""
    source = Path(__file__).resolve().parents[2].joinpath(*parts)
    if source.is_file():
        return source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory('ray_pose_ros')).joinpath(*parts)


def transport_environment(environment: dict[str, str]) -> dict[str, str]:
    """Name the shared-memory profile for Fast DDS, as the launch file does."""
    given = [environment[v] for v in PROFILE_VARIABLES if environment.get(v)]
    profile = given[0] if given else str(shared_file('config', 'fastdds_shm.xml'))
    return {v: environment.get(v) or profile for v in PROFILE_VARIABLES}


def isolated_environment() -> tuple[dict[str, str], int]:
    """
    Make an environment whose ROS talks to this machine only, on a domain of its own.

    A demo must never reach a robot that happens to be on the network, nor hear its cameras.
    Returns the environment and the domain.
    """
    environment = dict(os.environ)
    taken = environment.get('ROS_DOMAIN_ID', '')
    domain = 1 + os.getpid() % 100
    if taken == str(domain):
        domain = 1 + domain % 100
    environment |= transport_environment(environment)
    environment |= {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if environment.get('ROS_DISTRO') == 'humble':  # later ones warn about this name
        environment['ROS_LOCALHOST_ONLY'] = '1'
    environment['PYTHONUNBUFFERED'] = '1'
    environment['RCUTILS_COLORIZED_OUTPUT'] = '0'
    return environment, domain


def node_command(overrides: dict[str, object]) -> list[str]:
    """Start the node as launch does: the parameter file, then what differs from it."""
    command = [sys.executable, '-m', 'ray_pose_ros.node.main', '--ros-args']
    command += ['-r', f'__node:={NODE_NAME}']
    command += ['--params-file', str(shared_file('config', 'pose.yaml'))]
    return command + _overrides(overrides)


def camera_command(parameters: dict[str, object]) -> list[str]:
    """Start the pretended camera."""
    command = [sys.executable, '-m', 'ray_pose_ros.synthetic.camera_publisher', '--ros-args']
    return command + _overrides(parameters)


def _overrides(values: dict[str, object]) -> list[str]:
    out = []
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        # quoted, or YAML would read a path like 123 as a number
        out += ['-p', f'{name}:="{text}"' if isinstance(value, str) else f'{name}:={text}']
    return out


class Process:
    """A child whose output goes to a file; ended by a signal and, if need be, killed."""

    def __init__(self, name: str, command: list[str], environment: dict, log: Path) -> None:
        self.name, self._log = name, log
        with open(log, 'wb') as output:
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 15) -> str:
        """Return the end of what it wrote."""
        text = self._log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'  {self.name}: {line}' for line in text[-lines:])

    def end(self, signum: int = signal.SIGINT, timeout: float = 10.0) -> int:
        """End it and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signum)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
