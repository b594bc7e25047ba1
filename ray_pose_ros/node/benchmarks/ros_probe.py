"""The node under measurement: its process, its diagnostics, its transforms, its CPU time."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from tf2_msgs.msg import TFMessage

from ray_pose_ros.node.demo_processes import NODE_NAME, node_command

START_S = 180.0


class Probe:
    """Starts the node as the demo does and listens to it; a context manager.

    Both take domain and transport from this process' environment.

    Attributes:
        node: this process' own ROS node, to publish with.
        diagnostics: last values that the node gave. keyframes: when (monotonic) each keyframe's
            frame was first heard on /tf, by its number.
    """

    def __init__(self, parameters: dict[str, object]) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node('benchmark_probe', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.diagnostics: dict[str, str] = {}
        self.keyframes: dict[int, float] = {}
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.node.create_subscription(TFMessage, '/tf', self._on_tf, 100)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            node_command(parameters), env=os.environ, stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> 'Probe':
        try:
            self.until(lambda: self.diagnostics.get('state') == 'active', START_S, 'start')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        """Listen until something holds. RuntimeError says `what` the node did not do."""
        if not self.wait(condition, timeout):
            raise RuntimeError(f'the node did not {what} in {timeout:g} s: {self._said()}')

    def wait(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Listen until something holds; false when it does not. RuntimeError if the node ends."""
        end = time.monotonic() + timeout
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f'the node ended: {self._said()}')
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.1)
        return True

    @property
    def idle(self) -> bool:
        """Whether the node has nothing under way, by its next diagnostics."""
        values = self.fresh_diagnostics()
        return values['candidates waiting'] == '0' and values['working for [s]'] == '0'

    def listen(self, seconds: float) -> None:
        """Take messages for this long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    def fresh_diagnostics(self) -> dict[str, str]:
        """Wait for the next two diagnostics: counts are then newer than this call."""
        for _ in range(2):
            self.diagnostics = {}
            self.until(lambda: 'estimates' in self.diagnostics, 60.0, 'give diagnostics')
        return self.diagnostics

    def cpu_seconds(self) -> float:
        """CPU time of the node's process so far, all threads, in nanosecond resolution (Linux)."""
        # clock id of another process, as clock_getcpuclockid(3) computes it
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def set(self, **values: float) -> None:
        """Change parameters of the node."""
        client = self.node.create_client(SetParameters, f'/{NODE_NAME}/set_parameters')
        self.until(client.service_is_ready, 10.0, 'offer its parameters')
        request = SetParameters.Request()
        request.parameters = [Parameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        future = client.call_async(request)
        self.until(future.done, 10.0, 'answer')
        bad = [r.reason for r in future.result().results if not r.successful]
        self.node.destroy_client(client)
        if bad:
            raise RuntimeError(f'the node refused {values}: {bad[0]}')

    def _said(self) -> str:
        """The end of what the node wrote."""
        self._log.seek(0)
        return ' / '.join(self._log.read().decode(errors='replace').splitlines()[-5:])

    def _on_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            self.diagnostics.update({v.key: v.value for v in status.values})

    def _on_tf(self, msg: TFMessage) -> None:
        now = time.monotonic()
        for transform in msg.transforms:
            _, found, number = transform.child_frame_id.rpartition('_keyframe_')
            if found:
                self.keyframes.setdefault(int(number), now)
