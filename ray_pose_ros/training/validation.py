"""Held-out accuracy during training: rotations and centres of the virtual cameras."""

import torch
from torch import Tensor

from ray_pose_ros.geometry.rotations import project_to_so3
from ray_pose_ros.geometry.similarity import camera_centre_errors, relative_rotation_errors
from ray_pose_ros.model.plans import few_step_plan
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.model.sampler import sample

from .batches import SetSampler
from .losses import centre_from_moments

# name -> views in a set, widest angle to the first view's axis in degrees
CASES = {'60': (2, 60.0), '90': (2, 90.0), 'all': (2, 180.0), 'all8': (8, 180.0)}


@torch.inference_mode()
def validate(
    model: RayDiffuser, sampler: SetSampler, sets: int = 120, steps: int = 1, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Accuracy on sets of held-out scenes, by case.

    A case of N views takes 2 / N of the `sets`. With `steps` 1 the answer is the single pass from
    pure noise; with more it is sampled.
    Returns for each case R@15 and R@30 over ordered pairs, the median rotation error in degrees,
    camera-centre accuracy at 0.1 of the scene's size (N > 2), and the same figures for 'all
    cameras the same' under names ending in `_same`.
    """
    device = next(model.parameters()).device
    results = {}
    for name, (views, widest) in CASES.items():
        generator = torch.Generator().manual_seed(seed)
        index = sampler.draw(max(1, 2 * sets // views), views, widest, generator)
        errors, same, centres = [], [], []
        for part in index.split(25):
            batch = sampler.batch(part).to(device)
            features = batch.features
            if features is None:
                features = model.encode(batch.images.float() / 255)
            context = model.condition(features, batch.directions)
            plan = few_step_plan(model.noise_scheduler, steps, normalise='none')
            rays = sample(model, context, plan, samples=len(batch.rays), generator=generator).rays
            rotation, centre = recover(rays, batch.directions)
            errors.append(relative_rotation_errors(rotation, batch.rotation).flatten())
            identity = torch.eye(3, device=device).expand_as(rotation)
            same.append(relative_rotation_errors(identity, batch.rotation).flatten())
            if views > 2:
                centres.append(camera_centre_errors(centre, batch.centre).flatten())
        results[name] = _summary(torch.cat(errors)) | {
            f'{key}_same': value for key, value in _summary(torch.cat(same)).items()
        }
        if centres:
            results[name]['CC@0.1'] = float((torch.cat(centres) < 0.1).float().mean())
    return results


def recover(rays: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations (B, N, 3, 3) and centres (B, N, 3) by Procrustes and least squares."""
    direction, moment = rays.flatten(-2).split(3, dim=2)
    local = directions.flatten(-2)
    rotation = project_to_so3(local @ direction.transpose(-1, -2))
    world = rotation.transpose(-1, -2) @ local  # noise-free directions avoid a biased centre
    return rotation, centre_from_moments(world, moment)


def _summary(errors: Tensor) -> dict[str, float]:
    return {
        'R@15': float((errors < 15).float().mean()),
        'R@30': float((errors < 30).float().mean()),
        'median': float(errors.median()),
    }
