"""Packing of photographs and scenes that are dressed in them."""

import cv2
import numpy as np
import pytest

from ray_pose_ros.synthetic import sample_scene
from ray_pose_ros.synthetic.photograph_packing import main
from ray_pose_ros.synthetic.photographs import Photographs, using
from ray_pose_ros.synthetic.textures import sample_texture
from ray_pose_ros.training.dataset import render_dataset


def surface(rng, width=300, height=256):
    """BGR picture with detail and many colours."""
    small = rng.integers(20, 235, (height // 8, width // 8, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp('pictures')
    (folder / 'deep').mkdir()
    (folder / 'around').mkdir()
    for k in range(3):
        cv2.imwrite(str(folder / 'deep' / f'{k}.png'), surface(rng))
    cv2.imwrite(str(folder / 'again.jpg'), cv2.imread(str(folder / 'deep' / '0.png')))
    cv2.imwrite(str(folder / 'tiny.png'), surface(rng, 64, 64))
    cv2.imwrite(str(folder / 'flat.png'), np.full((256, 256, 3), 90, np.uint8))
    cut_out = cv2.cvtColor(surface(rng), cv2.COLOR_BGR2BGRA)
    cut_out[:, :100, 3] = 0
    cv2.imwrite(str(folder / 'cut_out.png'), cut_out)
    normals = np.clip(surface(rng) * 0.2 + (205, 105, 105), 0, 255).astype(np.uint8)
    cv2.imwrite(str(folder / 'normals.png'), normals)
    (folder / 'broken.jpg').write_bytes(b'not a picture')
    cv2.imwrite(str(folder / 'around' / 'room.jpg'), surface(rng, 1024, 512))
    cv2.imwrite(str(folder / 'around' / 'square.jpg'), surface(rng, 512, 512))
    return folder


@pytest.fixture(scope='module')
def packed(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('packed') / 'photographs.npz'
    assert main([str(out), str(folder / 'deep'), '--panoramas', str(folder / 'around')]) == 0
    return out


def test_only_fit_pictures_are_packed(folder, tmp_path, capsys):
    out = tmp_path / 'p.npz'
    for name in ('tiny', 'flat', 'cut_out', 'normals', 'broken'):
        assert list(folder.glob(f'{name}.*'))
    # those of `deep`, of which `again` is one, and the two of `around`
    assert main([str(out), str(folder)]) == 0
    assert capsys.readouterr().out.startswith('5 pictures, 0 panoramas')
    assert main([str(out), str(folder / 'deep'), '--panoramas', str(folder / 'around')]) == 0
    assert capsys.readouterr().out.startswith('3 pictures, 1 panoramas')


def test_bad_arguments_are_named(folder, packed, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'p.npz'), str(tmp_path / 'nowhere')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit):
        main([str(tmp_path / 'p.npz'), str(tmp_path / 'empty')])
    assert 'no picture of' in capsys.readouterr().err
    with pytest.raises(ValueError, match='share of photographs is 1.5'):
        Photographs(packed, 1.5)
    np.savez(tmp_path / 'other.npz', something=np.zeros(3))
    with pytest.raises(ValueError, match='has no pictures'):
        Photographs(tmp_path / 'other.npz')


@pytest.mark.parametrize('seed', range(6))
def test_textures_and_panoramas_have_their_size(packed, seed):
    photographs = Photographs(packed)
    rng = np.random.default_rng(seed)
    for size in (64, 256, 512):
        image = photographs.texture(rng, size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8 and image.std() > 5
    image = photographs.panorama(rng, 256)
    assert image.shape == (128, 256, 3) and image.dtype == np.uint8 and image.std() > 5


def test_panoramas_are_made_of_places_where_there_are_none(folder, tmp_path):
    out = tmp_path / 'p.npz'
    main([str(out), str(folder / 'deep')])
    image = Photographs(out).panorama(np.random.default_rng(0), 256)
    assert image.shape == (128, 256, 3)
    # it closes: the two rims are as alike as any neighbours
    columns = np.abs(np.diff(image.astype(int), axis=1)).mean(axis=(0, 2))
    assert np.abs(image[:, 0].astype(int) - image[:, -1]).mean() <= columns.max()


def test_scenes_change_only_while_photographs_are_in_use(packed):
    plain = sample_scene(3)
    with using(Photographs(packed, 1.0)):
        dressed = sample_scene(3)
        test = sample_texture(np.random.default_rng(5), 'test')
    again = sample_scene(3)
    np.testing.assert_array_equal(plain.atlas.texels, again.atlas.texels)
    same = plain.atlas.texels.shape == dressed.atlas.texels.shape
    assert not same or (plain.atlas.texels != dressed.atlas.texels).any()
    # test scenes never are dressed: what is measured on them stays comparable
    np.testing.assert_array_equal(test, sample_texture(np.random.default_rng(5), 'test'))


def test_a_data_set_is_rendered_with_photographs(packed, tmp_path):
    options = {'scenes': 2, 'views': 2, 'workers': 1, 'shard': 2}
    render_dataset(tmp_path / 'plain', **options)
    render_dataset(tmp_path / 'dressed', photographs=packed, photographed=1.0, **options)
    images = [np.load(next((tmp_path / k).glob('*.npz')))['images'] for k in ('plain', 'dressed')]
    assert images[0].shape == images[1].shape == (2, 2, 224, 224, 3)
    assert (images[0] != images[1]).mean() > 0.3
