"""Least-squares fit of a camera (and its intrinsics) to a bundle of noisy Plücker rays.

Model, camera frame: unit directions a_p of the patches, exact up to the intrinsics; world rays
    d_p = R^T a_p,    m_p = c x d_p = R^T (a_p x t).
Both are fitted at once, so that the noise of the predicted directions does not enter the design
matrix: the usual meeting point of the predicted rays does have it there, and is drawn towards the
object by it. Residuals are weighed by their own estimated variances and per ray (IRLS).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ray_pose_ros.geometry.rotations import hat, rotation_from_vector

_STEPS = 30
_CONVERGED = 1e-6  # radians, units of t, relative focal length; steps shrink quadratically
_DECREMENT = 1e-4
_STUDENT = 5.0  # degrees of freedom: 5 % worse than least squares on Gaussian noise, far
# better with outliers; Huber's weights lie between (measured, 49 rays, noise 0.03)
_PSEUDO = 8.0  # residual components
_FLOOR = 1e-16  # of a variance: noise-free rays
_MEDIAN_CHI2_4 = 3.357  # median of the chi-squared distribution with four degrees of freedom


@dataclass(frozen=True)
class IntrinsicsPrior:
    """What is believed of an uncalibrated camera; all standard deviations, Gaussian.

    Lengths are fractions of the image's longer side. Against noise-free rays it has no weight.
    """

    focal: float = 0.9
    focal_log_sigma: float = 0.7
    aspect_log_sigma: float = 0.02
    centre_sigma: float = 0.02


@dataclass(frozen=True)
class Intrinsics:
    """focal (..., 2) and centre (..., 2) of a pinhole, in units of the image's longer side."""

    focal: Tensor
    centre: Tensor

    def moved(self, step: Tensor) -> Intrinsics:
        """Changed by step (..., 4): relative change of the focals, shift of the centre."""
        return Intrinsics(
            self.focal * step[..., :2].clamp(-1, 1).exp(), self.centre + step[..., 2:]
        )

    def directions(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Unit directions (..., P, 3) of points (..., P, 2); their derivative (..., P, 3, 4)."""
        f, c = self.focal[..., None, :], self.centre[..., None, :]
        xy = (points - c) / f
        u = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        length = u.norm(dim=-1, keepdim=True)
        a = u / length
        du = torch.zeros(*u.shape, 4, dtype=u.dtype, device=u.device)
        du[..., 0, 0], du[..., 1, 1] = -xy[..., 0], -xy[..., 1]
        du[..., 0, 2], du[..., 1, 3] = -1 / f[..., 0], -1 / f[..., 1]
        return a, _across(a, du) / length[..., None]


def fit_camera(
    d: Tensor, m: Tensor, directions: Tensor, R: Tensor, t: Tensor, weights: Tensor, robust: bool
) -> tuple[Tensor, Tensor]:
    """R (..., 3, 3), t (..., 3), refined from a first guess, for known directions (..., P, 3).

    d, m (..., P, 3) unit directions and moments of the rays, weights (..., P), all float64.
    """
    return _fit(d, m, lambda _: (directions, None), R, t, None, None, weights, robust)[:2]


def fit_camera_and_intrinsics(
    d: Tensor,
    m: Tensor,
    points: Tensor,
    R: Tensor,
    t: Tensor,
    intrinsics: Intrinsics,
    prior: IntrinsicsPrior,
    weights: Tensor,
    robust: bool,
) -> tuple[Tensor, Tensor, Intrinsics]:
    """As fit_camera with the intrinsics free, for image points (..., P, 2).

    Points are in units of the longer side, from the middle of the image.
    """
    return _fit(d, m, lambda k: k.directions(points), R, t, intrinsics, prior, weights, robust)


def _fit(d, m, model, R, t, intrinsics, prior, weights, robust):
    """Levenberg-Marquardt with weights estimated anew at each step; directions from `model`."""
    damping = torch.full_like(weights[..., 0], 1e-6)
    done = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(_STEPS):
        a, da = model(intrinsics)
        ed, em = _residuals(d, m, a, R, t)
        precision, w = _weigh(ed, em, weights, robust)
        J = _jacobian(d, m, a, da, R, t)
        wj = J * (w[..., None] * precision[..., None, :])[..., None]  # (..., P, 6, D)
        A = (wj.transpose(-1, -2) @ J).sum(-3)
        e = torch.cat([ed, em], dim=-1)
        b = (wj.transpose(-1, -2) @ e[..., None]).sum(-3)[..., 0]
        if prior is not None:
            Ap, bp = _prior_terms(intrinsics, prior)
            A[..., 6:, 6:] += Ap
            b[..., 6:] += bp
        before = _cost(ed, em, w, precision, intrinsics, prior)
        diagonal = torch.diag_embed(A.diagonal(dim1=-2, dim2=-1) + 1e-12)
        step, _ = torch.linalg.solve_ex(A + damping[..., None, None] * diagonal, -b[..., None])
        step = step[..., 0]
        # Singular (too few rays): no step, the first guess stays.
        step = torch.where(torch.isfinite(step).all(-1, keepdim=True), step, 0)
        step = torch.cat([step[..., :3].clamp(-torch.pi, torch.pi), step[..., 3:]], dim=-1)
        R_new = rotation_from_vector(step[..., :3]) @ R
        t_new = t + step[..., 3:6]
        k_new = None if intrinsics is None else intrinsics.moved(step[..., 6:])
        ed, em = _residuals(d, m, model(k_new)[0], R_new, t_new)
        better = (_cost(ed, em, w, precision, k_new, prior) <= before) & ~done
        R = torch.where(better[..., None, None], R_new, R)
        t = torch.where(better[..., None], t_new, t)
        if intrinsics is not None:
            intrinsics = Intrinsics(
                torch.where(better[..., None], k_new.focal, intrinsics.focal),
                torch.where(better[..., None], k_new.centre, intrinsics.centre),
            )
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-9, 1e6)
        # The decrement is the squared step in posterior standard deviations.
        decrement = (step * b).sum(-1).abs()
        small = (step.abs().amax(-1) < _CONVERGED) | (decrement < _DECREMENT)
        # A camera that has converged stays: its answer must not depend on the others in the batch.
        done = done | small | (damping > 1e3)
        if bool(done.all()):
            break
    return R, t, intrinsics


def _across(a, x):
    """Columns of x (..., 3, D) without their part along a (..., 3)."""
    return x - a[..., :, None] * (a[..., None, :] @ x)


def _residuals(d, m, a, R, t):
    """Residuals (..., P, 3) of directions and moments, camera frame.

    The moment's part along its ray is left out: it is zero by construction (normalised rays) or
    pure noise.
    """
    em = m @ R.transpose(-1, -2) - torch.linalg.cross(a, t[..., None, :].expand_as(a), dim=-1)
    return d @ R.transpose(-1, -2) - a, em - (em * a).sum(-1, keepdim=True) * a


def _jacobian(d, m, a, da, R, t):
    """d(residuals)/d(rotation vector, t, intrinsics) (..., P, 6, 6 or 10)."""
    Rt = R.transpose(-1, -2)
    by_t = -hat(a)  # a x t = hat(a) t, already across the ray
    top = [-hat(d @ Rt), torch.zeros_like(by_t)]
    bottom = [_across(a, -hat(m @ Rt)), by_t]
    if da is not None:
        top.append(-da)
        bottom.append(_across(a, hat(t)[..., None, :, :] @ da))
    return torch.cat([torch.cat(top, dim=-1), torch.cat(bottom, dim=-1)], dim=-2)


def _weigh(ed, em, weights, robust):
    """Precisions (..., 6) of the residuals' components, and the weights of the rays (..., P).

    Directions and moments each get the inverse of their own variance (two components are free).
    """
    sd, sm = (ed * ed).sum(-1), (em * em).sum(-1)
    w = weights
    vd, vm = _variances(sd, sm, w)
    if robust:
        s = sd / vd[..., None] + sm / vm[..., None]
        scale = weighted_median(s, weights) / _MEDIAN_CHI2_4
        s = s / scale.clamp_min(1e-12)[..., None]
        w = weights * (_STUDENT + 4) / (_STUDENT + s)
        vd, vm = _variances(sd, sm, w)
    precision = torch.stack([1 / vd, 1 / vm], dim=-1).repeat_interleave(3, -1)
    return precision, w


def _variances(sd, sm, w):
    """Variances (...) of one component of directions and moments, weighted mean squares (..., P).

    A few pseudo-rays of the pooled variance keep the ratio of the two sane when rays are few.
    """
    total = w.sum(-1).clamp_min(1e-12)
    count = 2 * total / w.amax(-1).clamp_min(1e-12)
    vd, vm = (w * sd).sum(-1) / (2 * total), (w * sm).sum(-1) / (2 * total)
    pooled = (vd + vm) / 2
    vd = (count * vd + _PSEUDO * pooled) / (count + _PSEUDO)
    vm = (count * vm + _PSEUDO * pooled) / (count + _PSEUDO)
    return vd.clamp_min(_FLOOR), vm.clamp_min(_FLOOR)


def weighted_median(x: Tensor, weights: Tensor) -> Tensor:
    """Median (...) of x (..., P) with weights (..., P) that are not negative."""
    x, order = x.sort(dim=-1)
    mass = weights.expand(x.shape).gather(-1, order).cumsum(-1)
    middle = (mass < mass[..., -1:] / 2).sum(-1, keepdim=True).clamp(max=x.shape[-1] - 1)
    return x.gather(-1, middle)[..., 0]


def _prior_terms(k, prior):
    """Normal matrix (..., 4, 4) and gradient (..., 4) of the prior on the intrinsics."""
    lf = k.focal.log()
    pf, pa = prior.focal_log_sigma**-2, prior.aspect_log_sigma**-2
    A = torch.zeros(*lf.shape[:-1], 4, 4, dtype=lf.dtype, device=lf.device)
    A[..., 0, 0] = A[..., 1, 1] = pf / 4 + pa
    A[..., 0, 1] = A[..., 1, 0] = pf / 4 - pa
    A[..., 2, 2] = A[..., 3, 3] = prior.centre_sigma**-2
    mean = lf.new_tensor(prior.focal).log()
    x = torch.cat([lf - mean, k.centre], dim=-1)
    return A, (A @ x[..., None])[..., 0]


def _cost(ed, em, w, precision, k, prior):
    e = torch.cat([ed, em], dim=-1)
    cost = (w[..., None] * precision[..., None, :] * e * e).sum((-1, -2))
    if prior is not None:
        A, _ = _prior_terms(k, prior)
        x = torch.cat([k.focal.log() - k.focal.new_tensor(prior.focal).log(), k.centre], dim=-1)
        cost = cost + (x * (A @ x[..., None])[..., 0]).sum(-1)
    return cost
