"""Windows joined by their keyframes: the world stays, and everything in it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from test_multiview_joining import ring

from ray_pose_ros.estimation.keyframe_map import KeyframeMap
from ray_pose_ros.estimation.keyframes import Keyframe
from ray_pose_ros.estimation.packed_view import PackedView, packed, unpacked
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.so3 import (
    angle_between,
    camera_centres,
    rotation_from_vector,
    vector_from_rotation,
)
from ray_pose_ros.multiview import windows
from ray_pose_ros.multiview.two_view import RayMatches

COUNT, WINDOW = 12, 5
rng = np.random.default_rng(0)
R, CENTRES = ring(COUNT, rng)
T = -np.einsum('nij,nj->ni', R, CENTRES)
POINTS = 0.3 * rng.normal(size=(60, 3))
IMAGE = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(40, 0).repeat(40, 1)


@dataclass(frozen=True)
class Told:
    """What the map reads of an Estimate."""

    R: np.ndarray
    t: np.ndarray
    rotation_sigma: np.ndarray
    centre_sigma: np.ndarray
    rays: np.ndarray
    names: tuple
    ray_matches: dict = field(default_factory=dict)
    samples: np.ndarray | None = None
    sure: tuple = ()

    @property
    def centres(self):
        return camera_centres(self.R, self.t)


def rays_of(rotations, translations, ids) -> np.ndarray:
    """(N, 6, 1, 2) the rays through two directions of each camera."""
    centres = camera_centres(rotations, translations)
    local = np.array([[0.0, 0.0, 1.0], [0.1, -0.2, 1.0]])
    directions = np.einsum('nji,pj->npi', rotations, local)
    moments = np.cross(centres[:, None], directions)
    return np.moveaxis(np.concatenate([directions, moments], -1), -1, 1)[:, :, None]


def window(ids, noise=0.0, seed=0, matches=False) -> Told:
    """The truth in the world of the window's first camera, with errors in rad."""
    ids = list(ids)
    draw = np.random.default_rng([seed, *ids])
    first, unit = R[ids[0]], np.linalg.norm(CENTRES[ids[0]])
    turned = rotation_from_vector(noise * draw.normal(size=(len(ids), 3))) @ R[ids] @ first.T
    centres = CENTRES[ids] @ first.T / unit + noise * draw.normal(size=(len(ids), 3))
    turned, centres = turned @ turned[0].T, centres @ turned[0].T
    t = -np.einsum('nij,nj->ni', turned, centres)
    found = {}
    for i in range(len(ids) if matches else 0):
        for j in range(i + 1, len(ids)):
            a, b = (POINTS @ R[ids[k]].T + T[ids[k]] for k in (i, j))
            a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
            middle = np.array([0.0, 0.0, 1.0])
            found[i, j] = RayMatches(a, b, np.full(60, 0.002), middle, middle, np.ones(60))
    sigma = np.full(len(ids), max(noise, 0.01))
    names = tuple(f'{k}.png' for k in ids)
    return Told(turned, t, sigma, sigma, rays_of(turned, t, ids), names, found)


def keyframes(ids, view=None) -> list[Keyframe]:
    return [Keyframe(k, 'camera', 1000 * k, 'optical', object(), view) for k in ids]


def join_all(map_, windows, **how):
    """What each window is in the map's world."""
    return [map_.join(keyframes(ids), window(ids, **how)) for ids in windows]


def sliding(size=WINDOW) -> list[range]:
    return [range(max(0, end - size), end) for end in range(2, COUNT + 1)]


def test_the_first_window_is_what_the_estimator_told():
    map_ = KeyframeMap(50)
    for ids in sliding()[:4]:  # it grows
        told = window(ids, noise=0.05)
        found = map_.join(keyframes(ids), told)
        for name in ('R', 't', 'rotation_sigma', 'centre_sigma', 'rays'):
            assert np.allclose(getattr(found, name), getattr(told, name), atol=1e-6), name


def test_keyframes_stay_where_they_are_when_the_window_moves_on():
    map_ = KeyframeMap(50)
    for ids, found in zip(sliding(), join_all(map_, sliding()), strict=True):
        ids = list(ids)
        assert np.degrees(angle_between(found.R, R[ids])).max() < 1e-4
        assert np.abs(found.centres - CENTRES[ids]).max() < 1e-6
        assert np.allclose(found.rays, rays_of(R[ids], T[ids], ids), atol=1e-5)
    mapped = map_.whole(found)
    assert [k.id for k in mapped.keyframes] == list(range(COUNT))
    assert np.abs(mapped.estimate.centres - CENTRES).max() < 1e-6
    assert mapped.estimate.names == tuple(f'{k}.png' for k in range(COUNT))
    assert np.allclose(mapped.estimate.rays, rays_of(R, T, range(COUNT)), atol=1e-5)
    assert mapped.estimate.ray_matches == {} and map_.begun == 1


def test_a_second_answer_for_a_window_takes_the_place_of_the_first():
    right, wrong = KeyframeMap(50), KeyframeMap(50)
    for ids in sliding():
        wrong.join(keyframes(ids), window(ids, noise=0.5, seed=1))
        again = wrong.join(keyframes(ids), window(ids))
        once = right.join(keyframes(ids), window(ids))
    assert np.allclose(again.R, once.R, atol=1e-6) and np.allclose(again.t, once.t, atol=1e-6)


def test_matches_of_all_windows_hold_keyframes_together():
    errors = {}
    for matches in (False, True):
        found = join_all(map_ := KeyframeMap(50), sliding(), noise=0.02, matches=matches)
        mapped = map_.whole(found[-1]).estimate
        errors[matches] = np.degrees(angle_between(mapped.R, R)).max()
        assert np.abs(mapped.R[0] - np.eye(3)).max() < 1e-9  # the reference is the reference
        assert np.linalg.norm(mapped.centres[0]) == pytest.approx(1)
    assert errors[True] < 0.5 < 1 < errors[False]


def test_what_a_window_is_sure_of_goes_where_it_says():
    """Windows before it, unsure ones, have all keyframes somewhere else."""

    def unsure(ids):
        told = window(ids, noise=0.9, seed=3)  # most of a right angle
        return replace(told, rotation_sigma=np.full(len(ids), 1.2))

    map_ = KeyframeMap(50)
    for end in range(WINDOW, COUNT + 1):
        ids = range(end - WINDOW, end)
        found = map_.join(keyframes(ids), unsure(ids))
    own = window(ids, matches=True)
    assert np.degrees(angle_between(found.R[-1] @ found.R[0].T, own.R[-1])) > 20
    sure = replace(own, rotation_sigma=np.full(WINDOW, 0.005), sure=(True,) * WINDOW)
    found = map_.join(keyframes(ids), sure)
    assert np.degrees(angle_between(found.R @ found.R[0].T, own.R)).max() < 1


@pytest.mark.parametrize('matches', [False, True])
def test_a_long_run_stays_a_set_of_rotations(matches):
    """Turned into the reference's frame again and again, a rounding error doubled each time."""
    map_ = KeyframeMap(6)
    for lap in range(10):
        for start in range(COUNT):
            ids = [(start + k) % COUNT for k in range(4)]
            told = window(ids, noise=0.01, matches=matches)
            number = [lap * COUNT + start + k for k in range(4)]
            found = map_.join(keyframes(number), told)
    assert map_.begun == 1
    poses = map_.whole(found).estimate
    identity = poses.R @ np.swapaxes(poses.R, -1, -2)
    assert np.abs(identity - np.eye(3)).max() < 1e-12
    away = np.linalg.norm(poses.centres, axis=1)
    assert away[0] == pytest.approx(1) and 0.3 < away.min() and away.max() < 3


def test_a_window_that_shares_no_keyframe_begins_anew():
    map_ = KeyframeMap(50)
    join_all(map_, [range(5)])
    told = window(range(6, 11), noise=0.05)
    found = map_.join(keyframes(range(6, 11)), told)
    assert np.allclose(found.R, told.R) and np.allclose(found.t, told.t)
    assert [k.id for k in map_.whole(found).keyframes] == list(range(6, 11))
    assert map_.begun == 2


def test_a_join_that_fails_leaves_no_half_joined_map(monkeypatch):
    map_ = KeyframeMap(20)
    join_all(map_, [range(4)])
    with monkeypatch.context() as patched:
        patched.setattr(windows, 'join', lambda *_, **__: {}['no'])
        with pytest.raises(KeyError, match='no'):
            map_.join(keyframes(range(2, 6)), window(range(2, 6)))
    join_all(map_, [range(2, 6), range(4, 8)])
    assert len(map_) == 6


def test_one_shared_keyframe_is_enough():
    map_ = KeyframeMap(50)
    found = join_all(map_, [range(5), range(4, 9)])[-1]
    assert np.abs(found.R - R[4:9]).max() < 1e-6
    assert np.abs(found.centres - CENTRES[4:9]).max() < 0.05  # the scale by the object alone


@pytest.mark.parametrize('matches', [False, True])
def test_a_full_map_keeps_the_reference_the_window_and_what_is_spread_most(matches):
    size = 8
    map_ = KeyframeMap(size)
    for ids in sliding():
        (found,) = join_all(map_, [ids], matches=matches)
        kept = [k.id for k in map_.whole(found).keyframes]
        assert len(kept) == len(map_) == min(size, ids[-1] + 1)
        assert kept[0] == 0 and kept == sorted(kept) and kept[-len(ids) :] == list(ids)
        assert np.abs(found.centres - CENTRES[list(ids)]).max() < 1e-4
    mapped = map_.whole(found).estimate
    assert np.abs(mapped.centres - CENTRES[kept]).max() < 1e-4
    # of those that have left, none stands right beside another as the rest do
    old = kept[1:-WINDOW]
    assert min(np.diff([0, *old, kept[-WINDOW]])) >= 1 and max(np.diff([0, *old])) <= 4


def test_a_map_smaller_than_a_window_holds_the_window_and_its_reference():
    map_ = KeyframeMap(2)
    found = join_all(map_, sliding())[-1]
    assert [k.id for k in map_.whole(found).keyframes] == [0, *range(COUNT - WINDOW, COUNT)]


def test_unknown_uncertainties_and_nan_do_no_harm():
    map_ = KeyframeMap(50)
    for ids in sliding():
        told = window(ids)
        nothing = np.full(len(ids), np.nan)
        found = map_.join(
            keyframes(ids), replace(told, rotation_sigma=nothing, centre_sigma=0 * nothing)
        )
    assert np.isfinite(found.R).all() and np.abs(found.R - R[list(ids)]).max() < 1e-4


def told_and_joined(map_, windows, wrong=(), **how):
    """Join windows, each told by the model first; those in `wrong` all at sea."""
    for n, ids in enumerate(windows):
        model = window(ids, **how)
        found = map_.join(keyframes(ids), window(ids, noise=1.0, seed=7) if n in wrong else model)
        map_.tell(keyframes(ids), model)
    return found, model


def test_a_wider_window_has_what_looks_from_other_sides_and_what_the_model_told():
    map_ = KeyframeMap(50)
    full = [range(end - WINDOW, end) for end in range(WINDOW, COUNT + 1)]
    _, model = told_and_joined(map_, full[:1])
    assert map_.wider(keyframes(full[0]), model) is None  # all that there is
    # what is published may be wrong: the model is what was told
    found, model = told_and_joined(map_, full[1:], wrong=range(3, 9), matches=True)
    assert np.degrees(angle_between(found.R[-1] @ found.R[0].T, model.R[-1])) > 5
    wide = map_.wider(keyframes(full[-1]), model)
    ids = [k.id for k in wide.keyframes]
    assert len(ids) == 2 * WINDOW and ids == sorted(ids)
    assert ids[0] == 0 and ids[-WINDOW:] == list(full[-1])
    assert wide.estimate.names == tuple(f'{k}.png' for k in ids)
    turned = wide.estimate.R @ wide.estimate.R[0].T
    assert np.degrees(angle_between(turned, R[ids] @ R[0].T)).max() < 0.1
    assert all(i < j for i, j in wide.estimate.ray_matches)
    matches = wide.estimate.ray_matches[ids.index(8), ids.index(9)]
    assert np.allclose(matches.a, window([8, 9], matches=True).ray_matches[0, 1].a)
    # corrected, the map is where the wider window has it
    map_.correct(wide.keyframes, replace(wide.estimate, sure=(True,) * len(ids)))
    whole = map_.whole(found).estimate
    assert np.degrees(angle_between(whole.R[ids], R[ids])).max() < 1
    part = map_.part(keyframes(full[-1]), found)
    assert np.array_equal(part.R, whole.R[-WINDOW:]) and part.names == whole.names[-WINDOW:]


def test_of_many_that_have_left_those_far_from_others_are_taken():
    map_ = KeyframeMap(50)
    full = [range(end - 3, end) for end in range(3, COUNT + 1)]
    _, model = told_and_joined(map_, full)
    ids = [k.id for k in map_.wider(keyframes(full[-1]), model).keyframes]
    assert len(ids) == 6 and ids[0] == 0 and ids[-3:] == [9, 10, 11]
    assert min(np.diff(ids[:4])) >= 2  # of 0 to 8, three


def test_what_has_left_the_map_is_in_no_wider_window():
    map_ = KeyframeMap(WINDOW + 2)
    _, model = told_and_joined(map_, sliding(), matches=True)
    kept = [k.id for k in map_.whole(model).keyframes]
    wide = map_.wider(keyframes(sliding()[-1]), model)
    assert [k.id for k in wide.keyframes] == kept
    assert np.abs(wide.estimate.R @ wide.estimate.R[0].T - R[kept]).max() < 1e-4


def test_a_window_of_which_the_model_tells_nothing_is_not_widened_over():
    """A map that begins anew has no keyframes of before."""
    map_ = KeyframeMap(50)
    told_and_joined(map_, [range(4), range(1, 5)])
    _, model = told_and_joined(map_, [range(6, 10)])
    assert map_.wider(keyframes(range(6, 10)), model) is None


def test_keyframes_that_have_left_keep_a_compressed_image_and_no_features():
    map_ = KeyframeMap(50)
    camera = CameraModel.from_fov(320, 240, 1.0)
    view = View(IMAGE, camera, (20, 30, 200, 220), name='a.png', stamp=2.5)
    for ids in sliding():
        found = map_.join(keyframes(ids, view), window(ids))
    kept = map_.whole(found).keyframes
    for keyframe in kept[:-WINDOW]:
        assert keyframe.prepared is None and isinstance(keyframe.view, PackedView)
        assert len(keyframe.view.jpeg) < 0.3 * IMAGE.nbytes
    assert all(k.view is view and k.prepared is not None for k in kept[-WINDOW:])
    back = unpacked(kept[0].view)
    assert np.abs(back.image.astype(int) - IMAGE).mean() < 3
    assert (back.camera, back.name, back.stamp) == (camera, 'a.png', 2.5)
    assert back.object_box == view.object_box
    assert packed(kept[0].view) is kept[0].view and unpacked(view) is view
    assert packed(None) is None


def test_a_mask_becomes_its_box():
    mask = np.zeros(IMAGE.shape[:2], bool)
    mask[50:90, 100:180] = True
    view = View(IMAGE, mask=mask)
    assert unpacked(packed(view)).object_box == view.object_box


def test_a_size_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match='map size is 0, expected at least 1'):
        KeyframeMap(0)


def test_a_focal_length_that_is_told_late_puts_all_keyframes_right():
    """Matches of pixels of a camera that was thought to have 1.25 times its focal length."""
    wrong = 1.25

    @dataclass(frozen=True)
    class Uncalibrated(Told):
        cameras: tuple = ()
        intrinsics_source: tuple = ()

    def told(ids, factor, source):
        plain = window(ids, matches=True)
        matches = {k: m.refocused(factor, factor) for k, m in plain.ray_matches.items()}
        # poses that such matches lead to: turned by too little or too much
        turned = [rotation_from_vector(vector_from_rotation(r) / factor) for r in plain.R]
        camera = CameraModel.from_fov(8, 6, 1.0).refocused(factor)
        values = vars(plain) | {'ray_matches': matches, 'R': np.array(turned)}
        n = len(plain.R)
        return Uncalibrated(**values, cameras=(camera,) * n, intrinsics_source=(source,) * n)

    class Prepared:
        refocused = 0

        def left(self, view):
            return self

        def refocus(self):
            self.refocused += 1

    map_ = KeyframeMap(COUNT)
    keyframes = [Keyframe(k, 'c', k, '', Prepared()) for k in range(COUNT)]
    for end in (5, 7):
        ids = range(end - WINDOW, end)
        found = map_.join([keyframes[k] for k in ids], told(ids, wrong, 'assumed'))
    before = map_.whole(found).estimate
    ids = range(2, 7)
    others = [replace(keyframes[k], prepared=Prepared()) for k in ids]
    map_.refocus(others, 1 / wrong)
    assert [k.prepared.refocused for k in keyframes[:2]] == [1, 1]
    found = map_.join(others, told(ids, 1.0, 'matches'))
    after = map_.whole(found)
    assert [k.prepared for k in after.keyframes[2:]] == [k.prepared for k in others]
    assert set(after.estimate.intrinsics_source) == {'matches'}
    focal = [float(c.matrix[0, 0]) for c in after.estimate.cameras]
    np.testing.assert_allclose(focal, focal[-1])

    def off(estimate):
        true = R[:7] @ R[0].T
        return np.degrees(angle_between(estimate.R, true)).max()

    assert off(before) > 5 and off(after.estimate) < 0.5
