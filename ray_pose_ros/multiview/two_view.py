"""Two calibrated views and rays that should meet: epipolar errors, scores, local refinement.

Rays are unit vectors in camera frames, so that any central camera will do. A relative pose is
x_j = R x_i + t with |t| = 1; all errors are angles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ray_pose_ros.geometry.so3 import hat, rotation_from_vector, tangent_basis

from .acceleration import compiled_code

MOST_MATCHES = 60.0  # of one pair: the noise of more is not independent
PARALLEL = 1e-7  # sin^2 of the angle under which two rays say nothing about depth


@dataclass(frozen=True)
class RayMatches:
    """Matches between two views.

    Attributes:
        a, b: (K, 3) unit rays in the frames of the first and the second camera.
        sigma: (K,) rad, one standard deviation of a match's epipolar error.
        centre_a, centre_b: (3,) unit rays through the object's place in the two images.
        weight: (K,) in [0, 1], how likely a match is to be one at all; None for 1. Only `adjust`
            and `agreement_nats` look at it.
        standing: (2, S, 3) unit rays, as `a` and `b`, of what has been left out because it stands
            still before a camera that does; None where nothing has.
    """

    a: np.ndarray
    b: np.ndarray
    sigma: np.ndarray
    centre_a: np.ndarray
    centre_b: np.ndarray
    weight: np.ndarray | None = None
    standing: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.a)

    def same_as(self, other: RayMatches) -> bool:
        """Whether all values are equal."""
        mine, its = vars(self), vars(other)
        return all(np.array_equal(mine[name], its[name]) for name in mine)

    def and_also(self, other: RayMatches) -> RayMatches:
        """These matches and others of the same two views."""
        weights = [np.ones(len(m)) if m.weight is None else m.weight for m in (self, other)]
        rays = (np.concatenate([getattr(m, end) for m in (self, other)]) for end in 'ab')
        sigma = np.concatenate([self.sigma, other.sigma])
        return RayMatches(*rays, sigma, self.centre_a, self.centre_b, np.concatenate(weights))

    def weighed(self, factor: float) -> RayMatches:
        """The same matches with `factor` times their weight."""
        weight = np.ones(len(self)) if self.weight is None else self.weight
        return replace(self, weight=factor * weight)

    def refocused(self, a: float, b: float) -> RayMatches:
        """The rays of the same pixels under focal lengths `a` and `b` times as long.

        Of lenses without distortion that look through the middle of the image.
        """

        def longer(ray: np.ndarray, factor: float) -> np.ndarray:
            if factor == 1.0:
                return ray
            ray = ray * [1.0, 1.0, factor]
            return ray / np.linalg.norm(ray, axis=-1, keepdims=True)

        return RayMatches(
            longer(self.a, a),
            longer(self.b, b),
            self.sigma * (1 / a + 1 / b) / 2,
            longer(self.centre_a, a),
            longer(self.centre_b, b),
            self.weight,
        )

    def take(self, which: np.ndarray) -> RayMatches:
        """The chosen matches: indices or a mask (K,) bool."""
        weight = None if self.weight is None else self.weight[which]
        rays = self.a[which], self.b[which]
        return RayMatches(*rays, self.sigma[which], self.centre_a, self.centre_b, weight)


def epipolar_errors(R: np.ndarray, t: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Signed angles (..., K) by which rays a, b (K, 3) miss each other under R (..., 3, 3), t.

    First order on the sphere (Sampson): b^T E a over the length of its gradient along both
    spheres, E = [t]x R.
    """
    E = hat(t) @ R
    Ea = a @ np.swapaxes(E, -1, -2)  # (..., K, 3)
    Eb = b @ E
    value = (Ea * b).sum(-1)
    square = (Ea * Ea).sum(-1) + (Eb * Eb).sum(-1) - 2 * value**2
    return value / np.sqrt(np.maximum(square, 1e-18))


def depths(
    R: np.ndarray, t: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (..., K) along both rays to where they come nearest to each other, units of t.

    Parallel rays meet at infinity in front of both cameras, rays that point apart nowhere: -1.
    """
    d = a @ np.swapaxes(R, -1, -2)  # (..., K, 3)
    cosine = (d * b).sum(-1)
    td, tb = (d * t[..., None, :]).sum(-1), (b * t[..., None, :]).sum(-1)
    square = 1 - cosine**2
    safe = np.maximum(square, PARALLEL)
    first, second = (cosine * tb - td) / safe, (tb - cosine * td) / safe
    flat = square < PARALLEL
    far = np.where(cosine > 0, np.inf, -1.0)
    return np.where(flat, far, first), np.where(flat, far, second)


def support(
    R: np.ndarray, t: np.ndarray, matches: RayMatches, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Soft number of inliers (...) and the inliers (..., K) bool of poses R (..., 3, 3), t.

    threshold is in standard deviations of a match. A match counts 1 - (error / threshold)^2 where
    its rays meet in front of both cameras (MSAC).
    """
    errors = epipolar_errors(R, t, matches.a, matches.b)
    first, second = depths(R, t, matches.a, matches.b)
    weight = 1 - (errors / (threshold * matches.sigma)) ** 2
    inside = (weight > 0) & (first > 0) & (second > 0)
    return np.where(inside, weight, 0).sum(-1), inside


def agreement_nats(R: np.ndarray, t: np.ndarray, matches: RayMatches, limit: float) -> np.ndarray:
    """How much likelier (...) the matches are under poses R (..., 3, 3), t (..., 3) than under
    none, nats: as robust least squares sees them, cut off beyond `limit` deviations."""
    a, b = (np.reshape(x.T, (3,) + (1,) * (t.ndim - 1) + (-1,)) for x in (matches.a, matches.b))
    error, ahead = epipolar_misses(
        np.moveaxis(R, (-2, -1), (0, 1))[..., None], np.moveaxis(t, -1, 0)[..., None], a, b
    )
    u = (error / (limit * matches.sigma)) ** 2
    weight = np.ones(len(matches)) if matches.weight is None else matches.weight
    weight = weight * min(1.0, MOST_MATCHES / max(weight.sum(), 1e-9))
    return 0.5 * limit**2 * (weight * ahead / (1 + u)).sum(-1)


def object_misfit(
    R: np.ndarray, t: np.ndarray, matches: RayMatches, angle: float, ratio: float
) -> np.ndarray:
    """How badly (...) two cameras both look at the object, as half a squared deviation.

    The rays through the object's places in the images are taken as one more match, with a
    standard deviation of `angle` rad, at distances whose logarithms differ by `ratio`.
    """
    a, b = matches.centre_a[None], matches.centre_b[None]
    miss = epipolar_errors(R, t, a, b)[..., 0] / angle
    first, second = (x[..., 0] for x in depths(R, t, a, b))
    ahead = (first > 0) & (second > 0)
    with np.errstate(invalid='ignore', divide='ignore'):
        apart = np.log(np.where(ahead, first, 1) / np.where(ahead, second, 1)) / ratio
    apart = np.where(ahead, np.nan_to_num(apart), 3.0)
    # one deviation shared: a pseudo match is no reason to throw away what real ones say
    return np.minimum(0.5 * (miss**2 + apart**2), 8.0)


def refine_poses(
    R: np.ndarray,
    t: np.ndarray,
    matches: RayMatches,
    threshold: float,
    rounds: int = 8,
    centre_angle: float = 0.1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local optima of the support from R (P, 3, 3), t (P, 3).

    Reweighted Gauss-Newton, five unknowns a pose. The object's pseudo match takes part with
    `centre_angle` rad, which settles what few matches leave open (a plane, a pure rotation).
    Returns R, t and the covariances (P, 3, 3), rad^2, of the turns of R from the left; matches
    beyond MOST_MATCHES add nothing to their certainty.
    """
    compiled = compiled_code()
    if compiled is not None:
        of_both = (np.array(x.T, dtype=np.float64, order='C') for x in (matches.a, matches.b))
        given = *of_both, np.array(matches.sigma, dtype=np.float64, order='C')
        centres = tuple(matches.centre_a.tolist()), tuple(matches.centre_b.tolist())
        poses = (np.array(x, dtype=np.float64, order='C') for x in (R, t))
        settings = float(threshold), rounds, float(centre_angle), MOST_MATCHES, PARALLEL
        return compiled.refine_poses(*poses, given, centres, *settings)
    a = np.ascontiguousarray(np.vstack([matches.a, matches.centre_a]).T)[:, None]
    b = np.ascontiguousarray(np.vstack([matches.b, matches.centre_b]).T)[:, None]
    precision = 1 / matches.sigma**2
    for step in range(rounds):
        limit = threshold * matches.sigma * max(1.0, 3.0 * 0.6**step)
        # (P, K + 1), (3, P, K + 1) twice
        e, turn, move, ahead = epipolar_terms(
            np.moveaxis(R, 0, -1)[..., None], t.T[..., None], a, b
        )
        u = np.where(ahead, e, np.inf)[:, :-1]
        weight = np.empty_like(e)
        weight[:, :-1] = np.maximum(1 - (u / limit) ** 2, 0) * precision
        weight[:, -1] = 1 / (centre_angle**2 + e[:, -1] ** 2)
        count = (weight[:, :-1] > 0).sum(-1, keepdims=True)
        weight[:, :-1] *= np.minimum(1.0, MOST_MATCHES / np.maximum(count, 1))
        basis = tangent_basis(t)  # (P, 3, 2)
        move = np.swapaxes(basis, -1, -2) @ move.transpose(1, 0, 2)
        J = np.concatenate([turn.transpose(1, 0, 2), move], axis=1)  # (P, 5, K + 1)
        weighted = J * weight[:, None]
        # a radian of uncertainty: nothing is known worse
        H = weighted @ np.swapaxes(J, -1, -2) + np.eye(5)
        x = -np.linalg.solve(H, weighted @ e[..., None])[..., 0]
        x *= np.minimum(1.0, 0.3 / np.maximum(np.abs(x).max(-1, keepdims=True), 1e-12))
        R = rotation_from_vector(x[:, :3]) @ R
        t = t + (basis @ x[:, 3:, None])[..., 0]
        t = t / np.linalg.norm(t, axis=-1, keepdims=True)
    return R, t, np.linalg.inv(H)[:, :3, :3]


class Terms(NamedTuple):
    """How rays (3, ...) miss each other: first-order errors (...), their derivatives (3, ...) by a
    turn of R from the left and by t, and whether (...) the rays meet in front of both cameras."""

    error: np.ndarray
    turn: np.ndarray
    move: np.ndarray
    ahead: np.ndarray


def epipolar_terms(R: np.ndarray, t: np.ndarray, a: np.ndarray, b: np.ndarray) -> Terms:
    """Linearised epipolar errors of rays a, b (3, ...) under R (3, 3, ...), t (3, ...).

    Components come first, which numpy is several times as fast with; the rest is broadcast. Errors
    are those of `epipolar_errors`, and rays ahead are those of positive `depths`.
    """
    d, bt, normal, value, cosine, scale, error, ahead = _meeting(R, t, a, b)
    # value = b . (t x d): turning d by w adds w . (d x (b x t)), moving t by u adds u . (d x b)
    turn, move = _cross(d, bt), _cross(d, b)
    # half of what the square changes by: d x (normal x t) + ..., d x normal + bt x b + ...
    share = value * scale**2
    own, double = scale * (1 + 2 * share * value), scale * share
    across, outer, inner = _cross(normal, t), _cross(d, normal), _cross(bt, b)
    across = _cross(d, across)
    turn = [own * x - double * y for x, y in zip(turn, across, strict=True)]
    move = [own * x - double * (y + z) for x, y, z in zip(move, outer, inner, strict=True)]
    return Terms(error, np.stack(turn), np.stack(move), ahead)


def epipolar_misses(
    R: np.ndarray, t: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The errors (...) of `epipolar_terms`, and which rays are ahead, without derivatives."""
    *_, error, ahead = _meeting(R, t, a, b)
    return error, ahead


def _meeting(R, t, a, b) -> tuple:
    d = [_dot(row, a) for row in R]
    bt, normal = _cross(b, t), _cross(t, d)  # normal = E a; E^T b is R^T (b x t)
    value, cosine = _dot(normal, b), _dot(d, b)
    scale = 1 / np.sqrt(np.maximum(_dot(normal, normal) + _dot(bt, bt) - 2 * value**2, 1e-18))
    td, tb = _dot(t, d), _dot(t, b)
    ahead = (cosine * tb > td) & (tb > cosine * td)
    ahead = np.where(1 - cosine**2 < PARALLEL, cosine > 0, ahead)
    return d, bt, normal, value, cosine, scale, value * scale, ahead


def _dot(a, b) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a, b) -> list[np.ndarray]:
    return [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
