"""`ray-pose evaluate --scale`: how good the metric scale is that known camera poses give.

The true poses of a set stand for what /tf tells the node. The true unit is the distance of the
first camera from the object, as the model was trained: the object is the point nearest to the rays
through the middles of all crops. Where crops look at different parts of a large thing that is not
one point. So where the estimated cameras are right, and their distances from each other with them,
the unit that these have is told too.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.metric import MOST_SIGMA, NoScale, fit_metric
from ray_pose_ros.geometry.gauge import axes_intersection
from ray_pose_ros.geometry.similarity import align_similarity, relative_rotation_errors
from ray_pose_ros.geometry.so3 import camera_centres, rotation_from_vector
from ray_pose_ros.refinement.refine import default_matchers
from ray_pose_ros.refinement.refining import RefiningEstimator

from .command import USUAL_METHODS, chosen_sources, nothing_measured
from .draws import draw_subsets
from .markdown import markdown_table
from .sequences import Sequence

RIGHT = 5.0  # degrees
COLUMNS = (
    'data',
    'N',
    'sets',
    'scale told',
    'error, median',
    'error, rms',
    'told, median',
    'within 2 sigma',
    'object off by',
    'by centres, median',
    'poses right',
    'error there, median',
    'within 2 sigma',
)


@dataclass(frozen=True)
class ScaleError:
    """Of one set of views.

    Attributes:
        data, views: what the set is of, and how many views it has.
        log_error, log_sigma: found over true scale, and its told deviation; nan if refused.
        place_error: how far the object is put from where it is, over the first camera's distance.
        by_centres: log_error of aligning the estimated centres with the true ones.
        shape_error: log of found scale over that alignment's, where all relative rotations are
            right within RIGHT; nan elsewhere.
        refused: why there is no scale, or ''.
    """

    data: str
    views: int
    log_error: float
    log_sigma: float
    place_error: float
    by_centres: float
    shape_error: float = float('nan')
    refused: str = ''


def measure(args: argparse.Namespace) -> list[ScaleError]:
    """Errors on the sets of views that the arguments of `ray-pose evaluate` describe.

    Raises ValueError for --no-intrinsics: where the object is is told by the views' rays; for
    several --steps, and methods that are not measured; for options that would have no effect; and
    where no set is measured.
    """
    ignored = [f'--{name}' for name in ('out', 'tour', 'errors') if getattr(args, name)]
    if ignored:
        raise ValueError(f'--scale prints one table, {", ".join(ignored)} cannot go with it')
    if args.methods not in (USUAL_METHODS, ['model'], ['refined']):
        raise ValueError(
            f'--methods is {" ".join(args.methods)}, expected model or refined with --scale'
        )
    if args.no_intrinsics:
        raise ValueError('--scale needs intrinsics, and --no-intrinsics takes them away')
    if args.steps and len(args.steps) > 1:
        raise ValueError(f'--steps is {args.steps}, --scale takes one number')
    torch.set_num_threads(1)
    steps = args.steps[0] if args.steps else None
    estimator = Estimator(
        args.checkpoint, args.device, steps=steps, samples=args.samples or 0, seed=args.seed
    )
    if 'refined' in args.methods:
        estimator = RefiningEstimator(estimator, default_matchers(None, str(estimator.device)))
    errors, rng = [], np.random.default_rng(args.seed)
    for source in tqdm(chosen_sources(args), unit='sequence', disable=None, file=sys.stderr):
        sequence, prepared = source.load(), {}
        for views in args.views:
            subsets = max(1, args.subsets // source.share)
            for draw in draw_subsets(sequence, views, subsets, args.within, args.seed):
                chosen = [int(i) for i in draw.indices]
                for i in set(chosen) - set(prepared):
                    prepared[i] = estimator.prepare(sequence.views[i])
                if true_object(sequence, chosen)[1] <= 0:  # crops that look at different things
                    continue
                found = estimator.solve([prepared[i] for i in chosen])
                noise = (
                    rng.normal(size=(2, views, 3)) * np.reshape(args.tf_noise, (2, 1, 1)) / 3**0.5
                )
                errors.append(scale_error(found, sequence, chosen, source.data, noise))
    if not errors:
        raise ValueError(nothing_measured(args, 'whose crops look at one thing'))
    return errors


def scale_error(
    estimate: Estimate, sequence: Sequence, chosen: list[int], data: str, noise: np.ndarray
) -> ScaleError:
    """The error of one set, whose cameras are all known.

    noise (2, N, 3): of their places, over the first one's distance, and orientations, degrees.
    """
    R, t = sequence.R[chosen], sequence.t[chosen]
    centres = camera_centres(R, t)
    place, unit = true_object(sequence, chosen)
    aligned = align_similarity(torch.from_numpy(estimate.centres), torch.from_numpy(centres))[0]
    by_centres = float(np.log(max(float(aligned), 1e-6) / unit))
    sigmas = estimate.rotation_sigma, estimate.centre_sigma
    try:
        known = rotation_from_vector(np.radians(noise[1])) @ R, centres + unit * noise[0]
        fit = fit_metric(estimate.R, estimate.t, *sigmas, *known, MOST_SIGMA)
    except NoScale as reason:
        nan = float('nan')
        return ScaleError(data, len(chosen), nan, nan, nan, by_centres, refused=str(reason))
    worst = relative_rotation_errors(torch.from_numpy(estimate.R), torch.from_numpy(R)).max()
    shape = float(np.log(fit.scale / float(aligned))) if worst < RIGHT else float('nan')
    return ScaleError(
        data,
        len(chosen),
        float(np.log(fit.scale / unit)),
        fit.log_sigma,
        float(np.linalg.norm(fit.translation - place) / unit),
        by_centres,
        shape,
    )


def true_object(sequence: Sequence, chosen: list[int]) -> tuple[np.ndarray, float]:
    """The object's point (3,) and its distance from the first camera along its crop's ray."""
    R, t = (torch.from_numpy(x[chosen]) for x in (sequence.R, sequence.t))
    axes = []
    for i in chosen:
        view = sequence.views[i]
        crop = view.crop()
        middle = torch.tensor([[crop.x0 + crop.side / 2, crop.y0 + crop.side / 2]]).double()
        axes.append(view.camera.unproject(middle, extrapolate=True)[0])
    place = axes_intersection(R, t, torch.stack(axes))
    return place.numpy(), float(axes[0] @ (R[0] @ place + t[0]) / axes[0].norm())


def table(errors: list[ScaleError]) -> str:
    """A Markdown table, one line for each kind of data and number of views."""
    groups = dict.fromkeys((e.data, e.views) for e in errors)
    rows = [
        _row(data, str(views), [e for e in errors if (e.data, e.views) == (data, views)])
        for data, views in groups
    ]
    if len(groups) > 1:
        rows.append(_row('all', '', errors))
    return markdown_table(COLUMNS, rows)


def _row(data: str, views: str, errors: list[ScaleError]) -> list[str]:
    told = [e for e in errors if not e.refused]
    cells = [data, views, str(len(errors)), f'{100 * len(told) / len(errors):.0f} %']
    if told:
        error = np.abs([e.log_error for e in told])
        sigma = np.array([e.log_sigma for e in told])
        place, centres = (np.array([getattr(e, k) for e in told])
                          for k in ('place_error', 'by_centres'))  # fmt: skip
        for value in (
            np.median(error),
            np.sqrt((error**2).mean()),
            np.median(sigma),
            (error < 2 * sigma).mean(),
            np.median(place),
            np.median(np.abs(centres)),
        ):
            cells.append(_percent(value))
        right = np.array([e.shape_error for e in told])
        known = np.isfinite(right)
        cells.append(str(known.sum()))
        if known.any():
            right, sigma = np.abs(right[known]), sigma[known]
            cells += [_percent(np.median(right)), _percent((right < 2 * sigma).mean())]
    return cells + ['-'] * (len(COLUMNS) - len(cells))


def _percent(value: float) -> str:
    return f'{100 * value:{".2g" if value < 0.095 else ".0f"}} %'
