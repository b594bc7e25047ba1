"""The rasteriser against geometry known in closed form and against itself from another camera."""

import numpy as np
import pytest

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.synthetic import sample_cameras, sample_scene, shapes
from ray_pose_ros.synthetic.renderer import (
    OBJECT,
    look_at,
    make_lights,
    pack_geometry,
    pack_textures,
    render,
)


def pack(mesh, texture=None, cull=True):
    texture = np.full((4, 4, 3), 128, np.uint8) if texture is None else texture
    geometry = pack_geometry([mesh.with_material(0)], [OBJECT], [(0, 0, 1, cull)])
    flat = (1.0, 1.0, 1.0)
    none = (0.0, 0.0, 0.0)
    lights = make_lights(geometry, (0, 0, 9), (0, 0, 1), none, flat, flat, none, 2, size=0)
    return geometry, pack_textures([texture]), lights


def pixel_rays(K, width, height):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(K).T


K = np.array([[90.0, 0, 50], [0, 90.0, 40], [0, 0, 1]])


@pytest.mark.parametrize('supersample', [1, 2])
def test_depth_of_a_plane_that_reaches_behind_the_camera(supersample):
    ground = shapes.box((60, 60, 1.0)).transformed(None, (0, 0, -0.5))
    eye = np.array([0.3, -2.0, 1.0])
    R = look_at(eye, (0, 0, 0.4), roll=0.2)
    out = render(*pack(ground), K, R, -R @ eye, 100, 80, supersample=supersample)
    direction = pixel_rays(K, 100, 80) @ R
    with np.errstate(divide='ignore'):
        z = np.where(direction[..., 2] < 0, -eye[2] / direction[..., 2], np.inf)
    hit = eye + z[..., None] * direction
    inside = np.isfinite(z) & (np.abs(np.nan_to_num(hit, posinf=1e9)[..., :2]) < 29).all(-1)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(out.depth[inside], z[inside], rtol=2e-5)
    assert not out.mask[z == np.inf].any()


def test_depth_and_mask_of_a_sphere():
    geometry, atlas, lights = pack(shapes.ellipsoid((1, 1, 1), 90, 140))
    eye = np.array([3.0, 1.0, 0.8])
    R = look_at(eye, (0.1, 0, 0))
    out = render(geometry, atlas, lights, K, R, -R @ eye, 100, 80, supersample=1)
    direction = pixel_rays(K, 100, 80) @ R
    a, b = (direction**2).sum(-1), direction @ eye
    root = b * b - a * (eye @ eye - 1)
    inside = root > 0.02
    z = (-b - np.sqrt(np.maximum(root, 0))) / a
    np.testing.assert_allclose(out.depth[inside], z[inside], rtol=3e-3)
    assert out.mask[inside].all() and not out.mask[root < -0.02].any()


def test_no_cracks_between_triangles():
    geometry, atlas, lights = pack(shapes.blob(np.random.default_rng(0), 0.4), cull=True)
    eye = np.array([0.0, -0.3, 4.0])
    R = look_at(eye, (0, 0, 0))
    zoom = np.array([[2000.0, 0, 100], [0, 2000, 100], [0, 0, 1]])
    out = render(geometry, atlas, lights, zoom, R, -R @ eye, 200, 200, supersample=1)
    assert out.mask.all()


def test_texture_is_upright_and_perspective_correct():
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :, 0] = 255  # upper half red
    texture[:, 32:, 1] = 255  # right half green
    geometry, atlas, lights = pack(shapes.box((2, 2, 2)), texture)
    eye = np.array([1.5, -4.0, 0.0])
    R = look_at(eye, (0, 0, 0))
    t = -R @ eye
    out = render(geometry, atlas, lights, K, R, t, 100, 80)
    for x, z, red, green in ((-0.5, 0.5, 1, 0), (0.5, 0.5, 1, 1), (-0.5, -0.5, 0, 0),
                             (-0.08, 0.1, 1, 0), (0.08, -0.1, 0, 1)):  # fmt: skip
        p = K @ (R @ (x, -1.0, z) + t)
        colour = out.image[int(p[1] / p[2]), int(p[0] / p[2])]
        assert (colour[0] > 128, colour[1] > 128) == (bool(red), bool(green)), (x, z, colour)


def test_a_room_hides_the_wall_towards_a_camera_outside():
    box = shapes.box((2, 2, 2))
    inward = type(box)(box.vertices, box.faces[:, ::-1], box.uv, box.material)
    eye = np.array([0.0, -5.0, 0.0])
    R = look_at(eye, (0, 0, 0))
    out = render(*pack(inward), K, R, -R @ eye, 100, 80, supersample=1)
    assert out.depth[40, 50] == pytest.approx(6.0, rel=1e-3)


@pytest.mark.parametrize('seed', [0, 7, 10])
def test_one_view_reprojected_into_another_agrees(seed):
    scene = sample_scene(seed)
    rng = np.random.default_rng(1)
    (a, Ra, ta), (b, Rb, tb) = sample_cameras(rng, scene, 2, (320, 240), spread=20)
    first, second = scene.render(a, Ra, ta), scene.render(b, Rb, tb)
    v, u = np.nonzero(first.mask)
    z = first.depth[v, u].astype(float)
    ray = np.linalg.inv(a.matrix.numpy()) @ np.stack([u + 0.5, v + 0.5, np.ones(len(u))])
    world = Ra.T @ (ray * z - ta[:, None])
    p = b.matrix.numpy() @ (Rb @ world + tb[:, None])
    column, row = np.floor(p[:2] / p[2]).astype(int)
    seen = (column >= 0) & (column < 320) & (row >= 0) & (row < 240)
    column, row = column[seen], row[seen]
    same = np.abs(second.depth[row, column] - p[2][seen]) < 0.02 * p[2][seen]
    assert same.mean() > 0.7  # the rest is hidden in the other view
    one = first.image[v, u][seen][same].astype(float)
    other = second.image[row, column][same].astype(float)
    shuffled = np.random.default_rng(0).permutation(other)
    assert np.median(np.abs(one - other)) < 8
    assert np.abs(one - other).mean() < 0.5 * np.abs(one - shuffled).mean()


def test_rendering_is_deterministic():
    one, two = sample_scene(5), sample_scene(5)
    camera, R, t = sample_cameras(np.random.default_rng(0), one, 1, 64)[0]
    a, b, c = one.render(camera, R, t), one.render(camera, R, t), two.render(camera, R, t)
    for x, y, z in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)


def test_bad_input_is_named():
    scene = sample_scene(0)
    _, R, t = sample_cameras(np.random.default_rng(0), scene, 1, 64)[0]
    bent = CameraModel(K, 100, 80, 'plumb_bob', (0.1, 0, 0, 0, 0))
    with pytest.raises(ValueError, match='plumb_bob'):
        scene.render(bent, R, t)
    with pytest.raises(ValueError, match='powers of two'):
        pack_textures([np.zeros((5, 4, 3), np.uint8)])
    with pytest.raises(ValueError, match='coincide'):
        look_at((0, 0, 0), (0, 0, 0))
