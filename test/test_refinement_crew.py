"""Threads of a refinement: what they give back, and what they leave alone."""

import threading
import time

import numpy as np
import pytest
import torch

from ray_pose_ros.matching import Features
from ray_pose_ros.multiview.prior import Prior
from ray_pose_ros.refinement import crew as crew_module
from ray_pose_ros.refinement.crew import Crew
from ray_pose_ros.refinement.keyframe import Keyframe
from ray_pose_ros.refinement.pairing import _wave
from ray_pose_ros.refinement.rolls import Rolls


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_jobs_from_as_many_threads_as_torch_has(threads):
    def work(job):
        time.sleep(0.02 if job == 0 else 0.002)
        return job, threading.current_thread().name, torch.get_num_threads()

    with Crew() as crew:
        found = list(crew.map(work, range(20)))
    assert [job for job, *_ in found] == list(range(20))
    assert len({name for _, name, _ in found}) == threads
    assert {count for *_, count in found} == {1}
    assert torch.get_num_threads() == threads
    assert not [t for t in threading.enumerate() if t.name.startswith('refine')]


def test_an_error_gives_up_what_has_not_begun(threads):
    begun = []

    def work(job):
        begun.append(job)
        time.sleep(0.01)
        if job == 1:
            raise ValueError('no')

    with pytest.raises(ValueError, match='no'), Crew() as crew:
        list(crew.map(work, range(50)))
    assert len(begun) < 10


def test_whoever_waits_is_asked_often_whether_to_go_on(threads):
    ended, asked = [], []

    class Enough(Exception):
        pass

    def pulse():
        asked.append(threading.current_thread().name)
        if len(asked) == 3:
            raise Enough

    with pytest.raises(Enough), Crew(pulse) as crew:

        def work(job):
            for _ in range(500):
                crew.step()
                time.sleep(0.01)
            ended.append(job)

        start = time.monotonic()
        list(crew.map(work, range(4)))
    assert time.monotonic() - start < 3 and not ended
    assert set(asked) == {threading.current_thread().name}


def test_a_job_that_hangs_is_no_sign_of_life(threads, monkeypatch):
    monkeypatch.setattr(crew_module, '_STILL_S', 0.1)
    hang, pulses, ended = threading.Event(), [], []
    with Crew(lambda: pulses.append(time.monotonic())) as crew:

        def work(job):
            hang.wait(0.5)
            ended.append(time.monotonic())

        list(crew.map(work, range(1)))
    assert all(ended[0] - p > 0.3 for p in pulses)


def test_a_keyframe_asked_from_several_threads_finds_its_features_once():
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(2)

    class Slow:
        name, calls = 'slow', 0

        def extract(self, image, mask=None):
            self.calls += 1
            time.sleep(0.05)
            return Features(np.zeros((0, 2)), np.zeros((0, 8)), np.zeros(0), 8, 8)

    slow, frame = Slow(), Keyframe(np.zeros((8, 8, 3), np.uint8))
    with Crew() as crew:
        list(crew.map(lambda _: frame.features(slow), range(4)))
    torch.set_num_threads(torch_threads)
    assert slow.calls == 1 and 0.04 < frame.seconds < 0.5


def test_pairs_that_may_teach_others_their_turn_are_few_at_a_time():
    pairs = [(0, k) for k in range(1, 30)]
    eye = np.tile(np.eye(3), (30, 1, 1))

    def wave(rolls, pairs=pairs):
        sigma = np.full(30, 9.0)  # nothing is known but by other pairs
        return _wave(pairs, rolls, Prior(eye, eye[:, 0], sigma, sigma, eye[None][:0]))

    rolls = Rolls(30)
    assert len(wave(rolls)) == 2
    for k in range(1, 30):
        if k not in (3, 7, 9):
            rolls.learn(0, k, 1)
    found = wave(rolls)
    assert len(found) == 7 and found[0] == ((0, 1), [(0, 1)])
    assert [len(ways) for _, ways in found] == [1, 1, 4, 1, 1, 1, 4]
    rolls.learn(0, 3, 0)
    rolls.learn(0, 7, 0)
    rolls.learn(0, 9, 0)
    assert len(wave(rolls)) == 16
