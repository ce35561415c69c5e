"""The step of the promote pipeline: what moves the alias, and what ends in red."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from approval_world import ALICE, BOB, CAROL, EVE, REASON, World
from cryptography.hazmat.primitives import serialization

from safescale_ammt.errors import InputError, IntegrityError, Refusal
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import json_file, read_json
from safescale_ammt.releasing import deciding, ledger
from safescale_ammt.releasing.acts import sign
from safescale_ammt.releasing.deciding import signed_approval
from safescale_ammt.releasing.envelope import opened, seal
from safescale_ammt.releasing.ledger import BOOK
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.releasing.signed_files import MOST
from safescale_ammt.reporting.stage_summaries import promotion_summary
from safescale_ammt.stages import promote
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.event_log import EventLog, now
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.uri import open_store

RUN = "the-run"


@pytest.fixture(scope="module")
def registered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose one version is pending, for a quorum of two."""
    place = tmp_path_factory.mktemp("once")
    world = World(open_store((place / "store").as_uri()), place / "bundles")
    world.register(human={"quorum": 2}, page=True)
    return place


@pytest.fixture
def world(registered_once: Path, tmp_path: Path) -> World:
    shutil.copytree(registered_once, tmp_path / "world")
    store = open_store((tmp_path / "world" / "store").as_uri())
    return World(store, tmp_path / "world" / "bundles", now=now(), count=1)


def step(
    world: World, *envelopes: Any, version: str = "pending", run: str = RUN, **more: Any
) -> dict[str, Any]:
    """Runs the step as its pod does, with approvals behind each other."""
    out = world.folder / f"out-{len(list(world.folder.glob('out-*')))}"
    given = more.get("text", "\n".join(json_file(e).decode() for e in envelopes))
    environ = {"SAFESCALE_STORE": world.store.uri}
    done = promote.run(version, "loans", given, out, run_id=run, environ=environ)
    assert read_json(out / promote.PROMOTION) == done
    assert verify(out, "promotion")
    return done


def signed(world: World, key: Any, number: int = 1) -> dict[str, Any]:
    return signed_approval(world.registry(), number, key, REASON)


def statuses(world: World) -> list[str]:
    return [v.status for v in world.registry().versions()]


def events(world: World) -> int:
    return len(EventLog(world.store, "registry/loans").read())


def test_two_approvals_signed_apart_from_the_registry_make_a_champion(
    world: World,
) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    assert events(world) == 1, "a signature into a file writes nothing"
    done = step(world, *files)
    assert (done["status"], done["version"], done["quorum"]) == ("champion", 1, 2)
    assert [a["by"] for a in done["approvals"]] == ["alice", "bob"]
    assert [p["what"] for p in done["waived"]] == ["equal-opportunity"]
    assert done["waived"][0]["by"] == ["alice", "bob"]
    assert statuses(world) == ["champion"]
    assert [v.number for v in world.registry().verify()] == [1]
    # Bob's names the log before Alice's event: it is no signature for that one.
    assert world.registry().state().signed == 2
    outcome = RunOutcome.read(world.store, RUN)
    assert outcome is not None
    assert (outcome.status, outcome.version, outcome.exit_code) == ("champion", 1, 0)
    assert outcome.promises


def test_an_approval_in_the_registry_and_one_in_a_file_count_together(
    world: World,
) -> None:
    file = signed(world, BOB)
    world.act("approve", ALICE)
    # ... and another model waits by then: the champion is still the one she knew.
    world.register(human={"quorum": 2})
    assert step(world, file)["status"] == "champion"


def test_the_page_shows_who_approved_and_what_nobody_certifies(world: World) -> None:
    page = promotion_summary(step(world, signed(world, ALICE), signed(world, BOB)))
    assert page.startswith("# loans version 1: champion\n")
    for words in (
        "**alice**",
        "**bob**",
        REASON,
        "equal-opportunity",
        "undecided_hard",
    ):
        assert words in page
    assert "no certificate of the gate does" in page
    assert "automation bias" in page
    assert "safescale registry show loans 1" in page


def test_a_page_of_a_version_that_the_gate_passed_names_no_approver(
    world: World,
) -> None:
    world.register(gap=0.0, page=True)
    done = step(world, version="2")
    assert done["approvals"] == done["waived"] == []
    assert done["sentence"] == (
        "loans version 2 is champion, and no approval made it so."
    )
    assert "approved by" not in promotion_summary(done).split("Where to look")[0][60:]


def test_a_step_that_runs_twice_adds_nothing_and_says_the_same(world: World) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    first = step(world, *files)
    count = events(world)
    assert step(world, *files) == first
    assert step(world, *files, version="1", run="another") == first
    assert events(world) == count


def test_a_step_that_was_lost_after_its_work_ends_as_it_would_have(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no version is pending any more, or a newer one that nobody here meant."""
    files = [signed(world, ALICE), signed(world, BOB)]

    def lost(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(promote, "_record", lost)
    with pytest.raises(KeyboardInterrupt):
        step(world, *files)
    monkeypatch.undo()
    world.register(human={"quorum": 2})
    assert step(world)["version"] == 1
    assert statuses(world) == ["champion", "pending"]


@pytest.mark.parametrize("left", range(6))
def test_a_step_that_is_lost_before_any_of_its_writes_does_its_work_once(
    world: World, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    digests = dict.fromkeys(("model", "holdout"), f"sha256:{'0' * 64}")
    facts = {"planned": 1, "constitution": digests["model"], **digests}
    ledger.reserve(world.store, rows=[b"r" * 16], **facts)
    put, count = type(world.store).put, [left]

    def dying(*given: Any, **more: Any) -> Any:
        if not count[0]:
            raise KeyboardInterrupt
        count[0] -= 1
        return put(*given, **more)

    monkeypatch.setattr(type(world.store), "put", dying)
    # The run's version, two approvals, the promotion, its head in the ledger, the end.
    with pytest.raises(KeyboardInterrupt):
        step(world, *files)
    monkeypatch.undo()
    assert step(world, *files)["status"] == "champion"
    assert events(world) == 4
    assert EventLog(world.store, BOOK).read()[-1].body["sequence"] == 4


def test_one_approval_of_two_is_kept_and_ends_in_red(world: World) -> None:
    with pytest.raises(Refusal, match=r"by 1 \(alice\) in force, human.quorum asks"):
        step(world, signed(world, ALICE))
    assert statuses(world) == ["pending"]
    outcome = RunOutcome.read(world.store, RUN)
    assert outcome is not None
    assert (outcome.status, outcome.exit_code) == ("refused", 3)
    assert step(world, signed(world, CAROL), run="next")["status"] == "champion"


def test_none_is_added_where_one_does_not_count(world: World) -> None:
    with pytest.raises(Refusal, match="Approval 2 of 2 does not count, and none was"):
        step(world, signed(world, ALICE), forged_by_eve(world))
    assert events(world) == 1


def forged_by_eve(world: World) -> dict[str, Any]:
    state = world.registry().state()
    place = state.place(1)
    terms = state.terms_of(place.entry)
    return sign("approve", place, terms, EVE, reason=REASON, now=world.now)


def edited(envelope: Mapping[str, Any], key: Any, **words: Any) -> dict[str, Any]:
    """Signs other words again, as an approver can whose program was changed."""
    statement = dict(opened(envelope).statement)
    return seal({**statement, "predicate": {**statement["predicate"], **words}}, key)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"head": "sha256:" + "0" * 64}, "it states head"),
        ({"head": ["sha256:" + "0" * 64]}, "it states head"),
        ({"champion": 7}, "it states champion 7"),
        ({"waived": []}, "it states waived"),
        ({"registry": "cards"}, "it states registry"),
        ({"expires": "2099-01-01T00:00:00+00:00"}, "at most 30 days"),
        ({"runOwner": "zoe"}, "it states runOwner"),
    ],
)
def test_what_states_something_else_is_not_added(
    world: World, words: dict[str, Any], says: str
) -> None:
    with pytest.raises(IntegrityError, match=says):
        step(world, edited(signed(world, ALICE), ALICE, **words))
    assert events(world) == 1


def test_an_approval_names_no_event_before_its_version(world: World) -> None:
    """Before it was registered nobody can have read its report."""
    first = signed(world, ALICE)
    world.register(human={"quorum": 1})
    own = signed(world, ALICE, 2)
    head = opened(first).statement["predicate"]["head"]
    with pytest.raises(IntegrityError, match="it states head"):
        step(world, edited(own, ALICE, head=head), version="2")
    assert step(world, own)["version"] == 2


def test_an_approval_over_another_champion_is_not_added(world: World) -> None:
    file = signed(world, ALICE)
    world.register(gap=0.0)
    with pytest.raises(IntegrityError, match="it states champion 0"):
        step(world, file)


def test_an_approval_that_has_expired_is_not_added(world: World) -> None:
    world.later(days=-31)
    file = signed(world, ALICE)
    with pytest.raises(Refusal, match="The approval expired"):
        step(world, file)


def test_a_signature_of_other_bytes_is_not_added(world: World) -> None:
    file = signed(world, ALICE)
    (signature,) = signed(world, BOB)["signatures"]
    with pytest.raises(IntegrityError, match="it was forged"):
        step(world, {**file, "signatures": [signature]})


def test_an_approval_counts_once_however_often_it_is_given(world: World) -> None:
    file = signed(world, ALICE)
    with pytest.raises(Refusal, match=r"by 1 \(alice\)"):
        step(world, file, file)
    with pytest.raises(Refusal, match=r"by 1 \(alice\)"):
        step(world, file, run="again")
    assert events(world) == 2


def test_a_rejected_version_stays_rejected(world: World) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    world.act("reject", CAROL)
    with pytest.raises(InputError, match="version 1 is rejected: only a version"):
        step(world, *files, version="1")
    with pytest.raises(InputError, match="loans has no pending versions"):
        step(world, run="other")


def test_a_bundle_that_is_not_whole_gets_no_approval(world: World) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    bundle = world.registry().show(1).entry.bundle
    world.store.put(f"{bundle}/model/weights.safetensors", b"x")
    with pytest.raises(IntegrityError, match="weights"):
        step(world, *files)
    assert events(world) == 1


def test_what_the_step_writes_is_locked_as_the_versions_record_is(
    s3_server: EmbeddedStore, tmp_path: Path
) -> None:
    bucket = "locked-promotion"
    store = open_store(f"s3://{bucket}", environ=s3_server.environ)
    assert isinstance(store, S3Store)
    client = store._clients.plain
    client.make_bucket(bucket, object_lock=True)
    people = World(store, tmp_path, now=now())
    people.register(page=True, days=2)
    given = json_file(signed(people, ALICE)).decode()
    environ = {**s3_server.environ, "SAFESCALE_STORE": store.uri}
    told = promote.run("1", "loans", given, tmp_path / "out", environ=environ)
    assert told["status"] == "champion"
    events = [info.key for info in store.list("registry/loans/events/")]
    assert len(events) == 3
    for key in events:
        version = client.stat_object(bucket, key).version_id
        held = client.get_object_retention(bucket, key, version_id=version)
        assert held is not None, key
        assert held.mode == "COMPLIANCE"


def test_approvals_may_lie_in_one_file_of_the_store(world: World) -> None:
    listed = [signed(world, ALICE), signed(world, BOB)]
    world.store.put("approvals/loans-1.json", json_file(listed))
    uri = f"{world.store.uri}/approvals/loans-1.json"
    assert step(world, text=uri)["status"] == "champion"


@pytest.mark.parametrize("version", ["latest", "", "1.0", "champion", "-1", "two"])
def test_a_version_is_a_number_or_pending(world: World, version: str) -> None:
    with pytest.raises(InputError, match="expected a number or 'pending'"):
        step(world, version=version)


def test_of_two_pending_versions_one_has_to_be_named(world: World) -> None:
    world.register(human={"quorum": 1})
    with pytest.raises(InputError, match=r"has 2 pending versions \[1, 2\]"):
        step(world)
    both = [signed(world, ALICE), signed(world, BOB, 2)]
    with pytest.raises(InputError, match="about different versions"):
        step(world, *both)
    assert step(world, both[1], run="other")["version"] == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("approve it", "is no approval as"),
        ("[1]", "holds int in place 1"),
        ("{}", "none of ours"),
        ('{"payload": 1', "is no approval as"),
        ("[" * 80, "is no approval as"),
        ("x" * (MOST + 1), "at most"),
    ],
)
def test_a_text_that_is_no_approval_is_one_sentence(
    world: World, text: str, says: str
) -> None:
    with pytest.raises((InputError, IntegrityError), match=says):
        step(world, text=text)
    assert events(world) == 1


def test_a_private_key_is_refused_and_not_repeated(world: World) -> None:
    pem = ALICE.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    with pytest.raises(InputError, match="holds a private key") as error:
        step(world, text=pem)
    assert pem.splitlines()[1] not in str(error.value)


def test_a_race_that_was_lost_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [signed(world, ALICE), signed(world, BOB)]
    add = deciding.promotion

    def meanwhile(state: Any, *given: Any) -> Any:
        monkeypatch.undo()
        draft = add(state, *given)
        world.register(gap=0.0)
        return draft

    monkeypatch.setattr(deciding, "promotion", meanwhile)
    with pytest.raises(Refusal, match="has another champion by now"):
        step(world, *files)
    assert statuses(world) == ["pending", "champion"]


def test_the_step_touches_no_sealed_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secret opens more; a key for three prefixes would do."""
    keys: set[str] = set()
    kind = type(world.store)

    def noted(name: str) -> Any:
        original = getattr(kind, name)

        def call(self: Any, key: str = "", *given: Any, **more: Any) -> Any:
            keys.add(str(key))
            return original(self, key, *given, **more)

        return call

    files = [signed(world, ALICE), signed(world, BOB)]
    for name in ("put", "open", "stat", "list", "delete"):
        monkeypatch.setattr(kind, name, noted(name))
    step(world, *files)
    assert len(keys) > 20
    assert {key.partition("/")[0] for key in keys} == {"registry", "ledger", "runs"}
