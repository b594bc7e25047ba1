"""Rendered views on disk, and their image features, computed once.

A data set is a folder of `scenes_*.npz` shards, each with S scenes of V views:

    images (S, V, 224, 224, 3) uint8    square crops around the object
    depth  (S, V, 28, 28) float16       z-depth at every eighth pixel, inf where nothing is, nan
                                        where nobody knows (photographs)
    matrix (S, V, 3, 3) float32         K of the crop
    rotation (S, V, 3, 3), translation (S, V, 3) float32    world-to-camera
    centre (S, 3), up (S, 3) float32    object centre and upward direction, world
    seed   (S,) int64                   of the scene

A `.npy` file beside each caches the backbone's features of its views in half precision.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.distributed as distributed
from tqdm import tqdm

from ray_pose_ros.estimation.processes import one_thread_each

from .stores import ViewStore

DEPTH_STEP = 8  # pixels between the depth samples that are kept
SIZE = 224
VIEWS = 20
WHOLE = 0.15  # share of training scenes without boxes
SENSORS = ((640, 480), (480, 640), (640, 360), (512, 512))  # width, height


def render_dataset(
    folder: Path,
    scenes: int,
    split: str = 'train',
    first_seed: int = 0,
    views: int = VIEWS,
    workers: int = 2,
    shard: int = 16,
    library: Path | None = None,
    share: float = 0.0,
    whole: float = WHOLE,
    photographs: Path | None = None,
    photographed: float = 0.5,
) -> None:
    """Render `scenes` scenes into shards under `folder`; shards that exist are kept.

    A `share` of the objects is taken from a `library` of models (see synthetic/meshes.py), the
    others are generated. In a share `whole` of the training scenes there is no box: all views are
    the middle of the image, often closer, and in half of them the cameras stand on one side.
    A share `photographed` of the textures and surroundings is from packed `photographs` (see
    synthetic/photograph_packing.py).
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for start in range(0, scenes, shard):
        path = folder / f'scenes_{split}_{first_seed + start:08d}.npz'
        seeds = range(first_seed + start, first_seed + min(start + shard, scenes))
        if not path.exists():
            sources = (library, share, photographs, photographed)
            jobs.append((path, list(seeds), split, views, whole, *sources))
    work_through(_render_shard, jobs, workers, f'rendering {split} shards')


def work_through(
    work: Callable[[tuple], None], jobs: list[tuple], workers: int, what: str
) -> None:
    """Call `work` with each job in processes of their own, and show how far it is."""
    if not jobs:  # a pool that is stopped while it starts may hang
        return
    # spawned, so that numba and torch threads of the parent do not leak into the workers
    with one_thread_each(), get_context('spawn').Pool(workers) as pool:
        done = pool.imap_unordered(work, jobs)
        for _ in tqdm(done, total=len(jobs), desc=what, unit='shard'):
            pass
        # workers that are told to end, not killed: COLMAP prints a stack trace when it is
        pool.close()
        pool.join()


def write_shard(path: Path, scenes: list[dict[str, np.ndarray]]) -> None:
    """Write scenes' arrays, stacked by name; there is a whole file or none."""
    columns = {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}
    partial = path.with_suffix('.partial.npz')
    np.savez(partial, **columns)
    os.replace(partial, path)


def _render_shard(job: tuple) -> None:
    from ray_pose_ros.synthetic.meshes import MeshLibrary
    from ray_pose_ros.synthetic.photographs import Photographs, using

    path, seeds, split, views, whole, library, share, photographs, photographed = job
    models = MeshLibrary(library, split) if library else None
    pictures = Photographs(photographs, photographed) if photographs else None
    with using(pictures):
        scenes = [_render_scene(seed, split, views, models, share, whole) for seed in seeds]
    write_shard(path, scenes)


def _render_scene(
    seed: int,
    split: str,
    views: int,
    library=None,
    share: float = 0.0,
    whole_share: float = WHOLE,
) -> dict[str, np.ndarray]:
    """One scene's arrays; depends on the arguments only."""
    from ray_pose_ros.synthetic.cameras import sample_cameras
    from ray_pose_ros.synthetic.scenes import sample_scene
    from ray_pose_ros.synthetic.training_view import training_view

    rendered = []
    for attempt in range(10):
        scene = sample_scene(seed + attempt * 10**9, split, library=library, share=share)
        rng = np.random.default_rng([seed, split == 'test', 7 + attempt])
        size = SENSORS[rng.integers(len(SENSORS))]
        whole, closer, spread = False, 1.0, 360.0
        if split == 'train':  # the test split stays what earlier figures were measured on
            whole = rng.random() < whole_share
            closer = rng.uniform(1.0, 1.7) if whole and rng.random() < 0.6 else 1.0
            if whole and rng.random() < 0.5:
                spread = rng.uniform(60, 200)
        rolls = (1 / 6, 1 / 10) if split == 'train' else (1 / 12, 0.0)
        cameras = sample_cameras(
            rng,
            scene,
            2 * views,
            size,
            spread=spread,
            turned=rolls[0],
            loose_roll=rolls[1],
            closer=closer,
        )
        # clutter may hide the object: draw some cameras to spare, and keep what shows it
        for camera, rotation, translation in cameras:
            loose = 2.0 if whole else 0.2
            view = training_view(scene, camera, rotation, translation, rng, SIZE, loose=loose)
            if view.mask.mean() > 0.02:
                rendered.append(view)
            if len(rendered) == views:
                break
        if len(rendered) >= 2:
            break
        rendered.clear()  # hidden from everywhere: another scene stands in for it
    else:
        raise RuntimeError(f'scene {seed} of {split}: the object shows in no view')
    while len(rendered) < views:
        rendered.append(rendered[len(rendered) // 2])
    step = DEPTH_STEP
    return {
        'images': np.stack([view.image for view in rendered]),
        'depth': np.stack([view.depth[::step, ::step] for view in rendered]).astype(np.float16),
        'matrix': np.stack([view.K_crop for view in rendered]).astype(np.float32),
        'rotation': np.stack([view.R for view in rendered]).astype(np.float32),
        'translation': np.stack([view.t for view in rendered]).astype(np.float32),
        'centre': np.asarray(scene.centre, np.float32),
        'up': np.asarray(scene.up, np.float32),
        'seed': np.int64(seed),
    }


class SceneSet:
    """All views of one or more data-set folders.

    Indexed by scene and view: `features` and `images`, either a store or None, and tensors `depth`
    (S, V, 28, 28) float16, `matrix`, `rotation`, `translation`, `centre`, `up`. Folders may differ
    in the number of views a scene has: `count` (S,) says how many, and what lies beyond is a copy
    of the first.
    """

    def __init__(
        self,
        columns: dict[str, torch.Tensor],
        features: ViewStore | None = None,
        images: ViewStore | None = None,
    ):
        self.columns, self.features, self.images = columns, features, images
        self.__dict__.update(columns)
        self.scenes, self.views = self.rotation.shape[:2]

    @classmethod
    def load(cls, folders: Iterable[Path], backbone: torch.nn.Module | None) -> 'SceneSet':
        """Load folders with the backbone's features, computed where they are not cached yet.

        Without a backbone the images are kept instead, for a backbone that is trained too.
        """
        shards = [path for folder in folders for path in find_shards(Path(folder))]
        features = images = None
        arrays = [np.load(path) for path in shards]
        if backbone is None:
            images = ViewStore([array['images'] for array in arrays])
        else:
            features = ViewStore(_all_features(shards, backbone))
        rotations = [array['rotation'] for array in arrays]
        views = max(part.shape[1] for part in rotations)
        columns = {}
        for name in ('depth', 'matrix', 'rotation', 'translation'):
            parts = [_with_views(array[name], views) for array in arrays]
            columns[name] = torch.from_numpy(np.concatenate(parts))
        for name in ('centre', 'up'):
            columns[name] = torch.from_numpy(np.concatenate([array[name] for array in arrays]))
        count = np.concatenate([np.full(len(part), part.shape[1]) for part in rotations])
        columns['count'] = torch.from_numpy(count)
        return cls(columns, features, images)

    def to(self, device: torch.device) -> 'SceneSet':
        """Everything in the memory of a GPU, so that no batch has to be carried there."""
        columns = {name: column.to(device) for name, column in self.columns.items()}
        stores = [None if s is None else s.to(device) for s in (self.features, self.images)]
        return SceneSet(columns, *stores)


def find_shards(folder: Path) -> list[Path]:
    """The shards of a data set's folder, in order. FileNotFoundError where there are none."""
    shards = sorted(folder.glob('scenes_*[0-9].npz'))
    if not shards:
        raise FileNotFoundError(f'no scenes_*.npz in {folder}; render some first')
    return shards


def _with_views(column: np.ndarray, views: int) -> np.ndarray:
    """(S, V, ...) grown to `views` views with copies of the first."""
    spare = views - column.shape[1]
    return np.concatenate([column, np.repeat(column[:, :1], spare, axis=1)], axis=1)


def _all_features(shards: list[Path], backbone: torch.nn.Module) -> list[np.ndarray]:
    shared = distributed.is_available() and distributed.is_initialized()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)
    mark = fingerprint(backbone)
    for path in tqdm(shards[rank::world], desc='features', unit='shard', disable=rank > 0):
        _shard_features(path, backbone, mark)
    if shared:
        distributed.barrier()
    return [_shard_features(path, backbone, mark) for path in shards]


def _shard_features(path: Path, backbone: torch.nn.Module, mark: str) -> np.ndarray:
    cache = path.with_suffix(f'.{mark}.npy')
    if not cache.exists():
        images = torch.from_numpy(np.load(path)['images'])
        batches = images.flatten(0, 1).split(32)
        with torch.inference_mode():
            found = [backbone(batch.permute(0, 3, 1, 2) / 255).half() for batch in batches]
        found = torch.cat(found).unflatten(0, images.shape[:2])
        partial = cache.with_suffix('.partial.npy')
        np.save(partial, found.numpy())
        os.replace(partial, cache)
    return np.load(cache, mmap_mode='r')


def fingerprint(module: torch.nn.Module) -> str:
    """Short hash of a module's weights, to name what was computed with them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def feature_statistics(
    folder: Path, taps: Callable[[torch.Tensor], torch.Tensor], limit: int = 640
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation a channel of raw backbone features, over `limit` views."""
    images = np.load(find_shards(folder)[0])['images']
    images = torch.from_numpy(images).flatten(0, 1)[:limit]
    with torch.inference_mode():
        found = torch.cat([taps(x.permute(0, 3, 1, 2) / 255) for x in images.split(32)])
    return found.mean(dim=(0, 2, 3)), found.std(dim=(0, 2, 3)).clamp(min=1e-3)


def save_json(path: Path, values: dict) -> None:
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(values, indent=1) + '\n')
    os.replace(partial, path)
