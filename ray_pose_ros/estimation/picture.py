"""One picture that shows what was found: the crops, and where the cameras stood."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

ESTIMATE_LEGEND = 'camera as estimated (tip = lens, base = what it sees)'
FRUSTUM_DEPTH = 0.28  # of the median distance of the cameras to the object
_INK, _PAPER, _GRID, _TRUTH = '#22262b', '#ffffff', '#e6e8eb', '#7d858f'
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def draw(
    path: str | Path,
    images: Sequence[np.ndarray],
    R: np.ndarray,
    t: np.ndarray,
    K: np.ndarray,
    names: Sequence[str] | None = None,
    crops: Sequence | None = None,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
    sigmas: np.ndarray | None = None,
    title: str | None = None,
) -> None:
    """Draw the views beside the cameras that took them, seen from above and from the side.

    Args:
        path: PNG (or any other kind that matplotlib writes).
        images: N views, (H, W, 3) uint8.
        R, t, K: (N, 3, 3), (N, 3), (N, 3, 3); world to camera, OpenCV; the object at the origin.
        names: captions of the views.
        crops: N `Crop`s (x0, y0, side) that the estimate looked at; None shows whole images.
        truth: true (R, t) in any world and scale: aligned to the estimate, drawn dashed.
        sigmas: (N,) standard deviations of the centres, drawn as discs.
        title: headline.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    R, t, K = (np.asarray(a, dtype=np.float64) for a in (R, t, K))
    n = len(images)
    colours = view_colours(n)
    columns = 2 if n <= 6 else 3 if n <= 12 else int(np.ceil(np.sqrt(n * 0.62)))
    rows = -(-n // columns)

    figure = Figure(figsize=(16, 8.2), dpi=110, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    figure.text(0.025, 0.955, title or f'Where {n} cameras stood', fontsize=17, weight='bold',
                color=_INK, va='center')
    figure.text(0.025, 0.916, _caption(n, truth is not None), fontsize=11, color='#555b63',
                va='center')

    grid = figure.add_gridspec(rows, columns, left=0.02, right=0.34, top=0.875, bottom=0.035,
                               wspace=0.08, hspace=0.16 if rows < 6 else 0.08)
    for i, image in enumerate(images):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        name = f'{i + 1}' if not names or n > 24 else f'{i + 1}  {_short(names[i], columns)}'
        _draw_view(axes, crop_of(image, crops[i] if crops else None), colours[i], name, rows)

    centres = -np.einsum('nji,nj->ni', R, t)
    depth = FRUSTUM_DEPTH * max(float(np.median(np.linalg.norm(centres, axis=-1))), 1e-9)
    frusta = [frustum(R[i], t[i], K[i], image.shape, depth) for i, image in enumerate(images)]
    true_frusta = []
    if truth is not None:
        true_R, true_t = align_truth(*truth, R, t)
        true_frusta = [
            frustum(true_R[i], true_t[i], K[i], image.shape, depth)
            for i, image in enumerate(images)
        ]
    right, up, towards = viewing_axes(R, centres)
    corners = np.concatenate(frusta + true_frusta + [np.zeros((1, 3))])
    sides = (
        ((right, -towards), 'From above', 'right', 'away from camera 1'),
        ((right, up), 'From the front', 'right', 'up'),
    )
    panels = figure.add_gridspec(1, 2, left=0.385, right=0.985, top=0.84, bottom=0.145, wspace=0.14)
    for k, (basis, name, horizontal, vertical) in enumerate(sides):
        axes = figure.add_subplot(panels[0, k])
        flat = np.stack(basis, axis=-1)  # (3, 2)
        _prepare(axes, corners @ flat, name, horizontal, vertical)
        for corners_3d in true_frusta:
            _draw_frustum(axes, corners_3d @ flat, _TRUTH, dashed=True)
        for i in range(n):
            if true_frusta:
                tips = np.stack((frusta[i][0], true_frusta[i][0])) @ flat
                axes.plot(*tips.T, color=_TRUTH, lw=0.7, ls=':', zorder=2)
            if sigmas is not None:
                _draw_disc(axes, centres[i] @ flat, float(sigmas[i]), colours[i])
            _draw_frustum(axes, frusta[i] @ flat, colours[i])
            _draw_number(axes, frusta[i] @ flat, i + 1, colours[i], n)
        axes.plot(0, 0, marker='*', ms=17, color='#ffb000', mec=_INK, mew=0.8, zorder=6)
    _legend(figure, bool(true_frusta), sigmas is not None)
    figure.savefig(path)


def view_colours(n: int) -> list[tuple[float, float, float]]:
    """Colours that tell n views apart, in the order of a rainbow, dark enough on white."""
    from matplotlib import colormaps

    if n <= 10:
        return [colormaps['tab10'](i)[:3] for i in range(n)]
    rainbow = colormaps['turbo'](np.linspace(0.03, 0.97, n))[:, :3]
    return [tuple(0.88 * c) for c in rainbow]


def crop_of(image: np.ndarray, crop) -> np.ndarray:
    """The square that a crop cuts out, black beyond the border; the image itself without one."""
    if crop is None:
        return image
    height, width = image.shape[:2]
    out = np.zeros((crop.side, crop.side, 3), dtype=np.uint8)
    x0, y0 = max(crop.x0, 0), max(crop.y0, 0)
    x1, y1 = min(crop.x0 + crop.side, width), min(crop.y0 + crop.side, height)
    if x1 > x0 and y1 > y0:
        out[y0 - crop.y0 : y1 - crop.y0, x0 - crop.x0 : x1 - crop.x0] = image[y0:y1, x0:x1]
    return out


def frustum(
    R: np.ndarray, t: np.ndarray, K: np.ndarray, shape: Sequence[int], depth: float
) -> np.ndarray:
    """(5, 3) world points: the centre, then the image's corners at `depth`, from top left."""
    height, width = shape[:2]
    pixels = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
    rays = pixels @ np.linalg.inv(K).T
    # A fisheye's K says little about its field of view: keep the base within 120 degrees.
    rays[:, :2] *= min(1.0, 1.73 / max(np.abs(rays[:, :2]).max(), 1e-9))
    in_camera = np.concatenate((np.zeros((1, 3)), rays * depth))
    return (in_camera - t) @ R


def viewing_axes(R: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World axes for looking at the cameras: right, up, and from the object to camera 1's side.

    Up is what the cameras agree on: against their image's downward axis, and at a right angle to
    the horizontal axes of cameras that are held level.
    """
    upward = -R[:, 1].mean(axis=0)
    agreed = float(np.linalg.norm(upward))
    if agreed > 0.35:
        guess = upward / agreed
        spread = R[:, 0].T @ R[:, 0] / len(R) + 0.3 * (np.eye(3) - np.outer(guess, guess))
        up = np.linalg.eigh(spread)[1][:, 0]
    else:  # cameras rolled every way: the flattest direction of their ring
        guess = -R[0, 1]
        up = np.linalg.svd(centres - centres.mean(axis=0))[2][-1] if len(R) > 3 else guess
    up = up * (1.0 if up @ guess >= 0 else -1.0)
    towards = centres[0] - (centres[0] @ up) * up
    if np.linalg.norm(towards) < 1e-6 * max(np.linalg.norm(centres[0]), 1e-12):
        towards = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    towards = towards / np.linalg.norm(towards)
    return np.cross(up, towards), up, towards


def align_truth(
    true_R: np.ndarray, true_t: np.ndarray, R: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """True cameras moved into the estimate's world.

    The rotation is the one that the cameras' orientations agree on, so that two cameras suffice;
    scale and place follow from the centres. Metrics align by centres alone (geometry.similarity).
    """
    true_R, true_t = (np.asarray(a, dtype=np.float64) for a in (true_R, true_t))
    u, _, vt = np.linalg.svd(np.einsum('nki,nkj->ij', R, true_R))
    turn = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    centres = -np.einsum('nji,nj->ni', R, t)
    true_centres = -np.einsum('nji,nj->ni', true_R, true_t) @ turn.T
    middle, true_middle = centres.mean(axis=0), true_centres.mean(axis=0)
    spread = np.linalg.norm(true_centres - true_middle)
    scale = np.linalg.norm(centres - middle) / spread if spread > 0 else 1.0
    moved = scale * (true_centres - true_middle) + middle
    new_R = true_R @ turn.T
    return new_R, -np.einsum('nij,nj->ni', new_R, moved)


def _caption(n: int, with_truth: bool) -> str:
    text = (
        'Each photograph on the left was taken by the camera of the same colour and number on the '
        'right; the star is the object.'
    )
    return text + (' Dashed grey: where the camera really was.' if with_truth else '')


def _draw_view(axes, image: np.ndarray, colour, name: str, rows: int) -> None:
    axes.imshow(image, interpolation='antialiased')
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=4 if rows < 5 else 2.5)
    size = 9.5 if rows < 5 else 7.5
    axes.text(0.03, 0.96, name, transform=axes.transAxes, fontsize=size, color='white', va='top',
              weight='bold', bbox={'facecolor': colour, 'edgecolor': 'none', 'pad': 2.5})


def _prepare(axes, points: np.ndarray, name: str, horizontal: str, vertical: str) -> None:
    low, high = points.min(axis=0), points.max(axis=0)
    middle, half = (low + high) / 2, 0.56 * max(float((high - low).max()), 1e-6)
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_aspect('equal')
    axes.set_title(name, fontsize=13, color=_INK, weight='bold', pad=8)
    axes.set_xlabel(f'{horizontal} \N{RIGHTWARDS ARROW}', color='#555b63')
    axes.set_ylabel(f'{vertical} \N{RIGHTWARDS ARROW}', color='#555b63')
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors='#8a9099', labelsize=8)
    for spine in axes.spines.values():
        spine.set_color('#c9cdd2')


def _draw_frustum(axes, points: np.ndarray, colour, dashed: bool = False) -> None:
    """points: (5, 2), the tip first."""
    style = {'color': colour, 'lw': 1.0 if dashed else 1.6, 'zorder': 2 if dashed else 4}
    for a, b in _EDGES:
        axes.plot(*points[[a, b]].T, ls='--' if dashed else '-', solid_capstyle='round', **style)
    if not dashed:
        axes.fill(*points[1:].T, color=colour, alpha=0.22, lw=0, zorder=3)
        axes.plot(*points[0], marker='o', ms=4.5, color=colour, zorder=5)


def _draw_disc(axes, centre: np.ndarray, sigma: float, colour) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle(centre, sigma, facecolor=colour, alpha=0.13, lw=0, zorder=1))


def _draw_number(axes, points: np.ndarray, number: int, colour, n: int) -> None:
    """The number behind the lens, away from where the camera looks."""
    back = points[0] - points[1:].mean(axis=0)
    length = np.linalg.norm(back)
    offset = 13 * back / length if length > 1e-9 else np.array((0, 13))
    axes.annotate(str(number), points[0], offset, textcoords='offset points', ha='center',
                  va='center', fontsize=11 if n <= 12 else 8, weight='bold', color=colour, zorder=7)


def _legend(figure, with_truth: bool, with_sigma: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=_INK, lw=1.6, marker='o', ms=4.5, label=ESTIMATE_LEGEND),
        Line2D([], [], ls='', marker='*', ms=14, color='#ffb000', mec=_INK, label='the object'),
    ]
    if with_sigma:
        handles.append(Patch(color=_INK, alpha=0.15, label='uncertainty of the place (1 sigma)'))
    if with_truth:
        handles.append(Line2D([], [], color=_TRUTH, ls='--', label='truth (moved into this frame)'))
    figure.legend(handles=handles, loc='lower center', bbox_to_anchor=(0.685, 0.045),
                  ncols=len(handles), frameon=False, fontsize=10, labelcolor=_INK)
    figure.text(0.685, 0.028, 'Unit: distance of camera 1 from the object.', ha='center',
                fontsize=9.5, color='#555b63')


def _short(name: str, columns: int) -> str:
    room = 22 if columns == 2 else 14 if columns == 3 else 9
    stem = Path(name).stem
    return stem if len(stem) <= room else '\N{HORIZONTAL ELLIPSIS}' + stem[1 - room :]
