"""`ray-pose benchmark --ros`: one short real run of each program, in processes of their own."""

import pytest
import torch

from ray_pose_ros.evaluation.benchmarks import ros
from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.config import ModelConfig
from ray_pose_ros.model.ray_diffuser import RayDiffuser

pytest.importorskip('rclpy', reason='no ROS here')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> str:
    torch.manual_seed(0)
    sizes = {'width': 24, 'depth': 1, 'heads': 2, 'image_size': 56, 'grid': 4}
    sizes |= {'backbone_width': 24, 'backbone_depth': 1, 'backbone_heads': 2}
    sizes |= {'geometry': 'directions', 'anchor_reference': True, 'steps': 10, 'readout': 3}
    path = tmp_path_factory.mktemp('checkpoint')
    save_checkpoint(RayDiffuser(ModelConfig(**sizes | {'sample_steps': 1})), path, half=False)
    return str(path)


def test_latency_is_split_by_stage(checkpoint):
    settings = {'images': 2, 'sizes': ['VGA'], 'window': 3, 'device': 'cpu'}
    (row,) = ros.latency(settings | {'checkpoint': checkpoint})
    stages = ('queue', 'decode', 'features', 'solve', 'publish')
    assert row['size'] == 'VGA' and row['end_to_end']['runs'] == 2
    assert all(row[stage]['median'] >= 0 for stage in (*stages, 'denoise', 'recover'))
    # told to a tenth of a millisecond
    assert row['refine_and_join']['median'] > -0.5
    assert row['end_to_end']['median'] > row['features']['median'] + row['solve']['median'] > 0


def test_dropped_frames_cost_cpu_time_and_make_no_keyframes(checkpoint):
    rows = ros.program(
        'ros_drops', compressed=True, frames=10, sizes=['VGA'], idle=0.5, checkpoint=checkpoint
    )
    assert [row['reason'] for row in rows] == ['too_soon', 'unchanged']
    for row in rows:
        assert row['keyframes'] == 0 and row['published'] == 10
        assert 0 < row['received'] <= 10 and row['dropped'] == row['received']
        assert 0 < row['cpu_ms'] < 200


def test_lost_frames_are_counted():
    row = ros.loss('shipped profile', True, 'VGA', frames=10, rate=10.0)
    assert row['published'] == 10 and 0 < row['received'] <= 10
    assert row['transport'] == 'shipped profile'


def test_a_program_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r'ros_counter failed: .*nonsense'):
        ros.program('ros_counter', nonsense=1)
