"""The pretended camera: what it reads, and that topics carry it unchanged."""

import json
import threading

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from node_harness import DOMAIN, pictures, pinhole, write_bag
from PIL import Image as PillowImage
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from ray_pose_ros.node.conversions import (
    camera_from_info,
    camera_from_pose,
    image_from_message,
    nanoseconds,
)
from ray_pose_ros.node.demo_listener import shown_views
from ray_pose_ros.synthetic.camera_publisher import CameraPublisher
from ray_pose_ros.synthetic.camera_sources import BagSource, FolderSource, OrbitSource

IMAGES = pictures(4)


@pytest.fixture
def folder(tmp_path):
    """Write four lossless photographs with intrinsics and true poses."""
    frames = []
    for k, image in enumerate(IMAGES):
        PillowImage.fromarray(image).save(tmp_path / f'{k}.png')
        angle = 0.3 * k
        R = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        K = pinhole().matrix.tolist()
        K[0][0] += k
        frames.append({'file': f'{k}.png', 'width': 64, 'height': 48, 'K': K, 'R': R,
                       't': [0, 0, 2.0 + k]})  # fmt: skip
    (tmp_path / 'poses.json').write_text(json.dumps({'frames': frames}))
    return tmp_path


def test_folder_with_poses(folder):
    source = FolderSource(folder)
    assert len(source) == 4 and source.calibrated
    assert np.array_equal(source[2].image, IMAGES[2])
    assert source[2].camera.matrix[0, 0] == pinhole().matrix[0, 0] + 2
    assert source[2].t[2] == 4.0
    assert [FolderSource(folder, 2)[k].name for k in range(2)] == ['0.png', '3.png']


def test_folder_without_poses_or_with_its_images_one_down(folder):
    (folder / 'poses.json').unlink()
    source = FolderSource(folder)
    assert not source.calibrated and source[0].camera is None and source[0].R is None
    below = folder / 'set' / 'images'
    below.mkdir(parents=True)
    for path in folder.glob('*.png'):
        path.rename(below / path.name)
    assert len(FolderSource(folder / 'set')) == 4


def test_photographs_are_turned_as_exif_says_unless_intrinsics_are_for_stored_pixels(tmp_path):
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    for k in range(2):
        PillowImage.fromarray(IMAGES[k]).save(tmp_path / f'{k}.png', exif=exif)
    assert FolderSource(tmp_path)[0].image.shape == (64, 48, 3)
    frames = [{'file': f'{k}.png', 'width': 64, 'height': 48, 'K': pinhole().matrix.tolist()}
              for k in range(2)]  # fmt: skip
    (tmp_path / 'poses.json').write_text(json.dumps({'frames': frames}))
    assert np.array_equal(FolderSource(tmp_path)[0].image, IMAGES[0])


def test_what_cannot_be_shown_is_said(tmp_path, folder):
    with pytest.raises(ValueError, match='is not a folder'):
        FolderSource(tmp_path / 'nothing')
    (folder / '1.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'1.png cannot be read'):
        FolderSource(folder)[1]
    (folder / 'poses.json').write_text('{"frames": 3}')
    with pytest.raises(ValueError, match=r'poses.json cannot be read'):
        FolderSource(folder)
    with pytest.raises(ValueError, match='0 views'):
        OrbitSource(0)


class Hearer(Node):
    """Keeps what a camera publishes."""

    def __init__(self, context):
        super().__init__('hearer', context=context)
        self.images, self.infos, self.truth = {}, {}, {}
        for kind, topic, to in (
            (Image, 'image_raw', self.images),
            (CameraInfo, 'camera_info', self.infos),
            (PoseStamped, 'ground_truth', self.truth),
        ):

            def keep(msg, to=to):
                to[nanoseconds(msg.header.stamp)] = msg

            self.create_subscription(kind, f'/cam/{topic}', keep, 20)


@pytest.fixture
def play():
    """Run a CameraPublisher beside a Hearer until something holds; return the Hearer."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    made = []

    def run(parameters, condition, timeout=10.0):
        overrides = [Parameter(k, value=v) for k, v in parameters.items()]
        camera = CameraPublisher(context=context, parameter_overrides=overrides)
        hearer = Hearer(context)
        stop = threading.Event()
        thread = threading.Thread(target=camera.play, args=(stop,))
        thread.start()
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(hearer)
        made.extend([camera, hearer])
        try:
            executor.spin_once(timeout_sec=0.01)
            for _ in range(int(timeout / 0.02)):
                if condition(hearer):
                    break
                executor.spin_once(timeout_sec=0.02)
        finally:
            stop.set()
            thread.join(5.0)
            executor.shutdown()
        assert condition(hearer)
        return hearer

    yield run
    for node in made:
        node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_topics_carry_the_photographs_unchanged(folder, tmp_path, play):
    index = tmp_path / 'index'
    hearer = play(
        {'source': 'images', 'path': str(folder), 'camera': 'cam', 'hold': 0.1, 'rate': 20.0,
         'reliable': True, 'index_file': str(index)},
        lambda h: len(set(shown_views(index).values())) == 4 and len(h.images) == len(h.infos),
    )  # fmt: skip
    views = shown_views(index)
    source = FolderSource(folder)
    for stamp, msg in hearer.images.items():
        frame = source[views[stamp]]
        assert np.array_equal(image_from_message(msg), frame.image)
        assert camera_from_info(hearer.infos[stamp], 64, 48) == frame.camera
        assert msg.header.frame_id == hearer.infos[stamp].header.frame_id
    for stamp, msg in hearer.truth.items():
        R, t = camera_from_pose(msg.pose)
        assert np.allclose(R, source[views[stamp]].R) and np.allclose(t, source[views[stamp]].t)


def test_bag_is_played_as_it_was_recorded(tmp_path, play):
    write_bag(tmp_path / 'bag', IMAGES, pinhole())
    hearer = play(
        {'source': 'bag', 'path': str(tmp_path / 'bag'), 'camera': 'cam', 'bag_speed': 20.0,
         'reliable': True},
        lambda h: len(h.images) == 4 and len(h.infos) == 4,
    )  # fmt: skip
    for k, image in enumerate(IMAGES):
        stamp = (100 + k) * 10**9
        assert np.array_equal(image_from_message(hearer.images[stamp]), image)
        assert camera_from_info(hearer.infos[stamp], 64, 48) == pinhole()
    source = BagSource(tmp_path / 'bag')
    assert source.calibrated and not source.compressed
    (found,) = source.decoded({102 * 10**9})
    assert np.array_equal(image_from_message(found), IMAGES[2])
    with pytest.raises(ValueError, match='has no images on /rear'):
        BagSource(tmp_path / 'bag', '/rear')
    with pytest.raises(ValueError, match='is not a readable rosbag2'):
        BagSource(tmp_path / 'nothing')
