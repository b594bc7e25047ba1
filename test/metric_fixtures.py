"""Cameras round an object whose poses are known, and the same as an estimate has them."""

import numpy as np


def looking(centres, target):
    """World-to-camera R (n, 3, 3), t (n, 3) of cameras that look at a point, y about down."""
    forward = target - centres
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    R = np.stack([right, np.cross(forward, right), forward], axis=1)
    return R, -np.einsum('nij,nj->ni', R, centres)


def scene(rng, n, scale=0.7):
    """Known cameras R, c about an object p in metres, and the same in the published world.

    The first of them is unrotated there and at distance 1, which is `scale` metres.
    """
    p = rng.normal(size=3)
    azimuth, height = rng.uniform(0, 2 * np.pi, n), rng.uniform(-0.8, 0.8, n)
    out = np.stack([np.cos(azimuth), np.sin(azimuth), height], axis=1)
    out *= scale * rng.uniform(0.8, 1.2, (n, 1)) / np.linalg.norm(out, axis=1, keepdims=True)
    out[0] *= scale / np.linalg.norm(out[0])
    R_known, t_known = looking(p + out, p)
    Q = R_known[0].T
    return R_known, p + out, R_known @ Q, (t_known + R_known @ p) / scale, p, Q
