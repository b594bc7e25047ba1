"""Out of wrong places: groups of cameras are moved together, where matches of a pair say so.

Adjusting goes downhill. Where a network has put some of the views at the wrong side of the object,
they hold each other there, and no small step of one of them is one for the better. But what the
matches of a single pair mean is found without any guess (RANSAC), and tells where the view at
the other end belongs, with all that move along with it. What fits better after that is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ray_pose_ros.geometry.so3 import angle_between

from .adjust import Adjusted, adjust
from .essential import essential_poses
from .links import groups, pair_support
from .residuals import LIMIT, Problem, costs
from .two_view import RayMatches

_SURE = 0.3  # of its pair's heaviest match: what weighs less takes no part in RANSAC
_FEWEST = 8  # such matches
_STILL, _SAME = np.radians(8.0), np.radians(10.0)  # turns that are none, and that are one
_TRIES, _MOVES = 8, 5  # the likeliest moves that are tried one after the other, and moves in all
_ROUNDS = 6  # of adjusting, before a move is given up
_WORSE, _BETTER = 3.0, 0.5  # of the cost: what may still become better then, and what is better


def regrouped(
    found: Adjusted,
    problem: Problem,
    widen: float = 1.0,
    pulse: Callable[[], None] = lambda: None,
) -> Adjusted:
    """The best of what groups of cameras come to that are moved together; `found` if nothing is.

    widen: by how much the matches' standard deviations are too small for RANSAC, which has no long
    tails: problems may hold matches closer than they are. pulse: called between steps; may raise.
    """
    relatives = {}
    for pair, m in problem.matches.items():
        pulse()
        relative = _alone(m, widen)
        if relative is not None:
            relatives[pair] = relative
    for _ in range(_MOVES):
        better = _moved(found, problem, relatives, pulse)
        if better is None:
            break
        found = better
    return found


def _alone(matches: RayMatches, widen: float) -> np.ndarray | None:
    """R_j R_i^T (3, 3) that the matches tell by themselves."""
    if matches.weight is not None:
        matches = matches.take(matches.weight > _SURE * matches.weight.max(initial=0.0))
    if len(matches) < _FEWEST:
        return None
    poses = essential_poses(matches, LIMIT * widen)
    return poses[0][0] if poses else None


def _moved(found: Adjusted, problem: Problem, relatives: dict, pulse) -> Adjusted | None:
    """What one move of a group leads to, if that is better."""
    starts, changes = [], []
    for group in groups(pair_support(found.R, found.t, problem.matches)):
        turns = _turns(found.R, group, relatives)
        if not turns:
            continue
        R = np.repeat(found.R[None], len(turns), axis=0)
        R[:, group] = R[:, group] @ np.stack(turns)[:, None]
        # what moves together sees itself as before
        across = group[problem.table.i] != group[problem.table.j]
        before = costs(found.R[None], found.t, problem, across)
        starts.append(R)
        changes.append(costs(R, found.t, problem, across) - before)
    if not starts:
        return None
    starts = np.concatenate(starts)
    likeliest = np.argsort(np.concatenate(changes), kind='stable')[:_TRIES]
    for R in starts[likeliest]:
        pulse()
        there = adjust(R, found.t, problem, _ROUNDS)
        if there.cost < found.cost + _WORSE:
            there = adjust(there.R, there.t, problem)
            if there.cost < found.cost - _BETTER:
                return there
    return None


def _turns(R: np.ndarray, group: np.ndarray, relatives: dict) -> list[np.ndarray]:
    """Turns of the world (3, 3), different from each other, by which a group of views comes to
    where a pair that it is cut from wants it."""
    turns = []
    for (i, j), relative in relatives.items():
        if group[i] == group[j]:
            continue
        turn = R[j].T @ relative @ R[i]
        turn = turn if group[j] else turn.T
        others = np.stack([np.eye(3), *turns])
        apart = angle_between(others, turn)
        if apart[0] > _STILL and (apart[1:] > _SAME).all():
            turns.append(turn)
    return turns
