"""Intrinsics and boxes from files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ray_pose_ros.estimation.inputs import load_views
from ray_pose_ros.estimation.intrinsics import IntrinsicsFile, read_boxes

K = [[500.0, 0.0, 320.0], [0.0, 510.0, 240.0], [0.0, 0.0, 1.0]]


def write(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def frame(file, **more):
    return {'file': file, 'width': 640, 'height': 480, 'K': K} | more


def test_frames_are_matched_by_name_in_the_order_of_the_images(tmp_path):
    other = [[400.0, 0, 320], [0, 400, 240], [0, 0, 1]]
    frames = [frame('images/a.jpg'), frame('images/b.jpg', K=other, bbox_xyxy=[1, 2, 3, 4])]
    file = IntrinsicsFile(write(tmp_path / 'poses.json', {'frames': frames}))
    b, a = file.match([Path('x/b.jpg'), Path('a.jpg')])
    assert b.K[0, 0] == 400 and a.K[0, 0] == 500
    assert b.box.tolist() == [1, 2, 3, 4] and a.box is None
    assert a.size == (640, 480) and a.R is None
    assert file.scene_centres is None
    camera = a.camera(640, 480)
    np.testing.assert_array_equal(camera.matrix.numpy(), K)


def test_truth_comes_along(tmp_path):
    R = [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]
    frames = [frame('a.jpg', R=R, t=[1, 2, 3])]
    file = IntrinsicsFile(write(tmp_path / 'p.json', {'frames': frames}))
    (entry,) = file.match([Path('a.jpg')])
    np.testing.assert_array_equal(entry.t, [1, 2, 3])
    np.testing.assert_allclose(file.scene_centres, [[-2, 1, -3]])


def test_same_file_names_in_several_folders_are_told_apart_by_path(tmp_path):
    far = [[900.0, 0, 320], [0, 900, 240], [0, 0, 1]]
    frames = [frame('left/0.jpg'), frame('right/0.jpg', K=far)]
    file = IntrinsicsFile(write(tmp_path / 'p.json', {'frames': frames}))
    (entry,) = file.match([tmp_path / 'right' / '0.jpg'])
    assert entry.K[0, 0] == 900
    with pytest.raises(ValueError, match=r'several frames fit 0\.jpg'):
        file.match([Path('elsewhere/0.jpg')])


def test_missing_names_are_all_named(tmp_path):
    file = IntrinsicsFile(write(tmp_path / 'p.json', {'frames': [frame('a.jpg')]}))
    with pytest.raises(
        ValueError, match=r'p\.json: no intrinsics for b\.jpg, c\.jpg; it has a\.jpg'
    ):
        file.match([Path('a.jpg'), Path('b.jpg'), Path('c.jpg')])


ROS_CALIBRATION = """
image_width: 640
image_height: 480
camera_name: test
camera_matrix: {rows: 3, cols: 3, data: [500., 0., 320., 0., 510., 240., 0., 0., 1.]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.05, 0.001, -0.002, 0.0]}
"""


@pytest.mark.parametrize(
    ('content', 'size'),
    [
        ({'K': K}, None),
        (K, None),
        ({'K': K, 'width': 640, 'height': 480}, (640, 480)),
        ('500 0 320\n0 5.1e2 240\n0 0 1\n', None),
        (ROS_CALIBRATION, (640, 480)),
    ],
)
def test_one_camera_for_all(tmp_path, content, size):
    file = IntrinsicsFile(write(tmp_path / 'k', content))
    entries = file.match([Path('a.jpg'), Path('b.jpg')])
    assert len(entries) == 2
    np.testing.assert_allclose(entries[1].K, K)
    assert entries[0].size == size
    if content is ROS_CALIBRATION:
        assert entries[0].distortion_model == 'plumb_bob'
        assert entries[0].distortion == (-0.2, 0.05, 0.001, -0.002, 0.0)


def test_numbers_without_a_point_are_numbers(tmp_path):
    text = '{"K": [[5e2, 0, 320], [0, 5e2, 240], [0, 0, 1]]}'
    assert IntrinsicsFile(write(tmp_path / 'k.json', text)).match([Path('a')])[0].K[0, 0] == 500


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"frames": []}', 'empty'),
        ('{"frames": [{"K": 1}]}', 'frame 0 has no "file"'),
        ({'frames': [frame('a'), frame('a')]}, 'a has been there before'),
        ({'frames': [{'file': 'a'}]}, r'frame 0 \(a\): no intrinsics matrix'),
        ({'K': [[1, 2], [3, 4]]}, r'K is .*expected \(3, 3\)'),
        ({'K': [['x', 0, 0], [0, 1, 0], [0, 0, 1]]}, r"K is \[\['x', .*expected \(3, 3\) finite"),
        ({'K': [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]}, r'K is \[\[1000'),
        ('K: [[2020-01-02, 0, 0], [0, 1, 0], [0, 0, 1]]', r'K is .*date\(2020, 1, 2\)'),
        (ROS_CALIBRATION.replace('500.', '2020-01-02'), r'K is .*date\(2020, 1, 2\)'),
        ('K: 2020-13-32', 'neither JSON nor YAML .*month'),
        ({'K': np.zeros((3, 3)).tolist()}, 'focal lengths are 0, 0'),
        ({'K': [[1, 0, 0], [0, 1, 0], [0, 0, 2]]}, 'last row 0 0 1'),
        ({'K': K, 'distortion_model': 'magic'}, "distortion model is 'magic'"),
        ({'K': K, 'distortion_model': 'plumb_bob', 'distortion': [1]}, '1 coefficients'),
        ({'frames': [frame('a', R=np.ones((3, 3)).tolist(), t=[0, 0, 0])]}, 'R is not a rotation'),
        ({'K': K, 'distortion_model': ['plumb_bob']}, r"distortion model is .*\['plumb_bob'\]"),
        ({'K': K, 'distortion': 0.1}, 'distortion is 0.1, expected a list of finite numbers'),
        ({'K': K, 'distortion': [None, 0]}, r'distortion is \[None, 0\]'),
        (
            {'K': K, 'distortion': '12345', 'distortion_model': 'plumb_bob'},
            "distortion is '12345'",
        ),
        ({'K': K, 'width': [1], 'height': 2}, r'\[width, height\] is \[\[1\], 2\], expected'),
        ({'K': K, 'width': float('inf'), 'height': 2}, r'\[width, height\] is \[inf, 2\]'),
        ('frames: [{file: 1}]', 'frame 0: "file" is 1, expected the name of a file'),
        ({'frames': [frame('a\0b')]}, r'"file" is .a\\x00b., expected the name of a file'),
        pytest.param('[' * 100_000, 'neither JSON nor YAML', id='deep'),
        ({'frames': [frame('a', bbox_xyxy=[1, 2, 3])]}, 'box is'),
        ('{"K": [', 'neither JSON nor YAML'),
        ('hello', 'neither JSON, YAML nor a 3x3 matrix'),
        ('3', 'expected intrinsics, got int'),
        ('camera_matrix: {rows: 3}', 'not a complete camera calibration'),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, content, message):
    path = write(tmp_path / 'cam.json', content)
    with pytest.raises(ValueError, match=rf'cam\.json: .*{message}'):
        IntrinsicsFile(path)


def test_unreadable_files(tmp_path):
    with pytest.raises(ValueError, match='cannot be read'):
        IntrinsicsFile(tmp_path / 'gone.json')
    (tmp_path / 'bin').write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(ValueError, match='cannot be read'):
        IntrinsicsFile(tmp_path / 'bin')


def test_boxes_by_order_and_by_name(tmp_path):
    images = [tmp_path / 'b.jpg', tmp_path / 'a.jpg']
    path = write(tmp_path / 'boxes.json', [[0, 0, 1, 1], [0, 0, 2, 2]])
    # The list is in sorted order, whatever the order of the images.
    assert [b[2] for b in read_boxes(path, images)] == [2, 1]
    write(path, {'images/a.jpg': [0, 0, 3, 3], 'b.jpg': [0, 0, 4, 4]})
    assert [b[2] for b in read_boxes(path, images)] == [4, 3]


def test_a_list_of_the_whole_folder_serves_some_of_its_images(tmp_path):
    for name in 'abc':
        (tmp_path / f'{name}.jpg').write_bytes(b'')
    path = write(tmp_path / 'boxes.json', [[0, 0, i + 1, 1] for i in range(3)])
    assert [b[2] for b in read_boxes(path, [tmp_path / 'c.jpg', tmp_path / 'a.jpg'])] == [3, 1]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([[0, 0, 1, 1]], '1 boxes for 2 images'),
        ({'a.jpg': [0, 0, 1, 1]}, r'no box for b\.jpg'),
        ([[0, 0, 1], [0, 0, 1, 1]], 'box 0: box is'),
        ('7', 'expected a list of boxes'),
        ('1: [0, 0, 1, 1]', 'a key is 1, expected the name of a file'),
        ({'a\0.jpg': [0, 0, 1, 1]}, r'a key is .a\\x00\.jpg., expected'),
    ],
)
def test_unusable_boxes(tmp_path, content, message):
    path = write(tmp_path / 'boxes.json', content)
    with pytest.raises(ValueError, match=rf'boxes\.json: .*{message}'):
        read_boxes(path, [tmp_path / 'a.jpg', tmp_path / 'b.jpg'])


def test_same_file_names_in_several_folders_have_their_own_boxes_and_masks(tmp_path):
    paths = []
    for folder in 'ab':
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / '1.jpg')
        Image.new('RGB', (20, 10)).save(paths[-1])
    boxes, file = [[0, 0, 5, 5], [1, 1, 6, 6]], tmp_path / 'boxes.json'
    for content in (boxes, dict(zip(['a/1.jpg', 'b/1.jpg'], boxes, strict=True))):
        file.write_text(json.dumps(content))
        assert [box.tolist() for box in read_boxes(file, paths)] == boxes
    for content in ({'1.jpg': boxes[0]}, {'x/1.jpg': boxes[0], 'y/1.jpg': boxes[1]}):
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match='several boxes or images are named 1.jpg'):
            read_boxes(file, paths)
    Image.new('L', (20, 10), 255).save(tmp_path / '1.png')
    with pytest.raises(ValueError, match='several images are called 1'):
        load_views(paths, masks=tmp_path)
