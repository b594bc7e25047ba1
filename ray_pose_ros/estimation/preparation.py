"""What is computed once for each view: its crop, its features, and where its patches look."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import (
    Crop,
    extract_crop,
    ndc_grid,
    official_crop_params,
    patch_centres,
)
from ray_pose_ros.geometry.gauge import viewing_rotation
from ray_pose_ros.geometry.rays import to_grid
from ray_pose_ros.model.ray_diffuser import RayDiffuser

# Focal length over the image's longer side where nobody knows better: a phone's main camera.
ASSUMED_FOCAL = 1.2


@dataclass(frozen=True)
class Prepared:
    """A view ready to be solved with others; it does not depend on them.

    Attributes:
        name, stamp: of the view.
        size: (width, height) of the image.
        crop: the square that the network sees.
        camera: given or assumed intrinsics; None where they are to be estimated.
        intrinsics_source: 'given', 'assumed' or 'estimated'.
        pixels: (P, 2) float64 patch centres, row-major.
        directions: (P, 3) float64 unit directions of the patches, camera frame; None without
            camera.
        weights: (P,) float64, 0 for patches that the lens cannot see, else 1.
        turn: (3, 3) float64, camera frame to virtual camera frame; the identity for 'ndc' models.
        geometry: (2 or 3, h, w) what the network is told of the patches.
        features: (C, h, w) on the model's device.
        seconds: that it took.
    """

    name: str
    stamp: float | None
    size: tuple[int, int]
    crop: Crop
    camera: CameraModel | None
    intrinsics_source: str
    pixels: Tensor
    directions: Tensor | None
    weights: Tensor
    turn: Tensor
    geometry: Tensor
    features: Tensor
    seconds: float


@torch.inference_mode()
def prepare(
    model: RayDiffuser, view: View, crop_scale: float = 1.15, crop_params: str = 'training'
) -> Prepared:
    """Encode one view.

    Views are encoded one at a time, so that a view's features never depend on its neighbours in
    a batch, and a keyframe seen in several windows is the same in all.

    Args:
        model: the network, on its device.
        view: the photograph.
        crop_scale: side of the crop over the longer side of the object's box.
        crop_params: 'training' or 'demo', for official models: see `official_crop_params`.

    Raises:
        ValueError: the crop misses the image, or the lens sees almost nothing of it.
    """
    start = time.perf_counter()
    config = model.config
    device = next(model.parameters()).device
    height, width = view.image.shape[:2]
    crop = view.crop(crop_scale)
    camera, source = view.camera, 'given'
    if camera is None:
        source = 'estimated' if config.geometry == 'ndc' else 'assumed'
        camera = assumed_camera(width, height) if source == 'assumed' else None

    pixels = patch_centres(crop, config.grid)
    directions, weights = None, torch.ones(len(pixels), dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64)
    if camera is not None:
        # The crop's padding may lie where no ray reaches: the network gets a continuation there,
        # the solver leaves it out.
        directions = camera.unproject(pixels, extrapolate=True)
        weights = torch.isfinite(camera.unproject(pixels)).all(dim=-1).double()
        if weights.mean() < 0.25:
            raise ValueError(f'{view.name}: the lens model reaches hardly any of {crop}')
    if config.geometry == 'ndc':
        raw_box = view.object_box or (crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side)
        params = official_crop_params(crop, width, height, crop_params, raw_box)
        geometry = ndc_grid(params, config.grid).permute(2, 0, 1)
    else:
        centre = torch.tensor(crop.centre, dtype=torch.float64)
        turn = viewing_rotation(camera.unproject(centre, extrapolate=True))
        geometry = to_grid(directions @ turn.T, config.grid, config.grid)

    image = extract_crop(view.image, crop, config.image_size)
    dtype = next(model.parameters()).dtype
    features = model.encode(image[None, None].to(device, dtype))[0, 0].to(dtype)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return Prepared(
        name=view.name,
        stamp=view.stamp,
        size=(width, height),
        crop=crop,
        camera=camera,
        intrinsics_source=source,
        pixels=pixels,
        directions=directions,
        weights=weights,
        turn=turn,
        geometry=geometry.to(device, dtype),
        features=features,
        seconds=time.perf_counter() - start,
    )


def assumed_camera(width: int, height: int) -> CameraModel:
    """A plausible pinhole for an image of unknown origin."""
    f = ASSUMED_FOCAL * max(width, height)
    K = torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraModel(K, width, height)
