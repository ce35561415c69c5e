"""JSON of others: bounded in time and memory, each value of its type, or refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from foreign_world import HOSTILE_JSON, OTHERS, nested, places, put, within
from registered_world import ended_run, registered, write_parts
from safety_world import constitution

from pipelines.cli import run_command
from pipelines.image_lock import Lock
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning, read_warnings
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.files import json_text
from safescale_ammt.files.artifacts import MANIFEST, Manifest
from safescale_ammt.files.canonical import (
    canonical_json,
    digest_file,
    digest_json,
    read_json,
    read_json_lines,
    write_json,
)
from safescale_ammt.files.json_text import JsonError, depth_of, parse_json, parse_lines
from safescale_ammt.files.typed_json import build, field_types, typed
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing import sealed_uses
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.releasing.record import read_chain
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.registry_state import RegistryState, fold
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.reporting.gallery import drawn
from safescale_ammt.reporting.history_charts import (
    power_curves,
    search_front,
    training_curves,
)
from safescale_ammt.reporting.provenance import PROVENANCE, Provenance
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog

NOT_JSON = [k for k in HOSTILE_JSON if k not in ("null", "list", "text", "number")]


@pytest.fixture(autouse=True)
def _nobody_waits() -> Iterator[None]:
    with within(60):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle, for tests that copy it."""
    return write_parts(tmp_path_factory.mktemp("parts"))


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_none_of_our_json_is_refused_without_a_word_of_it(kind: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(HOSTILE_JSON[kind])

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 100


def test_json_is_read_as_python_reads_it() -> None:
    value = {"a": [1, -2, 0.5, 1e300, True, None], "é漢😀": {"\n\x1b": '[{"\\'}}

    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert parse_json(text) == parse_json(text.encode()) == value


def test_brackets_in_a_text_are_no_levels() -> None:
    text = json.dumps(["[" * 500, '"' + "{" * 500, "\\" * 3 + "[" * 500])

    assert depth_of(text.encode()) == 1
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize("levels", [1, 64, 65, 100_000])
def test_levels_are_counted_and_limited(levels: int) -> None:
    text = nested(levels)
    assert depth_of(text.encode()) == levels

    if levels <= json_text.DEEPEST:
        assert parse_json(text) is not None
    else:
        with pytest.raises(JsonError, match="nested more than 64 levels deep"):
            parse_json(text)


def test_a_long_text_is_refused_by_its_length() -> None:
    with pytest.raises(JsonError, match="11 bytes, at most 10"):
        parse_json("[1, 2, 3,4]", most=10)


def test_lines_end_at_line_feeds_alone() -> None:
    events = [{"a": "one\u2028two\x85three\x0cfour\r"}, {"b": 1}]

    lines = b"".join(canonical_json(event) + b"\n" for event in events)

    assert parse_lines(lines) == events


@pytest.mark.parametrize("kind", HOSTILE_JSON)
@pytest.mark.parametrize(
    "place",
    [
        *(MANIFEST, "about.json", "constitution.json", "model/constitution.json"),
        *("model/manifest.json", "model/schema.json", "verdict/manifest.json"),
        *("verdict/verdict.json", "verdict/warnings.json", "record/events.jsonl"),
    ],
)
def test_hostile_json_in_a_bundle_that_was_sealed_again_is_one_sentence(
    made: Path,
    tmp_path: Path,
    place: str,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    (bundle / place).write_bytes(HOSTILE_JSON[kind])
    sealed_again(bundle, place)

    assert run_command(["verify", str(bundle)]) in (2, 3)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) < 1000


def sealed_again(bundle: Path, place: str) -> None:
    """Writes the digests of one file into the manifests that name it."""
    names = [MANIFEST]
    if "/" in place and place.split("/", maxsplit=1)[0] in ("model", "verdict"):
        names.insert(0, f"{place.split('/', maxsplit=1)[0]}/{MANIFEST}")
    for name in names:
        if name == place:
            continue
        folder = (bundle / name).parent
        raw = json.loads((bundle / name).read_text())
        for inner in raw["files"]:
            file = folder / inner
            raw["files"][inner] |= {
                "sha256": digest_file(file),
                "size": file.stat().st_size,
            }
        write_json(bundle / name, stated_again(raw))


def stated_again(raw: dict[str, Any]) -> dict[str, Any]:
    return Manifest.from_dict(raw).to_dict()


def sentence_or_none(read: Callable[[], object]) -> str:
    """Reads; returns the sentence of a refusal, "" if there is none."""
    try:
        read()
    except SafescaleError as error:
        said = str(error)
    else:
        return ""
    assert "\n" not in said
    assert len(said) < 1500
    return said


def test_a_value_of_another_type_anywhere_in_a_verdict_is_a_sentence(
    made: Path,
) -> None:
    raw = json.loads((made / "verdict" / "verdict.json").read_text())
    tried = refused = 0
    for at in places(raw):
        # Figures are compared with those that the evidence gives.
        if "figures" in at[:1] and len(at) > 3:
            continue
        for other in OTHERS:
            changed = put(raw, at, other)
            tried += 1
            refused += bool(
                sentence_or_none(lambda new=changed: Verdict.from_dict(new))
            )

    assert tried > 800
    # A text for a text and a number for a number are left to the evidence.
    assert refused > tried / 2


@pytest.mark.parametrize("name", ["model", "verdict", ""])
def test_a_value_of_another_type_anywhere_in_a_manifest_is_a_sentence(
    made: Path, tmp_path: Path, name: str
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    raw = json.loads((bundle / name / MANIFEST).read_text())
    for at in places(raw):
        for other in OTHERS:
            write_json(bundle / name / MANIFEST, put(raw, at, other))
            said = sentence_or_none(lambda: verify_bundle(bundle))
            assert said or put(raw, at, other) == raw


def test_a_value_of_another_type_anywhere_in_a_finding_is_a_sentence(
    made: Path,
) -> None:
    file = next((made / "verdict" / "findings").iterdir())
    raw = json.loads(file.read_text())
    for at in places(raw):
        for other in OTHERS:
            changed = put(raw, at, other)
            sentence_or_none(lambda new=changed: Finding.from_dict(new))


def test_a_value_of_another_type_anywhere_in_a_constitution_is_a_sentence() -> None:
    raw = constitution().to_dict()
    for at in places(raw):
        for other in (*OTHERS, math.inf, math.nan, 10**400, "\x1b[2J", "a\u202eb"):
            changed = put(raw, at, other)
            sentence_or_none(lambda new=changed: Constitution.from_dict(new))


@pytest.mark.parametrize("at", ["about.json", "schema.json", "verdict/warnings.json"])
def test_a_value_of_another_type_beside_a_verdict_is_a_sentence(
    made: Path, tmp_path: Path, at: str
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    raw = json.loads((bundle / at).read_text())
    for place in places(raw):
        for other in (None, [], {"x": 1}, 1, "\x1b"):
            changed = put(raw, place, other)
            write_json(bundle / at, changed)
            if at == "schema.json":
                write_json(bundle / "model" / at, changed)
                sealed_again(bundle, f"model/{at}")
            sealed_again(bundle, at)
            assert sentence_or_none(lambda: verify_bundle(bundle)) or changed == raw


@pytest.mark.parametrize("name", ["ledger", "registry/loans"])
def test_an_event_of_another_form_is_a_sentence(file_store: Store, name: str) -> None:
    body = {"entry": 1, "status": 2, "predecessor": 3, "use": 4}
    kind = "reserved" if name == "ledger" else "registered"
    registry = Registry(file_store, "loans")
    replayed, sentence = {
        "ledger": (sealed_uses.fold, "does not understand"),
        "registry/loans": (
            lambda events: fold(RegistryState("loans", registry.terms), events),
            "is none of ours",
        ),
    }[name]
    for number, bad in enumerate([{}, body, {**body, "use": []}, {"entry": {}}]):
        log = EventLog(file_store, f"{number}/{name}")
        log.append(lambda _, bad=bad: (kind, bad))
        with pytest.raises(SafescaleError, match=sentence):
            replayed(log.read())


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_hostile_json_in_a_log_of_events_is_a_sentence(
    file_store: Store, kind: str
) -> None:
    file_store.put("ledger/events/00000001.json", HOSTILE_JSON[kind])

    with pytest.raises(SafescaleError, match="damaged"):
        EventLog(file_store, "ledger").read()


def test_an_event_has_values_of_its_types(file_store: Store) -> None:
    EventLog(file_store, "log").append(lambda _: ("kind", {"a": 1}))
    raw = json.loads(file_store.get("log/events/00000001.json"))
    for at in places(raw):
        for other in OTHERS:
            changed = put(raw, at, other)
            if not isinstance(changed, dict):
                continue
            stated = {k: v for k, v in changed.items() if k != "digest"}
            # With a digest that fits: a forger can add up.
            changed |= {"digest": digest_json(stated)} if at != ("digest",) else {}
            file_store.put("log/events/00000001.json", canonical_json(changed) + b"\n")
            sentence_or_none(EventLog(file_store, "log").read)


@pytest.mark.parametrize("kind", HOSTILE_JSON)
def test_hostile_json_in_other_files_is_a_sentence(
    tmp_path: Path, file_store: Store, kind: str
) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(HOSTILE_JSON[kind])
    file_store.put("runs/r1/outcome.json", HOSTILE_JSON[kind])
    (tmp_path / PROVENANCE).write_bytes(HOSTILE_JSON[kind])

    for read in (
        lambda: Lock.load(file),
        lambda: read_warnings(file),
        lambda: RunOutcome.read(file_store, "r1"),
        lambda: Provenance.load(tmp_path),
        # Of nothing at all a chain is whole, and compared with the expected one.
        lambda: read_chain(file) or read_json(file),
    ):
        assert sentence_or_none(read)


def test_a_run_file_of_others_is_a_sentence(
    made: Path, tmp_path: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    parts = shutil.copytree(made.parent, tmp_path / "parts" / "p")
    run = ended_run(tmp_path / "runs", parts, file_store)
    for kind, data in HOSTILE_JSON.items():
        (run.folder / "run.json").write_bytes(data)
        for command in (["runs", "show", run.id], ["verify", f"runs/{run.id}"]):
            assert run_command(command) in (2, 3), (kind, command)


def test_a_verdict_in_the_registry_is_read_up_to_a_limit(
    made: Path, tmp_path: Path, file_store: Store
) -> None:
    version = registered(file_store, shutil.copytree(made, tmp_path / "bundle"))
    key = f"{version.entry.bundle}/verdict/verdict.json"
    with (tmp_path / "store" / key).open("ab") as file:
        file.truncate(1 << 40)

    with pytest.raises(InputError, match="the most that an object of its kind has"):
        Registry(file_store, "loans").verdict(version)


def test_a_number_of_a_line_that_is_not_json_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n{"name": "Ada", \n')

    with pytest.raises(InputError, match="holds a line that is not JSON") as caught:
        read_json_lines(tmp_path / "log.jsonl")
    assert "Ada" not in str(caught.value)


@dataclass(frozen=True)
class Inner:
    a: int
    b: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    share: float
    note: str | None
    flag: bool
    many: dict[str, tuple[Inner, ...]]


SOUND = {
    "inner": {"a": 1, "b": ["x"]},
    "share": 1,
    "note": None,
    "flag": True,
    "many": {"k": [{"a": 2}]},
}


def test_a_dataclass_is_built_from_its_json_form() -> None:
    built = build(Outer, SOUND)

    assert built == Outer(Inner(1, ("x",)), 1, None, True, {"k": (Inner(2),)})
    assert field_types(Inner)[1] == {"a"}


@pytest.mark.parametrize(
    ("at", "other", "said"),
    [
        (("inner",), 1, "inner. is no object"),
        (("inner", "a"), True, "inner.a is no int"),
        (("inner", "a"), 1.5, "inner.a is no int"),
        (("inner", "b", 0), 1, r"inner.b\[0\] is no str"),
        (("inner", "b"), "xy", "inner.b is no tuple"),
        (("share",), "1", "share is no float"),
        (("share",), False, "share is no float"),
        (("note",), 1, "note is no str"),
        (("flag",), 1, "flag is no bool"),
        (("many", "k", 0), [], r"many.k\[0\]. is no object"),
        (("many",), [], "many is no"),
        (("inner",), {}, "inner.a is missing"),
        (("inner",), {"a": 1, "z": 1}, "inner.z is unknown"),
        ((), [], "Outer is no object"),
    ],
)
def test_a_value_of_another_type_is_named_by_its_place(
    at: tuple[Any, ...], other: Any, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        build(Outer, put(SOUND, at, other))


def test_a_type_of_anything_takes_anything() -> None:
    assert typed({"a": [1]}, dict[str, Any], "x") == {"a": [1]}
    assert build(
        AuditWarning, {"kind": "k", "columns": [], "figure": 1, "sentence": ""}
    )


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"[" + b" " * 100)

    with pytest.raises(
        InputError, match="has 101 bytes, a file of its kind at most 100"
    ):
        read_json(tmp_path / "x.json", most=100)


@pytest.mark.parametrize("name", ["training", "search", "power"])
def test_a_log_of_another_form_is_a_picture_that_is_absent(name: str) -> None:
    logs: list[Any] = [None, [1], [{"event": 1}], [{"event": "round"}], {"x": []}]
    draw = {
        "training": lambda log: training_curves(log or ()),
        "search": search_front,
        "power": power_curves,
    }[name]
    for log in (*logs, {"candidates": 1}, {"rows": "x"}, [{"event": "merge", "a": {}}]):
        assert drawn(name, lambda log=log: draw(log)).absent


def test_an_origin_with_a_day_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    sound = {"model": "m", "mode": "sealed", "sealed_rows": 1}
    for other in ({"judged": "never"}, {"days": {"start": 1}}, {"rows": [1]}):
        write_json(tmp_path / PROVENANCE, sound | other)
        with pytest.raises(InputError, match="holds no provenance"):
            Provenance.load(tmp_path)
