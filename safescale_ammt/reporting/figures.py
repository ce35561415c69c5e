"""Pictures for the report: matplotlib drawings as small, themed, inline SVG.

A drawing uses seven named colours (Okabe and Ito's set, which colour-blind
readers can tell apart). On the way out each becomes a CSS variable, so that the
page decides what they look like in light, in dark and in print. The bytes are
stable: fixed ids, no date, text as text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# A colour is replaced wherever it stands in the SVG, so each is one that nothing else
# uses: the surface is almost white, since plain white could be matplotlib's own.
INK, MUTED, GRID = "#1b2733", "#5b6b7b", "#d5dde5"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
RED, PURPLE, SURFACE = "#d55e00", "#cc79a7", "#fefefe"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED)
"""Colours of unordered series, in turn."""
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    RED: "--red",
    PURPLE: "--purple",
    SURFACE: "--surface",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text, which can be searched and copied.
    "svg.hashsalt": "safescale-ammt",  # Without a salt, ids are random.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # Ships with matplotlib: same metrics anywhere.
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # A group may well be named "$x^".
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Picture:
    """A drawing ready for the page.

    Attributes:
        name: short id, unique on the page.
        title: heading above it.
        caption: what it shows and how to read it, one or two sentences.
        svg: the inline SVG, or "" when its data are absent.
        absent: why there is no drawing.
    """

    name: str
    title: str
    caption: str
    svg: str
    absent: str = ""


def picture(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[Figure], None],
    size: tuple[float, float] = (9.4, 3.0),
) -> Picture:
    """Draws a figure and turns it into a `Picture`.

    Args:
        name: short id, unique on the page.
        title: heading above it.
        caption: what it shows and how to read it.
        draw: draws on an empty figure.
        size: width and height in inches.
    """
    # Styles are global to matplotlib: the context leaves a notebook's own alone.
    with rc_context():
        rcParams.update(_STYLE)
        # Not pyplot: it would keep the figure, and look for a screen.
        figure = Figure(figsize=size)
        draw(figure)
        # Once by hand: saving would lay out, draw, throw away and draw again.
        ConstrainedLayoutEngine().execute(figure)
        out = io.StringIO()
        # A date or a version would make the bytes depend on the day.
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # HTML allows neither an XML declaration nor a doctype inside of its body.
    body = "<svg" + out.getvalue().partition("<svg")[2]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # matplotlib numbers its ids from one in every figure, and a reference to an id
    # that stands twice on a page takes the first.
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    # Without width and height of its own, the drawing takes the page's width.
    box = body.split('viewBox="', 1)[1].split('"', 1)[0]
    opening = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(caption)}</desc>'
    )
    return Picture(name, title, caption, opening + body[body.index(">") + 1 :].strip())


def short(text: str, most: int) -> str:
    """Cuts a label to at most `most` characters, the ellipsis included."""
    return text if len(text) <= most else text[: most - 1] + "…"


def missing(name: str, title: str, why: str) -> Picture:
    """Returns the picture of a drawing whose data are absent."""
    return Picture(name, title, "", "", why)


def legend(figure: Figure, axes: Axes, columns: int = 6) -> None:
    """Puts one legend above the figure, each label once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(unique.values()), list(unique), loc="outside upper left", ncols=columns
    )
