"""Whole runs under `gate.feedback: bit`: what is in no file, and what who reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from laptop import CONSTITUTION, Laptop

from pipelines.cli import run_command
from safescale_ammt.files.canonical import read_json
from safescale_ammt.releasing.answers import behind
from safescale_ammt.releasing.ledger import uses
from safescale_ammt.store.auditor import AUDITOR
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store


def rule(floor: float) -> dict[str, Any]:
    equal, useful = CONSTITUTION["principles"]
    constraint = {**useful["constraint"], "floor": floor}
    gate = {"planned_submissions": 3, "feedback": "bit", "on_uncertifiable": "human"}
    principles = [equal, {**useful, "constraint": constraint}]
    return {**CONSTITUTION, "principles": principles, "gate": gate}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop on which a model was refused, and then one became champion."""
    laptop = Laptop(tmp_path_factory.mktemp("bit") / "laptop")
    with laptop.store():
        laptop.write("constitution.yaml", rule(0.97))
        laptop.ends = [laptop.call("run", "--config", "loans.yaml")]
        laptop.write("constitution.yaml", rule(0.6))
        laptop.ends.append(laptop.call("run", "--config", "loans.yaml"))
        laptop.records = [
            read_json(file) for file in sorted(laptop.folder.glob("runs/2*/run.json"))
        ]
        laptop.records.sort(key=lambda record: record["started"])
        yield laptop


@pytest.fixture
def here(ended: Laptop, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.chdir(ended.folder)
    monkeypatch.delenv("SAFESCALE_STORE", raising=False)
    return ended


def stored(laptop: Laptop) -> Store:
    with laptop.store() as server:
        return open_store(server.uri, environ=server.environ)


def long_figures(value: Any) -> set[str]:
    """Returns the fractions of a JSON value that are no round ones, as spelled."""
    if isinstance(value, dict):
        return {f for each in value.values() for f in long_figures(each)}
    if isinstance(value, list):
        return {f for each in value for f in long_figures(each)}
    spelled = json.dumps(value) if isinstance(value, float) else ""
    return {spelled} if len(spelled) > 8 else set()


def test_no_file_of_a_run_holds_a_figure_of_the_sealed_rows(ended: Laptop) -> None:
    (code, lines), _ = ended.ends
    assert code == 3
    assert "Not every hard principle is shown to hold; refused" in "\n".join(lines)
    record = ended.records[0]
    assert record["verdict"]["decision"] == "not_passed"
    assert record["verdict"]["submissions_left"] == 2
    store = stored(ended)
    with behind(store, Path(record["artifacts"]["verdict"]["path"])) as (_, verdict):
        figures = long_figures(verdict.to_dict())
    assert len(figures) > 50
    places = [ended.folder / "runs", ended.folder / ".safescale" / "pipeline-root"]
    texts = {
        str(path): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }
    hidden = (AUDITOR, "sealed/", "data/", "safescale-store-id")
    for info in store.list():
        if not info.key.startswith(hidden):
            texts[info.key] = store.get(info.key)
    assert len(texts) > 60
    texts["output"] = "\n".join(lines).encode()
    # Its logs and its own rows are development's: what these say it knew before.
    known = b"".join(
        data
        for name, data in texts.items()
        if name.endswith((".jsonl", "power.json", "search.json", "decision.json"))
    )
    secret = {f for f in figures if f.encode() not in known}
    assert len(secret) > 50
    for name, data in texts.items():
        assert not [f for f in secret if f.encode() in data], name


def test_runs_and_registry_show_the_bit_and_whose_the_figures_are(
    here: Laptop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here.ends[1][0] == 0, here.ends[1][1][-1]
    assert here.records[1]["sentence"] == "loans version 1 is champion."
    assert run_command(["runs", "show", here.records[0]["run"]]) == 0
    shown = capsys.readouterr().out
    assert "submissions left" in shown
    assert "2 of 3 planned" in shown
    assert "not_passed" in shown
    assert run_command(["runs", "list"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert run_command(["registry", "show"]) == 0
    assert "the auditor's (gate.feedback: bit)" in capsys.readouterr().out
    assert run_command(["registry", "verify"]) == 0
    assert "1 version, every byte is as registered" in capsys.readouterr().out


def test_verify_and_report_show_the_figures_to_the_auditor_alone(
    here: Laptop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = f"runs/{here.records[0]['run']}"
    for word, decided in (("champion", "pass"), (first, "fail")):
        assert run_command(["verify", word]) == 0
        shown = capsys.readouterr().out
        assert "findings follow from the evidence of 4,000 rows" in shown
        assert f"The gate decides {decided} on them, as was answered." in shown
        page = tmp_path / "page.html"
        assert run_command(["report", word, "-o", str(page)]) == 0
        assert "Rates in figures" in page.read_text()
        capsys.readouterr()
    # Of another store, as of one whose key does not open the auditor's part.
    answer = here.records[0]["artifacts"]["verdict"]["path"]
    other = ["--store", (tmp_path / "other").as_uri()]
    assert run_command(["verify", answer, *other]) == 0
    shown = capsys.readouterr().out
    assert "nothing was derived again from them" in shown
    assert "holds no verdict behind the answer" in shown
    assert "The gate decides" not in shown
    page = tmp_path / "page.html"
    assert run_command(["report", answer, "-o", str(page), *other]) == 0
    assert "The figures are the auditor's:" in capsys.readouterr().err
    assert "Not passed" in page.read_text()
    assert "Rates in figures" not in page.read_text()


def test_a_verdict_that_is_opened_is_told_and_spends_the_rows(
    here: Laptop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "opened"
    first = f"runs/{here.records[0]['run']}"
    assert run_command(["open", first, "-o", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Use 1 of 3 is opened: the gate decides fail." in said
    assert "useful" in (folder / "report.html").read_text()
    assert [use.opened for use in uses(stored(here))] == [True, False]
    assert run_command(["verify", str(folder)]) == 0
    assert "The gate decides fail on them." in capsys.readouterr().out
    # There is nothing to open of a verdict with figures.
    assert run_command(["open", str(folder), "-o", str(tmp_path / "x")]) == 2
    assert "holds no answer of one bit" in capsys.readouterr().err
