"""Agreement to 1e-5 with recorded outputs of the official code (test/data/geometry)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ray_pose_ros.geometry.crops import ndc_grid
from ray_pose_ros.geometry.gauge import axes_intersection, normalise_cameras
from ray_pose_ros.geometry.pytorch3d import (
    OFFICIAL_FOCAL,
    cameras_opencv_to_p3d,
    cameras_p3d_to_opencv,
    directions_from_ndc,
    intrinsics_from_ndc,
    intrinsics_to_ndc,
    ndc_from_pixels,
    pixels_from_ndc,
    rays_opencv_to_p3d,
    rays_p3d_to_opencv,
)
from ray_pose_ros.geometry.rays import camera_centres, nearest_point_to_lines, rays_from_cameras
from ray_pose_ros.geometry.recovery import procrustes_rotation, recover_cameras_official
from ray_pose_ros.geometry.rotations import geodesic_angle
from ray_pose_ros.geometry.similarity import (
    align_similarity,
    camera_centre_errors,
    ordered_pairs,
    relative_rotation_errors,
    scene_scale,
    transform_points,
)

DATA = Path(__file__).parent / 'data' / 'geometry'
NOISY = [f'{pp}_{noise}' for pp in ('pp', 'nopp') for noise in ('0.0', '0.005', '0.02', '0.1')]


def load(name):
    arrays = np.load(DATA / f'{name}.npz')
    return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}


def close(found, expected, atol=1e-5):
    expected = expected.to(found.dtype) if found.is_floating_point() else expected
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def golden_directions(g, with_centre=True):
    """Directions (8, 256, 3) of the crops' patches, OpenCV camera frame."""
    ndc = ndc_grid(g['crops']).flatten(1, 2)
    centre = g['pp'] if with_centre else torch.zeros_like(g['pp'])
    return directions_from_ndc(ndc, g['f'][:, None], centre[:, None])


def test_ndc_grid():
    g = load('ndc_grid')
    close(ndc_grid(g['crops'], 16), g['grid16'][..., :2])
    close(ndc_grid(torch.tensor([0.0, 0.0, 2.0, 1.0]), 16), g['grid16_none'][..., :2])
    close(ndc_grid(g['crops'], (4, 8)), g['grid_8x4'][..., :2])


def test_cameras_to_rays():
    g = load('cameras_to_rays')
    R, t = cameras_p3d_to_opencv(g['R'], g['T'])
    close(rays_opencv_to_p3d(rays_from_cameras(R, t, golden_directions(g))), g['rays'])
    centres = torch.cat([camera_centres(R, t)] * 2, dim=-1)
    close(rays_p3d_to_opencv(centres)[:, :3], g['centers'])
    close(ndc_grid(g['crops']).flatten(1, 2), g['ndc'])
    whole = ndc_grid(torch.tensor([0.0, 0.0, 2.0, 1.0])).flatten(0, 1)
    d = directions_from_ndc(whole, g['f'][:, None], g['pp'][:, None])
    close(rays_opencv_to_p3d(rays_from_cameras(R, t, d)), g['rays_nocrop'])


def test_normalise_cameras():
    g = load('normalize')
    R, t = cameras_p3d_to_opencv(g['R'], g['T'])
    meeting = rays_p3d_to_opencv(torch.cat([axes_intersection(R, t)] * 2, dim=-1))[:3]
    close(meeting, g['p_intersect'][0])
    close((camera_centres(R, t) - axes_intersection(R, t)).norm(dim=-1), g['dist'][0, 0])
    R_new, t_new, _ = normalise_cameras(R, t)
    R_p3d, T_p3d = cameras_opencv_to_p3d(R_new, t_new)
    close(R_p3d, g['R_norm'])
    close(T_p3d, g['T_norm'])


@pytest.mark.parametrize('case', NOISY)
def test_rays_to_cameras(case):
    g = load('rays_to_cameras')
    rays = rays_p3d_to_opencv(g[f'{case}/rays'])
    centres = nearest_point_to_lines(rays)
    close(rays_p3d_to_opencv(torch.cat([centres] * 2, dim=-1))[:, :3], g[f'{case}/centers'])
    # 'fix': the official evaluation's one focal length for all; 'gti': the true intrinsics
    fixed = directions_from_ndc(ndc_grid(g['crops']).flatten(1, 2), OFFICIAL_FOCAL)
    true = golden_directions(g, with_centre=case.startswith('pp'))
    for name, directions in (('fix', fixed), ('gti', true)):
        R, T = cameras_opencv_to_p3d(*recover_cameras_official(rays, directions))
        close(R, g[f'{case}/{name}_R'])
        close(T, g[f'{case}/{name}_T'])
    assert torch.allclose(g[f'{case}/fix_f'], torch.tensor(OFFICIAL_FOCAL))


def test_procrustes():
    g = load('ql_procrustes')
    close(procrustes_rotation(g['PA'], g['PB']), g['PR'])


def test_evaluation_metrics():
    g = load('eval_metrics')
    R, t = cameras_p3d_to_opencv(g['R_pred'], g['T_pred'])
    R_true, t_true = cameras_p3d_to_opencv(g['R_gt'], g['T_gt'])
    assert torch.equal(ordered_pairs(8), g['pairs'])
    # The official angles are arccos of a float32 trace: 1e-3 degrees of rounding.
    errors = relative_rotation_errors(R.double(), R_true.double())
    torch.testing.assert_close(errors, g['R_error'].double(), rtol=0, atol=1e-3)
    centres, true = camera_centres(R, t), camera_centres(R_true, t_true)
    close(scene_scale(true), g['scene_scale'])
    close(camera_centre_errors(centres, true), g['CC_error'])
    scale, Rs, ts = align_similarity(centres, true)
    close(scale, g['align_s'])
    # The official similarity acts on row vectors, in PyTorch3D's world.
    R_align, t_align = cameras_opencv_to_p3d(Rs, ts)
    close(R_align, g['align_R'])
    close(t_align, g['align_t'])
    aligned = transform_points(centres, scale, Rs, ts)
    close(rays_p3d_to_opencv(torch.cat([aligned] * 2, dim=-1))[:, :3], g['aligned_centers'])


def test_why_the_official_homography_is_biased():
    """Noise-free rays, principal point off the middle: QR of the same A is right, QL is not.

    The homography from pixels to ray directions is A = R K^-1 with K^-1 upper triangular, so its
    factors are those of QR; the official code takes QL, and returns the diagonal of L, which is
    1 / f, as the focal length.
    """
    g = load('rays_to_cameras')
    A = g['pp_0.0/hom_A'].double()
    Q, U = torch.linalg.qr(A * torch.det(A).sign()[:, None, None])
    signs = U.diagonal(dim1=-2, dim2=-1).sign()
    Q, U = Q * signs[:, None, :], U * signs[:, :, None]
    U = U / U[:, 2:, 2:]
    focal = 1 / U.diagonal(dim1=-2, dim2=-1)[:, :2]
    ours = torch.rad2deg(geodesic_angle(Q, g['R'].double()))
    official = torch.rad2deg(geodesic_angle(g['pp_0.0/hom_R'], g['R']))
    assert float(ours.max()) < 0.05 and float(official.median()) > 0.8
    close(focal, g['f'].double(), atol=2e-3)
    close(-U[:, :2, 2] * focal, g['pp'].double(), atol=2e-3)
    close(1 / g['nopp_0.0/hom_f'], g['f'], atol=2e-2)


def test_adapters_are_their_own_inverse_and_keep_an_unrotated_camera():
    g = load('cameras_to_rays')
    close(rays_opencv_to_p3d(rays_p3d_to_opencv(g['rays'])), g['rays'])
    R, T = cameras_opencv_to_p3d(*cameras_p3d_to_opencv(g['R'], g['T']))
    close(R, g['R'])
    close(T, g['T'])
    R, t = cameras_p3d_to_opencv(torch.eye(3), torch.tensor([0.0, 0.0, 1.0]))
    assert torch.equal(R, torch.eye(3)) and t.tolist() == [0, 0, 1]


@pytest.mark.parametrize(('width', 'height'), [(640, 480), (480, 640), (500, 500)])
def test_ndc_intrinsics_and_points(width, height):
    focal = torch.tensor([[2.0, 2.5], [3.0, 1.0]], dtype=torch.float64)
    centre = torch.tensor([[0.1, -0.2], [0.0, 0.3]], dtype=torch.float64)
    K = intrinsics_from_ndc(focal, centre, width, height)
    for a, b in zip(intrinsics_to_ndc(K, width, height), (focal, centre), strict=True):
        close(a, b, atol=1e-12)
    # NDC: the short side spans [-1, 1], +x left, +y up
    corner = torch.zeros(2, dtype=torch.float64)
    unit = min(width, height)
    assert ndc_from_pixels(corner, width, height).tolist() == [width / unit, height / unit]
    pixels = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)).double() * 500
    close(pixels_from_ndc(ndc_from_pixels(pixels, width, height), width, height), pixels, 1e-9)
    # The same direction by way of K and by way of NDC.
    rows = torch.cat([pixels, torch.ones(20, 1)], dim=-1) @ torch.linalg.inv(K[0]).T
    ndc = ndc_from_pixels(pixels, width, height)
    expected = directions_from_ndc(ndc, focal[0], centre[0])
    close(rows / rows.norm(dim=-1, keepdim=True), expected, atol=1e-9)
