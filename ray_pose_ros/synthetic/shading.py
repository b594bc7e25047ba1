"""
Deferred shading of a visibility buffer: textures with mip levels, Lambert, specular, shadow map.

The samples of a pixel that see the same face make one fragment, shaded at their centroid. The
kernels are flat loops over fragments that call no helper with arrays: numba would count
references there, which costs more than the shading. Light is added in linear space and turned to
sRGB at the end. Everything is world-frame, z up.
"""

import numpy as np
from numba import njit

_STEPS = 4096
_codes = np.arange(256) / 255.0
TO_LINEAR = np.where(_codes <= 0.04045, _codes / 12.92, ((_codes + 0.055) / 1.055) ** 2.4).astype(
    np.float32
)
_levels = np.arange(_STEPS) / (_STEPS - 1)
TO_SRGB = (
    255 * np.where(_levels <= 0.0031308, 12.92 * _levels, 1.055 * _levels ** (1 / 2.4) - 0.055)
).astype(np.float32)


_OPTIONS = {'nogil': True, 'cache': True, 'error_model': 'numpy'}


@njit(**_OPTIONS)
def gather(index, per, step, edges, plane, label, pixel, face, x, y, hits, depth, mask):
    """
    Fragments of a visibility buffer with per x per samples a pixel; returns their number.

    Outputs for each fragment: pixel (row-major number), face (-1 where nothing was hit), x, y
    (float64, pixel coordinates of the centroid), hits (samples). Outputs for each pixel: depth
    (h, w) float32, inf where nothing was hit, and mask (h, w) of the faces with label 1.
    """
    height, width = mask.shape
    count = per * per
    ids = np.empty(count, np.int32)
    right, down = np.empty(count, np.int64), np.empty(count, np.int64)
    for k in range(count):
        right[k], down[k] = k % per, k // per
    n = 0
    for row in range(height):
        for column in range(width):
            for k in range(count):
                ids[k] = index[row * per + down[k], column * per + right[k]]
            inside = empty = most = 0
            z = np.inf
            for k in range(count):
                f = ids[k]
                if f == -2:
                    continue
                same = sx = sy = 0
                for m in range(k, count):
                    if ids[m] == f:
                        same += 1
                        sx += right[m]
                        sy += down[m]
                        ids[m] = -2
                px = (column * per + sx / same + 0.5) * step
                py = (row * per + sy / same + 0.5) * step
                pixel[n], face[n], hits[n] = row * width + column, f, same
                x[n], y[n] = px, py
                n += 1
                if f < 0:
                    empty += same
                    continue
                if label[f] == 1:
                    inside += same
                # Depth: of the nearest face that holds the pixel's centre, else of the one with
                # most samples, at their centroid.
                cx, cy = column + 0.5, row + 0.5
                score = same
                if (
                    edges[f, 0, 0] * cx + edges[f, 0, 1] * cy + edges[f, 0, 2] >= 0.0
                    and edges[f, 1, 0] * cx + edges[f, 1, 1] * cy + edges[f, 1, 2] >= 0.0
                    and edges[f, 2, 0] * cx + edges[f, 2, 1] * cy + edges[f, 2, 2] >= 0.0
                ):
                    px, py, score = cx, cy, count + 1
                if score >= most:
                    here = 1.0 / (plane[f, 0] * px + plane[f, 1] * py + plane[f, 2])
                    if score > most or here < z:
                        most, z = score, here
            depth[row, column] = z if 2 * empty <= count else np.inf
            mask[row, column] = 2 * inside > count
    return n


@njit(**_OPTIONS)
def look_up(
    n, face, x, y, pixel, edges, uv, material, surfaces, texels, layout, to_world, panorama,
    panorama_level, background, weights, to_linear, colour,
):  # fmt: skip
    """
    Linear texture colour (n, 3) of the fragments, and weights (n, 3): barycentric coordinates.

    Where nothing was hit the colour is the panorama's or the background's (h, w, 3).
    """
    width = background.shape[1]
    for k in range(n):
        f = face[k]
        px, py = x[k], y[k]
        if f < 0:
            if panorama < 0:
                row, column = pixel[k] // width, pixel[k] % width
                for c in range(3):
                    colour[k, c] = to_linear[background[row, column, c]]
                continue
            dx = to_world[0, 0] * px + to_world[0, 1] * py + to_world[0, 2]
            dy = to_world[1, 0] * px + to_world[1, 1] * py + to_world[1, 2]
            dz = to_world[2, 0] * px + to_world[2, 1] * py + to_world[2, 2]
            u = np.arctan2(dy, dx) / (2 * np.pi) + 0.5
            # A little short of the poles, where the lookup would wrap to the other one.
            v = 0.5 - 0.498 * np.arctan2(dz, np.sqrt(dx * dx + dy * dy)) / (np.pi / 2)
            texture, level = panorama, panorama_level
        else:
            b0 = edges[f, 0, 0] * px + edges[f, 0, 1] * py + edges[f, 0, 2]
            b1 = edges[f, 1, 0] * px + edges[f, 1, 1] * py + edges[f, 1, 2]
            b2 = edges[f, 2, 0] * px + edges[f, 2, 1] * py + edges[f, 2, 2]
            inverse = 1.0 / (b0 + b1 + b2)
            b0 *= inverse
            b1 *= inverse
            b2 *= inverse
            weights[k, 0], weights[k, 1], weights[k, 2] = b0, b1, b2
            u0, u1, u2 = uv[f, 0, 0], uv[f, 1, 0], uv[f, 2, 0]
            v0, v1, v2 = uv[f, 0, 1], uv[f, 1, 1], uv[f, 2, 1]
            u = b0 * u0 + b1 * u1 + b2 * u2
            v = b0 * v0 + b1 * v1 + b2 * v2
            # Texture footprint: derivatives of the ratio of two functions linear in the image.
            texture = int(surfaces[material[f], 0])
            wide, high = layout[texture, 0] * inverse, layout[texture, 1] * inverse
            u0, u1, u2, v0, v1, v2 = u0 - u, u1 - u, u2 - u, v0 - v, v1 - v, v2 - v
            ux = (edges[f, 0, 0] * u0 + edges[f, 1, 0] * u1 + edges[f, 2, 0] * u2) * wide
            uy = (edges[f, 0, 1] * u0 + edges[f, 1, 1] * u1 + edges[f, 2, 1] * u2) * wide
            vx = (edges[f, 0, 0] * v0 + edges[f, 1, 0] * v1 + edges[f, 2, 0] * v2) * high
            vy = (edges[f, 0, 1] * v0 + edges[f, 1, 1] * v1 + edges[f, 2, 1] * v2) * high
            # Between the area (sharp, aliases when oblique) and the longer axis (blurs), squared.
            longer = max(ux * ux + vx * vx, uy * uy + vy * vy)
            footprint = max(abs(ux * vy - uy * vx), 0.15 * longer)
            # Half its logarithm, rounded, from the exponent's bits: a logarithm costs more.
            level = (np.float32(footprint + 1e-9).view(np.int32) - (126 << 23)) >> 24
        # Bilinear, wrapping around: sides are powers of two, so & wraps negative numbers too.
        level = max(0, min(level, layout[texture, 2] - 1))
        columns = max(1, layout[texture, 0] >> level)
        rows = max(1, layout[texture, 1] >> level)
        s = (u - np.floor(u)) * columns - 0.5
        t = (v - np.floor(v)) * rows - 0.5
        left, top = np.floor(s), np.floor(t)
        fs, ft = s - left, t - top
        i, j = int(left), int(top)
        start = layout[texture, 3 + level]
        above = start + (j & (rows - 1)) * columns
        below = start + ((j + 1) & (rows - 1)) * columns
        i, ii = i & (columns - 1), (i + 1) & (columns - 1)
        wa, wb = (1 - fs) * (1 - ft), fs * (1 - ft)
        wc, wd = (1 - fs) * ft, fs * ft
        for c in range(3):
            code = wa * texels[above + i, c] + wb * texels[above + ii, c]
            code += wc * texels[below + i, c] + wd * texels[below + ii, c]
            colour[k, c] = to_linear[int(code + 0.5)]


@njit(**_OPTIONS)
def illuminate(
    n, face, weights, faces, vertices, normals, material, surfaces, eye, lights, shadow_map,
    shadow_matrix, shadow_offset, colour,
):  # fmt: skip
    """Multiply the colour (n, 3) of the fragments that hit a face by the light there, in place."""
    size = shadow_map.shape[0]
    for k in range(n):
        f = face[k]
        if f < 0:
            continue
        b0, b1, b2 = weights[k, 0], weights[k, 1], weights[k, 2]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wx = b0 * vertices[a, 0] + b1 * vertices[b, 0] + b2 * vertices[c, 0]
        wy = b0 * vertices[a, 1] + b1 * vertices[b, 1] + b2 * vertices[c, 1]
        wz = b0 * vertices[a, 2] + b1 * vertices[b, 2] + b2 * vertices[c, 2]
        nx = b0 * normals[f, 0, 0] + b1 * normals[f, 1, 0] + b2 * normals[f, 2, 0]
        ny = b0 * normals[f, 0, 1] + b1 * normals[f, 1, 1] + b2 * normals[f, 2, 1]
        nz = b0 * normals[f, 0, 2] + b1 * normals[f, 1, 2] + b2 * normals[f, 2, 2]
        ex, ey, ez = eye[0] - wx, eye[1] - wy, eye[2] - wz
        surface = material[f]
        scale = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
        if surfaces[surface, 3] == 0.0 and nx * ex + ny * ey + nz * ez < 0.0:
            scale = -scale  # two-sided
        nx *= scale
        ny *= scale
        nz *= scale
        lx, ly, lz = lights[0, 0] - wx, lights[0, 1] - wy, lights[0, 2] - wz
        reach = 1.0 / np.sqrt(lx * lx + ly * ly + lz * lz)
        key = max(0.0, (nx * lx + ny * ly + nz * lz) * reach)
        depth = shadow_matrix[2, 0] * wx + shadow_matrix[2, 1] * wy + shadow_matrix[2, 2] * wz
        depth += shadow_offset[2]
        if key > 0.0 and size > 1 and depth > 0.1:
            u = shadow_matrix[0, 0] * wx + shadow_matrix[0, 1] * wy + shadow_matrix[0, 2] * wz
            v = shadow_matrix[1, 0] * wx + shadow_matrix[1, 1] * wy + shadow_matrix[1, 2] * wz
            u = (u + shadow_offset[0]) / depth - 0.5
            v = (v + shadow_offset[1]) / depth - 0.5
            if u >= 1 and v >= 1 and u < size - 3 and v < size - 3:
                # Slanted surfaces need more distance from their own shadow.
                limit = 1.0 / (depth - 0.012 - 0.03 * (1.0 - key))
                i, j = int(u), int(v)
                fu, fv = u - i, v - j
                lit = 0.0
                for d in range(3):  # a 3x3 tent of comparisons
                    row = (1.0 - fu) * (shadow_map[j + d, i] <= limit)
                    row += 1.0 * (shadow_map[j + d, i + 1] <= limit)
                    row += fu * (shadow_map[j + d, i + 2] <= limit)
                    lit += row * (1.0 - fv if d == 0 else (fv if d == 2 else 1.0))
                key *= 0.25 * lit
        shine = 0.0
        if surfaces[surface, 1] > 0.0 and key > 0.0:
            away = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
            hx, hy, hz = lx * reach + ex * away, ly * reach + ey * away, lz * reach + ez * away
            dot = nx * hx + ny * hy + nz * hz
            dot *= dot / (hx * hx + hy * hy + hz * hz + 1e-20)
            if dot > 0.3:
                lobe = dot ** (0.5 * surfaces[surface, 2])
                shine = surfaces[surface, 1] * lobe * min(1.0, 4 * key)
        fill = max(0.0, nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2])
        sky = 0.5 + 0.5 * nz
        for i in range(3):
            light = lights[3, i] * (1.0 - sky) + lights[4, i] * sky
            light += lights[2, i] * key + lights[5, i] * fill
            colour[k, i] = colour[k, i] * light + shine * lights[2, i]


@njit(**_OPTIONS)
def resolve(n, pixel, hits, colour, exposure, to_srgb, image):
    """Add up the fragments of each pixel (pixel (n,) ascends) into image (h * w, 3) uint8."""
    limit = to_srgb.shape[0] - 1
    k = 0
    while k < n:
        at = pixel[k]
        red = green = blue = 0.0
        count = 0
        while k < n and pixel[k] == at:
            red += hits[k] * colour[k, 0]
            green += hits[k] * colour[k, 1]
            blue += hits[k] * colour[k, 2]
            count += hits[k]
            k += 1
        scale = limit / count
        image[at, 0] = to_srgb[min(limit, int(red * exposure[0] * scale))]
        image[at, 1] = to_srgb[min(limit, int(green * exposure[1] * scale))]
        image[at, 2] = to_srgb[min(limit, int(blue * exposure[2] * scale))]
