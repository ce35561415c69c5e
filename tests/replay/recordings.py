"""Recorded flows, with what was left out of them put back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

FOLDER = Path(__file__).parent / "recorded"
# What stood where the length of a secret's value is: a plane of one's own.
_PLACES = {
    "safescale-store": "s3://safescale",
    "safescale-registry": "s3://safescale/registry",
    "safescale-training": "s3://safescale/training",
}
_STAGES = (
    *("prepare-data", "search-architecture", "train-agents"),
    *("evaluate-safety", "register-model"),
)
_ENDPOINT = "http://seaweedfs.kubeflow.svc.cluster.local:9000"


@dataclass(frozen=True)
class Exchange:
    """One request that was sent, and the answer that came.

    Attributes:
        method, path: of the request; the path without its query.
        query: its parameters.
        request: its body, if it had one.
        status, type: of the answer.
        answer: its body.
        whole: whether the answer is as it was, and not shortened to its states.
    """

    method: str
    path: str
    status: int
    type: str
    answer: Any
    query: Mapping[str, str] = field(default_factory=dict)
    request: Any = None
    whole: bool = True


def names(prefix: str = "") -> list[str]:
    """Returns the names of all flows."""
    return sorted(file.stem for file in FOLDER.glob(f"{prefix}*.json"))


def exchanges(flow: str, pipeline: Mapping[str, Any] | None = None) -> list[Exchange]:
    """Reads a flow.

    Args:
        flow: its name.
        pipeline: what stands for "our pipeline", as the API gives it.
    """
    read, first = [], {}
    for item in json.loads((FOLDER / f"{flow}.json").read_text(encoding="utf-8")):
        parts = urlsplit(item["path"])
        answer = fill(item["answer"], pipeline or {})
        short = answer.get("(shortened)") if isinstance(answer, dict) else None
        cut = _complete(answer, item["answer"])
        if short:
            answer = _expand(short, first)
        elif isinstance(answer, dict) and answer.get("run_id"):
            first = answer
        read.append(
            Exchange(
                item["method"],
                parts.path,
                item["status"],
                item["type"],
                answer,
                {k: v[0] for k, v in parse_qs(parts.query, True).items()},
                fill(item.get("request"), pipeline or {}),
                whole=not short and not cut,
            )
        )
    return read


def events(flow: str) -> list[dict[str, Any]]:
    """Reads the events of a watch."""
    read = json.loads((FOLDER / f"{flow}.json").read_text(encoding="utf-8"))
    return [fill(event, {}) for event in read]


def fill(value: Any, pipeline: Mapping[str, Any]) -> Any:
    """Puts something usable in the place of what was left out."""
    if isinstance(value, list):
        kept = [v for v in value if not _is_left_out(v)]
        return [fill(item, pipeline) for item in kept]
    if isinstance(value, dict):
        name = value.get("metadata", {}).get("name") if "data" in value else None
        filled = {k: fill(v, pipeline) for k, v in value.items()}
        if isinstance(name, str) and value.get("kind") == "Secret":
            filled["data"] = {k: _secret(name, k) for k in value["data"]}
        return filled
    if isinstance(value, str) and value.startswith("<our pipeline"):
        return dict(pipeline)
    return {} if isinstance(value, str) and value.startswith("<dict of") else value


def _is_left_out(item: Any) -> bool:
    text = item[0] if isinstance(item, list) and item else item
    return isinstance(text, str) and bool(re.match(r"\.\.\. \d+ more|\.$", text))


def _secret(name: str, key: str) -> str:
    known = {"SAFESCALE_STORE": _PLACES.get(name, ""), "AWS_ENDPOINT_URL": _ENDPOINT}
    text = known.get(key) or f"{key.lower()} of {name}"
    if key == ".dockerconfigjson":
        text = '{"auths": {"127.0.0.1:5000": {"auth": "eDp5"}}}'
    return base64.b64encode(text.encode()).decode()


def _complete(answer: Any, recorded: Any) -> bool:
    """Gives a run that ended well the stages that were cut off its list of tasks."""
    details = answer.get("run_details") if isinstance(answer, dict) else None
    if not details or not _is_left_out(recorded["run_details"]["task_details"][-1]):
        return False
    if answer["state"] == "SUCCEEDED":
        ids = {"run_id": answer["run_id"], "state": "SUCCEEDED"}
        shown = details["task_details"]
        details["task_details"] = [
            *shown,
            *({**ids, "display_name": n} for n in _STAGES),
        ]
    return True


def _expand(short: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a run of its states, with the rest as the run began."""
    tasks = [
        {
            "run_id": short["run_id"],
            **({"display_name": task[0]} if task[0] else {}),
            **({"state": task[1]} if task[1] else {}),
        }
        for task in short["tasks"]
        if isinstance(task, list)
    ]
    told = {k: v for k, v in short.items() if v is not None and k != "tasks"}
    return {**first, **told, "run_details": {"task_details": tasks}}
