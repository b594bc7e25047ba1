"""Where the pieces of the picture go: frusta, the direction called up, truth beside estimate."""

from collections.abc import Sequence

import numpy as np

from ray_pose_ros.geometry.so3 import camera_centres


def frustum(
    R: np.ndarray, t: np.ndarray, K: np.ndarray, shape: Sequence[int], depth: float
) -> np.ndarray:
    """(5, 3) world points: the centre, then the image's corners at `depth`, from top left."""
    height, width = shape[:2]
    pixels = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    rays = pixels @ np.linalg.inv(K).T
    # A fisheye's K says little about its field of view: keep the base within 120 degrees.
    rays[:, :2] *= min(1.0, 1.73 / max(np.abs(rays[:, :2]).max(), 1e-9))
    in_camera = np.concatenate((np.zeros((1, 3)), rays * depth))
    return (in_camera - t) @ R


def viewing_axes(R: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World axes for looking at the cameras: right, up, and from the object to camera 1's side.

    Up is what the cameras agree on: against their image's downward axis, and at a right angle to
    the horizontal axes of cameras that are held level.
    """
    upward = -R[:, 1].mean(axis=0)
    agreed = float(np.linalg.norm(upward))
    if agreed > 0.35:
        guess = upward / agreed
        spread = R[:, 0].T @ R[:, 0] / len(R) + 0.3 * (np.eye(3) - np.outer(guess, guess))
        up = np.linalg.eigh(spread)[1][:, 0]
    else:  # cameras rolled every way: the flattest direction of their ring
        guess = -R[0, 1]
        up = np.linalg.svd(centres - centres.mean(axis=0))[2][-1] if len(R) > 3 else guess
    up = up * (1.0 if up @ guess >= 0 else -1.0)
    towards = centres[0] - (centres[0] @ up) * up
    if np.linalg.norm(towards) < 1e-6 * max(np.linalg.norm(centres[0]), 1e-12):
        towards = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    towards = towards / np.linalg.norm(towards)
    return np.cross(up, towards), up, towards


def align_truth(
    true_R: np.ndarray, true_t: np.ndarray, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """True cameras moved into the estimate's world.

    The rotation is the one that the cameras' orientations agree on, so that two cameras suffice;
    scale and place follow from the centres. Metrics align by centres alone (geometry.similarity).
    """
    true_R, true_t = (np.asarray(a, dtype=np.float64) for a in (true_R, true_t))
    u, _, vt = np.linalg.svd(np.einsum('nki,nkj->ij', R, true_R))
    turn = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    centres = camera_centres(R, t)
    true_centres = camera_centres(true_R, true_t) @ turn.T
    middle, true_middle = centres.mean(axis=0), true_centres.mean(axis=0)
    spread = np.linalg.norm(true_centres - true_middle)
    scale = np.linalg.norm(centres - middle) / spread if spread > 0 else 1.0
    moved = scale * (true_centres - true_middle) + middle
    new_R = true_R @ turn.T
    return new_R, -np.einsum('nij,nj->ni', new_R, moved)
