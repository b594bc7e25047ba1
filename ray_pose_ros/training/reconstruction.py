"""Cameras and points of a capture's photographs, by COLMAP."""

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from ray_pose_ros.estimation.colmap_package import import_pycolmap
from ray_pose_ros.estimation.images import find_images

FEWEST = 8  # photographs of a capture
LONGEST, FEATURES = 1200, 3072  # pixels of a photograph's longer side, and its SIFT features


def find_model(folder: Path) -> Path | None:
    """Where a COLMAP model with points lies in a capture's folder, or None."""
    for inside in ('.', 'sparse/0', 'sparse'):
        if any((folder / inside / f'points3D.{suffix}').is_file() for suffix in ('bin', 'txt')):
            return folder / inside
    return None


def reconstruct(folder: Path, threads: int = -1) -> bool:
    """Solve a capture by COLMAP, SIFT and exhaustive matching, into `sparse/0`.

    Photographs of one size are taken to be of one camera. Returns whether FEWEST or more were
    solved; a capture that has a model is left alone.
    """
    folder = Path(folder)
    if find_model(folder) is not None:
        return True
    pycolmap = import_pycolmap()
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = threads
    with TemporaryDirectory() as working:
        database = Path(working) / 'colmap.db'
        images = match_photographs(folder, database, threads)
        models = pycolmap.incremental_mapping(database, images, working, options)
        best = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
        if best is None or best.num_reg_images() < FEWEST:
            return False
        model = folder / 'sparse' / '0'
        model.mkdir(parents=True, exist_ok=True)
        best.write(model)
    return True


def match_photographs(folder: Path, database: Path, threads: int = -1) -> Path:
    """SIFT features and all matches of a capture's photographs into a new COLMAP database.

    Photographs of one size are taken to be of one camera. Returns their folder.
    """
    pycolmap = import_pycolmap()
    images = folder / 'images'
    sizes = {cv2.imread(str(path)).shape for path in find_images([images])}
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size, extraction.num_threads = LONGEST, threads
    extraction.sift.max_num_features = FEATURES
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = threads
    shared = pycolmap.CameraMode.SINGLE if len(sizes) == 1 else pycolmap.CameraMode.PER_IMAGE
    pycolmap.extract_features(database, images, camera_mode=shared, extraction_options=extraction)
    pycolmap.match_exhaustive(database, matching_options=matching)
    return images
