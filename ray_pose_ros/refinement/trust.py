"""How far to trust what the ray model says of these very views: its matches tell.

The model's uncertainty is calibrated on objects like those that it was trained on. On others it
may be wrong and sure of itself. Near views are matched without its help; where it is wrong on
them, it is not better on those far apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.multiview.two_view import RayMatches

from .averaging import value
from .hypotheses import hypotheses

_STRONG = 4.0  # nats, from where on a pair is a witness
_ALSO = 1.5  # nats of another meaning of its matches, which may be the true one
_MEDIAN = 0.789  # of the squared error of a rotation, in units of its mean
_USELESS = 2.0  # times wronger than told, from where on it is not listened to
_NOTHING = 9.0  # rad: so uncertain that it says nothing


def trusted(
    prior: Prior, matches: dict[tuple[int, int], RayMatches], looking: np.ndarray, poses: dict
) -> tuple[Prior, np.ndarray]:
    """The prior as uncertain as it proves to be on pairs that matches alone can tell.

    looking (N, 3) is the object in the frames of the cameras, as the model sees it; of a model
    that is not listened to only the direction is kept, that of the crops. poses: what `search`
    finds in each pair's matches.
    """
    count = len(prior.R)
    nothing = np.full(count, _NOTHING)
    vague = replace(prior, rotation_sigma=nothing, samples=prior.samples[:0])
    squares = [_MEDIAN]  # one imagined witness finds the model right
    for (i, j), m in matches.items():
        found = [h for h in hypotheses(m, vague, i, j, poses[i, j]) if value(h) > _ALSO]
        if any(value(h) > _STRONG for h in found):
            told = prior.R[j] @ prior.R[i].T
            off = min(angle_between(h.R, told) for h in found) / prior.pair_sigma(i, j)
            squares.append(float(off) ** 2)
    # the median: look-alike sides bear false witness, but seldom most of it
    factor = (float(np.median(squares)) / _MEDIAN) ** 0.5
    if factor <= 1:
        return prior, looking
    if factor <= _USELESS:
        return replace(prior, rotation_sigma=prior.rotation_sigma * factor), looking
    looking = looking.copy()
    for (i, j), m in matches.items():
        looking[i], looking[j] = m.centre_a, m.centre_b
    return vague, looking
