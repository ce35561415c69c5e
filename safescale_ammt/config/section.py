"""A section of the config: parsed from YAML or KFP, checked where it is made.

KFP turns whole numbers in dict parameters into floats and carries neither
tuples nor None. `to_params` and `from_params` absorb that, and refuse what it
would hide: 2.5 agents, a seed that a float cannot hold, an unknown key.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Required, Self

from safescale_ammt.errors import ConfigError, one_of
from safescale_ammt.files.canonical import (
    canonical_json,
    checked_flag,
    checked_text,
    digest_json,
    found_number,
    json_form,
)

MAX_BYTES = 64 * 1024
"""A config section over this size is refused (an argument list holds ~120 kB)."""
# KFP carries whole numbers as floats: from 2^53 on two of them share one float.
MAX_SEED = 2**53
_LARGEST = 1e300

Name = Annotated[str, "name"]
"""Name of a column or a group: text that is seen, so not blank."""
NameOrNone = Annotated[str, "name, or none"]
"""The same, where "" stands for none."""


@dataclass(frozen=True)
class Section:
    """What all sections share: parsing, parameters, digest."""

    section: ClassVar[str]
    how: ClassVar[frozenset[str]] = frozenset()
    """Fields that say how the work is done, not what comes out; not in `digest`."""
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later: at their default they are not in `digest` either."""

    def __init_subclass__(cls) -> None:
        """Names the section after its class."""
        cls.section = cls.__name__.removesuffix("Config").lower()

    @classmethod
    def from_params(cls, raw: Mapping[str, Any] | None) -> Self:
        """Parses a mapping from YAML or from a KFP dict parameter.

        Raises:
            ConfigError: unknown key, wrong type, impossible value, over 64 KiB.
        """
        raw = {} if raw is None else raw
        if not isinstance(raw, Mapping):
            raise ConfigError(
                f"Section {cls.section!r} must be a mapping, found "
                f"{type(raw).__name__}."
            )
        hints = cls._hints()
        for key in raw:
            if key not in hints:
                raise ConfigError(
                    f"Unknown key {key!r} in section {cls.section!r}, "
                    f"{one_of(hints, key)}."
                )
        values = {k: _coerce(v, hints[k], f"{cls.section}.{k}") for k, v in raw.items()}
        section = cls(**values)
        size = len(canonical_json(section.to_params()))
        if size > MAX_BYTES:
            raise ConfigError(
                f"Section {cls.section!r} holds {size} bytes, at most {MAX_BYTES} fit "
                "in a pipeline parameter; move lists into the data."
            )
        return section

    @classmethod
    @functools.cache
    def _hints(cls) -> dict[str, Any]:
        # Annotations are texts (`from __future__`), and class variables have some too.
        types = typing.get_type_hints(cls, include_extras=True)
        return {f.name: types[f.name] for f in fields(cls)}

    def bring_to_types(self) -> None:
        """Brings values that are written in Python to their fields' types.

        Raises:
            ConfigError: a value of another kind.
        """
        for key, hint in self._hints().items():
            value = getattr(self, key)
            # One number of numpy or torch is a number.
            value = value.item() if getattr(value, "shape", None) == () else value
            own = _coerce(value, hint, f"{self.section}.{key}")
            object.__setattr__(self, key, own)

    def to_params(self) -> dict[str, Any]:
        """Returns the JSON form that a KFP dict parameter carries unchanged."""
        return {f.name: json_form(getattr(self, f.name)) for f in fields(self)}

    @property
    def digest(self) -> str:
        """Digest of what the section asks for, defaults filled in."""
        # Equal work has equal identity: how it is done (`how`) stays out.
        params = self.to_params()
        # A config that uses no later field keeps the identity that it had before.
        defaults = type(self)().to_params() if self.later else {}
        unused = {k for k in self.later if params[k] == defaults[k]}
        return digest_json(
            {k: v for k, v in params.items() if k not in self.how | unused}
        )

    def require(self, key: str, holds: bool, expected: str) -> None:
        """Refuses a field's value.

        Args:
            key: the field.
            holds: whether the value fits.
            expected: the values that fit, in words.

        Raises:
            ConfigError: the value does not fit.
        """
        if not holds:
            raise ConfigError(
                f"{self.section}.{key} is {getattr(self, key)!r}, expected {expected}."
            )

    def require_positive(self, *keys: str) -> None:
        """Refuses fields that are not above 0."""
        for key in keys:
            self.require(key, getattr(self, key) > 0, "a value > 0")

    def require_fraction(self, *keys: str) -> None:
        """Refuses fields outside [0, 1]."""
        for key in keys:
            self.require(key, 0 <= getattr(self, key) <= 1, "a value in [0, 1]")

    def require_seed(self) -> None:
        """Refuses a seed that a float cannot hold."""
        seed: int = getattr(self, "seed", 0)
        self.require("seed", 0 <= seed < MAX_SEED, "a whole number in [0, 2^53)")


def required_keys(mapping: Any) -> frozenset[str]:
    """Returns the keys that a mapping's type cannot do without; none of a `dict`."""
    if not typing.is_typeddict(mapping):
        return frozenset()
    # Its own `__required_keys__` does not see `Required` in an annotation that is a
    # text, as `from __future__ import annotations` makes all of them.
    hints = typing.get_type_hints(mapping, include_extras=True)
    return frozenset(
        key for key, hint in hints.items() if typing.get_origin(hint) is Required
    )


def _whole(value: Any, where: str) -> int:
    # True is an int to Python; 8.0 is how KFP gives 8 back, 2.5 is a mistake.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} must be a whole number, {found_number(value)}.")
    if isinstance(value, float) and (not math.isfinite(value) or value % 1):
        raise ConfigError(f"{where} must be a whole number, {found_number(value)}.")
    if abs(value) >= MAX_SEED:
        raise ConfigError(f"{where} is {value!r}, at most 2^53 - 1 survives KFP.")
    return int(value)


def _real(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} must be a number, {found_number(value)}.")
    if abs(value) > _LARGEST or not math.isfinite(value):
        # An int may have a million digits, which no sentence wants.
        number = value if isinstance(value, float) else "a larger number"
        raise ConfigError(f"{where} must be finite, found {number}.")
    return float(value)


def _flag(value: Any, where: str) -> bool:
    return checked_flag(value, where, ConfigError)


def _string(value: Any, where: str) -> str:
    # A class of 0 and 1 or of true and false is written without quotes. Of 1.10 the
    # spelling is lost, and a column may be called so.
    if isinstance(value, int | float) and not value % 1 and abs(value) < MAX_SEED:
        value = str(value)
    return checked_text(value, where, ConfigError)


def _name(value: Any, where: str) -> str:
    # YAML reads a column called `on` or `no` as a flag, whose spelling is lost.
    if isinstance(value, bool):
        checked_text(value, where, ConfigError)
    name = _string(value, where)
    # No file has such a column: it would be missed where the rows are read, hours on.
    if not name.strip():
        raise ConfigError(
            f"{where} is blank ({name!r}), expected the name of a column or a group."
        )
    return name


def _name_or_none(value: Any, where: str) -> str:
    return value if value == "" else _name(value, where)


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    int: _whole,
    float: _real,
    bool: _flag,
    str: _string,
    Name: _name,
    NameOrNone: _name_or_none,
    int | Literal["auto"]: lambda v, where: v if v == "auto" else _whole(v, where),
    float | Literal["auto"]: lambda v, where: v if v == "auto" else _real(v, where),
}


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """Brings a parsed value to its field's type or says what is wrong with it."""
    if hint in _SCALARS:
        return _SCALARS[hint](value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Required:
        return _coerce(value, args[0], where)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{where} is {value!r}, {one_of(args, value)}.")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, found {value!r}.")
        return tuple(
            _coerce(item, args[0], f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin is not dict and not typing.is_typeddict(hint):
        raise ConfigError(f"{where} has no rule for {hint}.")
    return coerce_mapping(value, hint, where)


def coerce_mapping(value: Any, hint: Any, where: str) -> dict[str, Any]:
    """Brings a mapping to its type: a `dict` of one type, a `TypedDict` of several.

    Raises:
        ConfigError: it is none, lacks a key, or has one or a value of another kind.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping, found {value!r}.")
    named: Any = str
    if typing.is_typeddict(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
    else:
        named, each = typing.get_args(hint)
        hints = dict.fromkeys(value, each)
    for key in (key for key in value if key not in hints):
        raise ConfigError(f"Unknown key {key!r} in {where}, {one_of(hints, key)}.")
    if missing := sorted(required_keys(hint) - set(value)):
        raise ConfigError(f"{where} lacks the key {missing[0]!r}.")
    return {
        _SCALARS[named](key, f"{where} key"): _coerce(
            item, hints[key], f"{where}.{key}"
        )
        for key, item in value.items()
    }
