"""Cameras round an object, points on it, and what they see of each other as rays."""

import numpy as np
import torch

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop
from ray_pose_ros.geometry.so3 import rotation_from_vector
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.two_view import RayMatches

PIXEL = 1e-3  # rad
CAMERA = CameraModel(torch.tensor([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]]), 640, 480)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def ring(count, step_deg=30.0):
    """R (N, 3, 3), t (N, 3) in the published world: on a wavy ring, looking at the origin."""
    rotations, translations = [], []
    for i in range(count):
        a = np.radians(step_deg * i)
        centre = np.array([np.sin(a), 0.2 * np.sin(2.0 * i), -np.cos(a)]) * (1 + 0.1 * np.sin(i))
        z = -unit(centre)
        x = unit(np.cross([0.0, 1.0, 0.0], z))
        R = np.stack([x, np.cross(z, x), z])
        rotations.append(R)
        translations.append(-R @ centre)
    R, t = np.array(rotations), np.array(translations)
    return R @ R[0].T, t / np.linalg.norm(t[0])


def noisy_prior(R, t, rms_deg, rng, told_deg=None):
    """Every camera turned about the object by `rms_deg`; told to be so, or `told_deg`."""
    n = len(R)
    turns = rotation_from_vector(rng.normal(size=(n, 3)) * np.radians(rms_deg) / 3**0.5)
    R = R @ turns
    R = R @ R[0].T
    sigma = np.full(n, np.radians(rms_deg if told_deg is None else told_deg))
    centres = -np.einsum('nji,nj->ni', R, t)
    return Prior(R, centres, sigma, sigma, np.zeros((0, n, 3, 3)))


def estimate_of(prior, cameras, sources):
    """An estimate that tells what the prior does."""
    count = len(prior.R)
    return Estimate(
        R=prior.R,
        t=-np.einsum('nij,nj->ni', prior.R, prior.centres),
        cameras=tuple(cameras),
        intrinsics_source=tuple(sources),
        names=tuple(map(str, range(count))),
        stamps=(None,) * count,
        crops=(Crop(80, 0, 480),) * count,
        rotation_sigma=prior.rotation_sigma,
        centre_sigma=prior.centre_sigma,
        agreement=1.0,
        modes=1,
        rays=np.zeros((count, 6, 1, 1), np.float32),
    )


def see(R, t, i, j, points, rng, wrong=0.0):
    """Matches of points (K, 3) in views i and j with noise; a share of them is shuffled."""
    a, b = (unit(points @ R[k].T + t[k]) for k in (i, j))
    noise = PIXEL / 2**0.5
    a, b = (unit(x + rng.normal(size=x.shape) * noise) for x in (a, b))
    count = int(wrong * len(points))
    b[:count] = rng.permutation(b[:count])
    return RayMatches(a, b, np.full(len(a), PIXEL), unit(t[i]), unit(t[j]))


def relative_errors(R, truth):
    """Degrees (N - 1,) of the rotations relative to the first camera."""
    from ray_pose_ros.geometry.so3 import angle_between

    return np.degrees(angle_between(R[1:] @ R[0].T, truth[1:] @ truth[0].T))
