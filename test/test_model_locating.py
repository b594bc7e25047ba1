"""Placing matches within cells: windows, both directions, what is learned, and its file."""

import pytest
import torch
from test_model_matching import SMALL

from ray_pose_ros.cli import main
from ray_pose_ros.model.checkpoint import load_checkpoint, save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.locating import (
    FAR,
    NEAR,
    Directed,
    Locator,
    both_ways,
    lattice,
    locate_matches,
    place_pixels,
)
from ray_pose_ros.model.matching import MutualMatches
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.training.dataset import render_dataset
from ray_pose_ros.training.locating import (
    RIGHT,
    UNKNOWN,
    WRONG,
    MatchedSet,
    fit_locator,
    matched_sets,
    measure,
    truth,
)


def some_matches():
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    cells = torch.tensor([[3.2, 4.5], [0.1, 0.2], [13.9, 7.0], [6.5, 6.5]])
    chance = torch.tensor([0.9, 0.5, 0.1, 0.3])
    return MutualMatches(
        pairs, torch.tensor([0, 1, 1, 2]), cells, cells.flip(0), chance, chance.flip(0)
    )


@pytest.mark.parametrize('side', [NEAR, FAR])
def test_windows_lie_about_their_places(side):
    maps = torch.randn(2, 8, 28, 28)
    place = torch.tensor([[10, 20], [0, 0], [28, 28]])
    cut = Locator(3, 8)._cut(maps, torch.tensor([1, 0, 1]), place, side)
    assert cut.shape == (3, 4, side**2, 2)
    half = side // 2
    inside = maps[1, :, 20 - half : 20 + half, 10 - half : 10 + half]
    assert torch.equal(cut[0].transpose(1, 2).flatten(0, 1), inside.flatten(1))
    corner = cut[1].transpose(1, 2).reshape(8, side, side)  # the lower right quarter is inside
    assert torch.equal(corner[:, half:, half:], maps[0, :, :half, :half])
    assert not corner[:, :half].any()
    assert not corner[:, :, :half].any()
    last = cut[2].transpose(1, 2).reshape(8, side, side)
    assert torch.equal(last[:, :half, :half], maps[1, :, -half:, -half:])


def test_places_of_the_lattice_are_where_depth_is_known():
    place = torch.cartesian_prod(torch.arange(29), torch.arange(29))
    assert torch.equal(lattice(place_pixels(place), 28), place)
    assert torch.equal(lattice(place_pixels(place) + 3.9, 28), place)


def test_each_match_is_looked_for_from_both_ends():
    matches = some_matches()
    locator = Locator(3, 8).eval()
    found = locate_matches(locator, matches, torch.randn(3, 8, 28, 28), 14)
    count = len(matches.pair)
    assert len(found.pair) == len(found.right) == len(found.deviation) == 2 * count
    ends = both_ways(matches, 16.0, 28)
    assert ends.view[:count].tolist() == [0, 0, 0, 1]
    assert ends.other[count:].tolist() == ends.view[:count].tolist()
    # one end stays on the lattice, the other moves
    torch.testing.assert_close(found.cell_i[:count] * 16, place_pixels(ends.place[:count]))
    torch.testing.assert_close(found.cell_j[count:] * 16, place_pixels(ends.place[count:]))
    assert ((found.right > 0) & (found.right < 1)).all()
    assert (found.deviation > 0).all()


def test_no_matches_are_none():
    empty = MutualMatches(*(x[:0] for x in some_matches()[:6]))
    found = locate_matches(Locator(3, 8).eval(), empty, torch.randn(3, 8, 28, 28), 14)
    assert len(found.pair) == 0


def wall(depth, shift):
    """Two cameras before a wall, the second `shift` to the right of the first."""
    K = torch.tensor([[200.0, 0, 112.5], [0, 200, 112.5], [0, 0, 1]]).double().expand(2, 3, 3)
    R = torch.eye(3).double().expand(2, 3, 3)
    t = torch.tensor([[0, 0, 0], [-shift, 0, 0]]).double()
    return torch.full((2, 28, 28), depth).double(), K, R, t


def directed(place, about):
    place, about = torch.tensor(place), torch.tensor(about)
    first = torch.zeros(len(place), dtype=torch.int64)
    return Directed(first, place, first + 1, about, torch.zeros(len(place), 2))


def test_truth_of_a_wall():
    depth, K, R, t = wall(4.0, 0.32)  # 16 pixels to the left
    depth[0, 5, 5] = torch.nan
    depth[1, 20, 14] = 1.0  # something in front of it, in the second view
    ends = directed(
        [[14, 14], [14, 14], [5, 5], [5, 5], [16, 20]],
        [[12, 14], [2, 14], [3, 9], [3, 5], [14, 20]],
    )
    target, label = truth(ends, depth, K, R, t)
    assert label.tolist() == [RIGHT, WRONG, WRONG, UNKNOWN, UNKNOWN]
    torch.testing.assert_close(target[0], torch.tensor([96.5, 112.5]).double())
    assert target[1:].isnan().all()


def test_truth_at_infinity_does_not_move():
    depth, K, R, t = wall(torch.inf, 0.4)
    target, label = truth(directed([[14, 14], [14, 14]], [[14, 14], [9, 14]]), depth, K, R, t)
    assert label.tolist() == [RIGHT, WRONG]
    torch.testing.assert_close(target[0], torch.tensor([112.5, 112.5]).double())


def shifted_sets(count, seed):
    """Pairs of smooth random maps, the second shifted by up to a step and a half."""
    generator = torch.Generator().manual_seed(seed)
    sets = []
    for _ in range(count):
        noise = torch.randn(1, 12, 28, 28, generator=generator)
        move = 3 * torch.rand(2, generator=generator) - 1.5
        grid = (torch.stack(torch.meshgrid(*[torch.arange(28.0)] * 2, indexing='xy'), -1)) + 0.5
        grid = ((grid - move) / 14 - 1)[None]
        other = torch.nn.functional.grid_sample(noise, grid, align_corners=False)
        place = torch.randint(6, 22, (60, 2), generator=generator)
        ends = directed(place.tolist(), place.tolist())
        target = place_pixels(place) + 8 * move
        sets.append(MatchedSet(torch.cat([noise, other]), ends, target, torch.ones(60).long()))
    return sets


def test_a_locator_learns_where_things_moved():
    locator = fit_locator([shifted_sets(40, 0)], steps=300, width=16)
    placed = measure(locator, shifted_sets(8, 1))
    assert placed.after < 0.5 * placed.before


def test_truth_that_nobody_knows_is_said():
    with pytest.raises(ValueError, match='no right match'):
        measure(Locator(12, 16), [])


def small_model(tmp_path):
    torch.manual_seed(0)
    model = RayDiffuser(ModelConfig(**SMALL, rematch=1, auxiliary=True, sample_steps=2))
    save_checkpoint(model, tmp_path / 'small')
    return tmp_path / 'small'


def test_a_locator_is_trained_by_command_and_the_rest_is_kept(tmp_path, capsys):
    render_dataset(tmp_path / 'data', 1, first_seed=3, views=4, workers=1)
    shipped, into = small_model(tmp_path), tmp_path / 'out'
    data = str(tmp_path / 'data')
    arguments = ['train', 'locate', str(shipped), '--into', str(into), '--data', data]
    assert main([*arguments, '--check', data, '--steps', '3']) == 0
    assert 'pixels off before' in capsys.readouterr().out
    before, after = load_checkpoint(shipped), load_checkpoint(into)
    assert before.locator is None
    assert after.config.locate
    weights = after.state_dict()
    assert all(torch.equal(weights[name], x) for name, x in before.state_dict().items())
    [of, *_] = matched_sets(after, tmp_path / 'data')
    assert set(of.label.tolist()) <= {RIGHT, WRONG, UNKNOWN}


def test_bad_settings_of_a_locator_are_named(tmp_path):
    with pytest.raises(ValueError, match='locate is 6, expected 0, or a multiple of 4'):
        ModelConfig(**SMALL, rematch=1, locate=6)
    with pytest.raises(ValueError, match='with rematch'):
        ModelConfig(**SMALL, locate=8)
    assert main(
        ['train', 'locate', str(small_model(tmp_path)), '--into', 'x', '--data', 'y']
        + ['--steps', '0']
    )
