"""Cameras that see the object at once: their images go on in sets of one time."""

from __future__ import annotations

import time
from collections import deque

from ray_pose_ros.node.camera_input import CameraInput, Frame

WAIT_S = 0.25  # how long an image waits for those of the other cameras
KEPT = 4  # images a camera that may wait: each can be megabytes


class Rig:
    """
    Puts frames of one time together, on the executor's thread.

    A set is complete with a frame of every camera that is alive, at most `sync_slop` apart; after
    WAIT_S it may go with `min_cameras`. It becomes keyframes when any of its cameras sees a
    change, or when it has cameras that the set before had not.
    """

    def __init__(self, host, cameras: list[CameraInput]) -> None:
        self._host, self._cameras = host, cameras  # the leading one first
        self._waiting: dict[str, deque[Frame]] = {c.name: deque(maxlen=KEPT) for c in cameras}
        self._last: set[str] = set()

    def reset(self) -> None:
        """Forget what waits and which cameras the last set had."""
        self._drop_until(None, 'reset')
        self._last = set()

    def add(self, frame: Frame) -> None:
        """Take a frame of one camera; with it a set may be complete."""
        queue = self._waiting[frame.camera]
        if queue and frame.stamp_ns < queue[-1].stamp_ns:  # time went back
            self._drop_until(None)
        if len(queue) == KEPT:
            self._host.drop(frame.camera, 'unsynchronised')
        queue.append(frame)
        best = self._best()
        if len(best) >= max(self._host.settings.min_cameras, self._alive()):
            self._send(best)

    def tick(self) -> None:
        """Let a set go that has waited long enough for the rest, and drop what fits no set."""
        now = time.monotonic()
        oldest = min((q[0].arrived for q in self._waiting.values() if q), default=now)
        if now - oldest < WAIT_S:
            return
        best = self._best()
        if len(best) >= self._host.settings.min_cameras:
            self._send(best)
            return
        for queue in self._waiting.values():
            while queue and now - queue[0].arrived >= WAIT_S:
                self._host.drop(queue.popleft().camera, 'unsynchronised')

    def _alive(self) -> int:
        """Count the cameras that a set has to wait for; for the first one they are all."""
        if not self._last:
            return len(self._cameras)
        since = time.monotonic() - self._host.settings.camera_timeout
        return sum((c.last_received or 0.0) >= since for c in self._cameras)

    def _best(self) -> list[Frame]:
        """Find the frames, one a camera, of most cameras within the slop; of those the closest."""
        slop = round(self._host.settings.sync_slop * 1e9)
        best: list[Frame] = []
        rank = (0, 0)
        for begin in sorted({f.stamp_ns for q in self._waiting.values() for f in q}):
            near = []
            for camera in self._cameras:
                # the first within the slop is the nearest: they are in order
                later = (f for f in self._waiting[camera.name] if f.stamp_ns >= begin)
                near += [f for f in later if f.stamp_ns <= begin + slop][:1]
            spread = max(f.stamp_ns for f in near) - begin
            if (len(near), -spread) >= rank:
                best, rank = near, (len(near), -spread)
        return best

    def _send(self, frames: list[Frame]) -> None:
        cameras = {c.name: c for c in self._cameras}
        names = {f.camera for f in frames}
        if not any(f.changed for f in frames) and names <= self._last:
            for frame in frames:
                cameras[frame.camera].unchanged(frame)
        else:
            self._last = names
            self._host.offer_all([cameras[f.camera].accept(f) for f in frames])
        for frame in frames:
            self._waiting[frame.camera].remove(frame)
        self._drop_until(max(f.stamp_ns for f in frames))

    def _drop_until(self, stamp_ns: int | None, why: str = 'unsynchronised') -> None:
        """Drop what waits and is not newer than a stamp, or all of it."""
        for queue in self._waiting.values():
            while queue and (stamp_ns is None or queue[0].stamp_ns <= stamp_ns):
                self._host.drop(queue.popleft().camera, why)
