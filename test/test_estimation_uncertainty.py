"""How uncertainty is told from what is known of an answer."""

import math

import numpy as np
import pytest

from ray_pose_ros.estimation.uncertainty import (
    Doubts,
    MatchedDoubts,
    matched_deviation,
    ray_deviation,
)
from ray_pose_ros.model.config import ModelConfig


def test_no_sigma_of_rays_is_zero():
    rows = np.array([[8.0, 0, 0]] * 2)
    assert ray_deviation(rows, (1.0, 0.0, 1.0, 0.01)).tolist() == pytest.approx([0.01, 0.01])
    rows = np.array([[8.0, 3, 4]])
    assert ray_deviation(rows, (1.0, 0.0, 1.0, 1e-9)).tolist() == pytest.approx([5])
    rows = np.array([[4.0, 3, 4]])
    told = ray_deviation(rows, (2.0, -0.5, 0.5, 1e-9))
    assert told.tolist() == pytest.approx([math.sqrt(3**2 + 2**2)])


def test_no_sigma_of_matched_cameras_is_zero():
    told = matched_deviation(np.zeros((2, 3)), (1.0, 0.5, 0.5, -1.0, 0.01))
    assert told.tolist() == pytest.approx([0.01, 0.01], abs=1e-5)


def test_what_more_matches_join_is_surer():
    rows = np.array([[0.1, 0.5, support] for support in (0.0, 3.0, 30.0)])
    told = matched_deviation(rows, (1.0, 0.0, 1.0, -1.0, 1e-6))
    assert told.tolist() == pytest.approx([0.5, 0.5 / 4, 0.5 / 31])


def test_the_first_camera_is_as_sure_as_the_surest_other():
    support = np.array([9.0, 1.0, 9.0])
    doubts = MatchedDoubts(np.array([0, 0.1, 0.1]), *[np.full(3, 0.3)] * 3, support)
    config = ModelConfig(matched_rotation_sigma=(1.0, 0.5, 0.5, -0.5, 1e-3))
    rotation, centre = doubts.sigmas(config)
    assert rotation[0] == rotation[2] < rotation[1]
    assert (centre > 0).all()


def test_inputs_are_those_of_the_deviations():
    config = ModelConfig()
    spread, misfit = np.array([0.1, 0.2]), np.array([0.01, 0.02])
    doubts = Doubts(4, spread, misfit, 2 * spread, 2 * misfit)
    rotation, centre = doubts.sigmas(config)
    assert np.array_equal(rotation, ray_deviation(doubts.inputs[0], config.rotation_sigma))
    assert np.array_equal(centre, ray_deviation(doubts.inputs[1], config.centre_sigma))
