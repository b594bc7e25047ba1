"""What is left out when memory runs out, in which order, and when it comes back."""

import dataclasses

import numpy as np
import pytest
import torch
from node_harness import IMAGES, FakeEstimator, save_tiny_model

from ray_pose_ros.estimation.estimator import Estimator
from ray_pose_ros.estimation.views import View
from ray_pose_ros.node.economy import (
    FIRST_RETRY_S,
    LAST_RETRY_S,
    Economy,
    _on_device,
    is_out_of_memory,
)

OUT = torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Collecting garbage takes its while in a process with torch in it."""
    monkeypatch.setattr('ray_pose_ros.node.economy.give_back', lambda: None)


class Device:
    """A model that only knows where it is; `room` False: nothing fits on its GPU."""

    def __init__(self, owner):
        self.owner = owner

    def to(self, target):
        if target != 'cpu' and not self.owner.room:
            raise OUT
        self.owner.moves.append(target)
        return self


class Greedy(FakeEstimator):
    """Runs out of memory beyond `most` samples times views, on its pretended GPU."""

    device = 'cuda'

    def __init__(self, most, samples=8):
        super().__init__()
        self.most, self.samples = most, samples
        self.asked, self.moves, self.room = [], [], True
        self.model = Device(self)

    def solve(self, prepared, progress=None):
        on_gpu = str(self.device) == 'cuda'
        self.asked.append((self.samples, len(prepared), str(self.device)))
        if on_gpu and self.samples * len(prepared) > self.most:
            raise OUT
        return super().solve(prepared, progress)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def solve(economy, views=8):
    return next(economy.looks(list(range(views)), lambda *_: None))


def test_errors_that_mean_memory():
    assert is_out_of_memory(OUT) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling'))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError('CUDA error: device-side assert triggered'))
    assert not is_out_of_memory(ValueError('out of memory'))


def test_all_fits():
    estimator = Greedy(1000)
    economy = Economy(estimator, Clock())
    _, count = solve(economy)
    assert estimator.asked == [(8, 8, 'cuda')] and count == 8 and economy.words == ''


@pytest.mark.parametrize(
    'most, last, words, count',
    [
        (16, (2, 8, 'cuda'), 'a quarter of the samples', 8),
        (8, (1, 8, 'cuda'), 'one sample', 8),
        (4, (1, 4, 'cuda'), 'one sample of half of the keyframes', 4),
        (3, (1, 8, 'cpu'), 'one sample on the CPU', 8),
    ],
)
def test_less_and_less_until_it_fits(most, last, words, count):
    estimator = Greedy(most)
    economy = Economy(estimator, Clock())
    estimate, got = solve(economy)
    assert estimator.asked[-1] == last and economy.words == words
    assert got == len(estimate.R) == count
    assert estimator.samples == 8  # what was asked for is still known
    tried = len(estimator.asked)
    solve(economy)  # the next one does not begin with what cannot succeed
    assert estimator.asked[tried:] == [last]


def test_half_of_the_keyframes_are_the_newer_half():
    estimator = Greedy(4)
    next(Economy(estimator, Clock()).looks(list('abcdefgh'), lambda *_: None))
    assert estimator.solved[-1] == list('efgh')


class Twice(Greedy):
    """Looks again, and fails then with what is in `then`."""

    then = None

    def looks(self, prepared, progress=None):
        yield self.solve(prepared, progress)
        if self.then is not None:
            raise self.then
        yield FakeEstimator.solve(self, prepared, progress)  # its samples are those of the first


def test_a_second_look_follows_the_first_with_what_is_left():
    estimator = Twice(4)
    economy = Economy(estimator, Clock())
    looks = economy.looks(list('abcdefgh'), lambda *_: None)
    first, count = next(looks)
    assert len(estimator.solved) == 1  # nothing is done before it is asked for
    ((second, again),) = looks
    assert count == again == len(first.R) == len(second.R) == 4


def test_the_first_answer_stands_where_a_second_look_does_not_fit():
    estimator = Twice(1000)
    economy = Economy(estimator, Clock())
    estimator.then = OUT
    assert len(list(economy.looks(list('ab'), lambda *_: None))) == 1
    assert economy.words == ''
    estimator.then = ValueError('else')
    with pytest.raises(ValueError, match='else'):
        list(economy.looks(list('ab'), lambda *_: None))


def test_everything_comes_back_step_by_step():
    estimator, clock = Greedy(3), Clock()
    economy = Economy(estimator, clock)
    solve(economy)
    estimator.most = 1000
    seen = []
    for _ in range(6):
        clock.now += FIRST_RETRY_S + 1
        solve(economy)
        seen.append(economy.words)
    assert seen == ['one sample of half of the keyframes', 'one sample',
                    'a quarter of the samples', '', '', '']  # fmt: skip
    assert estimator.moves == ['cpu', 'cuda'] and estimator.asked[-1] == (8, 8, 'cuda')


def test_trying_in_vain_becomes_rare():
    estimator, clock = Greedy(8), Clock()
    economy = Economy(estimator, clock)
    solve(economy)
    before = len(estimator.asked)
    seconds, times = 4 * 3600, []
    for _ in range(0, seconds, 20):
        clock.now += 20
        solve(economy)
        if len(estimator.asked) > before + 1:
            times.append(clock.now)
        before = len(estimator.asked)
    gaps = np.diff(times)
    assert gaps[0] >= FIRST_RETRY_S and gaps[-1] >= LAST_RETRY_S
    assert len(times) < seconds / LAST_RETRY_S + 10
    assert economy.words == 'one sample'


def test_a_gpu_that_is_taken_meanwhile_leaves_the_model_on_the_cpu():
    estimator, clock = Greedy(3), Clock()
    economy = Economy(estimator, clock)
    solve(economy)
    estimator.room = False
    clock.now += FIRST_RETRY_S + 1
    assert solve(economy)[1] == 8
    assert economy.words == 'one sample on the CPU' and str(estimator.device) == 'cpu'


def test_what_is_left_out_ends_somewhere_and_other_errors_pass():
    estimator = Greedy(0)
    estimator.device = 'cpu'  # no GPU to leave: in the end it is an error
    economy = Economy(estimator, Clock())
    estimator.fail = OUT
    with pytest.raises(torch.cuda.OutOfMemoryError):
        solve(economy)
    assert {samples for samples, _, _ in estimator.asked} == {8, 2, 1}
    estimator.fail = RuntimeError('something else')
    estimator.asked.clear()
    with pytest.raises(RuntimeError, match='something else'):
        solve(economy)
    assert len(estimator.asked) == 1
    estimator.fail = None
    assert solve(economy)[1] >= 4  # and it goes on when there is room


def test_no_room_for_one_view_goes_to_the_cpu():
    class Full(Greedy):
        def prepare(self, view):
            if str(self.device) == 'cuda':
                raise OUT
            return super().prepare(view)

    estimator = Full(1000)
    economy = Economy(estimator, Clock())
    assert economy.prepare('view') == 'view'
    assert economy.words == 'one sample on the CPU'


def test_the_real_estimator_moves_with_what_was_prepared(tmp_path):
    """On the 'meta' device nothing can be computed: it stands for a GPU that is lost."""
    estimator = Estimator(save_tiny_model(tmp_path / 'model'), samples=2)
    views = [View(image, name=f'{k}') for k, image in enumerate(IMAGES[:2])]
    prepared = [estimator.prepare(v) for v in views]
    expected = estimator.solve(prepared)
    economy = Economy(estimator, Clock())
    estimator.device = torch.device('meta')
    economy._can_leave_gpu, economy._device = True, torch.device('meta')
    real = estimator.looks

    def looks_unless_meta(prepared, progress=None):
        if estimator.device.type == 'meta':
            raise OUT
        return real(prepared, progress)

    estimator.looks = looks_unless_meta
    ((answer, count),) = economy.looks(prepared, None)
    assert count == 2 and estimator.device == torch.device('cpu')
    assert np.isfinite(answer.R).all() and answer.R.shape == expected.R.shape


def test_all_that_the_network_reads_of_a_view_moves():
    @dataclasses.dataclass
    class Reads:
        features: torch.Tensor
        geometry: torch.Tensor
        details: torch.Tensor | None

    there = torch.zeros(2, device='meta')
    moved = _on_device(Reads(torch.ones(2), torch.ones(3), torch.ones(4)), there.device)
    assert {x.device.type for x in vars(moved).values()} == {'meta'}
    assert _on_device(Reads(torch.ones(2), torch.ones(3), None), there.device).details is None
