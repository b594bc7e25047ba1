"""
The lifecycle node: images of one or several cameras in, camera poses out.

In: `<camera>/image_raw[/compressed]`, `<camera>/camera_info`, `<camera>/roi`, `<camera>/mask`.
Out: `/tf`, `~/poses`, `~/path`, `~/pose`, `~/markers`, `~/status`, `/diagnostics`.
Services: `~/reset`, `~/capture`, `~/save`, `~/enable`, and the lifecycle's own.

Everything here runs on the executor's thread. The worker thread prepares and solves; what it hands
back waits in a queue, and a guard condition wakes the executor to publish it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from ray_pose_ros.node import saving
from ray_pose_ros.node.cameras import Cameras
from ray_pose_ros.node.diagnostics import LONGEST
from ray_pose_ros.node.managed_model import FAILURE, SUCCESS, ManagedModelNode, outlives, told
from ray_pose_ros.node.metric_windows import MetricWindows
from ray_pose_ros.node.model_loading import make_estimator
from ray_pose_ros.node.outputs import Outputs
from ray_pose_ros.node.ros_parameters import on_set, unknown_overrides
from ray_pose_ros.node.status import Status
from ray_pose_ros.node.subscriptions import Subscriptions
from ray_pose_ros.node.work import (
    Candidate,
    Clouded,
    Failed,
    Kept,
    Refocused,
    Refused,
    Result,
    Solved,
)

TICK_S = 0.1
DIAGNOSTICS_S = 1.0
# parameters that change what was published last
OF_SHOWN = {'lost_rotation_sigma', 'scale_max_sigma', 'publish_in_motion_frame', 'marker_scale'}
TRY_AGAIN_S = 10.0  # after an estimate that failed, where no keyframe comes


class PoseNode(ManagedModelNode):
    """See the module's text; `estimator_factory(settings)` replaces the real model in tests."""

    def __init__(self, *, estimator_factory=make_estimator, name='ray_pose', **kwargs) -> None:
        super().__init__(name, estimator_factory, **kwargs)
        self.enabled = True
        self._cameras = Cameras(self)
        self._inputs = Subscriptions(self, lambda f: lambda m: self._guarded_input(f, m))
        self._outputs: Outputs | None = None
        self._last: Solved | None = None
        self._shown: Solved | None = None  # the same as it came, while nothing speaks against it
        self._show_again = False
        self._again_at = math.inf
        self._metric = MetricWindows(
            self.settings,
            lambda *pair: (
                self._outputs is not None and self._outputs.transforms.tree.is_own(*pair)
            ),
            lambda text: self.refuse('', '/tf', 'no_motion', text),
        )
        self._diagnosed = 0.0
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._status = Status(self)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(Trigger, '~/capture', self._on_capture)
        # a group of its own: other callbacks go on while it waits for its files
        self.create_service(
            Trigger, '~/save', self._on_save, callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        # simulated time that stands still must stop neither the start nor the diagnostics
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_S, self._on_tick, clock=steady)
        self.create_timer(DIAGNOSTICS_S, self._on_diagnostics, clock=steady)
        self._repeats = self.create_timer(TICK_S, self._on_repeat, clock=steady)
        self._follow_tf_rate()

    # -- lifecycle ------------------------------------------------------------------------------

    @told
    def on_configure(self, state) -> TransitionCallbackReturn:
        """Load and warm the model; make the publishers."""
        if not self.wait_for_model():
            return FAILURE
        if self._outputs is None:
            self._outputs = Outputs(self, self.settings)
        return SUCCESS

    @told
    def on_activate(self, state) -> TransitionCallbackReturn:
        """Subscribe."""
        if not self.wait_for_model():
            return FAILURE
        motion = self._metric.motion
        self._inputs.open_tf(self._outputs.transforms.tree, motion)
        self._outputs.transforms.rewind()  # nobody looked whether time went back meanwhile
        self._cameras.open(self._inputs, motion)
        for text in unknown_overrides(self, of_topics=True):
            self.get_logger().warning(text)
        topics = ', '.join(c.image_topic for c in self._cameras)
        self.get_logger().info(f'active: model on {self.health.device}, images from {topics}')
        return SUCCESS

    def on_deactivate(self, state) -> TransitionCallbackReturn:
        """Unsubscribe and free the model's memory; what was estimated stays."""
        self._unsubscribe()
        self.free_model()
        return SUCCESS

    def on_cleanup(self, state) -> TransitionCallbackReturn:
        """Forget everything, so that parameters may change."""
        self._unsubscribe()
        self.free_model()
        self._forget(lenses=True)
        return SUCCESS

    def on_shutdown(self, state) -> TransitionCallbackReturn:
        """End like deactivate; nothing can be started any more."""
        self._autostart = False
        self._unsubscribe()
        self.free_model()
        return SUCCESS

    def on_error(self, state) -> TransitionCallbackReturn:
        """
        Unsubscribe what a transition that failed has subscribed to, and forget keyframes.

        Afterwards all parameters may be others.
        """
        self._unsubscribe()
        self._forget(lenses=True)
        return super().on_error(state)

    def _unsubscribe(self) -> None:
        self._inputs.close()
        self._cameras.reset()
        dropped = self.worker.drop_pending()
        if dropped:
            self.health.drops['deactivated'] += dropped

    def _forget(self, lenses: bool = False) -> None:
        self.worker.reset(lenses)
        self._metric.forget()
        self._last, self._shown, self._again_at = None, None, math.inf
        self.health.forget_failure()
        self._cameras.reset()
        if self._outputs is not None:
            self._outputs.clear(self.now_ns())

    # -- what the cameras need of their host ----------------------------------------------------

    def now_ns(self) -> int:
        """Return the node's clock in nanoseconds."""
        return self.get_clock().now().nanoseconds

    def offer_all(self, candidates: list[Candidate]) -> None:
        """Queue frames of one time that passed the gate."""
        for candidate in candidates:
            self._metric.motion.want(candidate.camera, candidate.stamp_ns, candidate.frame_id)
        evicted = self.worker.offer_all(candidates)
        if evicted:
            self.health.drops['superseded'] += evicted

    def drop(self, camera: str, reason: str) -> None:
        """Count a frame that is not needed."""
        self.health.drops[reason] += 1

    def refuse(self, camera: str, topic: str, reason: str, text: str) -> None:
        """Count a message that cannot be used, and say so, not too often."""
        text = text[:LONGEST]
        self.health.refuse(reason, f'{topic}: {text}')
        if reason == 'time_jump' and self._outputs is not None:
            self._cameras.rewind()
            self._shown = None
            self._outputs.transforms.rewind()
            self._metric.rewind()
        if self.throttle((topic, reason)):
            self.get_logger().warning(f'refused a message on {topic}: {text}')

    # -- callbacks ------------------------------------------------------------------------------

    @outlives
    def _guarded_input(self, callback: Callable, msg) -> None:
        callback(msg)

    @outlives
    def _on_tick(self) -> None:
        self.autostart_if_loaded()
        replaced = self.watch()
        if self.state != 'active':
            return
        if replaced:  # what the last images were taken for is not solved
            self._cameras.retry()
        self._cameras.tick()
        if self._cameras.leave_dead_behind():
            self._outputs.transforms.rewind()
        if time.monotonic() >= self._again_at:
            self._again_at = math.inf  # until that fails, too
            self.worker.solve_again()
        late = self._metric.late()
        if late is None and self._show_again:
            late = self._shown
        self._show_again = False
        if late is not None:
            self._show(late)

    @outlives
    def _on_repeat(self) -> None:
        if self.state == 'active' and self.enabled:
            self._outputs.transforms.repeat(self._cameras.seen_ns())

    def _follow_tf_rate(self) -> None:
        rate = self.settings.tf_rate
        self._repeats.cancel()
        if rate > 0:
            self._repeats.timer_period_ns = round(1e9 / max(rate, 1e-3))  # ROS has 64 bits for it
            self._repeats.reset()

    def while_waiting(self) -> None:
        """Go on telling how things are while a transition waits for the model."""
        if time.monotonic() - self._diagnosed >= DIAGNOSTICS_S:
            self._on_diagnostics()

    def _tell_status(self) -> None:
        lost = self._outputs.transforms.lost if self._outputs else None
        self.health.scale, self.health.lost = self._metric.scale, lost
        self.health.estimated = self._last is not None
        self._status.update(
            self.state,
            self.enabled,
            self._last,
            lost,
            self._metric.scale,
            self.worker.matching,
            self.settings,
        )

    @outlives
    def _on_diagnostics(self) -> None:
        self._diagnosed = time.monotonic()
        self._tell_status()
        own = (self.get_name(), self.get_namespace())
        topics = {c.image_topic for c in self._cameras}
        self.health.unpublished = {t for t in topics if not self.count_publishers(t)}
        self.health.namesakes = self.get_node_names_and_namespaces().count(own) - 1
        self._diagnostics.publish(
            self.health.status_array(
                self.get_fully_qualified_name(),
                self.get_clock().now().to_msg(),
                self._cameras,
                self.settings,
                self.worker,
                self.state,
            )
        )

    def _on_set_parameters(self, parameters):
        result, settings = on_set(self.settings, parameters, self.state)
        if settings is not None:
            if self.state == 'unconfigured':
                self.free_model()  # it may have been loaded ahead with the old ones
            self.settings = settings
            self._show_again |= any(p.name in OF_SHOWN for p in parameters)
            for camera in self._cameras:
                camera.apply_settings()
            self._metric.apply_settings(settings)
            self._follow_tf_rate()
            if self._outputs is not None:
                self._outputs.apply_settings(settings)
        return result

    @outlives
    def _on_reset(self, request, response):
        self._forget()
        self._tell_status()
        response.success, response.message = True, 'all keyframes are forgotten'
        return response

    @outlives
    def _on_capture(self, request, response):
        response.success = self.state == 'active' and self.enabled
        if response.success:
            for camera in self._cameras:
                camera.capture()
            response.message = 'the next image of each camera becomes a keyframe'
        else:
            response.message = f'the node is {self.state if self.enabled else "paused"}'
        return response

    async def _on_save(self, request, response):
        answer = await saving.in_background(self._last, self.settings)
        response.success, response.message = answer
        self.health.last_save = response.message
        return response

    @outlives
    def _on_enable(self, request, response):
        self.enabled = bool(request.data)
        self._tell_status()
        response.success, response.message = True, 'enabled' if self.enabled else 'paused'
        return response

    # -- results of the worker ------------------------------------------------------------------

    def take(self, result: Result) -> None:
        """Count what became of a frame; publish an estimate."""
        if isinstance(result, Kept):
            self.health.keyframes += 1
            self.health.seconds.update(result.seconds)
            self._metric.motion.keep(result.keyframe.camera, result.keyframe.stamp_ns)
            if self._outputs is not None:
                self._outputs.show_keyframe(result.keyframe)
        elif isinstance(result, Refused):
            candidate = result.candidate
            self.refuse(candidate.camera, candidate.topic, 'unusable', result.reason)
            self._cameras.retry(candidate.camera)
        elif isinstance(result, Clouded) and self._last is not None:
            self.health.seconds.update(result.seconds)
            self._outputs.show_points(result, self._last.estimate.metric)
        elif isinstance(result, Refocused):
            self.get_logger().info(f'focal length of uncalibrated cameras: {result.words}')
        elif isinstance(result, Failed):
            self.health.fail(result.error)
            if not result.again:  # else the first answer stands
                self._again_at = time.monotonic() + TRY_AGAIN_S
                if self._outputs is not None:
                    self._outputs.transforms.lose(f'the last estimate failed: {result.error}')
                self._metric.lose()
                self._shown = None
            if self.throttle('failed'):
                self.get_logger().error(f'the estimate failed: {result.error}')
        elif isinstance(result, Solved) and self.state == 'active':
            start = time.monotonic()
            self._show(result)
            now = time.monotonic()
            self.health.seconds.update(result.seconds)
            if not result.again:
                self._again_at = math.inf
                self.health.succeed(result.reduced)
                self.watchdog.all_is_well()
                self.health.seconds.update(publish=now - start, total=now - result.received)
        if isinstance(result, (Failed, Solved)):
            self._tell_status()

    def _show(self, solved: Solved) -> None:
        """Publish a window, in metres where the scale is known."""
        self._last, self._shown = self._metric.apply(solved), solved
        place = self._metric.place
        self._outputs.publish(self._last, self._cameras.seen_ns(), place)
        if self._outputs.transforms.lost:
            self._metric.lose()
