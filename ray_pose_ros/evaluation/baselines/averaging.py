"""Cameras from relative poses of pairs: rotations first, then centres, outliers borne.

Sources: Chatterjee and Govindu, "Efficient and Robust Large-Scale Rotation Averaging", 2013;
Hand et al., "ShapeFit: Exact Location Recovery from Corrupted Pairwise Directions", 2015 (the sum
of distances across directions; its constraint on the scale is a weak prior on lengths here).
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial.transform import Rotation

_KNEE = np.radians(3.0)  # rotation error from which a pair loses its say
# How much a given length counts beside a direction.
_PRIOR = 1e-3
_TRUSTED = np.radians(10.0)  # rotation error beyond which a pair's direction is not used


def largest_component(views: int, edges: list[tuple[int, int]], weights: np.ndarray) -> np.ndarray:
    """Sorted indices of the largest set of connected views; the heavier one of two."""
    if not edges:
        return np.zeros(0, dtype=int)
    a, b = np.array(edges).T
    _, label = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (views, views)))
    size = np.bincount(label)
    heavy = np.bincount(label[a], weights, minlength=len(size))
    return np.flatnonzero(label == np.lexsort((heavy, size))[-1])


def average_rotations(edges: np.ndarray, R_pair: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """World-to-camera R (N, 3, 3) of connected views, the first one the identity.

    Args:
        edges: (E, 2) pairs a, b.
        R_pair: (E, 3, 3) with R_b = R_pair R_a.
        weights: (E,) how much each is to be believed.
    """
    a, b = edges.T
    views = int(edges.max()) + 1
    R = _along_tree(views, edges, R_pair, weights)
    weights = weights / weights.max()
    incidence = np.zeros((len(edges), views))
    incidence[np.arange(len(edges)), b] = 1
    incidence[np.arange(len(edges)), a] = -1
    incidence = incidence[:, 1:]  # the first view stays
    for _ in range(100):
        error = _rotation_errors(R, edges, R_pair)
        robust = 1 / (1 + ((error**2).sum(-1) / _KNEE**2))
        root = np.sqrt(weights * robust)[:, None]
        step = np.linalg.lstsq(root * incidence, root * error, rcond=None)[0]
        R[1:] = R[1:] @ Rotation.from_rotvec(step).as_matrix()
        if np.abs(step).max() < 1e-9:
            break
    return R


def average_translations(
    edges: np.ndarray,
    R: np.ndarray,
    t_pair: np.ndarray,
    R_pair: np.ndarray,
    weights: np.ndarray,
    lengths: np.ndarray,
) -> np.ndarray:
    """Camera centres (N, 3), the first one 0.

    Minimises the sum of the distances of c_b - c_a from a pair's direction in the world. Where
    that leaves something open, such as the scale, and all lengths where pairs make no triangles,
    the steps have the `lengths` that are given. Pairs whose rotation disagrees with R are left
    out as long as the others connect all views.

    Args:
        edges: (E, 2). R: (N, 3, 3) world-to-camera. weights: (E,).
        t_pair: (E, 3) unit vectors, x_b = R_pair x_a + scale t_pair.
        lengths: (E,) roughly, above 0.
    """
    error = np.linalg.norm(_rotation_errors(R, edges, R_pair), axis=-1)
    good = error < _TRUSTED
    pairs = [tuple(pair) for pair in edges[good]]
    if len(largest_component(len(R), pairs, weights[good])) == len(R):
        edges, t_pair, weights, lengths = (x[good] for x in (edges, t_pair, weights, lengths))
    a, b = edges.T
    direction = -np.einsum('eji,ej->ei', R[b], t_pair)
    along = direction[:, :, None] * direction[:, None]
    across = np.eye(3) - along
    weights, lengths = weights / weights.max(), lengths / lengths.max()
    robust = np.ones(len(edges))
    centres = np.zeros((len(R), 3))
    for _ in range(200):
        before = centres
        metric = (weights * robust)[:, None, None] * (across + _PRIOR * along)
        centres = _solve_centres(len(R), a, b, lengths[:, None] * direction, metric)
        step = centres[b] - centres[a]
        off = np.einsum('eij,ej->ei', across, step)
        short = np.minimum((step * direction).sum(-1), 0)  # on the wrong side of the camera
        robust = 1 / np.maximum(np.hypot(np.linalg.norm(off, axis=-1), short), 1e-3)
        if np.abs(centres - before).max() < 1e-6:
            break
    return centres


def _solve_centres(views, a, b, steps, metric) -> np.ndarray:
    """Least squares of c_b - c_a = steps (E, 3) under metric (E, 3, 3), c_0 = 0."""
    normal, right = np.zeros((views, views, 3, 3)), np.zeros((views, 3))
    pull = np.einsum('eij,ej->ei', metric, steps)
    for one, other, sign in ((a, b, -1), (b, a, 1)):
        np.add.at(normal, (one, one), metric)
        np.add.at(normal, (one, other), -metric)
        np.add.at(right, one, sign * pull)
    free = normal[1:, 1:].transpose(0, 2, 1, 3).reshape(3 * views - 3, 3 * views - 3)
    centres = np.zeros((views, 3))
    centres[1:] = np.linalg.solve(free, right[1:].reshape(-1)).reshape(-1, 3)
    return centres


def _along_tree(views: int, edges, R_pair, weights) -> np.ndarray:
    """Rotations by chaining the most trusted pairs from the first view on."""
    a, b = edges.T
    # the tree is of least cost, and a cost of 0 would be no edge
    cost = coo_matrix((1 / (1 + weights), (a, b)), (views, views))
    tree = minimum_spanning_tree(cost)
    order, parent = breadth_first_order(tree, 0, directed=False)
    between = {(i, j): R_ij for (i, j), R_ij in zip(edges.tolist(), R_pair)}
    R = np.tile(np.eye(3), (views, 1, 1))
    for view in order[1:]:
        up = int(parent[view])
        known = between.get((up, int(view)))
        R[view] = (known if known is not None else between[int(view), up].T) @ R[up]
    return R


def _rotation_errors(R: np.ndarray, edges: np.ndarray, R_pair: np.ndarray) -> np.ndarray:
    """(E, 3) rotation vectors in the world's frame: how far each pair is from R."""
    a, b = edges.T
    return Rotation.from_matrix(R[b].transpose(0, 2, 1) @ R_pair @ R[a]).as_rotvec()
