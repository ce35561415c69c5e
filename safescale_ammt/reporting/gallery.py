"""The gallery: which pictures a report shows, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting import charts, history_charts
from safescale_ammt.reporting.figures import Picture, missing
from safescale_ammt.reporting.path_chart import path_chart

Json = Mapping[str, Any]


def gallery(
    verdict: Verdict,
    training: Sequence[Json],
    search: tuple[Json | None, Json | None],
    power: Json | None,
) -> list[Picture]:
    """Returns every picture, some of which say that their data are absent.

    Args:
        verdict: the verdict to report.
        training: events of `training.jsonl`; none without a log.
        search: `search.json` and `control.json` of the architecture.
        power: `power.json` of the architecture.
    """
    figures, yes = verdict.figures, verdict.positive
    groups = figures["model"]["groups"]
    named = {f.group for f in verdict.findings if f.group}
    # What the constitution names comes first; False sorts before True.
    ordered = sorted(groups, key=lambda name: (name not in named, name))
    return [
        charts.gap_bounds(verdict.findings),
        *(charts.group_rates(i, n, figures, yes) for i, n in enumerate(ordered)),
        # A constitution of utilities alone names no group: then all of them are shown.
        charts.twin_comparison(figures, named or set(groups)),
        charts.reliability(figures),
        drawn("path", lambda: path_chart(training, verdict.findings)),
        drawn("training", lambda: history_charts.training_curves(training)),
        drawn("search", lambda: history_charts.search_front(*search)),
        drawn("power", lambda: history_charts.power_curves(power)),
    ]


def drawn(name: str, draw: Callable[[], Picture]) -> Picture:
    """Draws a log of another stage, or says that it has a form that nobody knows.

    Logs are no evidence: a model from elsewhere may have one of its own.
    """
    try:
        return draw()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return missing(name, name.capitalize(), f"the {name}'s log has another form")
