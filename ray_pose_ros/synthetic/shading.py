"""
Deferred shading of a visibility buffer: textures with mip levels, Lambert, specular, shadow map.

Light is added in linear space and turned to sRGB at the end. Everything is world-frame, z up.
"""

import numpy as np
from numba import njit

_STEPS = 4096
_codes = np.arange(256) / 255.0
TO_LINEAR = np.where(
    _codes <= 0.04045, _codes / 12.92, ((_codes + 0.055) / 1.055) ** 2.4
).astype(np.float32)
_levels = np.arange(_STEPS) / (_STEPS - 1)
TO_SRGB = (
    255 * np.where(_levels <= 0.0031308, 12.92 * _levels, 1.055 * _levels ** (1 / 2.4) - 0.055)
).astype(np.float32)


@njit(nogil=True, cache=True)
def _sample(texels, layout, texture, u, v, level, out):
    """Bilinear lookup with wrap-around in the mip level `level`; sRGB codes into out (3,)."""
    level = max(0, min(level, layout[texture, 2] - 1))
    width = max(1, layout[texture, 0] >> level)
    height = max(1, layout[texture, 1] >> level)
    x = (u - np.floor(u)) * width - 0.5
    y = (v - np.floor(v)) * height - 0.5
    xf, yf = np.floor(x), np.floor(y)
    fx, fy = x - xf, y - yf
    # Sizes are powers of two, so that & wraps negative numbers too.
    xa, ya = int(xf) & (width - 1), int(yf) & (height - 1)
    xb, yb = (xa + 1) & (width - 1), (ya + 1) & (height - 1)
    start = layout[texture, 3 + level]
    i00, i01 = start + ya * width + xa, start + ya * width + xb
    i10, i11 = start + yb * width + xa, start + yb * width + xb
    w00, w01 = (1 - fx) * (1 - fy), fx * (1 - fy)
    w10, w11 = (1 - fx) * fy, fx * fy
    for k in range(3):
        out[k] = (
            w00 * texels[i00, k] + w01 * texels[i01, k] + w10 * texels[i10, k] + w11 * texels[i11, k]
        )


@njit(nogil=True, cache=True)
def _lit(shadow_map, matrix, offset, x, y, z, bias):
    """Share of the key light that reaches a point: 4 comparisons, bilinear."""
    h, w = shadow_map.shape
    if h <= 1:
        return 1.0
    px = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0]
    py = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1]
    pz = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2]
    if pz <= 0.0:
        return 1.0
    u, v = px / pz - 0.5, py / pz - 0.5
    if u < 1 or v < 1 or u >= w - 3 or v >= h - 3:
        return 1.0
    limit = 1.0 / (pz - bias)
    i, j = int(u), int(v)
    fu, fv = u - i, v - j
    total = 0.0
    # A 3x3 tent: bilinear average of four 2x2 neighbourhoods, softer than one.
    for dj in range(3):
        wv = 1.0 - fv if dj == 0 else (fv if dj == 2 else 1.0)
        for di in range(3):
            wu = 1.0 - fu if di == 0 else (fu if di == 2 else 1.0)
            if shadow_map[j + dj, i + di] <= limit:
                total += wu * wv
    return 0.25 * total


@njit(nogil=True, cache=True)
def shade(
    index, step, edges, faces, vertices, uv, normals, material, label, texels, layout, surfaces,
    plane, eye, to_world, lights, shadow_map, shadow_matrix, shadow_offset, panorama,
    panorama_level, background, exposure, to_linear, to_srgb, image, depth, mask,
):  # fmt: skip
    """
    Colour, depth and mask of every pixel from its samples; see renderer.render for the arrays.

    Samples of one pixel that see the same face are shaded once, at their centroid.
    """
    height, width = mask.shape
    per = index.shape[0] // height
    count = per * per
    ids = np.empty(count, np.int32)
    colour = np.empty(3, np.float32)
    view = np.empty(3)
    limit = to_srgb.shape[0] - 1
    for row in range(height):
        for column in range(width):
            for k in range(count):
                ids[k] = index[row * per + k // per, column * per + k % per]
            red = green = blue = 0.0
            inside = 0
            most = 0
            z = np.inf
            for k in range(count):
                f = ids[k]
                if f == -2:
                    continue
                hits = 0
                sx = sy = 0.0
                for m in range(k, count):
                    if ids[m] == f:
                        hits += 1
                        sx += column * per + m % per + 0.5
                        sy += row * per + m // per + 0.5
                        if m > k:
                            ids[m] = -2
                x, y = sx / hits * step, sy / hits * step
                if f < 0:
                    if hits > most:
                        most = hits
                        z = np.inf
                    for i in range(3):
                        view[i] = to_world[i, 0] * x + to_world[i, 1] * y + to_world[i, 2]
                    if panorama >= 0:
                        length = np.sqrt(view[0] ** 2 + view[1] ** 2 + view[2] ** 2)
                        u = np.arctan2(view[1], view[0]) / (2 * np.pi) + 0.5
                        v = 0.5 - 0.498 * np.arcsin(view[2] / length) / (np.pi / 2)
                        _sample(texels, layout, panorama, u, v, panorama_level, colour)
                        red += hits * to_linear[int(colour[0])] * exposure[0]
                        green += hits * to_linear[int(colour[1])] * exposure[1]
                        blue += hits * to_linear[int(colour[2])] * exposure[2]
                    else:
                        br = min(row, background.shape[0] - 1)
                        bc = min(column, background.shape[1] - 1)
                        red += hits * to_linear[background[br, bc, 0]] * exposure[0]
                        green += hits * to_linear[background[br, bc, 1]] * exposure[1]
                        blue += hits * to_linear[background[br, bc, 2]] * exposure[2]
                    continue
                e = edges[f]
                b0 = e[0, 0] * x + e[0, 1] * y + e[0, 2]
                b1 = e[1, 0] * x + e[1, 1] * y + e[1, 2]
                b2 = e[2, 0] * x + e[2, 1] * y + e[2, 2]
                total = b0 + b1 + b2
                inverse = 1.0 / total
                b0 *= inverse
                b1 *= inverse
                b2 *= inverse
                # Texture footprint: derivatives of the ratio of two linear functions.
                tx = (e[0, 0] + e[1, 0] + e[2, 0]) * inverse
                ty = (e[0, 1] + e[1, 1] + e[2, 1]) * inverse
                t = uv[f]
                u = b0 * t[0, 0] + b1 * t[1, 0] + b2 * t[2, 0]
                v = b0 * t[0, 1] + b1 * t[1, 1] + b2 * t[2, 1]
                ux = (e[0, 0] * t[0, 0] + e[1, 0] * t[1, 0] + e[2, 0] * t[2, 0]) * inverse - u * tx
                uy = (e[0, 1] * t[0, 0] + e[1, 1] * t[1, 0] + e[2, 1] * t[2, 0]) * inverse - u * ty
                vx = (e[0, 0] * t[0, 1] + e[1, 0] * t[1, 1] + e[2, 0] * t[2, 1]) * inverse - v * tx
                vy = (e[0, 1] * t[0, 1] + e[1, 1] * t[1, 1] + e[2, 1] * t[2, 1]) * inverse - v * ty
                surface = material[f]
                texture = int(surfaces[surface, 0])
                wide, high = layout[texture, 0], layout[texture, 1]
                dx = (ux * wide) ** 2 + (vx * high) ** 2
                dy = (uy * wide) ** 2 + (vy * high) ** 2
                area = abs(ux * vy - uy * vx) * wide * high
                # Between the area (sharp, aliases when oblique) and the longer axis (blurs).
                footprint = np.sqrt(max(area, 1e-12) * np.sqrt(max(dx, dy) + 1e-24))
                footprint = max(footprint ** (2.0 / 3.0), np.sqrt(max(dx, dy)) * 0.35)
                level = int(np.log2(max(footprint, 1.0)) + 0.5)
                _sample(texels, layout, texture, u, v, level, colour)
                va, vb, vc = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
                wx = b0 * va[0] + b1 * vb[0] + b2 * vc[0]
                wy = b0 * va[1] + b1 * vb[1] + b2 * vc[1]
                wz = b0 * va[2] + b1 * vb[2] + b2 * vc[2]
                n = normals[f]
                nx = b0 * n[0, 0] + b1 * n[1, 0] + b2 * n[2, 0]
                ny = b0 * n[0, 1] + b1 * n[1, 1] + b2 * n[2, 1]
                nz = b0 * n[0, 2] + b1 * n[1, 2] + b2 * n[2, 2]
                ex, ey, ez = eye[0] - wx, eye[1] - wy, eye[2] - wz
                away = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
                ex *= away
                ey *= away
                ez *= away
                scale = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-20)
                if surfaces[surface, 3] == 0.0 and nx * ex + ny * ey + nz * ez < 0.0:
                    scale = -scale
                nx *= scale
                ny *= scale
                nz *= scale
                lx, ly, lz = lights[0, 0] - wx, lights[0, 1] - wy, lights[0, 2] - wz
                reach = 1.0 / np.sqrt(lx * lx + ly * ly + lz * lz)
                lx *= reach
                ly *= reach
                lz *= reach
                facing = nx * lx + ny * ly + nz * lz
                key = shine = 0.0
                if facing > 0.0:
                    bias = 0.012 + 0.03 * (1.0 - facing)
                    key = facing * _lit(shadow_map, shadow_matrix, shadow_offset, wx, wy, wz, bias)
                    if surfaces[surface, 1] > 0.0 and key > 0.0:
                        hx, hy, hz = lx + ex, ly + ey, lz + ez
                        dot = nx * hx + ny * hy + nz * hz
                        dot /= np.sqrt(hx * hx + hy * hy + hz * hz + 1e-20)
                        if dot > 0.0:
                            lobe = dot ** surfaces[surface, 2]
                            shine = surfaces[surface, 1] * lobe * min(1.0, 4 * key)
                fill = max(0.0, nx * lights[1, 0] + ny * lights[1, 1] + nz * lights[1, 2])
                sky = 0.5 + 0.5 * nz
                for i in range(3):
                    light = lights[3, i] + (lights[4, i] - lights[3, i]) * sky
                    light += lights[2, i] * key + lights[5, i] * fill
                    value = to_linear[int(colour[i] + 0.5)] * light + shine * lights[2, i]
                    value *= hits * exposure[i]
                    if i == 0:
                        red += value
                    elif i == 1:
                        green += value
                    else:
                        blue += value
                if label[f] == 1:
                    inside += hits
                if hits > most:
                    most = hits
                    px, py = column + 0.5, row + 0.5
                    for i in range(3):
                        if e[i, 0] * px + e[i, 1] * py + e[i, 2] < 0.0:
                            px, py = x, y  # the pixel's centre lies outside this face
                            break
                    z = 1.0 / (plane[f, 0] * px + plane[f, 1] * py + plane[f, 2])
            image[row, column, 0] = to_srgb[min(limit, int(red / count * limit))]
            image[row, column, 1] = to_srgb[min(limit, int(green / count * limit))]
            image[row, column, 2] = to_srgb[min(limit, int(blue / count * limit))]
            depth[row, column] = z
            mask[row, column] = 2 * inside > count
