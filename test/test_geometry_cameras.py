"""Camera models: agreement with OpenCV, round trips, fold-over, validation, crops and binning."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.cameras import CameraModel

K = [[500.0, 0.0, 322.5], [0.0, 510.0, 238.25], [0.0, 0.0, 1.0]]
RATIONAL = (0.1, -0.05, 0.001, 0.002, 0.01, 0.2, -0.02, 0.003)
LENSES = {
    'none': ('none', ()),
    'plumb_bob_0': ('plumb_bob', ()),
    'plumb_bob_4': ('plumb_bob', (-0.3, 0.1, 0.002, -0.001)),
    'plumb_bob_5': ('plumb_bob', (-0.28, 0.07, 0.0002, 0.00002, 0.01)),
    'rational_8': ('rational_polynomial', RATIONAL),
    'rational_12': ('rational_polynomial', (*RATIONAL, 0.01, 0.002, -0.01, 0.003)),
    'rational_14': ('rational_polynomial', (*RATIONAL, 0.01, 0.002, -0.01, 0.003, 0.02, -0.03)),
    'equidistant': ('equidistant', (0.05, -0.01, 0.003, -0.001)),
}
every_lens = pytest.mark.parametrize('lens', list(LENSES.values()), ids=list(LENSES))


def camera(lens, **changes):
    model, coefficients = lens
    values = {'matrix': K, 'width': 640, 'height': 480, **changes}
    return CameraModel(**values, distortion_model=model, distortion=coefficients)


def pixels(camera, count=25):
    x = torch.linspace(0, camera.width, count, dtype=torch.float64)
    y = torch.linspace(0, camera.height, count, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1).reshape(-1, 2)


@every_lens
def test_projection_agrees_with_opencv(lens):
    model, coefficients = lens
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 3, generator=generator, dtype=torch.float64) - 0.5
    points = points * torch.tensor([1.2, 0.9, 0.5]) + torch.tensor([0.0, 0.0, 1.0])
    arguments = np.zeros(3), np.zeros(3), np.array(K), np.array(coefficients)
    if model == 'equidistant':
        expected, _ = cv2.fisheye.projectPoints(points.numpy()[:, None], *arguments)
    else:
        expected, _ = cv2.projectPoints(points.numpy(), *arguments)
    found = camera(lens).project(points).numpy()
    # The same K and the same numbers: a pixel's name differs (conventions.md), not its arithmetic.
    np.testing.assert_allclose(found, expected[:, 0], rtol=0, atol=1e-9)


@every_lens
def test_unproject_then_project_is_identity(lens):
    cam = camera(lens)
    given_pixels = pixels(cam)
    directions = cam.unproject(given_pixels)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones_like(directions[:, 0]))
    torch.testing.assert_close(cam.project(directions), given_pixels, rtol=0, atol=1e-7)
    # Depth does not matter, batch shape is kept.
    again = cam.project((directions * 7.3).reshape(25, 25, 3))
    torch.testing.assert_close(again.reshape(-1, 2), given_pixels, rtol=0, atol=1e-7)


@every_lens
def test_float32_stays_float32(lens):
    cam = camera(lens)
    directions = cam.unproject(pixels(cam).float())
    assert directions.dtype == torch.float32
    assert cam.project(directions).dtype == torch.float32
    torch.testing.assert_close(cam.project(directions), pixels(cam).float(), rtol=0, atol=2e-3)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(['plumb_bob', 'rational_polynomial', 'equidistant']),
    st.integers(0, 10_000),
    st.floats(0.4, 3.0),
)
def test_round_trip_of_any_lens(model, seed, focal):
    """Where a random lens answers at all the answer projects back, and the middle always is."""
    count = {'plumb_bob': 5, 'rational_polynomial': 12, 'equidistant': 4}[model]
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(count, generator=generator, dtype=torch.float64) * 0.2
    if model != 'equidistant':
        coefficients[2:4] *= 0.02
        coefficients[8:] *= 0.02
    matrix = [[focal * 640, 0.3, 320], [0, focal * 630, 250], [0, 0, 1]]
    cam = CameraModel(matrix, 640, 480, model, coefficients.tolist())
    p = pixels(cam, 9)
    directions = cam.unproject(p)
    seen = ~directions.isnan().any(-1)
    assert bool(seen[len(p) // 2])
    torch.testing.assert_close(cam.project(directions[seen]), p[seen], rtol=0, atol=1e-5)
    assert bool(torch.isfinite(cam.unproject(p, extrapolate=True)).all())


def test_fold_over_of_plumb_bob_is_nan():
    """r (1 - 0.4 r^2) grows up to r = sqrt(1 / 1.2) = 0.913, where it is 0.609."""
    cam = camera(
        ('plumb_bob', (-0.4, 0.0, 0.0, 0.0)), matrix=[[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    )
    assert cam.limit == pytest.approx(math.sqrt(1 / 1.2))
    x = torch.tensor([0.0, 0.5, 0.9, 0.92, 1.2, 1.55], dtype=torch.float64)
    points = torch.stack([x, torch.zeros_like(x), torch.ones_like(x)], dim=-1)
    found = cam.project(points)
    assert found.isnan().any(-1).tolist() == [False, False, False, True, True, True]
    edge = 500 * cam.limit * 2 / 3
    p = torch.tensor([[320 + edge - 0.01, 240.0], [320 + edge + 0.01, 240]], dtype=torch.float64)
    directions = cam.unproject(p)
    assert directions.isnan().any(-1).tolist() == [False, True]
    # Extrapolation is continuous there and goes on outwards.
    wide = cam.unproject(torch.cat([p, p[1:] + torch.tensor([100.0, 0])]), extrapolate=True)
    assert bool(torch.isfinite(wide).all())
    slopes = wide[:, 0] / wide[:, 2]
    assert bool((slopes.diff() > 0).all()) and float(slopes[1] - slopes[0]) < 0.01
    np.testing.assert_allclose(slopes[1], cam.limit, rtol=0, atol=1e-3)


def test_inverse_never_returns_the_wrong_sheet():
    """Strong lenses: every answer lies below the fold and projects back to its pixel."""
    for k1 in (-0.6, -0.2, 0.1, 0.5):
        for k2 in (-0.3, 0.0, 0.3):
            cam = camera(('plumb_bob', (k1, k2, 0.01, -0.01, 0.05)))
            p = (pixels(cam) - torch.tensor([320, 240])) * 4 + torch.tensor([320, 240])
            directions = cam.unproject(p)
            seen = ~directions.isnan().any(-1)
            radius = directions[seen, :2].norm(dim=-1) / directions[seen, 2]
            assert bool((radius <= cam.limit).all())
            np.testing.assert_allclose(cam.project(directions[seen]), p[seen], rtol=0, atol=1e-6)


def test_points_behind_are_nan():
    points = torch.tensor([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 0.0]])
    for lens in (LENSES['none'], LENSES['plumb_bob_4'], LENSES['rational_8']):
        assert bool(camera(lens).project(points).isnan().all())
    assert bool(camera(LENSES['equidistant']).project(points)[2].isnan().all())


def test_fisheye_sees_beyond_90_degrees():
    cam = camera(
        ('equidistant', (0.0, 0.0, 0.0, 0.0)), matrix=[[200, 0, 500], [0, 200, 500], [0, 0, 1]]
    )
    angle = torch.tensor([0.0, 1.0, 1.57, 2.0, 3.1], dtype=torch.float64)
    d = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=-1)
    p = cam.project(d)
    torch.testing.assert_close(p[:, 0], 500 + 200 * angle)
    torch.testing.assert_close(cam.unproject(p), d)
    beyond = torch.tensor([[500 + 200 * 3.2, 500.0]])
    assert bool(cam.unproject(beyond).isnan().all())
    assert bool(torch.isfinite(cam.unproject(beyond, extrapolate=True)).all())


def test_k_is_used_as_given_and_the_image_starts_at_0():
    """A pinhole with 90 degrees: the image's edges, not its pixel centres, are at 45 degrees."""
    cam = CameraModel.from_fov(640, 480, math.pi / 2)
    assert cam.matrix.tolist() == [[320, 0, 320], [0, 320, 240], [0, 0, 1]] or torch.allclose(
        cam.matrix, torch.tensor([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]], dtype=torch.float64)
    )
    d = cam.unproject(torch.tensor([[0.0, 240.0], [640.0, 240.0], [320.0, 240.0]]))
    torch.testing.assert_close(
        d[:, 0] / d[:, 2], torch.tensor([-1.0, 1.0, 0.0]), atol=1e-6, rtol=0
    )


@every_lens
def test_cropped_resized_binned_keep_the_directions(lens):
    cam = camera(lens)
    p = pixels(cam)
    expected = cam.unproject(p)
    found = cam.cropped(31, -12, 400, 300).unproject(p - torch.tensor([31, -12]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    half = cam.resized(320, 160)
    assert (half.width, half.height) == (320, 160)
    found = half.unproject(p * torch.tensor([1 / 2, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    binned = cam.binned(3, 0)
    assert (binned.width, binned.height) == (213, 480)
    found = binned.unproject(p / torch.tensor([3, 1]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def changed(row, column, value):
    matrix = torch.tensor(K, dtype=torch.float64)
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'matrix': torch.zeros(3, 3)}, 'focal lengths'),
        ({'matrix': changed(1, 1, -2.0)}, 'focal lengths'),
        ({'matrix': changed(0, 2, math.nan)}, 'not finite'),
        ({'matrix': torch.eye(4)}, r'shape \(4, 4\)'),
        ({'matrix': changed(2, 0, 0.1)}, 'upper triangular'),
        ({'matrix': changed(1, 0, 0.1)}, 'upper triangular'),
        ({'width': 0}, 'image width is 0'),
        ({'height': -3}, 'image height is -3'),
        ({'width': 10.5}, r'image width is 10\.5'),
        ({'distortion_model': 'fov'}, "'fov'"),
        ({'distortion_model': 'plumb_bob', 'distortion': [1, 2, 3]}, '3 coefficients'),
        ({'distortion_model': 'equidistant'}, '0 coefficients, expected 4'),
        ({'distortion_model': 'rational_polynomial', 'distortion': [0] * 5}, '8 or 12 or 14'),
        ({'distortion_model': 'none', 'distortion': [0.1]}, 'none has 1'),
        ({'distortion_model': 'plumb_bob', 'distortion': [0, 0, 0, math.inf]}, 'not finite'),
    ],
)
def test_constructor_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        CameraModel(**{'matrix': K, 'width': 640, 'height': 480, **changes})


def test_field_of_view_and_pixel_shapes_are_checked():
    with pytest.raises(ValueError, match='field of view'):
        CameraModel.from_fov(640, 480, math.pi)
    cam = camera(LENSES['none'])
    with pytest.raises(ValueError, match='pixels'):
        cam.unproject(torch.zeros(4, 3))
    with pytest.raises(ValueError, match='points'):
        cam.project(torch.zeros(4, 3, dtype=torch.int64))


def test_equality_and_hash():
    first, second = camera(LENSES['plumb_bob_4']), camera(LENSES['plumb_bob_4'])
    assert first == second and hash(first) == hash(second)
    assert first != camera(LENSES['plumb_bob_5']) and first != first.resized(320, 240)
    assert first != 3


def test_a_longer_focal_length_sees_the_same_pixels_under_smaller_angles():
    from ray_pose_ros.multiview.two_view import RayMatches

    camera = CameraModel.from_fov(640, 480, 1.0)
    longer = camera.refocused(1.3)
    assert longer.matrix[:2, 2].tolist() == camera.matrix[:2, 2].tolist()
    assert float(longer.matrix[0, 0]) == pytest.approx(1.3 * float(camera.matrix[0, 0]))
    pixels = torch.tensor([[10.0, 20], [320, 240], [600, 30]], dtype=torch.float64)
    old, new = (lens.unproject(pixels).numpy() for lens in (camera, longer))
    matches = RayMatches(old, old, np.full(3, 1e-3), old[0], old[1])
    found = matches.refocused(1.3, 1.0)
    np.testing.assert_allclose(found.a, new, atol=1e-12)
    np.testing.assert_allclose(found.centre_a, new[0], atol=1e-12)
    np.testing.assert_array_equal(found.b, old)
    np.testing.assert_array_equal(found.centre_b, old[1])
    np.testing.assert_allclose(found.sigma, 1e-3 * (1 / 1.3 + 1) / 2)
