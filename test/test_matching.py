"""Matchers: what they find is where the truth says, and degenerate images are no accident."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from matching_fixtures import HEIGHT, WIDTH, epipolar_distances, matcher_or_reason, textured_views

from ray_pose_ros.matching import Features, MatcherUnavailable, create_matcher, matcher_names
from ray_pose_ros.matching.features import working_image
from ray_pose_ros.matching.nearest import mutual_nearest

# least number of right matches of the two rendered views, and the error in pixels they may have
LIMITS = {
    'sift': (60, 0.3),
    'xfeat': (200, 0.9),
    'lighterglue': (200, 0.9),
    'disk': (80, 0.8),
    'aliked': (60, 0.5),
}
SLOW = {'disk'}


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in LIMITS])
def matcher(request):
    found = matcher_or_reason(request.param)
    if isinstance(found, str):
        assert request.param != 'sift'
        pytest.skip(found)
    return found


def test_every_name_is_tested():
    assert set(LIMITS) == set(matcher_names())


def test_matches_obey_the_true_geometry(matcher):
    one, other = textured_views()[:2]
    a, b = (matcher.extract(view[3].image) for view in (one, other))
    matches = matcher.match(a, b)
    i, j = matches.indices.T
    distance = epipolar_distances(one, other, a.points[i], b.points[j])
    right = distance < 3
    least, error = LIMITS[matcher.name]
    assert right.sum() >= least and right.mean() > 0.75
    assert np.median(distance[right]) < error
    assert len(set(i)) == len(set(j)) == len(matches)
    assert ((matches.scores >= 0) & (matches.scores <= 1)).all()
    norms = np.linalg.norm(a.descriptors, axis=1)
    assert np.allclose(norms, 1, atol=1e-3)


def test_in_a_hurry_nearly_as_many_matches_are_right():
    slow = matcher_or_reason('aliked')
    if isinstance(slow, str):
        pytest.skip(slow)
    one, other = textured_views()[:2]
    a, b = (slow.extract(view[3].image) for view in (one, other))
    right, pairs = [], []
    for matcher in (slow, create_matcher('aliked', fast=True)):
        i, j = matcher.match(a, b).indices.T
        pairs.append(set(zip(i, j, strict=True)))
        right.append((epipolar_distances(one, other, a.points[i], b.points[j]) < 3).sum())
    assert right[1] > 0.9 * right[0] > 50
    assert len(pairs[0] & pairs[1]) > 0.8 * len(pairs[0])


def test_same_image_matches_itself(matcher):
    features = matcher.extract(textured_views()[0][3].image)
    matches = matcher.match(features, features)
    assert len(matches) > 0.5 * len(features) > 30
    i, j = matches.indices.T
    assert (np.linalg.norm(features.points[i] - features.points[j], axis=1) < 1).mean() > 0.98


def test_points_have_no_bias(matcher):
    """Of an image of half the size they are at half the place. Pixel centres at whole numbers
    would make half a pixel of difference."""
    image = textured_views()[0][3].image
    half = image.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)
    a, b = matcher.extract(image), matcher.extract(half)
    i, j = matcher.match(a, b).indices.T
    apart = 2 * b.points[j] - a.points[i]
    close = apart[np.linalg.norm(apart, axis=1) < 4]
    assert len(close) > 20
    # networks see the two sizes differently
    assert np.abs(np.median(close, axis=0)).max() < (0.1 if matcher.name == 'sift' else 0.7)


def test_a_smaller_working_size_keeps_the_place():
    """Features of a reduced image are in pixels of the image that was given."""
    one, other = textured_views()[:2]
    full, small = create_matcher('sift'), create_matcher('sift', max_side=300)
    a, b = full.extract(one[3].image), small.extract(other[3].image)
    matches = full.match(a, b)
    i, j = matches.indices.T
    distance = epipolar_distances(one, other, a.points[i], b.points[j])
    assert (b.width, b.height) == (WIDTH, HEIGHT)
    assert len(matches) > 20 and np.median(distance) < 1


def test_only_the_mask(matcher):
    shown = textured_views()[0][3]
    everywhere = matcher.extract(shown.image)
    features = matcher.extract(shown.image, shown.mask)
    x, y = features.points.astype(int).T
    assert shown.mask[y, x].all()
    whole = shown.mask[tuple(everywhere.points.astype(int).T[::-1])]
    assert len(features) > 0.7 * whole.sum() > 10
    none = matcher.extract(shown.image, np.zeros_like(shown.mask))
    assert len(none) == 0 and none.points.shape == (0, 2)


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (7, 5), (33, 31), (70, 64)])
def test_image_without_texture_or_size(matcher, size):
    plain = matcher.extract(np.full((*size, 3), 128, dtype=np.uint8))
    assert len(plain) == 0
    noise = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    found = matcher.extract(noise)
    assert (found.width, found.height) == size[::-1]
    assert (found.points >= 0).all() and (found.points <= size[::-1]).all()
    for a, b in ((plain, found), (found, plain), (plain, plain)):
        matches = matcher.match(a, b)
        assert len(matches) == 0 and matches.indices.shape == (0, 2)


def test_twice_is_the_same(matcher):
    images = [view[3].image for view in textured_views()[:2]]
    (a, b), (c, d) = ([matcher.extract(image) for image in images] for _ in range(2))
    assert np.array_equal(a.points, c.points) and np.array_equal(a.descriptors, c.descriptors)
    assert np.array_equal(matcher.match(a, b).indices, matcher.match(c, d).indices)


@pytest.mark.parametrize(
    'image, mask, text',
    [
        (np.zeros((9, 9), dtype=np.uint8), None, r'uint8 \(9, 9\)'),
        (np.zeros((9, 9, 3), dtype=np.float32), None, 'float32'),
        (np.zeros((0, 9, 3), dtype=np.uint8), None, r'\(0, 9, 3\)'),
        ([[1]], None, 'list'),
        (np.zeros((9, 9, 3), dtype=np.uint8), np.zeros((9, 8), dtype=bool), r'\(9, 8\)'),
        (np.zeros((9, 9, 3), dtype=np.uint8), np.zeros((9, 9), dtype=np.uint8), 'mask is uint8'),
    ],
)
def test_wrong_input(matcher, image, mask, text):
    with pytest.raises(ValueError, match=text):
        matcher.extract(image, mask)


def test_features_of_others_are_refused(matcher):
    own = matcher.extract(np.zeros((9, 9, 3), dtype=np.uint8))
    other = Features(own.points, own.descriptors, own.scores, 9, 9, own.extra, kind='other')
    with pytest.raises(ValueError, match="'other'"):
        matcher.match(own, other)


def test_names_and_numbers_are_checked():
    with pytest.raises(ValueError, match="'surf', expected one of sift"):
        create_matcher('surf')
    with pytest.raises(ValueError, match='max_side is 0'):
        create_matcher('sift', max_side=0)
    with pytest.raises(ValueError, match='scores have shape'):
        Features(np.zeros((2, 2)), np.zeros((2, 8)), np.zeros(3), 4, 4)


def test_random_numbers_of_others_stay_as_they_are():
    before = torch.get_rng_state()
    try:
        create_matcher('lighterglue')
    except MatcherUnavailable as error:
        pytest.skip(str(error))
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_package_is_named():
    """Without the packages, in a fresh interpreter, SIFT works and the others say what to do."""
    code = """
import importlib.util as u, sys
real = u.find_spec
u.find_spec = lambda name, *a: None if name.startswith('scm_') else real(name, *a)
from ray_pose_ros.matching import MatcherUnavailable, create_matcher, matcher_names
create_matcher('sift')
assert 'torchvision' not in sys.modules and 'kornia' not in sys.modules
for name in matcher_names()[1:]:
    try:
        create_matcher(name)
    except MatcherUnavailable as error:
        assert 'pip install' in str(error) and 'scm-' in str(error), error
    else:
        raise SystemExit(name)
"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)


def test_only_the_best_are_kept(matcher):
    image = textured_views()[0][3].image
    every = matcher.extract(image)
    few = create_matcher(matcher.name, max_features=20).extract(image)
    assert len(few) == 20
    assert few.scores.min() >= np.sort(every.scores)[-20] * 0.999


def test_mutual_nearest():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3000, 16)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    order = rng.permutation(3000)
    found = mutual_nearest(a, a[order], max_ratio=0.8)
    assert np.array_equal(order[found.indices[:, 1]], found.indices[:, 0])
    assert len(found) == 3000 and np.allclose(found.scores, 1, atol=1e-5)
    # two that are equally near are no match, one that is alone is
    twice = a[[0, 0]]
    assert len(mutual_nearest(a[:1], twice, max_ratio=0.8)) == 0
    assert len(mutual_nearest(a[:1], a[:1], max_ratio=0.8)) == 1
    assert len(mutual_nearest(a[:1], -a[:1], min_cosine=0.5)) == 0


@pytest.mark.parametrize('held', [1 << 25, 90])
@pytest.mark.parametrize('ratio, least', [(1.0, -1.0), (0.8, -1.0), (0.9, 0.6)])
def test_mutual_nearest_by_the_definition(monkeypatch, held, ratio, least):
    monkeypatch.setattr('ray_pose_ros.matching.nearest._LARGEST', held)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 16)), rng.normal(size=(30, 16))
    b[:20] = a[10:30] + 0.4 * rng.normal(size=(20, 16))
    b[25] = b[3]  # as near as another
    a, b = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (a, b))
    cosines = a @ b.T
    distances = np.sqrt(np.maximum(2 - 2 * cosines.astype(float), 0))
    expected = []
    for i, j in enumerate(cosines.argmax(1)):
        others = np.append(np.delete(distances[i], j), np.delete(distances[:, j], i))
        clear = ratio == 1 or distances[i, j] <= ratio * others.min()
        if cosines[:, j].argmax() == i and cosines[i, j] >= least and clear:
            expected.append((i, j))
    found = mutual_nearest(a, b, ratio, least)
    assert 0 < len(expected) < 40
    assert found.indices.tolist() == [list(pair) for pair in expected]
    np.testing.assert_allclose(found.scores, [cosines[pair] for pair in expected], atol=1e-6)


def test_working_image_maps_back():
    image = np.zeros((300, 400, 3), dtype=np.uint8)
    mask = np.zeros((300, 400), dtype=bool)
    mask[100:200, 250:390] = True
    working = working_image(image, mask, max_side=91, margin=10)
    assert working.image.shape[:2] == (68, 91)  # of 120 x 160
    corners = working.to_image(np.array([[0.0, 0.0], [91.0, 68.0]]))
    assert np.allclose(corners, [[240, 90], [400, 210]])
    assert working_image(image, mask & False, 91) is None
