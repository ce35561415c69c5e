"""The commands by which people decide: what they say, change and refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from approval_world import HUMAN, write_pending
from registered_world import ended_run, registered

from pipelines.cli import run_command
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.deciding import add_approvals
from safescale_ammt.releasing.envelope import public_key_of
from safescale_ammt.releasing.key_files import new_key, read_key
from safescale_ammt.releasing.ledger import BOOK
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.signed_files import envelopes_in
from safescale_ammt.store.base import Store
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.uri import STORE, open_store

ROOT = Path(__file__).parents[2]


@dataclass
class Desk:
    """A working folder: a store, and keys of people by name.

    Attributes:
        folder: where commands run.
        store: with loans versions 1 (pending, quorum 2), 2 and 3 (champion).
    """

    folder: Path
    store: Store

    def statuses(self) -> list[str]:
        return [v.status for v in Registry(self.store, "loans").versions()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a pending version and two champions in a row, keys beside it."""
    place = tmp_path_factory.mktemp("desk")
    keys = {name: new_key(place / f"{name}.key") for name in ("alice", "bob", "eve")}
    named = {name: keys[name] for name in ("alice", "bob")}
    human = {**HUMAN, "approvers": named, "quorum": 2}
    store = open_store((place / "store").as_uri())
    for number, gap in enumerate((0.12, 0.0, 0.05), 1):
        bundle = write_pending(
            place / f"parts-{number}",
            b"w%d" % number,
            gap=gap,
            human=human,
            run_owner="",
            page=True,
        )
        decision = Verdict.load(bundle / "verdict").decision
        registered(store, bundle, "loans", decision)
    return place


@pytest.fixture
def desk(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    shutil.copytree(prepared, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    uri = (tmp_path / "desk" / "store").as_uri()
    monkeypatch.setenv(STORE, uri)
    return Desk(tmp_path / "desk", open_store(uri))


def act(name: str, *words: str, key: str = "alice", code: int = 0) -> None:
    signed = ["--key", f"{key}.key", "--reason", "I read the report."]
    assert run_command([name, *words, *signed]) == code


def test_two_people_approve_and_a_third_command_promotes(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    act("approve", "pending")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "loans version 1 is pending. 1 of 2 approvals."
    assert re.fullmatch(
        r"approve by alice, \S+; until \S+; waived without a certificate: "
        r"equal-opportunity \(undecided_hard\); single-party, not independent; "
        r"key ed25519:\S+: I read the report\.",
        said[1],
    )
    assert run_command(["promote", "1"]) == 3
    assert "human.quorum asks for 2" in capsys.readouterr().err
    act("approve", "loans", "1", key="bob")
    assert "2 of 2 approvals. `safescale promote`" in capsys.readouterr().out
    assert run_command(["promote", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("loans version 1 is champion. It replaces version 3 (pass,")
    assert "its own: needs_human," in said
    assert desk.statuses() == ["champion", "superseded", "superseded"]


def test_show_tells_who_approved_when_why_and_what_nothing_certifies(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    act("approve", "1")
    capsys.readouterr()
    assert run_command(["registry", "show", "1"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    for part in (
        "approve by alice",
        "equal-opportunity (undecided_hard)",
        "single-par",
    ):
        assert part in told
    assert run_command(["registry", "show", "1", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["acts"]
    assert (shown["by"], shown["act"], shown["independent"]) == (
        "alice",
        "approve",
        False,
    )
    assert shown["waived"] == [{"what": "equal-opportunity", "kind": "undecided_hard"}]


def test_show_tells_what_a_pending_version_waits_for(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    act("approve", "1")
    capsys.readouterr()
    assert run_command(["registry", "show", "pending", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["awaits"] == {
        "open": "equal-opportunity (undecided_hard)",
        "approvals": "1 of 2",
        "approvers": "alice, bob",
        "run_owner": "not named: single-party, not independent",
    }
    assert run_command(["registry", "show", "pending"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"(?m)^approvals +1 of 2$", told)
    assert run_command(["registry", "show", "champion"]) == 0
    assert "approvals" not in capsys.readouterr().out


def test_show_tells_what_is_kept_from_people_and_that_an_owner_does_not_count(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    human = {**HUMAN, "may_override": ["soft"]}
    bundle = write_pending(Path("kept"), b"kept", human=human, run_owner="bob")
    registered(desk.store, bundle, "kept", "needs_human")
    assert run_command(["registry", "show", "kept", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["awaits"]
    assert told["approvers"] == "alice, carol"
    assert told["run_owner"] == "bob"
    assert told["kept_from_people"] == "equal-opportunity (undecided_hard)"
    assert told["approvals"] == "0 of 1"


def test_show_tells_of_a_quorum_that_the_owners_absence_makes_impossible(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    human = {**HUMAN, "quorum": 3}
    bundle = write_pending(Path("kept"), b"kept", human=human, run_owner="bob")
    registered(desk.store, bundle, "kept", "needs_human")
    assert run_command(["registry", "show", "kept", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["awaits"]["approvals"]
    assert told == "0 of 3, which cannot be met: 2 may approve"


def test_the_report_of_a_version_shows_its_approvals_and_no_other_page_does(
    desk: Desk,
) -> None:
    assert run_command(["report", "1", "-o", "before.html"]) == 0
    act("approve", "1", key="bob")
    assert run_command(["report", "1", "-o", "after.html"]) == 0
    before, after = (Path(f"{name}.html").read_text() for name in ("before", "after"))
    assert "What people decided" not in before
    section = after.partition("What people decided")[2].partition("</section>")[0]
    for part in (
        "The version is <strong>pending</strong>",
        ">bob<",
        "I read the report.",
        "equal-opportunity (undecided_hard)",
        "No certificate of the gate covers equal-opportunity",
        "single-party, not independent",
        "automation bias",
    ):
        assert part in section
    # All else is the page that was registered, picture for picture.
    start = after.index('<section class="card"><h2>What people decided')
    end = after.index("</section>", start) + len("</section>\n")
    assert after[:start] + after[end:] == before


def test_verify_tells_what_signatures_stand_for_and_what_none_covers(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["registry", "verify"]) == 0
    assert "no signature covers its events, which the gate wrote" in (
        capsys.readouterr().out
    )
    act("approve", "1")
    act("approve", "1", key="bob")
    run_command(["promote", "1"])
    capsys.readouterr()
    assert run_command(["registry", "verify"]) == 0
    assert (
        "loans: 3 versions, every byte is as registered; 2 signed acts of people, by "
        "alice, bob, the newest for events 1 to 5; no signature covers events 6 to 6; "
        "2 of these acts: single-party, not independent."
    ) in capsys.readouterr().out


def test_verify_misses_the_verdict_of_an_event_that_calls_it_a_pass(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has the registry's key needs no gate to write "pass" into an event."""
    registered(desk.store, desk.folder / "parts-1" / "bundle", "cards", "pass")
    assert run_command(["registry", "verify", "--name", "cards"]) == 3
    assert "holds a verdict needs_human on model" in capsys.readouterr().err


def test_of_several_pending_versions_people_name_the_one_that_they_read(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_pending(Path("more"), b"more", human=HUMAN, run_owner="")
    registered(desk.store, bundle, "loans", "needs_human")
    for command in ("approve", "reject"):
        act(command, "pending", code=2)
        assert "loans has 2 pending versions (1, 4): name" in capsys.readouterr().err
    act("reject", "1")
    assert desk.statuses() == ["rejected", "superseded", "champion", "pending"]


def test_verify_looks_at_the_others_beside_one_that_a_later_version_wrote(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    log = EventLog(desk.store, "registry/cards")
    log.append(lambda _: ("of a later version", {}))
    assert run_command(["registry", "verify"]) == 3
    shown = capsys.readouterr()
    assert "loans: 3 versions, every byte is as registered" in shown.out
    assert "does not understand; use a later one." in shown.err
    assert "1 of 2 registered models are damaged" in shown.err


def test_rolling_back_and_revoking_change_who_answers(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    act("rollback", "2")
    assert "loans version 2 is champion. It replaces version 3" in (
        capsys.readouterr().out
    )
    act("revoke", "champion", key="bob")
    assert "loans version 2 is revoked. No champion remains." in capsys.readouterr().out
    assert desk.statuses() == ["pending", "revoked", "superseded"]
    act("rollback", "3")
    assert desk.statuses() == ["pending", "revoked", "champion"]
    act("reject", "1")
    assert desk.statuses() == ["rejected", "revoked", "champion"]


def test_a_pass_that_lost_its_race_takes_a_signature_and_names_the_champion(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(desk.store, "loans")
    human = {"approvers": {"alice": public_key_of(read_key(Path("alice.key")))}}
    bundle = write_pending(Path("late"), b"late", gap=0.0, human=human, page=True)
    verdict, stored = Verdict.load(bundle / "verdict"), registry.put_bundle(bundle)
    entry = replace(
        registry.show(3).entry,
        model=verdict.model,
        verdict=read_manifest(bundle / "verdict").identity,
        constitution=verdict.constitution,
        bundle=stored.prefix,
        bundle_digest=stored.digest,
    )
    assert registry.register(entry, expected=0).status == "lost_race"
    assert run_command(["promote", "4"]) == 2
    assert "passed and lost its race: an approver" in capsys.readouterr().err
    act("promote", "4", key="bob", code=3)
    act("promote", "4")
    told = capsys.readouterr().out
    assert "loans version 4 is champion. It replaces version 3 (pass," in told
    assert "promote by alice" in told


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["approve", "1", "--key", "eve.key"], 3, "is no approver's"),
        (["approve", "2", "--key", "alice.key"], 2, "version 2 is superseded"),
        (["approve", "9", "--key", "alice.key"], 2, "has no version '9'"),
        (["approve", "1", "--key", "none.key"], 2, "none.key"),
        (["approve", "1", "--key", "open.key"], 2, "has mode 0644"),
        (["approve", "1", "--key", "half.key"], 2, "no whole private key"),
        (["promote", "1", "--key", "alice.key"], 2, "approvals promote a version"),
        (["rollback", "1", "--key", "alice.key"], 2, "version 1 is pending"),
        (["rollback", "champion", "--key", "alice.key"], 2, "version 3 is champion"),
        (["reject", "cards", "1", "--key", "alice.key"], 2, "--name is 'cards'"),
    ],
)
def test_what_cannot_be_decided_is_one_sentence_and_nothing_is_written(
    desk: Desk,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    shutil.copy("alice.key", "open.key")
    Path("open.key").chmod(0o644)
    Path("half.key").touch(0o600)
    Path("half.key").write_bytes(Path("alice.key").read_bytes()[:60])
    before = desk.statuses()
    assert run_command([*words, "--reason", "x"]) == code
    said = capsys.readouterr().err.splitlines()
    assert says in said[-1]
    assert len(said) == 1
    assert desk.statuses() == before
    assert len(EventLog(desk.store, "registry/loans").read()) == 3


def test_words_that_are_missing_are_usage(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["approve", "1", "--key", "alice.key"],
        ["approve", "1", "--reason", "x"],
        ["approve", "--key", "alice.key", "--reason", "x"],
        ["promote", "1", "--reason", "x"],
        ["promote", "1", "--key", "alice.key"],
    ):
        assert run_command(words) == 2, words
    assert desk.statuses() == ["pending", "superseded", "champion"]
    assert capsys.readouterr().out == ""


def test_nobody_signs_for_a_bundle_that_is_not_whole(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Registry(desk.store, "loans").show(1).entry.bundle
    desk.store.put(f"{bundle}/model/weights.safetensors", b"x")
    act("approve", "1", code=3)
    assert "weights.safetensors" in capsys.readouterr().err
    assert len(EventLog(desk.store, "registry/loans").read()) == 3


def test_an_act_is_anchored_in_the_ledger_so_that_nobody_cuts_it_off(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """A revocation that is cut off the log would put the model back into service."""
    act("reject", "1")
    assert "No ledger lies in file://" in capsys.readouterr().err
    digests = dict.fromkeys(("model", "holdout"), f"sha256:{'0' * 64}")
    rows, rule = [b"r" * 16], digests["model"]
    ledger.reserve(desk.store, rows=rows, planned=1, constitution=rule, **digests)
    act("revoke", "champion")
    assert capsys.readouterr().err == ""
    assert EventLog(desk.store, BOOK).read()[-1].body["sequence"] == 5
    desk.store.delete("registry/loans/events/00000005.json")
    act("rollback", "2", code=3)
    assert "1 were cut off" in capsys.readouterr().err
    assert run_command(["registry", "verify"]) == 3


@pytest.mark.parametrize("word", ["1", "pending", "2", "superseded"])
def test_only_a_champion_answers(
    desk: Desk, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    Path("new.csv").write_text("age\n30\n")
    words = ["--data", "new.csv", "-o", "out.csv"]
    assert run_command(["predict", word, *words]) == 3
    assert re.search("is (pending|superseded): ", capsys.readouterr().err)
    act("revoke", "champion")
    assert run_command(["predict", "3", *words]) == 3
    assert "loans version 3 is revoked: only a champion answers." in (
        capsys.readouterr().err
    )
    assert run_command(["predict", "champion", *words]) == 2
    assert not Path("out.csv").exists()


def test_a_run_whose_version_was_revoked_since_answers_no_more(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    version = Registry(desk.store, "loans").show(3)
    ended_run(desk.folder / "runs", desk.folder / "parts-3", desk.store, version)
    Path("new.csv").write_text("age\n30\n")
    act("revoke", "3")
    capsys.readouterr()
    assert run_command(["predict", "runs/latest", "--data", "new.csv", "-o", "o"]) == 3
    assert "is revoked: only a champion answers." in capsys.readouterr().err


def test_a_run_whose_record_names_the_champion_lends_it_no_status(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    version = replace(Registry(desk.store, "loans").show(1), number=3)
    ended_run(desk.folder / "runs", desk.folder / "parts-1", desk.store, version)
    Path("new.csv").write_text("age\n30\n")
    assert run_command(["predict", "runs/latest", "--data", "new.csv", "-o", "o"]) == 3
    assert "names loans version 3, whose registered" in capsys.readouterr().err


def test_another_bundle_in_the_place_of_a_champions_answers_for_no_run(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole in itself, put there by one who may write to the store."""
    version = Registry(desk.store, "loans").show(3)
    ended_run(desk.folder / "runs", desk.folder / "parts-3", desk.store, version)
    Path("new.csv").write_text("age\n30\n")
    other = desk.folder / "parts-1" / "bundle"
    for path in filter(Path.is_file, other.rglob("*")):
        key = f"{version.entry.bundle}/{path.relative_to(other).as_posix()}"
        desk.store.put(key, path)
    assert run_command(["predict", "runs/latest", "--data", "new.csv", "-o", "o"]) == 3
    assert "names loans version 3, whose registered" in capsys.readouterr().err


def test_a_process_of_its_own_signs_and_verifies(desk: Desk) -> None:
    """With the imports that a command spares itself."""
    words = ["approve", "1", "--key", "alice.key", "--reason", "x"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 2 approvals" in done.stdout


def test_an_approval_for_git_is_a_file_and_no_event(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {info.key: info.etag for info in desk.store.list()}
    act("approve", "1", "--out", "approvals/alice.json")
    assert "Wrote the approval of loans version 1 to approvals/alice.json" in (
        capsys.readouterr().out
    )
    assert {info.key: info.etag for info in desk.store.list()} == before
    registry, file = Registry(desk.store, "loans"), Path("approvals/alice.json")
    (envelope,) = envelopes_in(file.read_text())
    (added,) = add_approvals(registry, 1, [envelope]).acts
    assert (added.act, added.by) == ("approve", "alice")
    kept = file.read_bytes()
    act("approve", "1", "--out", "approvals/alice.json", key="bob", code=2)
    assert "exists and is left as it is" in capsys.readouterr().err
    assert file.read_bytes() == kept


def test_nobody_signs_into_a_file_what_nobody_could_add(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    act("approve", "1", "--out", "eve.json", key="eve", code=3)
    assert "is no approver's" in capsys.readouterr().err
    act("approve", "2", "--out", "two.json", code=2)
    assert "version 2 is superseded" in capsys.readouterr().err
    bundle = Registry(desk.store, "loans").show(1).entry.bundle
    desk.store.put(f"{bundle}/model/weights.safetensors", b"x")
    act("approve", "1", "--out", "one.json", code=3)
    assert not list(Path().glob("*.json"))


def test_verify_says_whose_signatures_cover_a_version_and_what_none_covers(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["verify", "1"]) == 0
    told = capsys.readouterr().out
    assert "not evidence  Who registered it: the gate's event is unsigned, and" in told
    act("approve", "1")
    act("approve", "1", key="bob")
    capsys.readouterr()
    assert run_command(["verify", "1"]) == 0
    told = capsys.readouterr().out
    for who in ("alice", "bob"):
        assert f"ok  {who} signed to approve it on " in told
    assert "Of alice, bob: single-party, not independent." in told
    # The same bytes without the registry that knows of the signatures.
    assert run_command(["verify", "parts-1/bundle"]) == 0
    told = capsys.readouterr().out
    assert "signed to approve" not in told
    assert "no file of a bundle is signed" in told


def test_an_act_is_locked_for_as_long_as_the_record_of_its_version(
    s3_server: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, key = "locked-acts", tmp_path / "alice.key"
    named = {"approvers": {"alice": new_key(key)}}
    store = open_store(f"s3://{bucket}", environ=s3_server.environ)
    assert isinstance(store, S3Store)
    client = store._clients.plain
    client.make_bucket(bucket, object_lock=True)
    bundle = write_pending(tmp_path / "parts", human=named, days=2)
    registered(store, bundle, "loans", "needs_human")
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    words = ["reject", "1", "--key", str(key), "--reason", "No.", "--store", store.uri]
    assert run_command(words) == 0
    event = "registry/loans/events/00000002.json"
    version = client.stat_object(bucket, event).version_id
    held = client.get_object_retention(bucket, event, version_id=version)
    assert held is not None
    assert held.mode == "COMPLIANCE"
