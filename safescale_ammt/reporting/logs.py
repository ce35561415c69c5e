"""The logs that a page draws: of training, of search and of the power check.

They are no evidence, and no verdict rests on them. A verdict keeps copies, outside of
its identity, so that its page can be written again wherever the verdict is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json

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


def copy_logs(verdict: Path, model: Path, architecture: Path) -> None:
    """Copies into a verdict the logs that lie with a model and its architecture."""
    # Logs are optional: a model from elsewhere has none, and the page says so.
    for name in LOG_FILES.values():
        source = (model if name == TRAINING else architecture) / name
        if source.is_file():
            (verdict / LOGS).mkdir(exist_ok=True)
            shutil.copyfile(source, verdict / LOGS / name)


def read_logs(verdict: Path) -> dict[str, Any]:
    """Reads the logs of a verdict, as arguments of `render`.

    Raises:
        InputError: a log, or a line of the training log, is not JSON.
    """
    logs: dict[str, Any] = {}
    for log, name in LOG_FILES.items():
        file = verdict / LOGS / name
        if not file.is_file():
            continue
        if name != TRAINING:
            logs[log] = read_json(file)
            continue
        try:
            lines = file.read_bytes().splitlines()
            logs[log] = [json.loads(line) for line in lines]
        except ValueError:
            raise InputError(f"{file} holds a line that is not JSON.") from None
    return logs
