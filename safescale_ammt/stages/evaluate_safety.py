"""Stage 4: judge the model against the constitution on rows nobody has seen.

It always reports: a violated promise still yields a complete verdict and report.
The gate that refuses is the next stage. The order makes the numbers honest:

    verify inputs -> reserve the use in the ledger -> read and score the sealed
    rows -> judge -> mark the rows as opened -> make the verdict readable
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import SPLITS, SafetyConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AUDIT, read_warnings, save_warnings
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.dataset import Dataset, Holdout, Split, class_shares
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.unseen import unseen_inputs
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.execution import utc_now
from safescale_ammt.files.artifacts import Manifest, verify, writing
from safescale_ammt.files.canonical import (
    digest_file,
    digest_json,
    read_json,
    read_json_lines,
    write_json,
)
from safescale_ammt.files.parquet import read_parquet
from safescale_ammt.judging.assembly import Submission, assemble
from safescale_ammt.judging.evidence import EVIDENCE, Evidence, write_evidence
from safescale_ammt.judging.profile import roc
from safescale_ammt.judging.verdict import (
    LEDGERS,
    REHEARSAL,
    SEALED,
    SealedUse,
    Verdict,
)
from safescale_ammt.printable import printable
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.card import summary as summary_markdown
from safescale_ammt.reporting.headline_table import headline_metrics
from safescale_ammt.reporting.provenance import PROVENANCE, Provenance
from safescale_ammt.reporting.report import render
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store

STAGE = "evaluate_safety"
REPORT = "report.html"
CONSTITUTION = "constitution.json"
SEALED_ROWS = "sealed.parquet"


def run(  # noqa: PLR0917 - one parameter per input of the stage
    dataset: Path,
    holdout: Path,
    architecture: Path,
    model: Path,
    constitution: Mapping[str, Any],
    safety: Mapping[str, Any],
    verdict: Path,
    *,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Judges a model and writes the verdict artifact.

    Args:
        dataset: the dataset artifact.
        holdout: the holdout artifact.
        architecture: the architecture artifact; its logs go into the report.
        model: the model artifact, with its twin.
        constitution: the constitution as a mapping.
        safety: the `safety` section of the config.
        verdict: folder to write.
        environ: names the store of the ledger (`SAFESCALE_STORE`) and its keys.

    Returns:
        What a pipeline's page shows: `decision`, `guarantee`, `metrics` (finite
        floats), `confusion`, `roc`, `markdown`, `report` (path of the HTML page), and
        `unseen_values` if the model does not know some of the rows' values.

    Raises:
        InputError: an input is missing, or no store is named for the ledger.
        IntegrityError: an input was changed, or inputs do not belong together.
    """
    parsed = Constitution.from_dict(constitution)
    config = SafetyConfig.from_params(safety)
    inputs = _Inputs(*(Path(p) for p in (dataset, holdout, architecture, model)))
    # Opened before anything is hashed: without a store, nothing else is worth a second.
    counter = None if config.rehearse else _UseCounter.open(config, environ)
    manifests = inputs.verified(parsed)
    # A rehearsal is use number 0 and guarantees nothing: it reads no sealed row.
    use = SealedUse(0, parsed.gate.planned_submissions, "none")
    if counter:
        # Before the rows are read: a run that is killed from here on has spent its use.
        use = counter.reserve(inputs, manifests, parsed)
    say_progress(1, 4, "inputs verified")
    schema, split, evidence = inputs.predictions(rehearse=config.rehearse)
    say_progress(2, 4, "rows answered by model and twin")
    submission = Submission(
        model=manifests["model"].identity,
        dataset=manifests["dataset"].identity,
        holdout=manifests["holdout"].identity,
        mode=REHEARSAL if config.rehearse else SEALED,
        ledger=config.ledger,
        use=use,
        classes=schema.classes,
        positive=schema.positive,
        bins=config.calibration_bins,
        base_rates=class_shares(inputs.dataset, schema),
    )
    with writing(
        verdict,
        kind="verdict",
        stage=STAGE,
        config_digest=config.digest,
        parents={name: manifest.identity for name, manifest in manifests.items()},
    ) as draft:
        # The page draws logs that are no part of any identity, by a matplotlib that
        # may change, and bears the day: the verdict must not depend on it.
        draft.outside_identity |= {REPORT, PROVENANCE}
        write_evidence(draft.folder / EVIDENCE, evidence, split.rows)
        digest = digest_file(draft.folder / EVIDENCE)
        judged = assemble(parsed, evidence, submission, digest)
        say_progress(3, 4, "promises judged")
        _save(draft.folder, judged, parsed, inputs)
        if counter:
            # Whoever can read a figure may choose by it, so the rows are opened
            # first; on leaving this block the folder gets its name and is readable.
            counter.mark_opened()
    summary = summarise(judged, parsed, evidence, Path(verdict) / REPORT)
    # A count of a sensitive value would undo what the counts hide.
    if found := [
        f"{unseen.column}: {unseen.shown}"
        for unseen in unseen_inputs(schema, split.features)
        if unseen.column not in schema.sensitive
    ]:
        summary["unseen_values"] = "; ".join(found)
    return summary


@dataclass(frozen=True)
class _Inputs:
    """The folders of the artifacts that a verdict is about."""

    dataset: Path
    holdout: Path
    architecture: Path
    model: Path

    def verified(self, constitution: Constitution) -> dict[str, Manifest]:
        """Checks every byte, and that the four and the constitution belong together.

        Returns:
            The manifests, by kind of artifact.
        """
        manifests = {kind: verify(path, kind) for kind, path in vars(self).items()}
        model = manifests["model"]
        for role in ("dataset", "architecture"):
            _same(f"model's {role}", model.parents.get(role), manifests[role].identity)
        # Both come out of one stage and neither is the other's parent, so the dataset's
        # source file names its holdout.
        origin = read_json(self.dataset / "source.json")
        _same("dataset's holdout", origin.get("holdout"), manifests["holdout"].identity)
        own = digest_json(read_json(self.model / CONSTITUTION))
        _same("model's constitution", own, constitution.digest)
        # The codes of labels and groups mean the same in all three.
        schema = Schema.load(self.dataset).digest
        _same("holdout's schema", Schema.load(self.holdout).digest, schema)
        _same("model's schema", Schema.load(self.model).digest, schema)
        return manifests

    def predictions(self, *, rehearse: bool) -> tuple[Schema, Split, Evidence]:
        """Lets model and twin predict *select* of the dataset, or the sealed rows."""
        # torch comes in here, once the cheap checks have passed and the use is counted.
        from safescale_ammt.model.predictor import Predictor

        if rehearse:
            data = Dataset.load(self.dataset)
            schema, split = data.schema, data.splits["select"]
        else:
            sealed = Holdout.load(self.holdout)
            schema, split = sealed.schema, sealed.split
        score, prediction = Predictor.load(self.model).predict_table(split.features)
        twin = Predictor.load(self.model / "twin")
        twin_score, twin_prediction = twin.predict_table(split.features)
        evidence = Evidence(
            label=split.label,
            prediction=prediction,
            score=score,
            groups={
                name: (schema.groups[name], split.groups[name]) for name in split.groups
            },
            twin_prediction=twin_prediction,
            twin_score=twin_score,
            classes=len(schema.classes),
            positive=schema.classes.index(schema.positive) if schema.positive else None,
        )
        return schema, split, evidence

    def provenance(self, judged: Verdict) -> Provenance:
        """Says when the verdict was made, and of which rows."""
        source = read_json(self.dataset / "source.json")
        counts = Counts.load(self.dataset).splits
        schema = Schema.load(self.dataset)
        of = f" = {schema.positive}" if schema.positive else " (several classes)"
        return Provenance(
            model=judged.model,
            mode=judged.mode,
            judged=utc_now().isoformat(timespec="seconds"),
            predicts=schema.label + of,
            rows={name: counts[name].rows for name in SPLITS},
            sealed_rows=counts["sealed"].rows,
            source_digest=source["source_digest"],
            days=source.get("window") or {},
        )


def _same(what: str, stated: str | None, given: str) -> None:
    if stated != given:
        raise IntegrityError(
            f"The {what} is {stated}, but the one given to {STAGE} is {given}; judge a "
            "model on the artifacts it was made from."
        )


@dataclass
class _UseCounter:
    """Counts the one use of sealed rows of this run in a ledger."""

    store: Store
    name: str
    use: ledger.Use | None = None

    @classmethod
    def open(cls, config: SafetyConfig, environ: Mapping[str, str]) -> _UseCounter:
        uri = environ.get(STORE, "")
        if not uri:
            raise InputError(
                f"{STORE} is not set, so the use of the sealed rows cannot be counted; "
                "set it to s3://BUCKET or file:///PATH, or rehearse (safety.rehearse: "
                "true)."
            )
        return cls(open_store(uri, environ=environ), LEDGERS[config.ledger])

    def reserve(
        self,
        inputs: _Inputs,
        manifests: Mapping[str, Manifest],
        constitution: Constitution,
    ) -> SealedUse:
        """Counts the use; of the sealed file only the row hashes are read so far."""
        hashes = read_parquet(inputs.holdout / SEALED_ROWS, ["_row"])
        self.use = ledger.reserve(
            self.store,
            rows=hashes["_row"].to_pylist(),
            model=manifests["model"].identity,
            holdout=manifests["holdout"].identity,
            planned=constitution.gate.planned_submissions,
            constitution=constitution.digest,
            name=self.name,
        )
        return SealedUse(self.use.number, self.use.planned, self.use.guarantee)

    def mark_opened(self) -> None:
        assert self.use is not None
        ledger.mark_opened(self.store, self.use, name=self.name)


def _save(
    folder: Path, judged: Verdict, constitution: Constitution, inputs: _Inputs
) -> None:
    """Writes verdict, findings, constitution, warnings, provenance and report.

    Raises:
        InputError: a line of the training log is not JSON.
    """
    judged.save(folder)
    warnings = read_warnings(inputs.dataset / AUDIT)
    # A bundle holds the verdict and not the dataset: its card needs them.
    save_warnings(folder, warnings)
    write_json(folder / CONSTITUTION, constitution.to_dict())
    # Logs are optional: a model from elsewhere has none, and the page says so.
    log = inputs.model / "training.jsonl"
    training = read_json_lines(log) if log.is_file() else []
    provenance = inputs.provenance(judged)
    provenance.save(folder)
    page = render(
        judged,
        constitution,
        training=training,
        search=_optional(inputs.architecture / "search.json"),
        control=_optional(inputs.architecture / "control.json"),
        power=_optional(inputs.architecture / "power.json"),
        provenance=provenance,
        warnings=warnings,
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def summarise(
    judged: Verdict, constitution: Constitution, evidence: Evidence, report: Path
) -> dict[str, Any]:
    """Returns what a pipeline's page shows of a verdict, as `run` does."""
    metrics: dict[str, float | None] = {
        **headline_metrics(judged),
        "accuracy": judged.accuracy,
        "twin_accuracy": judged.twin_accuracy,
        "rows": float(judged.rows),
        "alpha": judged.alpha,
        "passed": float(judged.decision == "pass"),
    }
    for finding, key in product(judged.findings, ("value", "lower", "upper")):
        metrics[f"{finding.principle}.{key}"] = getattr(finding, key)
    model = judged.figures["model"]
    return {
        "decision": judged.decision,
        "guarantee": judged.use.guarantee,
        "mode": judged.mode,
        # One NaN or infinity in its metadata fails a whole KFP task.
        "metrics": {
            name: float(value)
            for name, value in metrics.items()
            if value is not None and math.isfinite(value)
        },
        "confusion": {
            "classes": list(map(printable, judged.classes)),
            "counts": model["confusion"],
        },
        # Scores of more than two classes have neither a calibration nor one ROC curve.
        "roc": None if model["calibration"] is None else roc(evidence),
        "markdown": summary_markdown(judged, constitution),
        "report": report,
    }
