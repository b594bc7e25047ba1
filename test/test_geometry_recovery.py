"""Cameras from rays: exact without noise, better than the official recovery with it, robust."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_geometry_golden import golden_directions, load

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop, ndc_grid, patch_centres
from ray_pose_ros.geometry.gauge import viewing_rotation
from ray_pose_ros.geometry.pytorch3d import (
    cameras_p3d_to_opencv,
    pixels_from_ndc,
    rays_p3d_to_opencv,
)
from ray_pose_ros.geometry.rays import camera_centres, normalise_rays, rays_from_cameras
from ray_pose_ros.geometry.recovery import (
    IntrinsicsPrior,
    recover_cameras,
    recover_cameras_official,
    recover_cameras_unknown_intrinsics,
)
from ray_pose_ros.geometry.rotations import geodesic_angle, random_rotations
from ray_pose_ros.geometry.similarity import transform_cameras

WIDTH, HEIGHT = 640, 480


def scenes(n, grid=7, seed=0, focal=(0.4, 3.0), shift=0.03, aspect=0.0):
    """n random pinholes that look at an object near distance 1 through random crops.

    Returns K (n, 3, 3), pixels and directions (n, P, .), R, t.
    """
    g = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64) * (high - low) + low

    f = uniform(math.log(focal[0]), math.log(focal[1]), n, 1).exp() * WIDTH
    f = f * uniform(-aspect, aspect, n, 2).exp()
    centre = torch.tensor([WIDTH, HEIGHT]) / 2 + uniform(-shift, shift, n, 2) * WIDTH
    side = uniform(0.3, 1.0, n, 1) * HEIGHT
    corner = uniform(0, 1, n, 2) * (torch.tensor([WIDTH, HEIGHT]) - side)
    unit = patch_centres(Crop(0, 0, 1), grid)
    pixels = corner[:, None] + side[:, None] * unit
    xy = (pixels - centre[:, None]) / f[:, None]
    d = torch.nn.functional.normalize(torch.cat([xy, torch.ones_like(xy[..., :1])], -1), dim=-1)
    K = torch.diag_embed(torch.cat([f, torch.ones_like(f[:, :1])], dim=-1))
    K[:, :2, 2] = centre
    R = random_rotations(n, g, torch.float64)
    t = d[:, len(unit) // 2] * uniform(0.7, 1.3, n, 1)
    return K, pixels, d, R, t


def with_noise(rays, sigma, outliers=0.0, seed=1):
    g = torch.Generator().manual_seed(seed)
    noisy = rays + sigma * torch.randn(rays.shape, generator=g, dtype=rays.dtype)
    bad = torch.rand(rays.shape[:-1], generator=g) < outliers
    wrong = torch.randn(rays.shape, generator=g, dtype=rays.dtype)
    return normalise_rays(torch.where(bad[..., None], wrong, noisy))


def degrees(R, R_true):
    return torch.rad2deg(geodesic_angle(R.double(), R_true.double()))


def centre_error(R, t, R_true, t_true):
    """Distance of the centres over the distance of the true one from the origin (the object)."""
    true = camera_centres(R_true, t_true)
    return (camera_centres(R, t) - true).norm(dim=-1) / true.norm(dim=-1)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10_000),
    st.sampled_from(['none', 'plumb_bob', 'equidistant']),
    st.sampled_from([2, 4, 7]),
)
def test_known_camera_is_exact_without_noise(seed, model, grid):
    coefficients = {'none': (), 'plumb_bob': (-0.2, 0.1, 0.001, 0.0), 'equidistant': (0.01,) * 4}
    matrix = [[400, 0, 330], [0, 410, 235], [0, 0, 1]]
    cam = CameraModel(matrix, WIDTH, HEIGHT, model, coefficients[model])
    d = cam.unproject(patch_centres(Crop(seed % 300, seed % 150, 200 + seed % 100), grid))
    g = torch.Generator().manual_seed(seed)
    R = random_rotations(3, g, torch.float64)
    t = torch.randn(3, 3, generator=g, dtype=torch.float64)
    R_found, t_found = recover_cameras(rays_from_cameras(R, t, d), d)
    torch.testing.assert_close(R_found, R, rtol=0, atol=1e-9)
    torch.testing.assert_close(t_found, t, rtol=0, atol=1e-8)


@pytest.mark.parametrize('robust', [False, True])
@pytest.mark.parametrize('focal', [(0.15, 0.4), (0.4, 3.0)])
def test_unknown_intrinsics_are_exact_without_noise(focal, robust):
    """Any principal point and pixel shape: the prior has no weight when the rays have no noise."""
    K, pixels, d, R, t = scenes(100, focal=focal, shift=0.1, aspect=0.15)
    found = recover_cameras_unknown_intrinsics(
        rays_from_cameras(R, t, d), pixels, WIDTH, HEIGHT, robust=robust
    )
    assert float(degrees(found[0], R).max()) < 1e-5
    torch.testing.assert_close(found[1], t, rtol=0, atol=1e-6)
    torch.testing.assert_close(found[2], K, rtol=0, atol=1e-4)


# Golden rays of the official code: target in degrees, and what the official code reaches there.
@pytest.mark.parametrize(
    ('noise', 'known', 'unknown'), [('0.005', 0.15, 0.8), ('0.02', 0.4, 1.0), ('0.1', 2.0, 6.0)]
)
@pytest.mark.parametrize('centred', ['pp', 'nopp'])
def test_targets_on_official_noisy_rays(noise, known, unknown, centred):
    g, case = load('rays_to_cameras'), f'{centred}_{noise}'
    R, t = cameras_p3d_to_opencv(g['R'], g['T'])
    rays, d = rays_p3d_to_opencv(g[f'{case}/rays']), golden_directions(g, centred == 'pp')
    R_found, t_found = recover_cameras(rays, d)
    assert R_found.dtype == torch.float32
    official_R, official_t = recover_cameras_official(rays, d)
    median = degrees(R_found, R).median()
    assert float(median) <= known
    assert float(median) <= float(degrees(official_R, R).median())
    ours = centre_error(R_found, t_found, R, t).median()
    official = centre_error(official_R, official_t, R, t).median()
    assert float(ours) < 0.6 * float(official) + 1e-3
    pixels = pixels_from_ndc(ndc_grid(g['crops']).flatten(1, 2), 1000, 1000)
    R_found, t_found, K = recover_cameras_unknown_intrinsics(rays, pixels, 1000, 1000)
    homography, _ = cameras_p3d_to_opencv(g[f'{case}/hom_R'], g[f'{case}/hom_T'])
    assert float(degrees(R_found, R).median()) <= unknown
    if noise != '0.005':
        assert float(degrees(R_found, R).median()) < float(degrees(homography, R).median())
    assert float((K[:, 0, 0] / (500 * g['f'][:, 0]) - 1).abs().median()) < float(noise) + 0.01


@pytest.mark.parametrize(('sigma', 'limit'), [(0.01, 0.01), (0.03, 0.03), (0.1, 0.1)])
def test_centre_is_not_drawn_to_the_object(sigma, limit):
    """49 rays: the official centre is 0.01, 0.05, 0.4 of the distance off, and short of it."""
    _, _, d, R, t = scenes(300)
    rays = with_noise(rays_from_cameras(R, t, d), sigma)
    R_found, t_found = recover_cameras(rays, d)
    assert float(centre_error(R_found, t_found, R, t).median()) < limit
    depth = t_found.norm(dim=-1) / t.norm(dim=-1)
    assert float(depth.median()) == pytest.approx(1, abs=0.15 * sigma + 0.005)
    _, official = recover_cameras_official(rays, d)
    if sigma == 0.1:
        assert float((official.norm(dim=-1) / t.norm(dim=-1)).median()) < 0.7


def test_robust_recovery_bears_outliers():
    _, pixels, d, R, t = scenes(100, grid=10)
    rays = with_noise(rays_from_cameras(R, t, d), 0.02, outliers=0.3)
    plain = recover_cameras(rays, d, robust=False)
    robust = recover_cameras(rays, d)
    assert float(degrees(robust[0], R).median()) < 0.6 < float(degrees(plain[0], R).median())
    assert float(centre_error(*robust, R, t).median()) < 0.02
    unknown = recover_cameras_unknown_intrinsics(rays, pixels, WIDTH, HEIGHT)
    assert float(degrees(unknown[0], R).median()) < 2.5


def test_robustness_costs_little_without_outliers():
    _, _, d, R, t = scenes(300)
    rays = with_noise(rays_from_cameras(R, t, d), 0.03)
    plain = degrees(recover_cameras(rays, d, robust=False)[0], R).median()
    robust = degrees(recover_cameras(rays, d)[0], R).median()
    assert float(robust) < 1.15 * float(plain)


def test_weights_switch_rays_off():
    _, pixels, d, R, t = scenes(5)
    rays = with_noise(rays_from_cameras(R, t, d), 0.0)
    rays[:, ::3] = with_noise(rays[:, ::3], 0.5)
    weights = torch.ones(5, 49, dtype=torch.float64)
    weights[:, ::3] = 0
    R_found, t_found = recover_cameras(rays, d, weights, robust=False)
    torch.testing.assert_close(R_found, R, rtol=0, atol=1e-8)
    torch.testing.assert_close(t_found, t, rtol=0, atol=1e-7)
    found = recover_cameras_unknown_intrinsics(rays, pixels, WIDTH, HEIGHT, weights)
    torch.testing.assert_close(found[0], R, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_recovery_follows_the_world(seed):
    """Rays of a turned and moved world give the turned and moved cameras, noise and all."""
    _, _, d, R, t = scenes(3, seed=seed)
    rays = with_noise(rays_from_cameras(R, t, d), 0.02)
    Q = random_rotations(1, torch.Generator().manual_seed(seed), torch.float64)[0]
    turned = torch.cat([rays[..., :3] @ Q.T, rays[..., 3:] @ Q.T], dim=-1)
    expected = transform_cameras(*recover_cameras(rays, d), 1.0, Q, torch.zeros(3).double())
    for a, b in zip(recover_cameras(turned, d), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_recovery_in_the_virtual_camera_frame():
    """What the project's own model predicts: rays of the virtual camera, directions there too."""
    _, _, d, R, t = scenes(4)
    V = viewing_rotation(d[:, 24])
    turned = d @ V.transpose(-1, -2)
    R_found, t_found = recover_cameras(rays_from_cameras(R, t, d), turned)
    torch.testing.assert_close(R_found, V @ R)
    torch.testing.assert_close(t_found, (V @ t[..., None])[..., 0])


def test_leading_dimensions_and_types():
    _, pixels, d, R, t = scenes(6)
    rays = rays_from_cameras(R, t, d).float()
    R_one, t_one = recover_cameras(rays, d)
    R_two, t_two = recover_cameras(rays.reshape(2, 3, 49, 6), d.reshape(2, 3, 49, 3))
    assert R_two.shape == (2, 3, 3, 3) and t_two.shape == (2, 3, 3)
    assert R_two.dtype == t_two.dtype == torch.float32
    torch.testing.assert_close(R_two.reshape(6, 3, 3), R_one)
    torch.testing.assert_close(t_two.reshape(6, 3), t_one)
    single = recover_cameras_unknown_intrinsics(rays[0], pixels[0], WIDTH, HEIGHT)
    assert [v.shape for v in single] == [(3, 3), (3,), (3, 3)]
    # several samples of the same cameras: directions broadcast
    many = recover_cameras(rays.expand(4, 6, 49, 6), d)
    torch.testing.assert_close(many[0][2], R_one)


def test_answers_do_not_depend_on_the_batch():
    _, pixels, d, R, t = scenes(8, seed=5)
    rays = with_noise(rays_from_cameras(R, t, d), 0.05)
    together = recover_cameras(rays, d)
    unknown = recover_cameras_unknown_intrinsics(rays, pixels, WIDTH, HEIGHT)
    for i in range(8):
        for a, b in zip(together, recover_cameras(rays[i], d[i]), strict=True):
            torch.testing.assert_close(a[i], b, rtol=0, atol=1e-10)
        alone = recover_cameras_unknown_intrinsics(rays[i], pixels[i], WIDTH, HEIGHT)
        for a, b in zip(unknown, alone, strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-8, atol=1e-8)


def test_few_rays_and_collapsed_rays_do_not_crash():
    _, pixels, d, _, _ = scenes(2, grid=2)
    g = torch.Generator().manual_seed(0)
    for rays in (
        torch.randn(2, 4, 6, generator=g, dtype=torch.float64),  # nonsense
        torch.ones(2, 4, 6, dtype=torch.float64),  # one and the same ray
        torch.cat([torch.ones(2, 4, 3), torch.zeros(2, 4, 3)], dim=-1).double(),
        torch.cat([torch.ones(2, 4, 3), torch.full((2, 4, 3), 1e30)], dim=-1).double(),
    ):
        for found in (
            recover_cameras(rays, d),
            recover_cameras(rays[:, :2], d[:, :2]),
            recover_cameras_unknown_intrinsics(rays, pixels, WIDTH, HEIGHT),
        ):
            assert all(bool(torch.isfinite(v).all()) for v in found)
            eye = found[0] @ found[0].transpose(-1, -2)
            torch.testing.assert_close(eye, torch.eye(3).double().expand(2, 3, 3))
            if len(found) == 3:
                assert bool((found[2].diagonal(dim1=-2, dim2=-1) > 0).all())


def test_prior_rules_when_rays_say_nothing():
    _, pixels, _, _, _ = scenes(2)
    g = torch.Generator().manual_seed(0)
    rays = torch.randn(2, 49, 6, generator=g, dtype=torch.float64)
    prior = IntrinsicsPrior(focal=1.3, focal_log_sigma=0.01)
    K = recover_cameras_unknown_intrinsics(rays, pixels, WIDTH, HEIGHT, prior=prior)[2]
    torch.testing.assert_close(
        K[:, 0, 0], torch.full((2,), 1.3 * WIDTH).double(), rtol=0.05, atol=0
    )
    middle = torch.tensor([320.0, 240.0]).double().expand(2, 2)
    torch.testing.assert_close(K[:, :2, 2], middle, rtol=0, atol=40)


def test_bad_input_is_refused():
    _, pixels, d, R, t = scenes(2)
    rays = rays_from_cameras(R, t, d)
    unknown = recover_cameras_unknown_intrinsics
    for call, message in [
        (lambda: recover_cameras(rays[..., :5], d), r'rays have shape \(2, 49, 5\)'),
        (lambda: recover_cameras(rays[:, :1], d[:, :1]), 'P of at least 2'),
        (lambda: recover_cameras(rays * math.nan, d), 'rays are not all finite'),
        (lambda: recover_cameras(rays, d[:, :7]), r'expected \(..., 49, 3\)'),
        (lambda: recover_cameras(rays, d * math.nan), 'directions are not all finite'),
        (lambda: recover_cameras(rays, d[:, :1].expand(2, 49, 3)), 'all the same'),
        (lambda: recover_cameras(rays, d, torch.zeros(2, 49)), 'fewer than 2 rays'),
        (lambda: recover_cameras(rays, d, -torch.ones(2, 49)), 'weights'),
        (lambda: recover_cameras(0 * rays, d), 'fewer than 2 rays'),
        (lambda: unknown(rays[:, :3], pixels[:, :3], 640, 480), 'P of at least 4'),
        (lambda: unknown(rays, pixels[:, :3], 640, 480), 'pixels of shape'),
        (lambda: unknown(rays, pixels, 0, 480), 'image size'),
        (lambda: unknown(rays, pixels * 0, 640, 480), 'pixels of a camera are all the same'),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
