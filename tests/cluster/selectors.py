"""Label and field selectors, as far as clients here use them."""

from __future__ import annotations

import re
from typing import Any

_SET = re.compile(r"(?P<key>[^\s,]+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)")


def selects(found: dict[str, Any], labels: str, fields: str) -> bool:
    """Says whether an object meets a label and a field selector."""
    return _labels(found["metadata"].get("labels", {}), labels) and _fields(
        found, fields
    )


def _labels(has: dict[str, str], selector: str) -> bool:
    for match in _SET.finditer(selector):
        values = [v.strip() for v in match["values"].split(",")]
        if (has.get(match["key"]) in values) != (match["how"] == "in"):
            return False
    for term in filter(None, (t.strip() for t in _SET.sub("", selector).split(","))):
        key, negated, value = _term(term)
        if not value and not negated and "=" not in term:
            if (key.lstrip("!") in has) == key.startswith("!"):
                return False
        elif (has.get(key) == value) == negated:
            return False
    return True


def _fields(found: dict[str, Any], selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        key, negated, value = _term(term)
        at: Any = found
        for part in key.split("."):
            at = (at or {}).get(part)
        if (str(at or "") == value) == negated:
            return False
    return True


def _term(term: str) -> tuple[str, bool, str]:
    key, _, value = term.partition("=")
    return key.rstrip("!"), key.endswith("!"), value.lstrip("=").strip()
