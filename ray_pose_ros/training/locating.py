"""Training of what places matches within cells (`model/locating.py`).

The network's own matches in sets of views, one of each scene, are what it learns from: where known
depth says that the point lies, and which of them are no matches.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ray_pose_ros.model.locating import Directed, Located, Locator, both_ways, place_pixels
from ray_pose_ros.model.plans import default_plan
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.sampler import sample
from ray_pose_ros.training.batches import SetSampler
from ray_pose_ros.training.dataset import SIZE, SceneSet, find_shards

WIDTH, VIEWS = 96, 6
RIGHT, WRONG, UNKNOWN = 1, 0, -1
# Pixels between where a place is and where it is looked for: right matches lie nearer than the
# first, wrong ones further off than the second.
_RIGHT, _WRONG = 20.0, 24.0
_OCCLUDED = 0.07  # difference of depths, relative
_RATE, _WARM, _LEAST, _DECAY, _AVERAGE = 2e-3, 200, 0.02, 0.02, 0.005
_SETS, _MATCHES, _JITTERED, _PLACING = 2, 700, 0.5, 0.25
_FEWEST = 20  # matches of a set that are worth a step
_KEPT = 60.0  # seconds between weights that are kept: a killed run loses no more


@dataclass(frozen=True)
class MatchedSet:
    """N views of a scene, and K places of them that are looked for in others.

    Attributes:
        early: (N, C, 28, 28) half precision, early features.
        ends: what is looked for, and where.
        target: (K, 2) pixels where the places are, nan where nobody knows.
        label: (K,) RIGHT, WRONG or UNKNOWN.
    """

    early: Tensor
    ends: Directed
    target: Tensor
    label: Tensor


def matched_sets(model: RayDiffuser, folder: Path, seed: int = 0) -> list[MatchedSet]:
    """One set of VIEWS views of each scene of a data set's folder, as the network matches them.

    Raises FileNotFoundError for a folder without shards.
    """
    scenes = SceneSet.load([folder], None)
    sampler = SetSampler(scenes, model.config.grid)
    generator = torch.Generator().manual_seed(seed)
    plan = default_plan(model.config, model.noise_scheduler)
    found = []
    for scene in tqdm(range(scenes.scenes), desc=f'matching {folder.name}', unit='scene'):
        count = min(VIEWS, int(scenes.count[scene]))
        views = torch.randperm(int(scenes.count[scene]), generator=generator)[:count]
        index = torch.stack([torch.full_like(views, scene), views], dim=1)
        found.append(_matched_set(model, sampler, index, plan, generator))
    return found


@torch.inference_mode()
def _matched_set(model, sampler: SetSampler, index: Tensor, plan, generator) -> MatchedSet:
    batch = sampler.batch(index[None])
    features, early = model.feature_extractor.with_early(batch.images[0].float() / 255)
    count = len(index)
    order = torch.stack([torch.arange(count).roll(-k) for k in range(count)])
    context = model.condition(features[None], batch.directions, order)
    sampled = sample(model, context, plan, samples=count, generator=generator)
    matches = model.mutual_matches(sampled.matching, order)
    grid = early.shape[-1]
    ends = both_ways(matches, SIZE / (2 * model.config.grid), grid)
    scene, view = index.unbind(dim=1)
    scenes = sampler.scenes
    geometry = (x[scene, view].double() for x in (scenes.matrix, scenes.rotation))
    shift = scenes.translation[scene, view].double()
    target, label = truth(ends, scenes.depth[scene, view].double(), *geometry, shift)
    return MatchedSet(early.half(), ends, target.float(), label)


def truth(ends: Directed, depth: Tensor, K: Tensor, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Where places lie in the other view, (K, 2) pixels or nan, and labels (K,).

    depth (N, 28, 28), K (N, 3, 3), R (N, 3, 3), t (N, 3) of the views, as in `dataset`. Where
    depth is not known, a place that is off its epipolar line is still known to be wrong.
    """
    side = depth.shape[-1]
    x, y = ends.place.clamp(max=side - 1).unbind(dim=1)
    z = torch.where((ends.place < side).all(dim=1), depth[ends.view, y, x], torch.nan)
    far, known = z.isinf(), ~z.isnan()
    relative = R[ends.other] @ R[ends.view].transpose(1, 2)
    shift = t[ends.other] - (relative @ t[ends.view].unsqueeze(-1)).squeeze(-1)
    ones = torch.ones(len(z), 1).to(K)
    pixel = torch.cat([place_pixels(ends.place).to(K), ones], dim=1)
    ray = (relative @ K[ends.view].inverse() @ pixel.unsqueeze(-1)).squeeze(-1)
    # what is infinitely far is seen in the same direction from everywhere
    point = (
        ray * torch.where(known & ~far, z, 1.0)[:, None]
        + torch.where(far, 0.0, 1.0)[:, None] * shift
    )
    ahead = point[:, 2] > 0
    at = (K[ends.other] @ point.unsqueeze(-1)).squeeze(-1)
    at = at[:, :2] / at[:, 2:].clamp(min=1e-6)
    about = place_pixels(ends.about).to(K)
    off = (at - about).abs().amax(dim=1)
    x, y = ((at - 0.5) / (SIZE / side)).round().nan_to_num(0).long().clamp(0, side - 1).unbind(1)
    there = depth[ends.other, y, x]
    differs = (there - point[:, 2]).abs() > _OCCLUDED * point[:, 2]
    hidden = ~there.isnan() & torch.where(far, ~there.isinf(), differs)
    label = torch.full((len(z),), UNKNOWN)
    label[known & ahead & (off < _RIGHT) & ~hidden] = RIGHT
    label[known & (~ahead | (off > _WRONG))] = WRONG
    lines = torch.linalg.cross(shift, ray)  # planes through both centres, in the other's frame
    lines = (K[ends.other].inverse().transpose(1, 2) @ lines.unsqueeze(-1)).squeeze(-1)
    along = lines[:, :2].norm(dim=1).clamp(min=1e-12)
    beside = ((lines[:, :2] * about).sum(dim=1) + lines[:, 2]).abs() / along
    label[~known & (beside > _RIGHT)] = WRONG
    right = label == RIGHT
    return torch.where(right[:, None], at, torch.nan), label


def fit_locator(
    groups: Sequence[Sequence[MatchedSet]],
    steps: int,
    seed: int = 0,
    width: int = WIDTH,
    start: Locator | None = None,
    keep: Callable[[Locator, int], None] | None = None,
) -> Locator:
    """A locator trained for so many steps; each group of sets is drawn from as often.

    Training goes on from `start`, which is left as it is, in place of a new one of this `width`.
    `keep` is given the weights' average and the steps made, once a minute.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    locator = _new_locator(groups, width) if start is None else copy.deepcopy(start).train()
    locator.requires_grad_(True)
    average = copy.deepcopy(locator)
    optimiser = torch.optim.AdamW(locator.parameters(), _RATE, weight_decay=_DECAY)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: _slope(k, steps))
    bar = tqdm(range(steps), desc='locator', unit='step')
    kept_at = time.monotonic()
    for step in bar:
        optimiser.zero_grad()
        for _ in range(_SETS):
            group = groups[int(torch.randint(len(groups), (), generator=generator))]
            drawn = group[int(torch.randint(len(group), (), generator=generator))]
            loss = set_loss(locator, drawn, generator)
            if loss is not None:
                (loss / _SETS).backward()
                bar.set_postfix(loss=f'{loss.item():.2f}', refresh=False)
        torch.nn.utils.clip_grad_norm_(locator.parameters(), 1.0)
        optimiser.step()
        rate.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), locator.parameters(), strict=True):
                kept.lerp_(new, max(_AVERAGE, 1 / (step + 2)))
        if keep is not None and time.monotonic() - kept_at > _KEPT:
            keep(copy.deepcopy(average).eval().requires_grad_(False), step + 1)
            kept_at = time.monotonic()
    return average.eval().requires_grad_(False)


def _new_locator(groups: Sequence[Sequence[MatchedSet]], width: int) -> Locator:
    shown = torch.cat([s.early[:2].float() for group in groups for s in group[:64]])
    locator = Locator(shown.shape[1], width)
    locator.mean.copy_(shown.mean(dim=(0, 2, 3)))
    locator.std.copy_(shown.std(dim=(0, 2, 3)).clamp(min=1e-3))
    return locator


def _slope(step: int, steps: int) -> float:
    """Share of the rate: up over the first steps, down along half a cosine."""
    down = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1, (step + 1) / _WARM) * (_LEAST + (1 - _LEAST) * down)


def set_loss(locator: Locator, of: MatchedSet, generator: torch.Generator) -> Tensor | None:
    """Loss of some matches of a set, looked for a step beside where they were found, in part.

    Cross-entropy of being right, and the likelihood of the place under a Laplace distribution in
    two dimensions. None where too few matches are known.
    """
    known = torch.nonzero(of.label != UNKNOWN).squeeze(1)
    if len(known) < _FEWEST:
        return None
    known = known[torch.randperm(len(known), generator=generator)[:_MATCHES]]
    ends, target, label = Directed(*(x[known] for x in of.ends)), of.target[known], of.label[known]
    beside = torch.randint(-1, 2, ends.about.shape, generator=generator)
    beside = beside * (torch.rand(len(known), 1, generator=generator) < _JITTERED)
    side = of.early.shape[-1]
    ends = ends._replace(about=(ends.about + beside).clamp(0, side))
    found = locator(locator.describe(of.early.float()), *ends)
    loss = functional.binary_cross_entropy_with_logits(found.right, label.float())
    within = (target - place_pixels(ends.about)).abs().amax(dim=1) < _WRONG  # false for nan
    if within.any():
        error = (found.at[within] - target[within]).square().sum(dim=1).clamp(min=1e-6).sqrt()
        deviation = found.deviation[within]
        loss = loss + _PLACING * (2 * deviation.log() + 2 * error / deviation).mean()
    return loss


@dataclass(frozen=True)
class Placed:
    """Median distances (pixels) of right matches from the truth, as the network had them and as
    they were located, and the log loss (nats) of their being right."""

    before: float
    after: float
    log_loss: float


@torch.inference_mode()
def measure(locator: Locator, sets: Sequence[MatchedSet]) -> Placed:
    """How well matches are placed. Raises ValueError where no match's truth is known."""
    before, after, losses = [], [], []
    for of in sets:
        known = of.label != UNKNOWN
        ends = Directed(*(x[known] for x in of.ends))
        found: Located = locator(locator.describe(of.early.float()), *ends)
        label, target = of.label[known], of.target[known]
        right = label == RIGHT
        before.append((place_pixels(ends.about) - target)[right].norm(dim=1))
        after.append((found.at - target)[right].norm(dim=1))
        losses.append(
            functional.binary_cross_entropy_with_logits(
                found.right, label.float(), reduction='none'
            )
        )
    if not before or not sum(map(len, before)):
        raise ValueError('no right match of these sets is known')
    return Placed(
        *(float(np.median(torch.cat(x).numpy())) for x in (before, after)),
        float(torch.cat(losses).mean()),
    )


def match_folders(
    model: RayDiffuser, folders: Sequence[Path], seed: int, draws: int = 1
) -> list[list[MatchedSet]]:
    """`matched_sets` of each folder, so many of each scene; folders are checked before hours are
    spent."""
    for folder in folders:
        find_shards(folder)
    return [
        [of for draw in range(draws) for of in matched_sets(model, folder, seed + k + 100 * draw)]
        for k, folder in enumerate(folders)
    ]
