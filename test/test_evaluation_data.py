"""Data sets of the evaluation: what they say of cameras, checked by formulas of their own."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from ray_pose_ros.estimation.colmap_files import write_colmap
from ray_pose_ros.estimation.posed_cameras import PosedCameras
from ray_pose_ros.evaluation import co3d
from ray_pose_ros.evaluation.colmap_model import find_model, read_colmap_sequence, read_model
from ray_pose_ros.evaluation.sequences import LazyViews, read_folder, render_scene
from ray_pose_ros.evaluation.sources import Source, find_sources, jittered
from ray_pose_ros.geometry.cameras import CameraModel
from ray_pose_ros.geometry.rotations import quaternion_from_matrix

WIDTH, HEIGHT = 64, 48


def rotations(count, seed=0):
    return Rotation.random(count, np.random.default_rng(seed)).as_matrix()


def save(path, mode='RGB', size=(WIDTH, HEIGHT), colour=(200, 100, 50), box=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, 0 if box else colour)
    if box:
        image.paste(255, box)
    image.save(path)


# --- CO3D ---------------------------------------------------------------------------------------


def co3d_entry(sequence, number, R, T, form='ndc_isotropic', size=(HEIGHT, WIDTH)):
    image = f'apple/{sequence}/images/frame{number:06d}.png'
    return {
        'sequence_name': sequence,
        'frame_number': number,
        'image': {'path': image, 'size': list(size)},
        'mask': {'path': image.replace('images', 'masks')},
        'viewpoint': {
            'R': R.tolist(),
            'T': T.tolist(),
            'focal_length': [2.2, 2.4],
            'principal_point': [0.05, -0.1],
            'intrinsics_format': form,
        },
    }


@pytest.fixture
def co3d_root(tmp_path):
    """A category with one usable sequence of three frames, and several that are not."""
    category = tmp_path / 'apple'
    entries, listed = [], []
    for name in ('good', 'poor', 'unrated', 'far', 'mirrored', 'short'):
        for number, R in enumerate(rotations(4, seed=len(name))):
            T = np.array([0.1, 0.2, 1e6 if name == 'far' else 4.0])
            R = -R if name == 'mirrored' else R
            entries.append(co3d_entry(name, number, R, T))
            if name == 'short' and number > 0:
                continue  # in the list, but the image was not downloaded
            if (name, number) == ('good', 3):
                continue
            save(tmp_path / entries[-1]['image']['path'])
            box = (10, 5, 30, 25) if number else (0, 0, 1, 1)
            save(tmp_path / entries[-1]['mask']['path'], 'L', box=box)
            listed.append([name, number, entries[-1]['image']['path']])
    listed += [['short', number, ''] for number in (1, 2)]
    save(tmp_path / 'apple/good/masks/frame000002.png', 'L', colour=0)  # the object is not there
    scores = {'good': 0.9, 'poor': 0.5, 'unrated': None}
    sequences = [
        {'sequence_name': name, 'viewpoint_quality_score': scores.get(name, 0.9)}
        for name in ('good', 'poor', 'unrated', 'far', 'mirrored', 'short')
    ]
    for name, content in (('frame', entries), ('sequence', sequences)):
        path = category / f'{name}_annotations.jgz'
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
    (category / 'set_lists').mkdir()
    lists = {'train': [], 'test': listed[::-1]}
    (category / 'set_lists/set_lists_fewview_dev.json').write_text(json.dumps(lists))
    co3d._listed.cache_clear()
    return tmp_path


def pytorch3d_pixels(points, R, T, focal, principal, half):
    """PyTorch3D's projection as its documentation has it: row vectors, +x left, +y up."""
    cam = points @ R + T
    ndc = focal * cam[:, :2] / cam[:, 2:] + principal
    return np.array([WIDTH / 2, HEIGHT / 2]) - ndc * half


@pytest.mark.parametrize(
    ('form', 'half'),
    [
        ('ndc_isotropic', (HEIGHT / 2, HEIGHT / 2)),
        ('ndc_norm_image_bounds', (WIDTH / 2, HEIGHT / 2)),
    ],
)
def test_co3d_cameras_see_what_pytorch3d_projects(form, half):
    R, T = rotations(1, seed=3)[0], np.array([0.3, -0.2, 5.0])
    frame = co3d.frame_of(co3d_entry('s', 0, R, T, form))
    points = np.random.default_rng(0).uniform(-1, 1, (20, 3))
    expected = pytorch3d_pixels(points, R, T, (2.2, 2.4), (0.05, -0.1), np.array(half))
    # the world turns with the camera: x left and y up become x right and y down
    cam = points * [-1, -1, 1] @ frame.R.T + frame.t
    pixels = cam @ frame.K.T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], expected, atol=1e-9)
    assert frame.size == (WIDTH, HEIGHT) and np.linalg.det(frame.R) == pytest.approx(1)


def test_co3d_relative_poses_are_the_annotated_ones():
    Rs, T = rotations(2, seed=5), np.array([0.0, 0.1, 3.0])
    a, b = (co3d.frame_of(co3d_entry('s', k, R, T)) for k, R in enumerate(Rs))
    angle = np.arccos((np.trace(a.R @ b.R.T) - 1) / 2)
    assert angle == pytest.approx(np.arccos((np.trace(Rs[0].T @ Rs[1]) - 1) / 2))
    centres = [-f.R.T @ f.t for f in (a, b)]
    expected = [-T @ R.T for R in Rs]
    distance = np.linalg.norm(centres[0] - centres[1])
    assert distance == pytest.approx(np.linalg.norm(expected[0] - expected[1]))


def test_co3d_takes_the_sequences_that_the_official_evaluation_takes(co3d_root):
    assert co3d.categories(co3d_root) == [co3d_root / 'apple']
    assert co3d.sequence_names(co3d_root / 'apple', least_views=2) == ['good']
    assert co3d.sequence_names(co3d_root / 'apple', least_views=4) == []
    assert 'short' in co3d.sequence_names(co3d_root / 'apple', least_views=1)
    sequence = co3d.read_sequence(co3d_root / 'apple', 'good')
    assert [view.name[-10:] for view in sequence.views] == [f'{k:06d}.png' for k in range(3)]
    assert sequence.views[1].object_box == (10, 5, 30, 25)
    assert sequence.views[2].object_box is None  # an empty mask
    assert sequence.views[0].image.shape == (HEIGHT, WIDTH, 3)
    assert sequence.name == 'apple/good' and sequence.up is None


def test_co3d_lists_and_files_that_are_missing_are_named(co3d_root):
    with pytest.raises(ValueError, match="no list 'val', it has train, test"):
        co3d.sequence_names(co3d_root / 'apple', split='val')
    with pytest.raises(ValueError, match='set_lists_fewview_x.json: cannot be read'):
        co3d.sequence_names(co3d_root / 'apple', 'fewview_x')
    (co3d_root / 'apple/frame_annotations.jgz').write_bytes(b'no gzip')
    with pytest.raises(ValueError, match='frame_annotations.jgz: cannot be read'):
        co3d.sequence_names(co3d_root / 'apple')
    with pytest.raises(ValueError, match='intrinsics_format'):
        co3d.frame_of(co3d_entry('s', 0, np.eye(3), np.zeros(3), 'pixels'))


# --- COLMAP -------------------------------------------------------------------------------------

LENSES = {
    # model: number, parameters, and the pixel of (x, y) = (0.2, -0.1) by COLMAP's formulas
    'SIMPLE_PINHOLE': (0, (50, 32, 24), (42, 19)),
    'PINHOLE': (1, (50, 60, 32, 24), (42, 18)),
    'SIMPLE_RADIAL': (2, (50, 32, 24, 0.4), (42.2, 18.9)),  # 1 + 0.4 * 0.05
    'RADIAL': (3, (50, 32, 24, 0.4, 2.0), (42.25, 18.875)),  # 1 + 0.02 + 2 * 0.0025
    'OPENCV': (4, (50, 60, 32, 24, 0.4, 0, 0.01, 0), (42.18, 17.93)),
    'SIMPLE_RADIAL_FISHEYE': (8, (50, 32, 24, 0.0), None),
    'OPENCV_FISHEYE': (5, (50, 60, 32, 24, 0.1, 0, 0, 0), None),
}


def write_binary(folder, images, lenses=('PINHOLE',)):
    """A model by the documented layout; images: [(name, wxyz, t, camera number, points)]."""
    folder.mkdir(parents=True, exist_ok=True)
    content = struct.pack('<Q', len(lenses))
    for number, model in enumerate(lenses, 1):
        kind, params, _ = LENSES[model]
        content += struct.pack(f'<iiQQ{len(params)}d', number, kind, WIDTH, HEIGHT, *params)
    (folder / 'cameras.bin').write_bytes(content)
    content = struct.pack('<Q', len(images))
    for number, (name, wxyz, t, camera, points) in enumerate(images, 1):
        content += struct.pack('<i7di', number, *wxyz, *t, camera)
        content += name.encode() + b'\0' + struct.pack('<Q', points)
        content += struct.pack('<ddq', 1.0, 2.0, -1) * points
    (folder / 'images.bin').write_bytes(content)


@pytest.mark.parametrize('model', LENSES)
def test_colmap_lenses_project_by_colmaps_formulas(tmp_path, model):
    write_binary(tmp_path, [('a.png', (1, 0, 0, 0), (0, 0, 0), 1, 0)], [model])
    camera = read_model(tmp_path).cameras[0]
    point = torch.tensor([0.2, -0.1, 1.0], dtype=torch.float64)
    expected = LENSES[model][2]
    if expected is None:  # theta over r instead of 1
        fx, fy = (50, 60) if model == 'OPENCV_FISHEYE' else (50, 50)
        k = 0.1 if model == 'OPENCV_FISHEYE' else 0
        r = np.hypot(0.2, 0.1)
        theta = np.arctan(r)
        scale = theta * (1 + k * theta**2) / r
        expected = (32 + fx * 0.2 * scale, 24 - fy * 0.1 * scale)
    if model == 'OPENCV':  # radial and p1: x + 2 p1 x y, y + p1 (r^2 + 2 y^2)
        x, y = 0.2 * 1.02 + 2 * 0.01 * 0.2 * -0.1, -0.1 * 1.02 + 0.01 * (0.05 + 2 * 0.01)
        expected = (32 + 50 * x, 24 + 60 * y)
    np.testing.assert_allclose(camera.project(point).numpy(), expected, atol=1e-9)


def test_colmap_binary_and_text_say_the_same(tmp_path):
    R, t = rotations(3), np.arange(9.0).reshape(3, 3)
    names = ['b.png', 'a.png', 'with-dash.png']
    lens = CameraModel(torch.tensor([[50.0, 0, 32], [0, 60, 24], [0, 0, 1]]), WIDTH, HEIGHT)
    write_colmap(tmp_path / 'text', PosedCameras(names, [lens] * 3, R, t, np.zeros(3)))
    xyzw = quaternion_from_matrix(torch.from_numpy(R)).numpy()
    rows = [(n, q[[3, 0, 1, 2]], x, 1, k) for k, (n, q, x) in enumerate(zip(names, xyzw, t))]
    write_binary(tmp_path / 'binary', rows)
    text, binary = read_model(tmp_path / 'text'), read_model(tmp_path / 'binary')
    assert binary.names == sorted(names)
    order = [binary.names.index(name) for name in text.names]
    np.testing.assert_allclose(binary.R[order], R, atol=1e-9)
    np.testing.assert_allclose(text.R, R, atol=1e-9)
    np.testing.assert_array_equal(binary.t[order], t)
    assert binary.cameras[0] == text.cameras[0] == lens


def test_colmap_model_written_by_colmap_itself(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    write_binary(
        tmp_path / 'ours',
        [
            (f'{k}.png', (0.5, 0.5, -0.5, 0.5), (1, 2, 3.5), k + 1, 2 * k)
            for k in range(len(LENSES))
        ],
        list(LENSES),
    )
    (tmp_path / 'ours/points3D.bin').write_bytes(struct.pack('<Q', 0))
    written = pycolmap.Reconstruction(str(tmp_path / 'ours'))
    (tmp_path / 'theirs').mkdir()
    written.write_binary(str(tmp_path / 'theirs'))
    read = read_model(tmp_path / 'theirs')
    assert read.names == [f'{k}.png' for k in range(len(LENSES))]
    point = np.array([0.2, -0.1, 1.0])
    for name, camera, R, t in zip(read.names, read.cameras, read.R, read.t):
        (image,) = (im for im in written.images.values() if im.name == name)
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        np.testing.assert_allclose(pose.matrix(), np.column_stack([R, t]), atol=1e-12)
        theirs = np.ravel(image.camera.img_from_cam(point[None]))
        np.testing.assert_allclose(camera.project(torch.from_numpy(point)), theirs, atol=1e-6)


def test_a_colmap_sequence_finds_its_photographs(tmp_path):
    rows = [(f'sub/{k}.png', (1, 0, 0, 0), (k, 0, 0), 1, 0) for k in range(3)]
    write_binary(tmp_path / 'scene/sparse/0', rows)
    for name, *_ in rows:
        save(tmp_path / 'scene/images' / name)
    model = find_model(tmp_path / 'scene')
    assert model == tmp_path / 'scene/sparse/0'
    sequence = read_colmap_sequence(model)
    assert len(sequence.views) == 3
    assert sequence.views[2].camera.matrix[1, 1] == 60 and sequence.views[2].box is None
    np.testing.assert_array_equal(sequence.t[:, 0], [0, 1, 2])
    (source,) = find_sources([tmp_path / 'scene'])
    assert (source.kind, source.data) == ('colmap', 'scene')
    assert len(source.load().views) == 3
    (tmp_path / 'scene/images/sub/1.png').unlink()
    with pytest.raises(ValueError, match=r'1 images of .* missing, as .*1\.png'):
        read_colmap_sequence(model)


def test_damaged_colmap_files_are_refused(tmp_path):
    write_binary(tmp_path, [('a.png', (1, 0, 0, 0), (0, 0, 0), 1, 3)])
    whole = (tmp_path / 'images.bin').read_bytes()
    (tmp_path / 'images.bin').write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=r'images\.bin: ends in the middle'):
        read_model(tmp_path)
    write_binary(tmp_path, [('a.png', (1, 0, 0, 0), (0, 0, 0), 7, 0)])
    with pytest.raises(ValueError, match='by camera 7, which is unknown'):
        read_model(tmp_path)
    (tmp_path / 'cameras.bin').write_bytes(struct.pack('<QiiQQ', 1, 1, 7, 10, 10) + b'\0' * 40)
    with pytest.raises(ValueError, match='FOV'):
        read_model(tmp_path)


# --- folders, rendered scenes, sources ----------------------------------------------------------


@pytest.fixture
def photo_folder(tmp_path):
    folder = tmp_path / 'photos'
    frames = []
    for k, R in enumerate(rotations(4)):
        save(folder / 'images' / f'{k}.png')
        K = [[60, 0, 32], [0, 60, 24], [0, 0, 1]]
        frame = {'file': f'{k}.png', 'K': K, 'R': R.tolist(), 't': [0, 0, 3.0 + k]}
        frames.append(frame | {'bbox_xyxy': [10, 10, 50, 30]})
    (folder / 'poses.json').write_text(json.dumps({'frames': frames}))
    return folder


def test_a_folder_is_read_view_by_view(photo_folder):
    sequence = read_folder(photo_folder)
    assert len(sequence.views) == 4 and sequence.views[3].object_box == (10, 10, 50, 30)
    np.testing.assert_allclose(np.linalg.norm(sequence.centres, axis=1), [3, 4, 5, 6])
    (photo_folder / 'images/2.png').unlink()
    with pytest.raises(ValueError, match=r'image 2\.png is neither there nor in images/'):
        read_folder(photo_folder)


def test_lazy_views_read_what_is_asked_for_and_keep_few():
    asked = []
    views = LazyViews(100, lambda index: asked.append(index) or index)
    assert views[3] == views[3] == 3 and asked == [3]
    assert list(views)[-1] == 99 and len(views._kept) <= 64
    assert views[3] == 3 and asked.count(3) == 2
    with pytest.raises(IndexError):
        views[100]


def test_rendered_size_changes_the_pixels_and_not_the_poses():
    small, large = (render_scene(3, views=3, size=size) for size in (224, 320))
    np.testing.assert_array_equal(small.R, large.R)
    assert large.views[0].image.shape == (320, 320, 3)
    assert large.views[0].camera.width == 320


def test_sources_tell_what_they_are_and_change_with_their_files(photo_folder, co3d_root):
    first, second = find_sources([photo_folder, co3d_root], rendered=1, least_views=2)[:2]
    assert (first.kind, first.data) == ('folder', 'photos')
    assert (second.kind, second.data, second.name) == ('co3d', 'apple', 'good')
    assert second.family == 'CO3D categories (seen by the official network)'
    before = first.fingerprint()
    assert before == first.fingerprint() != second.fingerprint()
    text = (photo_folder / 'poses.json').read_text()
    (photo_folder / 'poses.json').write_text(text.replace('3.0', '3.5'))
    assert first.fingerprint() != before


def test_a_link_to_a_folder_has_its_own_name(photo_folder, tmp_path):
    link = tmp_path / 'chair'
    link.symlink_to(photo_folder, target_is_directory=True)
    (source,) = find_sources([link])
    assert source.data == source.load().name == 'chair'


def test_folders_that_cannot_be_told_apart_or_are_nothing_are_refused(photo_folder, tmp_path):
    with pytest.raises(ValueError, match='two folders are called photos'):
        find_sources([photo_folder, photo_folder])
    (tmp_path / 'empty').mkdir()
    for folder in (tmp_path / 'empty', tmp_path / 'nowhere'):
        with pytest.raises(ValueError, match=r'no poses\.json in it, no COLMAP model'):
            find_sources([folder])
    with pytest.raises(
        ValueError, match='images are in pictures, but no folder is read as a COLMAP'
    ):
        find_sources([photo_folder], images=Path('pictures'))


def test_categories_are_chosen_by_name(co3d_root):
    found = find_sources([co3d_root], only=['apple'], least_views=2)
    assert [source.name for source in found] == ['good']
    with pytest.raises(ValueError, match='no category kite'):
        find_sources([co3d_root], only=['kite'])


def test_boxes_are_disturbed_as_the_official_evaluation_does():
    rng = np.random.default_rng(0)
    boxes = np.array([jittered((10, 20, 50, 100), rng) for _ in range(2000)])
    side = boxes[:, 2] - boxes[:, 0]
    np.testing.assert_allclose(side, boxes[:, 3] - boxes[:, 1])
    scale = 1.15 * side / 80  # of the crop over the box's longer side
    assert scale.min() == pytest.approx(1.1, abs=2e-3)
    assert scale.max() == pytest.approx(1.2, abs=2e-3)
    shift = ((boxes[:, :2] + boxes[:, 2:]) / 2 - [30, 60]) / 80
    assert np.abs(shift).max() == pytest.approx(0.07, abs=1e-3) and abs(shift.mean()) < 5e-3


def test_views_are_changed_as_asked(photo_folder):
    plain = Source('folder', 'photos', 'folders', str(photo_folder))
    hidden = Source('folder', 'photos', 'folders', str(photo_folder), intrinsics=False)
    moved = Source('folder', 'photos', 'folders', str(photo_folder), jitter=4)
    assert plain.load().views[0].camera is not None
    assert hidden.load().views[0].camera is None
    assert hidden.with_intrinsics() == plain
    boxes = [moved.load().views[1].object_box for _ in range(2)]
    assert boxes[0] == boxes[1] != plain.load().views[1].object_box


def test_a_frame_without_a_pose_is_named(tmp_path):
    frame = {'file': 'a.png', 'K': [[100, 0, 32], [0, 100, 32], [0, 0, 1]]}
    (tmp_path / 'poses.json').write_text(json.dumps({'frames': [frame]}))
    with pytest.raises(ValueError, match=r'a\.png has no R and t'):
        read_folder(tmp_path)
