"""The demo as a newcomer runs it; slow, because it starts everything.

That of a rendered object, with the model of the package, runs in .ci/run by itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from node_harness import save_tiny_model, write_bag

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.node import demo, demo_processes

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'ray_pose_ros.node.demo', *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def test_bad_arguments_are_answered_before_anything_starts(tmp_path):
    done = run('--images', str(tmp_path), '--out', str(tmp_path / 'out'))
    assert done.returncode == 2
    assert 'has 0 images, expected at least 2' in done.stderr and 'Traceback' not in done.stderr


def test_the_demo_never_joins_a_domain_that_is_in_use(monkeypatch):
    for taken in ('0', str(1 + os.getpid() % 100), ''):
        monkeypatch.setenv('ROS_DOMAIN_ID', taken)
        environment, domain = demo_processes.isolated_environment()
        assert environment['ROS_DOMAIN_ID'] == str(domain) != taken
        assert 1 <= domain <= 101
        assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'


@pytest.mark.parametrize('during', [0, 2, 99])
def test_what_is_saved_is_what_was_heard_last(during):
    """An estimate that comes while the node saves would be on the topics and not in the files."""

    class Restless:
        changed = saves = 0

        def save(self):
            self.saves += 1
            return f'/tmp/{self.saves}: 8 poses'

        def spin(self, seconds):
            self.changed += self.saves <= during

    listener = Restless()
    if during > 10:
        with pytest.raises(demo.DemoError, match='does not come to rest'):
            demo.save(listener)
    else:
        assert demo.save(listener) == Path(f'/tmp/{during + 1}')


@pytest.mark.slow
def test_a_bag_with_more_keyframes_than_a_window(tmp_path):
    """All of them are in the picture and the file, as the map has them."""
    save_tiny_model(tmp_path / 'model')
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    images = [image.repeat(10, axis=0).repeat(10, axis=1) for image in small]
    write_bag(tmp_path / 'bag', images, CameraModel.from_fov(160, 120, 1.0))
    out = tmp_path / 'out'
    given = ['--bag', str(tmp_path / 'bag'), '--views', '3', '--out', str(out)]
    done = run(*given, '--checkpoint', str(tmp_path / 'model'))
    assert done.returncode == 0, done.stdout + done.stderr
    frames = json.loads((out / 'poses.json').read_text())['frames']
    assert [f['file'] for f in frames] == [f'{100 + k}.000' for k in range(5)]
    assert (out / 'poses.png').stat().st_size > 20_000


@pytest.mark.slow
def test_a_demo_without_a_model_says_why_and_fails(tmp_path):
    done = run('--smoke', '--checkpoint', str(tmp_path / 'nothing'), '--out', str(tmp_path))
    assert done.returncode == 1
    assert 'the model cannot be loaded' in done.stderr
