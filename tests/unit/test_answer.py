"""The answer of one bit: what it says, and what it may not be made to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safety_world import constitution, evidence, submission, write_model, write_verdict

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import writing
from safescale_ammt.files.canonical import digest_bytes, read_json, write_json
from safescale_ammt.judging.answer import KIND, Answer
from safescale_ammt.judging.verdict import SealedUse, Verdict
from safescale_ammt.releasing.answers import answer_files, verify_answer
from safescale_ammt.reporting.answer_page import answer_page
from safescale_ammt.reporting.report import render

RULE = constitution(planned_submissions=3, feedback="bit")


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """A pass, as the first of three planned uses."""
    folder = tmp_path_factory.mktemp("judged")
    model = write_model(folder / "m", RULE)
    about = submission(model.identity, planned=3)
    return write_verdict(folder / "v", RULE, evidence(4000), about)


def answer(passed: bool = False, **use: Any) -> Answer:
    facts = {"number": 2, "planned": 5, "guarantee": "holds", **use}
    digest = digest_bytes(b"x")
    return Answer(
        *(digest, RULE.digest, digest, digest, "official"),
        use=SealedUse(**facts),
        alpha=0.01,
        rows=700,
        unit="rows",
        passed=passed,
    )


def test_an_answer_says_one_bit_of_a_verdict_and_nothing_that_hangs_on_a_figure(
    verdict: Verdict,
) -> None:
    told = Answer.of(verdict)
    assert told.passed
    assert told.to_dict().keys() == {
        *("schema", "feedback", "decision", "mode", "ledger", "use", "alpha"),
        *("submissions_left", "rows", "unit"),
        *("model", "constitution", "dataset", "holdout"),
    }
    assert Answer.from_dict(told.to_dict()) == told


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (answer(), 3),
        (answer(number=5), 0),
        (answer(number=6, guarantee="spent"), 0),
        (answer(number=1, guarantee="spent"), 0),
        (answer(passed=True), 0),
    ],
)
def test_submissions_are_left_until_a_pass_or_the_last_planned_one(
    told: Answer, left: int
) -> None:
    assert told.submissions_left == left
    page = answer_page(told, RULE)
    counted = told.use.guarantee == "holds" and not told.passed
    assert (f"; {left} are left." in page) is counted


def test_needs_human_and_fail_are_one_word() -> None:
    told = answer().to_dict()
    assert told["decision"] == "not_passed"
    for word in ("needs_human", "fail", "PASS", True, None):
        with pytest.raises(InputError, match="is not an answer"):
            Answer.from_dict({**told, "decision": word})


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "pass"},
        {"submissions_left": 4},
        {"accuracy": 0.9},
        {"mode": "rehearsal"},
        {"feedback": "figures"},
        {"ledger": "mine"},
        {"use": {"number": 1, "planned": 5, "guarantee": "firm"}},
        {"schema": 2},
        {"rows": "many"},
    ],
)
def test_an_answer_that_was_changed_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Answer.from_dict({**answer().to_dict(), **change})


@pytest.mark.parametrize("change", ["word", "file", "model", "figures", "missing"])
def test_no_word_beside_an_answer_departs_from_it(tmp_path: Path, change: str) -> None:
    told, folder = answer(), tmp_path / "a"
    rule = constitution(planned_submissions=3) if change == "figures" else RULE
    if change == "figures":
        facts = {**told.to_dict(), "constitution": rule.digest}
        told = Answer.from_dict(facts)
    parents = {r: getattr(told, r) for r in ("model", "dataset", "holdout")}
    if change == "model":
        parents["model"] = digest_bytes(b"another")
    with writing(folder, kind=KIND, stage="evaluate_safety", parents=parents) as draft:
        for name, data in answer_files(told, rule).items():
            (draft.folder / name).write_bytes(data)
        draft.outside_identity.add("report.html")
        if change == "word":
            page = draft.folder / "report.html"
            page.write_text(page.read_text().replace("Not passed", "Passed"))
        if change == "file":
            write_json(draft.folder / "figures.json", {"accuracy": 0.9})
        if change == "missing":
            (draft.folder / "report.html").unlink()
    assert read_json(folder / "answer.json")["decision"] == "not_passed"
    with pytest.raises(IntegrityError, match=r"does not follow|model is|asks for fig"):
        verify_answer(folder)


def test_a_report_says_how_many_planned_uses_are_left(verdict: Verdict) -> None:
    # A pass ends the uses, and figures that are told do.
    assert "guarantee: holds; 0 left" in render(verdict, RULE, drawn=False)
    open_rule = constitution(planned_submissions=3)
    assert "guarantee: holds; 0 left" in render(verdict, open_rule, drawn=False)
    held = Verdict.from_dict({**verdict.to_dict(), "decision": "needs_human"})
    assert "guarantee: holds; 2 left" in render(held, RULE, drawn=False)
    once = constitution()
    planned = {**verdict.use.to_dict(), "planned": 1}
    single = Verdict.from_dict({**verdict.to_dict(), "use": planned})
    assert " left<" not in render(single, once, drawn=False)
