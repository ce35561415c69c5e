"""Lists as KFP gives them: filtered, sorted, a page at a time.

A filter compares as the database does: without regard to case and to blanks at the
end (MySQL's and MariaDB's defaults). A page's token holds sort order and filter, and
whoever brings it with another order or filter is refused (list.go `Matches`, 2.17.0).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from kfp_api.wire import Rejected

_SORTABLE = {
    "created_at": "CreatedAtInSec",
    "display_name": "DisplayName",
    "name": "Name",
    "storage_state": "StorageState",
    "id": "UUID",
}
_FILTERED = ("name", "display_name", "experiment_id", "state", "recurring_run_id")
_DEFAULT, _MOST = 20, 200


def page(
    items: Iterable[Any], plural: str, key: str, asked: Mapping[str, str]
) -> dict[str, Any]:
    """Returns one page of a list as the API answers.

    Args:
        items: all that the caller may see.
        plural: name of the list in the answer.
        key: attribute that is the items' id.
        asked: the request's query.

    Raises:
        Rejected: an order, a filter, a size or a token that the API does not take.
    """
    field, down = _order(asked.get("sort_by", ""))
    token = _token(asked, field, down)
    if token:
        field, down = token["SortByFieldName"], token["IsDesc"]
    wanted = token["Filter"] if token else asked.get("filter", "")
    chosen = _filtered(items, wanted)
    place = {column: name for name, column in _SORTABLE.items()}[field]
    attribute = key if place == "id" else place

    def rank(item: Any) -> tuple[str, str]:
        return str(getattr(item, attribute, "")), str(getattr(item, key))

    chosen.sort(key=rank, reverse=down)
    start = 0
    if token:
        at = (token["SortByFieldValue"], token["KeyFieldValue"])
        start = sum(rank(i) > at if down else rank(i) < at for i in chosen)
    end = start + _size(asked)
    answer = {plural: chosen[start:end], "total_size": len(chosen)}
    if end < len(chosen):
        value, own = rank(chosen[end])
        answer["next_page_token"] = _spell(field, value, own, down, wanted)
    return answer


def same(one: str | None, other: str | None) -> bool:
    """Says whether the database takes two names for one."""
    return (one or "").rstrip(" ").casefold() == (other or "").rstrip(" ").casefold()


def _size(asked: Mapping[str, str]) -> int:
    size = int(asked.get("page_size") or 0)
    if size < 0:
        said = (
            f"Invalid input error: The page size should be greater than 0. Got {size}"
        )
        raise Rejected(400, said)
    return min(size or _DEFAULT, _MOST)


def _order(sort_by: str) -> tuple[str, bool]:
    name, *way = sort_by.lower().split() or ["created_at"]
    if way not in ([], ["asc"], ["desc"]):
        raise Rejected(
            400, f'Invalid input error: Received invalid sort by format "{sort_by}"'
        )
    if name not in _SORTABLE:
        raise Rejected(400, f'Invalid input error: Invalid sorting field: "{name}"')
    return _SORTABLE[name], way == ["desc"]


def _token(asked: Mapping[str, str], field: str, down: bool) -> dict[str, Any]:
    """Reads a token, and refuses it with another order or filter than its own."""
    if not asked.get("page_token"):
        return {}
    wrong = ("InvalidInputError: Invalid page token", "Failed to create list options")
    try:
        told = json.loads(base64.b64decode(asked["page_token"]))
        held = (told["SortByFieldName"], told["IsDesc"], told["Filter"])
    except (ValueError, KeyError, TypeError) as error:
        refused = Rejected(400, f"Invalid page token: {error}")
        refused.cause = "Invalid page token"
        raise refused.inside(wrong[1]) from None
    bare = not asked.get("sort_by") and not asked.get("filter")
    if not bare and held != (field, down, asked.get("filter", "")):
        raise Rejected(
            400,
            "Invalid input error: page token does not match the supplied sort by "
            "and/or filtering criteria. Either specify the same criteria or leave the "
            "latter empty if page token is specified",
        ).inside(wrong[1])
    return dict(told)


def _spell(field: str, value: str, own: str, down: bool, wanted: str) -> str:
    told = {
        "SortByFieldName": field,
        "SortBySQLColumn": field,
        "SortByFieldValue": value,
        "SortByFieldPrefix": "",
        "KeyFieldName": "UUID",
        "KeyFieldValue": own,
        "KeyFieldPrefix": "",
        "IsDesc": down,
        "ModelName": "",
        "Filter": wanted,
    }
    return base64.b64encode(json.dumps(told).encode()).decode()


def _filtered(items: Iterable[Any], wanted: str) -> list[Any]:
    """Applies a filter's predicates, of which the clients use EQUALS and IN."""
    chosen = list(items)
    for predicate in json.loads(wanted or "{}").get("predicates", []):
        if predicate.get("operation") not in ("EQUALS", 1, "IN"):
            raise Rejected(400, f"Invalid input error: Unknown operation: {predicate}")
        key = predicate["key"]
        if key not in _FILTERED:
            said = f"Invalid input error: no support for filtering on field {key}"
            raise Rejected(400, said)
        value = predicate.get("stringValue", predicate.get("string_value"))
        values = predicate.get("stringValues", {}).get("values", [value])
        chosen = [i for i in chosen if any(same(_value(i, key), v) for v in values)]
    return chosen


def _value(item: Any, key: str) -> str:
    """Returns a field; what has one name alone bears it under both keys."""
    return str(getattr(item, key, None) or getattr(item, "display_name", None) or "")
