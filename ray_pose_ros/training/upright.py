"""The head that tells which way up photographs are: examples of it, and its training.

Photographs are taken to be upright as they are. Of rendered views the truth is known; those that
look along the vertical, or are rolled by about 45 degrees, have no answer and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ray_pose_ros.estimation.images import find_images, read_image
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.upright import TURNS, UprightHead
from ray_pose_ros.synthetic.augment import augment
from ray_pose_ros.training.dataset import find_shards

WIDTH = 48
_FEW = 20  # a group of fewer examples is not drawn as often as the others
_STEEP, _AMBIGUOUS = 0.35, 30.0  # of the vertical within the image; degrees from a right angle
_BATCH, _RATE, _DECAY, _SMOOTHING, _AVERAGE = 48, 1.5e-3, 0.05, 0.05, 0.01


@dataclass(frozen=True)
class Examples:
    """Features (M, 4, C, g, g), half precision, of M upright crops turned by 0 to 3 right angles,
    and the group (M,) that each belongs to."""

    features: Tensor
    group: Tensor


def photograph_examples(
    model: RayDiffuser, folders: Sequence[Path], crops: int, seed: int = 0
) -> Examples:
    """Crops of the upright photographs in each folder, the first of each as it is.

    The others are shifted, scaled, rolled a little, disturbed, and half of them mirrored. Raises
    ValueError for a folder without images.
    """
    features, groups = [], []
    for group, folder in enumerate(tqdm(folders, desc='photographs', unit='folder')):
        rng = np.random.default_rng([seed, group])
        for path in find_images([folder]):
            image = read_image(path).pixels
            for number in range(crops):
                crop = _crop(image, model.config.image_size, rng if number else None)
                features.append(_turned_features(model, crop))
                groups.append(group)
    return Examples(torch.stack(features), torch.tensor(groups))


def rendered_examples(model: RayDiffuser, folders: Sequence[Path]) -> Examples:
    """The views of data-set folders (see `dataset`), each turned upright first."""
    shards = [path for folder in folders for path in find_shards(folder)]
    features = []
    for path in tqdm(shards, desc='rendered', unit='shard'):
        shard = np.load(path)
        images = shard['images']
        up = np.einsum('svij,sj->svi', shard['rotation'], shard['up'])
        for scene, view in np.ndindex(images.shape[:2]):
            turn = turned_by(up[scene, view])
            if turn is not None:
                upright = np.rot90(images[scene, view], -turn)
                features.append(_turned_features(model, upright))
    if not features:
        raise ValueError(f'no upright views in {", ".join(map(str, folders))}')
    return Examples(torch.stack(features), torch.zeros(len(features), dtype=torch.int64))


def turned_by(up: np.ndarray) -> int | None:
    """By how many right angles, counter-clockwise, a view is turned.

    up: (3,) the upward direction in its camera. None where the view looks along it, or is rolled
    too far from any right angle.
    """
    x, y, _ = up / np.linalg.norm(up)
    if np.hypot(x, y) < _STEEP:
        return None
    angle = np.degrees(np.arctan2(-x, -y))  # 0 is up, 90 is left
    turn = round(angle / 90)
    return turn % TURNS if abs(angle - 90 * turn) <= _AMBIGUOUS else None


def fit_head(
    model: RayDiffuser, examples: Sequence[Examples], steps: int = 3000, seed: int = 0
) -> RayDiffuser:
    """The model with a newly trained head; everything else stays as it is."""
    torch.manual_seed(seed)
    offsets = np.cumsum([0, *(int(e.group.max()) + 1 for e in examples)])
    features = torch.cat([e.features for e in examples])
    group = torch.cat([e.group + int(o) for e, o in zip(examples, offsets[:-1], strict=True)])
    weight = 1.0 / torch.bincount(group).clamp(min=_FEW)[group].float()
    config = replace(model.config, upright=WIDTH)
    head = _head(config, features.shape[2])
    average = _head(config, features.shape[2])
    average.load_state_dict(head.state_dict())
    optimiser = torch.optim.AdamW(head.parameters(), _RATE, weight_decay=_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, steps)
    bar = tqdm(range(steps), desc='head', unit='step')
    for _ in bar:
        chosen = torch.multinomial(weight, _BATCH, replacement=True)
        turn = torch.randint(TURNS, (_BATCH,))
        scores = head(features[chosen, turn].float())
        loss = functional.cross_entropy(scores, turn, label_smoothing=_SMOOTHING)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        rate.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), head.parameters(), strict=True):
                kept.lerp_(new, _AVERAGE)
        bar.set_postfix(loss=f'{loss.item():.2f}', refresh=False)
    return model.with_heads(upright=average)


@torch.inference_mode()
def accuracy(model: RayDiffuser, examples: Examples) -> tuple[float, float]:
    """Share of turned crops that are told rightly, and their mean log loss in nats."""
    truth = torch.arange(TURNS)
    told = torch.stack([model.turned(each) for each in examples.features])
    right = (told.argmax(-1) == truth).float().mean()
    return float(right), float(-told[:, truth, truth].mean())


def _head(config: ModelConfig, channels: int) -> UprightHead:
    return UprightHead(channels, config.grid, config.upright)


def _crop(image: np.ndarray, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """A square (size, size, 3) of an image; the largest in its middle without `rng`."""
    height, width = image.shape[:2]
    side, x, y, roll = min(height, width), width / 2, height / 2, 0.0
    if rng is not None:
        side *= rng.uniform(0.55, 1.15)
        x, y = x + rng.normal(0, 0.08) * width, y + rng.normal(0, 0.08) * height
        roll = rng.normal(0, 7)
    scale = size / side
    move = cv2.getRotationMatrix2D((x, y), roll, scale)
    move[:, 2] += size / 2 - np.array([x, y])
    if scale < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale)
    crop = cv2.warpAffine(image, move, (size, size), flags=cv2.INTER_LINEAR)
    if rng is None:
        return crop
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return augment(rng, np.ascontiguousarray(crop))


@torch.inference_mode()
def _turned_features(model: RayDiffuser, crop: np.ndarray) -> Tensor:
    """Features (4, C, g, g), half precision, of a crop (S, S, 3) uint8 turned by 0 to 3."""
    image = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255
    turns = torch.stack([torch.rot90(image, k, (1, 2)) for k in range(TURNS)])
    return model.encode(turns[:, None])[:, 0].half()
