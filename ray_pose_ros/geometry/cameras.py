"""Central camera models of sensor_msgs/CameraInfo: pixels to directions and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ray_pose_ros.geometry import distortion as lens


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera: K (3, 3) in pixels, image size, lens distortion.

    Pixels are continuous, the image spans [0, width] x [0, height]; K is used as given. Frames are
    OpenCV's (+x right, +y down, +z forward). Two cameras are equal when all values are.
    Raises ValueError for values that are not finite, focal lengths or sizes not above 0, a K that
    is not upper triangular with a last row of 0 0 1, an unknown distortion model or a number of
    coefficients that the model does not have.
    """

    matrix: Tensor
    width: int
    height: int
    distortion_model: str = 'none'
    distortion: Sequence[float] = ()
    # Largest tangent (perspective) or angle (equidistant) before the lens model folds over.
    limit: float = field(init=False, repr=False)

    def __post_init__(self):
        matrix = torch.as_tensor(self.matrix, dtype=torch.float64, device='cpu').detach().clone()
        coefficients = tuple(float(v) for v in self.distortion)
        if matrix.shape != (3, 3):
            raise ValueError(f'camera matrix has shape {tuple(matrix.shape)}, expected (3, 3)')
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError(f'camera matrix {matrix.tolist()} is not finite')
        if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
            raise ValueError(
                f'focal lengths are {matrix[0, 0]:g}, {matrix[1, 1]:g}, expected above 0 '
                '(is the camera calibrated?)'
            )
        if matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
            raise ValueError(
                f'camera matrix {matrix.tolist()} is not upper triangular with last row 0 0 1'
            )
        for name in ('width', 'height'):
            value = getattr(self, name)
            if value != int(value) or value <= 0:
                raise ValueError(f'image {name} is {value}, expected a whole number above 0')
            object.__setattr__(self, name, int(value))
        counts = lens.COEFFICIENTS.get(self.distortion_model)
        if counts is None:
            raise ValueError(
                f'distortion model is {self.distortion_model!r}, expected one of '
                + ', '.join(lens.COEFFICIENTS)
            )
        if len(coefficients) not in counts:
            raise ValueError(
                f'{self.distortion_model} has {len(coefficients)} coefficients, '
                f'expected {" or ".join(map(str, counts))}'
            )
        if not all(map(math.isfinite, coefficients)):
            raise ValueError(f'distortion coefficients {coefficients} are not finite')
        object.__setattr__(self, 'matrix', matrix)
        object.__setattr__(self, 'distortion', coefficients)
        limit = lens.radius_limit(self.distortion_model, coefficients)
        object.__setattr__(self, 'limit', limit)

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov_rad: float) -> CameraModel:
        """A pinhole with square pixels, its principal point in the middle of the image."""
        if not 0 < horizontal_fov_rad < math.pi:
            raise ValueError(
                f'horizontal field of view is {horizontal_fov_rad} rad, expected 0 to pi'
            )
        f = width / 2 / math.tan(horizontal_fov_rad / 2)
        return cls(torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]]), width, height)

    def __eq__(self, other):
        if not isinstance(other, CameraModel):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def _key(self):
        values = tuple(self.matrix.flatten().tolist())
        return values, self.width, self.height, self.distortion_model, self.distortion

    def refocused(self, factor: float) -> CameraModel:
        """The same with focal lengths `factor` times as long."""
        matrix = self.matrix.clone()
        matrix[0, 0] *= factor
        matrix[1, 1] *= factor
        return replace(self, matrix=matrix)

    def project(self, points: Tensor) -> Tensor:
        """Continuous pixels (..., 2) of points (..., 3) in the camera frame.

        nan for points that the lens does not see: behind a perspective camera, or beyond the
        angle where the distortion folds over. The pixel may lie outside the image.
        """
        _check_last(points, 3, 'points')
        p = points.double()
        flat, z = p[..., :2], p[..., 2]
        if self.distortion_model == 'equidistant':
            radius = flat.norm(dim=-1)
            theta = torch.atan2(radius, z)
            scale = lens.distort_angle(self.distortion, theta) / radius.clamp_min(1e-300)
            xy = flat * torch.where(radius > 0, scale, 0)[..., None]
            # radius 0: the axis itself, which is seen forwards only
            seen = (theta <= self.limit) & ((radius > 0) | (z > 0))
        else:
            ahead = z > 0
            xy = flat / torch.where(ahead, z, 1)[..., None]
            seen = ahead & (xy.norm(dim=-1) <= self.limit)
            if self.distortion:
                xy = lens.distort(self.distortion, xy)
        xy = torch.where(seen[..., None], xy, torch.nan)
        K = self.matrix.to(xy.device)
        return (xy @ K[:2, :2].T + K[:2, 2]).to(points.dtype)

    def unproject(self, pixels: Tensor, extrapolate: bool = False) -> Tensor:
        """Unit directions (..., 3) in the camera frame of continuous pixels (..., 2).

        Computed in float64, returned in the type of `pixels`. A pixel that no ray reaches (the
        distortion folds over before) is nan; with extrapolate it gets a finite direction that
        continues the lens: for the padding around an image, not for measurements.
        """
        _check_last(pixels, 2, 'pixels')
        K = self.matrix.to(pixels.device)
        y = (pixels[..., 1].double() - K[1, 2]) / K[1, 1]
        x = (pixels[..., 0].double() - K[0, 2] - K[0, 1] * y) / K[0, 0]
        xy = torch.stack([x, y], dim=-1)
        if self.distortion_model == 'equidistant':
            radius = xy.norm(dim=-1, keepdim=True)
            theta = lens.undistort_angle(self.distortion, self.limit, radius, extrapolate)
            side = xy * torch.where(
                radius > 0, torch.sin(theta) / radius.clamp_min(1e-300), torch.ones_like(radius)
            )
            return torch.cat([side, torch.cos(theta)], dim=-1).to(pixels.dtype)
        if self.distortion:
            xy = lens.undistort(self.distortion, self.limit, xy, extrapolate)
        d = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        return (d / d.norm(dim=-1, keepdim=True)).to(pixels.dtype)

    def resized(self, width: int, height: int) -> CameraModel:
        """The camera of the same image resampled to another size (also: binned)."""
        scale = torch.tensor([width / self.width, height / self.height, 1.0], dtype=torch.float64)
        matrix = self.matrix * scale[:, None]
        return CameraModel(matrix, width, height, self.distortion_model, self.distortion)

    def cropped(self, x0: float, y0: float, width: int, height: int) -> CameraModel:
        """The camera of the part of the image that starts at pixel (x0, y0); may reach beyond."""
        matrix = self.matrix.clone()
        matrix[:2, 2] -= torch.tensor([x0, y0], dtype=torch.float64)
        return CameraModel(matrix, width, height, self.distortion_model, self.distortion)

    def binned(self, binning_x: int, binning_y: int) -> CameraModel:
        """The camera after binning; 0 and 1 both mean none, as in sensor_msgs/CameraInfo."""
        bx, by = max(int(binning_x), 1), max(int(binning_y), 1)
        width, height = self.width // bx, self.height // by
        # A remainder of the size is cut off, not squeezed in.
        return self.cropped(0, 0, width * bx, height * by).resized(width, height)


def _check_last(tensor, n, name):
    if tensor.shape[-1:] != (n,) or not tensor.dtype.is_floating_point:
        raise ValueError(
            f'{name} are {tensor.dtype} of shape {tuple(tensor.shape)}, expected float (..., {n})'
        )
