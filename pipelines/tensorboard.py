"""TensorBoard: the scalars of a run's training log as event files.

They are written after the fact, by TensorBoard's own writer: whoever looks at them has
it, and no stage or image needs it. Wall times are those of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json_lines
from safescale_ammt.training.scalars import Tally
from safescale_ammt.training.training_log import LOG


def write_scalars(run: Mapping[str, Any], folder: Path) -> int:
    """Writes the scalars of a run; returns how many.

    Args:
        run: `run.json`.
        folder: of event files; a file that is there stays beside the new one.

    Raises:
        InputError: the run has no model here, or TensorBoard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise InputError(
            "TensorBoard is not installed; pip install 'safescale-ammt[tensorboard]'."
        ) from None
    model = run["artifacts"].get("model", {}).get("path", "")
    if not (model and (Path(model) / LOG).is_file()):
        raise InputError(
            f"Run {run['run']} has no training log here; it trains in "
            "stage train_agents, and its model has to be on this machine."
        )
    started = datetime.fromisoformat(run["started"]).timestamp()
    writer, tally, step, written = EventFileWriter(str(folder)), Tally(), 0, 0
    for event in read_json_lines(Path(model) / LOG):
        step = event.get("step", step)
        values = [
            Summary.Value(tag=scalar.tag, simple_value=scalar.value)
            for scalar in tally.add(event, event["seconds"])
        ]
        at = started + event["seconds"]
        if values:
            summary = Summary(value=values)
            writer.add_event(Event(wall_time=at, step=step, summary=summary))
        written += len(values)
    writer.close()
    return written
