"""Confirmed slices on the page: a table with a bar each, all bars on one scale."""

from __future__ import annotations

from html import escape

from safescale_ammt.judging.slice_forms import LEVEL, SliceFinding, Slices
from safescale_ammt.reporting.cards import card
from safescale_ammt.reporting.tables import table
from safescale_ammt.reporting.wording import percent

# In CSS pixels, the size that the style sheet gives `.measure`.
_WIDTH, _HEIGHT, _PAD = 230.0, 34.0, 8.0
_MOST_E = 1e6
_TITLE = "Groups that nobody named"
_HEADS = (
    "Rows with",
    "Rows",
    "Wrong inside",
    "Wrong elsewhere",
    "Evidence",
    "Inside against elsewhere",
)


def slices_section(slices: Slices | None) -> str:
    """Writes what a search for slices came to; "" where a verdict does not say.

    Args:
        slices: of the verdict.
    """
    if slices is None:
        return ""
    body = f"<p>{escape(told(slices))}</p>"
    if slices.confirmed:
        # One scale for all bars, or the eye compares what is not comparable.
        most = max(max(s.inside[2], s.outside[2]) for s in slices.confirmed)
        rows = [
            [
                escape(found.proposal.words),
                f"{found.rows:,}",
                *map(rate_told, (found.inside, found.outside)),
                e_told(found.e_value),
                bar(found, most),
            ]
            for found in slices.confirmed
        ]
        body += table(_HEADS, rows, numbers=range(1, 5))
        body += (
            '<p class="term">The upper, coloured mark is the share that the model gets '
            "wrong inside, the lower, grey one that of all other rows, each with its "
            f"interval; all {2 * slices.tested} intervals of the tested slices hold "
            f"together with {100 * (1 - LEVEL):g} % confidence. The evidence is an "
            "e-value: where the model errs no more inside than elsewhere, it is 1 or "
            "less on average. To promise something about such a group, name it in the "
            "data section (data.merges, data.crosses).</p>"
        )
    return card(_TITLE, body)


def told(slices: Slices) -> str:
    """Says in words how slices were looked for, and what was confirmed."""
    if not slices.tested:
        return (
            "No slice of the rows was tested: none was looked for, or in none that is "
            "large enough did the model err more often than elsewhere."
        )
    confirmed = len(slices.confirmed)
    what = (
        f"the judged rows confirm {confirmed:,}, of which at most "
        f"{100 * slices.fdr:g} % are expected to be false (e-BH)."
        if confirmed
        else "the judged rows confirm none, which does not show that there is none."
    )
    return (
        f"{slices.searched:,} development rows proposed {slices.tested:,} slices in "
        f"which the model errs more often than elsewhere, overlapping ones as one; "
        f"{what} Nobody promised anything about them: they are reported, and the "
        "decision does not depend on them."
    )


def rate_told(rate: tuple[float, ...]) -> str:
    """Writes a share with its interval."""
    value, lower, upper = rate
    ends = f"{100 * lower:.1f} to {100 * upper:.1f} %"
    return f'{percent(value)}<span class="note">{ends}</span>'


def e_told(value: float) -> str:
    """Writes an e-value; beyond a million its size says nothing more."""
    return "over 1,000,000" if value > _MOST_E else f"{value:,.0f}"


def bar(found: SliceFinding, most: float) -> str:
    """Draws errors inside and elsewhere, with their intervals.

    Args:
        found: the slice.
        most: the right end of the scale, which begins at 0.
    """

    def x(at: float) -> float:
        return round(_PAD + at / most * (_WIDTH - 2 * _PAD), 1)

    marks = ""
    for kind, y, (value, lower, upper) in (
        ("inside", 10, found.inside),
        ("elsewhere", 22, found.outside),
    ):
        marks += (
            f'<g class="{kind}"><line class="range" x1="{x(lower)}" x2="{x(upper)}" '
            f'y1="{y}" y2="{y}"/><circle cx="{x(value)}" cy="{y}" r="4"/></g>'
        )
    label = escape(
        f"{found.proposal.words}: {percent(found.inside[0])} wrong inside, "
        f"{percent(found.outside[0])} elsewhere"
    )
    return (
        f'<svg class="measure slice" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="{label}"><title>{label}</title>'
        f'<line class="axis" x1="{x(0)}" x2="{x(most)}" y1="31" y2="31"/>{marks}</svg>'
    )
