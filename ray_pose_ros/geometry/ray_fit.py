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
    Rays lie along the last axis here: sums over the three components are slow there.
    """
    rays = torch.cat([d, m], dim=-2).transpose(-1, -2).contiguous()  # (..., 3, 2 P)
    a = directions.transpose(-1, -2).contiguous()
    damping = torch.full_like(weights[..., 0], 1e-6)
    done = torch.zeros_like(damping, dtype=torch.bool)
    rows, sd, sm = _rows(rays, a, R, t)
    for _ in range(_STEPS):
        vd, vm, w = _weigh(sd, sm, weights, robust)
        A, b = _normal_equations(rows, w, vd, vm)
        step = _damped_step(A, b, damping)
        R_new = rotation_from_vector(step[..., :3]) @ R
        t_new = t + step[..., 3:]
        rows_new, sd_new, sm_new = _rows(rays, a, R_new, t_new)
        before = (w * sd).sum(-1) / vd + (w * sm).sum(-1) / vm
        after = (w * sd_new).sum(-1) / vd + (w * sm_new).sum(-1) / vm
        better = (after <= before) & ~done
        R = torch.where(better[..., None, None], R_new, R)
        t = torch.where(better[..., None], t_new, t)
        damping, small = _judge(step, b, better, damping)
        done = done | small
        if bool(done.all()):
            break
        rows = torch.where(better[..., None, None], rows_new, rows)
        sd = torch.where(better[..., None], sd_new, sd)
        sm = torch.where(better[..., None], sm_new, sm)
    return R, t


def _rows(rays, a, R, t):
    """Camera-frame rows (..., 15, P), and the squared residuals (..., P) of directions, moments.

    Three rows each: directions d and moments m of the rays, directions a of the patches, a x m,
    and the moments' residual across the ray (see _residuals).
    """
    d, m = (R @ rays).split(a.shape[-1], dim=-1)
    em = m + torch.linalg.cross(t[..., None].expand_as(a), a, dim=-2)
    em = em - (em * a).sum(-2, keepdim=True) * a
    ed = d - a
    rows = torch.cat([d, m, a, torch.linalg.cross(a, m, dim=-2), em], dim=-2)
    return rows, (ed * ed).sum(-2), (em * em).sum(-2)


def _normal_equations(rows, w, vd, vm):
    """Normal matrix (..., 6, 6) and gradient (..., 6), for rotation vector and t.

    What _jacobian gives, summed without forming it: as [x]^T [x] = |x|^2 I - x x^T, all its
    products are sums over the rays of outer products of the rows.
    """
    sums = (w[..., None, :] * rows[..., :12, :]) @ rows.transpose(-1, -2)
    dd, mm, aa, cc = (sums[..., k : k + 3, k : k + 3] for k in (0, 3, 6, 9))
    am = sums[..., 6:9, 3:6]
    for_d, for_m = 1 / vd[..., None], 1 / vm[..., None]
    eye = torch.eye(3, dtype=rows.dtype, device=rows.device)
    trace = torch.stack([dd, mm, aa, am], dim=-3).diagonal(dim1=-2, dim2=-1).sum(-1)
    scaled = trace[..., None, None] * eye  # (..., 4, 3, 3)
    A = torch.empty(*w.shape[:-1], 6, 6, dtype=rows.dtype, device=rows.device)
    A[..., :3, :3] = for_d[..., None] * (scaled[..., 0, :, :] - dd)
    A[..., :3, :3] += for_m[..., None] * (scaled[..., 1, :, :] - mm - cc)
    A[..., :3, 3:] = for_m[..., None] * (scaled[..., 3, :, :] - am)
    A[..., 3:, :3] = A[..., :3, 3:].transpose(-1, -2)
    A[..., 3:, 3:] = for_m[..., None] * (scaled[..., 2, :, :] - aa)
    # sums of a x d (= d x (d - a)), of m x em and of a x em
    ad, me, ae = sums[..., 6:9, 0:3], sums[..., 3:6, 12:], sums[..., 6:9, 12:]
    outer = torch.stack([ad, me, ae], dim=-3).flatten(-2)
    cross = outer[..., [5, 6, 1]] - outer[..., [7, 2, 3]]
    turn = for_d * cross[..., 0, :] + for_m * cross[..., 1, :]
    return A, torch.cat([turn, for_m * cross[..., 2, :]], dim=-1)


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
    damping = torch.full_like(weights[..., 0], 1e-6)
    done = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(_STEPS):
        a, da = intrinsics.directions(points)
        ed, em = _residuals(d, m, a, R, t)
        vd, vm, w = _weigh((ed * ed).sum(-1), (em * em).sum(-1), weights, robust)
        precision = torch.stack([1 / vd, 1 / vm], dim=-1).repeat_interleave(3, -1)
        J = _jacobian(d, m, a, da, R, t).flatten(-3, -2)  # (..., 6 P, 10)
        wj = J * (w[..., None] * precision[..., None, :]).flatten(-2)[..., None]
        A = wj.transpose(-1, -2) @ J
        e = torch.cat([ed, em], dim=-1).flatten(-2)
        b = (wj.transpose(-1, -2) @ e[..., None])[..., 0]
        Ap, bp = _prior_terms(intrinsics, prior)
        A[..., 6:, 6:] += Ap
        b[..., 6:] += bp
        before = _cost(ed, em, w, precision, intrinsics, prior)
        step = _damped_step(A, b, damping)
        R_new = rotation_from_vector(step[..., :3]) @ R
        t_new = t + step[..., 3:6]
        k_new = intrinsics.moved(step[..., 6:])
        ed, em = _residuals(d, m, k_new.directions(points)[0], R_new, t_new)
        better = (_cost(ed, em, w, precision, k_new, prior) <= before) & ~done
        R = torch.where(better[..., None, None], R_new, R)
        t = torch.where(better[..., None], t_new, t)
        intrinsics = Intrinsics(
            torch.where(better[..., None], k_new.focal, intrinsics.focal),
            torch.where(better[..., None], k_new.centre, intrinsics.centre),
        )
        damping, small = _judge(step, b, better, damping)
        done = done | small
        if bool(done.all()):
            break
    return R, t, intrinsics


def _damped_step(A, b, damping):
    """Levenberg-Marquardt's step (..., D) for the normal equations A, b."""
    diagonal = torch.diag_embed(A.diagonal(dim1=-2, dim2=-1) + 1e-12)
    step, _ = torch.linalg.solve_ex(A + damping[..., None, None] * diagonal, -b[..., None])
    step = step[..., 0]
    # Singular (too few rays): no step, the first guess stays.
    step = torch.where(torch.isfinite(step).all(-1, keepdim=True), step, 0)
    return torch.cat([step[..., :3].clamp(-torch.pi, torch.pi), step[..., 3:]], dim=-1)


def _judge(step, b, better, damping):
    """The next damping (...), and which cameras have converged (...).

    A camera that has converged stays: its answer must not depend on the others in the batch.
    """
    damping = torch.where(better, damping / 10, damping * 10).clamp(1e-9, 1e6)
    # The decrement is the squared step in posterior standard deviations.
    decrement = (step * b).sum(-1).abs()
    small = (step.abs().amax(-1) < _CONVERGED) | (decrement < _DECREMENT)
    return damping, small | (damping > 1e3)


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
    """d(residuals)/d(rotation vector, t, intrinsics) (..., P, 6, 10)."""
    Rt = R.transpose(-1, -2)
    by_t = -hat(a)  # a x t = hat(a) t, already across the ray
    top = [-hat(d @ Rt), torch.zeros_like(by_t), -da]
    bottom = [_across(a, -hat(m @ Rt)), by_t, _across(a, hat(t)[..., None, :, :] @ da)]
    return torch.cat([torch.cat(top, dim=-1), torch.cat(bottom, dim=-1)], dim=-2)


def _weigh(sd, sm, weights, robust):
    """Variances (...) of a component of directions and moments, and weights of rays (..., P).

    sd, sm (..., P) are the squared residuals, each with two components that are free.
    """
    w = weights
    vd, vm = _variances(sd, sm, w)
    if robust:
        s = sd / vd[..., None] + sm / vm[..., None]
        scale = weighted_median(s, weights) / _MEDIAN_CHI2_4
        s = s / scale.clamp_min(1e-12)[..., None]
        w = weights * (_STUDENT + 4) / (_STUDENT + s)
        vd, vm = _variances(sd, sm, w)
    return vd, vm, w


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
    A, _ = _prior_terms(k, prior)
    x = torch.cat([k.focal.log() - k.focal.new_tensor(prior.focal).log(), k.centre], dim=-1)
    return cost + (x * (A @ x[..., None])[..., 0]).sum(-1)
