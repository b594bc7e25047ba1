"""Focal lengths out of EXIF, as cameras, phones and editors leave them."""

import math

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from ray_pose_ros.estimation.images import read_image
from ray_pose_ros.estimation.inputs import load_views

SIZE = 640, 480
FOCAL, IN_35_MM, WIDTH, HEIGHT, RESOLUTION, UNIT = 0x920A, 0xA405, 0xA002, 0xA003, 0xA20E, 0xA210
DIAGONAL = math.hypot(*SIZE) / math.hypot(36, 24)  # pixels a millimetre of small picture film


def photograph(path, tags, size=SIZE, orientation=None):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    if orientation:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ('tags', 'expected'),
    [
        ({IN_35_MM: 26}, 26 * DIAGONAL),
        ({IN_35_MM: 26, FOCAL: IFDRational(424, 100)}, 26 * DIAGONAL),
        # 4000 pixels of 2.5 micrometres, since reduced to 640
        ({FOCAL: IFDRational(6), RESOLUTION: IFDRational(10160), UNIT: 2, WIDTH: 4000}, 384),
        ({FOCAL: IFDRational(6), RESOLUTION: IFDRational(4000), UNIT: 3, WIDTH: 4000}, 384),
        (
            {
                FOCAL: IFDRational(6),
                RESOLUTION: IFDRational(4000),
                UNIT: 3,
                WIDTH: 3000,
                HEIGHT: 4000,
            },
            384,
        ),
        ({FOCAL: IFDRational(6), RESOLUTION: IFDRational(100), UNIT: 4}, 600),
        ({IN_35_MM: 26, WIDTH: 4000, HEIGHT: 3000}, 26 * DIAGONAL),
        ({IN_35_MM: 26, WIDTH: 3000, HEIGHT: 4000}, 26 * DIAGONAL),  # noted the other way up
        ({IN_35_MM: 26, WIDTH: 3000, HEIGHT: 3000}, None),  # cut since
        ({IN_35_MM: 0, FOCAL: IFDRational(6)}, None),
        ({FOCAL: IFDRational(6, 0), RESOLUTION: IFDRational(100, 0)}, None),
        ({IN_35_MM: 4000}, None),
        ({IN_35_MM: 1}, None),
        ({}, None),
    ],
)
def test_focal_length_of_a_photograph(tmp_path, tags, expected):
    found = read_image(photograph(tmp_path / 'a.jpg', tags)).focal
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ('size', 'sensor'),
    [((480, 640), (480, 640)), ((600, 400), (600, 400)), ((640, 288), (640, 480))]
    + [((300, 300), (400, 300)), ((360, 640), (480, 640))],
)
def test_wide_and_square_photographs_are_parts_of_a_sensor(tmp_path, size, sensor):
    found = read_image(photograph(tmp_path / 'a.jpg', {IN_35_MM: 26}, size)).focal
    assert found == pytest.approx(26 * math.hypot(*sensor) / math.hypot(36, 24), rel=1e-3)


@pytest.mark.filterwarnings('ignore:.*EXIF.*')
def test_files_without_exif_and_with_a_broken_one(tmp_path):
    image = Image.new('RGB', SIZE)
    image.save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png').focal is None
    path = photograph(tmp_path / 'b.jpg', {IN_35_MM: 26})
    data = bytearray(path.read_bytes())
    begin = data.index(b'Exif')
    end = begin - 2 + int.from_bytes(data[begin - 2 : begin], 'big')
    data[begin + 14 : end] = bytes([255]) * (end - begin - 14)
    path.write_bytes(bytes(data))
    assert read_image(path).focal is None


def test_a_view_has_the_camera_that_its_file_tells_unless_another_is_given(tmp_path):
    path = photograph(tmp_path / 'a.jpg', {IN_35_MM: 26}, orientation=6)
    view = load_views([path]).views[0]
    assert view.image.shape == (640, 480, 3) and view.camera_source == 'exif'
    f = 26 * DIAGONAL
    np.testing.assert_allclose(view.camera.matrix, [[f, 0, 240], [0, f, 320], [0, 0, 1]])
    K = tmp_path / 'K.json'
    K.write_text('{"K": [[500, 0, 320], [0, 500, 240], [0, 0, 1]], "width": 640, "height": 480}')
    view = load_views([path], intrinsics=K).views[0]
    assert view.camera_source == 'given' and float(view.camera.matrix[0, 0]) == 500
    bare = photograph(tmp_path / 'b.jpg', {})
    assert load_views([bare]).views[0].camera is None
