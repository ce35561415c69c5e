"""The figures of use as plain text: model, twin, and one answer for everybody.

Card and summary show the rows of the report's headline, so that no page can leave out
that a constant does as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from safescale_ammt.judging.findings import figure
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.wording import HEADLINE_FIGURES, told_figures

NOTE = (
    "Balanced accuracy is the mean over the classes of the share that is right, AUC "
    "the chance that a positive row scores above a negative one. The log loss of the "
    "constant answer is that of the training base rate."
)
_PERCENT = ("accuracy", "balanced_accuracy", "predicted_positive")


class HeadlineRow(NamedTuple):
    """One figure in words: of the model, of its twin, of the constant answer."""

    name: str
    model: str
    twin: str
    constant: str


def headline_rows(verdict: Verdict) -> list[HeadlineRow]:
    """Returns the figures of use that the verdict has; none of an older one."""
    figures = verdict.figures.get("headlines", {})
    return [
        HeadlineRow(
            HEADLINE_FIGURES[key],
            *(plain_figure(key, figures[who]) for who in ("model", "twin", "constant")),
        )
        for key in told_figures(verdict, figures.get("model", {}))
    ]


def headline_metrics(verdict: Verdict) -> dict[str, float | None]:
    """Returns the figures as single numbers, the constant's as `constant_...`."""
    figures = verdict.figures.get("headlines", {})
    return {
        prefix + name: figure["value"] if isinstance(figure, Mapping) else figure
        for who, prefix in (("model", ""), ("constant", "constant_"))
        for name, figure in figures.get(who, {}).items()
    }


def constant_name(verdict: Verdict) -> str:
    """Names the constant answer's class."""
    code: int = verdict.figures["headlines"]["answer"]
    return verdict.classes[code]


def plain_figure(key: str, figures: Mapping[str, Any]) -> str:
    """Writes one figure; a rate has its value inside."""
    value = figures[key]
    if isinstance(value, Mapping):
        value = value["value"]
    if value is None:
        return figure(None)
    return f"{value * 100:.2f} %" if key in _PERCENT else f"{value:.4f}"
