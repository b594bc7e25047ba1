"""The one place where PyTorch3D's axes, NDC and row vectors meet the project's OpenCV ones.

PyTorch3D: +x left, +y up, +z forward; X_cam = X_world R + T with row vectors; NDC with the short
side of the image on [-1, 1], +x left, +y up. The world turns with the camera: x_cv = F x_p3d for
world and camera alike, F = diag(-1, -1, 1), so that an unrotated camera is unrotated in both.
(To keep the world and flip the camera only, as users of the official code often do, multiply
R from the right by F afterwards.) Nothing here imports PyTorch3D.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The focal length, NDC, that the official evaluation assumes for every image.
OFFICIAL_FOCAL = 3.453


def _flip(vectors: Tensor) -> Tensor:
    return vectors * torch.tensor([-1.0, -1.0, 1.0], dtype=vectors.dtype, device=vectors.device)


def rays_p3d_to_opencv(rays: Tensor) -> Tensor:
    """Rays (..., 6) from PyTorch3D's world to the OpenCV world. Its own inverse.

    F is a rotation (by pi about z), so the moment turns like the direction.
    """
    return torch.cat([_flip(rays[..., :3]), _flip(rays[..., 3:])], dim=-1)


rays_opencv_to_p3d = rays_p3d_to_opencv


def cameras_p3d_to_opencv(R: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
    """World-to-camera R (..., 3, 3), t (..., 3) of row-vector R, T. Its own inverse."""
    return _flip(_flip(R).transpose(-1, -2)), _flip(T)


cameras_opencv_to_p3d = cameras_p3d_to_opencv


def intrinsics_from_ndc(focal: Tensor, principal: Tensor, width: int, height: int) -> Tensor:
    """K (..., 3, 3) in pixels of NDC focal lengths (..., 2) and principal points (..., 2)."""
    half = min(width, height) / 2
    K = torch.zeros(*focal.shape[:-1], 3, 3, dtype=focal.dtype, device=focal.device)
    K[..., 0, 0], K[..., 1, 1], K[..., 2, 2] = focal[..., 0] * half, focal[..., 1] * half, 1
    K[..., :2, 2] = pixels_from_ndc(principal, width, height)
    return K


def intrinsics_to_ndc(K: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """NDC focal lengths (..., 2) and principal points (..., 2) of K (..., 3, 3) without skew."""
    half = min(width, height) / 2
    focal = torch.stack([K[..., 0, 0], K[..., 1, 1]], dim=-1) / half
    return focal, ndc_from_pixels(K[..., :2, 2], width, height)


def pixels_from_ndc(ndc: Tensor, width: int, height: int) -> Tensor:
    """Continuous pixels (..., 2) of NDC points (..., 2)."""
    centre = torch.tensor([width / 2, height / 2], dtype=ndc.dtype, device=ndc.device)
    return centre - ndc * (min(width, height) / 2)


def ndc_from_pixels(pixels: Tensor, width: int, height: int) -> Tensor:
    """NDC points (..., 2) of continuous pixels (..., 2)."""
    centre = torch.tensor([width / 2, height / 2], dtype=pixels.dtype, device=pixels.device)
    return (centre - pixels) / (min(width, height) / 2)


def directions_from_ndc(
    ndc: Tensor, focal: Tensor | float = OFFICIAL_FOCAL, principal: Tensor | float = 0.0
) -> Tensor:
    """Unit directions (..., 3), OpenCV camera frame, of NDC points (..., 2).

    focal and principal, NDC, broadcast to (..., 2); the defaults are the official evaluation's.
    """
    xy = (ndc - principal) / focal
    return torch.nn.functional.normalize(
        torch.cat([-xy, torch.ones_like(xy[..., :1])], dim=-1), dim=-1
    )
