"""Lens distortion on the normalised image plane and its inverse, guarded against fold-over.

A polynomial lens model is a fit over the image's field of view. Beyond it the distorted radius may
stop growing and fold back, so that two rays claim one pixel. Everything here works on the sheet
connected to the optical axis, up to the first fold (the "limit"), and answers nan beyond it.
Models as in sensor_msgs/CameraInfo and OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Accepted numbers of coefficients; the order is k1 k2 p1 p2 k3 | k4 k5 k6 | s1..s4 | tau_x tau_y.
COEFFICIENTS = {
    'none': (0,),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
}
_NEWTON_STEPS = 30
_TOLERANCE = 1e-10


def radius_limit(model: str, coefficients: Sequence[float]) -> float:
    """First fold of a lens: tangent of the angle (perspective models) or the angle (fisheye).

    inf (perspective) or pi (equidistant) when the lens never folds. Tangential and prism terms
    do not enter; they are small next to the radial ones and checked by the Jacobian instead.
    """
    if model == 'equidistant':
        slope = [1.0, *((2 * i + 3) * k for i, k in enumerate(coefficients))]
        return min(math.pi, math.sqrt(_first_positive_root(np.array(slope))))
    c = _padded(coefficients)
    numerator = np.array([1.0, c[0], c[1], c[4]])
    denominator = np.array([1.0, c[5], c[6], c[7]])
    poly = np.polynomial.polynomial
    # d/dr of r N(s)/D(s), s = r^2, has the sign of N D + 2 s (N' D - N D')
    wronskian = poly.polysub(
        poly.polymul(poly.polyder(numerator), denominator),
        poly.polymul(numerator, poly.polyder(denominator)),
    )
    slope = poly.polyadd(poly.polymul(numerator, denominator), poly.polymul([0.0, 2.0], wronskian))
    # A little inside, so that a pole (root of the denominator) is not stepped over by rounding.
    return (1 - 1e-9) * math.sqrt(
        min(_first_positive_root(slope), _first_positive_root(denominator))
    )


def distort(coefficients: Sequence[float], xy: Tensor) -> Tensor:
    """Distorted points (..., 2) of ideal points (..., 2), plane z = 1, perspective models."""
    c = _padded(coefficients)
    return _tilt(c, _distort_untilted(c, xy)[0])


def undistort(
    coefficients: Sequence[float], limit: float, xy: Tensor, extrapolate: bool = False
) -> Tensor:
    """Ideal points (..., 2) of distorted points (..., 2) on the plane z = 1; inverse of distort.

    The radial part is solved first, inside a bracket, so that it always converges; Newton steps on
    the plane then add the tangential and prism parts. nan where no ray below `limit` reaches the
    point, or (extrapolate) the limit's radius scaled up in proportion: continuous and finite.
    """
    c = _padded(coefficients)
    target = _untilt(c, xy)
    radius = target.norm(dim=-1)

    def radial(r):
        s = r * r
        n = 1 + s * (c[0] + s * (c[1] + s * c[4]))
        d = 1 + s * (c[5] + s * (c[6] + s * c[7]))
        slope_n = c[0] + s * (2 * c[1] + s * 3 * c[4])
        slope_d = c[5] + s * (2 * c[6] + s * 3 * c[7])
        return r * n / d, n / d + 2 * s * (slope_n * d - n * slope_d) / (d * d)

    r, beyond = _invert(radial, radius, limit, growth=2.0)
    start = target * (r / radius.clamp_min(1e-300))[..., None]
    start = torch.where((radius > 0)[..., None], start, target)
    x = torch.nan_to_num(start)
    for _ in range(_NEWTON_STEPS):
        value, J = _distort_untilted(c, x)
        error = value - target
        det = J[..., 0, 0] * J[..., 1, 1] - J[..., 0, 1] * J[..., 1, 0]
        step_x = (J[..., 1, 1] * error[..., 0] - J[..., 0, 1] * error[..., 1]) / det
        step_y = (J[..., 0, 0] * error[..., 1] - J[..., 1, 0] * error[..., 0]) / det
        step = torch.stack([step_x, step_y], dim=-1)
        if not bool((step.abs() > 1e-15 * (1 + x.abs())).any()):
            break
        x = x - step
    value, J = _distort_untilted(c, x)
    det = J[..., 0, 0] * J[..., 1, 1] - J[..., 0, 1] * J[..., 1, 0]
    close = (value - target).norm(dim=-1) <= _TOLERANCE * (1 + radius)
    good = close & (det > 0) & (x.norm(dim=-1) <= limit) & ~beyond
    x = torch.where(good[..., None], x, start if extrapolate else torch.nan)
    if extrapolate and bool(beyond.any()):
        reach = radial(torch.full_like(radius, min(limit, 1e6)))[0]
        scaled = target * (min(limit, 1e6) / reach)[..., None]
        x = torch.where(beyond[..., None], scaled, x)
    return x


def distort_angle(coefficients: Sequence[float], theta: Tensor) -> Tensor:
    """Fisheye radius (...) on the plane z = 1 of angles (...) from the optical axis, radians."""
    return _fisheye(coefficients, theta)[0]


def undistort_angle(
    coefficients: Sequence[float], limit: float, radius: Tensor, extrapolate: bool = False
) -> Tensor:
    """Angles (...) of fisheye radii (...); nan beyond the limit, or (extrapolate) the limit."""
    theta, beyond = _invert(lambda a: _fisheye(coefficients, a), radius, limit, growth=1.0)
    return torch.where(beyond, limit if extrapolate else torch.nan, theta)


def _fisheye(k, theta):
    s = theta * theta
    value = theta * (1 + s * (k[0] + s * (k[1] + s * (k[2] + s * k[3]))))
    slope = 1 + s * (3 * k[0] + s * (5 * k[1] + s * (7 * k[2] + s * 9 * k[3])))
    return value, slope


def _invert(function, target, limit, growth):
    """x in [0, limit] with function(x)[0] == target, and where there is none.

    function is increasing on [0, limit] and returns value and slope. Newton's steps, replaced by
    bisection where they leave the bracket.
    """
    low = torch.zeros_like(target)
    if math.isfinite(limit):
        high = torch.full_like(target, limit)
    else:
        high = target.clamp_min(1.0)
        for _ in range(40):
            short = function(high)[0] < target
            if not bool(short.any()):
                break
            high = torch.where(short, high * growth, high)
    # not >= rather than <, so that a target that is not finite counts as beyond
    beyond = ~(function(high)[0] >= target)
    x = torch.minimum(target, high)
    for _ in range(2 * _NEWTON_STEPS):
        value, slope = function(x)
        low, high = torch.where(value < target, x, low), torch.where(value < target, high, x)
        newton = x - (value - target) / slope
        inside = (newton >= low) & (newton <= high)
        new = torch.where(inside, newton, (low + high) / 2)
        done = bool(((new - x).abs() <= 1e-15 * (1 + x.abs()))[~beyond].all())
        x = new
        if done:
            break
    return torch.where(beyond, torch.nan, x), beyond


def _padded(coefficients):
    return [*coefficients, *[0.0] * (14 - len(coefficients))]


def _first_positive_root(ascending):
    coefficients = np.trim_zeros(ascending, 'b')
    if len(coefficients) < 2:
        return math.inf
    roots = np.polynomial.polynomial.polyroots(coefficients)
    real = roots.real[(abs(roots.imag) <= 1e-9 * (1 + abs(roots))) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf


def _distort_untilted(c, xy):
    """Distortion without sensor tilt, and its Jacobian (..., 2, 2)."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = c[:12]
    x, y = xy.unbind(-1)
    s = x * x + y * y
    n, d = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    g = n / d
    slope_n, slope_d = k1 + s * (2 * k2 + s * 3 * k3), k4 + s * (2 * k5 + s * 3 * k6)
    dg = 2 * (slope_n * d - n * slope_d) / (d * d)  # dg/dx = dg * x
    value = torch.stack(
        [
            x * g + 2 * p1 * x * y + p2 * (s + 2 * x * x) + s * (s1 + s * s2),
            y * g + p1 * (s + 2 * y * y) + 2 * p2 * x * y + s * (s3 + s * s4),
        ],
        dim=-1,
    )
    prism_x, prism_y = 2 * (s1 + 2 * s * s2), 2 * (s3 + 2 * s * s4)
    J = torch.stack(
        [
            g + x * x * dg + 2 * p1 * y + 6 * p2 * x + prism_x * x,
            x * y * dg + 2 * p1 * x + 2 * p2 * y + prism_x * y,
            x * y * dg + 2 * p1 * x + 2 * p2 * y + prism_y * x,
            g + y * y * dg + 6 * p1 * y + 2 * p2 * x + prism_y * y,
        ],
        dim=-1,
    ).unflatten(-1, (2, 2))
    return value, J


def _tilt_matrix(c, like):
    """Homography of a sensor tilted by tau_x, tau_y (OpenCV's 14-coefficient model)."""
    cx, sx, cy, sy = math.cos(c[12]), math.sin(c[12]), math.cos(c[13]), math.sin(c[13])
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    turn = about_y @ about_x
    project = np.array([[turn[2, 2], 0, -turn[0, 2]], [0, turn[2, 2], -turn[1, 2]], [0, 0, 1]])
    return torch.as_tensor(project @ turn, dtype=like.dtype, device=like.device)


def _tilt(c, xy, inverse=False):
    if not (c[12] or c[13]):
        return xy
    H = _tilt_matrix(c, xy)
    H = torch.linalg.inv(H) if inverse else H
    p = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1) @ H.T
    return p[..., :2] / p[..., 2:]


def _untilt(c, xy):
    return _tilt(c, xy, inverse=True)
