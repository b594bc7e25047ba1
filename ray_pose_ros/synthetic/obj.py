"""Reader of Wavefront OBJ models with MTL materials, out of any store of named files."""

import contextlib
import posixpath
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ObjModel:
    """
    vertices (V, 3); faces (F, 3) int32; uv (T, 2) with v upwards; faces_uv (F, 3) int32, -1
    without; material (F,) int32; colours (M, 3) diffuse in [0, 1]; opacity (M,); images: name of
    the diffuse picture of each material or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    faces_uv: np.ndarray
    material: np.ndarray
    colours: np.ndarray
    opacity: np.ndarray
    images: list


def read_obj(read: Callable[[str], bytes], name: str, most_faces: int = 10**6) -> ObjModel:
    """
    Model of the file `name`; read(name) gives a file's bytes and raises KeyError without it.

    Polygons become fans of triangles. Raises ValueError for a model without faces, with broken
    numbers or with more than most_faces faces.
    """
    vertices, uv, faces, faces_uv, material = [], [], [], [], []
    table: dict[str, tuple] = {}
    order: list[tuple] = [((0.7, 0.7, 0.7), 1.0, None)]
    numbers: dict[str, int] = {}
    current = 0
    folder = posixpath.dirname(name)
    for line in read(name).decode('utf-8', 'replace').splitlines():
        words = line.split()
        if not words:
            continue
        key = words[0]
        if key == 'v':
            vertices.append((float(words[1]), float(words[2]), float(words[3])))
        elif key == 'vt':
            uv.append((float(words[1]), float(words[2]) if len(words) > 2 else 0.0))
        elif key == 'f':
            corners = [_corner(w, len(vertices), len(uv)) for w in words[1:]]
            for k in range(1, len(corners) - 1):
                fan = corners[0], corners[k], corners[k + 1]
                faces.append([c[0] for c in fan])
                pair = [c[1] for c in fan]
                faces_uv.append(pair if min(pair) >= 0 else [-1, -1, -1])
                material.append(current)
            if len(faces) > most_faces:
                raise ValueError(f'{name} has more than {most_faces} faces')
        elif key == 'usemtl':
            label = line.split(None, 1)[1].strip() if len(words) > 1 else ''
            if label not in numbers:
                numbers[label] = len(order)
                order.append(table.get(label, order[0]))
            current = numbers[label]
        elif key == 'mtllib' and len(words) > 1:
            library = posixpath.join(folder, line.split(None, 1)[1].strip())
            with contextlib.suppress(KeyError):  # a model without its materials is grey
                table.update(_read_mtl(read(library), posixpath.dirname(library)))
    if not faces:
        raise ValueError(f'{name} has no faces')
    vertices = np.array(vertices, np.float64)
    faces = np.array(faces, np.int32)
    if faces.min() < 0 or faces.max() >= len(vertices) or not np.isfinite(vertices).all():
        raise ValueError(f'{name} has faces of vertices that are not there, or broken numbers')
    faces_uv = np.array(faces_uv, np.int32)
    faces_uv[(faces_uv >= len(uv)).any(axis=1)] = -1
    return ObjModel(
        vertices,
        faces,
        np.array(uv, np.float64).reshape(-1, 2),
        faces_uv,
        np.array(material, np.int32),
        np.array([m[0] for m in order]),
        np.array([m[1] for m in order]),
        [m[2] for m in order],
    )


def _corner(word: str, vertices: int, uv: int) -> tuple[int, int]:
    """Indices from 0 of 'v', 'v/vt', 'v//vn' or 'v/vt/vn'; negative ones count backwards."""
    parts = word.split('/')
    v = int(parts[0])
    t = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    return (v - 1 if v > 0 else vertices + v), (t - 1 if t > 0 else uv + t if t < 0 else -1)


def _read_mtl(data: bytes, folder: str) -> dict:
    """Materials by name: ((r, g, b), opacity, picture's name or None)."""
    table: dict[str, tuple] = {}
    label = None
    for line in data.decode('utf-8', 'replace').splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == 'newmtl':
            label = line.split(None, 1)[1].strip()
            table[label] = ((0.7, 0.7, 0.7), 1.0, None)
        elif label is None:
            continue
        elif words[0] == 'Kd' and len(words) >= 4:
            table[label] = (tuple(float(w) for w in words[1:4]), *table[label][1:])
        elif words[0] == 'd':
            table[label] = (table[label][0], float(words[-1]), table[label][2])
        elif words[0] == 'map_Kd':
            picture = posixpath.join(folder, words[-1].replace('\\', '/'))
            table[label] = (*table[label][:2], picture)
    return table
