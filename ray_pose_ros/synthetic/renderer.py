"""
Rendering of packed triangles with a pinhole camera on one CPU core: colour, depth, object mask.

The kernels release the GIL and are deterministic. Cameras are OpenCV (x_cam = R x_world + t),
pixel centres at half-integers, the world's z up.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from .mesh import Mesh
from .rasteriser import NEAR, rasterise
from .shading import TO_LINEAR, TO_SRGB, gather, illuminate, look_up, resolve

ENVIRONMENT, OBJECT, CLUTTER = 0, 1, 2
LEVELS = 12


class Rendering(NamedTuple):
    """image (H, W, 3) uint8 RGB; depth (H, W) float32 z-depth, inf where nothing; mask (H, W)."""

    image: np.ndarray
    depth: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Atlas:
    """Textures with mip levels: texels (T, 3) uint8; layout (n, 3 + LEVELS) int64."""

    texels: np.ndarray
    layout: np.ndarray


@dataclass(frozen=True)
class Lights:
    """
    Lights fixed in the world, linear RGB.

    table (6, 3): key position, fill direction (unit, towards the light), key colour, colour of the
    ambient from below, from above, fill colour. The shadow map holds the inverse depth seen by a
    pinhole at the key light: pixel = shadow_matrix x + shadow_offset (homogeneous).
    """

    table: np.ndarray
    shadow_map: np.ndarray
    shadow_matrix: np.ndarray
    shadow_offset: np.ndarray


@dataclass(frozen=True)
class Geometry:
    """Triangles for the kernels; surfaces (M, 4): texture, specular, shininess, cull."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    material: np.ndarray
    label: np.ndarray
    surfaces: np.ndarray
    cull: np.ndarray


def pack_textures(textures) -> Atlas:
    """Atlas of uint8 RGB images (h, w, 3) with power-of-two sides."""
    layout = np.zeros((len(textures), 3 + LEVELS), np.int64)
    pieces, start = [], 0
    for k, texture in enumerate(textures):
        height, width = texture.shape[:2]
        if height & (height - 1) or width & (width - 1):
            raise ValueError(f'texture {k} is {width}x{height}: expected powers of two')
        level = 0
        image = np.ascontiguousarray(texture)
        while level < LEVELS:
            pieces.append(image.reshape(-1, 3))
            layout[k, 3 + level] = start
            start += len(pieces[-1])
            level += 1
            if min(image.shape[:2]) == 1:
                break
            half = image.shape[1] // 2, image.shape[0] // 2
            image = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        layout[k, :3] = width, height, level
    return Atlas(np.concatenate(pieces), layout)


def pack_geometry(meshes: list[Mesh], labels: list[int], surfaces) -> Geometry:
    """Geometry of meshes whose material indexes rows of surfaces (M, 4)."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    meshes = [m if m.normals is not None else m.with_normals() for m in meshes]
    material = np.concatenate([m.material for m in meshes]).astype(np.int32)
    surfaces = np.asarray(surfaces, np.float32).reshape(-1, 4)
    return Geometry(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts[:-1], strict=True)]).astype(
            np.int32
        ),
        np.concatenate([m.uv for m in meshes]).astype(np.float32),
        np.concatenate([m.normals for m in meshes]).astype(np.float32),
        material,
        np.repeat(np.asarray(labels, np.uint8), [len(m.faces) for m in meshes]),
        surfaces,
        surfaces[material, 3] > 0,
    )


def _visibility(geometry, matrix, offset, step, height, width, faces=None, cull=None):
    """Visibility buffer (height, width samples) of points matrix x + offset (homogeneous)."""
    faces = geometry.faces if faces is None else faces
    cull = geometry.cull if cull is None else cull
    points = geometry.vertices @ matrix.T + offset
    edges = np.empty((len(faces), 3, 3))
    plane = np.empty((len(faces), 3))
    inverse = np.empty((height, width), np.float32)
    index = np.empty((height, width), np.int32)
    rasterise(points, faces, cull, NEAR, step, edges, plane, inverse, index)
    return edges, plane, inverse, index


def make_lights(
    geometry, key, fill, key_colour, low, high, fill_colour, reach, size=384
) -> Lights:
    """
    Lights with the shadow map of all faces that are not environment.

    key (3,) position; fill (3,) direction; reach: radius about the origin that casts shadows.
    size 0 leaves shadows out.
    """
    key = np.asarray(key, float)
    fill = np.asarray(fill, float) / np.linalg.norm(fill)
    table = np.array([key, fill, key_colour, low, high, fill_colour], dtype=float)
    if size == 0:
        return Lights(table, np.zeros((1, 1), np.float32), np.eye(3), np.zeros(3))
    rows = look_at(key, np.zeros(3))
    focal = 0.5 * size / np.tan(np.arcsin(min(0.95, reach / np.linalg.norm(key))))
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]) @ rows
    offset = -matrix @ key
    casters = geometry.label != ENVIRONMENT
    faces = np.ascontiguousarray(geometry.faces[casters])
    cull = np.zeros(len(faces), bool)
    _, _, inverse, _ = _visibility(geometry, matrix, offset, 1.0, size, size, faces, cull)
    return Lights(table, inverse, matrix, offset)


def look_at(eye, target, up=(0.0, 0.0, 1.0), roll: float = 0.0) -> np.ndarray:
    """World-to-camera rotation (3, 3) of an OpenCV camera at `eye` that looks at `target`."""
    forward = np.asarray(target, float) - np.asarray(eye, float)
    norm = np.linalg.norm(forward)
    if norm < 1e-9:
        raise ValueError(f'camera and target coincide at {eye}: expected two different points')
    forward = forward / norm
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any right will do
        right = np.cross(forward, (0.0, 1.0, 0.0))
    right = right / np.linalg.norm(right)
    rows = np.stack([right, np.cross(forward, right), forward])
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]]) @ rows


def render(
    geometry: Geometry,
    atlas: Atlas,
    lights: Lights,
    K: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    width: int,
    height: int,
    panorama: int = -1,
    background: np.ndarray | None = None,
    exposure=(1.0, 1.0, 1.0),
    supersample: int = 2,
) -> Rendering:
    """
    Render one view.

    K (3, 3) pinhole in pixels, R (3, 3), t (3,) world-to-camera. Where nothing is hit: texture
    number `panorama` wrapped about the world's z axis, else `background` (h, w, 3) uint8 in image
    space, else black. exposure (3,): linear gain per channel. Depth and mask are exact at the
    pixel's centre for supersample=1 and come from the majority of samples otherwise.
    """
    K, R = np.asarray(K, float), np.asarray(R, float)
    t = np.asarray(t, float).reshape(3)
    if width < 1 or height < 1 or supersample < 1:
        raise ValueError(f'size {width}x{height}, {supersample} samples: expected at least 1')
    step = 1.0 / supersample
    edges, plane, _, index = _visibility(
        geometry, K @ R, K @ t, step, height * supersample, width * supersample
    )
    level = 0
    if panorama >= 0:
        per_radian = atlas.layout[panorama, 0] / (2 * np.pi)
        level = int(np.log2(max(1.0, per_radian / K[0, 0])) + 0.5)
    if background is None:
        background = np.zeros((height, width, 3), np.uint8)
    if background.shape != (height, width, 3) or background.dtype != np.uint8:
        raise ValueError(
            f'background {background.dtype} {background.shape}: expected uint8 '
            f'({height}, {width}, 3)'
        )
    most = index.size
    pixel, face, hits = (np.empty(most, np.int32) for _ in range(3))
    x, y, weights = np.empty(most), np.empty(most), np.empty((most, 3))
    colour = np.empty((most, 3), np.float32)
    depth = np.empty((height, width), np.float32)
    mask = np.empty((height, width), np.bool_)
    image = np.empty((height, width, 3), np.uint8)
    g, lit = geometry, lights
    n = gather(
        index, supersample, step, edges, plane, g.label, pixel, face, x, y, hits, depth, mask
    )
    look_up(
        n, face, x, y, pixel, edges, g.uv, g.material, g.surfaces, atlas.texels, atlas.layout,
        R.T @ np.linalg.inv(K), panorama, level, background, weights, TO_LINEAR, colour,
    )  # fmt: skip
    illuminate(
        n, face, weights, g.faces, g.vertices, g.normals, g.material, g.surfaces, -R.T @ t,
        lit.table, lit.shadow_map, lit.shadow_matrix, lit.shadow_offset, colour,
    )  # fmt: skip
    resolve(n, pixel, hits, colour, np.asarray(exposure, float), TO_SRGB, image.reshape(-1, 3))
    return Rendering(image, depth, mask)
