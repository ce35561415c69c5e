"""The report's look, without a browser: cards, colours, and texts of drawings."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from itertools import combinations, pairwise
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from report_world import crowded

from safescale_ammt.reporting.axes import WIDTH
from safescale_ammt.reporting.report_style import STYLE
from safescale_ammt.reporting.scales import FONT_SIZE, short, width_of

PHONE = 390
# Of `main` and of `figure` on a narrow screen, either side.
PADDING = 14 + 12
LEAST_PIXELS = 11
SVG = "{http://www.w3.org/2000/svg}"


class Box(NamedTuple):
    text: str
    left: float
    top: float
    right: float
    bottom: float


@cache
def drawings() -> list[str]:
    return re.findall(r"<svg xmlns:xlink.*?</svg>", crowded(), re.DOTALL)


def view(svg: str) -> list[float]:
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box
    return [float(n) for n in box[1].split()]


def texts(svg: str) -> list[Box]:
    """Where each text of a drawing lies, as wide as DejaVu, the widest we expect."""
    found = []
    for text in ElementTree.fromstring(svg).iter():
        if text.tag.removeprefix(SVG) != "text" or not (text.text or "").strip():
            continue
        style, place = str(text.get("style")), str(text.get("transform"))
        size = re.search(r"font-size: ([\d.]+)px", style)
        assert size
        font = FontProperties(family=["DejaVu Sans"], size=float(size[1]))
        words = str(text.text)
        width, height, drop = text_to_path.get_text_width_height_descent(
            words, font, ismath=False
        )
        turn, x, y = 0.0, 0.0, 0.0
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", place)]
        if place.startswith("rotate"):
            turn, x, y = numbers
        else:
            x, y = numbers[:2]
        shift = {"middle": 0.5, "end": 1.0}.get(
            (re.findall(r"text-anchor: (\w+)", style) or [""])[0], 0.0
        )
        left, right = -shift * width, (1 - shift) * width
        if turn == -90:
            corners = (x - height + drop, y - right, x + drop, y - left)
        else:
            corners = (x + left, y - height + drop, x + right, y + drop)
        found.append(Box(words, *corners))
    return found


def test_no_text_of_a_drawing_is_smaller_than_eleven_pixels_on_a_phone() -> None:
    room = PHONE - 2 * PADDING
    for svg in drawings():
        scale = room / view(svg)[2]
        sizes = [float(n) for n in re.findall(r"font-size: ([\d.]+)px", svg)]
        assert sizes
        assert min(sizes) * scale >= LEAST_PIXELS


def test_texts_of_a_drawing_stay_inside_it_however_long_the_names_are() -> None:
    for svg in drawings():
        left, top, width, height = view(svg)
        for box in texts(svg):
            assert box.left >= left - 1, box
            assert box.right <= left + width + 1, box
            assert box.top >= top - 1, box
            assert box.bottom <= top + height + 1, box


def test_no_two_texts_of_a_drawing_lie_on_one_another() -> None:
    for svg in drawings():
        for a, b in combinations(texts(svg), 2):
            across = min(a.right, b.right) - max(a.left, b.left)
            along = min(a.bottom, b.bottom) - max(a.top, b.top)
            assert min(across, along) < 1, (a, b)


def test_a_label_that_is_too_wide_is_cut_where_its_room_ends() -> None:
    room = WIDTH - 26
    wide = short("W" * 80, room)

    assert wide.endswith("…")
    assert 20 < len(wide) < 30
    assert short("narrow", room) == "narrow"
    assert short("i" * 60, room) == "i" * 60


@pytest.mark.parametrize(
    "text",
    [
        *("Amer-Indian-Eskimo · 159", "WWW MMM @@@", "iiilll|||", "0.1234 %"),
        *("Jürgen Ødegård", "Щёлоково", "ΑΒΓ αβγ", "…—“”", "αθήνα ж ю м"),
    ],
)
def test_a_text_is_never_wider_than_it_is_taken_for(text: str) -> None:
    font = FontProperties(family=["DejaVu Sans"], size=FONT_SIZE)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)

    assert width <= width_of(text) + 0.1
    assert width_of(text) <= 1.6 * width + FONT_SIZE


def test_no_two_elements_of_a_page_share_an_id() -> None:
    ids = re.findall(r'\bid="([^"]+)"', crowded())

    assert ids
    assert len(ids) == len(set(ids))


class Tables(HTMLParser):
    """Collects headings and each row's labels, and every role."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[list[str], list[list[str]]]] = []
        self.roles: set[tuple[str, str]] = set()
        self.heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: str(value) for name, value in attrs}
        if tag in {"table", "thead", "tbody", "tr", "th", "td"}:
            self.roles.add((tag, given.get("role", "")))
        if tag == "table":
            self.tables.append(([], []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag == "th" and given["scope"] == "col":
            self.heading = True
        elif tag == "td":
            self.tables[-1][1][-1].append(given["data-label"])

    def handle_data(self, data: str) -> None:
        if self.heading:
            self.tables[-1][0].append(data)
            self.heading = False


def test_every_cell_of_a_card_bears_the_heading_of_its_column() -> None:
    found = Tables()
    found.feed(crowded())

    assert len(found.tables) == 5
    for heads, (_, *rows) in found.tables:
        assert rows
        assert all(row == heads[1:] for row in rows)


def test_tables_stay_tables_to_a_screen_reader() -> None:
    found = Tables()
    found.feed(crowded())

    assert found.roles == {
        ("table", "table"),
        ("thead", "rowgroup"),
        ("tbody", "rowgroup"),
        ("tr", "row"),
        ("th", "columnheader"),
        ("th", "rowheader"),
        ("td", "cell"),
    }


def test_nothing_on_a_phone_asks_for_more_width_than_it_has() -> None:
    # A least width counts only inside of min(): then a narrower screen has its own.
    for least in re.findall(r"minmax\((\d+)px", STYLE):
        assert 2 * int(least) < PHONE - 2 * PADDING
    assert not re.search(r"(?<!-)\bwidth: (?!1px)\d+px", STYLE)
    assert re.findall(r"nowrap", STYLE) == ["nowrap"]  # the pill's one word
    assert "overflow-wrap: anywhere" in STYLE
    assert "overflow-x" not in STYLE


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, WCAG 2.2, 1.4.3."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_every_text_has_a_contrast_of_four_and_a_half(theme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    own = blocks[["light", "dark", "print"].index(theme)]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[0] + own))

    for text in ("ink", "muted"):
        for under in ("page", "surface", "soft", "pass", "human", "fail"):
            assert contrast(colours[text], colours[under]) >= 4.5, (text, under)
    for text in ("green", "orange", "red"):
        assert contrast(colours[text], colours["surface"]) >= 4.5, text


def test_the_page_has_landmarks_and_headings_without_a_gap() -> None:
    page = crowded()

    assert '<html lang="en">' in page
    for mark in ("<main>", "<header>", "<footer>", 'aria-label="Decision"'):
        assert page.count(mark) == 1
    levels = [int(n) for n in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
