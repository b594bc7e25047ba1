"""The node with its model on a CUDA GPU, a real one or a pretended one."""

import numpy as np
import pytest
from matching_fixtures import textured_views
from node_harness import EVERY_FRAME, starter
from pretend_gpu import pretend_gpu

from ray_pose_ros.geometry.so3 import angle_between
from ray_pose_ros.node.conversions import camera_from_pose
from ray_pose_ros.node.model_loading import make_estimator

_start = pytest.fixture(starter, name='start')


@pytest.fixture
def gpu():
    """Begun before the node's threads are, and ended after them."""
    with pretend_gpu() as counts:
        yield counts


@pytest.mark.slow  # and nothing in it depends on which ROS it is
@pytest.mark.usefixtures('gpu')
def test_images_come_out_as_poses(start):
    harness = start(make_estimator, EVERY_FRAME | {'device': 'auto', 'second_look': False})
    assert harness.until(lambda: harness.client.diagnostics.get('device', '').startswith('cuda'))
    seen = textured_views(4)
    harness.show(range(4), [image.image for *_, image in seen], seen[0][0])
    assert harness.until(lambda: harness.count == 4 and harness.client.points)
    R = np.stack([camera_from_pose(p)[0] for p in harness.client.poses[-1].poses])
    true = np.stack([R for _, R, _, _ in seen])
    for k in range(1, 4):
        off = angle_between((R[k] @ R[0].T)[None], (true[k] @ true[0].T)[None])
        assert np.degrees(off[0]) < 2
