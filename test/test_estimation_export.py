"""Files in other programs' conventions hold the same cameras."""

import json

import numpy as np
import pytest
import torch
from estimation_fakes import cameras, orbit

from ray_pose_ros.estimation import export
from ray_pose_ros.estimation.intrinsics import IntrinsicsFile
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import random_rotations


def posed(lenses, seed=0):
    n = len(lenses)
    generator = torch.Generator().manual_seed(seed)
    R = random_rotations(n, generator, torch.float64).numpy()
    t = np.random.default_rng(seed).normal(size=(n, 3))
    names = [f'dir/image {i}.jpg' for i in range(n)]
    return export.PosedCameras(names, lenses, R, t, 100.0 + 0.25 * np.arange(n))


def pinholes(n):
    return [CameraModel.from_fov(640 + 2 * i, 480, 1.0 + 0.1 * i) for i in range(n)]


def assert_same(a, b, names=True):
    np.testing.assert_allclose(a.R, b.R, atol=1e-10)
    np.testing.assert_allclose(a.t, b.t, atol=1e-10)
    if names:
        assert list(a.names) == list(b.names)
    for x, y in zip(a.cameras, b.cameras, strict=True):
        np.testing.assert_allclose(x.matrix.numpy(), y.matrix.numpy(), rtol=1e-10)
        assert (x.width, x.height) == (y.width, y.height)
        # Padding of coefficients may differ; what the lens does may not.
        generator = torch.Generator().manual_seed(1)
        pixels = torch.rand(20, 2, generator=generator, dtype=torch.float64) * x.width
        p, q = x.unproject(pixels), y.unproject(pixels)
        assert torch.allclose(p, q, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize('seed', range(5))
def test_tum_round_trip(tmp_path, seed):
    given = posed(pinholes(4), seed)
    export.write_tum(tmp_path / 'a.tum', given)
    stamps, R, t = export.read_tum(tmp_path / 'a.tum')
    np.testing.assert_allclose(stamps, given.stamps, atol=1e-9)
    np.testing.assert_allclose(R, given.R, atol=1e-10)
    np.testing.assert_allclose(t, given.t, atol=1e-10)


def test_tum_is_camera_to_world_with_w_last(tmp_path):
    # A camera at (1, 2, 3), turned by +90 degrees about the world's z.
    world_from_camera = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    R = world_from_camera.T[None]
    given = export.PosedCameras(['a'], pinholes(1), R, -R @ [1.0, 2, 3], np.array([7.5]))
    export.write_tum(tmp_path / 'a.tum', given)
    numbers = [float(x) for x in (tmp_path / 'a.tum').read_text().splitlines()[-1].split()]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(numbers, [7.5, 1, 2, 3, 0, 0, half, half], atol=1e-9)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('lenses', [pinholes(4), cameras(4)])
def test_colmap_round_trip(tmp_path, lenses, seed):
    given = posed(lenses, seed)
    export.write_colmap(tmp_path / 'c', given)
    assert_same(export.read_colmap(tmp_path / 'c'), given)
    assert (tmp_path / 'c' / 'points3D.txt').is_file()


def test_colmap_shares_equal_cameras_and_writes_w_first(tmp_path):
    lens = pinholes(1)[0]
    R = np.stack([np.eye(3)] * 2)
    t = np.array([[1.0, 2, 3], [4, 5, 6]])
    given = export.PosedCameras(['a.jpg', 'b.jpg'], [lens] * 2, R, t, np.zeros(2))
    export.write_colmap(tmp_path, given)
    lines = (tmp_path / 'cameras.txt').read_text().splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [['1', 'PINHOLE', '640', '480']]
    lines = (tmp_path / 'images.txt').read_text().splitlines()
    assert lines[2:] == ['1 1 0 0 0 1 2 3 1 a.jpg', '', '2 1 0 0 0 4 5 6 1 b.jpg', '']


def test_colmap_files_of_others_are_read(tmp_path):
    (tmp_path / 'cameras.txt').write_text(
        '# comment\n3 SIMPLE_RADIAL 100 80 90 50 40 -0.1\n4 SIMPLE_PINHOLE 100 80 90 50 40\n'
    )
    (tmp_path / 'images.txt').write_text(
        '# comment\n1 1 0 0 0 0 0 1 3 a.jpg\n1.0 2.0 -1 3.0 4.0 -1\n2 1 0 0 0 0 0 2 4 b.jpg\n\n'
    )
    read = export.read_colmap(tmp_path)
    assert read.names == ['a.jpg', 'b.jpg']
    assert read.cameras[0].distortion == (-0.1, 0, 0, 0)
    assert read.cameras[1].distortion_model == 'none'
    np.testing.assert_array_equal(read.t[:, 2], [1, 2])


def test_colmap_unknown_models_are_refused(tmp_path):
    (tmp_path / 'cameras.txt').write_text('1 FOV 10 10 1 1 5 5 0.1\n')
    (tmp_path / 'images.txt').write_text('')
    with pytest.raises(ValueError, match='model FOV'):
        export.read_colmap(tmp_path)
    with pytest.raises(ValueError, match='cannot be read'):
        export.read_colmap(tmp_path / 'nowhere')


@pytest.mark.parametrize('lenses', [pinholes(3), cameras(3), [cameras(4)[3]] * 2])
def test_transforms_round_trip(tmp_path, lenses):
    given = posed(lenses)
    export.write_transforms(tmp_path / 't.json', given)
    assert_same(export.read_transforms(tmp_path / 't.json'), given)


def test_transforms_are_opengl_camera_to_world(tmp_path):
    # An unrotated OpenCV camera looks along +z; OpenGL's looks along its own -z, with y up.
    given = export.PosedCameras(
        ['a.png'], pinholes(1), np.eye(3)[None], np.array([[0.0, 0, 2]]), np.zeros(1)
    )
    export.write_transforms(tmp_path / 't.json', given)
    content = json.loads((tmp_path / 't.json').read_text())
    expected = np.diag([1.0, -1, -1, 1])
    expected[2, 3] = -2
    np.testing.assert_allclose(content['frames'][0]['transform_matrix'], expected)
    assert content['fl_x'] == content['frames'][0]['fl_x']  # one camera: at the top too


def test_poses_json_round_trip(tmp_path):
    given = posed(cameras(3))
    extras = [{'bbox_xyxy': [1.0, 2.0, 3.0, 4.0]}] * 3
    export.write_poses_json(tmp_path / 'poses.json', given, extras, note='x')
    entries = IntrinsicsFile(tmp_path / 'poses.json').match([tmp_path / n for n in given.names])
    sizes = [e.size for e in entries]
    read = export.PosedCameras(
        given.names,
        [e.camera(*size) for e, size in zip(entries, sizes, strict=True)],
        np.stack([e.R for e in entries]),
        np.stack([e.t for e in entries]),
        given.stamps,
    )
    assert_same(read, given)
    assert entries[0].box.tolist() == [1, 2, 3, 4]
    frames = json.loads((tmp_path / 'poses.json').read_text())['frames']
    assert [f['file'] for f in frames] == list(given.names)


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    prism = CameraModel(K, 100, 100, 'rational_polynomial', (0.1,) * 12)
    with pytest.raises(export.NotRepresentable, match='thin prism'):
        export.write_colmap(tmp_path, posed([prism]))
    mixed = cameras(4)
    with pytest.raises(export.NotRepresentable, match='fisheye'):
        export.write_transforms(tmp_path / 't.json', posed(mixed))


def test_cameras_must_fit_together():
    R, t = (x.numpy() for x in orbit(2))
    with pytest.raises(ValueError, match='not unique'):
        export.PosedCameras(['a', 'a'], pinholes(2), R, t, np.zeros(2))
    with pytest.raises(ValueError, match='2 names but'):
        export.PosedCameras(['a', 'b'], pinholes(2), R[:1], t, np.zeros(2))
