"""Hashes that tell whether stored results still belong to these weights and this code."""

import hashlib
from functools import lru_cache
from pathlib import Path

# Floors whose code decides what a method answers.
_FLOORS = ('geometry', 'matching', 'model', 'multiview', 'estimation', 'refinement', 'synthetic')
_OF_EVALUATION = ('baselines', 'co3d.py', 'colmap_model.py', 'draws.py', 'methods.py')
_OF_EVALUATION += ('metrics.py', 'refined.py', 'runner.py', 'sequences.py', 'sources.py')


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Of the source files that answers and errors depend on."""
    package = Path(__file__).resolve().parents[1]
    roots = [package / floor for floor in _FLOORS]
    roots += [package / 'evaluation' / name for name in _OF_EVALUATION]
    digest = hashlib.sha256()
    for root in roots:
        files = [root] if root.is_file() else sorted(root.rglob('*.py'))
        for path in files:
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def folder_fingerprint(folder: str | Path | None) -> str:
    """Of the content of a checkpoint's files; of the shipped one's for '' or None."""
    if not folder:
        from ray_pose_ros.model.checkpoint import default_checkpoint

        folder = default_checkpoint()
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        # a model card says nothing to the network
        if path.suffix.lower() in ('.safetensors', '.json', '.pth', '.yaml'):
            digest.update(str(path.relative_to(folder)).encode())
            with path.open('rb') as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()[:16]
