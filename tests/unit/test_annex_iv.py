"""The technical documentation: what the record holds, and nothing that it does not."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from approval_world import ALICE, World
from forger import change, rerecorded
from registered_world import write_parts

from pipelines.cli import run_command
from safescale_ammt.data.condition import Condition
from safescale_ammt.judging.slice_forms import Proposal, SliceFinding, Slices
from safescale_ammt.releasing.annex_iv import LOG, NOTHING, SECTIONS, annex_iv
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.reporting.markdown_page import markdown_page
from safescale_ammt.store.base import Store

ASKED = [f"{point}) {asks}" for _, points in SECTIONS for point, asks in points]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("made"))


def written(bundle: Path) -> str:
    checked = verify_bundle(bundle)
    return annex_iv(bundle, checked.verdict, checked.digest)


def under(page: str, point: str) -> str:
    """Returns what stands under a point."""
    (title,) = (asked for asked in ASKED if asked.startswith(f"{point})"))
    return page.split(f"### {title}\n", 1)[1].split("\n#", 1)[0]


def test_every_point_stands_there_once_and_every_fact_names_its_file(
    made: Path,
) -> None:
    page = written(made)
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == ASKED
    assert len(re.findall(r"^## \d\. ", page, re.MULTILINE)) == 9
    facts = re.findall(r"^- .*$", page, re.MULTILINE)
    assert len(facts) > 20
    for fact in facts:
        (where,) = re.findall(r"\(`([^`]+)`\)$", fact)
        assert (made / where).is_file(), fact


def test_what_no_record_holds_is_left_to_a_person(made: Path) -> None:
    page = written(made)
    for point in ("1b", "1d", "1e", "1f", "1g", "1h", "2f", "2h", "5", "7", "8", "9"):
        assert under(page, point).strip() == NOTHING
    # The only words about conformity are that this is none.
    words = re.findall(r"\w+ \w+ \w+ conform\w*", page)
    assert words == ["no declaration of conformity", "EU declaration of conformity"]
    assert "comply" not in page


def test_figures_are_those_of_the_verdict(made: Path) -> None:
    page, verdict = written(made), verify_bundle(made).verdict
    for finding in verdict.findings:
        assert f"*{finding.principle}*" in under(page, "2g")
        assert f"{finding.value:.4f}" in under(page, "2g")
    rate = verdict.figures["model"]["accuracy"]
    assert f"Accuracy of the model: {100 * rate['value']:.2f} %" in under(page, "3a")
    for value in ("Female", "Male"):
        assert f"Errors of sex = {value}" in under(page, "3a")
    assert verdict.model in page


def test_slices_that_nobody_named_stand_beside_the_groups(made: Path) -> None:
    checked = verify_bundle(made)
    proposal = Proposal((Condition("*job*", "a"), Condition("age", up_to=30.0)), 90, 30)
    found = SliceFinding(proposal, 400, 100, (0.25, 0.2, 0.3), (0.1, 0.09, 0.11), 60.0)
    about = Slices(0.1, 1000, 130, 4, (found,))
    page = annex_iv(made, replace(checked.verdict, slices=about), checked.digest)
    assert "confirm 1, of which at most 10 % are expected" in under(page, "2g")
    assert "25.00 % of 400 rows are wrong, of all others 10.00 %." in under(page, "3a")
    assert r"\*job\*" in under(page, "3a")


def test_words_of_an_owner_are_no_markdown(made: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made, bundle)
    registry = {"name": "loans", "description": "# <b>Safe</b> | [x](http://e.org)"}
    change(bundle / "about.json", registry=registry)
    rerecorded(bundle)
    checked = verify_bundle(made)
    page = annex_iv(bundle, checked.verdict, checked.digest)
    assert "<b>" not in page
    assert r"\[x\](http&#58;//e.org)" in page
    assert "&lt;b&gt;Safe" in under(page, "1a")


def words(text: str) -> list[str]:
    """Returns the words of a text, without marks."""
    return re.findall(r"\w+", text)


class Read(HTMLParser):
    """What a reader of a page sees, and by which elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.inside = "", list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if "main" in self.inside and self.inside[-1] not in ("style", "footer"):
            self.text += data + " " * (self.inside[-1] in ("h1", "h2", "h3", "li", "p"))


def test_the_page_has_the_words_of_the_markdown_and_nothing_foreign(
    made: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made, bundle)
    evil = "# <b>Safe</b> <script>x</script> | [x](http://e.org) ![i](http://e.org/i)"
    registry = {"name": "loans", "description": f"{evil} &amp; **bold** `code`"}
    change(bundle / "about.json", registry=registry)
    rerecorded(bundle)
    checked = verify_bundle(made)
    text = annex_iv(bundle, checked.verdict, checked.digest)
    read = Read(markdown_page(text, "from a test."))
    assert {"h1", "h2", "h3", "ul", "li", "em", "code"} <= {*read.tags}
    assert not {"script", "img", "a", "b", "strong", "link", "iframe"} & {*read.tags}
    assert evil in read.text
    assert "&amp; **bold** `code`" in read.text
    assert read.tags.count("section") == len(SECTIONS)
    assert read.tags.count("h3") == len(ASKED)
    shown = re.sub(r"[\\`*]", "", unescape(text)).replace("\\", "")
    own = words(read.text)[2:]  # the line above the title
    assert own == words(shown)


def test_the_page_is_written_where_the_file_is_html(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.html", "b.HTM"):
        assert run_command(["report", str(made), "--annex-iv", "-o", name]) == 0
        page = Path(name).read_text("utf-8")
        assert page.startswith("<!doctype html>")
        assert "@media print" in page
        assert "prefers-color-scheme: dark" in page
        assert len(page) < 100_000
    assert run_command(["report", str(made), "--annex-iv", "-o", "a.txt"]) == 0
    assert Path("a.txt").read_text("utf-8").startswith("# Technical documentation")


def test_people_who_decided_stand_there(file_store: Store, tmp_path: Path) -> None:
    world = World(file_store, tmp_path)
    world.register()
    world.act("reject", ALICE)
    version = world.registry().show(1)
    folder = tmp_path / "brought"
    world.registry().get_bundle(version, folder)
    from safescale_ammt.judging.verdict import Verdict

    page = annex_iv(
        folder, Verdict.load(folder / "verdict"), version.entry.bundle_digest, version
    )
    assert "reject by alice" in under(page, "2e")
    assert f"(`{LOG}`)" in under(page, "6")
    assert "Version 1" in under(page, "6")
    assert "alice may approve" in under(page, "2e")


def test_the_command_writes_it_of_a_whole_bundle_alone(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, bundle = tmp_path / "annex.md", tmp_path / "bundle"
    words = ["--annex-iv", "-o", str(page)]
    assert run_command(["report", str(made), *words]) == 0
    assert page.read_text("utf-8") == written(made)
    page.unlink()
    shutil.copytree(made, bundle)
    (bundle / "card.md").write_text("approved")
    assert run_command(["report", str(bundle), *words]) == 3
    assert run_command(["report", str(made / "verdict"), *words]) == 2
    assert "expected a bundle artifact" in capsys.readouterr().err
    assert not page.exists()
