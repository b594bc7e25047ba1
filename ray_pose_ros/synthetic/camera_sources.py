"""What a pretended camera sees: a rendered orbit or a folder of photographs. No ROS import."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ray_pose_ros.geometry.cameras import CameraModel

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


@dataclass(frozen=True)
class Frame:
    """A view: (H, W, 3) uint8 RGB, intrinsics and true R, t (world to camera) where known."""

    name: str
    image: np.ndarray
    camera: CameraModel | None = None
    R: np.ndarray | None = None
    t: np.ndarray | None = None


class OrbitSource:
    """A rendered object, seen from `count` places round it; the same for the same seed."""

    def __init__(self, count: int = 8, seed: int = 3, width: int = 640, height: int = 480) -> None:
        from ray_pose_ros.synthetic.cameras import orbit
        from ray_pose_ros.synthetic.scenes import sample_scene

        if count < 1:
            raise ValueError(f'{count} views, expected at least 1')
        self._scene = sample_scene(seed, 'test')
        self._places = orbit(self._scene, count, width, height)
        self._frames: dict[int, Frame] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Frame:
        if index not in self._frames:
            camera, R, t = self._places[index]
            image = self._scene.render(camera, R, t).image
            self._frames[index] = Frame(f'orbit_{index:03d}', image, camera, R, t)
        return self._frames[index]


class FolderSource:
    """
    Photographs of a folder, by name; intrinsics and truth from a `poses.json` in it, if any.

    `count` > 0 takes that many, spread evenly. Raises ValueError for a folder without two images
    or a `poses.json` that does not fit; for an unreadable image when it is asked for.
    """

    def __init__(self, folder: str | Path, count: int = 0) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f'{folder} is not a folder')
        known = _read_poses(folder / 'poses.json')
        paths = _images_in(folder)
        if not paths and not known and (folder / 'images').is_dir():
            folder = folder / 'images'
            paths = _images_in(folder)
        if known:
            paths = [p for p in (folder / name for name in known) if p.is_file()]
        if len(paths) < 2:
            raise ValueError(f'{folder} has {len(paths)} images, expected at least 2')
        if 0 < count < len(paths):
            picked = np.round(np.linspace(0, len(paths) - 1, count)).astype(int)
            paths = [paths[i] for i in picked]
        self._paths, self._known, self._folder = paths, known, folder

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def calibrated(self) -> bool:
        """Whether every image has intrinsics."""
        return all(self._name(p) in self._known for p in self._paths)

    def __getitem__(self, index: int) -> Frame:
        path = self._paths[index]
        entry = self._known.get(self._name(path), {})
        size = (entry['width'], entry['height']) if entry else None
        image = _read_image(path, size)
        if not entry:
            return Frame(path.name, image)
        camera = CameraModel(
            torch.tensor(entry['K'], dtype=torch.float64),
            entry['width'],
            entry['height'],
            entry.get('distortion_model', 'none'),
            entry.get('distortion', ()),
        )
        R, t = (np.asarray(entry[k], float) if k in entry else None for k in ('R', 't'))
        return Frame(path.name, image, camera, R, t)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def _read_poses(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    try:
        frames = json.loads(path.read_text(encoding='utf-8'))['frames']
        return {f['file']: f for f in frames if {'K', 'width', 'height'} <= f.keys()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} cannot be read: {error!r}') from None


def _read_image(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    """Read RGB; turned as EXIF says unless intrinsics are for the stored pixels' size."""
    try:
        with Image.open(path) as opened:
            stored = opened.size
            turned = opened if size == stored else ImageOps.exif_transpose(opened)
            image = np.asarray(turned.convert('RGB'))
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read: {error}') from None
    if size is not None and image.shape[1::-1] != size:
        raise ValueError(f'{path} is {stored}, but its intrinsics are for {size}')
    return image


class BagSource:
    """
    The images of one topic of a rosbag2, with their CameraInfo, as stored (CDR).

    `topic` '' takes the first image topic. Raises ValueError for a bag that cannot be opened or
    has no images. Needs the package `rosbags`, not ROS.
    """

    IMAGES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')

    def __init__(self, path: str | Path, topic: str = '') -> None:
        from rosbags.highlevel import AnyReader, AnyReaderError
        from rosbags.typesys import Stores, get_typestore

        store = get_typestore(Stores.ROS2_JAZZY)
        try:
            self._reader = AnyReader([Path(path)], default_typestore=store)
            self._reader.open()
        except (AnyReaderError, OSError, ValueError) as error:
            raise ValueError(f'{path} is not a readable rosbag2: {error}') from None
        images = [c for c in self._reader.connections if c.msgtype in self.IMAGES]
        if topic:
            images = [c for c in images if c.topic == topic]
        if not images:
            topics = sorted({f'{c.topic} ({c.msgtype})' for c in self._reader.connections})
            raise ValueError(f'{path} has no images{f" on {topic}" if topic else ""}: {topics}')
        image = min(images, key=lambda c: (c.msgtype != self.IMAGES[0], c.topic))
        prefix = image.topic.removesuffix('/compressed').rsplit('/', 1)[0]
        self._image = image
        self._info = next(
            (
                c
                for c in self._reader.connections
                if c.topic == f'{prefix}/camera_info' and c.msgtype == 'sensor_msgs/msg/CameraInfo'
            ),
            None,
        )
        self.topic, self.compressed = image.topic, image.msgtype == self.IMAGES[1]
        self.calibrated = self._info is not None

    def messages(self):
        """Yield (time in ns, 'image' or 'info', CDR bytes) in the order they were recorded."""
        wanted = [c for c in (self._info, self._image) if c is not None]
        for connection, when, raw in self._reader.messages(wanted):
            yield when, 'image' if connection is self._image else 'info', bytes(raw)

    def decoded(self, stamps: set[int]):
        """Yield the image messages with these header stamps (ns), deserialised."""
        for connection, _, raw in self._reader.messages([self._image]):
            msg = self._reader.deserialize(raw, connection.msgtype)
            if msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec in stamps:
                yield msg
