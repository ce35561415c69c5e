"""YAML as we read it: safe, one document, no key given twice."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from safescale_ammt.errors import InputError


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key; YAML's own takes the last one."""

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
        return yaml.load(text, _Loader)  # noqa: S506  a SafeLoader
    except FileNotFoundError:
        raise error(f"{path} does not exist.") from None
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror}).") from None
    # A date such as 2026-02-30 is a ValueError of the loader and no YAMLError.
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as cause:
        # The loader's message has several lines, a sentence of ours has one.
        reason = " ".join(str(cause).split())
        raise error(f"{path} is not YAML: {reason}.") from None
