"""Solved windows in metres, where /tf tells how far the cameras moved (estimation/metric.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ray_pose_ros.estimation.metric import (
    Contradiction,
    MetricFit,
    MetricScale,
    NoScale,
    fit_metric,
    in_metres,
)
from ray_pose_ros.estimation.scale_filter import ScaleFilter
from ray_pose_ros.node.motion import Key, Motion
from ray_pose_ros.node.transform_buffer import Rigid
from ray_pose_ros.node.work import Solved

ARBITRARY = 'arbitrary'


class MetricWindows:
    """
    The scale of the newest window, and where its world is in `motion_frame`; one thread.

    `place` is the pose of `reference_frame` there, in metres, None where the window does not tell.
    `scale` says for people what the scale of the last one is, and if it is arbitrary, why.
    """

    def __init__(self, settings, is_own: Callable[[str, str], bool], report: Callable) -> None:
        self.motion = Motion(settings, is_own, report)
        self._settings = settings
        self._filter = ScaleFilter()
        self._solved: Solved | None = None  # as it came, in its own unit
        self.place: Rigid | None = None
        self.forget()

    def apply_settings(self, settings) -> None:
        """Take over parameters that may change at any time."""
        self._settings = settings
        self.motion.apply_settings(settings)

    @property
    def scale(self) -> str:
        """`metric (from TF odom, +-4 %)`, or `arbitrary`, and why."""
        frame = self._settings.motion_frame
        if self._metric is not None:
            return str(self._metric)
        return f'{ARBITRARY} (TF {frame}: {self._why})' if frame else ARBITRARY

    def lose(self) -> None:
        """Take nothing over to the next window; what was published stays as it is."""
        self._filter.reset()
        self._solved = None

    def forget(self) -> None:
        """Forget the keyframes and the scale."""
        self.motion.forget()
        self.lose()
        self._metric: MetricScale | None = None
        self._why = 'there is no estimate yet'

    def rewind(self) -> None:
        """Forget all poses and the scale: time went back, and TF may begin anew elsewhere."""
        self.motion.rewind()
        self.lose()

    def late(self) -> Solved | None:
        """Look for poses that were missing; a window to apply again if some of its own came."""
        found = self.motion.settle()
        window = () if self._solved is None else _keys(self._solved)
        return self._solved if found.intersection(window) else None

    def apply(self, solved: Solved) -> Solved:
        """Return a window in metres, or as it is where its scale is not known."""
        if not self.motion.wanted:
            return solved
        self._solved, self.place = solved, None
        self.motion.settle()
        ids = [k.id for k in solved.keyframes]
        self._filter.move(ids, solved.estimate.t)
        fit, why = None, 'it changed suddenly'
        try:
            fit = self._fit(solved)
        except NoScale as missing:
            why = str(missing)
            if isinstance(missing, Contradiction):
                self._filter.doubt()
        found = self._filter.scale(self._settings.scale_max_sigma)
        self._metric, self._why = None, why
        if found is None:
            return solved
        scale, sigma = found
        self._metric = MetricScale(scale, sigma, f'TF {self._settings.motion_frame}')
        if fit is not None:
            self.place = Rigid(fit.rotation, fit.translation_at(scale))
        mapped = solved.mapped
        if mapped is not None:
            mapped = replace(mapped, estimate=in_metres(mapped.estimate, self._metric))
        estimate = in_metres(solved.estimate, self._metric)
        return replace(solved, estimate=estimate, mapped=mapped)

    def _fit(self, solved: Solved) -> MetricFit | None:
        """What the window alone tells, None where that cannot be true. Raises NoScale."""
        poses = self.motion.poses(_keys(solved))
        known = [i for i, pose in enumerate(poses) if pose is not None]
        estimate = solved.estimate
        fit = fit_metric(
            estimate.R[known],
            estimate.t[known],
            estimate.rotation_sigma[known],
            estimate.centre_sigma[known],
            np.array([poses[i].R.T for i in known]).reshape(-1, 3, 3),
            np.array([poses[i].p for i in known]).reshape(-1, 3),
            self._settings.scale_max_sigma,
        )
        accepted = self._filter.update(fit, [solved.keyframes[i].id for i in known])
        return fit if accepted else None


def _keys(solved: Solved) -> list[Key]:
    return [(k.camera, k.stamp_ns) for k in solved.keyframes]
