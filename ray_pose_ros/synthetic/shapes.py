"""Parametric surfaces: boxes, surfaces of revolution, superquadrics, blobs, tubes, extrusions."""

import numpy as np

from .mesh import Mesh, from_faces, merge


def grid_surface(points: np.ndarray, wrap_u: bool = False, wrap_v: bool = False) -> Mesh:
    """Mesh of points (n_v, n_u, 3); u runs to the right and v up seen from outside."""
    rows, columns = points.shape[:2]
    nu = columns if wrap_u else columns - 1
    nv = rows if wrap_v else rows - 1
    i, j = np.meshgrid(np.arange(nv), np.arange(nu), indexing='ij')
    i, j = i.ravel(), j.ravel()
    corner = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
    vertex = [(a % rows) * columns + b % columns for a, b in corner]
    uv = [np.stack([b / nu, 1 - a / nv], axis=-1) for a, b in corner]
    faces = np.concatenate([np.stack([vertex[k] for k in t], 1) for t in ((0, 1, 2), (0, 2, 3))])
    coords = np.concatenate([np.stack([uv[k] for k in t], 1) for t in ((0, 1, 2), (0, 2, 3))])
    return from_faces(points.reshape(-1, 3), faces, coords)


def box(size=(1.0, 1.0, 1.0), taper: float = 1.0, shear=(0.0, 0.0)) -> Mesh:
    """Box centred at the origin; every face has the whole texture. Materials 0..5 by face."""
    sx, sy, sz = (s / 2 for s in size)
    faces, uv, vertices = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            normal = np.zeros(3)
            normal[axis] = sign
            right = np.array([0.0, sign, 0.0]) if axis == 0 else np.array([-sign, 0.0, 0.0])
            if axis == 2:
                right = np.array([1.0, 0.0, 0.0])
            up = np.cross(normal, right)
            start = 4 * len(faces) // 2
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                vertices.append(normal + a * right + b * up)
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
            uv += [((0, 1), (1, 1), (1, 0)), ((0, 1), (1, 0), (0, 0))]
    vertices = np.array(vertices)
    top = vertices[:, 2:] > 0
    vertices = vertices * (sx, sy, sz)
    vertices[:, :2] = np.where(top, vertices[:, :2] * taper + np.asarray(shear), vertices[:, :2])
    mesh = from_faces(vertices, faces, uv)
    if len(mesh.faces) != 12:  # a taper of 0 collapses the lid
        return mesh
    return Mesh(mesh.vertices, mesh.faces, mesh.uv, np.repeat(np.arange(6), 2).astype(np.int32))


def revolve(profile: np.ndarray, segments: int = 36, arc: float = 2 * np.pi) -> Mesh:
    """Surface of revolution of profile (n, 2) of (radius, z), from the bottom outside upwards."""
    profile = np.asarray(profile, float)
    full = abs(arc - 2 * np.pi) < 1e-9
    angle = np.linspace(0, arc, segments, endpoint=not full)
    r, z = profile[:, :1], profile[:, 1:]
    points = np.stack([r * np.cos(angle), r * np.sin(angle), z + 0 * angle], axis=-1)
    return grid_surface(points, wrap_u=full)


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 36) -> Mesh:
    """Closed cylinder or truncated cone along z, centred; caps are textured flat discs."""
    top = radius if top is None else top
    h = height / 2
    rows = np.linspace(0, 1, 6)
    side = revolve(
        np.stack([radius + (top - radius) * rows, -h + height * rows], axis=1), segments
    )
    parts = [side]
    for r, z, sign in ((radius, -h, -1), (top, h, 1)):
        if r > 1e-6:
            parts.append(disc(r, segments, sign).transformed(offset=(0, 0, z)))
    return merge(parts)


def disc(radius: float, segments: int = 36, sign: int = 1) -> Mesh:
    """Flat disc in the plane z = 0, facing +z or -z, the texture laid flat on it."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False) * sign
    rim = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    vertices = np.concatenate([np.zeros((1, 3)), rim * radius])
    k = np.arange(segments)
    faces = np.stack([0 * k, 1 + k, 1 + (k + 1) % segments], axis=1)
    flat = np.concatenate([np.zeros((1, 2)), rim[:, :2]]) * 0.5 + 0.5
    return from_faces(vertices, faces, flat[faces])


def _signed_power(x, p):
    return np.sign(x) * np.abs(x) ** p


def sphere_grid(rows: int = 28, columns: int = 44):
    """Unit directions (rows, columns, 3) over the sphere, poles included, columns wrap."""
    theta = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    return np.stack(
        [np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta) + 0 * phi], -1
    )


def superquadric(size, e1: float, e2: float, rows: int = 28, columns: int = 44) -> Mesh:
    """Superellipsoid with half-axes `size` (3,); exponents near 0 are boxes, 1 is round."""
    theta = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    phi = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    ct, st = _signed_power(np.cos(theta), e1), _signed_power(np.sin(theta), e1)
    cp, sp = _signed_power(np.cos(phi), e2), _signed_power(np.sin(phi), e2)
    points = np.stack([ct * cp, ct * sp, st + 0 * phi], axis=-1) * np.asarray(size)
    return grid_surface(points, wrap_u=True)


def ellipsoid(size, rows: int = 20, columns: int = 32) -> Mesh:
    """Ellipsoid with half-axes `size` (3,)."""
    return grid_surface(sphere_grid(rows, columns) * np.asarray(size), wrap_u=True)


def blob(rng: np.random.Generator, rough: float = 0.5, rows: int = 40, columns: int = 64) -> Mesh:
    """Sphere displaced by smooth random lobes; `rough` is the size of the displacement."""
    d = sphere_grid(rows, columns)
    radius = np.zeros(d.shape[:2])
    for frequency, weight in ((1.5, 1.0), (3.0, 0.45), (6.0, 0.18), (12.0, 0.07)):
        for _ in range(4):
            wave = rng.normal(size=3) * frequency
            radius += weight * np.sin(d @ wave + rng.uniform(0, 6.28)) / 2
    return grid_surface(d * np.exp(rough * 0.5 * radius)[..., None], wrap_u=True)


def torus(major: float, minor: float, arc: float = 2 * np.pi, segments: int = 40) -> Mesh:
    """Torus in the plane z = 0; a part of it (open ends) for arc < 2 pi."""
    full = abs(arc - 2 * np.pi) < 1e-9
    u = np.linspace(0, arc, segments, endpoint=not full)[None]
    v = np.linspace(0, 2 * np.pi, 16, endpoint=False)[:, None]
    r = major + minor * np.cos(v)
    points = np.stack([r * np.cos(u), r * np.sin(u), minor * np.sin(v) + 0 * u], axis=-1)
    return grid_surface(points, wrap_u=full, wrap_v=True)


def tube(path: np.ndarray, radii, segments: int = 14, section=None) -> Mesh:
    """Tube with rounded-off ends along path (n, 3); radii (n,); section (2,) scales its axes."""
    path = np.asarray(path, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(path))
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    side = np.empty_like(path)
    # The frame is carried along (parallel transport), so that the tube does not twist.
    guess = np.array([0.0, 0.0, 1.0]) if abs(tangent[0, 2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    previous = np.cross(guess, tangent[0])
    for k in range(len(path)):
        previous = previous - tangent[k] * (previous @ tangent[k])
        previous = previous / np.linalg.norm(previous)
        side[k] = previous
    other = np.cross(tangent, side)
    a = np.linspace(0, 2 * np.pi, segments, endpoint=False)[:, None]
    sx, sy = section if section is not None else (1.0, 1.0)
    ring = sx * np.cos(a)[None] * side[:, None] + sy * np.sin(a)[None] * other[:, None]
    points = path[:, None] + ring * radii[:, None, None]
    # Ends: two more rings that close to a point, a dome of a third of the radius.
    caps = []
    for end, sign in ((0, -1), (-1, 1)):
        tip = path[end] + sign * tangent[end] * radii[end] * 0.35
        bevel = path[end] + sign * tangent[end] * radii[end] * 0.25 + ring[end] * radii[end] * 0.7
        caps.append([bevel[None], np.broadcast_to(tip, (1, segments, 3))])
    points = np.concatenate([caps[0][1], caps[0][0], points, caps[1][0], caps[1][1]])
    return grid_surface(points, wrap_u=True)


def limb(start, end, radius: float, tip: float | None = None, segments: int = 12) -> Mesh:
    """Straight tube from start (3,) to end (3,), radius going to `tip`."""
    tip = radius if tip is None else tip
    s = np.linspace(0, 1, 5)[:, None]
    path = (1 - s) * np.asarray(start, float) + s * np.asarray(end, float)
    return tube(path, radius + (tip - radius) * s[:, 0], segments)


def extrude(polygon: np.ndarray, height: float, scale: float = 1.0, twist: float = 0.0) -> Mesh:
    """Prism of a star-shaped polygon (n, 2) (counter-clockwise about the origin), centred in z."""
    polygon = np.asarray(polygon, float)
    n = len(polygon)
    levels = []
    for s in np.linspace(0, 1, 6):
        c, d = np.cos(twist * s), np.sin(twist * s)
        flat = polygon @ np.array([[c, d], [-d, c]]) * (1 + (scale - 1) * s)
        levels.append(np.concatenate([flat, np.full((n, 1), (s - 0.5) * height)], axis=1))
    parts = [grid_surface(np.array(levels), wrap_u=True)]
    reach = np.abs(polygon).max() * 2
    k = np.arange(n)
    for ring, order in ((levels[0], (0, 2, 1)), (levels[-1], (0, 1, 2))):
        vertices = np.concatenate([[[0, 0, ring[0, 2]]], ring])
        faces = np.stack([0 * k, 1 + k, 1 + (k + 1) % n], axis=1)[:, order]
        parts.append(from_faces(vertices, faces, vertices[faces][..., :2] / reach + 0.5))
    return merge(parts)
