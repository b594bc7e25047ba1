"""The cameras of the node together: opened at once, joined to a rig, and the newest image."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from ray_pose_ros.node.camera_input import JUMP_NS, CameraInput
from ray_pose_ros.node.motion import Motion
from ray_pose_ros.node.rig import Rig
from ray_pose_ros.node.rig_settings import rig_names
from ray_pose_ros.node.subscriptions import Subscriptions


class Cameras:
    """Those that were opened last; none at first. What they count outlives their subscriptions."""

    def __init__(self, host) -> None:
        self._host = host
        self._cameras: list[CameraInput] = []
        self._rig: Rig | None = None
        self._jumped = 0.0  # stamps of cameras that are silent since then do not count

    def __iter__(self) -> Iterator[CameraInput]:
        return iter(self._cameras)

    def open(self, inputs: Subscriptions, motion: Motion) -> None:
        """Subscribe to all that the settings name."""
        settings = self._host.settings
        self._cameras = [inputs.open_camera(name, settings) for name in settings.cameras]
        by_name = {c.name: c for c in self._cameras}
        members = [by_name[name] for name in rig_names(settings)]
        self._rig = Rig(self._host, members) if members else None
        for camera in members:
            camera.in_rig, camera.pass_on = True, self._rig.add
        for camera in self._cameras:
            together = members if camera.in_rig else [camera]
            camera.stands_still = partial(motion.stands_still, [c.name for c in together])

    def reset(self) -> None:
        """Forget the last keyframes and what waits."""
        for camera in self._cameras:
            camera.reset()
        if self._rig is not None:
            self._rig.reset()

    def retry(self, name: str | None = None) -> None:
        """Take the next image of one camera, or of all: what the last was taken for failed."""
        for camera in self._cameras:
            if name in (None, camera.name):
                camera.retry()

    def tick(self) -> None:
        """Let images go that have waited long enough."""
        for camera in self._cameras:
            camera.tick()
        if self._rig is not None:
            self._rig.tick()

    def seen_ns(self, since: float = 0.0) -> int:
        """Return the newest image's stamp; no camera counts that has been silent since then, or
        since time went back."""
        since = max(since, self._jumped)
        heard = [c for c in self._cameras if (c.last_received or 0.0) >= since]
        return max((c.last_stamp_ns or 0 for c in heard), default=0)

    def rewind(self) -> None:
        """Count no camera that does not go on after time went back."""
        self._jumped = max((c.last_received or 0.0 for c in self._cameras), default=0.0)

    def leave_dead_behind(self) -> bool:
        """Count no camera that has died with its clock ahead of the others'; true if one has."""
        alive = time.monotonic() - self._host.settings.camera_timeout
        if 0 < self.seen_ns(alive) < self.seen_ns() - JUMP_NS:
            self._jumped = alive
            return True
        return False
