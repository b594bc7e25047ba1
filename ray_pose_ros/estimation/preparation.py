"""What is computed once for each view: its crop, its features, and where its patches look."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
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
ASSUMED_FOCAL = 0.85
# Sides of the crops of a second and a third look over that of the first: what looks at several
# crops match is right more often than what as many looks at one do.
_OTHER_SIDES = 1.3, 0.87
_WORTH = 1.05  # times as much of the image
_LEAST = 0.1  # of a crop that is in the image


@dataclass(frozen=True)
class Prepared:
    """A view ready to be solved with others; it does not depend on them.

    Attributes:
        name, stamp: of the view.
        size: (width, height) of the image.
        crop: the square that the network sees.
        camera: given or assumed intrinsics; None where they are to be estimated.
        intrinsics_source: as `View.camera_source`, or 'assumed' or 'estimated'.
        pixels: (P, 2) float64 patch centres, row-major.
        directions: (P, 3) float64 unit directions of the patches, camera frame; None without
            camera.
        weights: (P,) float64, 0 for patches that the lens cannot see, else 1.
        turn: (3, 3) float64, camera frame to virtual camera frame; the identity for 'ndc' models.
        geometry: (2 or 3, h, w) what the network is told of the patches.
        features: (C, h, w) on the model's device.
        seconds: that it took.
        told: (4,) log probabilities of the crop being turned by 0 to 3 right angles, on the CPU;
            None where the network does not tell.
        image: (3, S, S) uint8, the crop, if it may have to be turned.
        other_crops: what later looks are at, and their images as above; none where the same crop
            is looked at again.
        turned: right angles, clockwise, by which the crop was turned for the network. `pixels`,
            `directions`, `weights` and the maps are in the order of the turned crop.
        details: (D, h, w) what places matches within cells; None for a network that cannot.
        others: the same view turned otherwise, or in another crop, as far as it was asked for.
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
    told: Tensor | None = None
    image: Tensor | None = None
    turned: int = 0
    details: Tensor | None = None
    other_crops: tuple[tuple[Crop, Tensor], ...] = ()
    others: 'dict[int | tuple, Prepared]' = field(default_factory=dict, compare=False, repr=False)


@torch.inference_mode()
def prepare(
    model: RayDiffuser,
    view: View,
    crop_scale: float = 1.15,
    crop_params: str = 'training',
    other_crops: bool = True,
) -> Prepared:
    """Encode one view.

    Views are encoded one at a time, so that a view's features never depend on its neighbours in
    a batch, and a keyframe seen in several windows is the same in all.

    Args:
        model: the network, on its device.
        view: the photograph.
        crop_scale: side of the crop over the longer side of the object's box.
        crop_params: 'training' or 'demo', for official models: see `official_crop_params`.
        other_crops: whether later looks may be at other crops, where the view has any.

    Raises:
        ValueError: the crop misses the image, or the lens sees almost nothing of it.
    """
    start = time.perf_counter()
    config = model.config
    device = next(model.parameters()).device
    height, width = view.image.shape[:2]
    crop = view.crop(crop_scale)
    camera, source = view.camera, view.camera_source
    if camera is None:
        source = 'estimated' if config.geometry == 'ndc' else 'assumed'
        camera = assumed_camera(width, height) if source == 'assumed' else None

    looks = _looking(crop, camera, config.grid)
    if looks.weights.mean() < 0.25:
        raise ValueError(f'{view.name}: the lens model reaches hardly any of {crop}')
    turn = torch.eye(3, dtype=torch.float64)
    if config.geometry == 'ndc':
        raw_box = view.object_box or (crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side)
        params = official_crop_params(crop, width, height, crop_params, raw_box)
        geometry = ndc_grid(params, config.grid).permute(2, 0, 1)
    else:
        turn = _turn_of(crop, camera)
        geometry = to_grid(looks.directions @ turn.T, config.grid, config.grid)

    # what is outside of a mask may stand still while the object turns
    looks_otherwise = other_crops and config.second_look and view.mask is None
    try:
        image = extract_crop(view.image, crop, config.image_size)
    except ValueError as error:
        raise ValueError(f'{view.name}: {error}') from error
    others = _other_images(view, crop, config.image_size) if looks_otherwise else ()
    dtype = next(model.parameters()).dtype
    features, details = _encode(model, image.to(device, dtype))
    told = model.turned(features[None])
    if told is not None:
        told, image = told[0].cpu(), _bytes(image)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return Prepared(
        name=view.name,
        stamp=view.stamp,
        size=(width, height),
        crop=crop,
        camera=camera,
        intrinsics_source=source,
        **looks._asdict(),
        turn=turn,
        geometry=geometry.to(device, dtype),
        features=features,
        seconds=time.perf_counter() - start,
        told=told,
        image=None if told is None else image,
        details=details,
        other_crops=others,
    )


@torch.inference_mode()
def turned_clockwise(model: RayDiffuser, view: Prepared, turns: int) -> Prepared:
    """A view whose crop is shown to the network turned by right angles, clockwise.

    The virtual camera turns with it, so the view's own camera is what it was. `view` must have
    kept its crop. What was turned once is kept in `view.others`.
    """
    turns %= 4
    return _kept(view, turns, lambda: _encoded(model, view, turns)) if turns else view


@torch.inference_mode()
def in_other_crop(model: RayDiffuser, view: Prepared, index: int) -> Prepared:
    """The view in one of its other crops, turned alike; itself if it has none of that index.

    It is computed once, and kept in `view.others`.
    """
    if index >= len(view.other_crops):
        return view

    def make() -> Prepared:
        crop, image = view.other_crops[index]
        looks = _looking(crop, view.camera, view.geometry.shape[-1])
        flat = replace(
            view,
            crop=crop,
            **looks._asdict(),
            turn=_turn_of(crop, view.camera),
            image=image,
            other_crops=(),
            others={},
        )
        return _encoded(model, flat, view.turned)

    return _kept(view, (index, view.turned), make)


def _kept(view: Prepared, key: int | tuple, make: Callable[[], Prepared]) -> Prepared:
    """What was made of a view for the device that it is on."""
    kept = view.others.get(key)
    if kept is None or kept.features.device != view.features.device:
        kept = view.others[key] = make()
    return kept


def _encoded(model: RayDiffuser, view: Prepared, turns: int) -> Prepared:
    """An upright view's crop, as it is in `view.image`, turned clockwise and encoded."""
    start = time.perf_counter()
    side = view.geometry.shape[-1]

    def turn(of_patches: Tensor) -> Tensor:
        grid = of_patches.unflatten(0, (side, side))
        return torch.rot90(grid, -turns, (0, 1)).flatten(0, 1)

    quarter = view.turn.new_tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x' = -y, y' = x
    rotation = torch.linalg.matrix_power(quarter, turns) @ view.turn
    directions = turn(view.directions)
    like = view.features
    features, details = _encode(model, torch.rot90(view.image, -turns, (1, 2)).to(like) / 255)
    return replace(
        view,
        pixels=turn(view.pixels),
        directions=directions,
        weights=turn(view.weights),
        turn=rotation,
        geometry=to_grid(directions @ rotation.T, side, side).to(like),
        features=features,
        details=details,
        seconds=view.seconds + time.perf_counter() - start,
        turned=turns,
    )


class _Looking(NamedTuple):
    """Where the patches of a crop look; fields as in `Prepared`."""

    pixels: Tensor
    directions: Tensor | None
    weights: Tensor


def _looking(crop: Crop, camera: CameraModel | None, grid: int) -> _Looking:
    pixels = patch_centres(crop, grid)
    if camera is None:
        return _Looking(pixels, None, torch.ones(len(pixels), dtype=torch.float64))
    # The crop's padding may lie where no ray reaches: the network gets a continuation there,
    # the solver leaves it out.
    directions = camera.unproject(pixels, extrapolate=True)
    weights = torch.isfinite(camera.unproject(pixels)).all(dim=-1).double()
    return _Looking(pixels, directions, weights)


def _turn_of(crop: Crop, camera: CameraModel) -> Tensor:
    """(3, 3) to the virtual camera that looks through the middle of a crop."""
    centre = torch.tensor(crop.centre, dtype=torch.float64)
    return viewing_rotation(camera.unproject(centre, extrapolate=True))


def crops_of_later_looks(crop: Crop, width: int, height: int) -> list[Crop]:
    """For later looks at an image of this size, a wider crop and a narrower one; none where nearly
    all of the image is in this one, or hardly any."""
    wider, narrower = _OTHER_SIDES
    others = [crop.scaled(min(wider, max(width, height) / crop.side)), crop.scaled(narrower)]
    seen, more, less = (c.seen_of(width, height) for c in (crop, *others))
    return others if more > _WORTH * seen and less > _LEAST * others[1].side ** 2 else []


def _other_images(view: View, crop: Crop, size: int) -> tuple[tuple[Crop, Tensor], ...]:
    """`Prepared.other_crops`.

    Large images are shrunk once for all of them, which takes a tenth of the time; the crops'
    borders are whole pixels of the shrunk image, too.
    """
    height, width = view.image.shape[:2]
    small, factor = view.image, max(1, crop.side // (2 * size))
    others = crops_of_later_looks(crop, width, height)
    if others and factor > 1:
        down, across = height // factor, width // factor
        whole = small[: down * factor, : across * factor]
        small = cv2.resize(whole, (across, down), interpolation=cv2.INTER_AREA)
    found = []
    for other in others:
        coarse = Crop(*(round(x / factor) for x in (other.x0, other.y0, other.side)))
        fine = Crop(*(factor * x for x in (coarse.x0, coarse.y0, coarse.side)))
        found.append((fine, _bytes(extract_crop(small, coarse, size))))
    return tuple(found)


def _bytes(image: Tensor) -> Tensor:
    """(3, S, S) uint8 of one in [0, 1]."""
    return (255 * image).round().byte()


def _encode(model: RayDiffuser, image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Features and details of a crop (3, S, S), in its precision."""
    features, details = model.encode_with_details(image[None, None])
    details = None if details is None else details[0, 0].to(image.dtype)
    return features[0, 0].to(image.dtype), details


def crop_pixels(view: Prepared, points: Tensor, side: float) -> Tensor:
    """Continuous pixels (M, 2) of the photograph from points (M, 2) of the crop as it was shown
    to the network, where it is `side` wide."""
    for _ in range(view.turned):
        x, y = points.unbind(dim=-1)
        points = torch.stack([y, side - x], dim=-1)
    corner = points.new_tensor([view.crop.x0, view.crop.y0])
    return points * (view.crop.side / side) + corner


def assumed_camera(width: int, height: int) -> CameraModel:
    """A plausible pinhole for an image of unknown origin."""
    return pinhole(ASSUMED_FOCAL * max(width, height), width, height)


def pinhole(f: float, width: int, height: int) -> CameraModel:
    """A camera of focal length f, pixels, that looks through the middle of its image."""
    K = torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float64)
    return CameraModel(K, width, height)
