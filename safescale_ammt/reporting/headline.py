"""The headline: how far the judgement reaches, and how well the model answers."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from safescale_ammt.constitution.constitution import BIT, Constitution
from safescale_ammt.judging.findings import figure as written
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.glossary import Glossary, sentence_case
from safescale_ammt.reporting.tables import table
from safescale_ammt.reporting.wording import (
    HEADLINE_FIGURES,
    interval,
    percent,
    rows_judged,
    told_figures,
)

SHARES = ("accuracy", "balanced_accuracy", "predicted_positive")
"""Headline figures that are written in percent."""


def facts(verdict: Verdict, constitution: Constitution) -> str:
    """Writes the three numbers that say how far the judgement reaches."""
    use = verdict.use
    number, note = "none", f"guarantee: {use.guarantee}"
    if 0 < use.number <= use.planned:
        number = f"{use.number} of {use.planned}"
    elif use.number:
        number, note = f"{use.number}", f"{use.planned} planned; {note}"
    if use.planned > 1 and use.number:
        # What is told of a use may spend the rows: then none is left.
        told = constitution.gate.feedback == BIT and use.guarantee == "holds"
        ends = not told or verdict.decision == "pass"
        note += f"; {0 if ends else use.planned - use.number} left"
    # The level of this submission, not that of the gate: planned submissions share it.
    level = f"{constitution.gate.alpha:g} over {use.planned} planned use"
    tiles = [
        ("Rows judged", f"{verdict.rows:,}", rows_judged(verdict)),
        ("Use of the sealed rows", number, note),
        ("Error level", percent(verdict.alpha), level + "s" * (use.planned > 1)),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(words)}</small>"
        "</dd></div>"
        for name, value, words in tiles
    )
    return f'<dl class="facts">{cells}</dl>\n'


def headline(verdict: Verdict, glossary: Glossary) -> str:
    """Writes figures of use: the model's, its twin's and those of one constant answer.

    A verdict without `headlines` tells the accuracies of model and twin alone.
    """
    figures = verdict.figures.get("headlines", verdict.figures)
    heads = ["Figure", "Model", "Unconstrained twin"]
    told = ["model", "twin"]
    if "constant" in figures:
        heads.append(f"Constant answer: always “{verdict.classes[figures['answer']]}”")
        told.append("constant")
    words = glossary.explain(*heads)
    names = {key: sentence_case(name) for key, name in HEADLINE_FIGURES.items()}
    rows = [
        [
            f"{names[key]}<span>{escape(glossary.tell(key))}</span>",
            *(shown(key, figures[who][key]) for who in told),
        ]
        for key in told_figures(verdict, figures["model"])
    ]
    return words + table(heads, rows)


def shown(key: str, figure: Mapping[str, Any] | float | None) -> str:
    """Writes a figure of use: a share, with its interval if it has one, or a number."""
    if isinstance(figure, Mapping):
        value, note = percent(figure["value"]), interval(figure)
        return f'<span class="big">{value}</span><span class="note">{note}</span>'
    number = percent(figure) if key in SHARES else written(figure)
    return f'<span class="big">{number}</span>'
