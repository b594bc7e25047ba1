"""Refinement in `ray-pose estimate`."""

import numpy as np
import pytest
from PIL import Image

from ray_pose_ros import cli


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.png'):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((128, 96), Image.BICUBIC).save(tmp_path / name)
    return tmp_path


def test_the_answer_is_refined_unless_told_not_to(photographs, tmp_path, capsys):
    out = tmp_path / 'out'
    given = ['estimate', str(photographs), '--out', str(out), '--device', 'cpu', '--samples', '1']
    assert cli.main([*given, '--matcher', 'sift']) == 0
    said = capsys.readouterr().out
    # two images of noise have nothing in common
    assert 'refined with sift: 0 of 1 pairs joined, 0 of 2 views sure' in said
    assert (out / 'poses.json').is_file()
    assert cli.main([*given, '--no-refine']) == 0
    assert 'pairs joined' not in capsys.readouterr().out


def test_bad_matchers_are_refused(photographs, tmp_path, capsys):
    given = ['estimate', str(photographs), '--out', str(tmp_path / 'out')]
    assert cli.main([*given, '--matcher', 'magic']) == 2
    assert "matcher is 'magic'" in capsys.readouterr().err
    assert cli.main([*given, '--no-refine', '--matcher', 'sift']) == 2
    assert 'with --no-refine' in capsys.readouterr().err
