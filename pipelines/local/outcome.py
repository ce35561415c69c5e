"""The page of how a run on this machine ended, as Kubeflow's graph shows it there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pipelines.local.runfile import LOG, REPORT, RunFile
from safescale_ammt.errors import Refusal, SafescaleError
from safescale_ammt.releasing.notice import CANCELLED
from safescale_ammt.releasing.run_outcome import CRASHED, REFUSED, RunOutcome


def write_outcome_page(run: RunFile, *, stopped: bool = False) -> None:
    """Writes how a run ended into its folder, if its first stage began.

    Args:
        run: whose end is recorded.
        stopped: whether a signal ended it.
    """
    # Of a run that was refused at the door the terminal has said it all.
    if not run.stages:
        return
    # Not above: it takes a quarter of a second that such a run is spared.
    from safescale_ammt.judging.verdict import Verdict
    from safescale_ammt.releasing.outcome_page import PAGE, outcome_page, promises_shown

    version, verdict = run.results.get("version"), run.path("verdict")
    code, sentence = run.outcome["exit_code"], run.outcome["sentence"]
    status = REFUSED if code == Refusal.exit_code else CRASHED
    status = version["status"] if version else status
    facts: dict[str, Any] = {"run": run.id, "status": CANCELLED if stopped else status}
    with suppress(SafescaleError):  # a half-made verdict has no table
        if verdict is not None:
            facts["promises"] = promises_shown(Verdict.load(verdict))
    outcome = RunOutcome.now(sentence=sentence, **facts)
    where = f"Where to look: `{REPORT if verdict else LOG}` beside this page."
    with suppress(OSError):  # a full disk: the run's record is what counts
        text = outcome_page(outcome, where)
        (run.folder / PAGE).write_text(text, encoding="utf-8")
