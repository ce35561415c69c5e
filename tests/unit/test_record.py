"""The record: a chain that cannot be changed by halves, and two Statements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safety_world import constitution, evidence, submission, write_model, write_verdict

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.releasing import record
from safescale_ammt.releasing.record import chain, read_chain, write_chain, write_record

EVENTS = [{"event": "a"}, {"event": "b", "n": 1}, {"event": "c"}]


def test_each_event_names_the_digest_of_the_one_before() -> None:
    linked = chain(EVENTS)

    assert [e["sequence"] for e in linked] == [0, 1, 2]
    assert linked[0]["previous"] == record.START
    assert linked[2]["previous"] == linked[1]["digest"]


def test_a_chain_reads_back_as_it_was_written(tmp_path: Path) -> None:
    head = write_chain(tmp_path / "e.jsonl", EVENTS)

    assert read_chain(tmp_path / "e.jsonl")[-1]["digest"] == head


@given(st.data())
def test_any_changed_dropped_or_moved_line_breaks_the_chain(
    data: st.DataObject,
) -> None:
    linked = chain({"event": "e", "n": n} for n in range(6))
    lines = [json.dumps(e) for e in linked]
    kind = data.draw(st.sampled_from(["change", "drop", "swap"]))
    at = data.draw(st.integers(0, 4))
    if kind == "change":
        lines[at] = json.dumps({**linked[at], "n": 99})
    elif kind == "drop":
        del lines[at]
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]

    with pytest.raises(IntegrityError, match="breaks the chain"):
        record.check_chain([json.loads(line) for line in lines], "here")


def test_a_line_that_is_no_event_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text("nonsense\n")

    with pytest.raises(IntegrityError, match="not a chain"):
        read_chain(tmp_path / "e.jsonl")


def written(tmp_path: Path, gap: float = 0.0) -> Any:
    rule = constitution()
    model = write_model(tmp_path / "model", rule)
    verdict = write_verdict(
        tmp_path / "verdict", rule, evidence(gap=gap), submission(model.identity)
    )
    about = (verdict, read_manifest(tmp_path / "verdict"), rule, model)
    write_record(tmp_path / "record", *about)
    return about


def test_a_record_verifies_against_its_own_verdict(tmp_path: Path) -> None:
    about = written(tmp_path)

    record.verify_record(tmp_path / "record", *about)


def test_statements_name_the_model_files_and_say_what_passed(tmp_path: Path) -> None:
    _, _, rule, model = written(tmp_path)
    told = json.loads((tmp_path / "record/test-result.intoto.json").read_text())

    assert told["_type"] == "https://in-toto.io/Statement/v1"
    assert told["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    names = {s["name"]: s["digest"]["sha256"] for s in told["subject"]}
    weights = model.files["weights.safetensors"].sha256
    assert f"sha256:{names['model/weights.safetensors']}" == weights
    assert "model/training.jsonl" not in names
    predicate = told["predicate"]
    assert predicate["result"] == "PASSED"
    assert predicate["passedTests"] == ["equal-opportunity", "race-parity", "useful"]
    assert predicate["configuration"][0]["digest"] == {"sha256": rule.digest[7:]}


def test_a_broken_hard_promise_is_a_failed_test(tmp_path: Path) -> None:
    written(tmp_path, gap=0.5)
    told = json.loads((tmp_path / "record/test-result.intoto.json").read_text())

    assert told["predicate"]["result"] == "FAILED"
    assert told["predicate"]["failedTests"] == ["equal-opportunity"]


def test_a_record_of_another_verdict_is_refused(tmp_path: Path) -> None:
    verdict, judged, rule, model = written(tmp_path)
    other = replace(judged, parents={**judged.parents, "holdout": "sha256:other"})

    with pytest.raises(IntegrityError, match="events end in"):
        record.verify_record(tmp_path / "record", verdict, other, rule, model)


def test_another_version_may_word_the_promises_otherwise_and_nothing_else(
    tmp_path: Path,
) -> None:
    verdict, judged, rule, model = about = written(tmp_path)
    told = record.model_events(verdict, judged, rule, model)
    promised = {**told[0], "principles": ["In other words."]}
    write_chain(tmp_path / "record/events.jsonl", [promised, *told[1:]])

    record.verify_record(tmp_path / "record", *about, ignore=("principles",))
    with pytest.raises(IntegrityError, match="events end in"):
        record.verify_record(tmp_path / "record", *about)
    promised["owner"] = "the regulator"
    write_chain(tmp_path / "record/events.jsonl", [promised, *told[1:]])
    with pytest.raises(IntegrityError, match="events end in"):
        record.verify_record(tmp_path / "record", *about, ignore=("principles",))


def test_an_event_in_another_spelling_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    write_chain(file, EVENTS)
    file.write_bytes(file.read_bytes().replace(b"{", b"{ ", 1))
    with pytest.raises(IntegrityError, match="not spelled as a chain"):
        read_chain(file)


def test_a_line_separator_within_a_word_parts_no_event(tmp_path: Path) -> None:
    events = [{"event": "a", "owner": "one\u2028two\x85three"}]
    write_chain(tmp_path / "e.jsonl", events)
    assert len(read_chain(tmp_path / "e.jsonl")) == 1


def test_a_changed_statement_is_refused(tmp_path: Path) -> None:
    about = written(tmp_path)
    file = tmp_path / "record/safety-decision.intoto.json"
    file.write_text(file.read_text().replace("holds", "fails"))

    with pytest.raises(IntegrityError, match="does not tell of"):
        record.verify_record(tmp_path / "record", *about)
