"""Settings to a warmed-up estimator: what configure does, on the worker's thread."""

from __future__ import annotations

import numpy as np

from ray_pose_ros.node.settings import Settings


def make_estimator(settings: Settings):
    """
    Load the checkpoint, build the Estimator and let it solve two views once.

    The first pass is slow (kernels are chosen, memory is allocated) and finds a broken model, so
    it is done here and not on the first keyframe. Raises ValueError for settings that are not to
    be had here (a GPU, a matcher's package), and CheckpointError.
    """
    from ray_pose_ros.estimation.estimator import Estimator
    from ray_pose_ros.estimation.views import View

    estimator = Estimator(
        settings.checkpoint or None,
        device=settings.device,
        steps=settings.steps,
        samples=settings.samples,
        seed=settings.seed,
        precision=settings.precision,
        upright=settings.upright,
        second_look=settings.second_look,
    )
    if settings.refine:
        from ray_pose_ros.matching import MatcherUnavailable
        from ray_pose_ros.refinement.refine import default_matchers
        from ray_pose_ros.refinement.refining import RefiningEstimator

        try:
            matchers = default_matchers(settings.matcher or None, str(estimator.device))
        except MatcherUnavailable as error:
            raise ValueError(f'parameter matcher: {error}') from error
        estimator = RefiningEstimator(estimator, matchers)
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    estimator.solve([estimator.prepare(View(image, name='warm-up')) for image in noise])
    return estimator
