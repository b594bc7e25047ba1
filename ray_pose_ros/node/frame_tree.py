"""Who is whose parent on /tf and /tf_static, so that no frame ever gets a second one."""

from __future__ import annotations

import time

from tf2_msgs.msg import TFMessage

LISTEN_S = 2.0  # before anything is published for frames that somebody else may own
FORGET_S = 10.0  # a frame that nobody has published for so long has lost its parent
MESSAGES_A_SECOND = 40  # of /tf; robots publish hundreds, and parents hardly ever change
KEPT = 10_000


class FrameTree:
    """
    The parents that others publish. What this node publishes itself is told to `claim`.

    Its own transforms come back on /tf and are told apart by their parent.
    """

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._parents: dict[str, tuple[str, float]] = {}  # child: parent, until when that holds
        self._own: dict[tuple[str, str], float] = {}  # (parent, child): until when
        self._second, self._taken = 0, 0

    def begin(self) -> None:
        """Start listening: what was heard before may not hold any more."""
        self._since, self._parents = time.monotonic(), {}

    def claim(self, pairs: list[tuple[str, str]]) -> None:
        """Note the (parent, child) that this node publishes now."""
        now = time.monotonic()
        self._own = {pair: until for pair, until in self._own.items() if until > now}
        self._own.update(dict.fromkeys(pairs, now + FORGET_S))

    def is_own(self, parent: str, child: str) -> bool:
        """Say whether this node has published a transform itself, of late."""
        return (parent, child) in self._own

    @property
    def has_listened(self) -> bool:
        """Whether everybody who publishes regularly has been heard."""
        return time.monotonic() - self._since >= LISTEN_S

    def listens(self) -> bool:
        """Say whether another message of /tf is worth its time."""
        if not self.has_listened:
            return True
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._taken = second, 0
        return self._taken < MESSAGES_A_SECOND

    def on_tf(self, msg: TFMessage) -> None:
        """Note the parents of moving frames."""
        self._taken += 1
        self._note(msg, time.monotonic() + FORGET_S)

    def on_static(self, msg: TFMessage) -> None:
        """Note the parents of frames that never move; they hold for ever."""
        self._note(msg, float('inf'))

    def _note(self, msg: TFMessage, until: float) -> None:
        for transform in msg.transforms:
            child = transform.child_frame_id.lstrip('/')
            parent = transform.header.frame_id.lstrip('/')
            if not child or not parent or (parent, child) in self._own:
                continue
            if child in self._parents or len(self._parents) < KEPT:
                self._parents[child] = (parent, until)

    def parent(self, child: str) -> str | None:
        """Return the parent that others give a frame, None where they give none."""
        parent, until = self._parents.get(child, (None, 0.0))
        return parent if until > time.monotonic() else None

    def objection(self, parent: str, child: str) -> str | None:
        """Say why a transform from `parent` to `child` must not be published; None if it may."""
        if child == parent:
            return f'frame {child!r} cannot be its own parent'
        other = self.parent(child)
        if other is not None and other != parent:
            return (
                f'frame {child!r} has the parent {other!r} already, {parent!r} cannot be another'
            )
        own = {below: above for above, below in self._own}
        above = parent
        for _ in range(100):
            above = self.parent(above) or own.get(above)
            if above is None:
                return None
            if above == child:
                return f'frame {child!r} is above {parent!r} already, it cannot be below as well'
        return f'the frames above {parent!r} go round in a circle'
