"""An estimate in words, files and a picture, and compared with the truth where it is known."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ray_pose_ros.estimation import colmap_files, export, picture
from ray_pose_ros.estimation.cloud import Cloud, cloud_of, write_ply
from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.outputs import remove_result
from ray_pose_ros.estimation.posed_cameras import NotRepresentable, PosedCameras, as_stored
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.rays import camera_centres
from ray_pose_ros.geometry.similarity import camera_centre_errors, relative_rotation_errors

WORLD = 'axes of the first camera, origin at the object, unit = '
GAUGE = WORLD + 'distance of the first camera'


@dataclass(frozen=True)
class Errors:
    """Estimated against true cameras.

    Attributes:
        rotations: (N (N - 1),) degrees, relative rotations of all ordered pairs.
        centres: (N,) after the best similarity, over the scene's scale; None where the true
            centres coincide.
    """

    rotations: np.ndarray
    centres: np.ndarray | None

    def summary(self) -> dict[str, float]:
        """The numbers that papers quote."""
        found = {
            'rotation_median_deg': float(np.median(self.rotations)),
            'rotation_max_deg': float(self.rotations.max()),
            'rotation_within_15_deg': float((self.rotations < 15).mean()),
            'rotation_within_30_deg': float((self.rotations < 30).mean()),
        }
        if self.centres is not None:
            found['centre_median'] = float(np.median(self.centres))
            found['centre_within_0.1'] = float((self.centres < 0.1).mean())
        return found

    def line(self) -> str:
        """The summary on one line."""
        s = self.summary()
        text = (
            f'rotation error median {s["rotation_median_deg"]:.1f} deg, '
            f'{100 * s["rotation_within_15_deg"]:.0f} % under 15, '
            f'{100 * s["rotation_within_30_deg"]:.0f} % under 30; '
        )
        if self.centres is None:
            return text + 'the true cameras are all at one place'
        return text + f'centre error median {100 * s["centre_median"]:.0f} % of the scene'


def compare(
    estimate: Estimate,
    truth: tuple[np.ndarray, np.ndarray] | None,
    scene_centres: np.ndarray | None = None,
) -> Errors | None:
    """Errors against true R (N, 3, 3), t (N, 3) in any world; None without truth.

    The scene's scale is taken over `scene_centres`, by default over the true centres.
    """
    if truth is None:
        return None
    R, t = (torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in truth)
    true_centres = camera_centres(R, t)
    scene = true_centres if scene_centres is None else torch.from_numpy(scene_centres)
    scale = (scene - scene.mean(dim=0)).norm(dim=-1).max()
    rotations = relative_rotation_errors(torch.from_numpy(estimate.R), R).numpy()
    if not scale > 0:
        return Errors(rotations, None)
    centres = torch.from_numpy(estimate.centres)
    return Errors(rotations, camera_centre_errors(centres, true_centres, scale).numpy())


def table(estimate: Estimate, errors: Errors | None = None) -> str:
    """A few lines for the terminal.

    Uncertain are the rotation relative to the first camera and, in the unit of the distances from
    the object, the place relative to it.
    """
    names = [printable(Path(name).name) for name in estimate.names]
    width = max(5, *(len(name) for name in names))
    head = f'  #  {"image":{width}}  {"turned":>17}  {"distance":>8}  {"place":>7}  {"focal":>18}'
    sure = getattr(estimate, 'sure', np.zeros(0, dtype=bool))  # of a refined one
    lines = [head]
    # Angle between a camera's optical axis and the first one's.
    turned = np.degrees(np.arccos(np.clip(estimate.R[:, 2] @ estimate.R[0, 2], -1, 1)))
    sigma = np.minimum(np.degrees(estimate.rotation_sigma), 180.0)  # no rotation is further off
    for i, name in enumerate(names):
        distance = np.linalg.norm(estimate.centres[i])
        focal = f'{estimate.K[i, 0, 0]:.0f} px {estimate.intrinsics_source[i]}'
        lines.append(
            f'{i + 1:3d}  {name:{width}}  {turned[i]:6.1f}° ±{sigma[i]:6.1f}°'
            f'  {distance:8.2f}  ±{estimate.centre_sigma[i]:6.3f}  {focal:>18}'
            + ('  unsure' if len(sure) and not sure[i] else '')
        )
    lines += [
        f'{name}: turned by {90 * turns} deg for the network, which takes it to be on its side '
        'or upside down'
        for name, turns in zip(names, estimate.turned, strict=False)
        if turns
    ]
    seconds = ', '.join(f'{name} {value:.2f} s' for name, value in estimate.timings.items())
    lines.append(f'{seconds}; {100 * estimate.agreement:.0f} % of the samples agree')
    return '\n'.join(lines + ([f'against the truth: {errors.line()}'] if errors else []))


def printable(name: str) -> str:
    """The name with line breaks and the like escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in name)


def posed_cameras(estimate: Estimate) -> PosedCameras:
    """The estimate as the exporters take it; a view without time gets its number as stamp."""
    stamps = [float(i) if s is None else float(s) for i, s in enumerate(estimate.stamps)]
    return PosedCameras(
        names=list(estimate.names),
        cameras=estimate.cameras,
        R=estimate.R,
        t=estimate.t,
        stamps=np.array(stamps, dtype=np.float64),
    )


def write_files(
    folder: str | Path,
    estimate: Estimate,
    boxes: Sequence[Sequence[float] | None] | None = None,
    errors: Errors | None = None,
    cloud: Cloud | None = None,
    orientations: Sequence[int] = (),
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Write poses.json, poses.tum, transforms.json and colmap/, with the points of a cloud
    points.ply as well; returns the names written.

    Paths of images are as given in poses.json (and where they do not lead there from `folder`,
    that they begin at `files_from`), relative to `folder` in transforms.json, and bare file names
    in COLMAP's (where they differ from each other), as those programs expect. A format that cannot
    hold the cameras (thin prism distortion) is left out.

    orientations: EXIF tags by which photographs were turned, one each, 1 where they were not. In
    poses.json the cameras are those of the turned images, and the tag is told; the other two
    formats have those of the stored pixels, which is what their programs read.

    say: called with what is left out, and why.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    extras = []
    for i, source in enumerate(estimate.intrinsics_source):
        extra = {'bbox_xyxy': list(boxes[i])} if boxes and boxes[i] is not None else {}
        extra['rotation_sigma_deg'] = float(np.degrees(estimate.rotation_sigma[i]))
        extra['centre_sigma'] = float(estimate.centre_sigma[i])
        if len(getattr(estimate, 'sure', ())) == len(estimate.names):  # a refined one
            extra |= {'sure': bool(estimate.sure[i]), 'matches': int(estimate.matches[i])}
        if any(tag != 1 for tag in orientations):
            extra['exif_orientation'] = int(orientations[i])
        extras.append(extra | {'intrinsics_source': source})
    top = {'gauge': GAUGE, 'agreement': estimate.agreement, 'modes': estimate.modes}
    if estimate.metric:
        top['gauge'] = WORLD + 'metre'
        top['scale'] = {
            'source': estimate.metric.source,
            'relative_sigma': estimate.metric.log_sigma,
            'metres_per_unit': estimate.metric.metres_per_unit,
        }
    if errors:
        top['errors'] = errors.summary()
    if not all((folder / name).is_file() for name in estimate.names):
        top['files_from'] = Path(os.path.relpath(Path.cwd(), folder.resolve())).as_posix()
    posed = posed_cameras(estimate)
    export.write_poses_json(folder / 'poses.json', posed, extras, **top)
    export.write_tum(folder / 'poses.tum', posed)
    written = ['poses.json', 'poses.tum']
    relative = [_relative(name, folder) for name in estimate.names]
    bare = [Path(n).name for n in estimate.names]
    bare = bare if len(set(bare)) == len(bare) else list(estimate.names)
    turned = list(orientations) or [1] * len(estimate.names)
    ply = ''
    if cloud is not None and len(cloud):
        ply = 'points.ply'
        write_ply(folder / ply, cloud)
        written.append(ply)
    try:
        stored, seen = as_stored(posed, turned, cloud)
    except NotRepresentable as error:
        say(f'transforms.json and colmap{os.sep} are left out: {error}')
        return written
    for name, write, names, points in (
        ('transforms.json', export.write_transforms, relative, ply),
        ('colmap', colmap_files.write_colmap, bare, seen),
    ):
        try:
            write(folder / name, replace(stored, names=names), points)
        except NotRepresentable as error:
            say(f'{name} is left out: {error}')
            continue
        written.append(name)
    return written


def _relative(name: str, folder: Path) -> str:
    """A path from `folder`, for a name from the working directory or, if it is there, `folder`."""
    if not Path(name).is_absolute() and (folder / name).is_file():
        return name
    return Path(os.path.relpath(name, folder)).as_posix()


def write_all(
    folder: Path,
    estimate: Estimate,
    views: Sequence[View],
    errors: Errors | None = None,
    truth: tuple[np.ndarray, np.ndarray] | None = None,
    save_rays: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Everything `ray-pose estimate` writes, in place of an older result; returns the names.

    views: looked at one after the other, several times. say: as of `write_files`.
    """
    cloud = cloud_of(estimate, lambda i: views[i].image)
    remove_result(folder)
    boxes, orientations = zip(*((v.object_box, v.exif_orientation) for v in views), strict=True)
    written = write_files(folder, estimate, boxes, errors, cloud, orientations, say)
    if save_rays:
        np.savez_compressed(
            folder / 'rays.npz',
            rays=estimate.rays,
            names=np.array(estimate.names),
            R=estimate.R,
            t=estimate.t,
            K=estimate.K,
            crops=np.array([(c.x0, c.y0, c.side) for c in estimate.crops]),
        )
        written.append('rays.npz')
    picture.draw(
        folder / 'poses.png',
        (view.image for view in views),
        estimate.R,
        estimate.t,
        estimate.K,
        names=estimate.names,
        crops=estimate.crops,
        truth=truth,
        sigmas=estimate.centre_sigma,
        cloud=(cloud.xyz, cloud.rgb),
    )
    return [*written, 'poses.png']
