"""The node as a process: signals in every phase, start-up errors, the camera beside it."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import rclpy
from node_harness import DOMAIN, EVERY_FRAME, Client, pictures, pinhole, save_tiny_model
from std_srvs.srv import Trigger

from ray_pose_ros.node.parameters import BY_NAME
from ray_pose_ros.synthetic.camera_publisher import DEFAULTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Write a model slow enough to be met at work: many steps of random weights."""
    return save_tiny_model(tmp_path_factory.mktemp('checkpoint'), steps=40, readout=0)


class NodeProcess:
    """`pose_node` with parameters, its output collected."""

    def __init__(self, parameters: dict, module: str = 'ray_pose_ros.node.main') -> None:
        arguments = [sys.executable, '-m', module, '--ros-args']
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ['-p', f'{name}:={text}']
        environment = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
        self.process = subprocess.Popen(
            arguments,
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it may leave behind can be told
        )
        self._text: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._text.append(line.decode(errors='replace'))

    @property
    def text(self) -> str:
        return ''.join(self._text)

    def until_handled(self) -> None:
        """Wait until the node's handlers are with the kernel: from then on it counts."""
        bit = 1 << (signal.SIGTERM - 1)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            status = Path(f'/proc/{self.process.pid}/status').read_text()
            caught = next(line for line in status.splitlines() if line.startswith('SigCgt'))
            if int(caught.split()[1], 16) & bit:
                return
            time.sleep(0.005)
        raise AssertionError('no handlers')

    def until(self, words: str, timeout: float = 30.0) -> None:
        end = time.monotonic() + timeout
        while words not in self.text:
            assert time.monotonic() < end and self.process.poll() is None, self.text
            time.sleep(0.02)

    def end(self, signum: int, twice: bool = False) -> int:
        self.process.send_signal(signum)
        if twice:  # Ctrl-C under `ros2 launch` comes from the terminal and from launch
            time.sleep(0.05)
            self.process.send_signal(signum)
        return self.wait(15)

    def wait(self, timeout: float) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        assert not self._reader.is_alive(), 'somebody still writes to its output'
        with pytest.raises(ProcessLookupError):  # no orphans
            os.killpg(self.process.pid, 0)
        return code


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_signals_during_start_up(signum, checkpoint):
    """From the first moment on, through imports, ROS' initialisation and the model's loading."""
    nodes = []
    for delay in (0.0, 0.3, 1.0, 2.0):
        node = NodeProcess({'checkpoint': checkpoint})
        node.until_handled()
        time.sleep(delay)
        nodes.append((delay, node.end(signum), node.text))
    assert [(d, code) for d, code, _ in nodes] == [(d, 0) for d, _, _ in nodes], nodes
    assert not any('Traceback' in text or 'terminate' in text for _, _, text in nodes), nodes


def test_signals_during_inference_and_at_rest(checkpoint):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    client = Client(context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(client)
    images, camera = pictures(12), pinhole()
    results = []
    try:
        for signum, twice, busy in (
            (signal.SIGTERM, False, True),
            (signal.SIGINT, True, True),
            (signal.SIGINT, False, False),
        ):
            node = NodeProcess(EVERY_FRAME | {'checkpoint': checkpoint, 'samples': 8})
            node.until('active:')
            if busy:
                told = len(client.poses)
                end = time.monotonic() + 20
                while len(client.poses) < told + 2 and time.monotonic() < end:
                    k = int(time.monotonic() * 1000)
                    client.show(images[k % 12], time.time_ns(), camera)
                    executor.spin_once(timeout_sec=0.05)
                assert len(client.poses) >= told + 2, node.text
            results.append((signum, node.end(signum, twice), node.text))
    finally:
        executor.shutdown()
        client.destroy_node()
        rclpy.try_shutdown(context=context)
    assert [code for _, code, _ in results] == [0] * 3, results
    assert not any('Traceback' in text or 'terminate' in text for _, _, text in results), results


@pytest.mark.slow
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_signals_at_ten_moments(signum, checkpoint):
    """Five at a time, which makes the phases they are met in less regular still."""
    results = []
    for batch in range(2):
        nodes = [NodeProcess({'checkpoint': checkpoint}) for _ in range(5)]
        for node in nodes:
            node.until_handled()
        for k, node in enumerate(nodes):
            time.sleep(0.2 + 0.35 * k + 0.5 * batch)
            node.process.send_signal(signum)
        results += [(node.wait(30), node.text) for node in nodes]
    assert [code for code, _ in results] == [0] * 10, results
    assert not any('Traceback' in text or 'terminate' in text for _, text in results), results


@pytest.mark.slow
def test_signals_while_results_are_written(checkpoint, tmp_path):
    """Python ends daemon threads in a way that C++ code under them does not survive."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    client = Client(context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(client)
    save = client.create_client(Trigger, '/ray_pose/save')
    images, camera = pictures(12, 1280, 960), pinhole(1280, 960)
    parameters = EVERY_FRAME | {'checkpoint': checkpoint, 'samples': 1, 'steps': 1}
    node = NodeProcess(parameters | {'output_directory': str(tmp_path)})
    try:
        node.until('active:')
        end = time.monotonic() + 90
        while not client.poses and time.monotonic() < end:
            client.show(images[int(time.monotonic() * 1000) % 12], time.time_ns(), camera)
            executor.spin_once(timeout_sec=0.2)
        assert client.poses and save.wait_for_service(20), node.text
        save.call_async(Trigger.Request())
        while not list(tmp_path.glob('.*.partial')) and time.monotonic() < end + 20:
            executor.spin_once(timeout_sec=0.02)
        assert list(tmp_path.glob('.*.partial'))
        assert node.end(signal.SIGINT) == 0, node.text
    finally:
        executor.shutdown()
        client.destroy_node()
        rclpy.try_shutdown(context=context)
        if node.process.poll() is None:
            node.process.kill()
    assert 'terminate' not in node.text and 'Traceback' not in node.text
    assert all((f / 'poses.json').is_file() for f in tmp_path.iterdir() if f.name[0] != '.')


def test_a_parameter_that_cannot_be_used_is_one_line_and_an_exit_code():
    node = NodeProcess({'window_size': 1})
    assert node.process.wait(30) == 2
    node._reader.join(5)
    assert 'parameter window_size' in node.text and 'expected integer from 2 to 64' in node.text
    assert 'Traceback' not in node.text


def test_a_camera_that_has_nothing_to_show_says_so(tmp_path):
    node = NodeProcess(
        {'source': 'images', 'path': str(tmp_path)}, 'ray_pose_ros.synthetic.camera_publisher'
    )
    assert node.process.wait(30) == 2
    node._reader.join(5)
    assert 'has 0 images, expected at least 2' in node.text and 'Traceback' not in node.text


@pytest.mark.parametrize(
    'module', ['ray_pose_ros.node.main', 'ray_pose_ros.synthetic.camera_publisher']
)
def test_programs_name_their_parameters_and_refuse_what_is_none(module, capsys, monkeypatch):
    """Before anything is started."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)  # those of the tests stay
    main = importlib.import_module(module).main
    with pytest.raises(SystemExit) as ended:
        main(['program', '--help', '--ros-args', '-p', 'reliable:=true'])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    names = BY_NAME if module.endswith('node.main') else DEFAULTS
    assert '-p NAME:=VALUE' in said and all(name in said for name in names)
    with pytest.raises(SystemExit) as ended:
        main(['program', '--path', 'photos'])
    assert ended.value.code == 2 and '--path photos' in capsys.readouterr().err


def test_a_camera_names_parameters_of_another_type():
    node = NodeProcess({'width': 6.5}, 'ray_pose_ros.synthetic.camera_publisher')
    assert node.process.wait(30) == 2
    node._reader.join(5)
    assert "'width' to '6.5'" in node.text and 'Traceback' not in node.text
