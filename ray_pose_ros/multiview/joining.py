"""Answers for overlapping windows of views, joined into one world.

Each window tells where its views are, up to a similarity of its own. What is looked for are those
similarities and one pose of each view, such that they agree as well as their uncertainties want,
and what is far off has little say (Cauchy's weights): a window may have some of its views at the
wrong side of the object, or be wrong as a whole.

Rotations, scales and places are found one after the other. Each time every answer tells a
difference between something of a view (or of two) and something of a window, and all of these
together a linear problem no larger than those are many: rotation averaging on a bipartite graph
(Hartley et al., "Rotation averaging", IJCV 2013, for the problem), and the same for the logarithms
of distances and for places. Logarithms, because scales fitted to noisy places come out too
small, and over a chain of windows that adds up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between, rotation_from_vector, vector_from_rotation

# rad, and shares of a distance: no answer counts as surer, and none as less sure of a distance
_LEAST_ROTATION, _LEAST, _MOST = np.radians(0.2), 0.005, 10.0
# A centre is off by at most so much for each radian that its camera is, in distances from the
# object. What it is less certain than that it has in common with the other centres of its window:
# how far away the object is.
_TURNED = 2.0
# How far apart windows may see the object, likewise: of near views it is seen from one side only.
_OBJECT = 0.3
# What several windows say of one view is not independent: sigmas grow with this power of their
# number, so that together they count as little more than one.
_ALIKE = 0.25
_SWEEPS, _ROUNDS = 3, 8


class Answers(NamedTuple):
    """M answers for one view in one window.

    Attributes:
        view, window: (M,) int, from 0 on, without gaps.
        R, centres: (M, 3, 3) world to camera, (M, 3); in the window's own world, whose origin is
            the object.
        rotation_sigma, centre_sigma: (M,) rad and units of that world, relative to the window's
            first view: half of the variance is that one's.
    """

    view: np.ndarray
    window: np.ndarray
    R: np.ndarray
    centres: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray


class Joined(NamedTuple):
    """K views in one world, and the W windows' own: x = scale turn x_window + origin.

    R, centres (K, 3, 3), (K, 3); rotation_sigma, centre_sigma (K,); turn, scale, origin (W, 3, 3),
    (W,), (W, 3).
    """

    R: np.ndarray
    centres: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    turn: np.ndarray
    scale: np.ndarray
    origin: np.ndarray


def join(answers: Answers, R: np.ndarray, distance: float = 1.0) -> Joined:
    """Put all views into one world.

    Args:
        answers: every window has views in common with some window before it.
        R: (K, 3, 3) where the views are known to be, to begin with, nan for new ones. The first
            view's is known, and stays as it is; its rotation_sigma is 0 then.
        distance: of the first view from the object.
    """
    view, window = answers.view, answers.window
    often = np.bincount(view)[view] ** _ALIKE
    sigma = often * np.maximum(answers.rotation_sigma / 2**0.5, _LEAST_ROTATION)
    R, turn = _begin(answers, R, sigma)
    R, turn, trust, variance = _rotations(answers, R, turn, sigma)

    away = np.maximum(np.linalg.norm(answers.centres, axis=1), 1e-9)
    turned = _TURNED * answers.rotation_sigma * away
    usual = _medians(away, window)  # one camera may be as good as at the object
    own = np.clip(np.minimum(answers.centre_sigma, turned), _LEAST * usual, _MOST * usual)
    scale = _scales(answers, own, trust, distance)
    seen = scale[window, None] * (turn[window] @ answers.centres[..., None])[..., 0]
    places = _Fit(view, window, seen, often * own * scale[window], trust)
    places.solve(prior=_OBJECT * float(np.median(scale[window] * away)))
    return Joined(
        R,
        places.of_view,
        variance**0.5,
        places.variance() ** 0.5,
        turn,
        scale,
        places.of_window,
    )


def _medians(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(M,) the median of the values (M,) of each one's window."""
    found = np.zeros(len(values))
    for w in range(window.max() + 1):
        found[window == w] = np.median(values[window == w])
    return found


def _begin(answers: Answers, R, sigma) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (K, 3, 3) and turns (W, 3, 3) that most of the answers support.

    By votes, since weights alone do not lead away from a wrong place that was believed first.
    """
    view, window = answers.view, answers.window
    R, known = R.copy(), np.isfinite(R).all(axis=(1, 2))
    turn = np.zeros((window.max() + 1, 3, 3))
    for sweep in range(_SWEEPS):
        for w in range(len(turn)):
            mine = np.flatnonzero((window == w) & known[view])
            votes = np.swapaxes(R[view[mine]], -1, -2) @ answers.R[mine]
            turn[w] = votes[_elected(votes, sigma[mine])]
            if sweep == 0:
                new = np.flatnonzero((window == w) & ~known[view])
                R[view[new]] = answers.R[new] @ turn[w].T
                known[view[new]] = True
        if sweep == _SWEEPS - 1:
            break
        for k in range(1, len(R)):
            mine = np.flatnonzero(view == k)
            votes = answers.R[mine] @ np.swapaxes(turn[window[mine]], -1, -2)
            R[k] = votes[_elected(votes, sigma[mine])]
    return R, turn


def _elected(votes: np.ndarray, sigma: np.ndarray) -> int:
    """Of rotations (V, 3, 3) with deviations (V,), the one that all together agree with most."""
    apart = angle_between(votes[:, None], votes[None])
    return int(np.log1p((apart / sigma) ** 2).sum(axis=1).argmin())


def _rotations(answers: Answers, R, turn, sigma):
    """Better R (K, 3, 3) and turns (W, 3, 3); how far answers are trusted (M,); variances (K,)."""
    view, window = answers.view, answers.window
    for _ in range(_ROUNDS):
        told = answers.R @ np.swapaxes(turn[window], -1, -2)
        missing = vector_from_rotation(told @ np.swapaxes(R[view], -1, -2))
        trust = 1 / (1 + (missing**2).sum(axis=1) / sigma**2)
        # in the world's axes, in which a view and a window turn alike
        missing = -(np.swapaxes(R[view], -1, -2) @ missing[..., None])[..., 0]
        fit = _Fit(view, window, missing, sigma, trust)
        fit.step(trust / sigma**2, hold=np.zeros(3))
        R = R @ rotation_from_vector(-fit.of_view)
        turn = rotation_from_vector(fit.of_window) @ turn
    return R, turn, trust, fit.variance()


def _scales(answers: Answers, own, trust, distance: float) -> np.ndarray:
    """Scales (W,) of the windows, by how far views are from each other, and from the object.

    own: (M,) uncertainty of a centre towards the others of its window.
    """
    first, second, window = [], [], []  # answers (P,) whose distance is meant; -1: of the object
    for w in range(answers.window.max() + 1):
        mine = np.flatnonzero(answers.window == w)
        i, j = np.triu_indices(len(mine), 1)
        first += [*mine, *mine[i]]
        second += [-1] * len(mine) + [*mine[j]]
        window += [w] * (len(mine) + len(i))
    first, second, window = np.array(first), np.array(second), np.array(window)
    object_ = second < 0
    to = np.where(object_[:, None], 0.0, answers.centres[second])
    length = np.maximum(np.linalg.norm(answers.centres[first] - to, axis=1), 1e-9)
    doubt = np.where(object_, answers.centre_sigma[first], np.hypot(own[first], own[second]))
    trusted = trust[first] * np.where(object_, 1.0, trust[second])
    views = np.where(object_, -1, answers.view[second])
    pairs = np.stack([answers.view[first], views], axis=1)
    # the distance of the first view from the object is the smallest of all pairs
    _, of = np.unique(pairs, axis=0, return_inverse=True)
    of = of.reshape(-1)
    # What one window alone tells fits any scale of it, and of a large one it is nearly all.
    several = (np.bincount(of)[of] > 1) | (of == 0)
    _, of = np.unique(of[several], return_inverse=True)
    sigma = np.clip(doubt / length, _LEAST, _MOST)[several]
    told = np.log(length)[several, None]
    fit = _Fit(of.reshape(-1), window[several], told, sigma, trusted[several])
    fit.solve(hold=np.log([distance]))
    return np.exp(fit.of_window[:, 0])


class _Fit:
    """x (K, d) of views and y (W, d) of windows from told differences x - y (M, d).

    sigma: (M,) of a difference. trust: (M,) its weight besides.
    """

    def __init__(self, view, window, difference, sigma, trust):
        self._view, self._window, self._difference = view, window, difference
        self._sigma, self._trust = sigma, trust
        self._views, self._windows = view.max() + 1, window.max() + 1

    def solve(self, **fixed) -> None:
        """By weights that are made anew from what is left over; `fixed` as in `step`."""
        weight = self._trust / self._sigma**2
        for _ in range(_ROUNDS):
            self.step(weight, **fixed)
            left = self.of_view[self._view] - self.of_window[self._window] - self._difference
            weight = self._trust / (self._sigma**2 + (left**2).sum(axis=1))

    def step(self, weight, hold: np.ndarray | None = None, prior: float = 0.0) -> None:
        """Least squares: `of_view` (K, d) and `of_window` (W, d).

        hold: (d,) of the first view. prior: deviation of the windows' values from zero.
        """
        view, window, K = self._view, self._window, self._views
        size = K + self._windows
        between = np.bincount(view * size + K + window, weight, size**2).reshape(size, size)
        between = between + between.T
        A = np.diag(between.sum(axis=1)) - between
        if prior:
            A[range(K, size), range(K, size)] += 1 / prior**2
        pulls = weight[:, None] * self._difference
        b = np.zeros((size, pulls.shape[1]))
        np.add.at(b, view, pulls)
        np.add.at(b, K + window, -pulls)
        if hold is None:
            found = np.linalg.solve(A, b)
        else:
            b = (b - A[:, :1] * hold)[1:]
            A = A[1:, 1:]
            found = np.concatenate([hold[None], np.linalg.solve(A, b)])
        self._information = A
        self.of_view, self.of_window = found[:K], found[K:]

    def variance(self) -> np.ndarray:
        """(K,) of the views' values, if the last step's weights were of independent errors."""
        held = self._views + self._windows - len(self._information)
        own = np.diagonal(np.linalg.inv(self._information))[: self._views - held]
        return np.concatenate([np.zeros(held), own])
