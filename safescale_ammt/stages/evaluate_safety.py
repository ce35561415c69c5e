"""Stage 4: judge the model against the constitution on rows nobody has seen.

It always reports: a violated promise still yields a complete verdict and report.
The gate that refuses is the next stage. The order makes the numbers honest:

    verify inputs, fetch the sealed rows -> look for slices among development rows ->
    reserve the use in the ledger -> read and score the rows by batches -> judge; what
    is told of them is in memory, or in a file without a name -> mark the rows as
    opened, by the digests of evidence and verdict -> write the first byte of them that
    another could read

Under `gate.feedback: bit` the rows stay closed: the ledger records that one bit is
told, and verdict and evidence go to the auditor's part of the store
(`releasing.answers`).

The sealed rows come from the protected prefix of the store of data, and the evidence
goes there (`store.protected`): the artifacts of a run name them.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
)
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from safescale_ammt.config.sections import SPLITS, SafetyConfig
from safescale_ammt.constitution.constitution import BIT, Constitution
from safescale_ammt.data.audit_warnings import (
    AUDIT,
    WARNINGS,
    read_warnings,
    warnings_form,
)
from safescale_ammt.data.bias_findings import examined_form, read_examined
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.dataset import ROW_COLUMN, Dataset
from safescale_ammt.data.holdout import SEALED_ROWS, Holdout, StoredRows
from safescale_ammt.data.row_keys import RowKeys
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.errors import IntegrityError
from safescale_ammt.execution import utc_now
from safescale_ammt.files.artifacts import (
    Draft,
    FileEntry,
    Manifest,
    describe_contents,
    verify,
    writing,
)
from safescale_ammt.files.canonical import (
    digest_json,
    digest_stream,
    json_file,
    read_json,
)
from safescale_ammt.files.disk import local_disk
from safescale_ammt.files.parquet import parquet_rows, read_fixed
from safescale_ammt.judging.answer import Answer
from safescale_ammt.judging.assembly import Submission, assemble
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    Evidence,
    distinct_count,
    evidence_digest,
    write_evidence,
)
from safescale_ammt.judging.findings import HOLDS
from safescale_ammt.judging.profile import roc
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.verdict import (
    REHEARSAL,
    SEALED,
    SealedUse,
    Verdict,
)
from safescale_ammt.printable import printable
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.answers import answer_summary, tell_answer
from safescale_ammt.releasing.attack_seed import attack_seed, battery_time
from safescale_ammt.releasing.attacking import under_attack
from safescale_ammt.releasing.card import summary as summary_markdown
from safescale_ammt.releasing.contents import OUTSIDE, check_covered
from safescale_ammt.releasing.even_time import even_time
from safescale_ammt.releasing.image_attacks import check_attacks
from safescale_ammt.releasing.page import REPORT, page_from
from safescale_ammt.releasing.rescoring import answered
from safescale_ammt.releasing.same_rows import why_repeated
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.releasing.slice_rows import proposed_slices, with_slices
from safescale_ammt.reporting.headline_table import headline_metrics
from safescale_ammt.reporting.logs import log_contents
from safescale_ammt.reporting.measure_bar import measures_of
from safescale_ammt.reporting.provenance import (
    PROVENANCE,
    Provenance,
    prediction_words,
)
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import data_store
from safescale_ammt.store.protected import (
    check_apart,
    made_whole,
    private_scratch,
    set_apart,
)
from safescale_ammt.store.shards import Shards

STAGE = "evaluate_safety"
CONSTITUTION = "constitution.json"


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
    ask: Callable[[Path, StoredRows, UnseenTally], Evidence] = answered,
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
        environ: names the store of rows, evidence and ledger (`SAFESCALE_STORE`), and
            its keys.
        ask: lets model and twin answer the rows.

    Returns:
        What a pipeline's page shows: `decision`, `guarantee`, `metrics` (finite
        floats), `confusion`, `roc`, `markdown`, `report` (path of the HTML page), and
        `unseen_values` if the model does not know some of the rows' values; of an
        answer what `summarise_answer` returns.

    Raises:
        InputError: an input is missing or of an earlier form, no store is named, or it
            has not the sealed rows.
        ConstitutionError: a threat changes columns that are not there, or not so.
        IntegrityError: an input was changed, or inputs do not belong together.
        StorageError: the store fails, or does not let the judge in.
    """
    verdict = Path(verdict)
    parsed = Constitution.from_dict(constitution)
    config = SafetyConfig.from_params(safety)
    inputs = _Inputs(*(Path(p) for p in (dataset, holdout, architecture, model)))
    # Opened before anything is hashed: without a store, nothing else is worth a second.
    store = data_store(environ)
    counter = None if config.rehearse else _UseCounter(store, config.ledger)
    one_bit = counter is not None and parsed.gate.feedback == BIT
    evenly: Callable[[], AbstractContextManager[None]] = (
        even_time if one_bit else nullcontext
    )
    manifests = inputs.verified(parsed)
    # What cannot be changed so is told before a use is counted.
    check_attacks(parsed, inputs.dataset, inputs.model)
    # A rehearsal is use number 0 and guarantees nothing: it reads no sealed row.
    use = SealedUse(0, parsed.gate.planned_submissions, "none")
    with private_scratch(verdict) as scratch, ExitStack() as held:
        with ExitStack() as stack:
            if counter:
                # Rows that are not there, or not those, cost no use.
                inputs = stack.enter_context(inputs.with_rows(store, verdict))
            development = Dataset.of(
                Shards(inputs.dataset, manifests["dataset"], environ, verdict)
            )
            rehearsed = development if config.rehearse else None
            # Nor does what goes wrong with development rows.
            searched = proposed_slices(
                inputs.model,
                development,
                inputs.judged_count(rehearsed),
                config=config,
                min_n=parsed.groups.min_n,
            )
            if counter:
                # Before they are read: a run that is killed from here on has spent it.
                use = counter.reserve(inputs, manifests, parsed)
            say_progress(1, 4, "inputs verified")
            stored, drawn_of = inputs.judged_rows(rehearsed)
            schema, tally = stored.schema, UnseenTally(stored.schema)
            evidence = ask(inputs.model, stored, tally)
            # Changes are tried of right answers alone, and until one is wrong.
            with evenly(), battery_time(parsed, one_bit=one_bit):
                evidence = under_attack(
                    inputs.model,
                    stored,
                    evidence,
                    parsed.judged_threats,
                    manifests["holdout"].identity,
                    seed=attack_seed(store, parsed, manifests, sealed=bool(counter)),
                )
                evidence, slices = with_slices(
                    stored, evidence, *searched, parsed.groups.min_n
                )
            written = held.enter_context(_written(scratch, evidence, stored))
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
            base_rates=development.class_shares(),
            sampling=SamplingModel(
                schema.unit, drawn_of, len(stored), written.distinct
            ),
            slices=slices,
        )
        held.enter_context(evenly())
        # The ledger's event tells when the answer was ready: that is even, too.
        with evenly():
            judged = assemble(parsed, evidence, submission, written.entry.sha256)
            contents = _contents(judged, parsed, inputs)
        say_progress(3, 4, "promises judged")
        parents = {name: manifest.identity for name, manifest in manifests.items()}
        whole = _manifest(contents, written.entry, parents, config.digest)
        if counter and one_bit:
            answer = tell_answer(
                store,
                counter.counted,
                judged,
                whole,
                {**contents, EVIDENCE: written.file},
                evidence=written.says,
                constitution=parsed,
                path=verdict,
            )
            return summarise_answer(answer, parsed, verdict / REPORT)
        with writing(
            scratch / "verdict",
            kind="verdict",
            stage=STAGE,
            config_digest=config.digest,
            parents=parents,
        ) as draft:
            draft.outside_identity |= OUTSIDE["verdict"]
            if counter:
                # Whoever can read a figure may choose by it. Until this event stands
                # all that tells of the rows is in memory, or in a file without a name:
                # a kill leaves nothing behind.
                counter.mark_opened(written.says, whole.identity)
            written.beside(contents, draft.folder)
        set_apart(store, scratch / "verdict", verdict)
    summary = summarise(judged, parsed, evidence, verdict / REPORT)
    # A count of a sensitive value would undo what the counts hide.
    told = tally.told().items()
    if found := [f"{n}: {shown}" for n, shown in told if n not in schema.sensitive]:
        summary["unseen_values"] = "; ".join(found)
    return summary


@dataclass(frozen=True)
class _Written:
    """Evidence in a file that has no name yet, at its beginning.

    Attributes:
        file: its bytes.
        entry: of the manifest.
        says: digest of what it says, row by row.
        distinct: distinct rows.
    """

    file: BinaryIO
    entry: FileEntry
    says: str
    distinct: int

    def beside(self, contents: Mapping[str, bytes], folder: Path) -> None:
        """Writes contents by name into a folder, and the evidence beside them."""
        for name, data in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        with (folder / EVIDENCE).open("wb") as file:
            shutil.copyfileobj(self.file, file)


@contextmanager
def _written(
    scratch: Path, evidence: Evidence, stored: StoredRows
) -> Iterator[_Written]:
    """Writes evidence aside: whatever becomes of this process, the file goes with it.

    The hashes of the rows are held here alone, while no figure is made.
    """
    rows = stored.hashes()
    with TemporaryFile(dir=scratch) as file:
        with local_disk("writing evidence aside"):
            write_evidence(file, evidence, rows)
        size = file.tell()
        file.seek(0)
        digest = digest_stream(file)
        file.seek(0)
        says = evidence_digest(evidence, rows)
        distinct = distinct_count(rows, in_place=True)
        del rows
        yield _Written(file, FileEntry(digest, size, True), says, distinct)


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
        check_apart(self.holdout, manifests["holdout"])
        check_covered(manifests)
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

    @contextmanager
    def with_rows(self, store: Store, beside: Path) -> Iterator[_Inputs]:
        """Gives the same with a whole holdout, its rows fetched and checked."""
        with made_whole(store, self.holdout, "holdout", beside) as rows:
            yield replace(self, holdout=rows)

    def judged_rows(self, rehearsed: Dataset | None) -> tuple[StoredRows, int]:
        """Returns *select* of the dataset, or the sealed rows.

        Of an entity one row is judged, in a rehearsal as in earnest.

        Args:
            rehearsed: the dataset, in a rehearsal.

        Returns:
            The judged rows, and the rows there were before one of each entity was
            drawn.
        """
        if rehearsed:
            stored = StoredRows.of_split(rehearsed, "select")
            return stored, stored.rows
        sealed = Holdout.load(self.holdout)
        return sealed.stored, sealed.rows

    def judged_count(self, rehearsed: Dataset | None) -> int:
        """Counts what `judged_rows` returns, and reads no row of it that is sealed."""
        if rehearsed:
            return len(self.judged_rows(rehearsed)[0])
        return parquet_rows(self.holdout / SEALED_ROWS)

    def provenance(self, judged: Verdict) -> Provenance:
        """Says when the verdict was made, and of which rows."""
        source = read_json(self.dataset / "source.json")
        counts = Counts.load(self.dataset).splits
        schema = Schema.load(self.dataset)
        return Provenance(
            model=judged.model,
            mode=judged.mode,
            judged=utc_now().isoformat(timespec="seconds"),
            predicts=prediction_words(schema.label, schema.positive),
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
    ledger: str
    use: Use | None = None

    def reserve(
        self,
        inputs: _Inputs,
        manifests: Mapping[str, Manifest],
        constitution: Constitution,
    ) -> SealedUse:
        """Counts the use; of the sealed file only the row hashes are read so far."""
        rows = parquet_rows(inputs.holdout / SEALED_ROWS)
        known = RowKeys.load(inputs.holdout)
        if known.parts.rows != rows:
            raise IntegrityError(
                f"{inputs.holdout} holds {rows:,} sealed rows and keys of "
                f"{known.parts.rows:,}; prepare the data anew."
            )
        self.use = ledger.reserve(
            self.store,
            rows=read_fixed(inputs.holdout / SEALED_ROWS, ROW_COLUMN, ROW),
            model=manifests["model"].identity,
            holdout=manifests["holdout"].identity,
            planned=constitution.gate.planned_submissions,
            constitution=constitution.digest,
            ledger=self.ledger,
            keys=known.whole,
            parts=known.parts,
        )
        if why := why_repeated(self.use, known.parts.twins):
            print(why, flush=True)
        return SealedUse(self.use.number, self.use.planned, self.use.guarantee)

    @property
    def counted(self) -> Use:
        """The use, once it is reserved."""
        assert self.use is not None
        return self.use

    def mark_opened(self, evidence: str, verdict: str) -> None:
        use = self.counted
        ledger.mark_opened(self.store, use, evidence=evidence, verdict=verdict)


def _manifest(
    contents: Mapping[str, bytes],
    evidence: FileEntry,
    parents: Mapping[str, str],
    config: str,
) -> Manifest:
    """Returns the manifest that a verdict will have, before a byte of it is written."""
    # The page draws logs that are no part of any identity, by a matplotlib that may
    # change, and bears the day: the verdict must not depend on it.
    draft = Draft(Path(), dict(parents), set(OUTSIDE["verdict"]))
    whole = describe_contents(contents, draft, "verdict", STAGE, config)
    return replace(whole, files={**whole.files, EVIDENCE: evidence})


def _contents(
    judged: Verdict, constitution: Constitution, inputs: _Inputs
) -> dict[str, bytes]:
    """Returns verdict, findings, constitution, warnings, provenance and report.

    Raises:
        InputError: a log is not JSON, or of another form.
    """
    logs = log_contents(inputs.model, inputs.architecture)
    warnings = read_warnings(inputs.dataset / AUDIT)
    provenance = inputs.provenance(judged)
    examined = read_examined(inputs.dataset / AUDIT, "bias")
    page = page_from(
        judged, constitution, provenance, warnings, logs, examined=examined
    )
    forms = {
        **judged.files(),
        # A bundle holds the verdict and not the dataset: its card needs them.
        WARNINGS: warnings_form(warnings, examined_form(examined)),
        CONSTITUTION: constitution.to_dict(),
        PROVENANCE: asdict(provenance),
    }
    files = {name: json_file(value) for name, value in forms.items()}
    return {**files, **logs, REPORT: page.encode()}


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
    for finding in judged.findings:
        # The lines beside the figures: of two runs with equal figures one may hold.
        own, *floors = measures_of(finding)
        for key, measure in (("", own), *(("floor_", floor) for floor in floors)):
            prefix = f"{finding.principle}.{key}"
            metrics[f"{prefix}value"] = measure.value
            metrics[f"{prefix}lower"] = measure.lower
            metrics[f"{prefix}upper"] = measure.upper
        metrics[f"{finding.principle}.threshold"] = finding.threshold
        metrics[f"{finding.principle}.floor"] = finding.floor
        metrics[f"{finding.principle}.holds"] = float(finding.outcome == HOLDS)
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


def summarise_answer(
    answer: Answer, constitution: Constitution, report: Path
) -> dict[str, Any]:
    """Returns what a pipeline's page shows of an answer, as `run` does.

    Drawings and counts are empty: each would tell more than the bit. Nor is told what
    of the sealed rows the model does not know.
    """
    return {
        "decision": answer.decision,
        "guarantee": answer.use.guarantee,
        "mode": answer.mode,
        "submissions_left": answer.submissions_left,
        "metrics": {
            "alpha": answer.alpha,
            "passed": float(answer.passed),
            "rows": float(answer.rows),
            "submissions_left": float(answer.submissions_left),
        },
        "confusion": {"classes": [], "counts": []},
        "roc": None,
        "markdown": answer_summary(answer, constitution),
        "report": report,
    }
