"""From JSON to a dataclass, every value of the type that its field states.

A file that others made may hold a list where a number was: what reads it later would
stop with a fault of Python's own. Here it stops with the place.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

Built = TypeVar("Built")


def build(cls: type[Built], raw: Any, where: str = "") -> Built:
    """Returns an instance of a dataclass from its JSON form.

    Lists become tuples, whole numbers fit where any number does, and a nested
    dataclass is built in turn.

    Args:
        cls: the dataclass; its annotations are the types.
        raw: a value of parsed JSON.
        where: path of the value, for the message.

    Raises:
        TypeError: a key is missing, unknown, or has a value of another type.
    """
    if not isinstance(raw, Mapping):
        raise TypeError(f"{where or cls.__name__} is no object")
    known, needed = field_types(typing.cast("Any", cls))
    for key in (raw.keys() - known.keys()) | (needed - raw.keys()):
        raise TypeError(f"{where}{key} is {'unknown' if key in raw else 'missing'}")
    values = {key: typed(value, known[key], where + key) for key, value in raw.items()}
    return cls(**values)


def typed(value: Any, hint: Any, where: str) -> Any:
    """Returns a value of parsed JSON as a type; see `build`.

    Raises:
        TypeError: it is of another type.
    """
    origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        # Of our own unions, each is of one type and None.
        (some,) = (arg for arg in args if arg is not type(None))
        return None if value is None else typed(value, some, where)
    if is_dataclass(origin):
        return build(typing.cast("type[Any]", origin), value, where + ".")
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(
            typed(item, args[0], f"{where}[{i}]") for i, item in enumerate(value)
        )
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        return {
            key: typed(item, args[1], f"{where}.{key}") for key, item in value.items()
        }
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    # True is an int to Python, and none in a file.
    if not isinstance(value, origin) or (
        isinstance(value, bool) and origin is not bool
    ):
        raise TypeError(f"{where} is no {origin.__name__}")
    return value


@cache
def field_types(cls: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Returns the types of a dataclass's fields, and the names of those it needs."""
    hints = typing.get_type_hints(cls)
    needed = {
        field.name
        for field in fields(cls)
        if field.default is MISSING and field.default_factory is MISSING
    }
    return {field.name: hints[field.name] for field in fields(cls)}, frozenset(needed)
