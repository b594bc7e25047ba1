"""Settings of a training run, read from a YAML file."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ray_pose_ros.model.config import ModelConfig

_WEIGHTS = {
    'rays': 1.0,
    'rotation': 0.2,
    'centre': 0.15,
    'match': 0.05,
    'rematch': 0.05,
    'seen': 0.2,
    'depth': 0.5,
    'points': 0.3,
    'up': 0.3,
}


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines a run, besides its data.

    Attributes:
        model: fields of `ModelConfig`.
        seed: of the initial weights and of all draws.
        steps: optimiser steps in all.
        warmup, cooldown: steps of linear rise at the start and of decay to zero at the end.
        learning_rate, weight_decay, clip, ema: AdamW, gradient clipping by norm, and the decay of
            the moving average of weights that is validated and shipped.
        views: smallest and largest number of views in a set.
        views_per_step: views in a batch for each stage.
        stages: largest angle in degrees between a view's axis and the first's, by stage; the next
            stage begins when the median rotation error on held-out pairs within the present angle
            falls under `advance` (a fraction of that angle).
        advance: see `stages`.
        wide: share of batches drawn from the full sphere, whatever the stage.
        pure_noise: share of sets trained at the last time, where the input holds no information.
        hidden: share of sets whose patches are told what they match but not what they look like,
            so that the network does not lean on the looks of its training scenes.
        backbone_rate: learning rate of the backbone as a fraction of the denoiser's; 0 leaves it
            frozen, so that its features are computed once.
        jitter: strength of the changes of colour where the backbone is trained.
        weights: of the losses by name; 'rematch', 'seen' and 'depth' count once for each repeated
            matching.
        validate_every: steps between validations.
    """

    model: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    steps: int = 20000
    warmup: int = 100
    cooldown: int = 6000
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.998
    views: tuple[int, int] = (2, 5)
    views_per_step: tuple[int, ...] = (16, 16, 32)
    stages: tuple[float, ...] = (60.0, 90.0, 180.0)
    advance: float = 0.25
    wide: float = 0.25
    pure_noise: float = 0.5
    hidden: float = 0.0
    backbone_rate: float = 0.0
    jitter: float = 1.0
    weights: dict[str, float] = field(default_factory=_WEIGHTS.copy)
    validate_every: int = 1000

    def __post_init__(self):
        for entry in fields(self):
            if isinstance(entry.default, (int, float, tuple)):
                _check_numbers(entry.name, getattr(self, entry.name), entry.default)
        for name, weight in self.weights.items():
            if name not in _WEIGHTS:
                raise ValueError(f'weights has {name!r}, expected among {sorted(_WEIGHTS)}')
            _check_numbers(f'weights: {name}', weight, _WEIGHTS[name])
        if self.validate_every < 1:
            raise ValueError(f'validate_every is {self.validate_every}, expected 1 or more')
        if len(self.views_per_step) != len(self.stages):
            raise ValueError(
                f'views_per_step has {len(self.views_per_step)} entries, expected one for each '
                f'of the {len(self.stages)} stages'
            )
        if not 2 <= self.views[0] <= self.views[1]:
            raise ValueError(f'views is {self.views}, expected 2 <= smallest <= largest')
        if self.warmup + self.cooldown > self.steps:
            raise ValueError(f'warmup and cooldown exceed the {self.steps} steps')
        self.model_config()

    def model_config(self) -> ModelConfig:
        return ModelConfig.from_dict(self.model)

    def learning_rate_at(self, step: int) -> float:
        """Warm up, hold, and decay linearly to zero."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, (self.steps - step) / max(1, self.cooldown))
        return self.learning_rate * min(rise, fall)

    @classmethod
    def read(cls, path: Path) -> 'TrainingConfig':
        """Read a YAML file; what it does not say is as in the file that `based_on` names, if any.

        Raises ValueError for unknown names, values that make no sense, and files that are based on
        each other.
        """
        values = _with_base(Path(path))
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f'{path}: unknown settings {unknown}, expected among {sorted(known)}')
        for name in ('views', 'views_per_step', 'stages'):
            if name in values:
                given = values[name]
                values[name] = tuple(given) if isinstance(given, list) else given
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: {error}') from error


def _check_numbers(name: str, value: Any, usual: Any) -> None:
    """Raise ValueError where a setting is not of the kind that its usual value is of."""
    several = isinstance(usual, tuple)
    kind = type(usual[0] if several else usual)
    if isinstance(value, tuple) == several and all(
        type(number) in (int, kind) and 0 <= number < 2**62
        for number in (value if several else [value])
    ):
        return
    expected = ('list of ' if several else '') + ('whole ' if kind is int else '') + 'number'
    hint = (
        '; YAML takes 1e-3 for text, write 1.0e-3'
        if isinstance(value, str) and kind is float
        else ''
    )
    raise ValueError(
        f'{name} is {value!r}, expected a {expected}{"s" if several else ""} of 0 or more{hint}'
    )


def _with_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's settings over those of the file beside it that it is based on."""
    if path in above:
        raise ValueError(f'{path}: is based on itself')
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: not YAML ({error})') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path}: expected settings by name')
    for name in ('model', 'weights'):
        if not isinstance(values.get(name, {}), dict):
            raise ValueError(f'{path}: {name} is {values[name]!r}, expected settings by name')
    base = values.pop('based_on', None)
    if base is None:
        return values
    inherited = _with_base(path.parent / base, (*above, path))
    # the network's settings are amended one by one, anything else is replaced
    model = inherited.get('model', {}) | values.get('model', {})
    return inherited | values | {'model': model}
