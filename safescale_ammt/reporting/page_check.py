"""The page compared with one written anew: every word and number of it, and no drawing.

A drawing depends on matplotlib and its fonts, so it is looked at only for what could
change the page around it: it may hold shapes and labels, and neither HTML, nor a style
sheet, nor a place outside of its own frame.
"""

from __future__ import annotations

import re
from itertools import takewhile
from xml.etree import ElementTree

from safescale_ammt.errors import IntegrityError
from safescale_ammt.reporting.figures import DRAWING, DRAWN

_DRAWN = re.compile(f"{DRAWING}(.*?){DRAWN}", re.DOTALL)
_HEADING = re.compile(r"<(?:h[1-4]|caption)\b[^>]*>([^<]+)")
_SHAPES = frozenset(
    (
        *("g", "defs", "path", "use", "text", "tspan", "clipPath"),
        *("rect", "circle", "line", "polygon", "polyline"),
    )
)
_LINK = "{http://www.w3.org/1999/xlink}href"
_STYLES = re.compile(
    r"(fill|stroke|opacity|font|text-anchor|text-decoration)[a-z-]*"
    r":\s*(var\(--[a-z]+\)|[\w.,' #%-]+)"
)
_URL = re.compile(r"url\(#[\w.-]+\)")
_ATTRIBUTES = frozenset(
    (
        *("id", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "ry"),
        *("width", "height", "points", "transform", "clip-path", "style", _LINK),
    )
)
# Of a place that differs, so much is shown.
_SHOWN = 60


def check_page(stored: str, derived: str, where: str) -> None:
    """Compares a page with one that is derived again and not drawn.

    Args:
        stored: the page as it lies there.
        derived: what `render` writes with `drawn=False`.
        where: path of the page, for the sentence.

    Raises:
        IntegrityError: the first word or number that departs and where it stands, or
            a drawing that is more than one.
    """
    text = stored
    # By count first: without ends, each of many beginnings would be read to the end.
    if all(stored.count(mark) == derived.count(mark) for mark in (DRAWING, DRAWN)):
        for number, body in enumerate(_DRAWN.findall(stored), 1):
            if fault := beyond_a_drawing(body):
                raise IntegrityError(f"Drawing {number} of {where} holds {fault}.")
        text = _DRAWN.sub(DRAWING + DRAWN, stored)
    if text != derived:
        raise IntegrityError(
            f"{where} departs from its verdict {place(text, derived)}."
        )


def place(text: str, derived: str) -> str:
    """Says where two pages first differ: under which heading, and what each says."""
    pairs = zip(text, derived, strict=False)
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    headings = _HEADING.findall(derived[:at]) or ["its head"]
    start = max(derived.rfind(">", 0, at) + 1, at - _SHOWN // 2)
    found, expected = (repr(page[start : start + _SHOWN]) for page in (text, derived))
    return f"under {headings[-1]!r}: it says {found}, derived again it is {expected}"


def beyond_a_drawing(body: str) -> str:
    """Says what a drawing holds that a drawing has no need of, "" if nothing.

    Args:
        body: what stands between the marks, inside of an `svg`.
    """
    # What XML and HTML read differently: declarations, comments, sections.
    if re.search(r"<[!?]", body):
        return "a declaration or a comment"
    whole = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink">{body}</svg>'
    try:
        root = ElementTree.fromstring(whole)  # noqa: S314  without declarations
    except ElementTree.ParseError:
        return "what is no XML"
    for element in root.iterfind(".//*"):
        if element.tag not in _SHAPES:
            return "an element that is no shape"
        for name, value in element.attrib.items():
            if not attribute_is_plain(name, value):
                return "an attribute that reaches beyond a shape"
    return ""


def attribute_is_plain(name: str, value: str) -> bool:
    """Says whether an attribute of a shape says no more than how the shape looks."""
    if name == "style":
        pairs = (pair.strip() for pair in value.split(";") if pair.strip())
        return all(_STYLES.fullmatch(pair) for pair in pairs)
    if name == "clip-path":
        return _URL.fullmatch(value) is not None
    if name == _LINK:
        return value.startswith("#")
    return name in _ATTRIBUTES
