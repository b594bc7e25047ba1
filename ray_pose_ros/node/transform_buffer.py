"""
Where frames were: stamped transforms of the last seconds, looked up as tf2 does.

tf2's own buffer is not used, because it is not everywhere where rclpy is (docs/ros.md), and
because of what this node publishes itself nothing may come back in. What it answers is the same:
transforms between two samples are interpolated (linearly, and along the shorter arc), nothing is
extrapolated, static ones hold at all times, a frame may change its parent, samples may come out of
order. No ROS import.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np

from ray_pose_ros.geometry.so3 import rotation_from_vector, vector_from_rotation

KEPT_NS = 10_000_000_000  # as tf2
KEPT_FRAMES = 1000
KEPT_SAMPLES = 2000  # of a frame, which bound the time at more than 200 Hz
KEPT_IN_ALL = 100_000  # about 60 MB
LONGEST_CHAIN = 100


class NoTransform(LookupError):
    """Two frames are not connected at that time; the text says what is missing."""


@dataclass(frozen=True)
class Rigid:
    """The pose of a child in its parent, `x_parent = R x_child + p`: R (3, 3), p (3,) metres."""

    R: np.ndarray
    p: np.ndarray

    def __matmul__(self, other: Rigid) -> Rigid:
        return Rigid(self.R @ other.R, self.R @ other.p + self.p)

    def inverse(self) -> Rigid:
        """The pose of the parent in the child."""
        return Rigid(self.R.T, -self.R.T @ self.p)

    def towards(self, other: Rigid, share: float) -> Rigid:
        """Go a share of the way to another one."""
        turn = share * vector_from_rotation(self.R.T @ other.R)
        return Rigid(self.R @ rotation_from_vector(turn), self.p + share * (other.p - self.p))


@dataclass
class _Edge:
    """All that is known of one frame: samples by stamp, each with its parent, or one for ever."""

    stamps: list[int] = field(default_factory=list)
    samples: list[tuple[str, Rigid]] = field(default_factory=list)
    static: tuple[str, Rigid] | None = None

    @property
    def parent(self) -> str | None:
        """The parent it has now."""
        newest = self.static or (self.samples[-1] if self.samples else None)
        return newest and newest[0]

    def at(self, stamp_ns: int, frame: str) -> tuple[str, Rigid]:
        """The parent and the pose in it at a time; NoTransform outside of what is known."""
        if self.static is not None:
            return self.static
        i = bisect_left(self.stamps, stamp_ns)
        if i < len(self.stamps) and self.stamps[i] == stamp_ns:
            return self.samples[i]
        if 0 < i < len(self.stamps):
            (parent, before), (other, after) = self.samples[i - 1 : i + 1]
            begin, end = self.stamps[i - 1 : i + 1]
            if parent != other:  # there is nothing between two parents
                return parent, before
            return parent, before.towards(after, (stamp_ns - begin) / (end - begin))
        known = self.stamps[0] if i == 0 else self.stamps[-1]
        raise NoTransform(
            f'frame {frame!r} is known {"from" if i == 0 else "up to"} {known * 1e-9:.3f} s only, '
            f'not at {stamp_ns * 1e-9:.3f} s'
        )


class TransformBuffer:
    """The transforms of the last ten seconds, by child frame; for one thread."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}
        self._count = 0

    def __len__(self) -> int:
        """Number of samples that are held."""
        return self._count

    def clear(self) -> None:
        """Forget what moves, after time went back."""
        self._edges = {k: e for k, e in self._edges.items() if e.static is not None}
        self._count = 0

    def add_static(self, parent: str, child: str, pose: Rigid) -> None:
        """Note a transform that holds for ever, instead of all before."""
        edge = self._edge(child)
        if edge is not None:
            self._count -= len(edge.stamps)
            edge.stamps, edge.samples, edge.static = [], [], (parent, pose)

    def add(self, parent: str, child: str, stamp_ns: int, pose: Rigid) -> None:
        """Note a transform at a time; too old ones and repeated ones are left out."""
        edge = self._edge(child)
        if edge is None:
            return
        edge.static = None
        stamps, i = edge.stamps, bisect_left(edge.stamps, stamp_ns)
        if i < len(stamps) and stamps[i] == stamp_ns:
            return
        if stamps and stamp_ns < stamps[-1] - KEPT_NS:
            return
        stamps.insert(i, stamp_ns)
        edge.samples.insert(i, (parent, pose))
        old = bisect_left(stamps, stamps[-1] - KEPT_NS)
        full = self._count + 1 > KEPT_IN_ALL
        old = max(old, len(stamps) - KEPT_SAMPLES, 1 if full else 0)
        del stamps[:old], edge.samples[:old]
        self._count += 1 - old

    def _edge(self, child: str) -> _Edge | None:
        if child not in self._edges and len(self._edges) >= KEPT_FRAMES:
            return None
        return self._edges.setdefault(child, _Edge())

    def look_up(self, target: str, source: str, stamp_ns: int) -> Rigid:
        """The pose of `source` in `target` at a time, metres. Raises NoTransform."""
        above_source, why_source = self._upwards(source, stamp_ns, stop=target)
        if target in above_source:
            return above_source[target]
        above_target, why_target = self._upwards(target, stamp_ns)
        for frame, pose in above_target.items():
            if frame in above_source:
                return pose.inverse() @ above_source[frame]
        raise NoTransform(
            why_source or why_target or f'frames {target!r} and {source!r} are not connected'
        )

    def newest_ns(self, target: str, source: str) -> int | None:
        """The newest time at which the pose is known, None if there is none; 0: at any time."""
        newest: list[int] = []
        frames = {frame: self._parents(frame) for frame in (source, target)}
        common = next((f for f in frames[source] if f in frames[target]), None)
        if common is None:
            return None
        for above in frames.values():
            for frame in above[: above.index(common)]:
                edge = self._edges[frame]
                if edge.static is None:
                    newest.append(edge.stamps[-1])
        return min(newest, default=0)

    def _parents(self, frame: str) -> list[str]:
        """A frame and those above it, as they are connected now."""
        found = [frame]
        while (edge := self._edges.get(found[-1])) and len(found) < LONGEST_CHAIN:
            if edge.parent is None:
                break
            found.append(edge.parent)
        return found

    def _upwards(
        self, frame: str, stamp_ns: int, stop: str = ''
    ) -> tuple[dict[str, Rigid], str | None]:
        """A frame's pose in each frame above it, nearest first, and what ended the way."""
        found = {frame: Rigid(np.eye(3), np.zeros(3))}
        pose = found[frame]
        while frame != stop:
            edge = self._edges.get(frame)
            if edge is None:
                known = len(found) > 1 or any(e.parent == frame for e in self._edges.values())
                return found, None if known else f'frame {frame!r} is not known'
            if edge.parent is None:
                return found, None
            try:
                parent, of_frame = edge.at(stamp_ns, frame)
            except NoTransform as missing:
                return found, str(missing)
            if parent in found:
                return found, f'the frames above {frame!r} go round in a circle'
            pose = of_frame @ pose
            found[parent], frame = pose, parent
        return found, None
