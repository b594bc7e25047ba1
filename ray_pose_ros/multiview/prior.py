"""What is believed of the cameras before any match: a mixture of the ray model's samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between, nearest_rotation

from .two_view import RayMatches

# Share of all belief that is spread evenly over all rotations, whatever the samples say.
DOUBT = 0.08
_KERNEL = np.radians(12.0)  # rad, rms: how far the truth is from a sample of a good model
_WHOLE = 8 * np.pi**2  # volume of SO(3) in rotation vectors


@dataclass(frozen=True)
class Prior:
    """Cameras of N views with their uncertainty; the object is at the origin.

    Attributes:
        R, centres: (N, 3, 3), (N, 3), the best guess.
        rotation_sigma: (N,) rad, rms angle. centre_sigma: (N,) rms distance.
        samples: (S, N, 3, 3) rotations of other answers, each in its own world; may be empty.
        matches: of pairs (i, j), i < j, which the best guess was adjusted to, weighed as they were
            there; may be empty.
    """

    R: np.ndarray
    centres: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    samples: np.ndarray
    matches: dict[tuple[int, int], RayMatches] = field(default_factory=dict)

    def aligned(self, R: np.ndarray) -> Prior:
        """The same belief, the world turned so that the best guess suits R (N, 3, 3) best."""
        turn = alignment(R, self.R, np.maximum(self.rotation_sigma, 1e-3))
        return replace(
            self, R=self.R @ turn, centres=self.centres @ turn, samples=self.samples @ turn
        )

    def pair_rotations(self, i: int, j: int) -> np.ndarray:
        """R_j R_i^T (1 + S, 3, 3): the best guess's, then the samples'."""
        best = self.R[j] @ self.R[i].T
        others = self.samples[:, j] @ np.swapaxes(self.samples[:, i], -1, -2)
        return np.concatenate([best[None], others.reshape(-1, 3, 3)])

    def pair_sigma(self, i: int, j: int) -> float:
        """rad, rms angle of the best guess of R_j R_i^T."""
        return float(np.hypot(self.rotation_sigma[i], self.rotation_sigma[j]))

    def pair_translation(self, i: int, j: int) -> np.ndarray:
        """t (3,) of the best guess' x_j = R x_i + t, |t| = 1; 0 for cameras at one place."""
        t = self.R[j] @ (self.centres[i] - self.centres[j])
        return t / max(np.linalg.norm(t), 1e-9)

    def log_ratio(self, i: int, j: int, R: np.ndarray) -> np.ndarray:
        """log of the density (...) of R_j R_i^T = R (..., 3, 3) over that of knowing nothing."""
        sigma = self.pair_sigma(i, j)
        rotations = self.pair_rotations(i, j)
        density = gauss(angle_between(rotations[0], R), sigma)
        if len(rotations) > 1:
            kernels = [gauss(angle_between(x, R), _KERNEL * 2**0.5) for x in rotations[1:]]
            density = 0.5 * density + 0.5 * np.mean(kernels, axis=0)
        return np.log(DOUBT + (1 - DOUBT) * density)


def gauss(angle: np.ndarray, rms: float | np.ndarray) -> np.ndarray:
    """Density (...) of rotations at `angle` (...) over the uniform one on SO(3); rms rad.

    A Gaussian of rotation vectors; at most the uniform density where it is wider than the group.
    """
    sigma = np.asarray(rms, dtype=np.float64) / 3**0.5
    peak = _WHOLE / (2 * np.pi) ** 1.5 / sigma**3
    density = peak * np.exp(-0.5 * (np.asarray(angle, dtype=np.float64) / sigma) ** 2)
    # beyond about 100 degrees rms the Gaussian is no density on SO(3) any more
    return np.where(peak > 1, density, 1.0)


def alignment(R: np.ndarray, mode: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Q (..., 3, 3) with mode_i Q ~ R_i, robustly, for R (N, 3, 3) and mode (..., N, 3, 3).

    sigma (N,) rad.
    """
    weight, back = 1 / sigma**2, np.swapaxes(mode, -1, -2)
    for _ in range(4):
        Q = nearest_rotation((weight[..., None, None] * (back @ R)).sum(-3))
        off = angle_between(R, mode @ Q[..., None, :, :]) / sigma
        weight = 1 / sigma**2 / (1 + off**2 / 4)
    return Q
