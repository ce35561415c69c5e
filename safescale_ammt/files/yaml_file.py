"""YAML as we read it: safe, one document, no key given twice, scalars as in 1.2."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from safescale_ammt.errors import InputError
from safescale_ammt.files.regular import read_regular

LARGEST = 1 << 20
"""Bytes of one YAML file."""
MOST = 50_000
"""Values of one YAML file, aliases written out; 20 characters of text are one."""
DEEPEST = 32
"""Levels of mappings and lists of one YAML file."""

# What a scalar without quotes looks like if it is more than text. Whole numbers are
# those of YAML 1.1, but for base 8 and 60: who writes 0123 or 1:30 thinks of neither.
_RULES = {
    "tag:yaml.org,2002:bool": re.compile(r"(true|True|TRUE|false|False|FALSE)$"),
    "tag:yaml.org,2002:int": re.compile(
        r"[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"
    ),
}


class YamlLoader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key; YAML's own takes the last one.

    `no`, `0123` and `1:30` are the texts that they look like, as in YAML 1.2: the
    first is a class of many files, the second a postcode, the third a time.

    An alias costs what it stands for: ten lines of aliases of aliases are a million
    values to whoever walks through them.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._worth: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Builds the next node, counting values and levels before it is entered."""
        if self._depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        before, is_alias = self._values, self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._worth:
            raise yaml.YAMLError("an alias stands inside of what it names")
        long = len(node.value) // 20 if isinstance(node, yaml.ScalarNode) else 0
        self._values += self._worth[id(node)] if is_alias else 1 + long
        if self._values > MOST:
            raise yaml.YAMLError(
                f"it holds more than {MOST:,} values, each counted where an alias "
                "repeats it"
            )
        if not is_alias:
            self._worth[id(node)] = self._values - before
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Builds a whole number, of at most 64 bits: no key takes a larger one."""
        number = super().construct_yaml_int(node) if len(node.value) <= 80 else 2**64
        if abs(number) >= 2**63:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a whole number of more than 64 bits (line {line})")
        return int(number)

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        """Builds one mapping."""
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                # A list as a key: the loader's own error says so below.
                continue
            if key in keys:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice (line {line})"
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


# JSON has none of these, and so has no config.
YamlLoader.yaml_constructors = {
    tag: build
    for tag, build in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] not in {"binary", "omap", "pairs", "set"}
}
YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, _RULES.get(tag, pattern)) for tag, pattern in rules]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path | str, error: type[InputError]) -> Any:
    """Reads a YAML file.

    Args:
        path: the file.
        error: class of the errors raised.

    Raises:
        InputError: of that class; the file cannot be read or is not YAML.
    """
    try:
        return parse_yaml(read_regular(path, LARGEST).decode("utf-8"))
    except InputError as cause:
        raise error(str(cause)) from None
    # A date such as 2026-02-30 is a ValueError of the loader and no YAMLError.
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as cause:
        # The loader's message has several lines, a sentence of ours has one.
        reason = " ".join(str(cause).split())
        raise error(f"{path} is not YAML: {reason}.") from None


def parse_yaml(text: str) -> Any:
    """Reads one YAML document from a text.

    Raises:
        ValueError, yaml.YAMLError: it is none, or too large.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it has more than {LARGEST:,} characters")
    try:
        return yaml.load(text, YamlLoader)  # noqa: S506  a SafeLoader
    except (ArithmeticError, AttributeError, LookupError, TypeError):
        raise yaml.YAMLError("a value is not what its tag says") from None
