"""What the node does about Python's garbage: cycles that hold pictures, and passes that stall."""

import gc
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from node_harness import save_tiny_model

from ray_pose_ros.node import saving
from ray_pose_ros.node.economy import give_back, settle

ROOT = Path(__file__).resolve().parents[1]


class Cycle:
    """What a matplotlib figure is to the collector."""

    def __init__(self):
        self.myself = self


@pytest.fixture
def by_hand():
    """No automatic collection meanwhile, and nothing exempt afterwards."""
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize('error', [None, OSError('no room')])
def test_a_save_leaves_nothing_to_collect(by_hand, monkeypatch, tmp_path, error):
    """Figures of 10 to 50 MB each would pile up until Python looks for cycles: after ten or so."""
    drawn = []

    def write(folder, solved):
        drawn.append(weakref.ref(Cycle()))
        if error:
            raise error
        return ['poses.png']

    monkeypatch.setattr(saving, '_write', write)
    done = saving.save(object(), SimpleNamespace(output_directory=str(tmp_path)))
    assert done[0] == (error is None)
    assert drawn[0]() is None


def test_what_is_exempt_can_be_collected_once_the_model_goes(by_hand):
    model = Cycle()
    still_there = weakref.ref(model)
    settle()
    frozen = gc.get_freeze_count()
    assert frozen > 10_000 and len(gc.get_objects()) < 0.1 * frozen  # that is what it saves
    del model
    gc.collect()
    assert still_there() is not None
    give_back()
    assert still_there() is None and gc.get_freeze_count() == 0


COUNTING = """
import atexit, gc, sys
atexit.register(lambda: print('exempt', gc.get_freeze_count()))
from ray_pose_ros.node.main import main
sys.exit(main())
"""


def test_the_process_exempts_its_modules(tmp_path):
    checkpoint = save_tiny_model(tmp_path / 'model')
    process = subprocess.Popen(
        [sys.executable, '-c', COUNTING, '--ros-args', '-p', f'checkpoint:={checkpoint}'],
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = ''
        while 'active:' not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == 0, said
    assert int(out.split('exempt')[1]) > 10_000, out
