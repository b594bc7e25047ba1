"""The picture is drawn, and what it draws is where it should be."""

import numpy as np
import pytest
import torch
from estimation_fakes import orbit
from PIL import Image

from ray_pose_ros.estimation import picture
from ray_pose_ros.estimation.picture_geometry import (
    align_truth,
    frustum,
    viewing_axes,
)
from ray_pose_ros.geometry.crops import Crop
from ray_pose_ros.geometry.rotations import random_rotations
from ray_pose_ros.geometry.so3 import camera_centres

K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])


def scene(n):
    R, t = (x.numpy() for x in orbit(n))
    images = [np.full((240, 320, 3), 20 * (i % 12), np.uint8) for i in range(n)]
    return images, R, t, np.stack([K] * n)


@pytest.mark.parametrize('n', [2, 5, 13, 30])
@pytest.mark.parametrize('with_truth', [False, True])
def test_draw(tmp_path, n, with_truth):
    images, R, t, matrices = scene(n)
    path = tmp_path / 'poses.png'
    picture.draw(
        path,
        images,
        R,
        t,
        matrices,
        names=[f'a/very/long/path/with_a_very_long_name_{i}.jpg' for i in range(n)],
        crops=[Crop(-20, 10, 200 + i) for i in range(n)],
        truth=(R, t) if with_truth else None,
        sigmas=np.full(n, 0.1),
        title='A title',
    )
    drawn = np.asarray(Image.open(path).convert('RGB'))
    assert drawn.shape[1] > 1500
    code = np.array([1 << 16, 1 << 8, 1])
    colours = np.rint(255 * np.array(picture.view_colours(n))).astype(int) @ code
    assert len(set(colours)) == n
    assert np.isin(colours, drawn @ code).all()  # every view has its border


def test_draw_needs_nothing_but_cameras(tmp_path):
    images, R, t, matrices = scene(3)
    picture.draw(tmp_path / 'a.png', images, R, t, matrices)
    assert (tmp_path / 'a.png').stat().st_size > 10_000


def test_draw_cameras_in_one_place(tmp_path):
    images, R, t, matrices = scene(3)
    R, t = np.stack([np.eye(3)] * 3), np.zeros((3, 3))
    picture.draw(tmp_path / 'a.png', images, R, t, matrices, truth=(R, t))


def test_no_colour_is_the_truths():
    for n in (2, 10, 11, 40):
        for r, g, b in picture.view_colours(n):
            assert max(r, g, b) - min(r, g, b) > 0.15  # not grey


def test_crop_is_padded_with_black():
    image = np.full((10, 20, 3), 200, np.uint8)
    out = picture.shown(image, Crop(-3, -2, 14))
    assert out.shape == (14, 14, 3)
    assert not out[:2].any() and not out[:, :3].any() and not out[12:].any()
    assert (out[2:12, 3:] == 200).all()
    assert picture.shown(image, None) is image


def test_views_are_shrunk_to_what_the_picture_shows():
    image = np.full((300, 400, 3), 200, np.uint8)
    assert picture.shown(image, None, most=100).shape == (75, 100, 3)
    out = picture.shown(image, Crop(-4000, -4000, 6000), most=60)  # mostly beyond the border
    assert out.shape == (60, 60, 3) and (out[41, 41] == 200).all() and not out[:39].any()


def test_frustum_starts_at_the_centre_and_projects_to_the_corners():
    _, R, t, _ = scene(2)
    points = frustum(R[1], t[1], K, (240, 320, 3), 0.5)
    np.testing.assert_allclose(points[0], camera_centres(R, t)[1])
    seen = (points[1:] @ R[1].T + t[1]) @ K.T
    np.testing.assert_allclose(
        seen[:, :2] / seen[:, 2:], [[0, 0], [320, 0], [320, 240], [0, 240]], atol=1e-9
    )
    np.testing.assert_allclose(seen[:, 2], 0.5)


def test_up_is_up():
    _, R, t, _ = scene(8)
    centres = camera_centres(R, t) - [0.4, -0.3, 0.2]  # the orbit's middle
    right, up, towards = viewing_axes(R, centres)
    assert up[2] > 0.99
    axes = np.stack([right, up, towards])
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert centres[0] @ towards > 0 and abs(centres[0] @ right) < 1e-9


def test_truth_in_another_world_is_brought_over():
    _, R, t, _ = scene(2)  # two cameras suffice
    turn = random_rotations(1, torch.Generator().manual_seed(0), torch.float64)[0].numpy()
    centres = 3.0 * camera_centres(R, t) @ turn.T + [5, 6, 7]
    other_R = R @ turn.T
    other_t = -np.einsum('nij,nj->ni', other_R, centres)
    back_R, back_t = align_truth(other_R, other_t, R, t)
    np.testing.assert_allclose(back_R, R, atol=1e-9)
    np.testing.assert_allclose(back_t, t, atol=1e-9)
