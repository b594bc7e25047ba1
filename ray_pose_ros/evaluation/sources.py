"""Where sequences come from: small descriptions that a worker process turns into sequences."""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence as Sequential
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ray_pose_ros.estimation.views import View

from . import co3d, colmap_model
from .sequences import LazyViews, Sequence, read_folder, render_scene

# The official evaluation disturbs boxes as its training does: scale and shift, of the side.
JITTER_SCALE, JITTER_SHIFT = (1.1, 1.2), 0.07
_USUAL_SCALE = 1.15  # of the crops about a box, here: what the jitter's scale is centred on
RENDERED = 'rendered'


@dataclass(frozen=True)
class Source:
    """One sequence to evaluate.

    Attributes:
        kind: 'folder', 'rendered', 'co3d' or 'colmap'.
        data: what it is counted under in the tables.
        family: groups of one family are averaged too.
        path: of the folder, category or model; '' for rendered ones.
        name: of the sequence in a category.
        seed, size: of a rendered scene, and the side of its views in pixels.
        images: folder of a COLMAP model's photographs, or ''.
        subset, split: of CO3D's list.
        share: the number of subsets is divided by this.
        jitter: disturb the boxes as the official evaluation does, by this seed; -1 for not.
        intrinsics: whether the methods are given them.
    """

    kind: str
    data: str
    family: str
    path: str = ''
    name: str = ''
    seed: int = 0
    size: int = 224
    images: str = ''
    subset: str = 'fewview_dev'
    split: str = 'test'
    share: int = 1
    jitter: int = -1
    intrinsics: bool = True

    @property
    def label(self) -> str:
        """For progress and messages."""
        return f'{self.data} {self.name or self.seed}' if self.kind != 'folder' else self.data

    def load(self) -> Sequence:
        """The sequence; ValueError where it cannot be read."""
        if self.kind == 'folder':
            sequence = read_folder(Path(self.path))
        elif self.kind == 'rendered':
            sequence = render_scene(self.seed, size=self.size)
        elif self.kind == 'co3d':
            sequence = co3d.read_sequence(Path(self.path), self.name, self.subset, self.split)
        else:
            images = Path(self.images) if self.images else None
            sequence = colmap_model.read_colmap_sequence(Path(self.path), images, self.data)
        return self._as_asked(sequence)

    def fingerprint(self) -> str:
        """Changes with what is described, and with the files that hold the truth."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        names = {
            'folder': ('poses.json',),
            'rendered': (),
            'co3d': (
                'frame_annotations.jgz',
                'sequence_annotations.jgz',
                f'set_lists/set_lists_{self.subset}.json',
            ),
            'colmap': ('cameras.bin', 'images.bin', 'cameras.txt', 'images.txt'),
        }[self.kind]
        for name in names:
            path = Path(self.path) / name
            if path.is_file():
                digest.update(name.encode() + path.read_bytes())
        return digest.hexdigest()

    def with_intrinsics(self) -> 'Source':
        """The same, with its intrinsics shown."""
        return replace(self, intrinsics=True)

    def _as_asked(self, sequence: Sequence) -> Sequence:
        if self.jitter < 0 and self.intrinsics:
            return sequence
        views = sequence.views
        key = zlib.crc32(sequence.name.encode())

        def change(index: int) -> View:
            view = views[index]
            if not self.intrinsics:
                view = replace(view, camera=None)
            if self.jitter >= 0 and view.object_box is not None:
                rng = np.random.default_rng([self.jitter, key, index])
                view = replace(view, box=jittered(view.object_box, rng), mask=None)
            return view

        return replace(sequence, views=LazyViews(len(views), change))


def jittered(box: Sequential[float], rng: np.random.Generator) -> tuple[float, ...]:
    """A square box whose crop at the usual scale is the official evaluation's disturbed crop."""
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    scale = rng.uniform(*JITTER_SCALE) / _USUAL_SCALE
    x, y = np.array([x0 + x1, y0 + y1]) / 2 + rng.uniform(-JITTER_SHIFT, JITTER_SHIFT, 2) * side
    half = side * scale / 2
    return float(x - half), float(y - half), float(x + half), float(y + half)


def find_sources(
    folders: Sequential[Path],
    rendered: int = 0,
    rendered_size: int = 224,
    images: Path | None = None,
    only: Sequential[str] = (),
    subset: str = 'fewview_dev',
    split: str = 'test',
    least_views: int = 8,
    jitter: int = -1,
    intrinsics: bool = True,
) -> list[Source]:
    """The sequences in these folders, each recognised by what is in it, and rendered scenes.

    Args:
        folders: with `poses.json`; with a COLMAP model; of CO3D, the root or one category.
        rendered: number of scenes of the test split, seeds from 0.
        rendered_size: side of their views, pixels.
        images: the photographs of COLMAP models, where they are not in `images/`.
        only: categories of CO3D to take, all if empty.
        subset, split: CO3D's list.
        least_views: sequences of CO3D with fewer frames are left out.
        jitter, intrinsics: see `Source`.

    Raises ValueError for a folder with nothing in it, two of the same name, or images of no
    COLMAP model.
    """
    common = {'jitter': jitter, 'intrinsics': intrinsics}
    found: list[Source] = []
    for folder in map(Path, folders):
        path = os.path.abspath(folder)  # a link has a name of its own
        name = os.path.basename(path)
        if (folder / 'poses.json').is_file():
            found.append(Source('folder', name, 'folders', path, **common))
        elif model := colmap_model.find_model(folder):
            text = '' if images is None else str(Path(images).resolve())
            path = str(model.resolve())
            found.append(Source('colmap', name, 'folders', path, name=name, images=text, **common))
        elif categories := co3d.categories(folder):
            unknown = set(only) - {category.name for category in categories}
            if unknown:
                raise ValueError(f'{folder}: no category {", ".join(sorted(unknown))} in it')
            for category in categories:
                kind = 'unseen' if category.name in co3d.UNSEEN else 'seen'
                if only and category.name not in only:
                    continue
                found += [
                    Source(
                        'co3d',
                        category.resolve().name,
                        f'CO3D categories ({kind} by the official network)',
                        str(category.resolve()),
                        name=sequence,
                        subset=subset,
                        split=split,
                        **common,
                    )
                    for sequence in co3d.sequence_names(category, subset, split, least_views)
                ]
        else:
            raise ValueError(
                f'{folder}: no poses.json in it, no COLMAP model and nothing of CO3Dv2'
            )
    if images is not None and not any(source.kind == 'colmap' for source in found):
        raise ValueError(f'images are in {images}, but no folder is read as a COLMAP model')
    single = [source.data for source in found if source.kind != 'co3d']
    for name in single:
        if single.count(name) > 1:
            raise ValueError(f'two folders are called {name}; their figures would be mixed')
    # spread the subsets over the objects
    found += [
        Source('rendered', RENDERED, RENDERED, seed=seed, size=rendered_size, share=10, **common)
        for seed in range(rendered)
    ]
    return found
