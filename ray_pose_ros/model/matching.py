"""Explicit correspondence as input: which patch of one view looks like which of another.

A set transformer on image features alone takes very long to discover matching. Here descriptors
on a grid twice as fine as the rays' are compared between views, and the denoiser is told for each
patch where in the reference view its best matches lie and how sure they are. Similarities between
all pairs of views bias the attention that runs over views.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .alignment import align_points
from .efficientnet import TAPS, unstack_fine

# How matches are put between cells. With half the logits for a wider reach, and a little more than
# half of the way, right matches lie a tenth nearer to their epipolar lines (median) than with all
# of the logits and half of the way, on photographs as on rendered objects.
_SOFTER, _MOVED = 0.5, 0.65
# Half of the matches are right whose cells choose each other with this probability; of others, the
# odds are in proportion. On photographs and on rendered objects alike.
EVEN = 0.05


class Matcher(nn.Module):
    """Descriptors on the stride-16 grid and what their comparison says."""

    temperatures = 2
    channels = 4 * 4 * temperatures  # 2x2 fine cells; slope x, slope y, confidence, cycle

    def __init__(self, width: int, hidden: int = 128):
        super().__init__()
        self.describe = nn.Sequential(
            nn.Conv2d(sum(TAPS.values()), hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, width, 3, padding=1),
        )
        self.pool = nn.Conv2d(width, width, 2, stride=2)
        self.log_temperature = nn.Parameter(torch.tensor([10.0, 30.0]).log())

    def descriptors(self, features: Tensor) -> Tensor:
        """Features (B, N, 928, g, g) -> unit descriptors (B, N, 4 g^2, width), row-major."""
        maps = self.describe(unstack_fine(features.flatten(0, 1)))  # (B N, width, 2g, 2g)
        descriptors = functional.normalize(maps.flatten(2).transpose(1, 2), dim=-1)
        return descriptors.unflatten(0, features.shape[:2])

    def evidence(self, descriptors: Tensor, slopes: Tensor) -> Tensor:
        """Matches of each view's cells in the first view, (B, N, channels, g, g).

        `slopes` (B, M, 2) are those of the first view's fine cells.
        """
        return match_evidence(descriptors, slopes, self.log_temperature.exp())

    def pooled(self, descriptors: Tensor) -> Tensor:
        """Unit descriptors of ray patches (B, N, g^2, width) from those of their fine cells."""
        batch, views, cells, width = descriptors.shape
        side = int(cells**0.5)
        maps = descriptors.transpose(2, 3).reshape(batch * views, width, side, side)
        pooled = functional.normalize(self.pool(maps).flatten(2), dim=1)  # (B N, width, g^2)
        return pooled.transpose(1, 2).unflatten(0, (batch, views))


class Rematcher(nn.Module):
    """Matching again between blocks, when tokens know about the other views.

    Each token corrects the descriptors of its 2x2 fine cells, says which of them the first view
    sees too, and how deep they lie. Ambiguous texture is so resolved by what the rest of the views
    suggest, as in matchers that attend across images before they match (SuperGlue, LoFTR). The
    matched points are laid onto each other in closed form, which proposes a camera. What matching
    and proposal say is added to the tokens. Begins as no change at all.
    """

    # 2x2 cells: slope x, slope y, confidence, cycle, seen; proposed ray; quality of the proposal;
    # the cells' residuals
    channels = 4 * 5 + 6 + 2 + 4

    def __init__(self, width: int, matching: int):
        super().__init__()
        self.correct = nn.Linear(width, 4 * (matching + 2))
        self.tell = nn.Linear(self.channels, width)
        self.log_temperature = nn.Parameter(torch.tensor([16.0]).log())
        for linear in (self.correct, self.tell):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, y: Tensor, descriptors: Tensor, slopes: Tensor, base: Tensor) -> 'Rematch':
        """Tokens y (B, N g^2, D), descriptors (B, N, M, width), slopes (B, N, M, 2) of the fine
        cells, rays `base` (B, N, 6, g, g) of the unrotated camera at distance 1."""
        views, grid = base.shape[1], base.shape[-1]
        change = self.correct(functional.layer_norm(y, y.shape[-1:]))
        change = change.unflatten(1, (views, grid, grid)).permute(0, 1, 4, 2, 3)
        change = functional.pixel_shuffle(change, 2).flatten(3).transpose(2, 3)
        seen, change, depth = change[..., 0], change[..., 1:-1], change[..., -1]
        descriptors = functional.normalize(descriptors + change, dim=-1)
        scale = self.log_temperature.exp()
        found = match_evidence(descriptors, slopes[:, 0], scale, seen)
        points = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
        points = points * depth.clamp(-2, 2).exp().unsqueeze(-1)
        proposal = propose(points, scale * reference_similarity(descriptors), seen, base)
        found = torch.cat([found, proposal.to(found.dtype)], dim=2)
        y = y + self.tell(found.flatten(3).transpose(2, 3).flatten(1, 2))
        return Rematch(y, descriptors, seen, depth)


class Rematch(NamedTuple):
    """What a Rematcher returns.

    Tokens (B, N g^2, D), corrected descriptors (B, N, M, width), logits (B, N, M) of each fine
    cell's being seen in the first view, and log z-depth (B, N, M) in units of the first camera's
    distance.
    """

    tokens: Tensor
    descriptors: Tensor
    seen: Tensor
    depth: Tensor


class MutualMatches(NamedTuple):
    """K matches of E pairs of views; cells are places in the grid of fine cells.

    Pairs (E, 2) of view numbers i < j; `pair` (K,) which one a match is of; cells (K, 2) of views
    i and j, (x, y) in units of a cell, the first cell's centre at (0.5, 0.5); `seen` (K,) the
    probability that both views see the point; `chosen` (K,) that of the two cells choosing each
    other among all. Where they were located within cells (`locating.py`): `right` (K,) the
    probability that the match is one, and `deviation` (K,) of its x and y, cells; else None.
    """

    pairs: Tensor
    pair: Tensor
    cell_i: Tensor
    cell_j: Tensor
    seen: Tensor
    chosen: Tensor
    right: Tensor | None = None
    deviation: Tensor | None = None

    def likelihood(self) -> Tensor:
        """How likely (K,) each is right, by what is known before it is located."""
        return self.seen * self.chosen / (self.chosen + EVEN)

    def take(self, which: Tensor) -> 'MutualMatches':
        """Those of a mask (K,) bool."""
        rest = (None if x is None else x[which] for x in self[1:])
        return MutualMatches(self.pairs, *rest)


@torch.inference_mode()
def mutual_matches(found: Rematch, scale: Tensor, order: Tensor) -> MutualMatches:
    """Matches of a window's views with each that has been the first one.

    Args:
        found: what repeated matching found in S windows of the same N views.
        scale: by which cosines become logits.
        order: (S, N) view numbers; the first of each window is its reference.

    Two views that both were references have been compared twice; logits are averaged. Kept are
    cells that choose each other, moved to where the neighbours of the match draw them.
    """
    descriptors, seen = found.descriptors.float(), found.seen.float()
    logits = scale.float() * reference_similarity(descriptors)  # (S, N, M, M)
    numbers = order.tolist()
    keys = sorted({(min(o[0], k), max(o[0], k)) for o in numbers for k in o[1:]})
    place = {key: e for e, key in enumerate(keys)}
    cells = logits.shape[-1]
    total = logits.new_zeros(len(keys), cells, cells)
    times = logits.new_zeros(len(keys), 1, 1)
    # logits that a cell is seen in the other view: of view i's cells, of view j's
    sight = logits.new_zeros(2, len(keys), cells)
    for s, window in enumerate(numbers):
        for p, view in enumerate(window[1:], 1):
            first = window[0]
            e = place[min(first, view), max(first, view)]
            total[e] += logits[s, p] if view < first else logits[s, p].T
            sight[int(view > first), e] += seen[s, p]
            times[e] += 1
    total = total / times
    best, back = total.argmax(dim=-1), total.argmax(dim=-2)
    own = torch.arange(cells, device=best.device)
    pair, a = torch.nonzero(back.gather(1, best) == own, as_tuple=True)
    b = best[pair, a]
    # a cell of a view that never was compared with the other as reference has a logit of 0
    told = (sight[0, pair, a] + sight[1, pair, b]) / times[pair, 0, 0]
    of_a, of_b = total.logsumexp(dim=-1), total.logsumexp(dim=-2)
    chosen = 2 * total[pair, a, b] - of_a[pair, a] - of_b[pair, b]
    return MutualMatches(
        torch.tensor(keys).reshape(-1, 2),
        pair,
        _cell_centre(total[pair, :, b], a),
        _cell_centre(total[pair, a], b),
        told.sigmoid(),
        chosen.exp(),
    )


def _cell_centre(logits: Tensor, cell: Tensor) -> Tensor:
    """(x, y) of a cell (K,), moved towards where its 3x3 neighbourhood's logits (K, M) draw it.

    Both sides of a match are moved, so that each takes its share of what they are off.
    """
    side = int(logits.shape[1] ** 0.5)
    y, x = cell // side, cell % side
    maps = functional.pad(logits.unflatten(1, (side, side)), (1, 1, 1, 1), value=-1e4)
    step = torch.arange(3, device=cell.device)
    rows = torch.arange(len(cell), device=cell.device)[:, None, None]
    near = maps[rows, y[:, None, None] + step[:, None], x[:, None, None] + step]
    share = (_SOFTER * near).flatten(1).softmax(dim=-1).unflatten(1, (3, 3))
    offset = torch.stack(
        [(share.sum(1) * (step - 1)).sum(1), (share.sum(2) * (step - 1)).sum(1)], 1
    )
    return torch.stack([x, y], dim=1) + 0.5 + _MOVED * offset


@torch.no_grad()
def propose(points: Tensor, logits: Tensor, seen: Tensor, base: Tensor) -> Tensor:
    """Rays of the cameras that matched points suggest, (B, N, 6 + 2 + 4, g, g).

    Args:
        points: of each view's fine cells in its own camera's frame, (B, N, M, 3).
        logits: of matching each cell with the first view's, (B, N, M, M).
        seen: logits that the first view sees the cell, (B, N, M).
        base: rays of the unrotated camera at distance 1, (B, N, 6, g, g).

    Returns the proposed rays less the base, the share of cells that agree and their rms distance,
    and each fine cell's distance from where its match lies.
    """
    grid = base.shape[-1]
    with torch.autocast(base.device.type, enabled=False):  # angles need the digits
        points, forth = points.float(), logits.float().softmax(dim=-1)
        targets = forth @ points[:, :1]
        weights = seen.float().sigmoid() * forth.amax(dim=-1)
        found = align_points(points, targets, weights)
        directions = found.R @ base[:, :, :3].float().flatten(3)  # (B, N, 3, P)
    centre = found.t - found.t.new_tensor([0.0, 0.0, 1.0])  # the object is the origin
    moments = torch.linalg.cross(centre[..., None].expand_as(directions), directions, dim=2)
    rays = torch.cat([directions, moments], dim=2).unflatten(-1, (grid, grid)) - base
    total = found.weights.sum(dim=-1).clamp(min=1e-6)
    spread = ((found.weights * found.residuals.square()).sum(dim=-1) / total).sqrt()
    quality = torch.stack([total / found.weights.shape[-1], spread.clamp(max=2)], dim=-1)
    quality = quality[..., None, None].expand(*quality.shape, grid, grid)
    residuals = found.residuals.clamp(max=2).unflatten(-1, (2 * grid, 2 * grid))
    residuals = functional.pixel_unshuffle(residuals.unsqueeze(2), 2)
    # the first view is known: nothing to propose
    rays = torch.cat([torch.zeros_like(rays[:, :1]), rays[:, 1:].clamp(-3, 3)], dim=1)
    return torch.cat([rays, quality, residuals], dim=2)


def match_evidence(
    descriptors: Tensor, slopes: Tensor, temperatures: Tensor, seen: Tensor | None = None
) -> Tensor:
    """What matching with the first view says, (B, N, 16 a temperature, g, g).

    For each fine cell and temperature: the expected slope (x/z, y/z) of the matching ray in the
    reference camera, the largest matching probability, and the probability of matching forth and
    back to the same cell. Descriptors (B, N, M, width), `slopes` (B, M, 2) of the first view.
    With logits `seen` (B, N, M) all is multiplied by the probability that the first view sees the
    cell, which is given too (4 channels more).
    """
    side = int(descriptors.shape[2] ** 0.5)
    logits = reference_similarity(descriptors)
    kept = []
    for scale in temperatures:
        forth = (scale * logits).softmax(dim=-1)
        back = (scale * logits).softmax(dim=-2)
        kept += [
            forth @ slopes[:, None],
            forth.amax(dim=-1, keepdim=True),
            (forth * back).sum(dim=-1, keepdim=True),
        ]
    if seen is not None:
        share = seen.sigmoid().unsqueeze(-1)
        kept = [share * part for part in kept] + [share]
    maps = torch.cat(kept, dim=-1).transpose(2, 3).unflatten(-1, (side, side))
    return functional.pixel_unshuffle(maps, 2)


def token_similarity(pooled: Tensor) -> Tensor:
    """Cosines between the ray patches of all views, (B, N, P, width) -> (B, N P, N P)."""
    flat = pooled.flatten(1, 2)
    return flat @ flat.transpose(1, 2)


def reference_similarity(descriptors: Tensor) -> Tensor:
    """Cosines (B, N, M, M) of each view's cells with those of the first view."""
    return descriptors @ descriptors[:, :1].transpose(2, 3)


def fine_slopes(directions: Tensor) -> Tensor:
    """Slopes (x/z, y/z) on a grid twice as fine, (..., 3, g, g) -> (..., 4 g^2, 2), row-major.

    Slopes are interpolated between patch centres and extrapolated linearly at the border.
    """
    lead = directions.shape[:-3]
    directions = directions.reshape(-1, *directions.shape[-3:])
    slopes = directions[:, :2] / directions[:, 2:].clamp(min=1e-3)
    for dim in (-1, -2):
        first, last = slopes.narrow(dim, 0, 2), slopes.narrow(dim, slopes.shape[dim] - 2, 2)
        before = 2 * first.narrow(dim, 0, 1) - first.narrow(dim, 1, 1)
        after = 2 * last.narrow(dim, 1, 1) - last.narrow(dim, 0, 1)
        slopes = torch.cat([before, slopes, after], dim=dim)
    fine = functional.interpolate(slopes, scale_factor=2, mode='bilinear', align_corners=False)
    return fine[:, :, 2:-2, 2:-2].flatten(2).transpose(1, 2).unflatten(0, lead)
