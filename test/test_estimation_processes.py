"""Worker processes and their threads."""

import os
from multiprocessing import get_context

import pytest

from ray_pose_ros.estimation.processes import one_thread_each


def test_spawned_processes_have_one_thread_each_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    monkeypatch.delenv('OPENBLAS_NUM_THREADS', raising=False)
    with one_thread_each(), get_context('spawn').Pool(1) as pool:
        for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
            assert pool.apply(os.getenv, (name,)) == '1'
    assert os.environ['OMP_NUM_THREADS'] == '3' and 'OPENBLAS_NUM_THREADS' not in os.environ
    with pytest.raises(KeyError), one_thread_each():
        raise KeyError
    assert os.environ['OMP_NUM_THREADS'] == '3'
