"""Stage 4: judge the model against the constitution on rows nobody has seen.

Always reports: a broken promise still yields a whole verdict and report. The
gate that refuses is the next stage. The order is what makes the numbers honest:

    verify inputs -> reserve the use in the ledger -> read and score the sealed
    rows -> judge -> mark the rows as opened -> make the verdict readable
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from safescale_ammt.config.sections import SafetyConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset, Holdout, Split
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import Manifest, verify, writing
from safescale_ammt.files.canonical import (
    digest_file,
    digest_json,
    read_json,
    write_json,
)
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
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.card import summary as summary_markdown
from safescale_ammt.reporting.report import render
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
        floats), `confusion`, `roc`, `markdown`, `report` (path of the HTML page).

    Raises:
        InputError: an input is missing, or no store is named for the ledger.
        IntegrityError: an input was changed, or inputs do not belong together.
    """
    rule = Constitution.from_dict(constitution)
    config = SafetyConfig.from_params(safety)
    places = _Places(*(Path(p) for p in (dataset, holdout, architecture, model)))
    book = None if config.rehearse else _Book.open(config, environ)
    inputs = places.verified(rule)
    use = book.reserve(places, inputs, rule) if book else _no_use(rule)
    schema, split = places.rows(rehearse=config.rehearse)
    evidence = _score(places.model, schema, split)
    submission = Submission(
        model=inputs["model"].identity,
        dataset=inputs["dataset"].identity,
        holdout=inputs["holdout"].identity,
        mode=REHEARSAL if config.rehearse else SEALED,
        ledger=config.ledger,
        use=use,
        classes=schema.classes,
        positive=schema.positive,
        bins=config.calibration_bins,
    )
    with writing(
        verdict,
        kind="verdict",
        stage=STAGE,
        config_digest=config.digest,
        parents={name: manifest.identity for name, manifest in inputs.items()},
    ) as draft:
        draft.outside_identity.add(REPORT)  # a picture of the verdict, not the verdict
        write_evidence(draft.folder / EVIDENCE, evidence, split.rows)
        digest = digest_file(draft.folder / EVIDENCE)
        judged = assemble(rule, evidence, submission, digest)
        _save(draft.folder, judged, rule, places)
        if book:
            # whoever could read a figure may have chosen by it: open, then show
            book.mark_opened()
    return summarise(judged, rule, evidence, Path(verdict) / REPORT)


@dataclass(frozen=True)
class _Places:
    """The folders of the artifacts that a verdict is about."""

    dataset: Path
    holdout: Path
    architecture: Path
    model: Path

    def verified(self, rule: Constitution) -> dict[str, Manifest]:
        """Checks every byte, and that the four belong together and to the rule."""
        found = {kind: verify(path, kind) for kind, path in vars(self).items()}
        trained = found["model"]
        for role in ("dataset", "architecture"):
            _same(f"model's {role}", trained.parents.get(role), found[role].identity)
        cut = read_json(self.dataset / "source.json").get("holdout")
        _same("dataset's holdout", cut, found["holdout"].identity)
        own = digest_json(read_json(self.model / CONSTITUTION))
        _same("model's constitution", own, rule.digest)
        ours, sealed, theirs = (
            Schema.load(path).digest
            for path in (self.dataset, self.holdout, self.model)
        )
        _same("holdout's schema", sealed, ours)
        _same("model's schema", theirs, ours)
        return found

    def rows(self, *, rehearse: bool) -> tuple[Schema, Split]:
        """Reads the rows to judge: *select* of the dataset, or the sealed ones."""
        if rehearse:
            data = Dataset.load(self.dataset)
            return data.schema, data.splits["select"]
        sealed = Holdout.load(self.holdout)
        return sealed.schema, sealed.split


def _same(what: str, stated: str | None, given: str) -> None:
    if stated != given:
        raise IntegrityError(
            f"The {what} is {stated}, but the one given to {STAGE} is {given}; judge a "
            "model on the artifacts it was made from."
        )


@dataclass
class _Book:
    """The ledger that counts uses of sealed rows, and the use of this run."""

    store: Store
    name: str
    use: ledger.Use | None = None

    @classmethod
    def open(cls, config: SafetyConfig, environ: Mapping[str, str]) -> _Book:
        uri = environ.get(STORE, "")
        if not uri:
            raise InputError(
                f"{STORE} is not set, so the use of the sealed rows cannot be counted; "
                "set it to s3://BUCKET or file:///PATH, or rehearse (safety.rehearse: "
                "true)."
            )
        return cls(open_store(uri, environ=environ), LEDGERS[config.ledger])

    def reserve(
        self, places: _Places, inputs: Mapping[str, Manifest], rule: Constitution
    ) -> SealedUse:
        """Counts the use; of the sealed file only the row hashes are read so far."""
        hashes = pq.read_table(places.holdout / SEALED_ROWS, columns=["_row"])
        self.use = ledger.reserve(
            self.store,
            rows=hashes["_row"].to_pylist(),
            model=inputs["model"].identity,
            holdout=inputs["holdout"].identity,
            planned=rule.gate.planned_submissions,
            constitution=rule.digest,
            name=self.name,
        )
        return SealedUse(self.use.number, self.use.planned, self.use.guarantee)

    def mark_opened(self) -> None:
        assert self.use is not None
        ledger.mark_opened(self.store, self.use, name=self.name)


def _no_use(rule: Constitution) -> SealedUse:
    return SealedUse(0, rule.gate.planned_submissions, "none")


def _score(model: Path, schema: Schema, split: Split) -> Evidence:
    """Lets model and twin answer every row; torch is imported only here."""
    from safescale_ammt.model.predictor import Predictor

    score, prediction = Predictor.load(model).predict_table(split.features)
    twin = Predictor.load(model / "twin").predict_table(split.features)
    return Evidence(
        label=split.label,
        prediction=prediction,
        score=score,
        groups={
            name: (schema.groups[name], split.groups[name]) for name in split.groups
        },
        twin_prediction=twin[1],
        twin_score=twin[0],
        classes=len(schema.classes),
        positive=schema.classes.index(schema.positive) if schema.positive else None,
    )


def _save(folder: Path, judged: Verdict, rule: Constitution, places: _Places) -> None:
    """Writes verdict, findings, constitution and report."""
    judged.save(folder)
    write_json(folder / CONSTITUTION, rule.to_dict())
    page = render(
        judged,
        rule,
        training=_events(places.model / "training.jsonl"),
        search=_optional(places.architecture / "search.json"),
        power=_optional(places.architecture / "power.json"),
        days=read_json(places.dataset / "source.json").get("window"),
    )
    (folder / REPORT).write_text(page, encoding="utf-8")


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def _events(path: Path) -> list[dict[str, Any]]:
    """Reads the training log; a line that is no JSON is said to be none."""
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except ValueError:
        raise InputError(f"{path} holds a line that is not JSON.") from None


def summarise(
    judged: Verdict, rule: Constitution, evidence: Evidence, report: Path
) -> dict[str, Any]:
    """Returns what a pipeline's page shows of a verdict."""
    metrics = {
        "accuracy": judged.accuracy,
        "twin_accuracy": judged.twin_accuracy,
        "rows": float(judged.rows),
        "alpha": judged.alpha,
        "passed": float(judged.decision == "pass"),
    }
    for finding in judged.findings:
        for key in ("value", "lower", "upper"):
            metrics[f"{finding.principle}.{key}"] = getattr(finding, key)
    scored = judged.figures["model"]["calibration"] is not None
    return {
        "decision": judged.decision,
        "guarantee": judged.use.guarantee,
        "mode": judged.mode,
        "metrics": {k: float(v) for k, v in metrics.items() if _finite(v)},
        "confusion": {
            "classes": list(judged.classes),
            "counts": judged.figures["model"]["confusion"],
        },
        "roc": roc(evidence) if scored else None,
        "markdown": summary_markdown(judged, rule),
        "report": report,
    }


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
