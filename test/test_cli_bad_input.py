"""What `ray-pose estimate` says to bad input: one line, exit code 2, no traceback."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from estimation_fixtures import checkpoint, estimate, photos
from PIL import Image

from ray_pose_ros import cli
from ray_pose_ros.model.ray_diffuser import RayDiffuser

__all__ = ['checkpoint', 'photos']  # fixtures


def refused(capsys, *arguments):
    """The message that bad input gets: one line, exit code 2, nothing else."""
    assert estimate(*arguments) == cli.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ''
    lines = captured.err.strip().splitlines()
    assert lines[-1].startswith('ray-pose: error: ')
    assert 'Traceback' not in captured.err
    return lines[-1]


def test_one_image(photos, checkpoint, tmp_path, capsys):
    for i in (1, 2):
        (photos / 'images' / f'{i}.jpg').unlink()
    message = refused(capsys, photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path)
    assert '1 image' in message and 'at least 2' in message


def test_no_image(tmp_path, capsys):
    assert 'no images' in refused(capsys, tmp_path, '--out', tmp_path / 'a')
    assert 'no such file' in refused(capsys, tmp_path / 'x.jpg', '--out', tmp_path / 'a')


def test_corrupt_jpeg(photos, checkpoint, tmp_path, capsys):
    path = photos / 'images' / '1.jpg'
    path.write_bytes(path.read_bytes()[:300])
    out = tmp_path / 'out'
    message = refused(capsys, photos / 'images', '--checkpoint', checkpoint, '--out', out)
    assert '1.jpg: not a readable image' in message
    assert not out.exists()  # nothing half done is left


def test_intrinsics_that_do_not_fit(photos, checkpoint, tmp_path, capsys):
    poses = json.loads((photos / 'poses.json').read_text())
    poses['frames'][2]['width'] = 999
    path = tmp_path / 'wrong.json'
    common = [photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    path.write_text(json.dumps(poses))
    assert 'is for 999x64' in refused(capsys, *common, '--intrinsics', path)
    poses['frames'].pop()
    path.write_text(json.dumps(poses))
    assert 'no intrinsics for 2.jpg' in refused(capsys, *common, '--intrinsics', path)
    poses['frames'][0]['K'] = np.zeros((3, 3)).tolist()
    path.write_text(json.dumps(poses))
    message = refused(capsys, *common, '--intrinsics', path)
    assert 'focal lengths are 0, 0' in message and 'images/0.jpg' in message


def test_boxes_and_masks_that_do_not_fit(photos, checkpoint, tmp_path, capsys):
    common = [photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    boxes = tmp_path / 'boxes.json'
    for content, expected in (
        ([[0, 0, 9, 9]], '1 boxes for 3 images'),
        ([[0, 0, 9, 9], [5, 5, 5, 9], [0, 0, 9, 9]], 'has no area'),
        ([[0, 0, 9, 9], [-9e6, 0, 9e6, 9], [0, 0, 9, 9]], '1.jpg: Crop'),
        ([[0, 0, 9, 9], [500, 5, 600, 9], [0, 0, 9, 9]], 'lies outside the image of 60x80'),
    ):
        boxes.write_text(json.dumps(content))
        assert expected in refused(capsys, *common, '--boxes', boxes)
    assert 'no such folder' in refused(capsys, *common, '--masks', tmp_path / 'none')
    masks = shutil.copytree(photos / 'masks', tmp_path / 'masks')
    (masks / '1.png').unlink()
    assert 'no mask for 1' in refused(capsys, *common, '--masks', masks)
    Image.new('L', (10, 10), 255).save(masks / '1.png')
    message = refused(capsys, *common, '--masks', masks)
    assert '1.jpg' in message and '60x80' in message and '10x10' in message
    Image.new('L', (60, 80)).save(masks / '1.png')
    assert 'the mask is empty' in refused(capsys, *common, '--masks', masks)


def test_bad_checkpoints(photos, checkpoint, tmp_path, capsys):
    common = [photos / 'images', '--out', tmp_path / 'out', '--checkpoint']
    assert 'nowhere' in refused(capsys, *common, tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    assert 'empty' in refused(capsys, *common, tmp_path / 'empty')
    (tmp_path / 'file').write_text('')
    assert 'file is a file, expected a dir' in refused(capsys, *common, tmp_path / 'file')

    truncated = shutil.copytree(checkpoint, tmp_path / 'truncated')
    weights = truncated / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    assert 'model.safetensors' in refused(capsys, *common, truncated)

    from safetensors.torch import load_file, save_file

    odd = shutil.copytree(checkpoint, tmp_path / 'odd')
    tensors = load_file(odd / 'model.safetensors') | {'a.stranger': torch.zeros(2)}
    save_file(tensors, odd / 'model.safetensors')
    settings = json.loads((odd / 'config.json').read_text())
    settings.pop('sha256')
    (odd / 'config.json').write_text(json.dumps(settings))
    assert 'a.stranger' in refused(capsys, *common, odd)


def test_bad_settings(photos, checkpoint, tmp_path, capsys):
    common = [photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    assert 'samples is -1' in refused(capsys, *common, '--samples', -1)
    assert "device is 'toaster'" in refused(capsys, *common, '--device', 'toaster')
    (tmp_path / 'file').write_text('')
    message = refused(capsys, photos / 'images', '--out', tmp_path / 'file')
    assert 'is a file, expected a folder' in message


@pytest.fixture
def no_estimate(monkeypatch):
    """Whoever gets as far as the model fails."""

    def reached(*arguments, **options):
        raise AssertionError('estimated')

    monkeypatch.setattr('ray_pose_ros.estimation.estimator.Estimator', reached)


def test_results_do_not_overwrite_what_they_are_made_from(photos, tmp_path, capsys, no_estimate):
    images = photos / 'images'
    for option in ('--intrinsics', '--boxes'):
        message = refused(capsys, images, option, photos / 'poses.json', '--out', photos)
        assert 'poses.json would be overwritten by the result' in message
    (images / '1.jpg').rename(images / 'poses.png')
    assert 'poses.png would be' in refused(capsys, images, '--out', images)
    (tmp_path / 'link').symlink_to(images)
    assert 'poses.png would be' in refused(capsys, images, '--out', tmp_path / 'link')
    (photos / 'masks' / '1.png').rename(photos / 'masks' / 'poses.png')
    masks = photos / 'masks'
    message = refused(capsys, images, '--masks', masks, '--out', masks)
    assert 'masks/poses.png would be' in message


def test_what_cannot_be_written_is_said_before_anything_is_estimated(
    photos, tmp_path, capsys, monkeypatch, no_estimate
):
    out, common = tmp_path / 'out', [photos / 'images', '--out']
    (tmp_path / 'file').write_text('')
    assert 'file is a file, expected' in refused(capsys, *common, tmp_path / 'file' / 'a' / 'b')
    (out / 'poses.tum').mkdir(parents=True)
    assert 'poses.tum is a folder' in refused(capsys, *common, out)
    (out / 'poses.tum').rmdir()
    (out / 'colmap').write_text('')
    assert 'colmap is a file' in refused(capsys, *common, out)
    (out / 'colmap').unlink()
    assert 'cannot be written' in refused(capsys, *common, '/proc/none')  # even for root
    (out / 'poses.tum').write_text('')
    monkeypatch.setattr('os.access', lambda path, mode: path != out / 'poses.tum')
    assert 'poses.tum cannot be written (no permission)' in refused(capsys, *common, out)


def test_names_that_are_not_utf8(photos, tmp_path, capsys, no_estimate):
    path = photos / 'images' / os.fsdecode(b'\xff.jpg')
    (photos / 'images' / '1.jpg').rename(path)
    message = refused(capsys, photos / 'images', '--out', tmp_path / 'out')
    assert "\\udcff.jpg': the name is not UTF-8" in message


def test_a_network_that_fails_is_reported(photos, checkpoint, tmp_path, capsys, monkeypatch):
    def nan(self, x, t, context, found=None):
        return torch.full_like(x, float('nan'))

    monkeypatch.setattr(RayDiffuser, 'denoise', nan)
    common = [photos / 'images', '--checkpoint', checkpoint, '--out', tmp_path / 'out']
    assert 'NaN' in refused(capsys, *common)


def test_mistakes_in_the_program_keep_their_traceback(photos, tmp_path, monkeypatch):
    def broken(*arguments):
        raise KeyError('bug')

    monkeypatch.setattr('ray_pose_ros.estimation.inputs.load_views', broken)
    with pytest.raises(KeyError):
        estimate(photos / 'images', '--out', tmp_path)


def test_interruption(photos, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr('ray_pose_ros.estimation.inputs.load_views', interrupted)
    assert estimate(photos / 'images', '--out', tmp_path) == cli.INTERRUPTED
    assert 'interrupted' in capsys.readouterr().err


def test_debug_shows_where(photos, tmp_path, capsys):
    assert cli.main(['--debug', 'estimate', str(tmp_path), '--out', 'x']) == cli.BAD_INPUT
    assert 'Traceback' in capsys.readouterr().err
