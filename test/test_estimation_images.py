"""Image and mask files of every kind that people have."""

import numpy as np
import pytest
from PIL import Image

from ray_pose_ros.estimation.images import find_images, image_size, read_image, read_mask

RNG = np.random.default_rng(0)
ORIENTATION = 0x0112


def smooth(height=30, width=40):
    """A colour gradient, which JPEG keeps; different in every corner."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 90 + 0 * x], -1).astype(np.uint8)


def save_oriented(path, pixels, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def test_rgb_is_kept(tmp_path):
    pixels = smooth()
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    photograph = read_image(tmp_path / 'a.png')
    np.testing.assert_array_equal(photograph.pixels, pixels)
    assert (photograph.orientation, photograph.rotated, photograph.size) == (1, False, (40, 30))
    assert photograph.pixels.flags.writeable


@pytest.mark.parametrize('mode', ['L', '1', 'P', 'CMYK', 'RGBA', 'LA', 'YCbCr'])
def test_other_modes_become_rgb(tmp_path, mode):
    suffix = '.png' if mode in ('L', '1', 'P', 'RGBA', 'LA') else '.tif'
    path = tmp_path / f'a{suffix}'
    Image.fromarray(smooth()).convert(mode).save(path)
    pixels = read_image(path).pixels
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    if mode in ('L', '1', 'LA'):
        np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])
    elif mode == 'RGBA':
        np.testing.assert_array_equal(pixels, smooth())


def test_transparency_is_black(tmp_path):
    pixels = np.dstack([smooth(), np.full((30, 40), 255, np.uint8)])
    pixels[:, :20, 3] = 0
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    read = read_image(tmp_path / 'a.png').pixels
    assert not read[:, :20].any()
    np.testing.assert_array_equal(read[:, 20:], smooth()[:, 20:])


def test_transparent_palette_entry_is_black(tmp_path):
    image = Image.new('P', (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / 'a.png', transparency=0)
    pixels = read_image(tmp_path / 'a.png').pixels
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[1, 1].tolist() == [200, 100, 50]


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(deep).save(tmp_path / 'a.png')
    pixels = read_image(tmp_path / 'a.png').pixels
    np.testing.assert_array_equal(pixels[..., 1], np.rint(deep / 257).astype(np.uint8))
    assert pixels.max() == 255


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.ones((3, 4), np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match=r'a\.tif: floating point'):
        read_image(tmp_path / 'a.tif')


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_obeyed_like_in_a_viewer(tmp_path, orientation):
    save_oriented(tmp_path / 'a.png', smooth(), orientation)
    photograph = read_image(tmp_path / 'a.png')
    stored = smooth()
    expected = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    np.testing.assert_array_equal(photograph.pixels, expected)
    assert photograph.rotated == (orientation != 1)
    assert photograph.orientation == orientation


def test_orientation_is_left_alone_for_intrinsics_of_the_stored_size(tmp_path):
    save_oriented(tmp_path / 'a.png', smooth(), 6)
    photograph = read_image(tmp_path / 'a.png', expected_size=(40, 30))
    np.testing.assert_array_equal(photograph.pixels, smooth())
    assert not photograph.rotated and photograph.orientation == 6


def test_orientation_is_obeyed_for_intrinsics_of_the_turned_size(tmp_path):
    save_oriented(tmp_path / 'a.png', smooth(), 6)
    photograph = read_image(tmp_path / 'a.png', expected_size=(30, 40))
    assert photograph.rotated and photograph.size == (30, 40)


def test_square_images_with_intrinsics_stay_as_stored(tmp_path):
    save_oriented(tmp_path / 'a.png', smooth(30, 30), 6)
    assert not read_image(tmp_path / 'a.png', expected_size=(30, 30)).rotated


def test_orientation_is_left_alone_for_a_box_or_intrinsics_without_size(tmp_path):
    save_oriented(tmp_path / 'a.png', smooth(), 8)
    assert not read_image(tmp_path / 'a.png', annotated=True).rotated


def test_a_nonsense_orientation_is_ignored(tmp_path):
    save_oriented(tmp_path / 'a.png', smooth(), 42)
    assert not read_image(tmp_path / 'a.png').rotated


def test_another_size_than_expected_is_refused(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / 'a.png')
    with pytest.raises(ValueError, match=r'a\.png: the image is 40x30.*is for 80x60'):
        read_image(tmp_path / 'a.png', expected_size=(80, 60))


@pytest.mark.parametrize('content', [b'', b'not an image', b'\xff\xd8\xff\xe0' + 20 * b'\0'])
def test_rubbish_is_refused_by_name(tmp_path, content):
    (tmp_path / 'bad.jpg').write_bytes(content)
    with pytest.raises(ValueError, match=r'bad\.jpg: not a readable image'):
        read_image(tmp_path / 'bad.jpg')


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.bmp'])
def test_truncated_files_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f'cut{suffix}'
    Image.fromarray(RNG.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r'cut.*: not a readable image'):
        read_image(path)


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r'gone\.jpg: no such file'):
        read_image(tmp_path / 'gone.jpg')


def test_find_images_expands_folders_in_order_and_ignores_the_rest(tmp_path):
    for name in ('b.jpg', 'a.PNG', '.hidden.jpg', 'notes.txt', 'c.jpeg'):
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'folder.jpg').mkdir()
    assert [p.name for p in find_images([tmp_path])] == ['a.PNG', 'b.jpg', 'c.jpeg']
    # Files keep the order in which they were named: the first is the reference.
    named = [tmp_path / 'c.jpeg', tmp_path / 'b.jpg']
    assert find_images(named) == named


def test_find_images_refusals(tmp_path):
    with pytest.raises(ValueError, match='no images in this folder'):
        find_images([tmp_path])
    for name in ('a.HEIC', 'b.heic', 'c.mp4', '._a.heic', 'notes.txt'):
        (tmp_path / name).write_bytes(b'')
    others = r'but photographs or videos that cannot be read: 3 \(\.heic, \.mp4\)'
    with pytest.raises(ValueError, match=others):
        find_images([tmp_path])
    with pytest.raises(ValueError, match='no such file or folder'):
        find_images([tmp_path / 'nowhere'])
    (tmp_path / 'a.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match='given twice'):
        find_images([tmp_path, tmp_path / 'a.jpg'])


@pytest.mark.parametrize('kind', ['L', 'RGBA', 'zero-one', '1', 'I;16', 'P'])
def test_masks_of_every_kind(tmp_path, kind):
    expected = np.zeros((20, 30), bool)
    expected[5:12, 8:20] = True
    white = np.where(expected, 255, 0).astype(np.uint8)
    if kind == 'zero-one':
        image = Image.fromarray(expected.astype(np.uint8))
    elif kind == 'I;16':
        image = Image.fromarray(np.where(expected, 65535, 0).astype(np.uint16))
    elif kind == 'RGBA':  # alpha says nothing
        image = Image.fromarray(np.dstack([white] * 3 + [np.full_like(white, 255)]))
    else:
        image = Image.fromarray(white).convert(kind)
    image.save(tmp_path / 'm.png')
    np.testing.assert_array_equal(read_mask(tmp_path / 'm.png'), expected)


def test_an_empty_mask_is_refused(tmp_path):
    Image.new('L', (4, 4)).save(tmp_path / 'm.png')
    with pytest.raises(ValueError, match=r'm\.png: the mask is empty'):
        read_mask(tmp_path / 'm.png')


def test_image_size_reads_the_header(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / 'a.png')
    assert image_size(tmp_path / 'a.png') == (40, 30)
    with pytest.raises(ValueError, match='not a readable image'):
        image_size(tmp_path / 'gone.png')


def test_the_picture_of_results_is_no_photograph(tmp_path):
    for name in ('a.png', 'poses.png'):
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    assert [p.name for p in find_images([tmp_path])] == ['a.png', 'poses.png']
    (tmp_path / 'poses.json').write_text('{}')
    assert [p.name for p in find_images([tmp_path])] == ['a.png']


def test_what_was_given_may_say_whether_it_is_for_the_turned_image(tmp_path):
    path = tmp_path / 'a.jpg'
    save_oriented(path, smooth(8, 8), 3)
    assert read_image(path, (8, 8), annotated=True, turned_by=3).rotated
    assert not read_image(path, (8, 8), annotated=True, turned_by=1).rotated
    with pytest.raises(ValueError, match='8x8, but what was given for it is for 9x8'):
        read_image(path, (9, 8), turned_by=3)
