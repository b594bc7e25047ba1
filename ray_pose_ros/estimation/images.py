"""Image and mask files from disk, whatever a camera or an editor wrote into them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ray_pose_ros.estimation.exif import focal_length

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
# Of what cameras write besides, and nothing here reads.
_OTHER_SUFFIXES = ('.heic', '.heif', '.avif', '.gif', '.dng', '.cr2', '.cr3', '.nef', '.arw')
_OTHER_SUFFIXES += ('.orf', '.rw2', '.raf', '.mp4', '.mov', '.m4v', '.avi', '.mkv', '.webm')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff', '.jpg', '.jpeg', '.webp')
MASK_THRESHOLD = 0.4  # of full scale, as in the official loader
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Photograph:
    """Pixels of a file and how they relate to what is stored in it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        orientation: EXIF orientation tag, 1 (upright) to 8.
        rotated: whether `pixels` were turned as the tag asks.
        focal: pixels, the focal length that the file tells; None for none.
    """

    pixels: np.ndarray
    orientation: int
    rotated: bool
    focal: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `pixels`."""
        return self.pixels.shape[1], self.pixels.shape[0]


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Files named, and the image files in the folders named (sorted by name), but for the picture
    in a folder of results.

    Raises:
        ValueError: something named is missing, a folder holds no image, or a file is named twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if is_image(p) and not _is_picture(p))
            if not inside:
                kinds, others = ', '.join(IMAGE_SUFFIXES), left_out(path)
                but = f', but {others}' if others else ''
                raise ValueError(f'{path}: no images in this folder ({kinds}){but}')
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f'{path}: no such file or folder')
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise ValueError(f'{path}: given twice; each view must be another photograph')
        seen.add(path.resolve())
    return found


def left_out(folder: Path) -> str:
    """In words, what photographs and videos in a folder are of other kinds; '' for none."""
    others = [p.suffix.lower() for p in folder.iterdir() if not p.name.startswith('.')]
    others = [suffix for suffix in others if suffix in _OTHER_SUFFIXES]
    kinds = ', '.join(sorted(set(others)))
    return f'photographs or videos that cannot be read: {len(others)} ({kinds})' if others else ''


def _is_picture(path: Path) -> bool:
    """Whether it is what this package draws into a folder of results."""
    return path.name == 'poses.png' and path.with_suffix('.json').is_file()


def is_image(path: Path) -> bool:
    """Whether the file's name is that of an image (hidden files are not)."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.') and path.is_file()
    )


def read_image(
    path: str | Path,
    expected_size: tuple[int, int] | None = None,
    annotated: bool = False,
    turned_by: int | None = None,
) -> Photograph:
    """Read a photograph as 8-bit RGB.

    Grey, palette, CMYK and 16-bit files are converted; transparency is laid over black, which is
    also what pads a crop beyond the border. An EXIF orientation is obeyed, as image viewers do,
    unless something was given for the stored pixels: intrinsics of the stored size
    (`expected_size`) or, without a size, any intrinsics or box (`annotated`). The official loader
    and most annotation tools work on stored pixels.

    Args:
        path: the file.
        expected_size: (width, height) that the intrinsics (or the mask) are for.
        annotated: intrinsics or a box without a size were given for this file.
        turned_by: the EXIF orientation that what was given supposes to be applied, 1 for none; it
            decides, where it is known.

    Raises:
        ValueError: not an image, truncated, of an unusable kind, or not of the expected size.
    """
    path = Path(path)
    image = _open(path)
    orientation, focal = _orientation(image), focal_length(image)
    turned_size = (image.height, image.width) if orientation >= 5 else image.size
    if turned_by is not None:
        rotate = turned_by != 1 and orientation == turned_by
        size = turned_size if rotate else image.size
        if expected_size is not None and tuple(expected_size) != size:
            raise _wrong_size(path, size, expected_size)
    elif expected_size is None:
        rotate = orientation != 1 and not annotated
    elif tuple(expected_size) == image.size:
        rotate = False
    elif tuple(expected_size) == turned_size:
        rotate = True
    else:
        raise _wrong_size(path, image.size, expected_size)
    if rotate:
        image = ImageOps.exif_transpose(image)
    return Photograph(_rgb(image, path), orientation, rotate, focal)


def supposed_orientations(
    paths: Sequence[Path],
    sizes: Sequence[tuple[int, int] | None],
    stated: Sequence[int | None],
) -> list[int | None]:
    """For each photograph the EXIF orientation that what was given supposes to be applied.

    As stated; else None, its size decides, unless sizes tell that those on their sides are meant
    upright: so are then the upside-down ones, whose size is the same either way.

    Raises:
        ValueError: a file is not an image.
    """
    open_ones = [i for i, size in enumerate(sizes) if size is not None and stated[i] is None]
    stored = {i: image_size(paths[i]) for i in open_ones}
    if all(stored[i] == tuple(sizes[i]) for i in open_ones):
        return list(stated)
    tags = {i: _orientation(_open(paths[i])) for i in open_ones}
    on_their_sides = [i for i in open_ones if tags[i] >= 5 and len(set(stored[i])) == 2]
    if not on_their_sides or any(stored[i] == tuple(sizes[i]) for i in on_their_sides):
        return list(stated)
    return [tags.get(i, tag) for i, tag in enumerate(stated)]


def _wrong_size(path: Path, size: tuple[int, int], expected: tuple[int, int]) -> ValueError:
    return ValueError(
        f'{path}: the image is {size[0]}x{size[1]}, but what was given for it is for '
        f'{expected[0]}x{expected[1]}'
    )


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask: (H, W) bool, true where any colour channel exceeds 0.4 of full scale.

    Masks that hold only the values 0 and 1 count 1 as the object. Alpha is ignored, as in the
    official loader.

    Raises:
        ValueError: not an image, or nothing in it is marked.
    """
    path = Path(path)
    image = _open(path)
    if image.mode in ('1', 'P', 'PA', 'CMYK', 'YCbCr', 'LAB', 'HSV'):
        image = image.convert('RGB')
    values = np.asarray(image).astype(np.float64)
    if values.ndim == 3:
        colours = 1 if values.shape[2] == 2 else 3
        values = values[..., :colours].max(axis=-1)
    highest = values.max()
    scale = 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0
    mask = values / scale > MASK_THRESHOLD
    if not mask.any():
        raise ValueError(f'{path}: the mask is empty, nothing in it is brighter than 40 %')
    return mask


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of the stored pixels, from the header alone.

    Raises:
        ValueError: the file is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ValueError(f'{path}: not a readable image ({_reason(error)})') from error


def _open(path: Path) -> Image.Image:
    """Open and decode completely, so that truncation shows here and nowhere else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(path)
            image.load()
    except FileNotFoundError as error:
        raise ValueError(f'{path}: no such file') from error
    except Image.DecompressionBombError as error:
        raise ValueError(f'{path}: too many pixels ({error})') from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        # Pillow raises any of these, by format, for damaged content.
        raise ValueError(f'{path}: not a readable image ({_reason(error)})') from error
    return image


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return 'unknown format' if 'cannot identify' in text else text


def _orientation(image: Image.Image) -> int:
    try:
        tag = int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (ValueError, TypeError, OSError, SyntaxError):
        return 1  # a damaged EXIF block says nothing about the pixels
    return tag if 1 <= tag <= 8 else 1


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode.startswith('I'):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(
                f'{path}: pixel values {deep.min()} to {deep.max()}, expected 8 or 16 bits'
            )
        grey = np.rint(deep / 257.0).astype(np.uint8)  # 65535 / 255
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == 'F':
        raise ValueError(f'{path}: floating point pixels (a depth or HDR image?), expected 8 bits')
    if image.mode in ('RGBA', 'LA', 'PA', 'RGBa', 'La') or 'transparency' in image.info:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert('RGB'))
