"""What a forger does to a bundle who makes every digest fit, and how it is found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from forger import change, change_findings, rerecorded, rewrite, sealed_again
from registered_world import registered, write_parts
from safety_world import constitution, evidence, submission, write_verdict

from pipelines.cli import run_command
from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import (
    MANIFEST,
    Draft,
    Manifest,
    describe,
    read_manifest,
)
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.bundle import verify_bundle, write_bundle
from safescale_ammt.releasing.contents import REQUIRED
from safescale_ammt.releasing.page import page_of
from safescale_ammt.reporting.page_check import beyond_a_drawing, check_page
from safescale_ammt.store.uri import open_store

REPORT = "verdict/report.html"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle, whose report has pictures."""
    return write_parts(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A bundle to tamper with."""
    shutil.copytree(made, tmp_path / "bundle")
    return tmp_path / "bundle"


def refused(bundle: Path) -> str:
    """Returns the sentence by which a bundle is refused."""
    with pytest.raises((IntegrityError, InputError)) as error:
        verify_bundle(bundle)
    return str(error.value)


# --- words of verdict and record ---


@pytest.mark.parametrize(
    "words", [{"reason": "It is as fair as can be."}, {"method": "exact"}]
)
def test_an_edited_reason_or_method_is_found_though_every_digest_fits(
    bundle: Path, words: dict[str, str]
) -> None:
    change_findings(bundle, **words)
    rerecorded(bundle)
    name = next(iter(words))
    assert f"findings.0.{name}: stated {words[name]!r}" in refused(bundle)


def test_an_edited_reason_of_the_decision_is_found(bundle: Path) -> None:
    change(bundle / "verdict/verdict.json", reasons=["Approved by the regulator."])
    rerecorded(bundle)
    assert "reasons.0: stated 'Approved by the regulator.'" in refused(bundle)


def test_a_finding_file_alone_may_say_nothing_else(bundle: Path) -> None:
    file = next((bundle / "verdict/findings").iterdir())
    change(file, reason="Fine.")
    rerecorded(bundle)
    assert "departs from the finding in the verdict" in refused(bundle)


@pytest.mark.parametrize("file", ["verdict.json", "findings"])
def test_a_key_that_nothing_reads_is_found(bundle: Path, file: str) -> None:
    place = bundle / "verdict" / file
    place = next(place.iterdir()) if place.is_dir() else place
    change(place, approved="by the regulator")
    sealed_again(bundle)
    assert re.search("approved is unknown|departs", refused(bundle))


@pytest.mark.parametrize(
    "file",
    [
        *("about.json", "constitution.json", "schema.json", "model/schema.json"),
        *("model/twin/schema.json", "verdict/verdict.json", "verdict/warnings.json"),
        *("verdict/constitution.json", "record/test-result.intoto.json"),
        "record/events.jsonl",
    ],
)
def test_a_key_that_stands_twice_is_found_in_every_file(
    bundle: Path, file: str
) -> None:
    name = next(iter(json.loads((bundle / file).read_bytes().splitlines()[0])))
    text = (bundle / file).read_text("utf-8")
    rewrite(bundle / file, {text[:1]: f'{{"{name}":"what a person reads",'})
    # The copy and what is written anew are not what is tested here.
    if file.endswith("schema.json"):
        text = (bundle / file).read_text("utf-8")
        for copy in ("schema.json", "model/schema.json"):
            (bundle / copy).write_text(text, "utf-8")
    sealed_again(bundle)
    assert re.search("gives a key twice|is not a chain of events", refused(bundle))


def test_an_edited_event_is_found_though_its_chain_is_linked_again(
    bundle: Path,
) -> None:
    from safescale_ammt.releasing.record import read_chain, write_chain

    events = bundle / "record/events.jsonl"
    links = ("sequence", "previous", "digest")
    told = [
        {k: v for k, v in event.items() if k not in links}
        for event in read_chain(events)
    ]
    for key, value in (("owner", "the regulator"), ("principles", ["Be kind."])):
        write_chain(events, [{**told[0], key: value}, *told[1:]])
        sealed_again(bundle)
        assert "events end in" in refused(bundle)


@pytest.mark.parametrize(
    "words",
    [
        {"**Pass.**": "**Pass, approved.**"},
        {"written by risk-team": "audited by risk-team"},
        {"Run `safescale verify`": "Do not run `safescale verify`"},
    ],
)
def test_an_edited_card_is_found(bundle: Path, words: dict[str, str]) -> None:
    rewrite(bundle / "card.md", words)
    sealed_again(bundle)
    assert "card.md does not tell of verdict" in refused(bundle)


# --- versions of the code ---


@pytest.mark.parametrize("part", ["model", "verdict", "bundle"])
def test_a_code_version_that_is_edited_in_one_place_is_found(
    bundle: Path, part: str
) -> None:
    sealed_again(bundle, **{part: "0.0.9"})
    assert re.search("events end in|departs from what the files", refused(bundle))


def test_a_bundle_of_another_version_says_which_words_were_not_derived(
    bundle: Path,
) -> None:
    change_findings(bundle, reason="It is as fair as can be.")
    rewrite(bundle / REPORT, {"Every hard promise": "Every single promise"})
    rewrite(bundle / "card.md", {"Every hard promise": "Every single promise"})
    rerecorded(bundle, model="0.0.9", verdict="0.0.9", bundle="0.0.9")
    told = "\n".join(verify_bundle(bundle).not_evidence)

    assert (
        "Reasons and methods in verdict and findings, and the report: written by "
        in (told)
    )
    assert told.count("version '0.0.9'; not derived again") == 2
    assert "trained by version '0.0.9'" in told
    # What is no word has to follow all the same.
    change_findings(bundle, value=0.0)
    rerecorded(bundle, model="0.0.9", verdict="0.0.9", bundle="0.0.9")
    assert "findings.0.value" in refused(bundle)


def test_a_verdict_of_another_version_in_a_bundle_of_this_one_is_named(
    bundle: Path,
) -> None:
    rerecorded(bundle, verdict="0.0.9")
    (told,) = (w for w in verify_bundle(bundle).not_evidence if "not derived" in w)
    assert told.startswith("Reasons and methods")


def test_a_sound_bundle_names_what_is_no_evidence_and_no_words(made: Path) -> None:
    told = verify_bundle(made).not_evidence
    assert [what.split()[0] for what in told] == [
        *("Drawings", "Which", "Logs", "The", "Which", "Name,", "Stages,"),
    ]


def test_a_use_of_the_sealed_rows_that_was_made_up_is_the_ledgers_to_find(
    tmp_path: Path,
) -> None:
    rule, model = constitution(), write_parts(tmp_path) / "model"
    identity = read_manifest(model).identity
    decisions = {}
    for guarantee, number in (("spent", 2), ("holds", 1)):
        about = submission(identity, number=number, guarantee=guarantee)
        folder = tmp_path / guarantee
        write_verdict(folder / "verdict", rule, evidence(), about)
        write_bundle(
            folder / "bundle",
            model=model,
            verdict=folder / "verdict",
            constitution=rule,
            registry=RegistryConfig(name="loans"),
        )
        told = verify_bundle(folder / "bundle")
        decisions[guarantee] = told.verdict.decision
        assert any("the ledger knows the use" in what for what in told.not_evidence)
    assert decisions == {"spent": "needs_human", "holds": "pass"}


# --- the report ---


@pytest.mark.parametrize(
    ("old", "new", "under"),
    [
        ("Every hard promise", "Every promise", "its head|test"),
        ("<dd>700<small>", "<dd>7,000<small>", "test"),
        ("</dfn>", " or so</dfn>", "What was promised"),
        ("promise</span>", "wish</span>", "What was promised, and what was measured"),
        ('img" aria-label="', 'img" aria-label="holds: ', "What was promised"),
        ("It is not the probability", "It is the probability", "this guarantees"),
        ("<desc", "<desc hidden", "Pictures|Gaps"),
        (": model 0.", ": model 1.", "Selected"),
        ("Shaded: what", "White: what", "Gaps against their lines"),
        ("<h2>Pictures</h2>", "<h2>Evidence</h2>", "What this is about"),
        ("pooled over", "taken from", "Loss"),
        ("safescale verify</code> on", "safescale run</code> on", "Rates"),
        ("img-src data:", "img-src *", "its head"),
        ("<!--drawing-->", "<p>A promise</p><!--drawing-->", "Gaps"),
        ("</html>\n", "</html>\nApproved.\n", "Rates"),
    ],
)
def test_an_edited_word_or_number_of_the_report_is_found_with_its_place(
    bundle: Path, old: str, new: str, under: str
) -> None:
    rewrite(bundle / REPORT, {old: new})
    sealed_again(bundle)
    sentence = refused(bundle)

    assert re.search(
        f"report.html departs from its verdict under '.*({under})", sentence
    )
    assert len(sentence.splitlines()) == 1


def test_every_number_of_the_report_outside_of_drawings_is_derived_again(
    made: Path, tmp_path: Path
) -> None:
    page = (made / REPORT).read_text("utf-8")
    marks = re.compile("<!--drawing-->.*?<!--/drawing-->", re.DOTALL)
    drawn = [match.span() for match in marks.finditer(page)]
    digits = [
        match.start()
        for match in re.finditer(r"\d(?=[^<>]*<)", page[page.index("<main>") :])
    ]
    start = page.index("<main>")
    places = [start + at for at in digits]
    places = [at for at in places if not any(a < at < b for a, b in drawn)]
    assert len(places) > 500
    derived = page_of(made / "verdict", constitution(), drawn=False)
    check_page(page, derived, "page")
    for at in places[::40]:
        other = str((int(page[at]) + 1) % 10)
        with pytest.raises(IntegrityError):
            check_page(page[:at] + other + page[at + 1 :], derived, "page")


def test_what_a_drawing_shows_is_no_evidence_and_the_page_says_so(
    bundle: Path,
) -> None:
    page = (bundle / REPORT).read_text("utf-8")
    label = re.search(r"<text [^>]*>([^<]+)</text>", page)
    assert label
    rewrite(bundle / REPORT, {label[0]: label[0].replace(label[1], "0.0000")})
    sealed_again(bundle)

    assert verify_bundle(bundle).not_evidence[0].startswith("Drawings in the report")
    assert "Drawings are no evidence" in page


@pytest.mark.parametrize(
    "body",
    [
        "<script>1</script>",
        "<style>main{display:none}</style>",
        "<foreignObject><p>Pass</p></foreignObject>",
        "<!--><p>Pass</p>-->",
        "<![CDATA[<p>Pass</p>]]>",
        "<?xml-stylesheet?>",
        "</svg><p>Pass</p><svg>",
        "<p>Pass</p>",
        "<g xmlns='http://www.w3.org/1999/xhtml'/>",
        "<title>Pass</title>",
        "<a xlink:href='#x'><text>Pass</text></a>",
        "<image xlink:href='data:image/png;base64,'/>",
        "<svg style='position:fixed'/>",
        "<rect style='position: fixed; inset: 0'/>",
        "<rect style='fill: url(http://example.org/x)'/>",
        "<use xlink:href='http://example.org/x#y'/>",
        "<rect onclick='x()'/>",
        "<rect class='fail'/>",
        "<g clip-path='url(http://example.org/x)'/>",
        "<g>",
        "&unknown;",
    ],
)
def test_a_drawing_that_reaches_beyond_its_frame_is_refused(
    bundle: Path, body: str
) -> None:
    assert beyond_a_drawing(body)
    rewrite(bundle / REPORT, {"<!--drawing-->": f"<!--drawing-->{body}"})
    sealed_again(bundle)
    assert re.search("Drawing 1 of .* holds|departs from", refused(bundle))


def test_a_page_is_written_again_without_matplotlib_and_checked_without_torch(
    made: Path,
) -> None:
    code = (
        "import sys; from safescale_ammt.releasing.bundle import verify_bundle;"
        f"verify_bundle({str(made)!r});"
        "sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'kfp')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_page_that_is_no_text_or_too_large_is_one_sentence(bundle: Path) -> None:
    (bundle / REPORT).write_bytes(b"\xff\xfe")
    sealed_again(bundle)
    assert refused(bundle).endswith("is not UTF-8.")
    (bundle / REPORT).write_bytes(b" " * 5_000_001)
    sealed_again(bundle)
    assert "has 5,000,001 bytes" in refused(bundle)


@pytest.mark.parametrize(
    "text", ["<", "<!--drawing-->", "<!--drawing--><!--/drawing-->", "<g>"]
)
def test_a_page_that_would_take_ages_to_read_is_refused_at_once(
    bundle: Path, text: str
) -> None:
    many = text * (4_500_000 // len(text))
    (bundle / REPORT).write_text(many)
    sealed_again(bundle)
    start = time.monotonic()
    assert "departs from its verdict under 'its head'" in refused(bundle)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    "line", ["[]", "1", '{"event": "round"}', '{"event": "round", "step": "x"}', "{"]
)
def test_a_log_of_another_form_is_one_sentence(bundle: Path, line: str) -> None:
    for log in ("model/training.jsonl", "verdict/logs/training.jsonl"):
        (bundle / log).write_text(f"{line}\n" * 3)
    rerecorded(bundle)
    sentence = refused(bundle)
    assert len(sentence.splitlines()) == 1
    # A log that draws nothing leaves its picture out, so that the page has one more.
    assert re.search("report.html departs|is not JSON", sentence)


# --- provenance, copies, files ---


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "version 3, champion"},
        {"name": "loans"},
        {"run": "20260101"},
        {"sealed_rows": 7000},
        {"predicts": "income = >50K"},
        {"model": "sha256:other"},
        {"mode": "rehearsal"},
        {"source_digest": "the ministry's own file"},
    ],
)
def test_a_head_that_tells_of_something_else_is_found(
    bundle: Path, fields: dict[str, object]
) -> None:
    verdict = Verdict.load(bundle / "verdict")
    own = {"model": verdict.model, "mode": "sealed", "sealed_rows": verdict.rows}
    manifest = bundle / "verdict" / MANIFEST
    for facts in (own, {**own, **fields}):
        write_json(bundle / "verdict/provenance.json", facts)
        sealed_again(bundle)
        entries = read_json(manifest)
        entries["files"]["provenance.json"]["identity"] = False
        write_json(manifest, Manifest.from_dict(entries).to_dict())
        sealed_again(bundle)
        if facts is own:
            verify_bundle(bundle)
    assert "tells of another model, mode, label" in refused(bundle)


def test_the_constitution_beside_the_verdict_is_that_of_the_bundle(
    bundle: Path,
) -> None:
    rule = constitution(threshold=0.1)
    write_json(bundle / "verdict/constitution.json", rule.to_dict())
    rerecorded(bundle)
    assert "constitution.json departs from" in refused(bundle)


def test_the_log_on_the_page_is_that_of_the_model(bundle: Path) -> None:
    (bundle / "verdict/logs/training.jsonl").write_text("{}\n")
    rerecorded(bundle)
    assert "training.jsonl departs from" in refused(bundle)


@pytest.mark.parametrize(
    "name",
    [
        *("approval.txt", "model/approval.txt", "model/twin/approval.txt"),
        *("verdict/approval.txt", "verdict/findings/approval.txt"),
        *("verdict/logs/approval.txt", "record/approval.txt", "new/approval.txt"),
    ],
)
def test_an_added_file_is_found_in_every_folder(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("Approved by the regulator.")
    rerecorded(bundle)
    assert re.search("is no part of a bundle|belongs to no finding", refused(bundle))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_part_that_was_left_out_is_missed(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    if not name.endswith(MANIFEST):
        sealed_again(bundle)
    assert re.search("is missing", refused(bundle))


def test_the_log_of_the_model_may_not_be_left_out_alone(bundle: Path) -> None:
    (bundle / "model/training.jsonl").unlink()
    sealed_again(bundle)
    assert "logs/training.jsonl departs from" in refused(bundle)


def test_an_added_file_of_another_version_is_named(bundle: Path) -> None:
    (bundle / "approval.txt").write_text("Approved by the regulator.")
    rerecorded(bundle, model="0.0.9", verdict="0.0.9", bundle="0.0.9")
    told = verify_bundle(bundle).not_evidence
    assert told[-1] == "Files that this version does not know: 'approval.txt'."


@pytest.mark.parametrize(
    ("part", "name"),
    [("model", "weights.safetensors"), ("verdict", "evidence.parquet")],
)
def test_an_identity_that_leaves_a_file_out_is_found(
    bundle: Path, part: str, name: str
) -> None:
    manifest = read_json(bundle / part / MANIFEST)
    manifest["files"][name]["identity"] = False
    # Its manifest states another identity now, as a careful forger's does.
    manifest = Manifest.from_dict(manifest)
    write_json(bundle / part / MANIFEST, manifest.to_dict())
    rerecorded(bundle)
    assert f"The identity of the {part} leaves {name} out" in refused(bundle)


# --- by whom ---


@pytest.fixture
def invented(tmp_path: Path, made: Path) -> Path:
    """A bundle whose evidence was made up: our own code wrote everything in it."""
    rule, model = constitution(), made / "model"
    about = submission(read_manifest(model).identity)
    rows = evidence(seed=7)
    # What a model never answered: everybody's own label.
    rows = replace(rows, prediction=rows.label)
    write_verdict(tmp_path / "verdict", rule, rows, about)
    write_bundle(
        tmp_path / "invented",
        model=model,
        verdict=tmp_path / "verdict",
        constitution=rule,
        registry=RegistryConfig(name="loans"),
    )
    return tmp_path / "invented"


def test_a_bundle_that_is_made_up_as_a_whole_is_whole_but_by_whom_is_not_shown(
    invented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = read_manifest(invented).identity
    assert run_command(["verify", str(invented)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"Bundle {digest} is whole, but by whom is not shown: pass."
    assert lines[-2].startswith("not evidence  That model and twin answer so")
    assert run_command(["verify", str(invented), "--strict"]) == 3
    shown = capsys.readouterr()
    assert "by whom is not shown: pass." in shown.out
    assert shown.err.startswith(f"Bundle {digest} is vouched for by nobody")
    assert "--digest" in shown.err


def test_a_digest_that_was_given_vouches_for_its_bundle_alone(
    made: Path, invented: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = read_manifest(made).identity
    assert run_command(["verify", str(made), "--digest", digest, "--strict"]) == 0
    out = capsys.readouterr().out
    assert "vouched for by the digest that was given (--digest)." in out
    assert out.splitlines()[-1] == f"Bundle {digest} is whole: pass."
    assert run_command(["verify", str(invented), "--digest", digest]) == 3
    assert "recorded for it is" in capsys.readouterr().err


def test_an_event_of_the_registry_vouches_for_a_version(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("SAFESCALE_STORE", uri)
    version = registered(open_store(uri), made)
    assert run_command(["verify", "champion", "--strict", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["anchored"] is True
    assert told["anchor"] == f"event {version.event} of {uri}/registry/loans"
    # The same bytes from the same store, by an address that no event was asked about.
    address = f"{uri}/{version.entry.bundle}"
    assert run_command(["verify", address, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["anchored"], told["anchor"]) == (False, "")
    assert told["digest"] == version.entry.bundle_digest
    assert told["decision"] == "pass"
    assert len(told["checks"]) > 5
    assert any("Drawings" in what for what in told["not_evidence"])
    assert run_command(["verify", address, "--strict"]) == 3


def test_an_artifact_that_is_no_bundle_says_that_its_bytes_alone_were_checked(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = made / "model"
    digest = read_manifest(model).identity
    assert run_command(["verify", str(model), "--digest", digest, "--strict"]) == 0
    out = capsys.readouterr().out
    assert "nothing of it was derived again" in out
    assert "Its digest does not cover 'training.jsonl'." in out
    assert (
        run_command(["verify", str(model), "--digest", read_manifest(made).identity])
        == 3
    )
    assert run_command(["verify", str(model), "--digest", "sha256:x"]) == 2
    assert run_command(["verify", str(model), "--strict"]) == 3
    assert run_command(["verify", str(model), "--data", str(model)]) == 2
    assert "--data goes with a bundle" in capsys.readouterr().err


# --- a verdict alone ---


def verdict_again(folder: Path) -> None:
    """Writes the manifest of a verdict anew."""
    old = Manifest.from_dict(read_json(folder / MANIFEST))
    outside = {n for n, entry in old.files.items() if not entry.identity}
    draft = Draft(folder, dict(old.parents), outside)
    new = describe(folder, draft, old.kind, old.stage, old.config_digest)
    write_json(folder / MANIFEST, new.to_dict())


@pytest.mark.parametrize(
    "forged",
    [
        ("report.html", {"Every hard": "Each hard"}, "departs from its verdict under"),
        ("verdict.json", {"Every hard": "Each hard"}, "does not follow from its"),
        ("constitution.json", {"risk-team": "the regulator"}, "states constitution"),
        ("approval.txt", {}, "is no part of a bundle"),
    ],
)
def test_a_verdict_alone_is_derived_again_to_the_last_word(
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    forged: tuple[str, dict[str, str], str],
) -> None:
    file, words, says = forged
    folder = tmp_path / "verdict"
    shutil.copytree(made / "verdict", folder)
    assert run_command(["verify", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("is whole, but by whom is not shown: pass.")
    assert any("What the model that it names is" in line for line in lines)
    (folder / "approval.txt").touch() if not words else rewrite(folder / file, words)
    verdict_again(folder)
    assert run_command(["verify", str(folder)]) == 3
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields", [{"judged": "yesterday"}, {"rows": {"train": "many"}}, {"days": {"a": 1}}]
)
def test_a_head_of_another_form_is_one_sentence(
    bundle: Path, fields: dict[str, object]
) -> None:
    verdict = Verdict.load(bundle / "verdict")
    own = {"model": verdict.model, "mode": "sealed", "sealed_rows": verdict.rows}
    write_json(bundle / "verdict/provenance.json", {**own, **fields})
    rerecorded(bundle)
    sentence = refused(bundle)
    assert len(sentence.splitlines()) == 1
    assert re.search("another form|leaves|holds no", sentence)
