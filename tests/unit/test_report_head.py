"""The report's head: day, run, model, data and rows, as far as they are known."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from safety_world import (
    constitution,
    evidence,
    submission,
    write_verdict,
)

from safescale_ammt.errors import InputError
from safescale_ammt.judging.verdict import REHEARSAL, Verdict
from safescale_ammt.reporting.provenance import (
    PROVENANCE,
    Provenance,
    day_and_time,
    renewed,
)
from safescale_ammt.reporting.report import render

MODEL = "sha256:" + "c" * 64
JUDGED = Provenance(
    model=MODEL,
    mode="sealed",
    judged="2026-11-29T23:57:30+01:00",
    predicts="approved = yes",
    # Sorted by name, as canonical JSON leaves them.
    rows={"constraint": 20, "select": 30, "train": 12_345, "validation": 10},
    sealed_rows=16_281,
    source_digest="sha256:" + "d" * 64,
)
RUN = {
    "run": "20261129-225600-abcdef",
    "config": {"registry": {"name": "loans"}},
    "source": "s3://bucket/data/loans.csv",
    "sealed_source": "s3://bucket/data/sealed.csv",
    "version": {"version": 3, "status": "lost_race"},
}


def facts(page: str) -> dict[str, str]:
    head = page[: page.index("<!--/provenance-->")]
    pairs = re.findall(r"<div><dt>([^<]*)</dt><dd>(.*?)</dd></div>", head)
    return {name: unescape(text.replace("<wbr>", "")) for name, text in pairs}


def judged(folder: Path) -> Verdict:
    return write_verdict(folder, constitution(), evidence(), submission(MODEL))


def test_the_head_says_day_rows_and_data_with_the_sealed_rows_apart(
    tmp_path: Path,
) -> None:
    page = render(judged(tmp_path / "v"), constitution(), provenance=JUDGED)

    assert facts(page) == {
        "Judged": "29 November 2026, 22:57 UTC",
        "Model": f"{MODEL[:19]}…, not yet named by a registry",
        "Predicts": "approved = yes",
        "Data": JUDGED.source_digest,
        "Development rows": "train 12,345 · validation 10 · constraint 20 · select 30",
        "Sealed rows": "16,281, kept apart until this judgement",
    }


def test_a_run_adds_its_id_name_version_and_data_and_changes_nothing_else(
    tmp_path: Path,
) -> None:
    page = render(judged(tmp_path / "v"), constitution(), provenance=JUDGED)
    whole = renewed(page, JUDGED.in_run(RUN))
    said = facts(whole)

    assert said["Run"] == RUN["run"]
    assert said["Model"] == "loans, version 3, lost race"
    assert (said["Data"], said["Sealed data"]) == (RUN["source"], RUN["sealed_source"])
    assert renewed(whole, JUDGED) == page
    assert re.sub(r"<!--prov.*?<!--/prov", "", whole) == (
        re.sub(r"<!--prov.*?<!--/prov", "", page)
    )


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, "loans, refused"),
        ({"version": 0, "status": "not_registered"}, "loans, not registered"),
        ({"version": 1, "status": "champion"}, "loans, version 1, champion"),
    ],
)
def test_the_head_says_what_became_of_the_model(
    version: dict[str, object] | None, said: str
) -> None:
    assert JUDGED.in_run({**RUN, "version": version}).facts()["Model"] == said


def test_a_rehearsal_did_not_read_the_sealed_rows() -> None:
    said = replace(JUDGED, mode=REHEARSAL).facts()["Sealed rows"]

    assert said == "16,281, kept apart and not read"


def test_days_of_a_window_and_those_without_a_file_are_told() -> None:
    days = {
        "start": "2026-11-01",
        "end": "2026-11-08",
        "files": 6,
        "absent_days": ["2026-11-03"],
    }
    said = replace(JUDGED, days=days).facts()["Days"]

    assert said == "from 2026-11-01 up to 2026-11-08, 6 files; no file of 2026-11-03"


def test_what_lies_beside_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    JUDGED.save(tmp_path)

    assert Provenance.load(tmp_path) == JUDGED


def test_a_verdict_of_an_older_version_has_a_head_of_what_it_says_itself(
    tmp_path: Path,
) -> None:
    verdict = judged(tmp_path / "v")
    found = Provenance.load(tmp_path / "v")

    assert found == Provenance.of(verdict)
    assert set(found.facts()) == {"Model", "Sealed rows"}


def test_a_file_that_is_no_provenance_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / PROVENANCE).write_text('{"colour": "red"}')

    with pytest.raises(InputError, match=r"provenance\.json holds no provenance"):
        Provenance.load(tmp_path)


def test_no_text_of_a_head_can_end_it_or_become_a_tag(tmp_path: Path) -> None:
    hostile = "<!--/provenance--><script>alert(1)</script>"
    known = replace(JUDGED, source=hostile, run=hostile, name=hostile)
    page = render(judged(tmp_path / "v"), constitution(), provenance=known)

    assert "<script" not in page
    assert page.count("<!--/provenance-->") == 1
    assert facts(renewed(page, JUDGED)) == JUDGED.facts()


def test_a_page_without_such_a_list_is_left_as_it_is() -> None:
    assert renewed("<p>old</p>", JUDGED) == "<p>old</p>"


def test_a_moment_that_is_not_known_has_no_words() -> None:
    assert day_and_time("") == ""
    assert day_and_time("2026-01-02T03:04:05+00:00") == "2 January 2026, 03:04 UTC"
