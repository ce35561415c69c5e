"""YAML of the tests' servers: each text is read once, by libyaml where it is there.

A compiled pipeline or the manifests take a third of a second in Python alone, and
hundreds of tests begin with them.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str) -> list[Any]:
    """Returns the documents of a text; they are the caller's to change."""
    return list(json.loads(_as_json(text)))


@cache
def _as_json(text: str) -> str:
    found = list(yaml.load_all(text, _LOADER))
    said = json.dumps(found)
    # No dates, and no keys but texts: else JSON would tell something else.
    assert json.loads(said) == found
    return said
