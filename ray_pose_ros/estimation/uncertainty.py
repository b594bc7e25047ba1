"""What the uncertainty of cameras is made from, and how.

A checkpoint's configuration has the terms, which `ray-pose calibrate` fits to errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_pose_ros.model.config import ModelConfig

_LEAST = 1e-6  # of what has a power: it may be exactly nothing for the first camera


@dataclass(frozen=True)
class Doubts:
    """Of cameras from rays alone, (N,) each: rotations in radians, centres in world units.

    The spread of `samples` answers and the misfit of the rays to the cameras.
    """

    samples: int
    rotation_spread: np.ndarray
    rotation_misfit: np.ndarray
    centre_spread: np.ndarray
    centre_misfit: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) what `ray_deviation` takes, of rotations and of centres."""
        samples = np.full(len(self.rotation_spread), self.samples)
        return (
            np.stack([samples, self.rotation_spread, self.rotation_misfit], axis=1),
            np.stack([samples, self.centre_spread, self.centre_misfit], axis=1),
        )

    def sigmas(self, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations (N,) of rotations and centres."""
        rotation, centre = self.inputs
        return (
            ray_deviation(rotation, config.rotation_sigma),
            ray_deviation(centre, config.centre_sigma),
        )


@dataclass(frozen=True)
class MatchedDoubts:
    """Of cameras that were adjusted to matches, (N,) each, units as above.

    The deviation that the adjustment tells, the standard deviation from before it, and the nats
    by which matches join a view to the first (`settling.Settled`).
    """

    rotation_deviation: np.ndarray
    rotation_before: np.ndarray
    centre_deviation: np.ndarray
    centre_before: np.ndarray
    support: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) what `matched_deviation` takes, of rotations and of centres."""
        return (
            np.stack([self.rotation_deviation, self.rotation_before, self.support], axis=1),
            np.stack([self.centre_deviation, self.centre_before, self.support], axis=1),
        )

    def sigmas(self, config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations (N,) of rotations and centres."""
        rotation, centre = self.inputs
        told = matched_deviation(rotation, config.matched_rotation_sigma)
        # the first camera's orientation is the world's: its own share is in all the others
        told[0] = told[1:].min()
        return told, matched_deviation(centre, config.matched_centre_sigma)


def ray_deviation(inputs: np.ndarray, terms: tuple[float, ...]) -> np.ndarray:
    """One standard deviation (N,) from number, spread and misfit (N, 3).

    `terms` are those of `ModelConfig.rotation_sigma`. The last is a floor, so that it is never
    zero: no filter downstream could live with that.
    """
    samples, spread, misfit = inputs.T
    slope, power, share, floor = terms
    return np.sqrt((slope * samples**power * spread) ** 2 + (share * misfit) ** 2 + floor**2)


def matched_deviation(inputs: np.ndarray, terms: tuple[float, ...]) -> np.ndarray:
    """One standard deviation (N,) from deviation, the one before and support (N, 3).

    `terms` are those of `ModelConfig.matched_rotation_sigma`. A product of powers: what is wrong
    is seldom wrong by a little, and of views that few matches join, most are.
    """
    deviation, before, support = inputs.T
    factor, a, b, c, floor = terms
    told = np.maximum(deviation, _LEAST) ** a * np.maximum(before, _LEAST) ** b
    return np.hypot(factor * told * (1 + support) ** c, floor)
