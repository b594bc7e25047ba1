"""What an estimate tells of itself."""

from dataclasses import replace

import numpy as np
import pytest
from estimation_fakes import cameras as lenses
from estimation_fakes import orbit

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.results import table
from ray_pose_ros.geometry.so3 import rotation_from_vector


def told(R, t):
    n = len(R)
    sigma = np.full(n, 0.1)
    rays = np.zeros((n, 6, 1, 1), np.float32)
    return Estimate(
        R, t, (), ('given',) * n, ('',) * n, (None,) * n, (), sigma, sigma, 1.0, 1, rays
    )


def cameras(*places):
    """R, t of cameras at places (degrees round the object, distance), with hands that shake."""
    rng = np.random.default_rng(0)
    R = np.stack([rotation_from_vector(np.array([0, np.radians(a), 0])) for a, _ in places])
    R = rotation_from_vector(rng.normal(size=(len(R), 3)) * 0.01) @ R
    return R, np.array([[0, 0, d] for _, d in places], dtype=float)


@pytest.mark.parametrize('unit', [1.0, 0.02])
@pytest.mark.parametrize(
    ('places', 'same'),
    [
        ([(30, 1), (31, 1), (32, 1.05)], True),
        ([(30, 1), (31, 1), (29, 1), (30, 1), (120, 1)], True),  # six of ten pairs
        ([(30, 1), (31, 1), (32, 1), (90, 1)], False),  # three of six
        ([(30, 1), (30, 2), (30, 3)], False),
        ([(0, 1), (20, 1), (40, 1)], False),
        ([(30, 1), (30, 1)], False),  # of two it says little
    ],
)
def test_most_cameras_at_one_place(places, same, unit):
    R, t = cameras(*places)
    assert told(R, unit * t).at_one_place is same


def test_cameras_round_an_object_are_not_at_one_place():
    assert not told(*(x.numpy() for x in orbit(8))).at_one_place


def test_a_camera_that_looks_elsewhere_from_the_same_place_counts_as_another():
    turns = np.stack([rotation_from_vector(np.array([0, 0.3 * k, 0])) for k in range(4)])
    assert not told(turns, np.stack([turn @ [0, 0, 1.0] for turn in turns])).at_one_place


def test_no_rotation_is_said_to_be_off_by_more_than_half_a_turn():
    estimate = replace(told(*cameras((0, 1), (50, 1))), cameras=tuple(lenses(2)))
    rows = table(replace(estimate, rotation_sigma=np.array([0.1, 4.0]))).splitlines()
    assert '±   5.7°' in rows[1] and '± 180.0°' in rows[2]
