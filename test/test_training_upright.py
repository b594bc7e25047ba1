"""The head that tells which way up photographs are: its examples, its training, its file."""

import cv2
import numpy as np
import pytest
import torch

from ray_pose_ros.cli import main
from ray_pose_ros.model.checkpoint import default_checkpoint, load_checkpoint
from ray_pose_ros.training.upright import accuracy, photograph_examples, turned_by


@pytest.mark.parametrize(
    ('up', 'turn'),
    [
        ((0, -1, 0), 0),
        ((-1, 0, 0), 1),  # a quarter counter-clockwise: up is on the left
        ((0, 1, 0.5), 2),
        ((1, 0.2, 0.3), 3),
        ((0.3, -1, 4), None),  # from above
        ((1, -1, 0), None),  # between two
    ],
)
def test_turns_follow_from_the_upward_direction(up, turn):
    assert turned_by(np.array(up, dtype=float)) == turn


def landscapes(folder, count, seed):
    """Photographs of nothing but a bright sky, a horizon and dark ground."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        image = np.empty((120, 160, 3), np.uint8)
        horizon = int(rng.integers(40, 80))
        image[:horizon] = rng.integers(180, 255, 3)
        image[horizon:] = rng.integers(20, 90, 3)
        noise = rng.integers(0, 20, image.shape, dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), cv2.add(image, noise))
    return folder


def test_a_head_is_trained_and_the_rest_is_kept(tmp_path, capsys):
    seen, other = landscapes(tmp_path / 'seen', 10, 0), landscapes(tmp_path / 'other', 4, 1)
    shipped, into = default_checkpoint(), tmp_path / 'out'
    arguments = ['train', 'upright', str(shipped), '--into', str(into), '--photographs', str(seen)]
    assert main([*arguments, '--check', str(other), '--steps', '200']) == 0
    assert 'of turned crops right' in capsys.readouterr().out
    model, before = load_checkpoint(into), load_checkpoint(shipped)
    right, loss = accuracy(model, photograph_examples(model, [other], 1))
    assert right > 0.9
    assert loss < 0.5
    changed = [
        name
        for name, tensor in before.state_dict().items()
        if not torch.equal(model.state_dict()[name], tensor)
    ]
    assert changed
    assert all(name.startswith('upright.') for name in changed)


def test_a_head_without_examples_is_refused(tmp_path, capsys):
    shipped, empty = str(default_checkpoint()), tmp_path / 'empty'
    empty.mkdir()
    arguments = ['train', 'upright', shipped, '--into', str(tmp_path / 'out')]
    assert main(arguments) != 0
    assert 'expected --photographs, --data, or both' in capsys.readouterr().err
    assert main([*arguments, '--photographs', str(empty)]) != 0
    assert 'no images in this folder' in capsys.readouterr().err
    assert main([*arguments, '--data', str(empty)]) != 0
    assert 'no scenes_*.npz in' in capsys.readouterr().err
