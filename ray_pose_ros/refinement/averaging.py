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
    links = _Links({key: hs for key, hs in useful.items() if hs})
    modes = np.concatenate([prior.R[None], prior.samples])
    starts = modes
    if links.pairs:
        starts = np.concatenate([modes, [_grow(mode, links) for mode in modes]])
        modes = np.concatenate([modes, modes])
    ends = _descend(starts, modes, links, prior)
    worths = worth(ends, links, prior)
    best = int(worths.argmax())
    R = ends[best] @ ends[best, 0].T
    return Agreement(R, _chosen(R, links), float(worths[best] - prior_worth(prior.R, prior)))


def value(h: Hypothesis) -> float:
    """What a hypothesis is worth where the rotations agree with it, nats, the prior left out."""
    return h.evidence - h.misfit


def edge_sigma(h: Hypothesis) -> float:
    """rad, rms, of a hypothesis' rotation: at least what its matches leave open."""
    return float(np.hypot(_EDGE, 1.5 * h.sigma))


class _Links:
    """Hypotheses of E pairs in arrays: H of them, of each pair in a row.

    Attributes:
        pairs: as given; every: their hypotheses, one pair's after the other's.
        i, j: (E,) the pairs' views. of: (H,) which pair a hypothesis is of.
        R, value, sigma: (H, 3, 3), (H,), (H,) of the hypotheses.
    """

    def __init__(self, pairs: Pairs):
        self.pairs = pairs
        self.every = every = [h for hs in pairs.values() for h in hs]
        self.i, self.j = np.array(list(pairs), dtype=int).reshape(-1, 2).T
        counts = np.array([len(hs) for hs in pairs.values()], dtype=int)
        self.of = np.repeat(np.arange(len(counts)), counts)
        # (E, most) a row for each pair, those with fewer hypotheses filled up with their first
        first, place = np.cumsum(counts) - counts, np.arange(counts.max(initial=0))
        self._rows = first[:, None] + np.where(place < counts[:, None], place, 0)
        self.R = np.array([h.R for h in every]).reshape(-1, 3, 3)
        self.value = np.array([value(h) for h in every])
        self.sigma = np.array([edge_sigma(h) for h in every])

    def relative(self, R: np.ndarray) -> np.ndarray:
        """(..., E, 3, 3), from the first to the second view of each pair."""
        return R[..., self.j, :, :] @ np.swapaxes(R[..., self.i, :, :], -1, -2)

    def fits(self, relative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By how much hypotheses are off (..., H), rad, and what they are worth there, nats."""
        angle = angle_between(self.R, relative[..., self.of, :, :])
        off = np.minimum(angle / (self.sigma / 3**0.5), 50.0)
        return angle, self.value - 0.5 * off**2

    def best(self, fits: np.ndarray) -> np.ndarray:
        """Indices (..., E) of each pair's hypothesis with the largest of `fits` (..., H)."""
        if not len(self._rows):
            return np.zeros((*fits.shape[:-1], 0), dtype=int)
        column = fits[..., self._rows].argmax(-1)
        return self._rows[np.arange(len(self._rows)), column]


def worth(R: np.ndarray, links: _Links, prior: Prior) -> np.ndarray:
    """Log belief (...) in rotations R (..., N, 3, 3), nats up to a constant."""
    _, fits = links.fits(links.relative(R))
    largest = np.take_along_axis(fits, links.best(fits), -1)
    return np.maximum(largest, 0.0).sum(-1) + prior_worth(R, prior)


def prior_worth(R: np.ndarray, prior: Prior) -> np.ndarray:
    """Log density (...) of rotations R (..., N, 3, 3) under the prior, the world turned to suit it
    best."""
    sigma = np.maximum(prior.rotation_sigma, 1e-3)
    modes = np.concatenate([prior.R[None], prior.samples])
    R = R[..., None, :, :, :]
    turned = modes @ alignment(R, modes, sigma)[..., None, :, :]
    density = gauss(angle_between(R, turned), sigma)  # (..., S, N)
    return np.log(DOUBT + (1 - DOUBT) * density).sum(-1).max(-1)


def _chosen(R: np.ndarray, links: _Links) -> dict[tuple[int, int], Hypothesis]:
    angle, fits = links.fits(links.relative(R))
    near = angle < _CUT * links.sigma
    best = links.best(np.where(near, fits, -np.inf))
    return {key: links.every[k] for key, k in zip(links.pairs, best, strict=True) if near[k]}


def _grow(mode: np.ndarray, links: _Links) -> np.ndarray:
    """Rotations that follow the most believed pairs; what they do not join stays as in `mode`."""
    R = mode.copy()
    part = np.arange(len(R))
    pairs = links.pairs
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


def _descend(R: np.ndarray, modes: np.ndarray, links: _Links, prior: Prior) -> np.ndarray:
    """Reweighted least squares on the rotations, from each of R (S, N, 3, 3) on, held by `modes`.

    Pairs choose their hypothesis anew in each step.
    """
    starts, n = R.shape[:2]
    own, every = np.arange(n), np.arange(starts)[:, None]
    sigma = np.maximum(prior.rotation_sigma, 1e-3) / 3**0.5
    i, j, eye = links.i, links.j, np.eye(3)
    for step in range(12):
        widen = max(1.0, 4.0 * 0.7**step)
        A, b = np.zeros((starts, n, n, 3, 3)), np.zeros((starts, n, 3))
        target = modes @ alignment(R, modes, sigma)[:, None]
        e = vector_from_rotation(target @ np.swapaxes(R, -1, -2))
        # tails of the prior are heavy: far from it, it hardly pulls
        w = 1 / sigma**2 / (1 + (e * e).sum(-1) / (3 * sigma) ** 2)
        A[:, own, own] += w[..., None, None] * eye
        b += w[..., None] * e
        relative = links.relative(R)
        best = links.best(links.fits(relative)[1])
        Q, s = links.R[best], links.sigma[best] / 3**0.5
        e = vector_from_rotation(Q @ np.swapaxes(relative, -1, -2))
        # e + Q w_i - w_j = 0; Geman-McClure with a scale that the belief sets
        scale = widen * s * (1 + 2 * np.maximum(links.value[best], 0.0)) ** 0.5
        w = 1 / s**2 / (1 + (e * e).sum(-1) / scale**2) ** 2
        weight, back = w[..., None, None], np.swapaxes(Q, -1, -2)
        for one, other, block in ((i, i, eye), (j, j, eye), (i, j, -back), (j, i, -Q)):
            np.add.at(A, (every, one, other), weight * block)
        np.add.at(b, (every, i), -w[..., None] * (back @ e[..., None])[..., 0])
        np.add.at(b, (every, j), w[..., None] * e)
        A = A.transpose(0, 1, 3, 2, 4).reshape(starts, 3 * n, 3 * n)
        damping = 1e-9 * np.trace(A, axis1=1, axis2=2)[:, None, None] * np.eye(3 * n)
        x = np.linalg.solve(A + damping, b.reshape(starts, -1, 1)).reshape(starts, n, 3)
        R = rotation_from_vector(x) @ R
        if np.abs(x).max() < 1e-5:
            break
    return R
