"""Networks that know the answer, and the cameras they answer with."""

import math

import numpy as np
import torch
from torch import nn

from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import patch_centres
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.denoiser import Context
from ray_pose_ros.model.schedule import NoiseSchedule

GRID = 8
FLIP = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))


def config(geometry: str, **changes) -> ModelConfig:
    """The smallest settings of a geometry; own models anchor the reference."""
    anchored = geometry == 'directions'
    settings = {
        'image_size': 14 * GRID,
        'grid': GRID,
        'geometry': geometry,
        'anchor_reference': anchored,
        'residual': anchored,
        'view_code': 'reference' if anchored else 'index',
        'sample_steps': 3,
    }
    return ModelConfig(**(settings | changes))


class Oracle(nn.Module):
    """In place of a RayDiffuser: whatever the noise, it answers `rays` (N, 6, h, w).

    With rays (N, N, 6, h, w) it answers by which view comes first: those of that row, in the
    order that the views come in. Views are told apart by the means of their images.
    """

    def __init__(self, config: ModelConfig, rays: torch.Tensor):
        super().__init__()
        self.config, self.rays = config, rays.float()
        self.seen, self.answer = [], self.rays
        self.noise_scheduler = NoiseSchedule(config.steps, config.beta_start, config.beta_end)
        self.parameter = nn.Parameter(torch.zeros(1))
        self.max_views = config.max_views
        self.geometry = None

    def encode(self, images):
        grid = self.config.grid
        self.seen.append(float(images.mean()))
        return images.mean(dim=(2, 3, 4))[..., None, None, None].expand(1, 1, 4, grid, grid)

    def encode_with_details(self, images):
        return self.encode(images), None

    def turned(self, features):
        return None

    def condition(self, features, geometry, order=None):
        if order is not None:
            features, geometry = features[0, order], geometry[0, order]
        self.geometry = geometry
        if self.rays.dim() == 5:
            apart = features[:, :, 0, 0, 0, None] - torch.tensor(self.seen)
            order = apart.abs().argmin(dim=-1)  # (S, N)
            self.answer = torch.stack([self.rays[i[0], i] for i in order])
        return Context(features)

    def denoise(self, x, t, context, found=None):
        return self.answer.expand_as(x)


def orbit(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """World-to-camera R (n, 3, 3), t (n, 3), float64: round a point, looking roughly at it."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
    all_R, all_t = [], []
    for i in range(n):
        jitter = torch.randn(3, generator=generator, dtype=torch.float64)
        azimuth, height = (
            2 * math.pi * i / n + 0.2 * float(jitter[0]),
            0.5 + 0.2 * float(jitter[1]),
        )
        place = torch.tensor([math.cos(azimuth), math.sin(azimuth), height], dtype=torch.float64)
        centre = target + (3.0 + 0.3 * float(jitter[2])) * place
        forward = torch.nn.functional.normalize(target - centre + 0.1 * jitter, dim=0)
        down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
        right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
        R = torch.stack([right, torch.linalg.cross(forward, right), forward])
        all_R.append(R)
        all_t.append(-R @ centre)
    return torch.stack(all_R), torch.stack(all_t)


def cameras(n: int) -> list[CameraModel]:
    """Different sizes, principal points and lens models."""
    lenses = (
        ('none', ()),
        ('plumb_bob', (-0.2, 0.05, 0.001, -0.002, 0.0)),
        ('rational_polynomial', (0.5, -2.6, 0.001, -1e-4, 1.5, 0.38, -2.4, 1.4)),
        ('equidistant', (0.02, -0.01, 0.003, 0.0)),
    )
    made = []
    for i in range(n):
        width, height = (320, 240) if i % 2 else (200, 300)
        f = 250.0 + 20 * i
        K = [[f, 0, width / 2 + 7 - 3 * i], [0, 1.02 * f, height / 2 - 5 + 2 * i], [0, 0, 1]]
        made.append(CameraModel(torch.tensor(K), width, height, *lenses[i % len(lenses)]))
    return made


def own_model_by_reference(views, lenses, R, t, target):
    """Oracle that answers in the object gauge of whichever view comes first."""
    rows = []
    for first in range(len(views)):
        order = [first] + [i for i in range(len(views)) if i != first]
        distance = float((-R[first].T @ t[first] - target).norm())
        ordered = [views[i] for i in order], [lenses[i] for i in order], R[order], t[order]
        model, _ = own_model(*ordered, distance)
        rows.append(model.rays[torch.tensor(order).argsort()])
    return Oracle(config('directions'), torch.stack(rows))


def make_views(lenses, known=True):
    """Noise with a box off the centre, one view a camera."""
    rng = np.random.default_rng(0)
    views = []
    for i, lens in enumerate(lenses):
        image = rng.integers(0, 255, (lens.height, lens.width, 3), dtype=np.uint8)
        x, y = 0.3 * lens.width + 6 * i, 0.25 * lens.height  # off the image's centre
        box = (x, y, x + 0.4 * lens.width, y + 0.5 * lens.height)
        views.append(View(image, lens if known else None, box=box, name=f'v{i}', stamp=0.5 * i))
    return views


def line_rays(centres, R, directions):
    """(N, 6, h, w) rays of cameras, written out here on purpose."""
    d = torch.einsum('nji,npj->npi', R, directions)
    m = torch.linalg.cross(centres[:, None].expand_as(d), d, dim=-1)
    return torch.cat([d, m], dim=-1).transpose(1, 2).reshape(len(R), 6, GRID, GRID)


def directions_of(views, lenses):
    """(N, P, 3) true directions of the patches."""
    return torch.stack(
        [
            lens.unproject(patch_centres(v.crop(), GRID))
            for v, lens in zip(views, lenses, strict=True)
        ]
    )


def own_model(views, lenses, R, t, distance=2.5):
    """Oracle of the object gauge; returns it with the expected published cameras."""
    centres = -torch.einsum('nji,nj->ni', R, t)
    middle = lenses[0].unproject(torch.tensor(views[0].crop().centre, dtype=torch.float64))
    origin = centres[0] + distance * R[0].T @ middle
    # The smallest rotation that takes the crop's middle to +z (Rodrigues).
    axis = torch.linalg.cross(middle, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    sine, cosine = axis.norm(), middle[2]
    k = axis / sine
    hat = torch.tensor([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
    V = torch.eye(3, dtype=torch.float64) + sine * hat + (1 - cosine) * hat @ hat
    to_gauge = V @ R[0]
    gauge_R = R @ to_gauge.T
    gauge_centres = (centres - origin) @ to_gauge.T / distance
    assert torch.allclose(gauge_centres[0], torch.tensor([0.0, 0, -1], dtype=torch.float64))
    rays = line_rays(gauge_centres, gauge_R, directions_of(views, lenses))
    expected = R @ R[0].T, (centres - origin) @ R[0].T / distance
    return Oracle(config('directions'), rays), expected


def official_model(views, lenses, R, t, **changes):
    """Oracle of the official gauge, in PyTorch3D's axes, a little off unit scale."""
    centres = -torch.einsum('nji,nj->ni', R, t)
    origin = torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64)
    distance = 1.1 * (centres[0] - origin).norm()
    tilt = torch.linalg.matrix_exp(
        torch.tensor([[0, 0.1, 0], [-0.1, 0, 0.2], [0, -0.2, 0]]).double()
    )
    to_gauge = tilt @ R[0]
    gauge_R, gauge_centres = R @ to_gauge.T, (centres - origin) @ to_gauge.T / distance
    rays = line_rays(gauge_centres, gauge_R, directions_of(views, lenses))
    rays = torch.cat(
        [torch.einsum('ij,njhw->nihw', FLIP, part) for part in (rays[:, :3], rays[:, 3:])], dim=1
    )
    first = (centres[0] - origin).norm()
    return (
        Oracle(config('ndc', **changes), rays),
        (R @ R[0].T, (centres - origin) @ R[0].T / first),
    )
