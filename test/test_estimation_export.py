"""Files in other programs' conventions hold the same cameras."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from estimation_fakes import cameras, orbit
from PIL import Image, ImageOps

from ray_pose_ros.estimation import colmap_files, export, posed_cameras
from ray_pose_ros.estimation.cloud import Cloud
from ray_pose_ros.estimation.intrinsics import IntrinsicsFile
from ray_pose_ros.evaluation.colmap_model import read_model
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import random_rotations


def posed(lenses, seed=0):
    n = len(lenses)
    generator = torch.Generator().manual_seed(seed)
    R = random_rotations(n, generator, torch.float64).numpy()
    t = np.random.default_rng(seed).normal(size=(n, 3))
    names = [f'dir/image_{i}.jpg' for i in range(n)]
    return posed_cameras.PosedCameras(names, lenses, R, t, 100.0 + 0.25 * np.arange(n))


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
    given = posed_cameras.PosedCameras(['a'], pinholes(1), R, -R @ [1.0, 2, 3], np.array([7.5]))
    export.write_tum(tmp_path / 'a.tum', given)
    numbers = [float(x) for x in (tmp_path / 'a.tum').read_text().splitlines()[-1].split()]
    half = np.sqrt(0.5)
    np.testing.assert_allclose(numbers, [7.5, 1, 2, 3, 0, 0, half, half], atol=1e-9)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('lenses', [pinholes(4), cameras(4)])
def test_colmap_round_trip(tmp_path, lenses, seed):
    given = posed(lenses, seed)
    colmap_files.write_colmap(tmp_path / 'c', given)
    assert_same(colmap_files.read_colmap(tmp_path / 'c'), given)
    assert (tmp_path / 'c' / 'points3D.txt').is_file()


def test_colmap_shares_equal_cameras_and_writes_w_first(tmp_path):
    lens = pinholes(1)[0]
    R = np.stack([np.eye(3)] * 2)
    t = np.array([[1.0, 2, 3], [4, 5, 6]])
    given = posed_cameras.PosedCameras(['a.jpg', 'b.jpg'], [lens] * 2, R, t, np.zeros(2))
    colmap_files.write_colmap(tmp_path, given)
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
    read = colmap_files.read_colmap(tmp_path)
    assert read.names == ['a.jpg', 'b.jpg']
    assert read.cameras[0].distortion == (-0.1, 0, 0, 0)
    assert read.cameras[1].distortion_model == 'none'
    np.testing.assert_array_equal(read.t[:, 2], [1, 2])


def test_colmap_unknown_models_are_refused(tmp_path):
    (tmp_path / 'cameras.txt').write_text('1 FOV 10 10 1 1 5 5 0.1\n')
    (tmp_path / 'images.txt').write_text('')
    with pytest.raises(ValueError, match='model FOV'):
        colmap_files.read_colmap(tmp_path)
    with pytest.raises(ValueError, match='cannot be read'):
        colmap_files.read_colmap(tmp_path / 'nowhere')


@pytest.mark.parametrize(
    ('camera', 'image', 'message'),
    [
        ('', '1 1 0 0 0 0 0 3 1 a', r'images\.txt: .* camera 1 is not in cameras\.txt'),
        ('1 PINHOLE', '', r"cameras\.txt: '1 PINHOLE' is no camera"),
        ('1 PINHOLE 9 9 x 5 5 5', '', r"cameras\.txt: '1 PINHOLE 9 .* float: 'x'"),
        (None, '1 1 0 0 0 0 0 3 1', r"images\.txt: '1 1 0 .* expected IMAGE_ID .* NAME"),
        (None, '1 1 0 0 x 0 0 3 1 a', r"images\.txt: '1 1 0 0 x .* float: 'x'"),
        (None, '1 0 0 0 0 0 0 3 1 a', r"images\.txt: '1 0 0 .* length above 0"),
        (None, '1 1 0 0 0 0 nan 3 1 a', r'images\.txt: .* translation is \[0\.0, nan, 3\.0\]'),
        (None, '1 1 0 0 0 0 0 3 1 a\n\n2 1 0 0 0 0 0 3 1 a', r'images\.txt: .* been there before'),
        ('\udcff', '', r'cameras\.txt: cannot be read'),
    ],
)
def test_lines_of_colmap_files_that_say_nothing(camera, image, message, tmp_path):
    camera = '1 PINHOLE 9 9 5 5 5 5' if camera is None else camera
    (tmp_path / 'cameras.txt').write_text(camera, encoding='utf-8', errors='surrogateescape')
    (tmp_path / 'images.txt').write_text(image)
    with pytest.raises(ValueError, match=message):
        colmap_files.read_colmap(tmp_path)


@pytest.mark.parametrize('lenses', [pinholes(3), cameras(2), [cameras(4)[3]] * 2])
def test_transforms_round_trip(tmp_path, lenses):
    given = posed(lenses)
    export.write_transforms(tmp_path / 't.json', given)
    assert_same(export.read_transforms(tmp_path / 't.json'), given)


def test_transforms_are_opengl_camera_to_world(tmp_path):
    # An unrotated OpenCV camera looks along +z; OpenGL's looks along its own -z, with y up.
    given = posed_cameras.PosedCameras(
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
    read = posed_cameras.PosedCameras(
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
    with pytest.raises(posed_cameras.NotRepresentable, match='thin prism'):
        colmap_files.write_colmap(tmp_path, posed([prism]))
    mixed = [cameras(4)[k] for k in (0, 3)]
    with pytest.raises(posed_cameras.NotRepresentable, match='fisheye'):
        export.write_transforms(tmp_path / 't.json', posed(mixed))


def test_rational_distortion_has_no_name_in_transforms(tmp_path):
    """nerfstudio's k4 is another term of a sum, OpenCV's divides."""
    K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    lens = 0.2, -0.1, 0.0, 0.0, 0.05, 0.1, 0.0, 0.0
    rational = posed([CameraModel(K, 100, 100, 'rational_polynomial', lens)])
    with pytest.raises(posed_cameras.NotRepresentable, match='rational'):
        export.write_transforms(tmp_path / 't.json', rational)
    colmap_files.write_colmap(tmp_path, rational)
    assert_same(colmap_files.read_colmap(tmp_path), rational)


def cloud(posed):
    """Two points before the cameras, the first seen by all of them, the second by the last."""
    xyz = np.array([[0.1, -0.2, 0.3], [-0.1, 0.1, 0.0]])
    view = np.array([*range(len(posed.names)), len(posed.names) - 1])
    point = np.array([*[0] * len(posed.names), 1])
    seen = np.einsum('tij,tj->ti', posed.R[view], xyz[point]) + posed.t[view]
    pixel = [posed.cameras[v].project(torch.from_numpy(x)).numpy() for v, x in zip(view, seen)]
    rgb = np.array([[1, 2, 3], [250, 0, 9]], np.uint8)
    return Cloud(xyz, np.full(2, 0.01), rgb, np.array([0.5, 0.25]), point, view, np.array(pixel))


def facing(lenses):
    R, t = (x.numpy() for x in orbit(len(lenses)))
    names = [f'Photo ({i}).jpg' for i in range(len(lenses))]
    return posed_cameras.PosedCameras(names, lenses, R, t, np.arange(float(len(lenses))))


def test_names_with_blanks_are_written_binary(tmp_path):
    given = facing([*pinholes(2), cameras(3)[2]])
    (tmp_path / 'images.txt').write_text('of an earlier run')
    colmap_files.write_colmap(tmp_path, given, cloud(given))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'cameras.bin',
        'images.bin',
        'points3D.bin',
    ]
    assert_same(read_model(tmp_path), given)
    plain = dataclasses.replace(given, names=['a', 'b', 'c'])
    colmap_files.write_colmap(tmp_path, plain, cloud(given))
    assert all(p.suffix == '.txt' for p in tmp_path.iterdir())


def test_colmap_itself_reads_names_with_blanks(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    given = facing([*pinholes(2), pinholes(1)[0]])
    colmap_files.write_colmap(tmp_path, given, cloud(given))
    read = pycolmap.Reconstruction(tmp_path)
    assert [read.images[i + 1].name for i in range(3)] == given.names
    assert len(read.cameras) == 2  # equal ones once
    assert len(read.points3D) == 2 and len(read.points3D[1].track.elements) == 3
    np.testing.assert_array_equal(read.points3D[2].color, [250, 0, 9])
    np.testing.assert_allclose(read.points3D[1].xyz, [0.1, -0.2, 0.3])
    for i, R in enumerate(given.R):
        pose = read.images[i + 1].cam_from_world()
        np.testing.assert_allclose(pose.rotation.matrix(), R, atol=1e-12)


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_turned_photographs_get_the_cameras_of_their_stored_pixels(orientation):
    """A pixel is followed through the turn that image viewers make."""
    given = facing([CameraModel.from_fov(64, 48, 1.0), cameras(3)[2]])
    seen = cloud(given)
    stored, moved = posed_cameras.as_stored(given, [orientation, 1], seen)
    assert stored.cameras[1] == given.cameras[1] and (stored.R[1] == given.R[1]).all()
    lens = stored.cameras[0]
    point = torch.from_numpy(stored.R[0] @ seen.xyz[0] + stored.t[0])
    np.testing.assert_allclose(lens.project(point).numpy(), moved.pixel[0], atol=1e-9)
    image = Image.new('L', (lens.width, lens.height))
    image.putpixel(tuple(int(x) for x in moved.pixel[0]), 255)
    image.getexif()[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    assert turned.shape == (48, 64)
    x, y = seen.pixel[0].astype(int)
    assert turned[y, x] == 255
    np.testing.assert_allclose(np.linalg.det(stored.R), 1)


def test_what_cannot_be_turned_back_is_refused():
    K = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    lens = CameraModel(K, 100, 100, 'plumb_bob', (0.1, 0, 1e-3, 0, 0))
    with pytest.raises(posed_cameras.NotRepresentable, match='not round'):
        posed_cameras.as_stored(facing([lens]), [6])
    skewed = CameraModel(K + torch.tensor([[0, 1.0, 0], [0, 0, 0], [0, 0, 0]]), 100, 100)
    for orientation in (3, 6, 8):
        with pytest.raises(posed_cameras.NotRepresentable, match='not round'):
            posed_cameras.as_stored(facing([skewed]), [orientation])
    assert posed_cameras.as_stored(facing([skewed]), [1])[0].cameras == [skewed]
    with pytest.raises(posed_cameras.NotRepresentable, match='mirrored'):
        posed_cameras.as_stored(facing(pinholes(1)), [5])


def test_cameras_must_fit_together():
    R, t = (x.numpy() for x in orbit(2))
    with pytest.raises(ValueError, match='not unique'):
        posed_cameras.PosedCameras(['a', 'a'], pinholes(2), R, t, np.zeros(2))
    with pytest.raises(ValueError, match='2 names but'):
        posed_cameras.PosedCameras(['a', 'b'], pinholes(2), R[:1], t, np.zeros(2))
