"""Rotations of all cameras: which meaning of each pair's matches is true, and what they agree on.

The answer maximises what the hypotheses and the prior are worth together (`worth`). It is looked
for from several starts: every mode of the prior, with the pairs put in by their belief one after
the other or not at all, each followed by reweighted least squares on the group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector, vector_from_rotation
from ray_pose_ros.multiview.prior import DOUBT, Prior, alignment, gauss

from .hypotheses import Hypothesis

Pairs = dict[tuple[int, int], list[Hypothesis]]
_EDGE = np.radians(1.5)  # rad, rms: nothing is better than this before all are adjusted together
_CUT = 3.0  # deviations beyond which a hypothesis has no say


@dataclass(frozen=True)
class Agreement:
    """Rotations and the hypotheses that agree with them.

    Attributes:
        R: (N, 3, 3), first camera unrotated.
        chosen: the hypothesis of each pair that agrees; pairs without one are absent.
        worth: nats over the prior's best guess without matches.
    """

    R: np.ndarray
    chosen: dict[tuple[int, int], Hypothesis]
    worth: float


def agree(pairs: Pairs, prior: Prior) -> Agreement:
    """The best rotations that hypotheses of pairs (i, j), i < j, and the prior admit."""
    useful = {key: [h for h in hs if value(h) > 0] for key, hs in pairs.items()}
    useful = {key: hs for key, hs in useful.items() if hs}
    modes = np.concatenate([prior.R[None], prior.samples])
    found = []
    for mode in modes:
        for start in (mode, _grow(mode, useful)):
            R = _descend(start, mode, useful, prior)
            found.append((worth(R, useful, prior), R))
            if not useful:
                break
    best, R = max(found, key=lambda x: x[0])
    R = R @ R[0].T
    return Agreement(R, _chosen(R, useful), best - worth(prior.R, {}, prior))


def value(h: Hypothesis) -> float:
    """What a hypothesis is worth where the rotations agree with it, nats, the prior left out."""
    return h.evidence - h.misfit


def edge_sigma(h: Hypothesis) -> float:
    """rad, rms, of a hypothesis' rotation: at least what its matches leave open."""
    return float(np.hypot(_EDGE, 1.5 * h.sigma))


def worth(R: np.ndarray, pairs: Pairs, prior: Prior) -> float:
    """Log belief in rotations R (N, 3, 3), nats up to a constant."""
    total = 0.0
    for (i, j), hs in pairs.items():
        relative = R[j] @ R[i].T
        total += max(0.0, max(_fit(h, relative) for h in hs))
    return total + prior_worth(R, prior)


def prior_worth(R: np.ndarray, prior: Prior) -> float:
    """Log density of rotations R under the prior, the world turned to suit it best."""
    sigma = np.maximum(prior.rotation_sigma, 1e-3)
    best = -np.inf
    for mode in np.concatenate([prior.R[None], prior.samples]):
        turn = alignment(R, mode, sigma)
        density = np.array(
            [gauss(a, s) for a, s in zip(angle_between(R, mode @ turn), sigma, strict=True)]
        )
        best = max(best, float(np.log(DOUBT + (1 - DOUBT) * density).sum()))
    return best


def _fit(h: Hypothesis, relative: np.ndarray) -> float:
    off = angle_between(h.R, relative) / (edge_sigma(h) / 3**0.5)
    return value(h) - 0.5 * min(off, 50.0) ** 2


def _chosen(R: np.ndarray, pairs: Pairs) -> dict[tuple[int, int], Hypothesis]:
    chosen = {}
    for (i, j), hs in pairs.items():
        relative = R[j] @ R[i].T
        near = [h for h in hs if angle_between(h.R, relative) < _CUT * edge_sigma(h)]
        if near:
            chosen[i, j] = max(near, key=lambda h: _fit(h, relative))
    return chosen


def _grow(mode: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Rotations that follow the most believed pairs; what they do not join stays as in `mode`."""
    R = mode.copy()
    part = np.arange(len(R))
    edges = sorted(((h.belief, key, n) for key, hs in pairs.items() for n, h in enumerate(hs)))
    for _, (i, j), n in reversed(edges):
        if part[i] == part[j]:
            continue
        h = pairs[i, j][n]
        moved = part == part[j]
        # turn j's part as a whole so that the pair fits
        R[moved] = R[moved] @ (R[j].T @ h.R @ R[i])
        part[moved] = part[i]
    ones = np.ones(len(R))
    for p in np.unique(part):
        inside = part == p
        R[inside] = R[inside] @ alignment(R[inside], mode[inside], ones[inside]).T
    return R


def _descend(R: np.ndarray, mode: np.ndarray, pairs: Pairs, prior: Prior) -> np.ndarray:
    """Reweighted least squares on the rotations, from R on; pairs choose their hypothesis anew."""
    n = len(R)
    sigma = np.maximum(prior.rotation_sigma, 1e-3) / 3**0.5
    R = R.copy()
    for step in range(12):
        widen = max(1.0, 4.0 * 0.7**step)
        A, b = np.zeros((3 * n, 3 * n)), np.zeros(3 * n)
        target = mode @ alignment(R, mode, sigma)
        for i in range(n):
            e = vector_from_rotation(target[i] @ R[i].T)
            # tails of the prior are heavy: far from it, it hardly pulls
            w = 1 / sigma[i] ** 2 / (1 + (e @ e) / (3 * sigma[i]) ** 2)
            A[3 * i : 3 * i + 3, 3 * i : 3 * i + 3] += w * np.eye(3)
            b[3 * i : 3 * i + 3] += w * e
        for (i, j), hs in pairs.items():
            relative = R[j] @ R[i].T
            h = max(hs, key=lambda x: _fit(x, relative))
            s = edge_sigma(h) / 3**0.5
            e = vector_from_rotation(h.R @ relative.T)
            # e + h.R w_i - w_j = 0; Geman-McClure with a scale that the belief sets
            scale = widen * s * (1 + 2 * max(value(h), 0.0)) ** 0.5
            w = 1 / s**2 / (1 + (e @ e) / scale**2) ** 2
            J = np.zeros((3, 3 * n))
            J[:, 3 * i : 3 * i + 3], J[:, 3 * j : 3 * j + 3] = -h.R, np.eye(3)
            A += w * J.T @ J
            b += w * J.T @ e
        x = np.linalg.solve(A + 1e-9 * np.trace(A) * np.eye(3 * n), b).reshape(n, 3)
        R = rotation_from_vector(x) @ R
        if np.abs(x).max() < 1e-5:
            break
    return R
