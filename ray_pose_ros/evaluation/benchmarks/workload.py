"""What is measured, and on which views."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        views: numbers of views N. repeats: timed rounds.
        checkpoint: None for the model that ships. devices: torch's names, or 'auto'.
        steps, samples: None and 0 for what suits the model.
        scale: numbers of views for the scaling section.
        objects: rendered test objects for the accuracy section.
        official_size: measure the sampling loop on the full official architecture.
        loop_steps: length of its noise schedule.
        sets: folders of photographs with known cameras for the refinement section.
    """

    views: tuple[int, ...] = (2, 4, 8)
    repeats: int = 5
    checkpoint: Path | None = None
    devices: tuple[str, ...] = ('auto',)
    steps: int | None = None
    samples: int = 0
    scale: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    objects: int = 4
    official_size: bool = False
    loop_steps: int = 100
    sets: tuple[Path, ...] = ()

    def __post_init__(self):
        for name, values in (('views', self.views), ('scale', self.scale)):
            if not values or min(values) < 2:
                raise ValueError(f'--{name} is {list(values)}, expected 2 or more each')
        for name in ('repeats', 'objects'):
            if getattr(self, name) < 1:
                raise ValueError(f'--{name} is {getattr(self, name)}, expected 1 or more')
        if self.loop_steps < 4:
            raise ValueError(f'--loop-steps is {self.loop_steps}, expected 4 or more')

    @property
    def device(self) -> str:
        """The first device: the one of the sections that take a single one."""
        return self.devices[0]

    def estimator_device(self):
        """The first device, checked to exist (ValueError)."""
        from ray_pose_ros.estimation.devices import usable_device

        return usable_device(self.device)

    def estimator(self, model=None, **changes):
        """An Estimator as asked for, with some of its settings changed."""
        from ray_pose_ros.estimation.estimator import Estimator

        settings = {'device': self.device, 'steps': self.steps, 'samples': self.samples}
        return Estimator(model or self.checkpoint, **settings | changes)


@lru_cache(maxsize=1)
def random_views(count: int, width: int = 640, height: int = 480) -> tuple[View, ...]:
    """Views of coarse random patterns with a box: times do not depend on what is seen."""
    rng = np.random.default_rng(0)
    camera = CameraModel.from_fov(width, height, np.pi / 3)
    box = (width * 0.2, height * 0.1, width * 0.8, height * 0.9)
    found = []
    for index in range(count):
        coarse = rng.integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
        image = coarse.repeat(16, axis=0).repeat(16, axis=1)
        found.append(View(image, camera, box=box, name=f'random_{index:03d}', stamp=float(index)))
    return tuple(found)
