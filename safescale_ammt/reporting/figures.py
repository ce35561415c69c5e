"""Pictures for the report: matplotlib drawings as small, themed, inline SVG.

A drawing uses seven named colours (Okabe and Ito's set, which colour-blind
readers can tell apart). On the way out each becomes a CSS variable, so that the
page decides what they look like in light, in dark and in print. The bytes are
stable: fixed ids, no date, text as text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from safescale_ammt.printable import printable

# A colour is replaced wherever it stands in the SVG, so each is one that nothing else
# uses: the surface is almost white, since plain white could be matplotlib's own.
INK, MUTED, GRID = "#1b2733", "#5b6b7b", "#d5dde5"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
RED, PURPLE, SURFACE = "#d55e00", "#cc79a7", "#fefefe"
# 252 points: on a telephone of 360 pixels, a text of 9.5 points has 11 pixels.
WIDTH, FONT_SIZE = 3.5, 9.5
"""Inches that a panel is wide, and points of every text in it."""
ROOM = 226.0
"""Points that a label may be wide: those of the panel without its margins."""
_HANDLE = 34.0
"""Points that the line beside a label of a legend takes."""
LEGEND_LINE = 0.22
"""Inches of one line of a legend."""
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
    "font.size": FONT_SIZE,
    "text.color": INK,
    "text.parse_math": False,  # A group may well be named "$x^".
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": FONT_SIZE,
    "lines.linewidth": 1.6,
    "xtick.color": MUTED,
    "xtick.labelsize": FONT_SIZE,
    "ytick.color": MUTED,
    "ytick.labelsize": FONT_SIZE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Panel:
    """One drawing of a picture, narrow enough for a telephone.

    Attributes:
        title: heading above it; "" where the picture's own is enough.
        draw: draws on empty axes.
        height: inches; its width is `WIDTH`, that of every panel.
        words: what it shows for those who do not see it; "" = the caption.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 2.3
    words: str = ""


@dataclass(frozen=True)
class Picture:
    """Drawings ready for the page.

    Attributes:
        name: short id, unique on the page.
        title: heading above it.
        caption: what it shows and how to read it, one or two sentences.
        svg: a `div` with inline SVG for each panel, or "" when its data are absent.
        absent: why there is no drawing.
    """

    name: str
    title: str
    caption: str
    svg: str
    absent: str = ""


def picture(name: str, title: str, caption: str, panels: Sequence[Panel]) -> Picture:
    """Draws the panels, which the page sets side by side where it has the room.

    Args:
        name: short id, unique on the page.
        title: heading above it.
        caption: what it shows and how to read it.
        panels: at least one.
    """
    drawn = []
    for i, panel in enumerate(panels):
        spoken = f"{title}: {panel.title}" if panel.title else title
        svg = themed(f"{name}-{i}", spoken, panel.words or caption, drawing(panel))
        head = f"<h4>{escape(panel.title)}</h4>" if panel.title else ""
        drawn.append(f'<div class="panel">{head}{svg}</div>')
    return Picture(name, title, caption, "".join(drawn))


def drawing(panel: Panel) -> str:
    """Draws a panel with matplotlib and returns its SVG file."""
    # Styles are global to matplotlib: the context leaves a notebook's own alone.
    with rc_context():
        rcParams.update(_STYLE)
        # Not pyplot: it would keep the figure, and look for a screen.
        figure = Figure(figsize=(WIDTH, panel.height))
        panel.draw(figure.subplots())
        # Once by hand: saving would lay out, draw, throw away and draw again.
        ConstrainedLayoutEngine().execute(figure)
        out = io.StringIO()
        # A date or a version would make the bytes depend on the day.
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def themed(name: str, title: str, words: str, svg: str) -> str:
    """Makes an SVG file a part of a page: own ids, the page's colours and width.

    Args:
        name: id that no other drawing of the page has.
        title: what it is called.
        words: what it shows.
        svg: the file.
    """
    # HTML allows neither an XML declaration nor a doctype inside of its body.
    body = "<svg" + svg.partition("<svg")[2]
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
        f'<desc id="{name}-d">{escape(words)}</desc>'
    )
    return opening + body[body.index(">") + 1 :].strip()


def short(text: str, room: float = ROOM) -> str:
    """Cuts a label that is wider than `room` points, and marks it by an ellipsis."""
    # No font has a picture of what nobody sees.
    text = printable(text)
    font = FontProperties(family=["DejaVu Sans"], size=FONT_SIZE)

    def width(label: str) -> float:
        measured = text_to_path.get_text_width_height_descent(label, font, ismath=False)
        return float(measured[0])

    if width(text) <= room:
        return text
    # Most labels fit, and the others are names that nobody reads to their end.
    cut = next(n for n in range(len(text) - 1, -1, -1) if width(text[:n] + "…") <= room)
    return text[:cut] + "…"


def missing(name: str, title: str, why: str) -> Picture:
    """Returns the picture of a drawing whose data are absent."""
    return Picture(name, title, "", "", why)


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Writes one label above each row 0, 1, ... of an axis that runs downwards."""
    # Beside the axis, long names would leave a telephone no room for the drawing.
    for i, label in enumerate(labels):
        axes.annotate(
            "\n".join(short(part) for part in label.split("\n")),
            (0, i),
            xycoords=("axes fraction", "data"),
            xytext=(2, 11.5),
            textcoords="offset points",
        )
    axes.set_ylim(len(labels) - 0.55, -0.8)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)


def legend(axes: Axes) -> None:
    """Puts a legend below the axes, each label once and cut, none without a label."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure = axes.get_figure(root=True)
    # An empty legend makes matplotlib warn.
    if unique and figure:
        names = [short(label, ROOM - _HANDLE) for label in unique]
        figure.legend(list(unique.values()), names, loc="outside lower center")
