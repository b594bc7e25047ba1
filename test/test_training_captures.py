"""Photographs with solved cameras as training scenes: pixels, cameras and depths agree."""

import importlib.util
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from capture_fixtures import blank, photograph

from ray_pose_ros.cli import main
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.gauge import axes_intersection
from ray_pose_ros.synthetic.renderer import look_at
from ray_pose_ros.training import captures
from ray_pose_ros.training.batches import NONE, UNKNOWN, SetSampler
from ray_pose_ros.training.captures import Capture, Photo, draw_scene, interpolated_depth, upwards
from ray_pose_ros.training.dataset import DEPTH_STEP, SIZE, SceneSet
from ray_pose_ros.training.losses import seen_loss
from ray_pose_ros.training.stores import ViewStore

SCENES = 10
HAS_PYCOLMAP = importlib.util.find_spec('pycolmap') is not None
CAMERA = CameraModel(
    torch.tensor([[210.0, 0, 161], [0, 209, 118], [0, 0, 1]]),
    320,
    240,
    'plumb_bob',
    (-0.12, 0.03, 0.001, 0.0, 0.0),
)


def eyes(count=10):
    """Cameras held level above the plane z = 0, which look at about its origin."""
    rng = np.random.default_rng(3)
    for k in range(count):
        azimuth, height = 2 * np.pi * k / count, rng.uniform(0.8, 1.6)
        eye = np.array([1.6 * np.cos(azimuth), 1.6 * np.sin(azimuth), height])
        R = look_at(eye, rng.normal(0, 0.05, 3))
        yield R, -R @ eye


def picture(R, t):
    """(240, 320, 3): the plane z = 0, whose red and green say where on it (x, y) lies."""
    u, v = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    rays = CAMERA.unproject(torch.from_numpy(np.stack([u, v], axis=-1))).numpy() @ R
    eye = -R.T @ t
    down = rays[..., 2] < -1e-3
    where = eye + rays * (eye[2] / np.where(down, -rays[..., 2], 1.0))[..., None]
    colour = np.zeros((240, 320, 3))
    colour[..., :2] = 128 + 40 * where[..., :2]
    colour[~down] = 0
    return np.clip(np.round(colour), 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('capture')
    world = np.zeros((1500, 3))
    world[:, :2] = np.random.default_rng(0).uniform(-1, 1, (1500, 2))
    photos = []
    for k, (R, t) in enumerate(eyes()):
        path = folder / f'{k:02d}.png'
        cv2.imwrite(str(path), picture(R, t)[:, :, ::-1])
        points = world @ R.T + t
        shown = CAMERA.project(torch.from_numpy(points)).numpy()
        inside = ((shown > 0) & (shown < [320, 240])).all(-1)
        photos.append(Photo(path, CAMERA, R, t, points[inside]))
    R, t = np.stack([p.R for p in photos]), np.stack([p.t for p in photos])
    middle = axes_intersection(torch.from_numpy(R), torch.from_numpy(t)).numpy()
    return Capture('plane', photos, world, upwards(R), middle)


@pytest.fixture(scope='module')
def scenes(capture):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captures, 'augment', lambda rng, image, strength: image)
        return [draw_scene(capture, seed, 4, mirrored=seed % 2 == 1) for seed in range(SCENES)]


def test_up_and_where_cameras_look(capture):
    np.testing.assert_allclose(capture.up, [0, 0, 1], atol=1e-6)
    assert np.linalg.norm(capture.middle) < 0.1


def test_up_of_cameras_that_all_look_one_way():
    R = np.stack([look_at([x, -2.0, 1.0], [x, 0.0, 0.0]) for x in (-0.1, 0.0, 0.1)])
    assert upwards(R) @ [0, 0, 1] > np.cos(np.radians(30))  # tilted by as much as the cameras


def test_pixels_lie_where_the_crop_says(scenes):
    """Through lens, roll and crop: a sample's colour names the point that K, R, t, depth give."""
    at = np.arange(0, SIZE, DEPTH_STEP) + 0.5
    u, v = np.meshgrid(at, at)
    pixels = np.stack([u, v, np.ones_like(u)], axis=-1)
    checked = 0
    for number, scene in enumerate(scenes):
        for k in range(4):
            depth = scene['depth'][k].astype(float)
            known = np.isfinite(depth)
            slopes = pixels @ np.linalg.inv(scene['matrix'][k].astype(float)).T
            R, t = scene['rotation'][k], scene['translation'][k]
            assert np.linalg.det(R) > 0
            world = (slopes[known] * depth[known][:, None] - t) @ R
            if number % 2:  # seen in a mirror, the plane x = 0
                world[:, 0] *= -1
            assert np.abs(world[:, 2]).max() < 0.01
            shown = scene['images'][k][::DEPTH_STEP, ::DEPTH_STEP][known][:, :2].astype(float)
            near = (np.abs(world[:, :2]) < 1).all(-1)
            error = np.abs((shown - 128) / 40 - world[:, :2])[near]
            assert np.median(error) < 0.03 and np.quantile(error, 0.95) < 0.08
            checked += near.sum()
    assert checked > 2000


def test_pixels_are_those_that_the_camera_is_for(capture, tmp_path):
    """COLMAP works on stored pixels, whatever EXIF says of the way up."""
    from PIL import Image

    first = capture.photos[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.open(first.path)
    pixels.save(tmp_path / 'turned.png', exif=exif)
    pixels.resize((160, 120)).save(tmp_path / 'small.png')
    turned, small = (replace(first, path=tmp_path / f'{n}.png') for n in ('turned', 'small'))
    photos = [turned, *capture.photos[1:]]
    expected = draw_scene(capture, 5, views=4)['images']
    assert np.array_equal(draw_scene(replace(capture, photos=photos), 5, 4)['images'], expected)
    with pytest.raises(ValueError, match='160x120, but what was given for it is for 320x240'):
        draw_scene(replace(capture, photos=[small] * 4), 5, 4)


def test_a_scene_depends_on_its_seed_only(capture):
    one, other, third = (draw_scene(capture, seed, views=4) for seed in (5, 5, 6))
    assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
    assert not np.array_equal(one['images'], third['images'])


def test_a_mirror_changes_left_and_right_and_nothing_else(capture, monkeypatch):
    monkeypatch.setattr(captures, 'augment', lambda rng, image, strength: image)
    one, other = (draw_scene(capture, 3, 4, mirrored) for mirrored in (False, True))
    assert np.array_equal(one['images'][:, :, ::-1], other['images'])
    for name in ('centre', 'up'):
        np.testing.assert_allclose(other[name], one[name] * [-1, 1, 1], atol=1e-6)
    x = one['rotation'] @ one['centre'] + one['translation']
    y = other['rotation'] @ other['centre'] + other['translation']
    np.testing.assert_allclose(y, x * [-1, 1, 1], atol=1e-5)


def test_the_share_of_mirrored_scenes_is_checked(tmp_path):
    with pytest.raises(ValueError, match='mirrored is 2, expected 0 to 1'):
        captures.pack_captures(tmp_path, [], 1, mirrored=2)


def test_views_are_turned_at_times(scenes):
    up = np.stack([scene['rotation'][0] @ scene['up'] for scene in scenes])
    assert (up[:, 1] < -0.5).any() and (up[:, 1] > -0.5).any()


def test_nothing_to_draw_is_said(capture):
    blind = [Photo(p.path, p.camera, p.R, p.t, p.points[:0]) for p in capture.photos]
    with pytest.raises(ValueError, match='plane: nothing is seen well'):
        draw_scene(Capture('plane', blind, capture.points, capture.up, capture.middle), 0, 4)


def test_depth_is_left_open_between_far_points_and_at_steps():
    K = np.array([[200.0, 0, 112], [0, 200, 112], [0, 0, 1]])
    few = np.array([[-0.5, -0.5, 1], [0.5, -0.5, 1], [0.5, 0.5, 1], [-0.5, 0.5, 1.0]])
    assert np.isnan(interpolated_depth(few, K)).all()
    assert np.isnan(interpolated_depth(few[:2], K)).all()
    line = np.stack([np.linspace(-0.5, 0.5, 9), np.zeros(9), np.ones(9)], axis=1)
    assert np.isnan(interpolated_depth(line, K)).all()
    u, v = np.meshgrid(np.linspace(-0.55, 0.55, 40), np.linspace(-0.55, 0.55, 40))
    z = np.where(u < 0, 1.0, 2.0)  # a step in the middle
    depth = interpolated_depth(np.stack([u * z, v * z, z], axis=-1).reshape(-1, 3), K)
    np.testing.assert_allclose(depth[2:-2, 2:13], 1, atol=1e-6)
    np.testing.assert_allclose(depth[2:-2, 15:-2], 2, atol=1e-6)


def test_unknown_cells_are_no_evidence(scenes):
    """A cell of unknown depth is neither seen nor unseen; the loss leaves it out."""
    names = 'depth', 'matrix', 'rotation', 'translation', 'centre', 'up'
    columns = {name: torch.from_numpy(np.stack([s[name] for s in scenes])) for name in names}
    columns['count'] = torch.full((SCENES,), 4)
    store = ViewStore([np.zeros((SCENES, 4, 4, 7, 7), np.float16)])
    batch = SetSampler(SceneSet(columns, store), 7).batch(
        torch.stack(torch.meshgrid(torch.arange(SCENES), torch.arange(4), indexing='ij'), dim=-1)
    )
    unknown = batch.match == UNKNOWN
    assert unknown.any() and (batch.match == NONE).any() and (batch.match >= 0).any()
    assert not batch.depth.isnan().any() and batch.depth.isinf().any()
    logits = torch.zeros(batch.match.shape)
    loss = seen_loss(logits, batch)
    assert float(loss) == pytest.approx(np.log(2), abs=1e-5)
    logits[unknown] = 50.0
    assert float(seen_loss(logits, batch)) == pytest.approx(float(loss), abs=1e-5)


def test_without_colmap_it_is_said_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'pycolmap', None)
    assert main(['train', 'captures', str(tmp_path / 'data'), str(tmp_path)]) == 2
    assert 'pip install pycolmap' in capsys.readouterr().err


def test_folders_that_are_no_captures(tmp_path, capsys):
    pytest.importorskip('pycolmap')
    with pytest.raises(ValueError, match='no COLMAP model'):
        Capture.read(tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.jpg').write_bytes(b'')
    assert main(['train', 'captures', str(tmp_path / 'data'), str(tmp_path)]) == 2
    assert 'a.jpg: not a readable image' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PYCOLMAP, reason='pycolmap is not installed')
def test_photographs_to_shards(tmp_path):
    """A textured scene is photographed, solved by COLMAP and packed, by the command alone."""
    photograph(tmp_path / 'thing', 500.0, 0.12 * np.arange(12), 3.5, 0.5)
    folder = str(tmp_path / 'thing')
    assert main(['train', 'captures', str(tmp_path / 'data'), folder, '--scenes', '3']) == 0
    (shard,) = (tmp_path / 'data').glob('scenes_train_*.npz')
    packed = np.load(shard)
    assert packed['images'].shape == (3, 12, SIZE, SIZE, 3)
    assert np.isfinite(packed['depth']).mean() > 0.05
    again = shard.stat().st_mtime_ns
    assert main(['train', 'captures', str(tmp_path / 'data'), folder, '--scenes', '3']) == 0
    assert shard.stat().st_mtime_ns == again  # what is there stays


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PYCOLMAP, reason='pycolmap is not installed')
def test_a_capture_that_cannot_be_solved_is_left_out(tmp_path, capsys):
    blank(tmp_path / 'thing')
    assert main(['train', 'captures', str(tmp_path / 'data'), str(tmp_path / 'thing')]) == 1
    said = capsys.readouterr().out
    assert 'thing: left out, COLMAP cannot solve it' in said and 'nothing written' in said
    assert not (tmp_path / 'thing' / 'sparse').exists()
