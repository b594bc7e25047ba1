"""Two hosts: the camera in one network namespace, the node in another, a cable between them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from node_harness import save_tiny_model

ROOT = Path(__file__).resolve().parents[1]
CUT_S = 6.0
DOMAIN = 7  # nobody else is on this network
_HEAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7399))
join = socket.inet_aton('239.255.0.1') + socket.inet_aton('{here}')
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
s.settimeout(10)
print(s.recv(9).decode())
"""
_CALL = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('{here}'))
while True:
    s.sendto(b'heard', ('239.255.0.1', 7399))
    time.sleep(0.05)
"""


def _ip(*words: str) -> None:
    done = subprocess.run(['ip', *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f'ip {" ".join(words)}: {done.stderr.strip()}')


class Cable:
    """Two hosts, 'camera' and 'robot', joined by a pair of virtual network cards."""

    def __init__(self) -> None:
        tag = f'rp{os.getpid() % 100_000}'
        self.hosts = {'camera': f'{tag}c', 'robot': f'{tag}r'}
        self.addresses = {'camera': '10.213.7.1', 'robot': '10.213.7.2'}
        self._made: list[str] = []
        try:
            for name in self.hosts.values():
                _ip('netns', 'add', name)
                self._made.append(name)
            camera, robot = self.hosts.values()
            _ip('link', 'add', f'{camera}0', 'netns', camera, 'type', 'veth',
                'peer', 'name', f'{robot}0', 'netns', robot)  # fmt: skip
            for host, name in self.hosts.items():
                _ip('-n', name, 'addr', 'add', f'{self.addresses[host]}/24', 'dev', f'{name}0')
                _ip('-n', name, 'link', 'set', 'lo', 'up')
                _ip('-n', name, 'link', 'set', f'{name}0', 'up')
            # Fast DDS asks once, at its start, which network cards are running; one that comes
            # up later is never used.
            self._carries('camera', 'robot')
            self._carries('robot', 'camera')
        except OSError:
            self.remove()
            raise

    def _carries(self, caller: str, hearer: str) -> None:
        """Wait until a multicast datagram, as discovery sends them, arrives; OSError when none."""
        hear, call = (
            subprocess.Popen(
                ['ip', 'netns', 'exec', self.hosts[host], sys.executable, '-c',
                 program.format(here=self.addresses[host])],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for host, program in ((hearer, _HEAR), (caller, _CALL))
        )  # fmt: skip
        try:
            heard, why = hear.communicate(timeout=20)
        finally:
            for process in (hear, call):
                process.kill()
                process.communicate()
        if heard.strip() != 'heard':
            raise OSError(f'no multicast from {caller} to {hearer}: {why.strip()[-300:]}')

    def set(self, state: str) -> None:
        """Plug the camera's end in ('up') or pull it out ('down')."""
        name = self.hosts['camera']
        _ip('-n', name, 'link', 'set', f'{name}0', state)

    def start(self, host: str, arguments: list[str], **kwargs) -> subprocess.Popen:
        """Run Python on one of the hosts; nothing but the cable joins it with the other."""
        environment = os.environ | {
            'ROS_DOMAIN_ID': str(DOMAIN),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET',
            'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
            'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4',  # /dev/shm is one, though the hosts are two
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': str(ROOT),
        }
        for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):
            environment.pop(name, None)
        command = ['ip', 'netns', 'exec', self.hosts[host], sys.executable, *arguments]
        return subprocess.Popen(command, env=environment, cwd=ROOT, **kwargs)

    def remove(self) -> None:
        """Remove the hosts, and the cable with them."""
        while self._made:
            _ip('netns', 'del', self._made.pop())


@pytest.fixture
def cable():
    """Skip where this user or this kernel cannot make network namespaces."""
    if shutil.which('ip') is None:
        pytest.skip('needs the program ip (package iproute2)')
    try:
        made = Cable()
    except OSError as error:
        pytest.skip(f'needs CAP_NET_ADMIN and network namespaces: {error}')
    yield made
    made.remove()


class FarCamera:
    """The process with the camera, and the last thing that it told."""

    def __init__(self, cable: Cable, rate: float) -> None:
        arguments = [str(ROOT / 'test' / 'far_camera.py'), str(rate)]
        self.process = cable.start('camera', arguments, stdout=subprocess.PIPE)
        self.told: dict = {'poses': 0, 'subscribers': 0, 'received': 0, 'shown': 0, 'tf_ns': 0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.told = json.loads(line)

    def until(self, condition, timeout: float) -> bool:
        """Wait until something holds of what it told; false when it does not in time."""
        end = time.monotonic() + timeout
        while not condition(self.told):
            if time.monotonic() > end or self.process.poll() is not None:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self._reader.join(5)
        self.process.stdout.close()


@pytest.mark.slow
def test_a_cable_that_is_pulled_and_plugged_in_again(cable, tmp_path):
    """Compressed images over it, poses back; while it is out, nothing; then as before."""
    parameters = {
        'checkpoint': save_tiny_model(tmp_path / 'model'),
        'image_transport': 'compressed',
        'device': 'cpu',
        'window_size': 4,
        'samples': 1,
        'keyframe_min_interval': 0.3,
        'lost_rotation_sigma': 0.0,
    }
    arguments = ['-m', 'ray_pose_ros.node.main', '--ros-args']
    for name, value in parameters.items():
        arguments += ['-p', f'{name}:={value}']
    node = cable.start('robot', arguments, stderr=subprocess.PIPE, text=True)
    camera = FarCamera(cable, rate=10)
    try:
        if not camera.until(lambda told: told['poses'] >= 3, 40):
            code = node.poll()
            node.kill()
            said = node.communicate()[1]
            pytest.fail(f'no poses: {camera.told}; the node (exit code {code}) said: {said}')
        cable.set('down')
        time.sleep(1.0)  # what was under way
        before = camera.told
        time.sleep(CUT_S)
        during = camera.told
        assert during['shown'] > before['shown'] + 10, 'the camera went on'
        assert (during['poses'], during['tf_ns']) == (before['poses'], before['tf_ns'])
        cable.set('up')
        healed_ns = time.time_ns()
        assert camera.until(lambda told: told['poses'] >= during['poses'] + 3, 30), camera.told
        assert camera.until(lambda told: told['tf_ns'] > healed_ns, 10), camera.told
        assert node.poll() is None
        node.send_signal(signal.SIGINT)
        said = node.communicate(timeout=15)[1]
        assert node.returncode == 0, said
        assert 'Traceback' not in said, said
    finally:
        camera.end()
        if node.poll() is None:
            node.kill()
            node.communicate()
