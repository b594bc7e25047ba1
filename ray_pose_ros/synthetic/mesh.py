"""Triangle meshes with a texture coordinate and a normal for each corner, and their transforms."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Mesh:
    """
    A triangle mesh; faces are counter-clockwise seen from outside.

    vertices (V, 3) float64, faces (F, 3) int32, uv (F, 3, 2) float32 (wraps outside [0, 1]),
    material (F,) int32 index into the textures of the owner, normals (F, 3, 3) float32 or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    normals: np.ndarray | None = None

    def transformed(self, matrix=None, offset=(0.0, 0.0, 0.0)) -> 'Mesh':
        """Mesh with x -> matrix x + offset; a mirroring matrix keeps faces outward."""
        vertices = self.vertices if matrix is None else self.vertices @ np.asarray(matrix).T
        faces, uv = self.faces, self.uv
        if matrix is not None and np.linalg.det(matrix) < 0:
            faces, uv = faces[:, ::-1], uv[:, ::-1]
        return Mesh(vertices + np.asarray(offset), faces, uv, self.material, None)

    def with_material(self, material: int) -> 'Mesh':
        """Same mesh with one material."""
        return replace(self, material=np.full(len(self.faces), material, np.int32))

    def with_uv(self, scale=(1.0, 1.0), offset=(0.0, 0.0)) -> 'Mesh':
        """Same mesh with uv * scale + offset."""
        uv = self.uv * np.float32(scale) + np.float32(offset)
        return replace(self, uv=uv.astype(np.float32))

    def with_normals(self, crease: float = 0.7) -> 'Mesh':
        """Corner normals: the vertex average, or the face's if their cosine is below `crease`."""
        corners = self.vertices[self.faces]
        face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.empty_like(self.vertices)
        flat = self.faces.ravel()
        for axis in range(3):
            total[:, axis] = np.bincount(flat, np.repeat(face[:, axis], 3), len(self.vertices))
        face = face / np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-20)
        smooth = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)
        normals = smooth[self.faces]
        sharp = np.einsum('fci,fi->fc', normals, face) < crease
        normals = np.where(sharp[..., None], face[:, None], normals)
        return replace(self, normals=normals.astype(np.float32))


def merge(meshes) -> Mesh:
    """One mesh of several; materials are kept, normals dropped unless all have them."""
    meshes = list(meshes)
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    normals = None
    if all(m.normals is not None for m in meshes):
        normals = np.concatenate([m.normals for m in meshes])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + s for m, s in zip(meshes, starts[:-1], strict=True)]).astype(
            np.int32
        ),
        np.concatenate([m.uv for m in meshes]),
        np.concatenate([m.material for m in meshes]),
        normals,
    )


def from_faces(vertices, faces, uv) -> Mesh:
    """Mesh of arrays, without the faces that have no area."""
    vertices = np.asarray(vertices, np.float64)
    faces = np.asarray(faces, np.int32)
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    keep = (normal * normal).sum(1) > 1e-18
    uv = np.asarray(uv, np.float32)[keep]
    return Mesh(vertices, faces[keep], uv, np.zeros(int(keep.sum()), np.int32))


def rotation(axis, angle: float) -> np.ndarray:
    """Rotation (3, 3) by `angle` (rad) about `axis` (3,) [Rodrigues]."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def frame_along(direction) -> np.ndarray:
    """A rotation (3, 3) that takes +z to `direction` (3,)."""
    z = np.asarray(direction, float) / np.linalg.norm(direction)
    x = np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)
