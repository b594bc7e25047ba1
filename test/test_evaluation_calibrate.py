"""The uncertainty that a checkpoint tells is fitted to its errors."""

import json
import shutil

import numpy as np
import pytest
from estimation_fixtures import photos  # noqa: F401

from ray_pose_ros.cli import main
from ray_pose_ros.estimation.uncertainty import MatchedDoubts, matched_deviation
from ray_pose_ros.evaluation.calibrate import doubts_and_errors
from ray_pose_ros.evaluation.sigma_fit import MATCHED, RAYS, fit_terms
from ray_pose_ros.model.checkpoint import change_settings, default_checkpoint, load_checkpoint


def made_up_errors(terms, rows=6000, seed=0):
    rng = np.random.default_rng(seed)
    samples = rng.choice([2, 3, 8], rows)
    spread, misfit = rng.uniform(0, 0.5, rows), rng.uniform(0, 0.3, rows)
    a, b, c, d = terms
    sigma = np.sqrt((a * samples**b * spread) ** 2 + (c * misfit) ** 2 + d**2)
    error = np.linalg.norm(rng.normal(size=(rows, 3)), axis=1) * sigma / np.sqrt(3)
    return np.stack([samples, spread, misfit, error], axis=1)


@pytest.mark.parametrize('terms', [(2.0, -0.4, 0.5, 0.05), (0.7, 0.2, 1.5, 0.1)])
def test_the_terms_that_made_the_errors_are_found(terms):
    table = made_up_errors(terms)
    found = fit_terms(RAYS, [table])
    np.testing.assert_allclose(found, terms, rtol=0.15, atol=0.05)
    assert RAYS.cost(found, table) < RAYS.cost((1.0, 0.0, 1.0, 0.0087), table) - 0.01


@pytest.mark.parametrize('terms', [(2.0, 0.4, 0.5, -0.8, 0.03), (0.8, 0.0, 0.9, -0.4, 0.05)])
def test_the_terms_of_matched_cameras_are_found(terms):
    rng = np.random.default_rng(1)
    rows = 8000
    inputs = np.stack(
        [rng.uniform(0.01, 0.2, rows), rng.uniform(0.2, 1.5, rows), rng.uniform(0, 60, rows)], 1
    )
    sigma = matched_deviation(inputs, terms)
    error = np.linalg.norm(rng.normal(size=(rows, 3)), axis=1) * sigma / np.sqrt(3)
    found = fit_terms(MATCHED, [np.column_stack([inputs, error])])
    np.testing.assert_allclose(found[1:4], terms[1:4], atol=0.1)
    np.testing.assert_allclose(matched_deviation(inputs, found), sigma, rtol=0.15)


def test_each_table_has_the_same_say_however_long_it_is():
    sure, unsure = made_up_errors((0.0, 0, 0, 0.1)), made_up_errors((0.0, 0, 0, 0.4), rows=300)
    floor = fit_terms(RAYS, [sure, unsure])[3]
    # the likeliest variance is the mean of both
    assert floor == pytest.approx(((0.1**2 + 0.4**2) / 2) ** 0.5, rel=0.1)


def test_errors_do_not_depend_on_the_world_or_its_scale():
    class Found:
        R = np.stack([np.eye(3), np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])])
        centres = np.array([[0, 0, -1.0], [1.0, 0, 0]])

        doubts = MatchedDoubts(*[np.zeros(2)] * 5)

    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
    R_true = Found.R @ turn
    centres = 3 * Found.centres @ turn + [1.0, 2, 3]
    t_true = -np.einsum('nij,nj->ni', R_true, centres)
    rotation, centre = doubts_and_errors(Found, R_true, t_true)
    assert rotation.shape == centre.shape == (1, 4)
    assert rotation[0, 3] < 1e-6 and centre[0, 3] < 1e-9
    R_true[1] = R_true[0]
    rotation, _ = doubts_and_errors(Found, R_true, t_true)
    assert rotation[0, 3] == pytest.approx(np.pi / 2)


def test_the_command_changes_the_configuration(tmp_path, capsys):
    folder = tmp_path / 'model'
    shutil.copytree(default_checkpoint(), folder)
    (folder / 'SHA256SUMS').unlink(missing_ok=True)  # changed on purpose
    before = load_checkpoint(folder)
    assert main(['calibrate', str(folder), '--scenes', '1', '--views', '2', '4']) == 0
    after = load_checkpoint(folder)
    assert after.config.rotation_sigma != before.config.rotation_sigma
    assert after.config.centre_sigma != before.config.centre_sigma
    assert after.config.width == before.config.width
    assert 'negative log-likelihood' in capsys.readouterr().out


def test_photographs_are_fitted_to_as_well(tmp_path, photos, capsys):  # noqa: F811
    folder = tmp_path / 'model'
    shutil.copytree(default_checkpoint(), folder)
    (folder / 'SHA256SUMS').unlink(missing_ok=True)
    sets = ['--scenes', '1', '--views', '2', '3', '--subsets', '2']
    assert main(['calibrate', str(folder), str(photos), *sets]) == 0
    told = capsys.readouterr().out
    assert told.count('rendered: ') == told.count('photographs: ') == 4  # with and without matches
    assert '6 views' in told  # 1 and 2 of each set, twice


def test_senseless_terms_are_refused(tmp_path):
    folder = tmp_path / 'model'
    shutil.copytree(default_checkpoint(), folder)
    text = (folder / 'config.json').read_text()
    with pytest.raises(ValueError, match='rotation_sigma'):
        change_settings(folder, {'rotation_sigma': (1.0, 0.0, 1.0, 0.0)})
    assert (folder / 'config.json').read_text() == text
    settings = json.loads(text)
    settings['model']['centre_sigma'] = [1, 2]
    (folder / 'config.json').write_text(json.dumps(settings))
    with pytest.raises(ValueError, match='centre_sigma'):
        load_checkpoint(folder)
