"""Errors of one answer against the truth, and what the errors of many are summed up to.

Definitions, all over ordered pairs (i, j), i != j, of the N views of a subset, or over its views:

- rotation error: the geodesic angle between R_i R_j^T of the answer and of the truth (official
  evaluation of Ray Diffusion). R@15 is the share under 15 degrees.
- translation error: the angle between the directions, true and found, in which camera j sees the
  centre of camera i, with the sign left open: min(a, 180 - a), 0 to 90 degrees, as PoseDiffusion
  and VGGSfM count it (there over unordered pairs). RTA@15 is the share under 15 degrees. A pair
  whose true centres coincide has no direction and is left out; centres found to coincide are 90
  degrees off.
- AUC@30, theirs too: the mean over the thresholds 1, 2, ..., 30 degrees of the share of pairs
  whose larger error of the two is below the threshold.
- centre error: distance to the true centre after the best similarity, over the scene's scale, the
  distance from the centroid of all the sequence's cameras to the furthest one (official
  evaluation). CC@0.1 is the share under 0.1. With two views any answer aligns.
- overlapping pairs: of views that belong to three or more which overlap, that is, whose optical
  axes are less than 60 degrees apart, or which are joined by such views.
- focal error: |f / f_true - 1| with f = sqrt(fx fy), where the method estimated intrinsics.

Who does not place a view gets it wrong: pairs with it are 180 (90) degrees off, its centre counts
as missed, and the similarity is that of the views placed. With more than two views and fewer than
three of them placed, all centres count as missed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from ray_pose_ros.geometry.rays import camera_centres
from ray_pose_ros.geometry.similarity import (
    align_similarity,
    ordered_pairs,
    relative_rotation_errors,
    scene_scale,
    transform_points,
)
from ray_pose_ros.multiview.links import parts

from .methods import Answer

ANGLE_BINS = (0, 15, 30, 45, 60, 90, 120, 180)  # degrees between optical axes
CURVE = (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 150)  # degrees, of cumulative curves
OVERLAP, SEVERAL = 60.0, 3  # degrees between views that overlap, and how many have to
WORST_ROTATION, WORST_TRANSLATION = 180.0, 90.0
MISSED = 99.0  # a centre error that no threshold forgives
# A pair is claimed to be right when two standard deviations of its rotation are under this.
SURE = 15.0


@dataclass
class SolveErrors:
    """Errors of one answer for N views, plain lists so that they can be stored.

    Attributes:
        rotation, translation, angle: degrees, one an ordered pair; angle is the true one between
            the optical axes; a translation error may be nan.
        sure: whether the method claims the pair, one an ordered pair: both views placed and, if it
            tells its uncertainty, 2 sqrt(sigma_i^2 + sigma_j^2) under 15 degrees.
        centre: fractions of the scene's scale, one a view.
        sigma, off: radians; for each placed view but the first of them, the uncertainty told and
            the true error of its rotation relative to that first one.
        focal: relative errors, one a view whose intrinsics were estimated.
        placed: number of views placed. seconds: that it took. failure: what was raised, or ''.
    """

    rotation: list[float]
    translation: list[float]
    angle: list[float]
    sure: list[bool]
    centre: list[float]
    placed: int
    seconds: float = 0.0
    sigma: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)
    focal: list[float] = field(default_factory=list)
    failure: str = ''

    def as_dict(self) -> dict:
        """To be stored, rounded far below what anybody would look at."""
        found = asdict(self)
        for key, value in found.items():
            if isinstance(value, list) and value and isinstance(value[0], float):
                # nan is not JSON
                found[key] = [None if x != x else round(x, 5) for x in value]
        return found

    @classmethod
    def from_dict(cls, stored: dict) -> 'SolveErrors':
        values = dict(stored)
        values['translation'] = [np.nan if x is None else x for x in values['translation']]
        return cls(**values)


def solve_errors(
    answer: Answer,
    R_true: np.ndarray,
    t_true: np.ndarray,
    all_centres: np.ndarray,
    focal_true: np.ndarray | None = None,
    failure: str = '',
) -> SolveErrors:
    """Errors of an answer.

    Args:
        answer: for N views.
        R_true, t_true: (N, 3, 3), (N, 3).
        all_centres: (M, 3) of the whole sequence.
        focal_true: (N,) pixels; only needed where the answer has intrinsics.
        failure: what the method raised.

    Raises ValueError where the answer is not of N views, or a placed camera is not finite.
    """
    views = len(R_true)
    placed = _checked(answer, views)
    filled = np.where(placed[:, None, None], answer.R, np.eye(3))
    R, t, R_true, t_true, scene = (
        torch.as_tensor(np.asarray(x, dtype=np.float64))
        for x in (
            filled, np.where(placed[:, None], answer.t, 0.0), R_true, t_true, all_centres,
        )
    )  # fmt: skip
    pairs = ordered_pairs(views)
    i, j = pairs.unbind(-1)
    known = torch.from_numpy(placed)
    both = (known[i] & known[j]).numpy()
    angle = torch.rad2deg(torch.acos((R_true[i, 2] * R_true[j, 2]).sum(-1).clamp(-1, 1)))
    centres, true = camera_centres(R, t), camera_centres(R_true, t_true)
    rotation = relative_rotation_errors(R, R_true).numpy()
    translation = _direction_errors(R, centres, R_true, true, pairs).numpy()
    lost = ~both & np.isfinite(translation)
    found = SolveErrors(
        rotation=np.where(both, rotation, WORST_ROTATION).tolist(),
        translation=np.where(lost, WORST_TRANSLATION, translation).tolist(),
        angle=angle.tolist(),
        sure=(both & _claimed(answer, i.numpy(), j.numpy())).tolist(),
        centre=_centre_errors(centres, true, known, scene_scale(scene)).tolist(),
        placed=int(placed.sum()),
        seconds=float(answer.seconds),
        failure=failure,
    )
    if answer.rotation_sigma is not None and placed.sum() > 1:
        first, *rest = np.flatnonzero(placed)
        # pairs (row, first), in the order of the rows
        column = (j == int(first)).numpy() & both
        sigma = np.asarray(answer.rotation_sigma, dtype=np.float64)[rest]
        usable = np.isfinite(sigma) & (sigma > 0)
        found.sigma = sigma[usable].tolist()
        found.off = np.radians(rotation[column])[usable].tolist()
    if answer.K is not None and focal_true is not None:
        estimated = placed & np.isfinite(answer.K).all(axis=(1, 2)) & np.isfinite(focal_true)
        focal = np.sqrt(answer.K[estimated, 0, 0] * answer.K[estimated, 1, 1])
        found.focal = np.abs(focal / np.asarray(focal_true)[estimated] - 1).tolist()
    return found


def summary(solves: Sequence[SolveErrors]) -> dict[str, float]:
    """All figures over answers pooled; shares are fractions, angles degrees. Empty of nothing.

    R@5, R@15, R@30, RTA@5, RTA@15, RTA@30, AUC@30, median, p90 (rotation), translation_median,
    translation_p90, CC@0.1, CC@0.2, centre_median, placed (share of views), all_placed (share of
    answers), sure (share of pairs claimed), confident_errors (share of pairs claimed and wrong by
    over 15 degrees), seconds (median), seconds_p90, pairs, solves, failures; and, where there are
    any, focal_median and focal_p90.
    """
    if not solves:
        return {}
    rotation, translation, centre, sure = (
        np.concatenate([getattr(solve, key) for solve in solves])
        for key in ('rotation', 'translation', 'centre', 'sure')
    )
    sure = sure.astype(bool)
    directed = np.isfinite(translation)
    focal = np.concatenate([solve.focal for solve in solves])
    seconds = [solve.seconds for solve in solves]
    views = [len(solve.centre) for solve in solves]
    found = {f'R@{x}': share_under(rotation, x) for x in (5, 15, 30)}
    found |= {f'RTA@{x}': share_under(translation[directed], x) for x in (5, 15, 30)}
    found |= {
        'AUC@30': area_under(np.maximum(rotation, translation)[directed], 30),
        'median': float(np.median(rotation)),
        'p90': float(np.percentile(rotation, 90)),
        'translation_median': _quantile(translation[directed], 50),
        'translation_p90': _quantile(translation[directed], 90),
        'CC@0.1': share_under(centre, 0.1),
        'CC@0.2': share_under(centre, 0.2),
        'centre_median': float(np.median(centre)),
        'centre_p90': float(np.percentile(centre, 90)),
        'placed': sum(solve.placed for solve in solves) / sum(views),
        'all_placed': float(np.mean([s.placed == n for s, n in zip(solves, views)])),
        'sure': float(sure.mean()),
        'confident_errors': float((sure & (rotation > SURE)).mean()),
        'seconds': float(np.median(seconds)),
        'seconds_p90': float(np.percentile(seconds, 90)),
        'pairs': len(rotation),
        'solves': len(solves),
        'failures': sum(bool(solve.failure) for solve in solves),
    }
    if len(focal):
        found |= {'focal_median': _quantile(focal, 50), 'focal_p90': _quantile(focal, 90)}
    return found


def by_angle(solves: Sequence[SolveErrors]) -> dict[str, dict[str, float]]:
    """R@5, R@15, median and the number of pairs by the true angle between optical axes."""
    rotation = np.concatenate([solve.rotation for solve in solves])
    angle = np.concatenate([solve.angle for solve in solves])
    found = {}
    for low, high in zip(ANGLE_BINS[:-1], ANGLE_BINS[1:]):
        inside = (angle >= low) & (angle < high if high < 180 else angle <= high)
        if inside.any():
            found[f'{low}-{high}'] = _rotations(rotation[inside])
    return found


def overlapping(solves: Sequence[SolveErrors]) -> dict[str, float]:
    """R@5, R@15, median and the number of overlapping pairs (see above); empty without any."""
    rotation = np.concatenate([solve.rotation for solve in solves])
    inside = np.concatenate([_overlap(solve) for solve in solves])
    return _rotations(rotation[inside]) if inside.any() else {}


def _rotations(errors: np.ndarray) -> dict[str, float]:
    return {
        'R@5': share_under(errors, 5),
        'R@15': share_under(errors, 15),
        'median': float(np.median(errors)),
        'pairs': len(errors),
    }


def _overlap(solve: SolveErrors) -> np.ndarray:
    """(P,) bool, whether each ordered pair is of views of one group that overlaps."""
    views = len(solve.centre)
    i, j = ordered_pairs(views).numpy().T
    near = np.asarray(solve.angle) < OVERLAP
    part = parts(views, zip(i[near], j[near], strict=True))
    return (part[i] == part[j]) & (np.bincount(part)[part] >= SEVERAL)[i]


def curve(solves: Sequence[SolveErrors]) -> list[float]:
    """Share of rotation errors under each of CURVE's thresholds."""
    rotation = np.concatenate([solve.rotation for solve in solves])
    return [share_under(rotation, x) for x in CURVE]


def share_under(errors: np.ndarray, threshold: float) -> float:
    """Share of errors strictly below the threshold; nan of nothing."""
    return float((errors < threshold).mean()) if len(errors) else float('nan')


def area_under(errors: np.ndarray, last: int) -> float:
    """Mean over the thresholds 1 to `last` of the share of errors below; nan of nothing."""
    if not len(errors):
        return float('nan')
    # an error is below a whole threshold if and only if its whole part is
    counts = np.bincount(np.minimum(errors, last).astype(np.int64), minlength=last + 1)
    return float(np.cumsum(counts[:last]).mean() / len(errors))


def _quantile(values: np.ndarray, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float('nan')


def _checked(answer: Answer, views: int) -> np.ndarray:
    placed = np.asarray(answer.placed, dtype=bool)
    shapes = np.shape(answer.R), np.shape(answer.t), placed.shape
    if shapes != ((views, 3, 3), (views, 3), (views,)):
        raise ValueError(f'the answer for {views} views has R, t, placed of shapes {shapes}')
    if not (np.isfinite(answer.R[placed]).all() and np.isfinite(answer.t[placed]).all()):
        raise ValueError('the answer has placed cameras that are not finite')
    return placed


def _direction_errors(R, centres, R_true, true, pairs):
    """Degrees (P,) between the directions from camera j to camera i; nan without a true one."""
    i, j = pairs.unbind(-1)
    found = torch.einsum('pij,pj->pi', R[j], centres[i] - centres[j])
    right = torch.einsum('pij,pj->pi', R_true[j], true[i] - true[j])
    # atan2 of both products has digits near 0 as well; lines, not arrows
    across = torch.linalg.vector_norm(torch.linalg.cross(found, right, dim=-1), dim=-1)
    angle = torch.rad2deg(torch.atan2(across, (found * right).sum(-1).abs()))
    far = torch.linalg.vector_norm(true - true.mean(0), dim=-1).amax()
    nowhere = torch.linalg.vector_norm(right, dim=-1) <= 1e-6 * far
    lengths = torch.linalg.vector_norm(found, dim=-1)
    together = lengths <= 1e-9 * (lengths.amax() + 1e-300)
    angle = torch.where(together, WORST_TRANSLATION, angle)
    return torch.where(nowhere, torch.nan, angle)


def _centre_errors(centres, true, placed, scale):
    """Fractions of the scene's scale (N,), MISSED where not placed or too few are."""
    if not float(scale) > 0:
        raise ValueError(f'scene scale is {float(scale)}, expected above 0')
    errors = torch.full((len(centres),), MISSED, dtype=torch.float64)
    if int(placed.sum()) >= min(len(centres), 3):
        found = centres[placed]
        aligned = transform_points(found, *align_similarity(found, true[placed]))
        distance = torch.linalg.vector_norm(aligned - true[placed], dim=-1)
        errors[placed] = (distance / scale).clamp_max(MISSED)
    return errors


def _claimed(answer: Answer, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) whether each pair's rotation is claimed to be right, placed or not."""
    if answer.rotation_sigma is None:
        return np.ones(len(i), dtype=bool)
    sigma = np.asarray(answer.rotation_sigma, dtype=np.float64)
    with np.errstate(invalid='ignore'):
        return 2 * np.degrees(np.hypot(sigma[i], sigma[j])) < SURE
