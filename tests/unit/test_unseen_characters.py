"""Names with what nobody sees: refused where they come in, spelled where they go."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safety_world import constitution, evidence, schema, submission

from pipelines.local.stage_log import StageLog
from pipelines.output import say, say_json
from pipelines.progress import Progress
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.errors import ConstitutionError, DataError, InputError
from safescale_ammt.execution import describe
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.printable import printable, printable_lines, unseen_in
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes, read_table
from safescale_ammt.releasing.card import summary, write_card
from safescale_ammt.reporting.provenance import Provenance, renewed
from safescale_ammt.reporting.report import render

UNSEEN = {
    "escape": "\x1b[2J",
    "bell": "\x07",
    "C1": "\x9b1m",
    "delete": "\x7f",
    "right to left": "\u202e",
    "isolate": "\u2066",
    "no width": "\u200b",
    "mark": "\ufeff",
    "soft hyphen": "\xad",
    "line": "\u2028",
    "tag": "\U000e0041",
}
"""Characters that nobody sees, by name."""
BREAKS = {"line feed": "\n", "return": "\r", "tab": "\t", "vertical": "\x0b"}
SEEN = [
    *(
        "é",
        "漢字",
        "مرحبا",
        "می\u200cخواهم",
        "👩\u200d🔬",
        "🏳️",
        "a\xa0b",
        "ﬁ",
        "ñ",
        "→",
    ),
    *("a b", "a-b_c", "<b>", "a|b", "`a`", "$x^", "[a](b)", "'a'", '"', "\\"),
]
"""What people write in names."""
HTML = "<img src=x onerror=alert(1)>"
MARKDOWN = [
    "[a](http://evil.example)",
    "`a` | **b**",
    "# a",
    "- a",
    "1. a",
    "---",
    HTML,
]


@pytest.mark.parametrize("name", [*UNSEEN.values(), *BREAKS.values(), "\0", "\ud800"])
def test_what_nobody_sees_is_spelled(name: str) -> None:
    spelled = printable(f"a{name}b")

    assert spelled.isprintable()
    assert spelled.startswith("a\\")
    assert unseen_in(f"a{name}b").endswith(")")
    # In JSON, too, such a spelling is what it stands for.
    assert printable(spelled) == spelled


@pytest.mark.parametrize("name", SEEN)
def test_what_people_write_stays_as_it_is(name: str) -> None:
    assert printable(name) == name
    assert not unseen_in(name)
    assert printable_lines(f"{name}\n{name}") == f"{name}\n{name}"


def csv(name: str) -> bytes:
    quoted = name.replace('"', '""')
    return f'"{quoted}",b\n1,2\n3,4\n'.encode()


def parquet(name: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({name: [1, 3], "b": [2, 4]}), out)
    return out.getvalue()


@pytest.mark.parametrize("write", [csv, parquet, lambda name: gzip.compress(csv(name))])
@pytest.mark.parametrize("kind", UNSEEN)
def test_a_column_name_that_nobody_sees_is_refused_by_its_place(
    write: Callable[[str], bytes], kind: str
) -> None:
    with pytest.raises(
        DataError, match=r"^The name of column 1 of x holds a"
    ) as caught:
        parse_bytes(write(f"in{UNSEEN[kind]}come"), "x", Layout())

    assert f"U+{ord(UNSEEN[kind][0]):04X}" in str(caught.value)
    assert "income" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", SEEN)
def test_a_column_name_that_people_write_is_read(name: str) -> None:
    for write in (csv, parquet):
        assert next(iter(parse_bytes(write(name), "x", Layout()).columns)) == name


def test_a_folder_that_spells_a_column_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "g\x1b[2J=1").mkdir()
    (tmp_path / "g\x1b[2J=1" / "a.csv").write_text("a,b\n1,2\n")

    with pytest.raises(DataError, match="holds a") as caught:
        read_table(tmp_path.as_uri(), Layout())
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["id", "owner", "version"])
@pytest.mark.parametrize("kind", [*UNSEEN, *BREAKS])
def test_a_constitution_has_no_name_that_nobody_sees(key: str, kind: str) -> None:
    raw = constitution().to_dict()
    raw["constitution"][key] = f"a{(UNSEEN | BREAKS)[kind]}b"

    with pytest.raises(ConstitutionError, match="holds a line break, a control"):
        Constitution.from_dict(raw)


@pytest.mark.parametrize("kind", UNSEEN)
def test_neither_has_a_promise(kind: str) -> None:
    for key in ("id", "text"):
        raw = constitution().to_dict()
        raw["principles"][0][key] = f"a{UNSEEN[kind]}b"
        with pytest.raises(ConstitutionError, match="holds a line break, a control"):
            Constitution.from_dict(raw)


def test_the_text_of_a_promise_may_have_paragraphs() -> None:
    raw = constitution().to_dict()
    raw["principles"][0]["text"] = "One.\n\tTwo."

    assert Constitution.from_dict(raw).principles[0].text == "One.\n\tTwo."


def judged(name: str) -> tuple[Verdict, Constitution]:
    """A verdict whose classes, group values and reasons hold a name."""
    rule = constitution()
    rows = evidence()
    groups = {
        group: (tuple(f"{value}{name}" for value in values), codes)
        for group, (values, codes) in rows.groups.items()
    }
    about = replace(
        submission("sha256:m"), classes=(f"no{name}", "yes"), positive="yes"
    )
    verdict = assemble(rule, replace(rows, groups=groups), about, "sha256:e")
    return replace(verdict, reasons=(f"Because of {name}.", name)), rule


def pages(name: str) -> dict[str, str]:
    """Every page about such a verdict."""
    verdict, rule = judged(name)
    warning = AuditWarning("proxy", (name,), 0.5, f"{name} stands in.", "sex")
    about = schema() | {"label": name}
    about["features"] = [{**f, "name": name} for f in about["features"]]
    page = render(verdict, rule, warnings=[warning])
    known = replace(Provenance.of(verdict), source=f"file:///{name}", run=name)
    return {
        "card": write_card(
            verdict, "v", rule, about, name="m", description=name, warnings=[warning]
        ),
        "summary": summary(verdict, rule),
        "report": page,
        "renewed": renewed(page, known),
    }


def test_no_page_holds_what_nobody_sees() -> None:
    # All at once: a page takes seconds to draw.
    for page in pages("x" + "".join((UNSEEN | BREAKS).values()) + "\0y").values():
        assert not [c for c in page if unseen_in(c) and c != "\n"]


def test_no_page_takes_a_name_for_html_or_markdown() -> None:
    made = pages(f"a|b`c` {HTML} </svg><script>alert(1)</script> $x^ [l](http://e.e)")

    for name, page in made.items():
        assert "<script>alert" not in page, name
        assert "<img src=x" not in page, name
    for name in ("card", "summary"):
        lines = made[name].splitlines()
        tables = [line for line in lines if line.startswith("| ")]
        # Every row has the pipes of its head, and those of names are spelled.
        assert len({line.count("|") for line in tables if "promise" in line}) <= 1
        assert "http://e.e" not in made[name]
        assert "](http" not in made[name].replace("\\]", "")


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_reason_starts_neither_a_heading_nor_a_list(name: str) -> None:
    verdict, rule = judged("")
    # The first reason of a pass is its headline.
    text = summary(replace(verdict, reasons=("Kept.", name)), rule)

    (line,) = [line for line in text.splitlines() if line.startswith("- ")]
    assert line[2] in "\\1&" or not line[2:].startswith(name)
    assert "<img" not in line
    assert "http://" not in line


@pytest.mark.parametrize("kind", [*UNSEEN, *BREAKS])
def test_no_sentence_of_ours_holds_what_nobody_sees(kind: str) -> None:
    name = (UNSEEN | BREAKS)[kind]
    error = InputError(f"{name} is no name.")

    assert str(error).isprintable()
    _, _, sentence = describe("s", OSError(f"no {name} there"))
    assert sentence.isprintable()


@pytest.mark.parametrize("kind", UNSEEN)
def test_no_line_for_a_terminal_or_a_log_holds_what_nobody_sees(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = UNSEEN[kind]
    log = io.StringIO()

    say(f"a {name}\nb")
    say_json({"a": name})
    Progress("r").say(name)
    StageLog(log, lambda *_a, **_k: None).write(f"\x1b[31m{name}\x1b[0m\n")

    said = capsys.readouterr()
    for text in (said.out, said.err, log.getvalue()):
        assert not [c for c in text if unseen_in(c) and c != "\n"]
    assert said.out.startswith("a \\")


def test_json_for_a_terminal_is_still_json(capsys: pytest.CaptureFixture[str]) -> None:

    for value in ({"a": "é漢"}, {"a": "\x9b\u202e\x7f"}):
        say_json(value)
        assert json.loads(capsys.readouterr().out) == value
