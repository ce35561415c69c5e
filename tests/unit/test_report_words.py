"""The report in plain words: each term is explained where it first stands."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from safety_world import constitution, evidence, submission

from safescale_ammt.constitution.principles import JUDGED
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.glossary import TERM_WORDS, Glossary, rate_words
from safescale_ammt.reporting.headline import headline
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.wording import HEADLINE_FIGURES, METRICS, RATES


def judged(gap: float) -> Verdict:
    return assemble(
        constitution(), evidence(gap=gap), submission("sha256:m"), "sha256:e"
    )


def sections(page: str) -> list[str]:
    """Texts of the page's parts up to the pictures, in the order of reading."""
    body = page[page.index("<main>") : page.index("<h2>Pictures")]
    body = re.sub(r"<svg.*?</svg>", "", body, flags=re.DOTALL)
    return re.split(r"(?=<header|<section|<dl class=\"facts\")", body)


def explained(term: str) -> str:
    return f"<dfn>{term}</dfn>"


def test_every_metric_and_every_rate_has_plain_words() -> None:
    assert set(JUDGED) <= set(METRICS)
    assert set(METRICS) | set(HEADLINE_FIGURES) <= set(TERM_WORDS)
    for kind in RATES:
        assert "“yes”" in rate_words(kind, "yes") or kind == "error"


@pytest.mark.parametrize("gap", [0.0, 0.5])
@pytest.mark.parametrize(
    ("term", "spelling"),
    [
        ("Unconstrained twin", "twin"),
        ("True-positive-rate gap", "tpr_gap|true-positive-rate gap"),
        ("Selection-rate gap", "dp_gap|selection-rate gap"),
    ],
)
def test_a_term_is_explained_once_and_in_the_part_where_it_first_stands(
    gap: float, term: str, spelling: str
) -> None:
    page = render(judged(gap), constitution())
    first = next(part for part in sections(page) if re.search(spelling, part))

    assert explained(term) in first
    assert page.count(explained(term)) == 1


def test_the_fields_own_word_stands_beside_the_plain_one() -> None:
    words = Glossary(">50K").explain("tpr_gap by sex is at most 0.05")

    assert "<dfn>True-positive-rate gap</dfn> (<code>tpr_gap</code>): " in words
    assert "truly are “&gt;50K”" in words


def test_without_a_positive_class_the_worst_one_counts() -> None:
    words = Glossary("").explain("fpr_gap by sex")

    assert "truly are not of one class" in words
    assert words.endswith("The class where it is worst counts.</p>")


def test_parts_of_words_are_no_terms() -> None:
    assert Glossary("yes").explain("my_tpr_gap_2, inaccuracy") == ""


def with_constant() -> Verdict:
    figures = dict(judged(0.0).figures)
    share = {"value": 0.763, "lower": 0.75, "upper": 0.78}
    use = {
        "accuracy": share,
        "balanced_accuracy": 0.5,
        "auc": 0.9,
        "predicted_positive": {**share, "value": 0.0},
        "log_loss": None,
    }
    lines = {"model": use, "twin": use, "constant": {**use, "auc": None}, "answer": 0}
    return replace(judged(0.0), figures={**figures, "headlines": lines})


def test_the_headline_sets_each_figure_beside_the_twin_and_the_constant_answer() -> (
    None
):
    told = headline(with_constant(), Glossary("yes"))
    rows = {
        re.sub("<span>.*", "", row[0]): [
            re.sub("<[^>]+>", " ", c).split() for c in row[1:]
        ]
        for row in (
            re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", line)
            for line in re.findall(r"<tr.*?</tr>", told)[1:]
        )
    }

    assert explained("Constant answer") in told
    assert "Constant answer: always “no”" in told
    names = ["Accuracy", "Balanced accuracy", "AUC", "Answered positive", "Log loss"]
    assert list(rows) == names
    assert rows["Accuracy"] == [["76.30", "%", "75.00", "to", "78.00", "%"]] * 3
    assert rows["Balanced accuracy"] == [["50.00", "%"]] * 3
    assert rows["AUC"] == [["0.9000"], ["0.9000"], ["not", "defined"]]


def test_a_verdict_without_figures_of_use_tells_the_two_accuracies() -> None:
    figures = dict(judged(0.0).figures)
    del figures["headlines"]
    told = headline(replace(judged(0.0), figures=figures), Glossary("yes"))

    assert "Constant answer" not in told
    assert told.count('class="big"') == 2
