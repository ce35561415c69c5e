"""YAML as we read it: safe, one document, no key given twice, scalars as in 1.2."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from safescale_ammt.errors import InputError

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
    """

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
        text = Path(path).read_text(encoding="utf-8")
        return yaml.load(text, YamlLoader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        raise error(f"{path} does not exist.") from None
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}).") from None
    # A date such as 2026-02-30 is a ValueError of the loader and no YAMLError.
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as cause:
        # The loader's message has several lines, a sentence of ours has one.
        reason = " ".join(str(cause).split())
        raise error(f"{path} is not YAML: {reason}.") from None
