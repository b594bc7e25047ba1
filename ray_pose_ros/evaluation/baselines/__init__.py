"""What a user would pick instead of the model: feature matching with known intrinsics.

Each is a Method of `evaluation.methods`. A view that could not be placed is said so; views need
their cameras, of any central model. See `create` for the names and options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_pose_ros.evaluation.methods import Method

NAMES = ('colmap', 'lightglue-colmap', 'sift-pairs', 'lightglue-pairs')


def create(name: str, options: dict[str, Any]) -> Method:
    """A baseline by its name.

    - `colmap`: COLMAP as it comes, with its own SIFT and incremental mapper (pycolmap).
    - `lightglue-colmap`: learned features and matches into the same mapper.
    - `sift-pairs`: OpenCV only: SIFT, an essential matrix a pair, rotations and then centres
      averaged over all pairs.
    - `lightglue-pairs`: the same with learned features and matches.

    Options: `matcher` (of ray_pose_ros.matching; `aliked` for lightglue-*), `max_side` and
    `max_features` of an image, `device` of the learned ones, `min_inliers` of a pair, `seed`, and
    for the mapper `threads` (1, so that answers are the same each time).
    Raises ValueError for an unknown option, MethodUnavailable where a package is missing.
    """
    from ray_pose_ros.evaluation.methods import MethodUnavailable, read_options
    from ray_pose_ros.matching import MatcherUnavailable, create_matcher

    known = {'max_side': int, 'max_features': int, 'min_inliers': int, 'seed': int}
    learned, mapped = name.startswith('lightglue'), name.endswith('colmap')
    if learned:
        known |= {'matcher': str, 'device': str}
    if mapped:
        known['threads'] = int
    found = read_options(name, options, known)
    seed = found.pop('seed', 0)
    own = {key: found.pop(key) for key in ('min_inliers', 'threads') if key in found}
    try:
        if name == 'colmap':
            from .colmap_sift import ColmapSift

            matcher = ColmapSift(threads=own.get('threads', 1), **found)
        else:
            if found.get('device') == 'auto':
                found['device'] = _best_device()
            kind = found.pop('matcher', 'aliked' if learned else 'sift')
            matcher = create_matcher(kind, **found)
        if mapped:
            from .colmap import ColmapMethod

            return ColmapMethod(name, matcher, seed=seed, **own)
    except (MatcherUnavailable, ImportError) as error:
        raise MethodUnavailable(f'method {name}: {error}') from error
    from .pairwise import PairwiseMethod

    return PairwiseMethod(name, matcher, **own)


def _best_device() -> str:
    import torch

    return 'cuda' if torch.cuda.is_available() else 'cpu'
