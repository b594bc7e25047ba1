"""What goes into the worker and what comes out of it. No ROS import."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray_pose_ros.estimation.keyframe_map import Mapped
from ray_pose_ros.estimation.keyframes import Keyframe


@dataclass(frozen=True)
class Candidate:
    """A frame that passed the gate; `make_view` decodes it, on the worker's thread."""

    camera: str
    topic: str
    stamp_ns: int
    frame_id: str
    make_view: Callable[[], Any]
    received: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Result:
    """What the worker hands back; `epoch` tells results from before a reset."""

    epoch: int


@dataclass(frozen=True)
class Kept(Result):
    """A candidate became a keyframe."""

    keyframe: Keyframe
    seconds: dict[str, float]


@dataclass(frozen=True)
class Refused(Result):
    """A candidate turned out to be unusable."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Solved(Result):
    """
    A window was solved; `seconds` splits the time since its newest image was received.

    `reduced` says what was left out where memory did not suffice for all, '' otherwise; `again`,
    that the same window was solved before and this is the better answer of a second look.
    `mapped` are all keyframes of the map, in the same world as the window's; None without a map.
    `window_sigma` (N,): rad, of rotations within the window, where the estimate's are of the map.
    """

    keyframes: tuple[Keyframe, ...]
    estimate: Any
    seconds: dict[str, float]
    received: float
    reduced: str = ''
    again: bool = False
    mapped: Mapped | None = None
    window_sigma: Any = None


@dataclass(frozen=True)
class Failed(Result):
    """
    A window could not be solved; its keyframes stay. It is tried again with the next one, or where
    none comes, after a while.

    `again`: it was solved before, and only a second look failed.
    """

    error: str
    again: bool = False


@dataclass(frozen=True)
class Clouded(Result):
    """The points that the matches of the last Solved show: `xyz` (P, 3) in its world's unit, and
    `rgb` (P, 3) uint8; `stamp_ns` of its newest image."""

    xyz: Any
    rgb: Any
    stamp_ns: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Refocused(Result):
    """The focal length of uncalibrated cameras is another one than was thought; `words` tell."""

    words: str


class Abandoned(Exception):  # no error
    """The answer under way is void: reset, deactivated, replaced, or the worker is to stop."""


class WorkerLost(RuntimeError):
    """The worker's thread was given up while somebody waited for it."""
