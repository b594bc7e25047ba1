"""One picture that shows what was found: the crops, and where the cameras stood."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ray_pose_ros.estimation.picture_geometry import (
    align_truth,
    frustum,
    viewing_axes,
)
from ray_pose_ros.geometry.crops import extract_crop
from ray_pose_ros.geometry.similarity import camera_centre_errors, relative_rotation_errors
from ray_pose_ros.geometry.so3 import camera_centres

FRUSTUM_DEPTH = 0.28  # of the median distance of the cameras to the object
_INK, _SOFT, _PAPER, _GRID, _TRUTH = '#22262b', '#555b63', '#ffffff', '#e6e8eb', '#7d858f'
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def draw(
    path: str | Path,
    images: Iterable[np.ndarray],
    R: np.ndarray,
    t: np.ndarray,
    K: np.ndarray,
    names: Sequence[str] | None = None,
    crops: Sequence | None = None,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
    sigmas: np.ndarray | None = None,
    title: str | None = None,
    cloud: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Draw the views beside the cameras that took them, seen from above and from the side.

    Args:
        path: PNG (or any other kind that matplotlib writes).
        images: N views, (H, W, 3) uint8; each is let go before the next is asked for.
        R, t, K: (N, 3, 3), (N, 3), (N, 3, 3); world to camera, OpenCV; the object at the origin.
        names: captions of the views.
        crops: N `Crop`s (x0, y0, side) that the estimate looked at; None shows whole images.
        truth: true (R, t) in any world and scale: aligned to the estimate, drawn dashed.
        sigmas: (N,) standard deviations of the centres, drawn as discs.
        title: headline.
        cloud: points (P, 3) in the same world and colours (P, 3) uint8, drawn as dots where they
            fall into the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    R, t, K = (np.asarray(a, dtype=np.float64) for a in (R, t, K))
    n = len(R)
    colours = view_colours(n)
    figure = Figure(figsize=(16, 8.2), dpi=110, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    _draw_heading(figure, title or f'Where {n} cameras stood', R, t, truth)
    shapes = _draw_views(figure, images, names, crops, colours)

    centres = camera_centres(R, t)
    depth = FRUSTUM_DEPTH * min(1.0, (12 / n) ** 0.5)
    depth *= max(float(np.median(np.linalg.norm(centres, axis=-1))), 1e-9)
    frusta = [frustum(*pose, depth) for pose in zip(R, t, K, shapes, strict=True)]
    true_frusta = []
    if truth is not None:
        moved = align_truth(*truth, R, t)
        true_frusta = [frustum(*pose, depth) for pose in zip(*moved, K, shapes, strict=True)]
    right, up, towards = viewing_axes(R, centres)
    corners = np.concatenate([*frusta, *true_frusta, np.zeros((1, 3))])
    panels = figure.add_gridspec(1, 2, left=0.42, right=0.985, top=0.84, bottom=0.185, wspace=0.16)
    sides = (
        ((right, -towards), 'Seen from above', 'right', 'away from camera 1'),
        ((right, up), 'Seen from the side of camera 1', 'right', 'up'),
    )
    flats = [np.stack(basis, axis=-1) for basis, *_ in sides]  # (3, 2)
    both = [figure.add_subplot(panels[0, k]) for k in range(2)]
    box = both[0].get_window_extent()
    # One scale for both panels, so that lengths can be compared.
    per_pixel = max(np.max(np.ptp(corners @ f, axis=0) / (box.width, box.height)) for f in flats)
    halves = 0.56 * max(per_pixel, 1e-9) * np.array((box.width, box.height))
    for axes, flat, (_, *labels) in zip(both, flats, sides, strict=True):
        _prepare(axes, corners @ flat, halves, *labels)
        if cloud is not None:
            xyz, rgb = cloud
            axes.scatter(*(xyz @ flat).T, s=1.5, c=rgb / 255, linewidths=0, zorder=1.5)
        for points in true_frusta:
            _draw_frustum(axes, points @ flat, _TRUTH, dashed=True, heavy=n <= 12)
        for i in range(n):
            points = frusta[i] @ flat
            if true_frusta:
                pair = np.stack((points[0], true_frusta[i][0] @ flat))
                axes.plot(*pair.T, color=_TRUTH, lw=0.8, ls=':', zorder=2)
            if sigmas is not None:
                _draw_disc(axes, points[0], float(sigmas[i]), colours[i])
            _draw_frustum(axes, points, colours[i], heavy=n <= 12)
            _draw_number(axes, points, i + 1, colours[i], n)
        axes.plot(0, 0, marker='*', ms=17, color='#ffb000', mec=_INK, mew=0.8, zorder=6)
    with_points = cloud is not None and len(cloud[0]) > 0
    _draw_legend(figure, bool(true_frusta), sigmas is not None, with_points)
    figure.savefig(path)


def view_colours(n: int) -> list[tuple[float, float, float]]:
    """Colours that tell n views apart, in the order of a rainbow, dark enough on white."""
    from matplotlib import colormaps

    if n <= 10:
        tab10 = [colormaps['tab10'](i)[:3] for i in (0, 1, 2, 3, 4, 5, 6, 9, 8)]
        return [*tab10, (0.13, 0.17, 0.42)][:n]  # without its grey, which is the truth's here
    rainbow = colormaps['turbo'](np.linspace(0.03, 0.97, n))[:, :3]
    return [tuple(0.88 * c) for c in rainbow]


def shown(image: np.ndarray, crop, most: int = 480) -> np.ndarray:
    """The square that a crop cuts out, black beyond the border; the image itself without one.

    Shrunk to sides of at most so many pixels: the picture shows no more.
    """
    if crop is not None:
        small = extract_crop(image, crop, min(crop.side, most))
        return (255 * small).round().byte().permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    ratio = most / max(height, width)
    if ratio >= 1:
        return image
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _draw_heading(figure, title: str, R, t, truth) -> None:
    caption = (
        'Each photograph on the left was taken by the camera of the same colour and number on the '
        'right; the star is the object.'
    )
    if truth is not None:
        title += f'  \N{EM DASH}  {_error_line(R, t, *truth)}'
        caption += ' Dashed grey: where the camera really was.'
    place = {'va': 'center', 'x': 0.02}
    figure.text(y=0.952, s=title, fontsize=17, weight='bold', color=_INK, **place)
    figure.text(y=0.913, s=caption, fontsize=11.5, color=_SOFT, **place)


def _error_line(R, t, true_R, true_t) -> str:
    true_R, true_t = (np.asarray(a, dtype=np.float64) for a in (true_R, true_t))
    angles = relative_rotation_errors(torch.from_numpy(R), torch.from_numpy(true_R))
    text = f'median rotation error {float(angles.median()):.1f}\N{DEGREE SIGN}'
    if len(R) > 2:  # the centres of two cameras always match
        centres = torch.from_numpy(camera_centres(R, t))
        true_centres = torch.from_numpy(camera_centres(true_R, true_t))
        try:
            errors = camera_centre_errors(centres, true_centres)
        except ValueError:  # all in one place: no scale
            return text
        text += f', centres off by {100 * float(errors.median()):.0f} % of the scene'
    return text


def _draw_views(figure, images, names, crops, colours) -> list[tuple[int, ...]]:
    """Returns the shapes of the images."""
    n, shapes = len(colours), []
    # Square cells of the largest size that fits, from the top left.
    sizes = {c: min(0.35 * 16 / c, 0.84 * 8.2 / -(-n // c)) for c in range(1, n + 1)}
    columns = max(sizes, key=sizes.get)
    cell = min(sizes[columns], 2.8)
    gap = 0.02 * cell + 0.08
    for i, image in enumerate(images):
        shapes.append(image.shape)
        x = 0.02 * 16 + (i % columns) * cell
        y = 0.875 * 8.2 - (i // columns + 1) * cell
        side = cell - gap
        axes = figure.add_axes((x / 16, (y + gap) / 8.2, side / 16, side / 8.2))
        label = f'{i + 1}'
        if names and n <= 24:
            label += f'  {_short(names[i], int(side * 11) - 3)}'
        _draw_view(axes, shown(image, crops[i] if crops else None), colours[i], label, side)
    return shapes


def _draw_view(axes, image: np.ndarray, colour, label: str, side: float) -> None:
    axes.imshow(image, interpolation='antialiased')
    axes.set(xticks=[], yticks=[], facecolor='black')
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=4.5 if side > 1.2 else 2.5)
    axes.text(
        *(0.035, 0.955),
        label,
        parse_math=False,  # names of files may have dollars in them
        transform=axes.transAxes,
        fontsize=9.5 if side > 1.2 else 7.5,
        color='white',
        va='top',
        weight='bold',
        bbox={'facecolor': colour, 'edgecolor': 'none', 'pad': 2.5},
    )


def _prepare(
    axes, points: np.ndarray, halves: np.ndarray, name: str, horizontal: str, vertical: str
):
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    axes.set_xlim(middle[0] - halves[0], middle[0] + halves[0])
    axes.set_ylim(middle[1] - halves[1], middle[1] + halves[1])
    axes.set_aspect('equal')
    axes.set_title(name, fontsize=13, color=_INK, weight='bold', pad=8)
    axes.set_xlabel(f'{horizontal} \N{RIGHTWARDS ARROW}', color=_SOFT)
    axes.set_ylabel(f'{vertical} \N{RIGHTWARDS ARROW}', color=_SOFT)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors='#8a9099', labelsize=8)
    for spine in axes.spines.values():
        spine.set_color('#c9cdd2')


def _draw_frustum(axes, points: np.ndarray, colour, dashed: bool = False, heavy=True) -> None:
    """points: (5, 2), the tip first."""
    width = (1.0 if dashed else 1.6) * (1.0 if heavy else 0.7)
    for a, b in _EDGES:
        axes.plot(
            *points[[a, b]].T,
            color=colour,
            lw=width,
            ls='--' if dashed else '-',
            solid_capstyle='round',
            zorder=2 if dashed else 4,
        )
    if not dashed:
        axes.fill(*points[1:].T, color=colour, alpha=0.22, lw=0, zorder=3)
        axes.plot(*points[0], marker='o', ms=4.5 if heavy else 3.5, color=colour, zorder=5)


def _draw_disc(axes, centre: np.ndarray, sigma: float, colour) -> None:
    from matplotlib.patches import Circle

    # Faint: a model that knows little draws large ones over each other.
    face, edge = (*colour, 0.08), (*colour, 0.35)
    axes.add_patch(Circle(centre, sigma, facecolor=face, edgecolor=edge, lw=0.8, zorder=1))


def _draw_number(axes, points: np.ndarray, number: int, colour, n: int) -> None:
    """The number behind the lens, away from where the camera looks."""
    from matplotlib.patheffects import withStroke

    back = points[0] - points[1:].mean(axis=0)
    length = np.linalg.norm(back)
    few = n <= 12
    offset = (13 if few else 9) * (back / length if length > 1e-9 else np.array((0, 1)))
    axes.annotate(
        str(number),
        points[0],
        offset,
        textcoords='offset points',
        ha='center',
        va='center',
        fontsize=12 if few else 8.5,
        weight='bold',
        color=colour,
        zorder=7,
        path_effects=[withStroke(linewidth=2.5, foreground=_PAPER)],
    )


def _draw_legend(figure, with_truth: bool, with_sigma: bool, with_points: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=_INK, lw=1.6, marker='o', ms=4.5, label='camera (dot: its lens)'),
        Line2D([], [], ls='', marker='*', ms=14, color='#ffb000', mec=_INK, label='object'),
    ]
    if with_truth:
        handles.append(Line2D([], [], color=_TRUTH, ls='--', label='true camera'))
    if with_sigma:
        handles.append(Patch(color=_INK, alpha=0.15, label='uncertainty of the lens, 1 sigma'))
    if with_points:
        dots = {'ls': '', 'marker': 'o', 'ms': 3, 'color': _SOFT}
        handles.append(Line2D([], [], label='points that matches show', **dots))
    figure.legend(
        handles=handles,
        loc='center',
        bbox_to_anchor=(0.69, 0.09),
        ncol=len(handles),
        frameon=False,
        fontsize=11 if len(handles) < 5 else 9.5,
        labelcolor=_INK,
    )
    note = 'Unit: the distance of camera 1 from the object. The absolute scale is not known.'
    figure.text(0.69, 0.045, note, ha='center', fontsize=10, color=_SOFT)


def _short(name: str, room: int) -> str:
    stem = Path(name).stem
    return stem if len(stem) <= room else '\N{HORIZONTAL ELLIPSIS}' + stem[len(stem) - room + 1 :]
