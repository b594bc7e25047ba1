"""A lifecycle node whose model lives on a worker thread: loading, waiting, freeing, autostart."""

from __future__ import annotations

import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn

from ray_pose_ros.node import saving
from ray_pose_ros.node.diagnostics import Health, Throttle
from ray_pose_ros.node.ros_parameters import declare, unknown_overrides
from ray_pose_ros.node.watchdog import Watchdog
from ray_pose_ros.node.work import Result
from ray_pose_ros.node.worker import Worker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
RELOAD_S = 10.0  # between two tries to load the model again while the node is active


def outlives(method: Callable) -> Callable:
    """Make a callback log what it raises instead of taking the node down with it."""

    @wraps(method)
    def guarded(self, *args):
        try:
            return method(self, *args)
        except Exception as error:
            if self.context.ok():  # else: shutting down, and anything may fail
                self.health.refuse('internal_error', f'{method.__name__}: {error!r}')
                if self.throttle(('internal', method.__name__)):
                    self.get_logger().error(f'{method.__name__} failed: {error!r}')
            # a service must answer all the same
            return args[1] if len(args) == 2 and hasattr(args[1], 'success') else None

    return guarded


def told(transition: Callable) -> Callable:
    """Make a transition say what it raises: rclpy goes on to on_error without a word."""

    @wraps(transition)
    def guarded(self, state):
        try:
            return transition(self, state)
        except Exception as error:
            self.health.model_error = f'{transition.__name__} failed: {error!r}'
            self.get_logger().error(self.health.model_error)
            raise

    return guarded


class ManagedModelNode(LifecycleNode, ABC):
    """
    Owns the worker and the path of its results back to the executor's thread.

    Subclasses give `take(result)`, called on that thread. `stopping` is asked while a transition
    waits for the model; main() replaces it to be told of signals.
    """

    def __init__(self, name: str, estimator_factory: Callable, **kwargs) -> None:
        super().__init__(name, **kwargs)
        try:
            self.settings = declare(self)
        except Exception:
            super().destroy_node()
            raise
        for text in unknown_overrides(self):
            self.get_logger().warning(text)
        self.health = Health()
        self.throttle = Throttle()
        self.stopping: Callable[[], bool] = lambda: not self.context.ok()
        self._factory = estimator_factory
        self._loading = None
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._arrived = self.create_guard_condition(self._on_results)
        self.worker = Worker(self._deliver)
        self.watchdog = Watchdog(lambda text: self.get_logger().error(text))
        self._reload_at = 0.0
        self._answer_impossible_transitions()
        self._autostart = self.settings.autostart
        if self._autostart:
            self.start_loading()  # meanwhile the executor spins; autostart_if_loaded goes on

    @property
    def state(self) -> str:
        """Label of the lifecycle state."""
        return self._state_machine.current_state[1]

    @abstractmethod
    def take(self, result: Result) -> None:
        """Use a result of the worker, on the executor's thread."""

    def stop(self, timeout: float = 3.0) -> bool:
        """End all threads before the node is destroyed; False when one has not ended in time."""
        end = time.monotonic() + timeout
        stopped = self.worker.stop(timeout)
        return saving.wait(max(0.0, end - time.monotonic())) and stopped

    def destroy_node(self) -> None:
        """Stop the worker, which uses the node's guard condition, then destroy as every node."""
        self.stop()
        super().destroy_node()

    def on_error(self, state) -> TransitionCallbackReturn:
        """Go back to unconfigured, from where everything can be tried again."""
        self.free_model()
        return SUCCESS

    def report_escaped(self, error: Exception) -> None:
        """Say that a callback of ROS itself raised; the node goes on."""
        self.health.refuse('internal_error', repr(error))
        if self.throttle(('escaped', type(error).__name__)):
            self.get_logger().error(f'a callback failed: {error!r}')

    # -- the model ------------------------------------------------------------------------------

    def start_loading(self) -> None:
        """Have the worker load and warm the model with the present settings."""
        settings = self.settings
        self.health.model = 'loading'
        self._loading = self.worker.load(
            lambda: self._factory(settings),
            settings.window_size,
            settings.min_views,
            settings.map_size,
            settings.refine_deadline if settings.refine else 0.0,
            settings.refine and settings.points,
        )

    def wait_for_model(self) -> bool:
        """Wait until the model is there; false, with the reason logged, when it will not be."""
        if self._loading is None:
            self.start_loading()
        while not self._loading.done():
            if self.stopping() or self.watchdog.gave_up:
                return False
            self._look()  # the executor waits here, and with it the timer that would look
            self.while_waiting()
            time.sleep(0.02)
        return self._take_model()

    def while_waiting(self) -> None:
        """Be called again and again while a transition waits for the model."""

    def watch(self) -> bool:
        """
        Replace a worker that hangs or died, and have an active node's model loaded again.

        Returns whether the worker was replaced.
        """
        replaced = self._look()
        if replaced:
            self._loading = None
        if self.state != 'active':
            return replaced
        if self._loading is None and time.monotonic() >= self._reload_at:
            self._reload_at = time.monotonic() + RELOAD_S
            self.start_loading()
        elif self._loading is not None and self._loading.done() and self.health.model != 'ready':
            self._take_model()
        return replaced

    def _look(self) -> bool:
        restarted = self.watchdog.look(self.worker, self.settings.watchdog_timeout)
        if restarted:
            self.health.restarts += 1
            self.health.model = 'not loaded'
        if self.watchdog.gave_up:
            self.health.model = 'hung'
        self.health.trouble = self.watchdog.trouble
        return restarted

    def _take_model(self) -> bool:
        """Note what became of loading."""
        error = self._loading.exception()
        if error is None:
            self.health.model, self.health.model_error = 'ready', None
            self.health.device = self.worker.device
            return True
        self._loading = None  # the next configure tries again
        self.health.model = 'not loaded'
        self.health.model_error = f'the model cannot be loaded: {str(error) or repr(error)}'
        self.get_logger().error(self.health.model_error)
        return False

    def free_model(self) -> None:
        """Have the worker drop the model and give its memory back."""
        self.worker.release()
        self._loading = None
        self.health.model = 'not loaded'

    def autostart_if_loaded(self) -> None:
        """Configure and activate once, when the model that was asked for at the start is there."""
        if self._autostart and self._loading is None:
            self.start_loading()
        if not self._autostart or not self._loading.done():
            return
        self._autostart = False
        if self.state == 'unconfigured' and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    # -- plumbing -------------------------------------------------------------------------------

    def _deliver(self, result: Result) -> None:
        """Take a result on the worker's thread and wake the executor for it."""
        self._results.put(result)
        self._arrived.trigger()

    @outlives
    def _on_results(self) -> None:
        while True:
            try:
                result = self._results.get_nowait()
            except queue.Empty:
                return
            if result.epoch == self.worker.epoch:
                self._take(result)  # guarded one by one: a bad one must not hold up the others

    @outlives
    def _take(self, result: Result) -> None:
        self.take(result)

    def _answer_impossible_transitions(self) -> None:
        """Before Kilted, a request for a transition that the state has not got ends the node."""
        service = getattr(self, '_service_change_state', None)
        if service is None:
            return
        inner = service.callback

        def answer(request, response):
            try:
                return inner(request, response)
            except RCLError as error:
                self.get_logger().warning(f'transition refused in state {self.state}: {error}')
                response.success = False
                return response

        service.callback = answer
