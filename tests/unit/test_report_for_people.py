"""The report as people decide by it: decision first, what would change it, approval."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from approval_world import HUMAN, rule_with
from safety_world import evidence, submission

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.terms import open_points
from safescale_ammt.reporting.approval_view import QUESTIONS, TITLE
from safescale_ammt.reporting.people import BIAS_NOTE
from safescale_ammt.reporting.report import MAX_BYTES, render
from safescale_ammt.reporting.what_would_change import promise_would_change


@cache
def verdict(gap: float = 0.0, **about: Any) -> Verdict:
    rule = rule_with({})
    return assemble(
        rule, evidence(gap=gap), submission("sha256:m", **about), "sha256:e"
    )


def page(gap: float = 0.0, rule: Constitution | None = None, **about: Any) -> str:
    found = verdict(gap, **about)
    points = [vars(point) for point in open_points(found)]
    return render(found, rule or rule_with({}), open_points=points)


def words(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def decision(html: str) -> str:
    """Returns the words of the first section."""
    start = html.index('class="decision')
    return words(html[start : html.index("</section>", start)])


UNDECIDED, BROKEN = 0.12, 0.5
"""Gaps of the made-up model."""


@pytest.mark.parametrize("gap", [0.0, UNDECIDED, BROKEN])
def test_the_decision_is_the_first_that_a_page_says_after_its_title(gap: float) -> None:
    html = page(gap)
    before = words(html[html.index("<main>") : html.index('class="decision')])
    assert before.startswith("Safety report test constitution 1.2.3")
    assert len(before) < 90
    order = [html.index(f">{head}<") for head in ("Rows judged", "Measured", "Figure")]
    assert order == sorted(order)


def test_a_pass_names_the_promise_with_the_least_room_and_how_much_it_is() -> None:
    (first, *_) = verdict().findings
    assert first.value is not None
    assert first.upper is not None
    told = decision(page())
    assert "What would change this: The promise with the least room is equal-" in told
    # The interval as wide as it is, its end upon the line.
    at = first.threshold - (first.upper - first.value)
    assert f"undecided at a measured value above about {at:.4f} on as many rows" in told
    assert first.value < at < first.threshold


def test_the_rows_that_would_do_are_those_of_a_bound_upon_the_line() -> None:
    (first, *_) = verdict().findings
    assert first.value is not None
    assert first.upper is not None
    told = promise_would_change(first, verdict(), rule_with({}))
    rows = int(re.search(r"fewer than about (\d+) of the 700 rows", told)[1])  # type: ignore[index]
    width = (first.upper - first.value) * (700 / rows) ** 0.5
    assert first.value + width == pytest.approx(first.threshold, abs=1e-3)


def test_a_promise_from_below_is_told_from_below() -> None:
    useful = verdict().findings[-1]
    told = promise_would_change(useful, verdict(), rule_with({}))
    assert useful.op == ">="
    assert "a measured value below about -0.0" in told


def test_what_nothing_could_change_is_not_told() -> None:
    (first, *_) = verdict().findings
    empty = replace(first, threshold=1.0)
    assert empty.promises_nothing
    assert promise_would_change(empty, verdict(), rule_with({})) == ""


def test_an_undecided_verdict_says_what_would_settle_it_and_a_broken_one_that_none_do():
    told = decision(page(UNDECIDED))
    assert "a pass if equal-opportunity were shown to be kept, and a fail if it" in told
    assert "What people may decide, and would answer for, stands below." in told
    told = decision(page(BROKEN))
    assert "Another model, one that keeps equal-opportunity" in told
    assert "No person can approve a model that fails." in told


def test_guarantee_and_limits_stand_in_one_sentence_beside_the_decision() -> None:
    (told,) = re.findall(r"Guarantee and its limits: (.*)$", decision(page()))
    assert told.count(". ") == 0
    for part in ("at most 0.05", "no probability about the model", "drift", "labels"):
        assert part in told
    spent = decision(page(guarantee="spent", number=2))
    assert "Guarantee and its limits: None: this is use 2 of rows whose" in spent
    assert "at most" not in spent
    rehearsal = decision(page(mode="rehearsal", number=0, guarantee="none"))
    assert "None: a rehearsal measures, it does not certify." in rehearsal


def view(html: str) -> str:
    """Returns the words of the approval view."""
    start = html.index(f"<h2>{TITLE}")
    return words(html[start : html.index("</section>", start)])


def test_who_is_asked_reads_what_is_open_before_they_sign() -> None:
    told = view(page(UNDECIDED))
    for part in (
        "equal-opportunity",
        "undecided_hard",
        "does not show the promised ≤ 0.2",
        "times as many sealed rows",
        "1 of these have to sign: alice, bob, carol.",
        "Whoever owns the run (registry.run_owner) may not",
        "counts for 30 days",
        "safescale approve VERSION",
        BIAS_NOTE,
        *QUESTIONS,
    ):
        assert part in told, part


def test_a_spent_guarantee_is_open_too() -> None:
    told = view(page(guarantee="spent", number=2))
    assert "The sealed rows were readable before" in told
    assert "Sealed rows that no run has judged." in told


@pytest.mark.parametrize(
    ("human", "says"),
    [
        ({"approvers": {}}, "asks for 1 and names 0"),
        ({**HUMAN, "may_override": ["soft"]}, "keeps equal-opportunity from people"),
        (
            {**HUMAN, "may_override": ["soft"], "never": ["undecided_hard"]},
            "keeps equal-opportunity from people",
        ),
    ],
)
def test_where_nobody_can_approve_the_page_says_so(
    human: dict[str, Any], says: str
) -> None:
    told = view(page(UNDECIDED, rule_with(human)))
    assert "Nobody can approve this model" in told
    assert says in told
    assert "safescale approve" not in told


@pytest.mark.parametrize(
    "about",
    [
        {"gap": 0.0},
        {"gap": BROKEN},
        {"gap": UNDECIDED, "mode": "rehearsal", "number": 0, "guarantee": "none"},
        {"gap": UNDECIDED, "ledger": "research"},
    ],
)
def test_nobody_is_asked_where_nothing_can_be_approved(about: dict[str, Any]) -> None:
    assert TITLE not in page(**about)


def test_the_page_prints_in_a_browser_without_a_network(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("No chromium here (Debian's package of that name).")
    html = page(UNDECIDED)
    assert len(html.encode()) < MAX_BYTES
    (tmp_path / "page.html").write_text(html)
    done = subprocess.run(
        [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--no-pdf-header-footer"),
            f"--print-to-pdf={tmp_path / 'page.pdf'}",
            f"--user-data-dir={tmp_path / 'profile'}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        check=False,
        timeout=120,
    )
    printed = (tmp_path / "page.pdf").read_bytes()
    assert done.returncode == 0
    assert printed.startswith(b"%PDF")
    assert 20_000 < len(printed) < MAX_BYTES
