"""Views in, cameras out: the network's rays, and the cameras recovered from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ray_pose_ros.estimation.answer import Answer, answer
from ray_pose_ros.estimation.devices import PRECISIONS, usable_device
from ray_pose_ros.estimation.estimate import Estimate
from ray_pose_ros.estimation.pins import checked_checkpoint
from ray_pose_ros.estimation.preparation import (
    Prepared,
    in_other_crop,
    prepare,
    turned_clockwise,
)
from ray_pose_ros.estimation.progress import pulse_of
from ray_pose_ros.estimation.uprighting import choose_turns
from ray_pose_ros.estimation.views import View
from ray_pose_ros.estimation.window import Window
from ray_pose_ros.geometry.rays import to_grid
from ray_pose_ros.model.checkpoint import load_checkpoint
from ray_pose_ros.model.plans import default_plan, few_step_plan
from ray_pose_ros.model.ray_diffuser import RayDiffuser
from ray_pose_ros.multiview.acceleration import compiled_code

# Models that anchor their reference gain from taking several views as one; the official network is
# large, and a sample of it costs as much as the first.
ANCHORED_SAMPLES, OFFICIAL_SAMPLES = 8, 4
# Samples times squared views, unless samples are asked for: attention over the patches of all
# views takes memory by it, 2.7 GiB with this much.
_MOST = ANCHORED_SAMPLES * 64**2


@dataclass(frozen=True)
class Look:
    """What the network has told of N views, and what it begins with when it looks again.

    Attributes:
        estimate: as `Estimator.solve` returns it. window, answer: what it was made from.
        count: of looks so far; the window is that of the first.
    """

    estimate: Estimate
    window: Window
    answer: Answer
    count: int = 1

    @property
    def disagrees(self) -> bool:
        """Whether many of the network's matches disagree with the cameras that it told."""
        return self.answer.settled is not None and not self.answer.settled.agreed


class Estimator:
    """A loaded model and how to sample it. Same views, seed, device and threads: same answer.

    The first one on a machine takes some seconds longer to make (see `multiview.acceleration`).

    Args:
        model: a network, a checkpoint folder, or None for the checkpoint that ships.
        device: torch's name of it, or 'auto': a CUDA GPU where there is one.
        steps: network calls; None or 0 for what the checkpoint was made for.
        samples: answers denoised side by side, averaged robustly; their spread is the uncertainty.
            0 for what suits the checkpoint, and fewer of more than 64 views. Never more than tell
            something new: in one step of a model that anchors its reference, one for each view.
        seed: of the noise, drawn on the CPU whatever the device.
        crop_scale: side of the crops over the longer side of the objects' boxes.
        crop_params: 'training', or 'demo' to repeat the official demo's (official models only).
        use_matches: adjust the cameras to the network's own matches as well, where it has them and
            all intrinsics are known; see `settling`.
        upright: turn views upright before the network sees them, where it can tell that they are
            turned by right angles; cameras are those of the views as they are.
        second_look: where the network's matches and the cameras found do not agree, show it these
            cameras and have it look again, if the checkpoint is made for it: where photographs
            show more than their crops, twice more, at other crops.
        precision: of the network's arithmetic, 'float32', 'float16' or 'bfloat16'; the state of
            the sampler stays single, recovery is in double.

    Raises:
        ValueError: a setting out of range. CheckpointError: no usable checkpoint.
    """

    def __init__(
        self,
        model: RayDiffuser | str | Path | None = None,
        device: str | torch.device = 'cpu',
        steps: int | None = None,
        samples: int = 0,
        seed: int = 0,
        crop_scale: float = 1.15,
        crop_params: str = 'training',
        precision: str = 'float32',
        use_matches: bool = True,
        upright: bool = True,
        second_look: bool = True,
    ):
        if samples < 0:
            raise ValueError(f'samples is {samples}, expected 0 (the default) or more')
        if steps is not None and steps < 0:
            raise ValueError(f'steps is {steps}, expected 0 (the default) or more')
        if not -(2**63) <= seed < 2**63:
            raise ValueError(f'seed is {seed}, expected a whole number of 64 bits')
        if crop_params not in ('training', 'demo'):
            raise ValueError(f"crop_params is {crop_params!r}, expected 'training' or 'demo'")
        if precision not in PRECISIONS:
            raise ValueError(f'precision is {precision!r}, expected one of {sorted(PRECISIONS)}')
        self.device = usable_device(device)
        self.precision = precision
        if model is None or isinstance(model, (str, Path)):
            model = load_checkpoint(checked_checkpoint(model), self.device)
        self.model = model.to(self.device).eval()
        if crop_params == 'demo' and model.config.geometry != 'ndc':
            raise ValueError("crop_params is 'demo', which is of official models only")
        most = model.noise_scheduler.steps
        if steps and steps > most:
            raise ValueError(
                f"steps is {steps}, expected at most {most}, the length of this model's schedule"
            )
        usual = ANCHORED_SAMPLES if model.config.anchor_reference else OFFICIAL_SAMPLES
        self.samples, self.seed = samples or usual, seed
        self._as_many = samples > 0
        self.crop_scale, self.crop_params = crop_scale, crop_params
        self.use_matches, self.upright = use_matches, upright
        self.second_look = second_look
        self.plan = default_plan(model.config, model.noise_scheduler, steps or None)
        compiled_code()  # else the first solution would wait for it

    def prepare(self, view: View, other_crops: bool = True) -> Prepared:
        """Everything that is computed once for a view; see `preparation.prepare`."""
        with self._arithmetic():
            return prepare(self.model, view, self.crop_scale, self.crop_params, other_crops)

    def estimate(self, views: Sequence[View]) -> Estimate:
        """`solve` after `prepare` of each view."""
        _check_count(len(views))
        return self.solve([self.prepare(view) for view in views])

    def solve(
        self, prepared: Sequence[Prepared], progress: Callable[[int, int], None] | None = None
    ) -> Estimate:
        """Cameras of these views; the first is the reference.

        Args:
            prepared: at least two views.
            progress: called with (steps done, steps in all), also several times for a step that
                takes long. It may raise to abandon the run.

        Raises:
            ValueError: fewer than two views.
            EstimationError: the network's answer is not finite or not a set of cameras.
        """
        *_, estimate = self.looks(prepared, progress)
        return estimate

    def looks(
        self, prepared: Sequence[Prepared], progress: Callable[[int, int], None] | None = None
    ) -> Iterator[Estimate]:
        """`solve`, step by step: an answer, and where the network looks again, better ones.

        Nothing is computed for the next before it is asked for.
        """
        steps = len(self.plan.steps)
        total = steps + self._looks_after(prepared)
        look = self.look(prepared, _part(progress, 0, total))
        yield look.estimate
        for done in range(steps, total):
            part = _part(progress, done, total)
            again = self.look_again(look, progress=part) if look.disagrees else None
            if again is None:
                if progress:
                    progress(total, total)
                return
            look = again
            yield look.estimate

    def look(
        self, prepared: Sequence[Prepared], progress: Callable[[int, int], None] | None = None
    ) -> Look:
        """What the network tells of these views before it is shown any cameras; as `solve`."""
        _check_count(len(prepared))
        prepared = self._uprighted(prepared)
        begin = time.perf_counter()
        with torch.inference_mode(), self._arithmetic():
            window = self._window(prepared)
        begun = time.perf_counter() - begin
        found, timings = self._look(window, progress)
        timings['denoise'] += begun
        return Look(self._estimate(prepared, found, timings), window, found)

    def look_again(
        self,
        look: Look,
        cameras: tuple[np.ndarray, np.ndarray] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Look | None:
        """What the network tells when it is shown cameras, noised a little.

        Where the views were prepared with other crops, it looks at another one of them each time,
        and what it matches then counts beside what it has matched before.

        cameras: R (N, 3, 3) and t (N, 3) of the same views in the published world, as somebody
            knows them who knows more than it; None for those that it has told.

        None where the checkpoint is not made for it, or has not matched the views, or there is
        nothing new to be seen.
        """
        settled, prepared = look.answer.settled, look.window.prepared
        if settled is None or look.count > self._looks_after(prepared):
            return None
        shown = look.answer
        if cameras is not None:
            R, t = cameras
            shown = replace(shown, settled=replace(settled, R=R, t=t))
        window, begin = look.window, time.perf_counter()
        with torch.inference_mode(), self._arithmetic():
            seen = [in_other_crop(self.model, p, look.count - 1) for p in prepared]
            encoded = time.perf_counter()
            if any(a is not b for a, b in zip(seen, prepared, strict=True)):
                window = self._window(seen, window.samples)  # as many as there was memory for
            else:
                # what is seen in the same crops again is better seen, and nothing besides
                shown = replace(shown, matches=())
        begun = time.perf_counter() - encoded
        found, more = self._look(window, progress, shown)
        before = look.estimate.timings
        timings = {name: seconds + more.get(name, 0) for name, seconds in before.items()}
        timings['features'] += encoded - begin
        timings['denoise'] += begun
        estimate = self._estimate(prepared, found, timings)
        return Look(estimate, look.window, found, look.count + 1)

    def _window(self, prepared: Sequence[Prepared], samples: int | None = None) -> Window:
        samples = samples or self._samples_of(len(prepared))
        return Window.of(self.model, prepared, samples, len(self.plan.steps) == 1)

    def _look(
        self, window: Window, progress, first: Answer | None = None
    ) -> tuple[Answer, dict[str, float]]:
        """What the network tells, after it was shown the cameras of the `first` answer if any,
        and seconds."""
        begin = time.perf_counter()
        config, plan, start = self.model.config, self.plan, None
        if first is not None:
            once = few_step_plan(self.model.noise_scheduler, 1, first=config.second_look)
            plan = once.with_options(normalise=plan.normalise, clamp=plan.clamp)
            start = window.rays_of(first.settled, config.grid)
        generator = torch.Generator().manual_seed(self.seed)
        with torch.inference_mode(), self._arithmetic():
            told = window.predict(self.model, plan, generator, progress, start, self.use_matches)
        denoised = time.perf_counter()
        pulse = pulse_of(progress, len(plan.steps))
        found = answer(window.prepared, *told, config, first, pulse)
        return found, {'denoise': denoised - begin, 'recover': time.perf_counter() - denoised}

    def _estimate(
        self, prepared: Sequence[Prepared], found: Answer, timings: dict[str, float]
    ) -> Estimate:
        R, t, doubts, rotation_sigma, centre_sigma = found.final(self.model.config)
        grid = self.model.config.grid
        return Estimate(
            R=R,
            t=t,
            cameras=found.cameras,
            intrinsics_source=tuple(p.intrinsics_source for p in prepared),
            names=tuple(p.name for p in prepared),
            stamps=tuple(p.stamp for p in prepared),
            crops=tuple(p.crop for p in prepared),
            rotation_sigma=rotation_sigma,
            centre_sigma=centre_sigma,
            agreement=found.agreement,
            modes=found.modes,
            rays=_as_cropped(prepared, to_grid(found.rays, grid, grid)),
            doubts=doubts,
            samples=found.samples,
            turned=tuple(p.turned for p in prepared),
            ray_matches=found.settled.matches if found.settled else {},
            timings={'features': sum(p.seconds for p in prepared), **timings},
        )

    def _samples_of(self, views: int) -> int:
        """How many to draw for so many views."""
        if self._as_many:
            return self.samples
        return min(self.samples, max(1, _MOST // views**2))

    def _looks_after(self, prepared: Sequence[Prepared]) -> int:
        """How often it may look again."""
        if not self._second_time:
            return 0
        return max([1, *(len(p.other_crops) for p in prepared)])

    @property
    def _second_time(self) -> int:
        """The time of the schedule at which the network looks again; 0 for not at all."""
        return self.model.config.second_look if self.second_look and self.use_matches else 0

    def _arithmetic(self):
        if self.precision == 'float32':
            return nullcontext()
        return torch.autocast(self.device.type, PRECISIONS[self.precision])

    def _uprighted(self, prepared: Sequence[Prepared]) -> Sequence[Prepared]:
        """The views turned as the network sees them best; the same where it cannot tell."""
        if not self.upright or any(p.told is None or p.directions is None for p in prepared):
            return prepared
        turns = choose_turns(torch.stack([p.told for p in prepared]).numpy())
        with self._arithmetic():
            return [
                turned_clockwise(self.model, p, int(k))
                for p, k in zip(prepared, turns, strict=True)
            ]


def _check_count(views: int) -> None:
    if views < 2:
        raise ValueError(f'{views} views, expected at least 2: poses are relative to each other')


def _part(progress, begin: int, total: int):
    """Progress of work that begins after `begin` of `total` steps."""
    return progress and (lambda done, _: progress(begin + done, total))


def _as_cropped(prepared: Sequence[Prepared], rays: Tensor) -> np.ndarray:
    """Rays (N, 6, h, w) float32 with the patches of turned views in their crops' own order."""
    turned = [torch.rot90(r, p.turned, (1, 2)) for p, r in zip(prepared, rays, strict=True)]
    return torch.stack(turned).float().numpy()
