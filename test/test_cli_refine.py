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
    assert 'refined with sift: 0 of 1 pairs of views joined, 0 of 2 views sure' in said
    assert (out / 'poses.json').is_file()
    assert cli.main([*given, '--no-refine']) == 0
    assert 'views joined' not in capsys.readouterr().out


def test_only_views_that_are_not_refined_have_other_crops(photographs, tmp_path, monkeypatch):
    from ray_pose_ros.estimation.estimator import Estimator

    look, have = Estimator.look, []

    def seen(estimator, prepared, *rest):
        have.append([bool(p.other_crops) for p in prepared])
        return look(estimator, prepared, *rest)

    monkeypatch.setattr(Estimator, 'look', seen)
    given = ['estimate', str(photographs), '--out', str(tmp_path / 'out'), '--samples', '1']
    assert cli.main([*given, '--matcher', 'sift']) == 0
    assert cli.main([*given, '--no-refine']) == 0
    assert have == [[False, False], [True, True]]


def test_bad_matchers_are_refused(photographs, tmp_path, capsys):
    given = ['estimate', str(photographs), '--out', str(tmp_path / 'out')]
    assert cli.main([*given, '--matcher', 'magic']) == 2
    assert "matcher is 'magic'" in capsys.readouterr().err
    assert cli.main([*given, '--no-refine', '--matcher', 'sift']) == 2
    assert 'with --no-refine' in capsys.readouterr().err


def test_of_many_photographs_the_near_ones_are_matched_and_the_focal_length_is_found_by_few(
    photographs, tmp_path, capsys, monkeypatch
):
    import cv2

    from ray_pose_ros.refinement import refine, refining, rounds

    monkeypatch.setattr(rounds, 'MANY', 4)
    monkeypatch.setattr(rounds, '_NEAR', 2)
    folder = tmp_path / 'many'
    folder.mkdir()
    plane = cv2.imread(str(photographs / 'a.png'))
    plane = cv2.resize(plane, (512, 384), interpolation=cv2.INTER_CUBIC)
    for n in range(7):  # seven looks at one plane, from left to right
        corners = np.float32([[0, 0], [512, 0], [512, 384], [0, 384]])
        lean = np.float32([[4 * n, 3 * n], [0, -2 * n], [0, 2 * n], [4 * n, -3 * n]])
        turned = cv2.getPerspectiveTransform(corners, corners + lean)
        cv2.imwrite(str(folder / f'{n}.png'), cv2.warpPerspective(plane, turned, (512, 384)))
    views, pairs = [], []
    find, match = refining.find_focal, refine.match_pairs

    def found(estimate, *rest):
        views.append(len(estimate.R))
        return find(estimate, *rest)

    def matched(new, *rest):
        pairs.extend(new)
        return match(new, *rest)

    monkeypatch.setattr(refining, 'find_focal', found)
    monkeypatch.setattr(refine, 'match_pairs', matched)
    out = tmp_path / 'out'
    given = ['estimate', str(folder), '--out', str(out), '--device', 'cpu', '--samples', '2']
    assert cli.main([*given, '--matcher', 'sift']) == 0
    assert 'of 21 pairs of views joined' in capsys.readouterr().out
    assert views == [4] and 7 <= len(pairs) == len(set(pairs)) <= 21
