"""What is told of N views, and the world that it is told in.

The published world: axes of the first camera (R[0] = I), origin at the object, unit = distance of
the first camera from it. The object's point is, for the project's own models, the one on the ray
through the first crop's centre; for official models, where the optical axes meet. Both networks'
own gauges differ from it by a similarity, taken off by the estimator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ray_pose_ros.estimation.metric import MetricScale
from ray_pose_ros.estimation.uncertainty import Doubts, MatchedDoubts
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop
from ray_pose_ros.geometry.so3 import angle_between, camera_centres
from ray_pose_ros.multiview.two_view import RayMatches

# See `Estimate.caution`.
ONE_PLACE = (
    'most cameras seem to stand at one place; if the object turned before a camera that stood '
    'still, its surroundings were taken for it, and masks of the object are needed'
)
# Of two cameras that are taken to stand at one place: rad between them, and how far apart they are
# over their distance from the object.
_TURNED, _APART = np.radians(5.0), 0.1


@dataclass(frozen=True)
class Estimate:
    """Cameras of N views in the published world (see the module's docstring).

    Attributes:
        R, t: (N, 3, 3), (N, 3) float64, world to camera, OpenCV.
        cameras: intrinsics used or found, one a view; K: their matrices, (N, 3, 3).
        intrinsics_source: 'given', 'exif', 'matches', 'assumed' or 'estimated', one a view.
        names, stamps, crops: of the views.
        rotation_sigma: (N,) rad, of the rotation relative to the first camera. centre_sigma: (N,)
            world units, of the centre relative to the first camera, in its axes, after the best
            change of the unit: how far away the object is has an error that all have in common,
            and which is not in here. Never zero: from `doubts`, as the checkpoint's configuration
            says.
        agreement: fraction of the samples that tell the same story; modes: number of stories.
        rays: (N, 6, h, w) float32, as predicted, moved into the published world.
        doubts: what the uncertainty was made from.
        samples: (S, N, 3, 3) rotations of the single samples, each in its own published world.
        turned: right angles, clockwise, by which each view was turned upright for the network.
        ray_matches: the network's own matches of pairs of views (i, j), i < j, which the cameras
            have been adjusted to, weighed as they were there; empty where it has none.
        timings: seconds spent on 'features', 'denoise' and 'recover'.
        metric: None for the unit above; else lengths are in metres (`metric.in_metres`).
    """

    R: np.ndarray
    t: np.ndarray
    cameras: tuple[CameraModel, ...]
    intrinsics_source: tuple[str, ...]
    names: tuple[str, ...]
    stamps: tuple[float | None, ...]
    crops: tuple[Crop, ...]
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    agreement: float
    modes: int
    rays: np.ndarray
    doubts: Doubts | MatchedDoubts | None = None
    samples: np.ndarray | None = None
    turned: tuple[int, ...] = ()
    ray_matches: dict[tuple[int, int], RayMatches] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    metric: MetricScale | None = None

    @property
    def K(self) -> np.ndarray:
        return np.stack([camera.matrix.numpy() for camera in self.cameras])

    @property
    def centres(self) -> np.ndarray:
        """Camera centres (N, 3) in the world."""
        return camera_centres(self.R, self.t)

    @property
    def at_one_place(self) -> bool:
        """Whether most pairs of three or more cameras stand and look alike.

        Then nothing can be told of the object's other sides; and where it turned before a camera
        that stood still, its surroundings have been taken for it.
        """
        if len(self.R) < 3:
            return False
        first, second = np.triu_indices(len(self.R), 1)
        turned = angle_between(self.R[first], self.R[second])
        centres = self.centres
        apart = np.linalg.norm(centres[first] - centres[second], axis=1)
        distance = np.linalg.norm(self.t, axis=1)
        near = apart < _APART * np.minimum(distance[first], distance[second])
        return bool(np.mean((turned < _TURNED) & near) > 0.5)

    @property
    def caution(self) -> str | None:
        """In words what looks wrong with the views, and what would help; None for nothing."""
        return ONE_PLACE if self.at_one_place else None

    def of_views(self, which: Sequence[int]) -> Estimate:
        """The same of some of the views, the first of which has to be the first one still."""
        place = {int(view): n for n, view in enumerate(which)}
        kept = {name: getattr(self, name)[which] for name in ('R', 't', 'rays')}
        kept |= {name: getattr(self, name)[which] for name in ('rotation_sigma', 'centre_sigma')}
        for name in ('cameras', 'intrinsics_source', 'names', 'stamps', 'crops', 'turned'):
            values = getattr(self, name)
            kept[name] = tuple(values[view] for view in which) if values else ()
        return replace(
            self,
            **kept,
            doubts=None,
            samples=None if self.samples is None else self.samples[:, which],
            ray_matches={
                (place[i], place[j]): m
                for (i, j), m in self.ray_matches.items()
                if i in place and j in place
            },
        )
