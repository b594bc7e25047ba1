"""
Z-buffer triangle rasteriser in homogeneous coordinates, compiled with numba.

A triangle with camera-space corners v_i has pixel-space homogeneous corners p_i = K v_i. For the
pixel d = (x, y, 1) the edge functions e_i = d . (p_j x p_k) are proportional to the perspective
correct barycentric coordinates and sum(e_i) / det(p) is 1 / z [Olano and Greer 1997]. Nothing is
divided by the depth of a corner, so a triangle that reaches behind the camera (a room, the ground)
needs no clipping but for the rectangle of pixels it can cover.

Cameras are OpenCV, pixel centres at half-integers. Front faces are counter-clockwise seen from
outside.
"""

import numpy as np
from numba import njit

NEAR = 0.02


@njit(nogil=True, cache=True, error_model='numpy')
def _extend(bounds, x, y):
    bounds[0] = min(bounds[0], x)
    bounds[1] = min(bounds[1], y)
    bounds[2] = max(bounds[2], x)
    bounds[3] = max(bounds[3], y)


@njit(nogil=True, cache=True, error_model='numpy')
def _bounds(points, a, b, c, near, bounds):
    """Bounding rectangle of the part of the triangle in front of the near plane; False if none."""
    bounds[0] = bounds[1] = 1e30
    bounds[2] = bounds[3] = -1e30
    corner = (a, b, c)
    found = False
    for i in range(3):
        p, q = corner[i], corner[(i + 1) % 3]
        zp, zq = points[p, 2], points[q, 2]
        if zp >= near:
            _extend(bounds, points[p, 0] / zp, points[p, 1] / zp)
            found = True
        if (zp >= near) != (zq >= near):
            s = (near - zp) / (zq - zp)
            x = points[p, 0] + s * (points[q, 0] - points[p, 0])
            y = points[p, 1] + s * (points[q, 1] - points[p, 1])
            _extend(bounds, x / near, y / near)
            found = True
    return found


@njit(nogil=True, cache=True, error_model='numpy')
def _cross(points, a, b, sign, edges, f, i):
    ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
    bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
    edges[f, i, 0] = sign * (ay * bz - az * by)
    edges[f, i, 1] = sign * (az * bx - ax * bz)
    edges[f, i, 2] = sign * (ax * by - ay * bx)


@njit(nogil=True, cache=True, error_model='numpy')
def rasterise(points, faces, cull, near, step, edges, plane, inverse_depth, index):
    """
    Fill the visibility buffer.

    points (V, 3) float64: K times the camera-space vertices. faces (F, 3) int32. cull (F,) bool:
    drop the face when seen from behind. step: pixels between samples (1 / supersampling).
    Outputs, of the faces drawn: edges (F, 3, 3) float64 edge functions, plane (F, 3) float64 with
    1 / z = plane . (x, y, 1); inverse_depth (h, w) float32, 0 where empty; index (h, w) int32,
    the face or -1.
    """
    height, width = index.shape
    inverse_depth[:] = 0.0
    index[:] = -1
    bounds = np.empty(4)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za < near and zb < near and zc < near:
            continue
        if not _bounds(points, a, b, c, near, bounds):
            continue
        # Sample s lies at (s + 0.5) * step.
        x0 = max(0, int(np.ceil(max(bounds[0] / step - 0.5, -1.0) - 1e-9)))
        y0 = max(0, int(np.ceil(max(bounds[1] / step - 0.5, -1.0) - 1e-9)))
        x1 = min(width - 1, int(np.floor(min(bounds[2] / step - 0.5, width + 1.0) + 1e-9)))
        y1 = min(height - 1, int(np.floor(min(bounds[3] / step - 0.5, height + 1.0) + 1e-9)))
        if x0 > x1 or y0 > y1:
            continue
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        det = (
            points[a, 0] * (by * cz - bz * cy)
            + points[a, 1] * (bz * cx - bx * cz)
            + points[a, 2] * (bx * cy - by * cx)
        )
        if det == 0.0 or (cull[f] and det > 0.0):
            continue
        sign = 1.0 if det > 0.0 else -1.0
        _cross(points, b, c, sign, edges, f, 0)
        _cross(points, c, a, sign, edges, f, 1)
        _cross(points, a, b, sign, edges, f, 2)
        e = edges[f]
        scale = 1.0 / abs(det)
        wx = (e[0, 0] + e[1, 0] + e[2, 0]) * scale
        wy = (e[0, 1] + e[1, 1] + e[2, 1]) * scale
        w0 = (e[0, 2] + e[1, 2] + e[2, 2]) * scale
        plane[f, 0], plane[f, 1], plane[f, 2] = wx, wy, w0
        largest = 1.0 / near
        a0, a1, a2 = e[0, 0], e[1, 0], e[2, 0]
        for row in range(y0, y1 + 1):
            y = (row + 0.5) * step
            # The same products with opposite signs on both sides of a shared edge: no cracks.
            c0 = e[0, 1] * y + e[0, 2]
            c1 = e[1, 1] * y + e[1, 2]
            c2 = e[2, 1] * y + e[2, 2]
            cw = wy * y + w0
            first, last = x0, x1
            if last - first > 12:
                first, last = _span(a0, c0, step, first, last)
                first, last = _span(a1, c1, step, first, last)
                first, last = _span(a2, c2, step, first, last)
            for column in range(first, last + 1):
                x = (column + 0.5) * step
                if a0 * x + c0 >= 0.0 and a1 * x + c1 >= 0.0 and a2 * x + c2 >= 0.0:
                    w = np.float32(wx * x + cw)
                    if w > inverse_depth[row, column] and w <= largest:
                        inverse_depth[row, column] = w
                        index[row, column] = f


@njit(nogil=True, cache=True, error_model='numpy', inline='always')
def _span(slope, offset, step, first, last):
    """Columns where slope * x + offset >= 0 can hold, one wider on each side for rounding."""
    if slope > 0.0:
        edge = -offset / slope / step - 0.5
        if edge > last + 2:
            return 1, 0
        if edge > first:
            first = max(first, int(edge) - 1)
    elif slope < 0.0:
        edge = -offset / slope / step - 0.5
        if edge < first - 2:
            return 1, 0
        if edge < last:
            last = min(last, int(edge) + 2)
    elif offset < 0.0:
        return 1, 0
    return first, last
