"""The record: what was promised, trained, measured and decided, as a chain.

`events.jsonl` is a hash chain: each line holds the digest of the line before
it, so that no line can be changed, dropped or moved without breaking all that
follow. Beside it lie two in-toto Statements over the model's files: a
`safety-decision` of our own and a `test-result` (v0.1). They are *not signed*:
a chain shows that a record was not changed in part, not who wrote it. The
anchor is the bundle digest in the registry's own events.

The record holds no times: the same work gives the same record. When something
was registered stands in the registry.

Sources: in-toto attestation framework, Statement v1 and Test Result v0.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import Manifest
from safescale_ammt.files.canonical import (
    digest_json,
    json_file,
    read_json_lines,
)
from safescale_ammt.files.json_text import LARGEST
from safescale_ammt.files.regular import read_regular
from safescale_ammt.judging.answer import NOT_PASSED, Told

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SAFETY_DECISION = "urn:safescale-ammt:safety-decision:v0.1"
EVENTS = "events.jsonl"
START = "sha256:" + "0" * 64
"""The `previous` of the first event."""
# Keys that `chain` adds to an event; the rest is what the event says.
_LINKS = ("sequence", "previous", "digest")
# Test Result v0.1 knows these three words alone; a model that waits for a person has
# neither passed nor failed.
_RESULTS = {"pass": "PASSED", "needs_human": "WARNED", "fail": "FAILED"} | {
    # One word for both, and so the one that claims less.
    NOT_PASSED: "WARNED"
}


def chain(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Numbers events and links each to the one before it.

    Example:
        >>> [e["sequence"] for e in chain([{"event": "a"}, {"event": "b"}])]
        [0, 1]
    """
    linked: list[dict[str, Any]] = []
    previous = START
    for sequence, event in enumerate(events):
        # Number and link are inside of what is hashed: a line that moves breaks both.
        body = {**event, "sequence": sequence, "previous": previous}
        previous = digest_json(body)
        linked.append({**body, "digest": previous})
    return linked


def write_chain(path: Path, events: Iterable[Mapping[str, Any]]) -> str:
    """Writes a chain, one event a line, and returns the digest of its head."""
    linked = chain(events)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(json_file(e) for e in linked))
    return str(linked[-1]["digest"])


def read_chain(path: Path) -> list[dict[str, Any]]:
    """Reads a chain and checks every link.

    Raises:
        IntegrityError: a line is no event, was changed, dropped or moved.
    """
    try:
        data = read_regular(path, LARGEST)
        events = [dict(event) for event in read_json_lines(path)]
        spelled = b"".join(json_file(event) for event in events)
    except (InputError, ValueError, TypeError):
        raise IntegrityError(f"{path} is not a chain of events.") from None
    check_chain(events, str(path))
    # Of a key that stands twice, a parser sees one value and a person two.
    if data != spelled:
        raise IntegrityError(f"{path} is not spelled as a chain of events is.")
    return events


def check_chain(events: Sequence[Mapping[str, Any]], where: str) -> None:
    """Checks that every event has its own digest and follows the one before.

    Raises:
        IntegrityError: the first event that does not.
    """
    # Linking the bare events again checks digests, order and numbers at once.
    bare = ({k: v for k, v in e.items() if k not in _LINKS} for e in events)
    for number, (stated, linked) in enumerate(zip(events, chain(bare), strict=True)):
        if stated != linked:
            raise IntegrityError(
                f"Event {number} of {where} breaks the chain: it states "
                f"{stated.get('digest')}, its contents and place give "
                f"{linked['digest']}."
            )


def model_events(
    verdict: Told,
    judged: Manifest,
    constitution: Constitution,
    model: Manifest,
) -> list[dict[str, Any]]:
    """Returns what happened to a model as events, from the promise to the decision.

    Args:
        verdict: the verdict.
        judged: the verdict artifact's manifest.
        constitution: the constitution it was judged by.
        model: the model artifact's manifest.
    """
    return [
        {
            "event": "promised",
            "constitution": constitution.digest,
            "id": constitution.id,
            "version": constitution.version,
            "owner": constitution.owner,
            "principles": [p.sentence() for p in constitution.principles],
        },
        {
            "event": "trained",
            "model": model.identity,
            "stage": model.stage,
            "parents": dict(model.parents),
            "config": model.config_digest,
            "code_version": model.code_version,
        },
        {
            # A rehearsal uses no sealed rows; its `mode` and use number 0 say so.
            "event": "sealed-rows-used",
            "mode": verdict.mode,
            "ledger": verdict.ledger,
            "holdout": verdict.holdout,
            "rows": verdict.rows,
            "use": verdict.use.to_dict(),
        },
        *(
            {
                "event": "measured",
                "principle": f.principle,
                "outcome": f.outcome,
                "finding": digest_json(f.to_dict()),
            }
            for f in verdict.findings
        ),
        {
            "event": "decided",
            "decision": verdict.decision,
            "reasons": list(verdict.reasons),
            "verdict": judged.identity,
            # Of an answer nothing is named that tells of a figure.
            **({"evidence": verdict.evidence} if verdict.evidence else {}),
            "stage": judged.stage,
            "parents": dict(judged.parents),
            "config": judged.config_digest,
            "code_version": judged.code_version,
        },
    ]


def statement(
    model: Manifest, predicate_type: str, predicate: Mapping[str, Any]
) -> dict[str, Any]:
    """Makes an unsigned in-toto Statement over the model's identity files.

    Args:
        model: the model artifact's manifest.
        predicate_type: URI of the predicate's form.
        predicate: what is stated about the files.
    """
    # Logs and times differ from run to run; the same model has the same subjects.
    # in-toto writes digests as {algorithm: hex}, without a prefix.
    subjects = [
        {
            "name": f"model/{name}",
            "digest": {"sha256": entry.sha256.removeprefix("sha256:")},
        }
        for name, entry in sorted(model.files.items())
        if entry.identity
    ]
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def decision_statement(
    verdict: Told,
    identity: str,
    constitution: Constitution,
    model: Manifest,
) -> dict[str, Any]:
    """Makes the decision's Statement: digests, use, outcomes, reasons."""
    predicate = {
        "model": model.identity,
        "verdict": identity,
        "constitution": {
            "digest": constitution.digest,
            "id": constitution.id,
            "version": constitution.version,
            "owner": constitution.owner,
        },
        "holdout": verdict.holdout,
        "mode": verdict.mode,
        "ledger": verdict.ledger,
        "use": verdict.use.to_dict(),
        "alpha": verdict.alpha,
        "decision": verdict.decision,
        "reasons": list(verdict.reasons),
        "findings": {f.principle: f.outcome for f in verdict.findings},
    }
    return statement(model, SAFETY_DECISION, predicate)


def result_statement(
    verdict: Told, constitution: Constitution, model: Manifest
) -> dict[str, Any]:
    """Makes the findings' Statement, a Test Result v0.1.

    A principle that holds has passed; one that is undecided, that promises nothing, or
    that is soft and fails, has warned; any other has failed.
    """
    names = ("passedTests", "warnedTests", "failedTests")
    tests: dict[str, list[str]] = {name: [] for name in names}
    for finding in verdict.findings:
        # A soft principle decides nothing, so a reader who goes by `failedTests`
        # must not find it there.
        if finding.outcome == "holds" and not finding.promises_nothing:
            result = "passedTests"
        elif finding.outcome == "fails" and finding.tier != "soft":
            result = "failedTests"
        else:
            result = "warnedTests"
        tests[result].append(finding.principle)
    name = f"{constitution.id} {constitution.version}"
    sha256 = constitution.digest.removeprefix("sha256:")
    predicate = {
        "result": _RESULTS[verdict.decision],
        "configuration": [{"name": name, "digest": {"sha256": sha256}}],
        **tests,
    }
    return statement(model, TEST_RESULT, predicate)


def write_record(
    folder: Path,
    verdict: Told,
    judged: Manifest,
    constitution: Constitution,
    model: Manifest,
) -> None:
    """Writes `events.jsonl` and the two Statements into a folder."""
    write_chain(folder / EVENTS, model_events(verdict, judged, constitution, model))
    written = statements(verdict, judged.identity, constitution, model)
    for name, value in written.items():
        (folder / name).write_bytes(json_file(value))


def statements(
    verdict: Told,
    identity: str,
    constitution: Constitution,
    model: Manifest,
) -> dict[str, dict[str, Any]]:
    """Returns the Statements by file name."""
    return {
        "safety-decision.intoto.json": decision_statement(
            verdict, identity, constitution, model
        ),
        "test-result.intoto.json": result_statement(verdict, constitution, model),
    }


def verify_record(
    folder: Path,
    verdict: Told,
    judged: Manifest,
    constitution: Constitution,
    model: Manifest,
    *,
    ignore: Sequence[str] = (),
) -> None:
    """Checks the chain and that the record is of this verdict and model.

    The arguments are those of `model_events`; keys of events in `ignore` may have been
    worded otherwise by another version.

    Raises:
        IntegrityError: a broken link, or an event or Statement that departs
            from the verdict.
    """
    # A chain that is consistent in itself can still be that of another model, so the
    # whole record is written again from the verdict and compared.
    stated = read_chain(folder / EVENTS)
    expected = chain(model_events(verdict, judged, constitution, model))
    left_out = {*ignore, *(_LINKS if ignore else ())}
    said, derived = (
        [{k: v for k, v in event.items() if k not in left_out} for event in events]
        for events in (stated, expected)
    )
    if said != derived:
        raise IntegrityError(
            f"{folder / EVENTS} ends in {stated[-1]['digest'] if stated else 'nothing'}"
            f", the verdict's own events end in {expected[-1]['digest']}."
        )
    identity = judged.identity
    for name, value in statements(verdict, identity, constitution, model).items():
        path = folder / name
        stored = read_regular(path, LARGEST) if path.is_file() else b""
        if stored != json_file(value):
            raise IntegrityError(f"{path} does not tell of verdict {identity}.")
