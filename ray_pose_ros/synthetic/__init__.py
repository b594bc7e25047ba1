"""
Procedural scenes and a CPU renderer, for demonstrations, tests and training.

World frame: z up, metres arbitrary (objects have a radius of about 1); cameras are OpenCV.
"""

from .augment import augment
from .cameras import orbit, sample_cameras
from .renderer import Rendering
from .scenes import Scene, build_scene, sample_scene
from .training_view import TrainingView, training_view

__all__ = [
    'Rendering',
    'Scene',
    'TrainingView',
    'augment',
    'build_scene',
    'orbit',
    'sample_cameras',
    'sample_scene',
    'training_view',
]
