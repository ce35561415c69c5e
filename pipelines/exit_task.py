"""What the compiled pipeline's exit task becomes on this machine.

On Kubeflow the exit task tells people how a run ended. Here the command line
does, so the task is taken out and costs no seconds, unless a place to tell is
set in the environment: then it runs as it does there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from safescale_ammt.errors import SafescaleError
from safescale_ammt.releasing.notice import PLACES
from safescale_ammt.releasing.outcome import CRASHED, Outcome
from safescale_ammt.storage import Store

_ALWAYS = "ALL_UPSTREAM_TASKS_COMPLETED"


def for_this_machine(
    spec: dict[str, Any], environ: Mapping[str, str], run: str = ""
) -> None:
    """Edits a parsed pipeline in place.

    Args:
        spec: the graph, the first document of the compiled file.
        environ: says whether anybody is to be told (`notice.PLACES`).
        run: the run's id here, in place of the one that Kubeflow gives; "" leaves
            KFP's local runner to draw a number.
    """
    if not any(environ.get(name) for name in PLACES):
        tasks = spec["root"]["dag"]["tasks"]
        for name in [name for name, task in tasks.items() if is_exit_task(task)]:
            del tasks[name]
    if run:
        _name_run(spec, run)


def is_exit_task(task: Mapping[str, Any]) -> bool:
    """Says whether a task runs however the others end."""
    return bool(task.get("triggerPolicy", {}).get("strategy") == _ALWAYS)


def leave_word(store: Store, run: str, error: SafescaleError) -> None:
    """Records why a run broke off, unless its gate has said how it ended.

    Args:
        store: where the exit task reads it.
        run: the run's id.
        error: what broke it.
    """
    if Outcome.read(store, run) is None:
        Outcome.now(run=run, status=CRASHED, sentence=str(error)).write(store)


def _name_run(spec: Any, run: str) -> None:
    """Puts the run's id where a constant asks Kubeflow for its own."""
    if isinstance(spec, dict):
        if spec.get("constant") == dsl.PIPELINE_JOB_ID_PLACEHOLDER:
            spec["constant"] = run
        for value in spec.values():
            _name_run(value, run)
    elif isinstance(spec, list):
        for value in spec:
            _name_run(value, run)
