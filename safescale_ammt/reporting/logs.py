"""The logs that a page draws: of training, of search and of the power check.

They are no evidence, and no verdict rests on them. A verdict keeps copies, outside of
its identity, so that its page can be written again wherever the verdict is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.json_text import JsonError, parse_json, parse_lines

LOGS = "logs"
"""The folder of the verdict that holds the copies."""
TRAINING = "training.jsonl"
LOG_FILES = {
    "training": TRAINING,
    "search": "search.json",
    "control": "control.json",
    "power": "power.json",
}
"""What `render` calls a log -> its file."""


def last_rounds(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rounds of those agents, of a training's events, that are merged."""
    rounds: list[Mapping[str, Any]] = []
    for event in events:
        # Fewer agents were not enough: those that follow begin where they began.
        if event.get("event") == "more_agents":
            rounds = []
        if event.get("event") == "round":
            rounds.append(event)
    return rounds


def log_contents(model: Path, architecture: Path) -> dict[str, bytes]:
    """Returns the logs of a model and its architecture, as a verdict keeps them."""
    # Logs are optional: a model from elsewhere has none, and the page says so.
    places = {
        name: (model if name == TRAINING else architecture) / name
        for name in LOG_FILES.values()
    }
    return {
        f"{LOGS}/{name}": file.read_bytes()
        for name, file in places.items()
        if file.is_file()
    }


def read_logs(verdict: Path) -> dict[str, bytes]:
    """Returns the logs that a verdict keeps."""
    names = (f"{LOGS}/{name}" for name in LOG_FILES.values())
    return {
        name: (verdict / name).read_bytes()
        for name in names
        if (verdict / name).is_file()
    }


def parse_logs(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """Parses logs into arguments of `render`.

    Args:
        contents: bytes by name below a verdict, as the functions above return them.

    Raises:
        InputError: a log, or a line of the training log, is not JSON.
    """
    logs: dict[str, Any] = {}
    for log, name in LOG_FILES.items():
        data = contents.get(f"{LOGS}/{name}")
        if data is None:
            continue
        try:
            if name == TRAINING:
                logs[log] = parse_lines(data)
            else:
                logs[log] = parse_json(data)
        except JsonError:
            line = "holds a line that " if name == TRAINING else ""
            raise InputError(f"The log {name} {line}is not JSON.") from None
    return logs
