"""`ray-pose estimate` from files to files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from estimation_fixtures import SIZES, checkpoint, estimate, photos
from PIL import Image, ImageOps

from ray_pose_ros import cli
from ray_pose_ros.estimation import colmap_files, export, outputs
from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.inputs import load_views
from ray_pose_ros.evaluation.sequences import read_folder

__all__ = ['checkpoint', 'photos']  # fixtures


def test_all_files_are_written(photos, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    out = tmp_path / 'out'
    code = estimate(
        'images', '--intrinsics', 'poses.json', '--checkpoint', checkpoint, '--out', out,
        '--samples', 2, '--steps', 2, '--save-rays',
    )  # fmt: skip
    assert code == 0
    text = capsys.readouterr().out
    assert 'against the truth: rotation error median' in text and '2.jpg' in text

    content = json.loads((out / 'poses.json').read_text())
    assert [f['file'] for f in content['frames']] == [f'images/{i}.jpg' for i in range(3)]
    assert [(f['width'], f['height']) for f in content['frames']] == SIZES
    assert content['frames'][1]['bbox_xyxy'] == [5, 10, 55, 70]
    assert all(f['rotation_sigma_deg'] > 0 for f in content['frames'])
    assert 0 <= content['errors']['rotation_median_deg'] <= 180
    R = np.array([f['R'] for f in content['frames']])
    t = np.array([f['t'] for f in content['frames']])
    np.testing.assert_allclose(R[0], np.eye(3), atol=1e-6)
    assert np.linalg.norm(t[0]) == pytest.approx(1)

    colmap = colmap_files.read_colmap(out / 'colmap')
    np.testing.assert_allclose(colmap.t, t, atol=1e-9)
    assert colmap.names == ['0.jpg', '1.jpg', '2.jpg']
    transforms = export.read_transforms(out / 'transforms.json')
    np.testing.assert_allclose(transforms.R, R, atol=1e-9)
    assert (out / transforms.names[0]).resolve() == (photos / 'images' / '0.jpg').resolve()
    np.testing.assert_allclose(export.read_tum(out / 'poses.tum')[2], t, atol=1e-9)
    rays = np.load(out / 'rays.npz')
    assert rays['rays'].shape == (3, 6, 4, 4)
    assert Image.open(out / 'poses.png').size[0] > 1000


def test_a_result_replaces_an_older_one_and_nothing_else(photos, checkpoint, tmp_path, capsys):
    out = tmp_path / 'out'
    given = [photos / 'images', '--checkpoint', checkpoint, '--no-refine', '--out', out]
    assert estimate(*given, '--save-rays') == 0
    assert {p.name for p in out.iterdir()} >= {'rays.npz', 'transforms.json', 'colmap'}
    written = {p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file()}
    assert written <= set(outputs.FILES)
    (out / 'points.ply').write_text('of an older result')
    (out / 'notes.txt').write_text('of the user')
    turn(photos / 'images' / '0.jpg', 2)  # mirrored, which neither COLMAP nor nerfstudio holds
    capsys.readouterr()
    assert estimate(*given) == 0
    said = capsys.readouterr().err
    assert 'note: transforms.json and colmap/ are left out: ' in said
    assert '0.jpg is stored mirrored' in said
    left = {p.name for p in out.iterdir()}
    assert left == {'poses.json', 'poses.tum', 'poses.png', 'notes.txt'}


def test_files_beside_a_poses_json_of_somebody_else_stay(tmp_path):
    for content in ('{"frames": []}', '[]', '1', 'rubbish'):
        (tmp_path / 'poses.json').write_text(content)
        (tmp_path / 'points.ply').write_text('of the user')
        outputs.remove_result(tmp_path)
        assert (tmp_path / 'points.ply').is_file()


def test_same_as_the_estimator_and_repeatable(photos, checkpoint, tmp_path):
    for name in ('a', 'b'):
        estimate(
            photos / 'images', '--intrinsics', photos / 'poses.json',
            '--checkpoint', checkpoint, '--out', tmp_path / name, '--no-refine',
        )  # fmt: skip
    first, again = ((tmp_path / n / 'poses.json').read_text() for n in 'ab')
    assert first == again
    paths = sorted((photos / 'images').iterdir())
    views = load_views(paths, intrinsics=photos / 'poses.json').views
    expected = Estimator(checkpoint).estimate(views)
    np.testing.assert_array_equal([f['R'] for f in json.loads(first)['frames']], expected.R)
    np.testing.assert_array_equal([f['t'] for f in json.loads(first)['frames']], expected.t)


def test_its_own_poses_json_serves_as_intrinsics(photos, checkpoint, tmp_path):
    common = [photos / 'images', '--checkpoint', checkpoint]
    assert estimate(*common, '--out', tmp_path / 'a') == 0
    again = ['--intrinsics', tmp_path / 'a' / 'poses.json', '--out', tmp_path / 'b']
    assert estimate(*common, *again) == 0
    errors = json.loads((tmp_path / 'b' / 'poses.json').read_text())['errors']
    assert errors['rotation_max_deg'] < 1e-3 and errors['centre_median'] < 1e-6


def test_its_result_can_be_evaluated_from_anywhere(photos, checkpoint, tmp_path, monkeypatch):
    turn(photos / 'images' / '0.jpg', 3)
    monkeypatch.chdir(photos)
    given = ['images', '--checkpoint', checkpoint, '--no-refine', '--out']
    assert estimate(*given, '../a/b') == 0 and estimate(*given, '.') == 0
    assert 'files_from' not in json.loads((photos / 'poses.json').read_text())
    monkeypatch.chdir(tmp_path)
    views = read_folder(tmp_path / 'a' / 'b').views
    expected = load_views(sorted((photos / 'images').iterdir())).views
    for view, photograph in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view.image, photograph.image)


def test_files_keep_their_order_and_the_first_is_the_reference(photos, checkpoint, tmp_path):
    names = [photos / 'images' / f'{i}.jpg' for i in (2, 0)]
    assert estimate(*names, '--checkpoint', checkpoint, '--out', tmp_path / 'a') == 0
    frames = json.loads((tmp_path / 'a' / 'poses.json').read_text())['frames']
    assert [f['file'] for f in frames] == list(map(str, names))
    assert frames[0]['intrinsics_source'] == 'assumed'
    np.testing.assert_allclose(frames[0]['R'], np.eye(3), atol=1e-6)


def test_boxes_win_over_masks_and_masks_over_nothing(photos):
    paths = sorted((photos / 'images').iterdir())
    masked = load_views(paths, masks=photos / 'masks').views
    assert [v.object_box for v in masked] == [(15, 10, 50, 40)] * 3
    both = load_views(paths, boxes=photos / 'boxes.json', masks=photos / 'masks').views
    assert [v.object_box for v in both] == [(5, 5, 50 + i, 50) for i in range(3)]
    from_poses = load_views(paths, intrinsics=photos / 'poses.json').views
    assert [v.object_box for v in from_poses] == [None, (5, 10, 55, 70), None]


def turn(path, orientation=6):
    """Mark a photograph as taken with a turned camera; its pixels stay."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif)


def test_turned_photographs(photos, checkpoint, tmp_path, capsys):
    turn(photos / 'images' / '0.jpg')
    images, out = photos / 'images', tmp_path / 'a'
    assert estimate(images, '--checkpoint', checkpoint, '--out', out) == 0
    assert '0.jpg: turned upright' in capsys.readouterr().err
    frames = json.loads((out / 'poses.json').read_text())['frames']
    assert (frames[0]['width'], frames[0]['height']) == (60, 80)
    # Intrinsics for the stored pixels: they stay.
    poses = photos / 'poses.json'
    assert estimate(images, '--checkpoint', checkpoint, '--intrinsics', poses, '--out', out) == 0
    assert '0.jpg: EXIF orientation 6 not applied' in capsys.readouterr().err
    frames = json.loads((out / 'poses.json').read_text())['frames']
    assert (frames[0]['width'], frames[0]['height']) == (80, 60)
    # A mask of the turned size turns its photograph.
    Image.new('L', (60, 80), 255).save(photos / 'masks' / '0.png')
    views = load_views(sorted(images.iterdir()), masks=photos / 'masks').views
    assert views[0].image.shape == (80, 60, 3)


def test_sizes_tell_of_the_whole_set_whether_it_is_meant_upright(photos):
    paths = sorted((photos / 'images').iterdir())
    turn(paths[0])
    turn(paths[1], 3)
    turn(paths[2], 8)  # a square
    poses = json.loads((photos / 'poses.json').read_text())
    known = {'intrinsics': photos / 'poses.json'}
    assert [v.exif_orientation for v in load_views(paths, **known).views] == [1, 1, 1]
    poses['frames'][0] |= {'width': 60, 'height': 80}
    (photos / 'poses.json').write_text(json.dumps(poses))
    found = load_views(paths, **known)
    assert [v.exif_orientation for v in found.views] == [6, 3, 8] and len(found.notes) == 3
    for view, path in zip(found.views, paths, strict=True):
        np.testing.assert_array_equal(view.image, ImageOps.exif_transpose(Image.open(path)))
    # one that is meant as it is stored, and sizes say nothing of the others
    turn(paths[1], 6)
    assert [v.exif_orientation for v in load_views(paths, **known).views] == [6, 1, 1]


def test_results_of_turned_photographs_fit_the_files(photos, checkpoint, tmp_path, capsys):
    """Other software reads stored pixels; our own file says how they were turned."""
    images, out = photos / 'images', tmp_path / 'a'
    turn(images / '0.jpg', 3)
    turn(images / '1.jpg', 8)
    assert estimate(images, '--checkpoint', checkpoint, '--out', out) == 0
    frames = json.loads((out / 'poses.json').read_text())['frames']
    assert [frame['exif_orientation'] for frame in frames[:3]] == [3, 8, 1]
    upright = load_views(sorted(images.iterdir())).views
    again = load_views(sorted(images.iterdir()), intrinsics=out / 'poses.json').views
    for a, b in zip(upright, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
    colmap = colmap_files.read_colmap(out / 'colmap')
    nerf = export.read_transforms(out / 'transforms.json')
    for cameras in (colmap, nerf):
        assert [(c.width, c.height) for c in cameras.cameras] == [
            Image.open(path).size for path in sorted(images.iterdir())
        ]
        # the first is upside down, the second on its side
        np.testing.assert_allclose(cameras.R[0], np.diag([-1, -1, 1]), atol=1e-9)
        R = np.array(frames[1]['R'])
        np.testing.assert_allclose(cameras.R[1], [-R[1], R[0], R[2]], atol=1e-9)


def test_true_cameras_at_one_place_do_not_lose_the_result(photos, checkpoint, tmp_path, capsys):
    poses = json.loads((photos / 'poses.json').read_text())
    for frame in poses['frames']:
        frame |= {'R': np.eye(3).tolist(), 't': [0, 0, 0]}
    (photos / 'poses.json').write_text(json.dumps(poses))
    given = [photos / 'images', '--checkpoint', checkpoint, '--intrinsics', photos / 'poses.json']
    assert estimate(*given, '--out', tmp_path / 'a') == 0
    assert 'the true cameras are all at one place' in capsys.readouterr().out
    errors = json.loads((tmp_path / 'a' / 'poses.json').read_text())['errors']
    assert 'rotation_median_deg' in errors and 'centre_median' not in errors


def test_a_table_that_cannot_be_printed_costs_no_result(photos, checkpoint, tmp_path):
    given = [photos / 'images', '--checkpoint', checkpoint, '--no-refine', '--out', tmp_path / 'a']
    ended = subprocess.run(
        [sys.executable, '-m', 'ray_pose_ros.cli', 'estimate', *map(str, given)],
        env=os.environ | {'PYTHONIOENCODING': 'ascii'},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "can't encode" in ended.stderr
    assert (tmp_path / 'a' / 'poses.json').is_file()


@pytest.mark.filterwarnings('error:Glyph')
def test_odd_names_of_photographs(photos, checkpoint, tmp_path, capsys):
    for i, name in enumerate(('a\nb.jpg', '日本.jpg', 'a$\\frac$b.jpg')):
        (photos / 'images' / f'{i}.jpg').rename(photos / 'images' / name)
    given = [photos / 'images', '--checkpoint', checkpoint, '--no-refine', '--out', tmp_path / 'a']
    assert estimate(*given) == 0
    rows = capsys.readouterr().out.splitlines()[1:4]
    assert sorted(row.split()[1] for row in rows) == ['a$\\frac$b.jpg', 'a\\nb.jpg', '日本.jpg']


def test_files_that_are_left_out_are_told_of(photos, checkpoint, tmp_path, capsys):
    (photos / 'images' / 'IMG_3.HEIC').write_bytes(b'')
    given = [photos / 'images', '--checkpoint', checkpoint, '--no-refine', '--out', tmp_path / 'a']
    assert estimate(*given) == 0
    said = 'images: left out are photographs or videos that cannot be read: 1 (.heic)'
    assert said in capsys.readouterr().err


def test_cameras_that_come_out_at_one_place_are_told_of(
    photos, checkpoint, tmp_path, capsys, monkeypatch
):
    given = [photos / 'images', '--checkpoint', checkpoint, '--no-refine', '--out', tmp_path / 'a']
    for same in (False, True):
        monkeypatch.setattr(Estimate, 'at_one_place', same)
        assert estimate(*given) == 0
        assert ('masks of the object are needed (--masks)' in capsys.readouterr().err) is same


def test_grey_and_transparent_images(photos, checkpoint, tmp_path):
    for i, mode in enumerate(('L', 'RGBA', 'P')):
        image = Image.open(photos / 'images' / f'{i}.jpg').convert(mode)
        image.save(photos / 'images' / f'{i}.png')
        (photos / 'images' / f'{i}.jpg').unlink()
    code = estimate(photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path / 'a')
    assert code == 0


def test_help_imports_nothing_heavy():
    program = (
        'import sys\n'
        'from ray_pose_ros.cli import main\n'
        'try:\n'
        '    main(["--help"])\n'
        'except SystemExit as end:\n'
        '    assert end.code == 0\n'
        'heavy = {"torch", "numpy", "matplotlib", "cv2", "numba", "rclpy"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'estimate' in done.stdout


@pytest.mark.parametrize('arguments', [[], ['nonsense'], ['estimate', 'x.jpg']])
def test_usage_errors_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert 'usage' in capsys.readouterr().err
