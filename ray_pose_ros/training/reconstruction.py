"""Cameras and points of a capture's photographs, by COLMAP."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ray_pose_ros.estimation.colmap_package import import_pycolmap
from ray_pose_ros.estimation.images import find_images, read_image

FEWEST = 8  # photographs of a capture
LONGEST, FEATURES = 1200, 3072  # pixels of a photograph's longer side, and its SIFT features


def find_model(folder: Path) -> Path | None:
    """Where a COLMAP model with points lies in a capture's folder, or None."""
    for inside in ('.', 'sparse/0', 'sparse'):
        if any((folder / inside / f'points3D.{suffix}').is_file() for suffix in ('bin', 'txt')):
            return folder / inside
    return None


def reconstruct(folder: Path, threads: int = -1, solve: Callable | None = None) -> bool:
    """Solve a capture by COLMAP, SIFT and exhaustive matching, into `sparse/0`.

    solve: `(database, images, working, threads)`, paths but for the last, returns a pycolmap
    Reconstruction or None; COLMAP's incremental mapping by default. Photographs of one size are
    taken to be of one camera. Returns whether it was solved; a capture that has a model is left
    alone.
    """
    folder = Path(folder)
    if find_model(folder) is not None:
        return True
    images = folder / 'images'
    with TemporaryDirectory() as working:
        database = Path(working) / 'colmap.db'
        _match(images, database, threads)
        solved = (solve or _mapped)(database, images, Path(working), threads)
        if solved is None:
            return False
        model = folder / 'sparse' / '0'
        model.mkdir(parents=True, exist_ok=True)
        solved.write(model)
    return True


def _mapped(database: Path, images: Path, working: Path, threads: int):
    """The largest of COLMAP's models, None where it has fewer than FEWEST photographs."""
    pycolmap = import_pycolmap()
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = threads
    models = pycolmap.incremental_mapping(database, images, working, options)
    best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
    return best if best is not None and best.num_reg_images() >= FEWEST else None


def _match(images: Path, database: Path, threads: int) -> None:
    """SIFT features of the photographs and their matches into a new COLMAP database."""
    pycolmap = import_pycolmap()
    sizes = {read_image(path).size for path in find_images([images])}
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size, extraction.num_threads = LONGEST, threads
    extraction.sift.max_num_features = FEATURES
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    shared = pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.PER_IMAGE
    pycolmap.extract_features(database, images, camera_mode=shared, extraction_options=extraction)
    pycolmap.match_exhaustive(database, matching_options=matching)
