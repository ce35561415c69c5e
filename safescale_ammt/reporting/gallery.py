"""The gallery: which pictures a report shows, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting import charts, history_charts
from safescale_ammt.reporting.figures import Picture

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
        history_charts.training_curves(training),
        history_charts.search_front(*search),
        history_charts.power_curves(power),
    ]
