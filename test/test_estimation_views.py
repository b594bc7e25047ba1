"""A view is checked when it is made, and knows its crop."""

import numpy as np
import pytest

from ray_pose_ros.estimation.packed_view import Unpacked, packed
from ray_pose_ros.estimation.views import View
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import Crop

IMAGE = np.zeros((60, 80, 3), np.uint8)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'image': np.zeros((60, 80, 3))}, 'image is float64'),
        ({'image': np.zeros((60, 80), np.uint8)}, r'expected uint8 \(H, W, 3\)'),
        ({'image': np.zeros((0, 80, 3), np.uint8)}, r'image is uint8 \(0, 80, 3\)'),
        ({'camera': CameraModel.from_fov(60, 80, 1.0)}, 'for 60x80 pixels.*image has 80x60'),
        ({'image': IMAGE.tolist()}, 'image is a list, expected a ndarray'),
        ({'camera': np.eye(3)}, 'camera is a ndarray, expected a CameraModel'),
        ({'mask': [[True]]}, 'mask is a list, expected a ndarray'),
        ({'mask': np.ones((80, 60), bool)}, r'mask has shape \(80, 60\)'),
        ({'mask': np.zeros((60, 80), bool)}, 'mask is empty'),
        ({'box': (1, 2, 3)}, 'expected 4 finite numbers'),
        ({'box': (1, 2, float('nan'), 4)}, 'expected 4 finite numbers'),
        ({'box': (9, 9, 9, 20)}, 'has no area'),
        ({'box': (80, 0, 99, 20)}, 'outside the image of 80x60'),
    ],
)
def test_contradictions_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f'front: .*{message}'):
        View(**({'image': IMAGE, 'name': 'front'} | arguments))


def test_the_crop_is_the_middle_the_mask_or_the_box():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    assert View(IMAGE).crop() == Crop(10, 0, 60)
    assert View(IMAGE, mask=mask).crop(scale=1.0) == Crop(30, 20, 20)
    # A box may reach over the border; it wins over the mask.
    assert View(IMAGE, mask=mask, box=(-10, 0, 20, 30)).crop(scale=1.0) == Crop(-10, 0, 30)


def test_unpacked_views_are_not_all_there_at_once():
    image = np.full((20, 30, 3), 90, np.uint8)
    views = [View(image, name='a'), packed(View(image, name='b', box=(1, 2, 9, 9)))]
    lazy = Unpacked(views)
    assert len(lazy) == 2 and lazy[0] is views[0]
    assert [view.name for view in lazy] == ['a', 'b'] and lazy[1] is not lazy[1]
    assert lazy[1].box == (1, 2, 9, 9) and abs(lazy[1].image.astype(int) - 90).max() <= 2
