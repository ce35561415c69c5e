"""Pictures for the report: matplotlib drawings as small, themed, inline SVG.

A drawing uses seven named colours (Okabe and Ito's set, which colour-blind
readers can tell apart). On the way out each becomes a CSS variable, so that the
page decides what they look like in light, in dark and in print. The bytes are
stable: fixed ids, no date, text as text.

Words and drawings are apart: a picture's words are made without matplotlib, which is
imported where something is drawn, so that `verify` writes them again without it. What
is drawn stands between two marks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from safescale_ammt.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWING, DRAWN = "<!--drawing-->", "<!--/drawing-->"
"""Marks around what was drawn; text from a file has no `<` of its own on a page."""

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
    """Words and panels, which the page sets side by side where it has the room.

    Attributes:
        name: short id, unique on the page.
        title: heading above it.
        caption: what it shows and how to read it, one or two sentences.
        panels: what is drawn; none when its data are absent.
        absent: why there is no drawing.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel] = ()
    absent: str = ""

    @property
    def svg(self) -> str:
        """A `div` with inline SVG for each panel."""
        return self.html()

    def html(self, draw: Callable[[Panel], str] | None = None) -> str:
        """Writes a `div` with inline SVG for each panel.

        Args:
            draw: makes a panel's SVG file; None = `drawing`.
        """
        written = []
        for i, panel in enumerate(self.panels):
            spoken = f"{self.title}: {panel.title}" if panel.title else self.title
            svg = themed(
                f"{self.name}-{i}",
                spoken,
                panel.words or self.caption,
                (draw or drawing)(panel),
            )
            head = f"<h4>{escape(panel.title)}</h4>" if panel.title else ""
            written.append(f'<div class="panel">{head}{svg}</div>')
        return "".join(written)


def blank(panel: Panel) -> str:
    """Returns the SVG file of a panel on which nothing is drawn, of the same size."""
    width, height = (f"{72 * inches:f}" for inches in (WIDTH, panel.height))
    box = " ".join(size.rstrip("0").rstrip(".") for size in (width, height))
    return f'<svg viewBox="0 0 {box}"></svg>'


def drawing(panel: Panel) -> str:
    """Draws a panel with matplotlib and returns its SVG file."""
    from matplotlib import rc_context, rcParams
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

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
    # A style sheet in a drawing is one of the whole page, and the page has its own.
    for part in (r"<metadata>.*?</metadata>", r"<style.*?</style>", "<!--.*?-->"):
        body = re.sub(part, "", body, flags=re.DOTALL)
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
    drawn = body[body.index(">") + 1 :].strip().removesuffix("</svg>")
    return f"{opening}{DRAWING}{drawn}{DRAWN}</svg>"


def short(text: str, room: float = ROOM) -> str:
    """Cuts a label that is wider than `room` points, and marks it by an ellipsis."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

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
    return Picture(name, title, "", absent=why)


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


def write_in_row(axes: Axes, row: int, text: str) -> None:
    """Writes why there is nothing to draw in a row 0, 1, ... of an axis."""
    axes.annotate(
        text, (2, row), xycoords=("axes points", "data"), va="center", color=MUTED
    )


def legend(axes: Axes) -> None:
    """Puts a legend below the axes, each label once and cut, none without a label."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure = axes.get_figure(root=True)
    # An empty legend makes matplotlib warn.
    if unique and figure:
        names = [short(label, ROOM - _HANDLE) for label in unique]
        figure.legend(list(unique.values()), names, loc="outside lower center")
