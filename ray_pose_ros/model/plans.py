"""Plans: at which times the network is called, and how a prediction moves the state.

A plan is made once, in plain numbers, so that the sampling loop (sampler.py) is the same for the
official hundred steps, for a few implicit steps, and for the single pass of a regression model.
"""

import math
from dataclasses import dataclass, replace

from .config import ModelConfig
from .schedule import NoiseSchedule

NORMALISE = ('official', 'unit', 'none')


@dataclass(frozen=True)
class Step:
    """One network call and the update that follows it.

    x_after = prediction_weight * prediction + x_weight * x_t + noise_weight * z, with z ~ N(0, I).
    """

    t: int
    prediction_weight: float
    x_weight: float
    noise_weight: float


@dataclass(frozen=True)
class Plan:
    """The steps of a sampling run and what is done to each prediction.

    Attributes:
        steps: in the order of the calls, times falling.
        normalise: 'official', 'unit' or 'none'; see `sampler.normalise_prediction`.
        clamp: bound on every number of the state after each step.
        noise_to_rays: (signal, noise) amplitudes a step with which a predicted noise is turned
            into rays before anything else; None where the network's output is used as it is.
        raw_noise: the prediction stays a noise (official epsilon sampler): the answer is then the
            state after the last step.
    """

    steps: tuple[Step, ...]
    normalise: str = 'official'
    clamp: float | None = 5.0
    noise_to_rays: tuple[tuple[float, float], ...] | None = None
    raw_noise: bool = False

    def __post_init__(self):
        if not self.steps:
            raise ValueError('a sampling plan needs at least one step, got none')
        if self.normalise not in NORMALISE:
            raise ValueError(f'normalise is {self.normalise!r}, expected one of {list(NORMALISE)}')

    def with_options(self, **changes) -> 'Plan':
        """A copy with some attributes changed."""
        return replace(self, **changes)


def official_plan(
    schedule: NoiseSchedule,
    readout: int = 29,
    first: int | None = None,
    rescale_noise: str = 'zero',
    beta_tilde: bool = False,
    prediction: str = 'x0',
    normalise: str = 'official',
) -> Plan:
    """The sampler of the official release: every integer time, DDPM posterior means.

    The official code runs to t = 0 and then takes the rays predicted at t = 29 (index 70 of its
    hundred predictions). Nothing after that call can change them, so the plan ends there: 71
    calls give the same answer.

    Args:
        schedule: the model's.
        readout: time of the last call; 0 for the complete run.
        first: time of the first call, by default the noisiest.
        rescale_noise, beta_tilde: see `NoiseSchedule.official_deviation`.
        prediction: 'x0' or 'epsilon'. The official epsilon update uses the *rescaled* deviation
            where the textbook has beta; 'square_root' and 'zero' inherit that.
        normalise: see `sampler.normalise_prediction`; ignored for 'epsilon'.
    """
    first = schedule.steps - 1 if first is None else first
    if not 0 <= readout <= first < schedule.steps:
        raise ValueError(
            f'times from {first} to {readout}, expected {schedule.steps - 1} >= first >= last >= 0'
        )
    steps = []
    for t in range(first, readout - 1, -1):
        deviation = schedule.official_deviation(t, rescale_noise, beta_tilde)
        fresh = deviation if t > 0 else 0.0
        if prediction == 'x0':
            for_x0, for_x, _ = schedule.posterior(t)
            steps.append(Step(t, for_x0, for_x, fresh))
        else:
            for_x = 1 / math.sqrt(float(schedule.alphas[t]))
            for_noise = -for_x * deviation / math.sqrt(1 - schedule.alpha_bar(t))
            steps.append(Step(t, for_noise, for_x, fresh))
    if prediction == 'x0':
        return Plan(tuple(steps), normalise)
    return Plan(tuple(steps), 'none', raw_noise=True)


def few_step_plan(
    schedule: NoiseSchedule,
    count: int,
    readout: int = 0,
    first: int | None = None,
    eta: float = 0.0,
    prediction: str = 'x0',
    normalise: str = 'unit',
) -> Plan:
    """`count` calls at evenly spread times from `first` to `readout`, with DDIM steps between.

    Args:
        schedule: the model's.
        count: network calls; fewer where there are not that many integer times.
        readout: time of the last call, whose rays are the answer. A single call is at `first`.
        first: time of the first call, by default the noisiest; lower for a warm start.
        eta: 0 is deterministic, 1 is the DDPM posterior between the chosen times.
        prediction: what the network returns.
        normalise: see `sampler.normalise_prediction`.
    """
    first = schedule.steps - 1 if first is None else first
    if count < 1:
        raise ValueError(f'{count} sampling steps, expected at least 1')
    if not 0 <= readout <= first < schedule.steps:
        raise ValueError(
            f'times from {first} to {readout}, expected {schedule.steps - 1} >= first >= last >= 0'
        )
    count = min(count, first - readout + 1)
    spread = max(count - 1, 1)
    times = [first - round(index * (first - readout) / spread) for index in range(count)]
    steps, amplitudes = [], []
    for t, after in zip(times, [*times[1:], -1], strict=True):
        steps.append(Step(t, *schedule.implicit(t, after, eta if after >= 0 else 0.0)))
        alpha_bar = schedule.alpha_bar(t)
        amplitudes.append((math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)))
    convert = tuple(amplitudes) if prediction == 'epsilon' else None
    return Plan(tuple(steps), normalise, noise_to_rays=convert)


def regression_plan(schedule: NoiseSchedule, t: int | None = None) -> Plan:
    """A single pass from pure noise, as the official regression model is run.

    `t` defaults to `schedule.steps`, one past the noisiest time that it was trained with: that is
    what the official inference does. Rays are returned as predicted, without normalisation.
    """
    t = schedule.steps if t is None else t
    return Plan((Step(t, 1.0, 0.0, 0.0),), normalise='none', clamp=None)


def default_plan(
    config: ModelConfig,
    schedule: NoiseSchedule,
    calls: int | None = None,
    first: int | None = None,
) -> Plan:
    """What a model is sampled with unless told otherwise.

    Regression models take one pass. Others take `calls` (or `config.sample_steps`) implicit steps
    down to `config.readout`; where that is zero or covers every time, the official sampler runs.
    `first` is the time of the first call, lower than the noisiest for a warm start.
    """
    if config.regression:
        return regression_plan(schedule)
    calls = config.sample_steps if calls is None else calls
    noisiest = schedule.steps - 1 if first is None else first
    readout = min(config.readout, noisiest)
    available = noisiest - readout + 1
    if config.prediction == 'x0' and (calls == 0 or calls >= available):
        return official_plan(schedule, readout, first)
    return few_step_plan(
        schedule, calls or available, readout, first, prediction=config.prediction
    )
