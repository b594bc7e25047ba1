"""Scenes, splits, cameras, crops and augmentation of the synthetic data."""

import numpy as np
import pytest

from ray_pose_ros.synthetic import (
    augment,
    objects,
    orbit,
    sample_cameras,
    sample_scene,
    textures,
    training_view,
)
from ray_pose_ros.synthetic.scenes import build_scene
from ray_pose_ros.synthetic.training_view import object_box


@pytest.mark.parametrize('family', sorted({**objects.TRAIN, **objects.HELD_OUT}))
def test_objects_are_centred_of_unit_size_and_textured(family):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        mesh, images, name = objects.sample_object(rng, 'test', 64, family)
        assert name == family
        v = mesh.vertices
        np.testing.assert_allclose(v.min(0) + v.max(0), 0, atol=1e-9)
        assert np.linalg.norm(v, axis=1).max() == pytest.approx(1)
        assert mesh.material.min() >= 0 and mesh.material.max() < len(images)
        assert np.isfinite(mesh.normals).all()
        assert 50 < len(mesh.faces) < 40000


def volume(mesh):
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return np.einsum('fi,fi->', a, np.cross(b, c)) / 6


def test_closed_shapes_face_outwards():
    from ray_pose_ros.synthetic import shapes

    rng = np.random.default_rng(0)
    square = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2.0
    known = [
        (shapes.box((1, 2, 3)), 6),
        (shapes.cylinder(1, 2), 2 * np.pi),
        (shapes.ellipsoid((1, 1, 2), 60, 80), 8 / 3 * np.pi),
        (shapes.torus(2, 0.5), 2 * np.pi**2 * 2 * 0.25),
        (shapes.extrude(square, 2.0), 2),
    ]
    for mesh, expected in known:
        assert volume(mesh) == pytest.approx(expected, rel=0.05)
    assert volume(shapes.blob(rng)) > 0
    assert volume(shapes.limb((0, 0, 0), (1, 1, 0), 0.2)) > 0
    assert volume(shapes.box().transformed(np.diag([1.0, -1, 1]))) == pytest.approx(1)


@pytest.mark.parametrize('family', sorted({**textures.TRAIN, **textures.HELD_OUT}))
def test_textures(family):
    image = textures.sample_texture(np.random.default_rng(3), 'test', 64, family)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    again = textures.sample_texture(np.random.default_rng(3), 'test', 64, family)
    np.testing.assert_array_equal(image, again)
    if family not in ('plain', 'gradient'):
        assert image.std() > 2


def test_splits_share_no_scene_and_hold_families_out():
    train = {sample_scene(s, 'train').points.tobytes() for s in range(6)}
    test = {sample_scene(s, 'test').points.tobytes() for s in range(6)}
    assert len(train) == len(test) == 6 and not train & test
    assert not set(objects.TRAIN) & set(objects.HELD_OUT)
    assert not set(textures.TRAIN) & set(textures.HELD_OUT)
    families = {
        split: {objects.sample_object(np.random.default_rng(s), split, 16)[2] for s in range(60)}
        for split in ('train', 'test')
    }
    assert not families['train'] & set(objects.HELD_OUT)
    assert families['test'] & set(objects.HELD_OUT)


def test_unknown_split_and_kind_are_refused():
    with pytest.raises(ValueError, match='validation'):
        sample_scene(0, 'validation')
    with pytest.raises(ValueError, match='-1'):
        sample_scene(-1)
    rng = np.random.default_rng(0)
    mesh, images, family = objects.sample_object(rng, 'train', 32)
    with pytest.raises(ValueError, match='moon'):
        build_scene(rng, mesh, images, family, 'moon')
    with pytest.raises(ValueError, match='dragon'):
        objects.sample_object(rng, 'train', 32, 'dragon')


@pytest.mark.parametrize('kind', ['table', 'room', 'panorama', 'plain', 'random'])
def test_cameras_see_the_object(kind):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mesh, images, family = objects.sample_object(rng, 'train', 32)
        scene = build_scene(rng, mesh, images, family, kind)
        for camera, R, t in sample_cameras(rng, scene, 4, (64, 48)):
            np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(R) > 0
            eye = -R.T @ t
            if scene.ground is not None:
                assert eye[2] > scene.ground
            up = R @ scene.up
            assert abs(up[2]) < 1
            p = camera.matrix.numpy() @ (R @ scene.centre + t)
            assert p[2] > 0
            assert 0 < p[0] / p[2] < 64 and 0 < p[1] / p[2] < 48
            out = scene.render(camera, R, t)
            assert out.mask.any()
            assert np.isfinite(out.depth[out.mask]).all()


def test_training_view_matches_the_full_image():
    scene = sample_scene(3)
    cameras = sample_cameras(np.random.default_rng(0), scene, 3, (320, 240))
    for camera, R, t in cameras:
        view = training_view(scene, camera, R, t, np.random.default_rng(1), augment=0.0)
        assert view.image.shape == (224, 224, 3) and view.image.dtype == np.uint8
        assert view.depth.dtype == np.float32 and view.mask.dtype == bool
        full = scene.render(camera, R, t)
        v, u = np.nonzero(full.mask)
        p = view.K_crop @ np.linalg.inv(camera.matrix.numpy())
        at = p[:2, :2] @ np.stack([u + 0.5, v + 0.5]) + p[:2, 2:]
        inside = ((at >= 1) & (at < 223)).all(0)
        x, y = at[:, inside].astype(int)
        agree = np.abs(view.depth[y, x] - full.depth[v, u][inside]) < 0.05
        assert inside.mean() > 0.8 and agree.mean() > 0.9
        box = object_box(scene, camera.matrix.numpy(), R, t, 320, 240)
        assert box[0] <= u.min() + 1.5 and box[2] >= u.max() - 0.5
        again = training_view(scene, camera, R, t, np.random.default_rng(1), augment=0.0)
        np.testing.assert_array_equal(view.image, again.image)


def test_pixels_outside_the_image_are_black():
    scene = sample_scene(7)
    camera, R, t = sample_cameras(np.random.default_rng(0), scene, 1, (96, 40))[0]
    view = training_view(
        scene, camera, R, t, np.random.default_rng(0), 64, scale=(3, 3), loose=0, augment=0
    )
    corner = np.linalg.inv(view.K_crop @ np.linalg.inv(camera.matrix.numpy())) @ (32, 0.5, 1)
    assert corner[1] < 0
    assert not view.image[0].any() and np.isinf(view.depth[0]).all() and not view.mask[0].any()


def test_orbit_is_smooth_and_looks_at_the_object():
    scene = sample_scene(1)
    path = orbit(scene, 60)
    assert path[0][0].width == 640 and path[0][0].height == 480
    eyes = np.array([-R.T @ t for _, R, t in path])
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()
    for _, R, t in path:
        p = R @ scene.centre + t
        np.testing.assert_allclose(p[:2], 0, atol=1e-9)


def test_augment():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment(np.random.default_rng(0), image, 0.0), image)
    for seed in range(30):
        out = augment(np.random.default_rng(seed), image)
        assert out.shape == image.shape and out.dtype == np.uint8
    with pytest.raises(ValueError, match='float64'):
        augment(np.random.default_rng(0), image.astype(float))
