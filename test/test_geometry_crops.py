"""Crops: boxes, pixels beyond the border, patch order and the official crop parameters."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.crops import (
    Crop,
    box_from_mask,
    centred_square,
    extract_crop,
    ndc_grid,
    official_crop_params,
    patch_centres,
    square_crop,
)
from ray_pose_ros.geometry.pytorch3d import ndc_from_pixels

GOLDEN = Path(os.environ.get('RAY_POSE_GOLDEN', Path(__file__).parents[2] / 'shared' / 'golden'))
needs_golden = pytest.mark.skipif(
    not (GOLDEN / 'preprocess' / 'examples.npz').exists(),
    reason='no golden preprocess folder (environment variable RAY_POSE_GOLDEN)',
)
boxes = st.tuples(
    st.integers(-50, 700), st.integers(-50, 500), st.integers(1, 600), st.integers(1, 600)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(deadline=None)
@given(boxes, st.floats(1.0, 2.0))
def test_square_crop_contains_the_box(box, scale):
    crop = square_crop(box, scale)
    cx, cy = crop.centre
    assert abs(cx - (box[0] + box[2]) / 2) <= 1 and abs(cy - (box[1] + box[3]) / 2) <= 1
    assert abs(crop.side - scale * max(box[2] - box[0], box[3] - box[1])) <= 1
    assert crop.x0 <= box[0] + 0.5 and crop.x0 + crop.side >= box[2] - 1
    assert crop.y0 <= box[1] + 0.5 and crop.y0 + crop.side >= box[3] - 1


@pytest.mark.parametrize('box', [(0, 0, 0, 5), (3, 0, 2, 5), (0, 0, np.nan, 5), (0, 0, np.inf, 5)])
def test_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match='box'):
        square_crop(box)


def test_other_bad_values_are_refused():
    with pytest.raises(ValueError, match='scale'):
        square_crop((0, 0, 5, 5), 0.0)
    with pytest.raises(ValueError, match='side'):
        Crop(0, 0, 0)
    with pytest.raises(ValueError, match='grid'):
        patch_centres(Crop(0, 0, 5), 0)
    with pytest.raises(ValueError, match='mask is empty'):
        box_from_mask(np.zeros((4, 5), bool))
    with pytest.raises(ValueError, match='shape'):
        box_from_mask(np.zeros((4, 5, 3), bool))
    with pytest.raises(ValueError, match='raw_box'):
        official_crop_params(Crop(0, 0, 5), 5, 5, 'demo')
    with pytest.raises(ValueError, match='variant'):
        official_crop_params(Crop(0, 0, 5), 5, 5, 'other')


def test_centred_square():
    assert centred_square(640, 480) == Crop(80, 0, 480)
    assert centred_square(480, 641) == Crop(0, 80, 480)


def test_box_from_mask_is_tight_and_exclusive():
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = mask[4, 5] = 255
    assert box_from_mask(mask) == (3, 2, 6, 5)


def test_crop_without_resize_copies_pixels_and_pads_black():
    image = np.random.default_rng(0).integers(1, 256, (10, 12, 3), np.uint8)
    found = extract_crop(image, Crop(-2, -3, 16), 16)
    assert found.shape == (3, 16, 16) and found.dtype == torch.float32
    expected = np.zeros((16, 16, 3), np.float32)
    expected[3:13, 2:14] = image / np.float32(255)
    np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-6)


def test_images_that_cannot_be_written_are_taken_without_a_warning(recwarn):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image.setflags(write=False)
    extract_crop(image, Crop(0, 0, 8), 8)
    assert not recwarn.list


def test_resize_is_aligned_with_patch_centres():
    """A ramp whose grey value is the continuous x (or y) keeps it at the crop's new pixels."""
    ramp = (np.arange(200, dtype=np.float64) + 0.5).astype(np.uint8)
    image = np.stack([np.tile(ramp, (150, 1)), np.tile(ramp[:150, None], (1, 200))], axis=-1)
    image = np.concatenate([image, image[..., :1]], axis=-1)
    crop = Crop(20, 10, 96)
    found = extract_crop(image, crop, 24)[:2, 2:-2, 2:-2] * 255 + 0.5
    expected = patch_centres(crop, 24).reshape(24, 24, 2).permute(2, 0, 1)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ('image', 'crop', 'message'),
    [
        (np.zeros((4, 4), np.uint8), Crop(0, 0, 4), 'uint8'),
        (np.zeros((4, 4, 3), np.float32), Crop(0, 0, 4), 'float32'),
        (np.zeros((4, 0, 3), np.uint8), Crop(0, 0, 4), 'shape'),
        (np.zeros((4, 4, 3), np.uint8), Crop(4, 0, 4), 'outside'),
        (np.zeros((4, 4, 3), np.uint8), Crop(-100000, -100000, 200000), '16 times'),
    ],
)
def test_bad_image_or_crop_is_refused(image, crop, message):
    with pytest.raises(ValueError, match=message):
        extract_crop(image, crop, 8)


def test_patch_centres_are_row_major_half_pixels():
    found = patch_centres(Crop(10, 20, 4), 2)
    assert found.tolist() == [[11, 21], [13, 21], [11, 23], [13, 23]]
    assert found.dtype == torch.float64
    assert patch_centres(Crop(0, 0, 3), 3)[0].tolist() == [0.5, 0.5]


@settings(deadline=None)
@given(boxes, st.integers(100, 900), st.integers(100, 900))
def test_ndc_grid_is_the_patch_centres_in_ndc(box, width, height):
    """The training formula of the crop parameters describes the very pixels of the crop."""
    crop = square_crop(box)
    params = official_crop_params(crop, width, height).double()
    expected = ndc_from_pixels(patch_centres(crop, 16), width, height).reshape(16, 16, 2)
    torch.testing.assert_close(ndc_grid(params, 16), expected, rtol=0, atol=1e-4)


def test_no_crop_is_the_centred_square():
    params = official_crop_params(centred_square(640, 480), 640, 480)
    torch.testing.assert_close(params, torch.tensor([0.0, 0.0, 2.0, 4 / 3]))
    grid = ndc_grid(params, 4)
    assert float(grid[0, 0, 0]) > 0 and float(grid[0, 0, 1]) > 0  # first patch: left and up


def test_directions_of_patches_follow_the_crop():
    cam = CameraModel.from_fov(640, 480, 1.0)
    d = cam.unproject(patch_centres(Crop(400, 300, 100), 7)).reshape(7, 7, 3)
    assert bool((d[:, 1:, 0] > d[:, :-1, 0]).all()) and bool((d[1:, :, 1] > d[:-1, :, 1]).all())


def golden_cases():
    data = np.load(GOLDEN / 'preprocess' / 'examples.npz')
    info = json.loads((GOLDEN / 'preprocess' / 'examples_info.json').read_text())
    for name, images in info.items():
        for kind in ('bbox', 'mask'):
            for i, image in enumerate(images):
                key = f'{name}/{kind}/'
                values = {k[len(key) :]: data[k] for k in data.files if k.startswith(key)}
                yield image, i, values


@needs_golden
def test_square_crops_and_crop_parameters_of_the_official_examples():
    for image, i, golden in golden_cases():
        box, (width, height) = golden['bboxes'][i], image['size']
        crop = square_crop(box)
        corners = (crop.x0, crop.y0, crop.x0 + crop.side, crop.y0 + crop.side)
        assert corners == tuple(golden['square_bbox'][i])
        found = official_crop_params(crop, width, height)
        expected = golden['crop_params_training_formula'][i]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        found = official_crop_params(crop, width, height, 'demo', box)
        np.testing.assert_allclose(
            found, golden['crop_params_official_demo'][i], rtol=0, atol=1e-5
        )


@needs_golden
def test_pixels_and_masks_of_the_official_robot_example():
    folder = GOLDEN.parent / 'data' / 'views' / 'robot_examples'
    if not folder.exists():
        pytest.skip('no example images beside the golden folder')
    for name, i, golden in golden_cases():
        if 'image_thumb28' not in golden or not name['file'].startswith('robot'):
            continue
        image = read_rgb(folder / 'images' / name['file'])
        crop = square_crop(golden['bboxes'][i])
        found = extract_crop(image, crop, 224) * 2 - 1
        if i == 0:
            np.testing.assert_allclose(found, golden['image0'], rtol=0, atol=1e-5)
        small = torch.nn.functional.avg_pool2d(found, 8)
        np.testing.assert_allclose(small, golden['image_thumb28'][i], rtol=0, atol=1e-5)
        mask = read_rgb(folder / 'masks' / name['file'].replace('jpg', 'png'))
        assert box_from_mask((mask > 0.4 * 255).any(-1)) == tuple(golden['bboxes'][i])


def read_rgb(path):
    image = pytest.importorskip('PIL.Image')
    return np.array(image.open(path).convert('RGB'))


@given(
    st.tuples(st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 500)),
    st.floats(0.3, 3.0),
)
def test_a_scaled_crop_stays_where_it_is(corner, factor):
    crop = Crop(*corner)
    scaled = crop.scaled(factor)
    assert scaled.side == max(1, round(factor * crop.side))
    assert scaled.centre == pytest.approx(crop.centre, abs=0.51)


@given(st.tuples(st.integers(-60, 60), st.integers(-60, 60), st.integers(1, 80)))
def test_pixels_in_a_crop_are_counted(corner):
    crop = Crop(*corner)
    seen = np.zeros((40, 50), dtype=bool)
    rows, columns = (slice(max(a, 0), max(a + crop.side, 0)) for a in (crop.y0, crop.x0))
    seen[rows, columns] = True
    assert crop.seen_of(50, 40) == seen.sum()
