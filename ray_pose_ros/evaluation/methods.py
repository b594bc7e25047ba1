"""What is evaluated: the model, references that know nothing, baselines, all behind one interface.

A method is made by name from a spec, `name` or `name:key=value,key=value`; `create_method` knows
the ones of this module and asks, only when they are named, two places for more:

- the package `evaluation.baselines`: what a user would pick instead, needing optional packages;
- the module `evaluation.refined`: the model with what follows it.

Each of them has `NAMES`, a tuple of the names it knows (importing it must be cheap), and
`create(name, options) -> Method`, which raises `MethodUnavailable` where a package is missing and
ValueError for an option it does not know.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .sequences import Sequence as ViewSequence

_MORE = ('ray_pose_ros.evaluation.baselines', 'ray_pose_ros.evaluation.refined')


class MethodUnavailable(ValueError):
    """A method that exists but cannot run here; the message names what to install."""


class NotApplicable(Exception):
    """Raised by `begin`: this method has no answer for this sequence, and is left out of it."""


@dataclass(frozen=True)
class Answer:
    """Cameras of N views in a world of the method's own choice (any similarity).

    Attributes:
        R, t: (N, 3, 3), (N, 3), world to camera, OpenCV. What stands where `placed` is false is
            not looked at.
        placed: (N,) bool; a view that is not placed counts as wrong.
        rotation_sigma: (N,) rad, root mean square of the angle by which a camera is expected to be
            off in the frame of the first placed camera; None from who does not tell.
        centre_sigma: (N,), root mean square distance, in units of the answer's own world; or None.
        K: (N, 3, 3) intrinsics in pixels of the given images where the method estimated them, nan
            where it did not; None where it used those that it was given.
        seconds: what this answer would take from nothing but the images in memory: features that
            were cached from another subset are counted again, loading the method is not.
    """

    R: np.ndarray
    t: np.ndarray
    placed: np.ndarray
    rotation_sigma: np.ndarray | None = None
    centre_sigma: np.ndarray | None = None
    K: np.ndarray | None = None
    seconds: float = 0.0

    @classmethod
    def nothing(cls, views: int, seconds: float = 0.0) -> 'Answer':
        """The answer of a method that could not place anything."""
        R, t = np.tile(np.eye(3), (views, 1, 1)), np.zeros((views, 3))
        return cls(R, t, np.zeros(views, dtype=bool), seconds=seconds)


class Method(Protocol):
    """Begins a sequence, then solves subsets of its views. An exception is a failed subset.

    Only references may look at the sequence's true `R`, `t` and `up`.
    """

    name: str

    def begin(self, sequence: ViewSequence) -> None:
        """A new sequence: forget what was cached of the last one. May raise NotApplicable."""

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        """Cameras of the views `indices` (N,) of the sequence begun, in this order."""


class ModelMethod:
    """The estimator, as the command line and the node run it; features are cached per view.

    prepare: called with a view; None for the estimator's own.
    """

    name = 'model'

    def __init__(self, estimator, prepare: Callable | None = None):
        self.estimator = estimator
        self._prepare = prepare or estimator.prepare
        self._views: Sequence = ()
        self._prepared: dict[int, Any] = {}

    def begin(self, sequence: ViewSequence) -> None:
        self._views, self._prepared = sequence.views, {}

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        return answer_of(self.estimate(indices, rng)[0])

    def estimate(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Any, float]:
        """The `Estimate` of these views, and what it would take from nothing, seconds."""
        found = self.estimator.solve(self.prepare(indices))
        return found, float(sum(found.timings.values()))

    def solver(self):
        """What the node would run."""
        return self.estimator

    def cached(self, indices: np.ndarray) -> float:
        """Seconds that were spent on what is kept of these views."""
        kept = (self._prepared.get(int(index)) for index in indices)
        return sum(p.seconds for p in kept if p is not None)

    def prepare(self, indices: np.ndarray) -> list:
        """The estimator's `Prepared` of these views."""
        for index in map(int, indices):
            if index not in self._prepared:
                self._prepared[index] = self._prepare(self._views[index])
        return [self._prepared[int(index)] for index in indices]


def answer_of(estimate) -> Answer:
    """An `Estimate` as an answer; intrinsics only where they were not given."""
    given = np.array([source == 'given' for source in estimate.intrinsics_source])
    K = None
    if not given.all():
        K = np.where(given[:, None, None], np.nan, estimate.K)
    return Answer(
        estimate.R,
        estimate.t,
        np.ones(len(estimate.R), dtype=bool),
        estimate.rotation_sigma,
        estimate.centre_sigma,
        K,
        float(sum(estimate.timings.values())),
    )


class SameMethod:
    """'All cameras the same': what an answer is worth that never looked."""

    name = 'same'

    def begin(self, sequence: ViewSequence) -> None:
        pass

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        views = len(indices)
        t = np.tile([0.0, 0.0, 1.0], (views, 1))
        return Answer(np.tile(np.eye(3), (views, 1, 1)), t, np.ones(views, dtype=bool))


class AzimuthMethod:
    """True elevation and roll, each camera turned about the vertical at random.

    What perfect knowledge of the vertical alone is worth. Needs sequences that know theirs.
    """

    name = 'azimuth'

    def begin(self, sequence: ViewSequence) -> None:
        if sequence.up is None:
            raise NotApplicable(f'{sequence.name} does not know which way is up')
        self._sequence = sequence

    def solve(self, indices: np.ndarray, rng: np.random.Generator) -> Answer:
        s = self._sequence
        up = s.up / np.linalg.norm(s.up)
        angle = rng.uniform(0, 2 * np.pi, len(indices))[:, None, None]
        cross = np.array([[0, -up[2], up[1]], [up[2], 0, -up[0]], [-up[1], up[0], 0]])
        # Rodrigues' formula: rotation by `angle` about `up`
        turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
        return Answer(s.R[indices] @ turn, s.t[indices], np.ones(len(indices), dtype=bool))


def _create_model(options: dict[str, Any]) -> Method:
    from ray_pose_ros.estimation.estimator import Estimator

    from .windowed import WINDOW, windowed

    known = {
        'checkpoint': lambda x: x,
        'device': str,
        'steps': int,
        'samples': int,
        'seed': int,
        'precision': str,
        'crop_scale': float,
        'crop_params': str,
        'matches': lambda x: bool(int(x)),
        'upright': lambda x: bool(int(x)),
        'second_look': lambda x: bool(int(x)),
    } | WINDOW
    given = read_options('model', options, known)
    window = given.pop('window', None)
    if 'matches' in given:
        given['use_matches'] = given.pop('matches')
    return windowed(ModelMethod(Estimator(given.pop('checkpoint', None), **given)), window)


def _create_plain(kind: type) -> Callable[[dict[str, Any]], Method]:
    # a reference takes no options of its own; those of the run are none of its business
    def create(options: dict[str, Any]) -> Method:
        read_options(kind.name, options, {})
        return kind()

    return create


# Options that the run hands to every method, whether it has a use for them or not.
COMMON_OPTIONS = ('checkpoint', 'device', 'seed')
_OWN = {
    'model': _create_model,
    'same': _create_plain(SameMethod),
    'azimuth': _create_plain(AzimuthMethod),
}


def method_names() -> list[str]:
    """All names that `create_method` knows here."""
    return [*_OWN, *(name for module in map(_import, _MORE) if module for name in module.NAMES)]


def create_method(spec: str, options: dict[str, Any] | None = None) -> Method:
    """The method of a spec, `name` or `name:key=value,...`; its `name` becomes the spec.

    Args:
        spec: the name, with options of this method's own.
        options: for all methods: `checkpoint` (a folder, None for the shipped model), `device`,
            `seed`. Those of the spec go before them. Values of the spec are text.

    Raises:
        ValueError: an unknown name or option. MethodUnavailable: something is not installed.
    """
    name, own = parse_spec(spec)
    options = {**(options or {}), **own}
    if name in _OWN:
        method = _OWN[name](options)
    else:
        modules = [m for m in map(_import, _MORE) if m and name in m.NAMES]
        if not modules:
            raise ValueError(
                f'method is {name!r}, expected one of {", ".join(sorted(method_names()))}'
            )
        method = modules[0].create(name, options)
    method.name = spec
    return method


def uses_checkpoint(spec: str) -> bool:
    """Whether a method's answers depend on the weights: all do but references and baselines."""
    name = parse_spec(spec)[0]
    baselines = _import(_MORE[0])
    return name not in ('same', 'azimuth') and not (baselines and name in baselines.NAMES)


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """`name:key=value,...` as name and options (ValueError where it is not of this form)."""
    name, _, rest = spec.partition(':')
    options = {}
    for part in filter(None, rest.split(',')):
        key, equals, value = part.partition('=')
        if not (key and equals and value):
            raise ValueError(f'method is {spec!r}, expected name or name:key=value,...')
        options[key.strip()] = value.strip()
    return name, options


def read_options(
    name: str, options: dict[str, Any], known: dict[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    """The options that a method knows, converted; None values are left out.

    Raises ValueError for one that it does not know (but not for COMMON_OPTIONS) or that does not
    convert.
    """
    found = {}
    for key, value in options.items():
        if key not in known:
            if key in COMMON_OPTIONS:
                continue
            raise ValueError(
                f'method {name} has no option {key!r}, expected one of '
                f'{", ".join(sorted(known)) or "none"}'
            )
        if value is None:
            continue
        try:
            found[key] = known[key](value)
        except (TypeError, ValueError) as error:
            raise ValueError(f'method {name}: option {key} is {value!r} ({error})') from error
    return found


def _import(module: str):
    """A module of optional methods, or None where it is not there at all."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, but lacks something at import
            raise MethodUnavailable(f'{module} needs {error.name}, which is missing') from error
        return None
