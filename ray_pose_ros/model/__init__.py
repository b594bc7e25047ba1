"""The ray diffusion network: images and crop geometry in, Plücker rays out. No ROS here."""

from .checkpoint import default_checkpoint, load_checkpoint, save_checkpoint
from .checkpoint_error import CheckpointError
from .config import ModelConfig
from .plans import Plan, default_plan, few_step_plan, official_plan, regression_plan
from .ray_diffuser import RayDiffuser
from .sampler import KnownRays, Progress, Sampled, sample

__all__ = [
    'CheckpointError',
    'KnownRays',
    'ModelConfig',
    'Plan',
    'Progress',
    'RayDiffuser',
    'Sampled',
    'default_checkpoint',
    'default_plan',
    'few_step_plan',
    'load_checkpoint',
    'official_plan',
    'regression_plan',
    'sample',
    'save_checkpoint',
]
