"""
What the worker's thread does with keyframes, on that thread. No ROS import.

New ones are prepared, each once, and added to the window, which is solved once; what its answers
show is delivered as points, and tells the focal length of cameras that nobody has calibrated.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import KeyframeBuffer
from ray_pose_ros.node.economy import Economy
from ray_pose_ros.node.lenses import Lenses, learned
from ray_pose_ros.node.solving import Answer, answers
from ray_pose_ros.node.work import (
    Abandoned,
    Candidate,
    Clouded,
    Failed,
    Kept,
    Refocused,
    Refused,
    Result,
    Solved,
)

CLOUD_S = 3.0  # between two clouds of points, where newer keyframes wait


@dataclass(frozen=True)
class Turn:
    """One go of the thread, and how it stands with it meanwhile.

    Attributes:
        epoch: number of resets before it.
        void: whether nobody waits for what comes of it any more.
        check: to be called between two steps; raises Abandoned where they are not worth going on
            with. Is given when a first answer was delivered, None before.
        moved: a sign of life.
        newer: whether newer keyframes wait.
        deliver: hand a result over.
    """

    epoch: int
    void: Callable[[], bool]
    check: Callable[[float | None], None]
    moved: Callable[[], None]
    newer: Callable[[], bool]
    deliver: Callable[[Result], None]


class Pipeline:
    """The window, the map and the lenses, and what is done with them.

    Other threads may change them between the steps of `advance`, holding `lock`, by `configure`,
    `forget` and `leave`; what is under way then is void.
    """

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._buffer = KeyframeBuffer(2)
        self._min_views = 2
        self._map: KeyframeMap | None = None
        self.lenses = Lenses()
        self.pairs: tuple[int, int] | None = None  # matched and wanted, while some are missing
        self._points, self._clouded = False, -math.inf

    def configure(self, window_size: int, min_views: int, map_size: int, points: bool) -> None:
        """See `Worker.load`."""
        self._buffer.resize(window_size)
        self._min_views, self._points = min_views, points
        if map_size != (0 if self._map is None else self._map.size):
            self._map = KeyframeMap(map_size) if map_size else None

    def forget(self, lenses: bool) -> None:
        """All keyframes, and what they told of the lenses if that is to be forgotten, too."""
        if lenses:
            self.lenses = Lenses()
        self._buffer.clear()
        self._forget_map()

    def leave(self) -> None:
        """Leave to a thread that was given up what it may be at, and what it may have locked."""
        self.pairs = None
        self._forget_map()
        parts = ((k, getattr(k.prepared, 'apart', None)) for k in self._buffer.window())
        self._buffer.exchange([replace(k, prepared=apart()) for k, apart in parts if apart])

    def _forget_map(self) -> None:
        """What windows have told."""
        if self._map is not None:
            self._map = KeyframeMap(self._map.size)

    def advance(self, economy: Economy, batch: list[Candidate], turn: Turn) -> None:
        """
        Prepare the new keyframes, each once, then solve the window, once.

        Without new ones it is solved as it is; where none can be used, it is not.
        """
        received, seconds = None if batch else time.monotonic(), {}
        for candidate in batch:
            if turn.void():
                return
            turn.moved()
            start = time.monotonic()
            try:
                view = self.lenses.on(candidate.make_view())
                decoded = time.monotonic()
                prepared = economy.prepare(view)
            except Exception as error:  # any input may be bad; say so, go on
                turn.deliver(Refused(turn.epoch, candidate, _words(error)))
                continue
            done = time.monotonic()
            seconds = {
                'queue': start - candidate.received,
                'decode': decoded - start,
                'features': done - decoded,
            }
            with self._lock:
                if turn.void():
                    return
                keyframe = self._buffer.add(
                    candidate.camera, candidate.stamp_ns, candidate.frame_id, prepared, view
                )
            received = candidate.received
            turn.deliver(Kept(turn.epoch, keyframe, seconds))
        with self._lock:
            window, map_ = self._buffer.window(), self._map
        if received is None or len(window) < self._min_views or turn.void():
            return
        answer = self._solve(economy, window, map_, received, seconds, turn)
        if answer is None or not self._refocus(economy, answer, turn):
            return
        with self._lock:
            window, map_ = self._buffer.window(), self._map
        if not turn.void():
            self._solve(economy, window, map_, received, {}, turn, again=True)

    def _solve(
        self, economy: Economy, window, map_, received, seconds, turn: Turn, again: bool = False
    ) -> Answer | None:
        """
        Solve a window; its newest image was `received` then, and `seconds` since are told.

        `again`: it was solved before, so its first answer, which is not the best one, is kept
        back. Returns the last answer that counts, None where there is none.
        """
        turn.moved()
        since = None  # when the first answer was there
        last = None

        def progress(done: int, total: int) -> None:
            turn.check(since)
            # before the first answer, and where nothing is refined, these are steps of the model
            matching = last is not None and last.model is not None and done < total
            self.pairs = (done, total) if matching else None

        try:
            with closing(answers(economy, window, map_, progress)) as found:
                for answer in found:
                    if turn.void():
                        return None
                    better = since is not None
                    told = answer.seconds if better else {**seconds, **answer.seconds}
                    what = answer.keyframes, answer.estimate, told, received, economy.words
                    own = answer.window_sigma
                    if better or not again:
                        more = better or again, answer.mapped, own
                        turn.deliver(Solved(turn.epoch, *what, *more))
                    since, last = since or time.monotonic(), answer
                    turn.check(since)
        except Abandoned:
            pass
        except Exception as error:  # the node must outlive a failed inference
            turn.deliver(Failed(turn.epoch, _words(error), again or since is not None))
        finally:
            self.pairs = None
        if last is None or turn.void():
            return None
        self._cloud(last, turn)
        return last

    def _cloud(self, answer: Answer, turn: Turn) -> None:
        """Deliver the points that an answer's matches show, not too often."""
        of = answer.mapped or answer
        begin = time.monotonic()
        soon = turn.newer() and begin - self._clouded < CLOUD_S
        if soon or not self._points or not getattr(of.estimate, 'ray_matches', None):
            return
        from ray_pose_ros.estimation.cloud import cloud_of_keyframes

        try:
            cloud = cloud_of_keyframes(of.keyframes, of.estimate)
        except Exception as error:
            turn.deliver(Failed(turn.epoch, _words(error), again=True))
            return
        turn.moved()
        self._clouded = time.monotonic()
        newest = max(k.stamp_ns for k in answer.keyframes)
        seconds = {'points': self._clouded - begin}
        turn.deliver(Clouded(turn.epoch, cloud.xyz, cloud.rgb, newest, seconds))

    def _refocus(self, economy: Economy, answer: Answer, turn: Turn) -> bool:
        """
        Have matches tell the focal length of cameras that nobody has calibrated.

        Where it is another one than was thought, the window's keyframes are prepared with it, the
        map is told, and True is returned. Until it is known, newer keyframes wait for this.
        """
        keyframes, lenses = answer.keyframes, self.lenses
        if answer.model is None or not lenses.wants(keyframes):
            return False
        # so that it is left for any other work, where it can wait
        since = None if lenses.urgent(keyframes) else -math.inf
        try:
            turn.check(since)
            window = self._buffer.window()
            lenses, others = learned(
                lenses, economy, keyframes, answer.model, window, lambda: turn.check(since)
            )
        except Abandoned:
            return False
        except Exception as error:
            turn.deliver(Failed(turn.epoch, _words(error), again=True))
            return False
        with self._lock:
            if turn.void():
                return False
            longer = lenses.factor / self.lenses.factor
            self.lenses = lenses
            if others:
                self._buffer.exchange(others)
                if self._map is not None:
                    self._map.refocus(others, longer)
        if others:
            turn.deliver(Refocused(turn.epoch, str(lenses)))
        return bool(others)


def _words(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    kind = type(error).__name__
    first = text[0] if text else ''
    return first if first and isinstance(error, ValueError) else f'{kind}: {first}'
