"""Pictures for the report: drawings as small, themed, inline SVG, and their words.

A drawing uses seven colours (Okabe and Ito's set, which colour-blind readers can tell
apart), each a CSS variable, so that the page decides what they look like in light, in
dark and in print. The bytes are stable: no ids, no date, text as text.

Words and drawings are apart, and what is drawn stands between two marks: `verify`
writes the words again without drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from safescale_ammt.reporting.axes import WIDTH, Axes

DRAWING, DRAWN = "<!--drawing-->", "<!--/drawing-->"
"""Marks around what was drawn; text from a file has no `<` of its own on a page."""

BLUE, ORANGE, GREEN = "var(--blue)", "var(--orange)", "var(--green)"
RED, PURPLE = "var(--red)", "var(--purple)"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, RED)
"""Colours of unordered series, in turn."""


@dataclass(frozen=True)
class Panel:
    """One drawing of a picture, narrow enough for a telephone.

    Attributes:
        title: heading above it; "" where the picture's own is enough.
        draw: draws on empty axes.
        height: units; its width is `WIDTH`, that of every panel.
        words: what it shows for those who do not see it; "" = the caption.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = 166.0
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

    def html(self, *, drawn: bool = True) -> str:
        """Writes a `div` with inline SVG for each panel.

        Args:
            drawn: whether anything is drawn in it.
        """
        written = []
        for i, panel in enumerate(self.panels):
            title = f"{self.title}: {panel.title}" if panel.title else self.title
            name = f"{self.name}-{i}"
            inside = drawing(panel) if drawn else ""
            head = f"<h4>{escape(panel.title)}</h4>" if panel.title else ""
            # Without width and height of its own, it takes the page's width.
            written.append(
                f'<div class="panel">{head}<svg '
                'xmlns:xlink="http://www.w3.org/1999/xlink" '
                f'viewBox="0 0 {WIDTH:g} {panel.height:g}" '
                f'role="img" aria-labelledby="{name}-t {name}-d">'
                f'<title id="{name}-t">{escape(title)}</title>'
                f'<desc id="{name}-d">{escape(panel.words or self.caption)}</desc>'
                f"{DRAWING}{inside}{DRAWN}</svg></div>"
            )
        return "".join(written)


def drawing(panel: Panel) -> str:
    """Draws a panel; returns what stands inside of its `svg`."""
    axes = Axes(panel.height)
    panel.draw(axes)
    return axes.svg()


def missing(name: str, title: str, why: str) -> Picture:
    """Returns the picture of a drawing whose data are absent."""
    return Picture(name, title, "", absent=why)
