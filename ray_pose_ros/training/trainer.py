"""The training loop: resumable at any step, the same on one process or several."""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.matching import Rematch
from ray_pose_ros.model.ray_diffuser import RayDiffuser

from .batches import Batch, SetSampler
from .config import TrainingConfig
from .curves import draw_curves
from .dataset import SceneSet, save_json
from .growth import grow
from .losses import auxiliary_losses, depth_loss, match_loss, ray_losses, seen_loss
from .validation import validate

SAVE_EVERY = 60.0  # seconds; what a killed run loses at most


class Trainer:
    """Trains the denoiser of a model on cached features, or together with the backbone on images.

    The draws of a step depend on the seed, the step and the process only, so a resumed run goes
    on as the killed one would have.
    """

    def __init__(
        self,
        config: TrainingConfig,
        model: RayDiffuser,
        training: SceneSet,
        held_out: SceneSet,
        folder: Path,
        device: str = 'cpu',
    ):
        self.config, self.model, self.folder = config, model.to(device), folder
        self.device = torch.device(device)
        self.rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.world = distributed.get_world_size() if distributed.is_initialized() else 1
        self.sampler = SetSampler(training, model.config.grid)
        self.held_out = SetSampler(held_out, model.config.grid)
        self.network = model.ray_predictor
        parts: list[tuple[nn.Module, float]] = [(self.network, 1.0)]
        if config.backbone_rate > 0:
            parts.append((model.feature_extractor.requires_grad_(True), config.backbone_rate))
        self.trained = nn.ModuleList(part for part, _ in parts)
        groups = []
        for part, rate in parts:
            decayed = [p for p in part.parameters() if p.dim() > 1]
            plain = [p for p in part.parameters() if p.dim() <= 1]
            groups += [
                {'params': decayed, 'weight_decay': config.weight_decay, 'rate': rate},
                {'params': plain, 'weight_decay': 0.0, 'rate': rate},
            ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))
        self.average = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.step, self.stage, self.sets, self.seconds = 0, 0, 0, 0.0
        self.history: list[dict] = []
        folder.mkdir(parents=True, exist_ok=True)

    # -- state ---------------------------------------------------------------------------------

    @property
    def state_path(self) -> Path:
        return self.folder / 'state.pt'

    def save(self) -> None:
        """Write everything needed to go on, atomically."""
        if self.rank:
            return
        state = {
            'network': self.trained.state_dict(),
            'average': self.average,
            'optimizer': self.optimizer.state_dict(),
            'step': self.step,
            'stage': self.stage,
            'sets': self.sets,
            'seconds': self.seconds,
            'history': json.dumps(self.history),
        }
        partial = self.state_path.with_suffix('.partial')
        torch.save(state, partial)
        os.replace(partial, self.state_path)
        save_json(self.folder / 'history.json', self.history)

    def resume(self) -> bool:
        """Go on from the folder's state, if there is one."""
        if not self.state_path.exists():
            return False
        state = torch.load(self.state_path, map_location=self.device, weights_only=True)
        self.trained.load_state_dict(state['network'])
        self.average = state['average']
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.stage = state['step'], state['stage']
        self.sets, self.seconds = state['sets'], state['seconds']
        self.history = json.loads(state['history'])
        return True

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with these denoiser weights (of a shipped model) instead of random ones.

        Repeated matching and blocks after the last may be new: they begin as no change. Raises
        RuntimeError for any other difference.
        """
        grown = grow(weights, self.network.state_dict())
        matched = {n.split('.')[1] for n in weights if n.startswith('rematchers.')}
        if matched:  # a further matching begins as sharp as the last one has become
            sharp = weights[f'rematchers.{len(matched) - 1}.log_temperature']
            for index in range(len(matched), len(self.network.rematchers)):
                grown[f'rematchers.{index}.log_temperature'] = sharp
        self.network.load_state_dict(grown)
        self.average = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}

    def export(self, folder: Path) -> None:
        """Write the averaged model as the project's own checkpoint."""
        with self._averaged():
            save_checkpoint(self.model, folder)

    @contextmanager
    def _averaged(self):
        """The model with the averaged weights, for as long as the context lasts."""
        own = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.trained.load_state_dict(self.average)
        try:
            yield
        finally:
            self.trained.load_state_dict(own)

    # -- one step ------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Losses of one batch at random times, part of them at the last (pure noise)."""
        schedule = self.model.noise_scheduler
        sets, last = len(batch.rays), schedule.steps - 1
        t = torch.randint(0, schedule.steps, (sets,), generator=generator)
        pure = torch.rand(sets, generator=generator) < self.config.pure_noise
        t = torch.where(pure, last, t).to(self.device)
        noise = torch.randn(batch.rays.shape, generator=generator).to(self.device)
        x = schedule.add_noise(batch.rays, noise, t)
        again: list[Rematch] = []
        on_gpu = self.device.type == 'cuda'
        with torch.autocast('cuda', torch.bfloat16, enabled=on_gpu):
            features = batch.features
            if features is None:
                features = self.model.encode(jitter(batch.images, self.config.jitter, generator))
            shown = None
            if self.config.hidden > 0:
                shown = torch.rand(sets, generator=generator) >= self.config.hidden
                shown = shown.to(self.device)
            context = self.model.condition(features, batch.directions, shown=shown)
            tokens = self.network.tokens(x, t, context, schedule.alphas_cumprod[t], again)
            rays, *auxiliary = self.network.decode(tokens, t, context)
        # angles need more digits than half precision has: the losses are computed in full
        losses = ray_losses(rays.float(), batch)
        if auxiliary:
            points, up = auxiliary
            losses |= auxiliary_losses(points.float(), up.float(), batch)
        if self.network.matcher is not None:
            scale = self.network.matcher.log_temperature[-1].exp()
            losses['match'] = match_loss(context.descriptors.float(), scale, batch)
        for index, rematch in enumerate(again):
            scale = self.network.rematchers[index].log_temperature[-1].exp()
            number = index + 1
            losses[f'rematch{number}'] = match_loss(rematch.descriptors.float(), scale, batch)
            losses[f'seen{number}'] = seen_loss(rematch.seen.float(), batch)
            losses[f'depth{number}'] = depth_loss(rematch.depth.float(), batch)
        return losses

    def train_step(self) -> dict[str, float]:
        """Draw a batch, take an optimiser step; returns the losses by name."""
        config = self.config
        seed = (config.seed * 1_000_003 + self.step) * 64 + self.rank
        generator = torch.Generator().manual_seed(seed % 2**63)
        views = int(torch.randint(config.views[0], config.views[1] + 1, (), generator=generator))
        wide = float(torch.rand((), generator=generator)) < config.wide
        widest = config.stages[-1] if wide else config.stages[self.stage]
        sets = max(1, config.views_per_step[self.stage] // views)
        index = self.sampler.draw(sets, views, widest, generator)
        batch = self.sampler.batch(index).to(self.device)

        for group in self.optimizer.param_groups:
            group['lr'] = group['rate'] * config.learning_rate_at(self.step)
        losses = self.losses(batch, generator)
        total = sum(
            config.weights.get(name.rstrip('0123456789'), 0.0) * value
            for name, value in losses.items()
        )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        self.step += 1
        self.sets += sets * self.world
        return {name: float(value.detach()) for name, value in losses.items()}

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        gradients = [p.grad for p in self.trained.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.trained.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    # -- the run -------------------------------------------------------------------------------

    def run(self, seconds: float = float('inf')) -> None:
        """Train until the configured steps or `seconds` of this call are over."""
        started = saved = time.monotonic()
        before, running = self.seconds, {}
        while self.step < self.config.steps and time.monotonic() - started < seconds:
            for name, value in self.train_step().items():
                running[name] = 0.98 * running.get(name, value) + 0.02 * value
            self.seconds = before + time.monotonic() - started
            if self.step % 100 == 0 and self.rank == 0:
                losses = ' '.join(f'{name} {value:.4f}' for name, value in running.items())
                print(
                    f'step {self.step}/{self.config.steps} stage {self.stage} '
                    f'sets {self.sets} ({self.sets / self.seconds:.0f}/s) {losses}',
                    flush=True,
                )
            if self.step % self.config.validate_every == 0:
                self._validate(running)
            if time.monotonic() - saved > SAVE_EVERY:
                self.save()
                saved = time.monotonic()
        self.save()

    def _validate(self, running: dict[str, float]) -> None:
        with self._averaged():
            found = validate(self.model, self.held_out)
        entry = {
            'step': self.step,
            'sets': self.sets,
            'seconds': round(self.seconds),
            'stage': self.stage,
            'losses': {name: round(value, 5) for name, value in running.items()},
            'held_out': found,
        }
        self.history.append(entry)
        stages = self.config.stages
        reached = found['all' if stages[self.stage] >= 180 else f'{stages[self.stage]:.0f}']
        wider = self.stage + 1 < len(stages)
        if wider and reached['median'] < self.config.advance * stages[self.stage]:
            self.stage += 1
        if self.rank == 0:
            self.export(self.folder / 'export')
            draw_curves(self.history, self.folder / 'curves.png')
            line = ' | '.join(
                f'{name}: {100 * case["R@15"]:.0f}/{100 * case["R@30"]:.0f}/{case["median"]:.0f}'
                for name, case in found.items()
            )
            print(f'held out (R@15/R@30/median) {line}', flush=True)


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images (B, N, 3, S, S) uint8 to [0, 1], each with a gain, a gamma and a tint of its own.

    Rendered views are disturbed already; this makes them differ each time they are shown.
    """
    shape = (*images.shape[:2], 3, 1, 1)
    images = images.float() / 255
    if strength <= 0:
        return images
    tint = torch.randn(shape, generator=generator) * 0.3 + torch.randn(
        (*shape[:2], 1, 1, 1), generator=generator
    )
    gamma = torch.randn((*shape[:2], 1, 1, 1), generator=generator)
    tint, gamma = (0.15 * strength * x.to(images.device) for x in (tint, gamma))
    return (images.clamp(min=1e-4).pow(gamma.exp()) * tint.exp()).clamp(0, 1)
