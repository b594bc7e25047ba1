"""Parts of the learned matchers that need no weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ray_pose_ros.matching.learned import _renamed
from ray_pose_ros.matching.matchers import MatcherUnavailable
from ray_pose_ros.matching.networks.aliked import Aliked, _enlarge, _Sampler, _soft_offsets
from ray_pose_ros.matching.networks.deformable import deform_conv
from ray_pose_ros.matching.networks.lightglue import LightGlue
from ray_pose_ros.matching.networks.peaks import local_maxima, parabola_offsets
from ray_pose_ros.matching.weights import load_weights


def _value(image, y, x):
    """Bilinear value of an image (H, W), zero outside."""
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_deformable_convolution_by_the_definition():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(s, generator=generator) for s in ((2, 3, 5, 6), (4, 3, 3, 3)))
    offsets = 2 * torch.randn((2, 18, 5, 6), generator=generator)
    found = deform_conv(x, offsets, weight)
    for batch, output, row, column in ((0, 0, 0, 0), (1, 3, 2, 3), (0, 2, 4, 5), (1, 1, 1, 0)):
        total = 0.0
        for tap in range(9):
            dy, dx = offsets[batch, 2 * tap : 2 * tap + 2, row, column].tolist()
            y, z = row + tap // 3 - 1 + dy, column + tap % 3 - 1 + dx
            for channel in range(3):
                taken = _value(x[batch, channel].numpy(), y, z)
                total += weight[output, channel, tap // 3, tap % 3].item() * taken
        assert found[batch, output, row, column].item() == pytest.approx(total, abs=1e-4)
    plain = deform_conv(x, torch.zeros_like(offsets), weight)
    assert torch.allclose(plain, F.conv2d(x, weight, padding=1), atol=1e-5)


def test_maxima_and_where_they_are_between_pixels():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing='ij')
    heat = torch.zeros(20, 30)
    for height, cx, cy in ((1.0, 8.3, 9.8), (0.6, 20.0, 5.4), (0.9, 1.0, 9.0)):
        heat += height * torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2)
    xy = local_maxima(heat, 2, 0.1, 10)
    assert xy.tolist() == [[8, 10], [20, 5]]  # the third is at the border
    assert local_maxima(heat, 2, 0.1, 1).tolist() == [[8, 10]]
    found = xy + parabola_offsets(heat.log(), xy)
    assert torch.allclose(found, torch.tensor([[8.3, 9.8], [20.0, 5.4]]), atol=0.01)


def test_soft_maximum_lies_between_pixels():
    y, x = torch.meshgrid(torch.arange(11.0), torch.arange(13.0), indexing='ij')
    heat = torch.exp(-((x - 6.3) ** 2 + (y - 4.8) ** 2) / 8)
    offset = _soft_offsets(heat, torch.tensor([[6, 5]]))
    assert torch.allclose(offset, torch.tensor([[0.3, -0.2]]), atol=0.05)


def test_aliked_without_maps_of_full_size_is_the_same():
    torch.manual_seed(0)
    network = Aliked().eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = network.maps(image)
        size = image.shape[-2:]
        whole = torch.cat([_enlarge(x, size) for x in maps], dim=1)
        expected = network.score_head(whole).sigmoid()[0, 0]
        assert torch.allclose(network.heat(maps, size), expected, atol=1e-5)
        unit = F.normalize(whole, dim=1)
        places = torch.tensor([[0.0, 0.0], [95.0, 63.0], [40.25, 20.5], [-3.0, 10.0]])
        grid = (2 * places / torch.tensor([95.0, 63.0]) - 1)[None, :, None]
        expected = F.grid_sample(unit, grid, align_corners=True)[0, :, :, 0].T
        found = _Sampler(maps, size).between(places)
    assert torch.allclose(found, expected, atol=1e-4)


def test_lightglue_does_not_depend_on_the_order_of_points():
    torch.manual_seed(0)
    network = LightGlue(8, width=16, heads=2, layers=3, stop=None, drop=1.0).eval()
    points, more = torch.rand(12, 2), torch.rand(9, 2)
    a, b = torch.randn(12, 8), torch.randn(9, 8)
    order = torch.randperm(12)
    found, score = network((points, more), (a, b), 0.0)
    mixed, same = network((points[order], more), (a[order], b), 0.0)
    pairs = {(int(order[i]), int(j)) for i, j in mixed}
    assert pairs == {(int(i), int(j)) for i, j in found} and len(pairs) > 0
    assert torch.allclose(score.sort().values, same.sort().values, atol=1e-5)
    swapped, _ = network((more, points), (b, a), 0.0)
    assert {(int(j), int(i)) for i, j in swapped} == pairs


def test_lightglue_knows_points_by_their_places_in_relation():
    """All points of an image moved alike change nothing, one moved by itself does."""
    torch.manual_seed(0)
    network = LightGlue(8, width=16, heads=2, layers=3, stop=None, drop=1.0).eval()
    points, more, a, b = torch.rand(6, 2), torch.rand(6, 2), torch.randn(6, 8), torch.randn(6, 8)

    def scores(first):
        return network((first, more), (a, b), 0.0)[1].sort().values

    plain = scores(points)
    assert torch.allclose(scores(points + torch.tensor([0.4, -0.7])), plain, atol=1e-5)
    moved = points.clone()
    moved[0] += torch.tensor([4.0, -7.0])
    assert not torch.allclose(scores(moved), plain, atol=1e-5)


@pytest.mark.parametrize('precision', [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_scores_nearly_the_same(precision):
    torch.manual_seed(0)
    network = LightGlue(8, width=64, heads=2, layers=4, stop=None, drop=1.0).eval()
    points, features = torch.rand(60, 2), torch.randn(60, 8)
    seen = features + 0.1 * torch.randn(60, 8)
    exact = dict(zip(*_rows(*network((points, points), (features, seen), 0.0)), strict=True))
    assert network.compute_in(precision).precision == precision
    half = dict(zip(*_rows(*network((points, points), (features, seen), 0.0)), strict=True))
    both = exact.keys() & half.keys()
    assert len(both) > 0.9 * len(exact) > 5
    assert np.median([abs(exact[k] / half[k] - 1) for k in both]) < 0.05
    back = network.compute_in(torch.float32)((points, points), (features, seen), 0.0)
    assert len(back[0]) == len(exact), 'what was rounded stays so, and works'


def _rows(matches, scores):
    return [tuple(row) for row in matches.tolist()], scores.tolist()


def test_lightglue_may_drop_all_points():
    torch.manual_seed(0)
    network = LightGlue(8, width=16, heads=2, layers=3, stop=None, drop=0.0).eval()
    points, features = torch.rand(5, 2), torch.randn(5, 8)
    matches, scores = network((points, points), (features, features), 0.1)
    assert matches.shape == (0, 2) and scores.shape == (0,)


def test_names_of_older_weights():
    assert _renamed('self_attn.3.ffn.0.weight') == 'transformers.3.self_attn.ffn.0.weight'
    assert _renamed('matcher.transformers.0.cross_attn.to_v.bias') == (
        'transformers.0.cross_attn.to_v.bias'
    )
    assert _renamed('posenc.Wr.weight') == 'posenc.Wr.weight'


def test_weights_that_do_not_fit_are_refused():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(MatcherUnavailable, match='bias is missing'):
        load_weights(layer, {'weight': torch.zeros(2, 2)}, 'some-package')
    load_weights(layer, {'weight': torch.ones(2, 2), 'bias': torch.ones(2), 'more': 0}, 'it')
    assert layer.weight.sum() == 4 and not layer.weight.requires_grad
