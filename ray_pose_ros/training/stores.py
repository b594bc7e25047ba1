"""Large arrays with one entry a view: left on disk, or all on a GPU."""

from collections.abc import Sequence

import numpy as np
import torch


class ViewStore:
    """Shards (S, V, ...) of features or images, read as they are needed.

    Indexed by scenes and views, integer tensors of one shape (...): a tensor (..., C, h, w), or
    (..., h, w, C) for images.
    """

    def __init__(self, shards: Sequence[np.ndarray]):
        self.shards = shards
        self.shard = np.repeat(np.arange(len(shards)), [len(shard) for shard in shards])
        self.row = np.concatenate([np.arange(len(shard)) for shard in shards])

    def __getitem__(self, index: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        scene, view = index
        found = [
            self.shards[self.shard[s]][self.row[s], v]
            for s, v in zip(scene.flatten().tolist(), view.flatten().tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(found)).unflatten(0, scene.shape)

    def to(self, device: torch.device) -> 'DeviceStore':
        """The same, all of it in the device's memory."""
        return DeviceStore(self.shards, device)


class DeviceStore:
    """A ViewStore in the memory of a GPU."""

    def __init__(self, shards: Sequence[np.ndarray], device: torch.device):
        views = np.concatenate([np.full(len(shard), shard.shape[1]) for shard in shards])
        self.start = torch.from_numpy(np.cumsum(views) - views).to(device)
        first = torch.from_numpy(shards[0])
        self.flat = torch.empty(
            (int(views.sum()), *first.shape[2:]), dtype=first.dtype, device=device
        )
        filled = 0
        for shard in shards:
            part = torch.from_numpy(np.ascontiguousarray(shard)).flatten(0, 1)
            self.flat[filled : filled + len(part)] = part.to(device)
            filled += len(part)

    def __getitem__(self, index: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        scene, view = index
        return self.flat[self.start[scene] + view]
