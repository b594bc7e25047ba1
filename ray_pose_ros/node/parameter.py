"""What one parameter is: type, default, range, text, and how a value is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

START, CONFIGURE, ANY = 'start', 'unconfigured', 'any time'


class ParameterError(ValueError):
    """A parameter that cannot be used; the text names it, its value and what was expected."""


@dataclass(frozen=True)
class Parameter:
    """One parameter. `change`: read-only after START, only while unconfigured, or at ANY time."""

    name: str
    default: Any
    description: str
    change: str = CONFIGURE
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = field(default=())

    @property
    def read_only(self) -> bool:
        """Whether ROS itself refuses a change after the start."""
        return self.change == START

    @property
    def type_name(self) -> str:
        """Type as ROS calls it."""
        if isinstance(self.default, list):
            return f'{_TYPES[type(self.default[0])]}[]'
        return _TYPES[type(self.default)]

    @property
    def expectation(self) -> str:
        """What a value has to be, in words."""
        if self.choices:
            return 'one of ' + ', '.join(repr(c) for c in self.choices)
        if self.minimum is not None:
            return f'{self.type_name} from {self.minimum:g} to {self.maximum:g}'
        return self.type_name

    def check(self, value: Any) -> None:
        """Raise ParameterError for a value of another type, out of range or not finite."""
        items = value if isinstance(self.default, list) else [value]
        kind = type(self.default[0] if isinstance(self.default, list) else self.default)
        ok = isinstance(items, (list, tuple)) or hasattr(items, 'typecode')
        ok = ok and all(type(v) is kind for v in items)
        if ok and kind is float:
            ok = all(math.isfinite(v) for v in items)
        if ok and self.choices:
            ok = value in self.choices
        if ok and self.minimum is not None:
            ok = all(self.minimum <= v <= self.maximum for v in items)
        if not ok:
            raise ParameterError(
                f'parameter {self.name} is {value!r}, expected {self.expectation}'
            )


_TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
