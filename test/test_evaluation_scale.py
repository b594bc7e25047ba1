"""`ray-pose evaluate --scale`: a perfect answer has no error, and the command runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from estimation_fixtures import checkpoint, photos
from metric_fixtures import scene

from ray_pose_ros import cli
from ray_pose_ros.estimation.views import View
from ray_pose_ros.evaluation.scale import ScaleError, scale_error, table, true_object
from ray_pose_ros.evaluation.sequences import Sequence
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import camera_centres

__all__ = ['checkpoint', 'photos']  # fixtures


def test_a_perfect_answer_has_no_error():
    R_known, centres, R, t, place, _ = scene(np.random.default_rng(0), 6, scale=2.0)
    camera = CameraModel.from_fov(64, 48, np.pi / 3)
    image = np.zeros((48, 64, 3), np.uint8)
    t_known = -np.einsum('nij,nj->ni', R_known, centres)
    sequence = Sequence('a', [View(image, camera)] * 6, R_known, t_known)
    found, unit = true_object(sequence, [0, 3, 5])
    assert np.allclose(found, place) and unit == pytest.approx(2.0)
    chosen = [0, 2, 4, 5]
    sigmas = {'rotation_sigma': np.full(4, 0.02), 'centre_sigma': np.full(4, 0.02)}
    estimate = SimpleNamespace(
        R=R[chosen], t=t[chosen], centres=camera_centres(R, t)[chosen], **sigmas
    )
    error = scale_error(estimate, sequence, chosen, 'data', np.zeros((2, 4, 3)))
    assert abs(error.log_error) < 1e-6 and error.place_error < 1e-6 and not error.refused
    assert abs(error.by_centres) < 1e-6 and abs(error.shape_error) < 1e-6
    assert 0.02 < error.log_sigma < 0.1
    off = np.random.default_rng(0).normal(size=(2, 4, 3)) * [[[0.05]], [[2.0]]]
    noisy = scale_error(estimate, sequence, chosen, 'data', off)
    assert 1e-3 < abs(noisy.log_error) < 0.2 and noisy.place_error > 1e-3
    estimate.R = estimate.R[::-1]
    found = scale_error(estimate, sequence, chosen, 'data', np.zeros((2, 4, 3)))
    assert 'contradicts' in found.refused


def test_the_table_counts_what_was_refused():
    errors = [
        ScaleError('a', 2, 0.1, 0.04, 0.2, 0.3, 0.03),
        ScaleError('a', 2, -0.02, 0.04, 0.1, 0.1),
        ScaleError('a', 2, *[float('nan')] * 3, 0.5, refused='why'),
        ScaleError('b', 3, *[float('nan')] * 3, 0.5, refused='why'),
    ]
    head, _, a, b, total = table(errors).splitlines()
    assert head.count('|') == a.count('|') == b.count('|')
    assert a == '| a | 2 | 3 | 67 % | 6 % | 7.2 % | 4 % | 50 % | 15 % | 20 % | 1 | 3 % | 100 % |'
    assert b.startswith('| b | 3 | 1 | 0 % | - |') and total.startswith('| all |  | 4 | 50 % |')


def test_the_command(photos, checkpoint, capsys):
    arguments = ['evaluate', str(photos), '--scale', '--checkpoint', str(checkpoint)]
    assert cli.main([*arguments, '--views', '2', '3', '--subsets', '2', '--samples', '1']) == 0
    out = capsys.readouterr().out
    assert '| photos | 2 |' in out and '| photos | 3 |' in out
    assert cli.main([*arguments, '--no-intrinsics']) != 0
    assert '--scale needs intrinsics' in capsys.readouterr().err
    for more, message in (
        (['--methods', 'same'], '--methods is same, expected model or refined'),
        (['--methods', 'model', 'refined'], '--methods is model refined, expected'),
    ):
        assert cli.main([*arguments, *more]) != 0
        assert message in capsys.readouterr().err
    assert cli.main([*arguments, '--views', '9']) != 0
    assert 'nothing was measured: no sequence has 9 views' in capsys.readouterr().err
