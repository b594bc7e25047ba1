"""Points from matches and cameras, their colours, and the files of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_fixtures import ring, see, unit
from test_estimation_export import pinholes, posed

from ray_pose_ros.estimation import colmap_files, posed_cameras
from ray_pose_ros.estimation.cloud import cloud_of, write_ply
from ray_pose_ros.estimation.packed_view import packed, small_image
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.multiview.points import triangulate
from ray_pose_ros.multiview.two_view import RayMatches


def observed(R, t, points, rng, noise=5e-4):
    """Rays (N, K, 3) of points (K, 3) in all cameras, each with its own noise."""
    rays = unit(np.einsum('nij,kj->nki', R, points) + t[:, None])
    return unit(rays + rng.normal(size=rays.shape) * noise)


def matched(rays, pairs):
    n = rays.shape[1]
    return {
        (i, j): RayMatches(rays[i], rays[j], np.full(n, 1e-3), rays[i, 0], rays[j, 0])
        for i, j in pairs
    }


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_points_are_where_they_were(seed):
    rng = np.random.default_rng(seed)
    R, t = ring(4, 25)
    truth = 0.2 * rng.normal(size=(40, 3))
    found = triangulate(R, t, matched(observed(R, t, truth, rng), [(0, 1), (1, 2), (2, 3)]))
    assert len(found) == 40
    assert np.bincount(found.point).tolist() == [4] * 40  # one track over the chain of pairs
    off = np.linalg.norm(found.xyz[:, None] - truth[None], axis=-1).min(1)
    assert off.max() < 0.02
    assert 0.2 < np.sqrt(np.mean((off / found.sigma) ** 2)) < 1.5
    for k in range(3):
        assert np.all(np.diff(found.point) >= 0)
        assert len(np.unique(found.view[found.point == k])) == 4


def test_what_no_point_explains_is_left_out():
    rng = np.random.default_rng(1)
    R, t = ring(3, 25)
    truth = 0.2 * rng.normal(size=(60, 3))
    rays = observed(R, t, truth, rng)
    rays[2, :20] = rng.permutation(rays[2, :20])  # wrong in one of three views
    found = triangulate(R, t, matched(rays, [(0, 1), (1, 2)]))
    count = np.bincount(found.point)
    assert 40 <= len(found) <= 60 and (count == 3).sum() >= 40
    off = np.linalg.norm(found.xyz[:, None] - truth[None], axis=-1).min(1)
    assert np.median(off) < 0.003 and (off < 0.02).mean() > 0.95


def test_points_at_unknown_distance_are_left_out():
    rng = np.random.default_rng(2)
    R, t = np.stack([np.eye(3)] * 2), np.array([[0.0, 0, 1], [0.005, 0, 1]])  # side by side
    rays = observed(R, t, 0.2 * rng.normal(size=(30, 3)), rng)
    assert not len(triangulate(R, t, matched(rays, [(0, 1)])))
    R, t = ring(2, 30)
    far = observed(R, t, 500 * unit(rng.normal(size=(30, 3))), rng)
    assert not len(triangulate(R, t, matched(far, [(0, 1)])))
    R, t = np.stack([np.eye(3)] * 2), np.array([[0.0, 0, 1]] * 2)  # at one place
    same = observed(R, t, 0.2 * rng.normal(size=(9, 3)), rng, 0.0)
    assert not len(triangulate(R, t, matched(same, [(0, 1)])))


def test_a_track_with_two_features_of_one_view_is_none():
    rng = np.random.default_rng(3)
    R, t = ring(3, 25)
    rays = observed(R, t, 0.2 * rng.normal(size=(10, 3)), rng)
    matches = matched(rays, [(0, 1), (1, 2)])
    crossed = matched(rays[:, [1, 0, *range(2, 10)]], [(0, 2)])[0, 2]
    matches[0, 2] = RayMatches(
        rays[0], crossed.b, crossed.sigma, crossed.centre_a, crossed.centre_b
    )
    assert len(triangulate(R, t, matches)) == 8


def test_matches_of_the_network_are_too_coarse():
    rng = np.random.default_rng(4)
    R, t = ring(2, 25)
    m = see(R, t, 0, 1, 0.2 * rng.normal(size=(30, 3)), rng)
    assert len(triangulate(R, t, {(0, 1): m})) == 30
    assert len(triangulate(R, t, {(0, 1): m.weighed(0.5)})) == 0
    both = m.take(np.arange(10)).and_also(m.take(np.arange(10, 30)).weighed(0.5))
    assert len(triangulate(R, t, {(0, 1): both})) == 10
    for nothing in ({}, {(0, 1): m.take(np.arange(0))}):
        found = triangulate(R, t, nothing)
        assert len(found) == 0 and found.xyz.shape == (0, 3) and found.ray.shape == (0, 3)


@pytest.fixture
def estimate():
    rng = np.random.default_rng(5)
    R, t = ring(3, 25)
    camera = CameraModel.from_fov(80, 60, 1.0)
    points = 0.15 * rng.normal(size=(25, 3))
    matches = matched(observed(R, t, points, rng), [(0, 1), (1, 2)])
    return SimpleNamespace(R=R, t=t, cameras=(camera,) * 3, ray_matches=matches)


def test_colours_are_those_of_the_pixels(estimate):
    images = [np.full((60, 80, 3), value, np.uint8) for value in (10, 40, 100)]
    images[1][:, 40:] = 250  # the right half of the second image
    cloud = cloud_of(estimate, images.__getitem__)
    assert len(cloud) == 25 and cloud.rgb.dtype == np.uint8
    right = cloud.pixel[cloud.view == 1][:, 0] >= 40
    assert 3 < right.sum() < 22
    expected = np.where(right, 120, 50)
    np.testing.assert_array_equal(cloud.rgb, np.repeat(expected[:, None], 3, axis=1))
    half = cloud_of(estimate, lambda i: images[i][::2, ::2])
    np.testing.assert_array_equal(half.rgb, cloud.rgb)
    assert (cloud.error < 1.0).all() and (cloud.error > 0).all()
    for k in range(3):
        mine = cloud.view == k
        seen = estimate.R[k] @ cloud.xyz[cloud.point[mine]].T + estimate.t[k][:, None]
        at = (estimate.cameras[k].matrix.numpy() @ seen / seen[2])[:2].T
        np.testing.assert_allclose(at, cloud.pixel[mine], atol=0.5)


def test_small_images_of_views_that_have_left():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:, 0] = 200
    view = View(image)
    assert small_image(view) is image
    small = small_image(packed(view))
    assert small.shape == (16, 24, 3)
    assert abs(int(small[8, 18, 0]) - 200) < 12 and small[8, 18, 2] < 12


def test_ply_files_say_what_they_hold(tmp_path, estimate):
    cloud = cloud_of(estimate, lambda i: np.full((60, 80, 3), (1, 2, 3), np.uint8))
    write_ply(tmp_path / 'p.ply', cloud)
    head, body = (tmp_path / 'p.ply').read_bytes().split(b'end_header\n')
    assert b'element vertex 25\n' in head and len(body) == 25 * 15
    first = np.frombuffer(body[:12], '<f4')
    np.testing.assert_allclose(first, cloud.xyz[0], rtol=1e-6)
    assert list(body[12:15]) == [1, 2, 3]


def test_colmap_reads_the_points(tmp_path, estimate):
    cloud = cloud_of(estimate, lambda i: np.full((60, 80, 3), (1, 2, 3), np.uint8))
    given = posed(pinholes(3), 0)
    given = posed_cameras.PosedCameras(
        given.names, estimate.cameras, estimate.R, estimate.t, given.stamps
    )
    colmap_files.write_colmap(tmp_path, given, cloud)
    again = colmap_files.read_colmap(tmp_path)
    assert list(again.names) == list(given.names)
    np.testing.assert_allclose(again.R, given.R, atol=1e-9)
    pycolmap = pytest.importorskip('pycolmap')
    read = pycolmap.Reconstruction(str(tmp_path))
    assert read.num_points3D() == 25 and read.num_images() == 3
    assert read.compute_num_observations() == len(cloud.view) == 75
    assert read.points3D[1].color.tolist() == [1, 2, 3]
    np.testing.assert_allclose(read.points3D[1].xyz, cloud.xyz[0], atol=1e-7)
    read.update_point_3d_errors()
    assert read.compute_mean_reprojection_error() == pytest.approx(cloud.error.mean(), rel=0.2)
    track = read.points3D[1].track.elements
    at = [read.images[e.image_id].points2D[e.point2D_idx].xy for e in track]
    np.testing.assert_allclose(at, cloud.pixel[cloud.point == 0], atol=1e-3)
