"""The noise schedule of the diffusion process (Ho et al., 2020) and its posteriors."""

import math

import torch
from torch import Tensor, nn

RESCALE_NOISE = ('zero', 'identity', 'square', 'square_root')


class NoiseSchedule(nn.Module):
    """Linear schedule: `betas` rise from `beta_start` to `beta_end` in `steps` steps.

    Buffers `betas`, `alphas` and `alphas_cumprod`, all (steps,) float32. Times are the integers 0
    (almost clean) to steps - 1 (almost pure noise); -1 stands for clean rays in the methods that
    take the time after a step.
    """

    def __init__(self, steps: int = 100, beta_start: float = 1e-4, beta_end: float = 0.2):
        super().__init__()
        if not 0 < beta_start <= beta_end < 1:
            raise ValueError(
                f'betas from {beta_start} to {beta_end}, expected 0 < start <= end < 1'
            )
        betas = torch.linspace(beta_start, beta_end, steps, dtype=torch.float32)
        alphas = 1 - betas
        self.register_buffer('betas', betas)
        self.register_buffer('alphas', alphas)
        self.register_buffer('alphas_cumprod', torch.cumprod(alphas, dim=0))

    @property
    def steps(self) -> int:
        return self.betas.shape[0]

    def add_noise(self, x0: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """Draw from q(x_t | x_0): sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise.

        Args:
            x0, noise: (B, ...).
            t: one time for all, or (B,).
        """
        alpha_bar = self.alphas_cumprod[t]
        alpha_bar = alpha_bar.reshape(alpha_bar.shape + (1,) * (x0.dim() - alpha_bar.dim()))
        return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise

    def alpha_bar(self, t: int) -> float:
        """Share of signal variance left at time `t`; 1 for t = -1."""
        if not -1 <= t < self.steps:
            raise ValueError(
                f'time {t} is outside of the schedule, expected -1 to {self.steps - 1}'
            )
        return 1.0 if t == -1 else float(self.alphas_cumprod[t])

    def posterior(self, t: int, after: int | None = None) -> tuple[float, float, float]:
        """Mean weights and variance of q(x_after | x_t, x_0), DDPM equations 6 and 7.

        Returns:
            (weight of x_0, weight of x_t, variance). `after` defaults to t - 1 and may be any
            earlier time: the transition between them then has beta = 1 - alpha_bar ratio.
        """
        after = t - 1 if after is None else after
        if after >= t:
            raise ValueError(f'time after the step is {after}, expected less than {t}')
        now, then = self.alpha_bar(t), self.alpha_bar(after)
        # Adjacent steps take beta from the table, which is what the official sampler does.
        beta = float(self.betas[t]) if after == t - 1 else 1 - now / then
        alpha = float(self.alphas[t]) if after == t - 1 else now / then
        left = 1 - now
        return (
            math.sqrt(then) * beta / left,
            math.sqrt(alpha) * (1 - then) / left,
            beta * (1 - then) / left,
        )

    def implicit(self, t: int, after: int, eta: float = 0.0) -> tuple[float, float, float]:
        """DDIM step (Song et al., 2021, equation 12) from `t` to an earlier time.

        Returns:
            (weight of x_0, weight of x_t, standard deviation of fresh noise). `eta` 0 is
            deterministic, 1 has the mean and the variance of the DDPM posterior.
        """
        if eta < 0:
            raise ValueError(f'eta is {eta}, expected 0 or more')
        now, then = self.alpha_bar(t), self.alpha_bar(after)
        deviation = eta * math.sqrt(self.posterior(t, after)[2])
        if deviation**2 > 1 - then + 1e-12:
            raise ValueError(f'eta {eta} asks for more noise than time {after} holds')
        kept = math.sqrt(max(1 - then - deviation**2, 0.0)) / math.sqrt(1 - now)
        return math.sqrt(then) - kept * math.sqrt(now), kept, deviation

    def official_deviation(self, t: int, rescale_noise: str, beta_tilde: bool) -> float:
        """Standard deviation of the official sampler's noise at time `t`.

        The official code starts from a *variance* (beta, or the posterior's with `beta_tilde`)
        and then rescales: 'square_root' is the textbook DDPM, 'identity' and 'square' are not,
        and 'zero', the released setting, makes the sampler deterministic.
        """
        if rescale_noise not in RESCALE_NOISE:
            raise ValueError(
                f'rescale_noise is {rescale_noise!r}, expected one of {list(RESCALE_NOISE)}'
            )
        if rescale_noise == 'zero':
            return 0.0
        variance = self.posterior(t)[2] if beta_tilde else float(self.betas[t])
        power = {'identity': 1.0, 'square': 2.0, 'square_root': 0.5}[rescale_noise]
        return variance**power
