"""Surroundings fixed in the world: tables, floors, rooms, panoramas, clutter."""

import colorsys

import cv2
import numpy as np

from . import shapes
from .mesh import Mesh, rotation
from .patterns import fractal, palette
from .photographs import drawn
from .renderer import _visibility
from .textures import sample_texture

GROUND = ('wood', 'fabric', 'noise', 'brick', 'checks', 'collage', 'stripes', 'plain', 'gradient')


class Stage:
    """Collects meshes, labels, surfaces and textures of a scene."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.meshes, self.labels, self.surfaces, self.textures = [], [], [], []

    def texture(self, image: np.ndarray) -> int:
        """Number of a texture added to the scene."""
        self.textures.append(image)
        return len(self.textures) - 1

    def surface(self, texture: int, cull: bool, shiny: float = 0.4) -> int:
        """Number of a new surface; with probability `shiny` it has a highlight."""
        specular, power = 0.0, 1.0
        if self.rng.random() < shiny:
            specular, power = self.rng.uniform(0.03, 0.35), 2 ** self.rng.uniform(3, 6.5)
        self.surfaces.append((texture, specular, power, float(cull)))
        return len(self.surfaces) - 1

    def add(self, mesh: Mesh, label: int) -> None:
        """Add a mesh whose materials number surfaces."""
        self.meshes.append(mesh if mesh.normals is not None else mesh.with_normals())
        self.labels.append(label)


def panorama(rng, width: int = 1024) -> np.ndarray:
    """Equirectangular surroundings (width / 2, width, 3): sky or ceiling, things, ground."""
    photographs = drawn(rng)
    if photographs is not None:
        return photographs.panorama(rng, width)
    height = width // 2
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky, wall, ground = palette(rng, 3)
    if rng.random() < 0.4:
        sky = np.array(colorsys.hsv_to_rgb(rng.uniform(0.52, 0.65), rng.uniform(0.1, 0.5), 0.95))
    horizon = rng.uniform(0.45, 0.55)
    image = np.where(y < horizon, sky + (wall - sky) * (y / horizon) ** 2, ground)
    image = np.ascontiguousarray(np.broadcast_to(image, (height, width, 3)), np.float32)
    colours = palette(rng, 7)
    for _ in range(int(rng.integers(10, 60))):
        w, h = rng.uniform(0.01, 0.12) * width, rng.uniform(0.02, 0.3) * height
        x, foot = rng.random() * width, (horizon + rng.normal(0, 0.08)) * height
        colour = [float(c) for c in colours[rng.integers(7)]]
        if rng.random() < 0.6:
            corners = [(int(x), int(foot - h)), (int(x + w), int(foot))]
            cv2.rectangle(image, *corners, colour, -1)
            if rng.random() < 0.4:
                inner = (int(x + w / 3), int(foot - h * 0.7))
                outer = (int(x + w * 0.7), int(foot - h / 2))
                colour = [float(c) for c in colours[rng.integers(7)]]
                cv2.rectangle(image, inner, outer, colour, -1)
        else:
            axes = (int(w / 2) + 1, int(h / 2) + 1)
            cv2.ellipse(image, (int(x), int(foot - h / 2)), axes, 0, 0, 360, colour, -1)
    grain = fractal(rng, height, 4, 6, 0.7)
    image *= 1 + 0.13 * np.concatenate([grain, grain[:, ::-1]], axis=1)[..., None]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 2.5))
    return np.clip(image * 255, 0, 255).astype(np.uint8)


def muted(rng, size: int, family: str | None = None) -> np.ndarray:
    """A texture as surroundings have it: paler than that of the things people photograph."""
    image = sample_texture(rng, 'train', size, family)
    keep = rng.uniform(0.15, 0.9)
    mix = keep * np.eye(3) + (1 - keep) * np.array([[0.3, 0.59, 0.11]])
    return cv2.transform(image, mix.astype(np.float32))


def backdrop(rng, size: int = 256, busy: float = 0.55) -> np.ndarray:
    """
    A picture to put behind the object in image space (size, size, 3) uint8.

    It is patterned with probability `busy`, else white, black, one colour or a gradient.
    """
    if rng.random() < busy:
        image = muted(rng, size)
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3))
    kind = rng.random()
    if kind < 0.25:
        shade = 255 if rng.random() < 0.6 else 0
        return np.full((size, size, 3), shade, np.uint8)
    return muted(rng, size, 'plain' if kind < 0.7 else 'gradient')


def contact_shade(texture: np.ndarray, geometry, ground: float, reach: float) -> np.ndarray:
    """Darken a texture laid on the square |x|, |y| < reach of the ground where things touch it."""
    size, far = 128, 60.0
    f = size / 2 / reach * far
    c = size / 2
    # An almost parallel view from far below: the height of the lowest surface over each cell.
    matrix = np.array([[f, 0, c], [0, -f, c], [0, 0, 1.0]])
    offset = (far - ground) * np.array([c, c, 1.0])
    cull = np.zeros(len(geometry.faces), bool)
    _, _, inverse, _ = _visibility(geometry, matrix, offset, 1.0, size, size, None, cull)
    height = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-6) - far, np.inf)
    sigma = size / reach
    near = cv2.GaussianBlur(np.exp(-np.maximum(height, 0) / 0.06), (0, 0), 0.03 * sigma)
    wide = cv2.GaussianBlur(np.exp(-np.maximum(height, 0) / 0.5), (0, 0), 0.12 * sigma)
    dark = (1 - 0.45 * near) * (1 - 0.45 * wide)
    dark = cv2.resize(dark.astype(np.float32), texture.shape[1::-1])
    return (texture * dark[..., None]).astype(np.uint8)


def add_clutter(stage: Stage, ground: float, count: int, reach: float, label: int) -> np.ndarray:
    """Small things standing about the object; returns their bounding spheres (n, 4)."""
    rng = stage.rng
    spheres = []
    numbers = [
        stage.surface(stage.texture(sample_texture(rng, 'train', 128)), True)
        for _ in range(min(count, 4))
    ]
    for _ in range(count):
        size = rng.uniform(0.12, 0.5)
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(1.05 + 0.6 * size, reach)
        kind = rng.integers(4)
        half = size * rng.uniform(0.4, 1.0, 3)
        if kind == 0:
            mesh = shapes.box(2 * half, rng.uniform(0.6, 1))
        elif kind == 1:
            mesh = shapes.cylinder(half[0], 2 * half[2], half[0] * rng.uniform(0.3, 1), 20)
        elif kind == 2:
            mesh = shapes.superquadric(half, *rng.uniform(0.3, 1.3, 2), 12, 20)
        else:
            mesh = shapes.torus(half[0] * 0.7, half[0] * 0.3, segments=20)
            half[2] = half[0] * 0.3
        at = np.array([distance * np.cos(angle), distance * np.sin(angle), ground + half[2]])
        mesh = mesh.transformed(rotation((0, 0, 1), rng.uniform(0, 6.28)), at)
        stage.add(mesh.with_material(numbers[rng.integers(len(numbers))]), label)
        spheres.append((*at, float(np.linalg.norm(half))))
    return np.array(spheres).reshape(-1, 4)


def table_top(stage: Stage, reach: float, ground: float, round_top: bool, label: int):
    """A table with its top at z = ground; returns the number of the top's texture."""
    rng = stage.rng
    size = 1024 if reach > 2.6 else 512
    top = stage.texture(muted(rng, size, str(rng.choice(GROUND))))
    number = stage.surface(top, True, 0.3)
    if round_top:
        # The disc's texture spans the square about it, as the contact shade expects.
        mesh = shapes.disc(reach, 48).with_uv((1, -1)).transformed(None, (0, 0, ground))
        edge = shapes.cylinder(reach, 0.12, None, 48)
        side = Mesh(edge.vertices, edge.faces[:-96], edge.uv[:-96], edge.material[:-96])
        stage.add(side.with_material(number).transformed(None, (0, 0, ground - 0.06)), label)
    else:
        mesh = shapes.box((2 * reach, 2 * reach, 0.12)).transformed(None, (0, 0, ground - 0.06))
    stage.add(mesh.with_material(number), label)
    return top


def room(stage: Stage, half: float, floor: float, height: float, label: int) -> None:
    """Floor, four walls with pictures, and a ceiling, seen from inside only."""
    rng = stage.rng
    box = shapes.box((2 * half, 2 * half * rng.uniform(0.7, 1.2), height))
    flipped = Mesh(box.vertices, box.faces[:, ::-1], box.uv[:, ::-1], box.material)
    walls = [stage.surface(stage.texture(muted(rng, 256)), True, 0.1)]
    if rng.random() < 0.7:
        walls.append(stage.surface(stage.texture(muted(rng, 256)), True, 0.1))
    ground = muted(rng, 512, str(rng.choice(GROUND)))
    numbers = [walls[int(rng.integers(len(walls)))] for _ in range(4)]
    ceiling = stage.surface(stage.texture(muted(rng, 64, 'plain')), True, 0.0)
    numbers += [stage.surface(stage.texture(ground), True, 0.2), ceiling]
    material = np.array(numbers, np.int32)[flipped.material]
    middle = floor + height / 2
    # Seen from the other side, so u runs the other way.
    walls_mesh = Mesh(flipped.vertices, flipped.faces, flipped.uv * np.float32((-1, 1)), material)
    stage.add(walls_mesh.transformed(None, (0, 0, middle)), label)
    deep = float(np.abs(box.vertices[:, 1]).max())
    for _ in range(int(rng.integers(2, 9))):
        picture = stage.texture(sample_texture(rng, 'train', 128))
        number = stage.surface(picture, True, 0.1)
        wide, high = rng.uniform(0.4, 1.8), rng.uniform(0.4, 1.5)
        side = int(rng.integers(4))
        along = rng.uniform(-0.75, 0.75)
        z = floor + rng.uniform(0.15, 0.85) * height
        # Thin boxes against the walls: pictures, windows, doors, cupboards.
        thick = 0.03 if rng.random() < 0.6 else rng.uniform(0.2, 0.6)
        if side < 2:
            size, at = (thick, wide, high), ((half - thick) * (2 * side - 1), along * deep, z)
        else:
            size, at = (wide, thick, high), (along * half, (deep - thick) * (2 * side - 5), z)
        piece = shapes.box(size)
        # Without the face at the wall it does not hide the room from a camera outside.
        keep = piece.material != side
        piece = Mesh(piece.vertices, piece.faces[keep], piece.uv[keep], piece.material[keep])
        stage.add(piece.with_material(number).transformed(None, at), label)
