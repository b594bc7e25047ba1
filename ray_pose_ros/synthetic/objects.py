"""
Procedural textured objects whose pose is well defined: no two sides look alike.

Families of the split 'train': primitive, superquadric, blob, extrusion, vessel, union, furniture,
animal, vehicle, figure, tool, plant. The split 'test' has these too (other seeds) and, for half
of its objects, families never seen in training: house, mug, aircraft, lamp. See textures.py for
the textures that are held out.
"""

from dataclasses import dataclass, field

import numpy as np

from . import compounds, shapes
from .mesh import Mesh, frame_along, merge, rotation
from .textures import sample_texture


@dataclass
class Part:
    """A mesh and the number of its texture in the owner's list."""

    mesh: Mesh
    texture: int


@dataclass
class Builder:
    """Collects the parts and textures of one object."""

    rng: np.random.Generator
    split: str = 'train'
    size: int = 256
    textures: list = field(default_factory=list)
    parts: list = field(default_factory=list)

    def texture(self, family: str | None = None) -> int:
        """Number of a new texture."""
        self.textures.append(sample_texture(self.rng, self.split, self.size, family))
        return len(self.textures) - 1

    def pick(self, fresh: float = 0.6) -> int:
        """Number of a new texture with probability `fresh`, else of one in use."""
        if not self.textures or (len(self.textures) < 6 and self.rng.random() < fresh):
            return self.texture()
        return int(self.rng.integers(len(self.textures)))

    def add(self, mesh: Mesh, texture: int | None = None, stretch: bool = True) -> None:
        """Add a part; without a texture one is picked; its uv are shifted and scaled at random."""
        texture = self.pick() if texture is None else texture
        if stretch:
            scale = self.rng.choice([0.5, 1.0, 1.0, 1.0, 2.0], size=2)
            mesh = mesh.with_uv(scale, self.rng.random(2))
        self.parts.append(Part(mesh.with_material(texture), texture))

    def add_box(self, size, offset=(0, 0, 0), turn=None, faces: int = 1, **shape) -> None:
        """Add a box; faces > 1 gives it up to so many textures for its sides."""
        mesh = shapes.box(size, **shape)
        if faces > 1 and len(mesh.faces) == 12:
            numbers = [self.pick(0.8) for _ in range(faces)]
            chosen = np.array([numbers[k % faces] for k in self.rng.permutation(6)], np.int32)
            mesh = Mesh(mesh.vertices, mesh.faces, mesh.uv, chosen[mesh.material])
        else:
            mesh = mesh.with_material(self.pick())
        self.parts.append(Part(mesh.transformed(turn, offset), -1))

    def mesh(self) -> Mesh:
        """All parts as one mesh with normals; materials number the textures."""
        return merge([part.mesh.with_normals() for part in self.parts])


def random_rotation(rng) -> np.ndarray:
    """A uniformly random rotation matrix (3, 3)."""
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def _solid(rng) -> Mesh:
    """One random closed shape of about unit radius."""
    kind = rng.integers(7)
    size = rng.uniform(0.35, 1.0, 3)
    if kind == 0:
        return shapes.box(2 * size * 0.8, rng.uniform(0.4, 1), rng.normal(0, 0.12, 2))
    if kind == 1:
        return shapes.cylinder(size[0], 2 * size[2], size[0] * rng.uniform(0.4, 1))
    if kind == 2:
        return shapes.cylinder(size[0], 2 * size[2], 0.0)
    if kind == 3:
        return shapes.limb((0, 0, -size[2]), (0, 0, size[2]), 0.6 * size[0], 0.6 * size[1], 24)
    if kind == 4:
        return shapes.torus(0.7, rng.uniform(0.15, 0.35))
    if kind == 5:
        return shapes.superquadric(size, *rng.uniform(0.2, 1.6, 2))
    return shapes.blob(rng, rng.uniform(0.2, 0.5), 26, 40).transformed(np.diag(size))


def primitive(b: Builder) -> None:
    """One solid with rich texture; boxes get a different texture on each side."""
    if b.rng.random() < 0.5:
        size = b.rng.uniform(0.35, 1.0, 3) * 2
        b.add_box(size, faces=int(b.rng.integers(3, 7)))
        return
    rich = str(b.rng.choice(['collage', 'label', 'noise', 'dots']))
    b.add(_solid(b.rng), b.texture(rich), stretch=False)
    if b.rng.random() < 0.5:
        b.add(_solid(b.rng).transformed(0.35 * np.eye(3), b.rng.normal(0, 0.5, 3)))


def superquadric(b: Builder) -> None:
    """Two or three superquadrics in a row or a heap."""
    for _ in range(int(b.rng.integers(1, 4))):
        mesh = shapes.superquadric(b.rng.uniform(0.3, 1, 3), *b.rng.uniform(0.15, 1.8, 2))
        b.add(mesh.transformed(random_rotation(b.rng), b.rng.normal(0, 0.4, 3)))


def blob(b: Builder) -> None:
    """A lumpy stone, fruit or sculpture."""
    mesh = shapes.blob(b.rng, b.rng.uniform(0.4, 1.0), 56, 90)
    b.add(mesh.transformed(np.diag(b.rng.uniform(0.6, 1.2, 3))), stretch=False)
    for _ in range(int(b.rng.integers(0, 3))):
        knob = shapes.ellipsoid(b.rng.uniform(0.1, 0.3, 3))
        direction = b.rng.normal(size=3)
        b.add(knob.transformed(None, direction / np.linalg.norm(direction) * 0.9))


def extrusion(b: Builder) -> None:
    """A thick plate with a random outline, carrying smaller pieces."""
    n = int(b.rng.integers(5, 14))
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False) + b.rng.normal(0, 0.12, n)
    radius = b.rng.uniform(0.4, 1.1, n)
    polygon = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    height = b.rng.uniform(0.2, 1.4)
    twist = b.rng.uniform(-1, 1) if b.rng.random() < 0.3 else 0.0
    b.add(shapes.extrude(polygon, height, b.rng.uniform(0.5, 1.1), twist))
    for _ in range(int(b.rng.integers(1, 4))):
        piece = _solid(b.rng).transformed(b.rng.uniform(0.15, 0.35) * np.eye(3))
        b.add(piece.transformed(None, (*b.rng.normal(0, 0.3, 2), height / 2 + 0.1)))


def vessel(b: Builder) -> None:
    """Bottle or vase of a random profile, with a spout, a handle or a sticker to one side."""
    n = int(b.rng.integers(4, 7))
    knots = np.concatenate([b.rng.uniform(0.25, 0.75, n)])
    s = np.linspace(0, 1, 24)
    radius = np.interp(s, np.linspace(0, 1, n), knots)
    radius = np.convolve(np.pad(radius, 2, mode='edge'), np.ones(5) / 5, mode='valid')
    height = b.rng.uniform(1.2, 2.4)
    profile = np.stack([radius, (s - 0.5) * height], axis=1)
    profile = np.concatenate([[[0, -height / 2]], profile, [[0, height / 2]]])
    b.add(shapes.revolve(profile, 48), stretch=False)
    where = b.rng.uniform(0, 2 * np.pi)
    turn = rotation((0, 0, 1), where)
    if b.rng.random() < 0.6:
        handle = shapes.torus(0.32, 0.07).transformed(rotation((1, 0, 0), np.pi / 2))
        b.add(handle.transformed(turn, turn @ (0.6, 0, b.rng.uniform(-0.2, 0.3))))
    if b.rng.random() < 0.6:
        turn = rotation((0, 0, 1), where + b.rng.uniform(1, 5))
        b.add(shapes.limb(turn @ (0.3, 0, 0), turn @ (1.0, 0, 0.7), 0.13, 0.06))
    b.add(shapes.cylinder(radius[-1] * 0.7, 0.25), None)
    b.parts[-1].mesh = b.parts[-1].mesh.transformed(None, (0, 0, height / 2 + 0.1))


def union(b: Builder) -> None:
    """Two to eight solids stuck into each other."""
    centre = np.zeros(3)
    for k in range(int(b.rng.integers(2, 9))):
        scale = b.rng.uniform(0.25, 0.8) if k else 0.8
        mesh = _solid(b.rng).transformed(scale * random_rotation(b.rng))
        b.add(mesh.transformed(None, centre))
        step = b.rng.normal(size=3)
        centre = centre * b.rng.uniform(0.3, 1) + 0.55 * step / np.linalg.norm(step)


def plant(b: Builder) -> None:
    """Pot with a stem and broad leaves."""
    b.add(shapes.cylinder(0.4, 0.6, 0.5).transformed(None, (0, 0, -0.7)), stretch=False)
    leaf = b.texture()
    for _ in range(int(b.rng.integers(4, 10))):
        direction = b.rng.normal(0, 1, 3) * (1, 1, 0.4) + (0, 0, 1.0)
        direction /= np.linalg.norm(direction)
        length = b.rng.uniform(0.6, 1.3)
        base = np.array([0, 0, -0.4])
        b.add(shapes.limb(base, base + 0.6 * length * direction, 0.03, 0.02, 6), leaf)
        flat = shapes.ellipsoid((0.04, b.rng.uniform(0.1, 0.3), length * 0.35), 10, 14)
        b.add(flat.transformed(frame_along(direction), base + 0.8 * length * direction))


TRAIN = {
    f.__name__: f
    for f in (
        primitive, superquadric, blob, extrusion, vessel, union, plant, compounds.furniture,
        compounds.animal, compounds.vehicle, compounds.figure, compounds.tool,
    )
}  # fmt: skip
HELD_OUT = {
    f.__name__: f for f in (compounds.house, compounds.mug, compounds.aircraft, compounds.lamp)
}


def sample_object(rng, split: str = 'train', size: int = 256, family: str | None = None):
    """
    A textured object: (mesh, textures, family).

    The mesh's bounding box is centred at the origin and its farthest vertex at distance 1. Its
    up is +z with a random heading; one in ten is tilted at random.
    """
    if family is None:
        held = split == 'test' and rng.random() < 0.5
        family = str(rng.choice(list(HELD_OUT if held else TRAIN)))
    builder = Builder(rng, split, size)
    if family not in TRAIN and family not in HELD_OUT:
        raise ValueError(f'object family {family!r}: expected {sorted({**TRAIN, **HELD_OUT})}')
    {**TRAIN, **HELD_OUT}[family](builder)
    mesh = builder.mesh()
    stretch = np.diag(rng.uniform(0.8, 1.25, 3))
    turn = rotation((0, 0, 1), rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.1:
        turn = random_rotation(rng)
    vertices = mesh.vertices @ (turn @ stretch).T
    low, high = vertices.min(0), vertices.max(0)
    vertices = vertices - (low + high) / 2
    vertices /= np.linalg.norm(vertices, axis=1).max()
    mesh = Mesh(vertices, mesh.faces, mesh.uv, mesh.material).with_normals()
    return mesh, builder.textures, family
