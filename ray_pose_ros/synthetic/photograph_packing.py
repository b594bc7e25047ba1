"""
Packing of photographs for synthetic scenes into one .npz file.

    python -m ray_pose_ros.synthetic.photograph_packing OUT.npz FOLDER [FOLDER ...] \\
        --panoramas FOLDER

packs the pictures of folders, such as those of Debian's supertuxkart-data and mate-backgrounds,
and equirectangular panoramas: pictures, OpenEXR files, or those of npm's @pmndrs/assets. Left out
are small and flat ones, cut-outs, normal maps, and what is there already. Pack them where you
train; they are not shipped.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

_PICTURES = ('.jpg', '.jpeg', '.png')
_RADIANCES = ('.exr', '.exr.js')
_VIEW = 1.25  # width to height from which a picture may be of a place rather than of a surface


def pack(folders, panoramas, out, largest: int = 512) -> tuple[int, int]:
    """Pack the pictures of folders and of folders of panoramas; returns how many of each.

    Raises ValueError when no picture is fit.
    """
    arrays, seen, places = {}, [], []
    for path in _files(folders, _PICTURES):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or not _is_fit(image):
            continue
        thumb = cv2.resize(image[..., :3], (16, 16), interpolation=cv2.INTER_AREA)
        thumb = thumb.astype(np.float32)
        if any(np.abs(thumb - other).mean() < 6 for other in seen):
            continue
        seen.append(thumb)
        places.append(image.shape[1] > _VIEW * image.shape[0] and image.shape[1] >= 1600)
        arrays[f'picture{len(seen):05d}'] = _encode(image, 2 * largest if places[-1] else largest)
    if not seen:
        raise ValueError(f'no picture of {[str(f) for f in folders]} is fit to be a texture')
    count = 0
    for path in _files(panoramas, _PICTURES + _RADIANCES):
        radiance = path.name.lower().endswith(_RADIANCES)
        image = _developed(path) if radiance else cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and abs(image.shape[1] / image.shape[0] - 2) < 0.05:
            arrays[f'panorama{count:05d}'] = _encode(image, 1024)
            count += 1
    np.savez(out, place=np.array(places), **arrays)
    return len(seen), count


def _files(folders, endings: tuple[str, ...]) -> list[Path]:
    files = [p for folder in folders for p in sorted(Path(folder).rglob('*')) if p.is_file()]
    return [p for p in files if p.name.lower().endswith(endings)]


def _developed(path: Path) -> np.ndarray:
    """BGR picture of an OpenEXR file of radiances, which may be wrapped in a JavaScript module."""
    try:
        import OpenEXR
    except ImportError:
        raise ImportError(f'{path} needs OpenEXR: pip install OpenEXR') from None
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == '.js':
            data = base64.b64decode(path.read_text().partition('base64,')[2].rstrip('\n;\'"`'))
            path = Path(folder) / 'radiance.exr'
            path.write_bytes(data)
        channels = OpenEXR.File(str(path)).channels()
    if 'RGB' in channels:
        image = channels['RGB'].pixels
    else:
        image = np.stack([channels[c].pixels for c in 'RGB'], axis=-1)
    image = np.clip(np.nan_to_num(image.astype(np.float32), posinf=1e4), 0, 1e4)
    image = 0.3 * image / max(float(np.median(image.mean(axis=-1))), 1e-6)
    image = np.clip(image / (1 + 0.25 * image), 0, 1) ** (1 / 2.2)
    return cv2.medianBlur((255 * image[..., ::-1]).astype(np.uint8), 3)  # rims of lamps ring


def _is_fit(image: np.ndarray) -> bool:
    """Whether an image as read from a file shows something, everywhere, in its own colours."""
    if image.dtype != np.uint8 or image.ndim != 3 or min(image.shape[:2]) < 128:
        return False
    if max(image.shape[:2]) > 4 * min(image.shape[:2]):
        return False
    if image.shape[2] == 4:
        if (image[..., 3] < 250).mean() > 0.01:
            return False
        image = image[..., :3]
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()
    if grey.std() < 15 or detail < 6 or (grey < 6).mean() > 0.12 or (grey > 250).mean() > 0.25:
        return False
    blue, green, red = small.reshape(-1, 3).mean(axis=0)
    normal_map = blue > 180 and abs(green - 128) < 25 and abs(red - 128) < 25
    colours = len(np.unique(small.reshape(-1, 3) // 8, axis=0))
    return not normal_map and colours > 120


def _encode(image: np.ndarray, largest: int) -> np.ndarray:
    scale = largest / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image[..., :3], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image[..., :3], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return data.ravel()


def main(arguments=None) -> int:
    """Command line: pack pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('out', type=Path, help='the .npz file to write')
    parser.add_argument('folders', nargs='+', type=Path, help='of pictures, with their subfolders')
    parser.add_argument('--panoramas', nargs='*', type=Path, default=[], help='folders of them')
    parser.add_argument('--largest', type=int, default=512, help='largest side of a texture')
    options = parser.parse_args(arguments)
    for folder in [*options.folders, *options.panoramas]:
        if not folder.is_dir():
            parser.error(f'{folder} is not a folder')
    try:
        counts = pack(options.folders, options.panoramas, options.out, options.largest)
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    print(f'{counts[0]} pictures, {counts[1]} panoramas, {options.out.stat().st_size} bytes')
    return 0


if __name__ == '__main__':
    sys.exit(main())
