"""The gallery: which pictures a report shows, in which order.

Importing this imports matplotlib; only a report does.
"""

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
    search: Json | None,
    power: Json | None,
) -> list[Picture]:
    """Draws every picture of a report; absent data are said to be absent."""
    groups = verdict.figures["model"]["groups"]
    named = {f.group for f in verdict.findings if f.group}
    ordered = sorted(groups, key=lambda name: (name not in named, name))
    return [
        charts.gap_bounds(verdict.findings),
        *(
            charts.group_rates(number, name, verdict.figures)
            for number, name in enumerate(ordered)
        ),
        charts.twin_comparison(verdict.figures, named or set(groups)),
        charts.reliability(verdict.figures),
        history_charts.training_curves(training),
        history_charts.search_front(search),
        history_charts.power_curves(power),
    ]
