"""The training loop: resumable at any step, the same on one process or several."""

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor

from ray_pose_ros.model.checkpoint import save_checkpoint
from ray_pose_ros.model.matching import Rematch
from ray_pose_ros.model.ray_diffuser import RayDiffuser

from .batches import Batch, SetSampler
from .config import TrainingConfig
from .dataset import SceneSet, save_json
from .losses import auxiliary_losses, depth_loss, match_loss, ray_losses, seen_loss
from .validation import validate

SAVE_EVERY = 60.0  # seconds; what a killed run loses at most


class Trainer:
    """Trains the denoiser of a model on cached features.

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
        decayed = [p for p in self.network.parameters() if p.dim() > 1]
        plain = [p for p in self.network.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {'params': decayed, 'weight_decay': config.weight_decay},
                {'params': plain, 'weight_decay': 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
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
            'network': self.network.state_dict(),
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
        self.network.load_state_dict(state['network'])
        self.average = state['average']
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.stage = state['step'], state['stage']
        self.sets, self.seconds = state['sets'], state['seconds']
        self.history = json.loads(state['history'])
        return True

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Begin with these denoiser weights (of a shipped model) instead of random ones.

        Repeated matching may be new: it begins as no change. Raises RuntimeError for any other
        difference.
        """
        missing, unexpected = self.network.load_state_dict(weights, strict=False)
        missing = [name for name in missing if not name.startswith('rematchers.')]
        if missing or unexpected:
            raise RuntimeError(f'weights differ: {missing} missing, {unexpected} unexpected')
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def export(self, folder: Path) -> None:
        """Write the averaged model as the project's own checkpoint."""
        with self._averaged():
            save_checkpoint(self.model, folder)

    @contextmanager
    def _averaged(self):
        """The model with the averaged weights, for as long as the context lasts."""
        own = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

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
        context = self.model.condition(batch.features, batch.directions)
        again: list[Rematch] = []
        tokens = self.network.tokens(x, t, context, schedule.alphas_cumprod[t], again)
        rays, *auxiliary = self.network.decode(tokens, t, context)
        losses = ray_losses(rays.float(), batch)
        if auxiliary:
            losses |= auxiliary_losses(*auxiliary, batch)
        if self.network.matcher is not None:
            scale = self.network.matcher.log_temperature[-1].exp()
            losses['match'] = match_loss(context.descriptors, scale, batch)
        for index, rematch in enumerate(again):
            scale = self.network.rematchers[index].log_temperature[-1].exp()
            losses[f'rematch{index + 1}'] = match_loss(rematch.descriptors, scale, batch)
            losses[f'seen{index + 1}'] = seen_loss(rematch.seen, batch)
            losses[f'depth{index + 1}'] = depth_loss(rematch.depth, batch)
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
            group['lr'] = config.learning_rate_at(self.step)
        with torch.autocast('cuda', torch.bfloat16, enabled=self.device.type == 'cuda'):
            losses = self.losses(batch, generator)
        total = sum(
            config.weights.get(name.rstrip('0123456789'), 0.0) * value
            for name, value in losses.items()
        )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._average_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        self.step += 1
        self.sets += sets * self.world
        return {name: float(value.detach()) for name, value in losses.items()}

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
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
            line = ' | '.join(
                f'{name}: {100 * case["R@15"]:.0f}/{100 * case["R@30"]:.0f}/{case["median"]:.0f}'
                for name, case in found.items()
            )
            print(f'held out (R@15/R@30/median) {line}', flush=True)
