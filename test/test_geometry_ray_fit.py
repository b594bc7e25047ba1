"""The least-squares fit of a camera to rays: its derivatives and its weights."""

from __future__ import annotations

import torch

from ray_pose_ros.geometry import ray_fit
from ray_pose_ros.geometry.ray_fit import Intrinsics, weighted_median
from ray_pose_ros.geometry.rotations import random_rotations, rotation_from_vector


def test_weighted_median():
    x = torch.tensor([5.0, 1.0, 3.0, 100.0])
    assert float(weighted_median(x, torch.tensor([1.0, 1.0, 1.0, 0.0]))) == 3
    assert float(weighted_median(x, torch.tensor([5.0, 1.0, 1.0, 1.0]))) == 5


def test_jacobian_of_the_fit():
    g = torch.Generator().manual_seed(0)
    R, t = random_rotations(1, g, torch.float64), torch.randn(1, 3, generator=g).double()
    d, m = torch.randn(2, 1, 5, 3, generator=g, dtype=torch.float64)
    points = torch.rand(1, 5, 2, generator=g, dtype=torch.float64) - 0.5
    k = Intrinsics(torch.tensor([[0.8, 1.1]]).double(), torch.tensor([[0.02, -0.03]]).double())
    analytic = ray_fit._jacobian(d, m, *k.directions(points), R, t)

    def residuals(step):
        a, _ = k.moved(step[:, 6:]).directions(points)
        turned = rotation_from_vector(step[:, :3]) @ R
        ed, em = ray_fit._residuals(d, m, a, turned, t + step[:, 3:6])
        # The Jacobian takes the ray that moments are measured across for fixed.
        a0, _ = k.directions(points)
        raw = m @ turned.mT - torch.linalg.cross(a, (t + step[:, 3:6])[:, None].expand_as(a))
        return torch.cat([ed, raw - (raw * a0).sum(-1, keepdim=True) * a0], dim=-1)

    for i in range(10):
        step = torch.zeros(1, 10).double()
        step[0, i] = 1e-6
        numeric = (residuals(step) - residuals(-step)) / 2e-6
        torch.testing.assert_close(analytic[..., i], numeric, rtol=0, atol=1e-6)


def test_derivatives_of_directions():
    k = Intrinsics(torch.tensor([0.8, 1.1]).double(), torch.tensor([0.02, -0.03]).double())
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(0)).double() - 0.5
    _, analytic = k.directions(points)
    for i in range(4):
        step = torch.zeros(4).double()
        step[i] = 1e-6
        plus, minus = k.moved(step).directions(points)[0], k.moved(-step).directions(points)[0]
        torch.testing.assert_close(analytic[..., i], (plus - minus) / 2e-6, rtol=0, atol=1e-8)
