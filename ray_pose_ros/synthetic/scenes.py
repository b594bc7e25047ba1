"""Scenes: an object near the origin, surroundings and lights that stay fixed, a renderer."""

from dataclasses import dataclass

import numpy as np

from . import environment as env
from .mesh import Mesh
from .objects import sample_object
from .photographs import in_use
from .renderer import (
    CLUTTER,
    ENVIRONMENT,
    OBJECT,
    Atlas,
    Geometry,
    Lights,
    Rendering,
    make_lights,
    pack_geometry,
    pack_textures,
    render,
)

SPLITS = {'train': 1, 'test': 2}


@dataclass(frozen=True)
class Scene:
    """
    An object with its surroundings, ready to render; world z up.

    centre (3,) middle of the object's bounding box, radius of its bounding sphere about it, up
    (3,). ground: height of the plane it stands on or None. obstacles (n, 4): spheres (x, y, z, r)
    that a camera should not be in nor behind. panorama: texture number or -1. backdrop (h, w, 3)
    uint8: picture behind everything, in image space. random_backdrop: the backdrop should change
    with every view. points (n, 3): vertices of the object.
    """

    geometry: Geometry
    atlas: Atlas
    lights: Lights
    centre: np.ndarray
    radius: float
    up: np.ndarray
    points: np.ndarray
    ground: float | None
    obstacles: np.ndarray
    panorama: int
    backdrop: np.ndarray
    random_backdrop: bool
    family: str
    kind: str

    def render(self, camera, R, t, **options) -> Rendering:
        """
        Render the view of a pinhole CameraModel at world-to-camera R (3, 3), t (3,).

        Options: supersample (2), exposure (3,) linear gains, background (h, w, 3) uint8.
        Raises ValueError for a camera with lens distortion.
        """
        model = getattr(camera, 'distortion_model', 'none')
        if model != 'none':
            raise ValueError(f'camera has distortion {model!r}: expected a pinhole (none)')
        K = np.asarray(camera.matrix, dtype=float)
        return self.render_matrix(K, R, t, camera.width, camera.height, **options)

    def render_matrix(self, K, R, t, width: int, height: int, **options) -> Rendering:
        """Same as `render` with the pinhole matrix K (3, 3) and the image size in pixels."""
        background = options.pop('background', None)
        if background is None and self.panorama < 0:
            background = self.backdrop
        if background is not None:
            background = _fit(background, width, height)
        return render(
            self.geometry,
            self.atlas,
            self.lights,
            K,
            np.asarray(R),
            np.asarray(t),
            width,
            height,
            panorama=self.panorama,
            background=background,
            **options,
        )


def _fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Stretch an image to (height, width, 3) unless it is of that size."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    rows = (np.arange(height) * image.shape[0]) // height
    columns = (np.arange(width) * image.shape[1]) // width
    return np.ascontiguousarray(image[rows][:, columns])


def scene_rng(seed: int, split: str) -> np.random.Generator:
    """Random generator of a seed; the streams of the two splits are disjoint."""
    if split not in SPLITS:
        raise ValueError(f'split {split!r}: expected one of {sorted(SPLITS)}')
    if seed < 0:
        raise ValueError(f'seed {seed}: expected 0 or more')
    return np.random.default_rng([SPLITS[split], int(seed)])


def sample_scene(
    seed: int, split: str = 'train', family: str | None = None, library=None, share: float = 0.5
) -> Scene:
    """
    A random scene, deterministic for a seed, a split and a library.

    The object is procedural, of `family` if given; with a meshes.MeshLibrary of the same split
    it comes with probability `share` from there (the scene's family is then the model's name).
    """
    rng = scene_rng(seed, split)
    if library is not None and rng.random() < share:
        mesh, textures, family = library.sample(rng, split)
    else:
        mesh, textures, family = sample_object(rng, split, family=family)
    return build_scene(rng, mesh, textures, family)


def build_scene(rng, mesh: Mesh, textures, family: str, kind: str | None = None) -> Scene:
    """
    A scene about an object: mesh (materials number `textures`, farthest vertex about 1 from the
    origin, centred), textures uint8 with power-of-two sides.

    kind: 'table' (table or ground, clutter, panorama), 'room', 'panorama' (object in the air),
    'plain' (one backdrop for the scene) or 'random' (a backdrop for every view).
    """
    kinds = ('table', 'room', 'panorama', 'plain', 'random')
    if kind is None:
        # what is photographed stands somewhere
        often = (0.42, 0.34, 0.14, 0.05, 0.05) if in_use() else (0.34, 0.3, 0.08, 0.14, 0.14)
        kind = str(rng.choice(kinds, p=often))
    if kind not in kinds:
        raise ValueError(f'scene kind {kind!r}: expected one of {kinds}')
    stage = env.Stage(rng)
    for texture in textures:
        stage.surface(stage.texture(texture), cull=False)
    mesh = mesh if mesh.normals is not None else mesh.with_normals()
    stage.add(mesh, OBJECT)
    ground, obstacles, sky, top, reach = None, np.zeros((0, 4)), -1, None, 3.0
    if kind in ('table', 'room'):
        ground = float(mesh.vertices[:, 2].min())
        reach = float(rng.uniform(1.4, 3.5))
        if rng.random() < 0.75:
            count = int(rng.integers(1, 8))
            obstacles = env.add_clutter(stage, ground, count, min(reach, 2.4), CLUTTER)
        if kind == 'table' or rng.random() < 0.6:
            if kind == 'table' and rng.random() < 0.5:
                reach = float(rng.uniform(4, 8))
            top = env.table_top(stage, reach, ground, rng.random() < 0.3, ENVIRONMENT)
    if kind == 'room':
        floor = ground - 0.001 if top is None else ground - rng.uniform(0.6, 2.5)
        env.room(stage, rng.uniform(3.5, 8), floor, rng.uniform(4, 7), ENVIRONMENT)
    elif kind in ('table', 'panorama'):
        sky = stage.texture(env.panorama(rng))
    # A pattern that stays in the image while the camera moves is rare in reality.
    backdrop = env.backdrop(rng, busy=0.1 if kind == 'plain' else 0.55)
    geometry = pack_geometry(stage.meshes, stage.labels, stage.surfaces)
    if top is not None:
        solid = geometry.label != ENVIRONMENT
        above = Geometry(**{**geometry.__dict__, 'faces': geometry.faces[solid]})
        stage.textures[top] = env.contact_shade(stage.textures[top], above, ground, reach)
    return Scene(
        geometry=geometry,
        atlas=pack_textures(stage.textures),
        lights=_sample_lights(rng, geometry, ground is not None),
        centre=(mesh.vertices.min(0) + mesh.vertices.max(0)) / 2,
        radius=_radius(mesh.vertices),
        up=np.array([0.0, 0.0, 1.0]),
        points=mesh.vertices,
        ground=ground,
        obstacles=obstacles,
        panorama=sky,
        backdrop=backdrop,
        random_backdrop=kind == 'random',
        family=family,
        kind=kind,
    )


def _radius(vertices: np.ndarray) -> float:
    middle = (vertices.min(0) + vertices.max(0)) / 2
    return float(np.linalg.norm(vertices - middle, axis=1).max())


def _sample_lights(rng, geometry, shadows: bool) -> Lights:
    """Key light with a shadow map, ambient light from above and below, a fill light."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 80))
    distance = rng.uniform(6, 14)
    key = distance * np.array([
        np.cos(azimuth) * np.cos(elevation),
        np.sin(azimuth) * np.cos(elevation),
        np.sin(elevation),
    ])  # fmt: skip
    fill = rng.normal(size=3) * (1, 1, 0.5)
    strength = rng.uniform(0.15, 0.85)  # soft daylight to a hard lamp
    warm = np.array([1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 1.0)])
    cool = np.array([rng.uniform(0.85, 1.0), rng.uniform(0.9, 1.0), 1.0])
    high = (1.05 - strength) * rng.uniform(0.7, 1.0) * cool
    low = high * rng.uniform(0.25, 0.8) * warm
    size = 384 if shadows or rng.random() < 0.7 else 0
    fill_colour = rng.uniform(0.0, 0.25) * warm
    return make_lights(
        geometry, key, fill, strength * 1.1 * warm, low, high, fill_colour, 2.8, size
    )
