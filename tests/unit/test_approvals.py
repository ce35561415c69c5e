"""Approvals: what people can do with a version, and what nobody can."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from approval_world import (
    ALICE,
    BOB,
    CAROL,
    EVE,
    HUMAN,
    REASON,
    START,
    World,
    rule_with,
    write_pending,
)
from foreign_world import OTHERS, places, put
from registered_world import registered

from safescale_ammt.errors import (
    ConstitutionError,
    InputError,
    IntegrityError,
    Refusal,
)
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import (
    canonical_json,
    digest_json,
    json_file,
    json_form,
)
from safescale_ammt.files.json_text import parse_json
from safescale_ammt.releasing.acts import ACT, sign
from safescale_ammt.releasing.deciding import promote as promote_version
from safescale_ammt.releasing.envelope import opened, public_key_of, seal
from safescale_ammt.releasing.registry_state import (
    KINDS,
    NO_CERTIFICATE,
    RegistryState,
    fold,
    promotion,
)
from safescale_ammt.releasing.versions import VersionEntry
from safescale_ammt.reporting.people import SINGLE_PARTY
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import Draft, Event, EventLog
from safescale_ammt.store.uri import open_store

Forge = Callable[[World], Draft]


@pytest.fixture(scope="module")
def registered_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that has one pending version, and its bundle."""
    place = tmp_path_factory.mktemp("once")
    World(open_store((place / "store").as_uri()), place / "bundles").register()
    return place


@pytest.fixture
def world(registered_once: Path, tmp_path: Path) -> World:
    """A registry with version 1 pending; alice, bob and carol may approve."""
    shutil.copytree(registered_once, tmp_path / "world")
    store = open_store((tmp_path / "world" / "store").as_uri())
    return World(store, tmp_path / "world" / "bundles", count=1)


def statuses(world: World) -> list[str]:
    return [v.status for v in world.registry().versions()]


def events(world: World, name: str = "loans") -> list[Event]:
    return EventLog(world.store, f"registry/{name}").read()


def by_hand(world: World, draft: Draft, name: str = "loans") -> None:
    """Writes an event into the store as one who has its key can: without asking."""
    log = EventLog(world.store, f"registry/{name}", lambda: world.now)
    log.append(lambda _: draft)


def refused_by_all(world: World, name: str = "loans") -> str:
    """Returns why no reader reads on: nothing is served on a forged event's word."""
    said = set()
    registry = world.registry(name)
    for read in (
        registry.champion,
        registry.versions,
        lambda: registry.show("latest"),
        registry.verify,
        lambda: world.act("approve", CAROL),
    ):
        with pytest.raises(IntegrityError) as error:
            read()
        said.add(str(error.value))
    (sentence,) = said
    return sentence


# --- what people can do ---


def test_a_pending_version_becomes_champion_by_approval_and_promotion(
    world: World,
) -> None:
    assert world.registry().champion() is None
    approved = world.act("approve", ALICE)
    assert approved.status == "pending"
    (act,) = approved.acts
    assert (act.act, act.by, act.reason) == ("approve", "alice", REASON)
    assert [(p.what, p.kind) for p in act.waived] == [
        ("equal-opportunity", "undecided_hard")
    ]
    assert act.independent
    assert world.promote().status == "champion"
    champion = world.registry().champion()
    assert champion is not None
    assert champion.number == 1
    assert [v.number for v in world.registry().verify()] == [1]


def test_the_promotion_says_what_was_waived_by_whom_and_that_nothing_certifies_it(
    world: World,
) -> None:
    world.act("approve", ALICE)
    world.promote()
    event = events(world)[-1]
    assert event.kind == "promoted"
    assert event.body == {
        "version": 1,
        "replaces": 0,
        "approvals": [{"by": "alice", "key": public_key_of(ALICE)}],
        "waived": [
            {
                "what": "equal-opportunity",
                "kind": "undecided_hard",
                "by": ["alice"],
                "why": [REASON],
            }
        ],
        "certificate": NO_CERTIFICATE,
    }


def test_an_approval_is_a_signed_statement_bound_to_every_digest(world: World) -> None:
    head = events(world)[-1].digest
    world.act("approve", ALICE)
    signed = opened(events(world)[-1].body["envelope"])
    assert signed.statement["predicateType"] == ACT
    stated = signed.statement["predicate"]
    entry = world.registry().show(1).entry
    assert stated["digests"] == {
        "bundle": entry.bundle_digest,
        **{
            name: getattr(entry, name)
            for name in (
                *("model", "verdict", "constitution"),
                *("dataset", "holdout", "architecture"),
            )
        },
    }
    assert (stated["act"], stated["registry"], stated["version"]) == (
        "approve",
        "loans",
        1,
    )
    assert (stated["head"], stated["key"]) == (head, public_key_of(ALICE))
    assert stated["issued"] == START.isoformat()
    assert stated["expires"] == (START + timedelta(days=30)).isoformat()
    assert stated["reasons"][0].startswith("equal-opportunity is undecided")
    assert (stated["runOwner"], stated["independence"]) == ("dave", "")


def test_a_quorum_is_of_different_people(file_store: Store, tmp_path: Path) -> None:
    world = World(file_store, tmp_path)
    world.register(human={"quorum": 2})
    world.act("approve", ALICE)
    with pytest.raises(Refusal, match="alice has approved loans version 1 already"):
        world.act("approve", ALICE)
    with pytest.raises(Refusal, match=r"by 1 \(alice\) in force, human.quorum asks"):
        world.promote()
    assert statuses(world) == ["pending"]
    world.act("approve", BOB, reason="I read the report.")
    assert world.promote().status == "champion"
    assert events(world)[-1].body["waived"][0]["by"] == ["alice", "bob"]


def test_a_promotion_supersedes_the_champion(world: World) -> None:
    world.register(gap=0.0)
    world.act("approve", ALICE)
    world.promote()
    assert statuses(world) == ["champion", "superseded"]
    assert events(world)[-1].body["replaces"] == 2


def test_a_rejection_is_for_ever(world: World) -> None:
    world.act("approve", ALICE)
    rejected = world.act("reject", BOB, reason="The bound is no accident.")
    assert rejected.status == "rejected"
    for again in (
        lambda: world.act("approve", CAROL),
        lambda: world.act("reject", CAROL),
        world.promote,
    ):
        with pytest.raises(InputError, match="version 1 is rejected: only a version"):
            again()
    assert world.registry().show("rejected").number == 1


def test_a_champion_of_before_comes_back_by_a_signed_rollback(world: World) -> None:
    world.register(gap=0.0)
    world.register(gap=0.05)
    back = world.act("rollback", ALICE, 2, "Version 3 is slow.")
    assert back.status == "champion"
    assert statuses(world) == ["pending", "champion", "superseded"]
    with pytest.raises(InputError, match="version 2 is champion: only a version"):
        world.act("rollback", ALICE, 2)
    with pytest.raises(InputError, match="version 1 is pending"):
        world.act("rollback", ALICE, 1)


def test_a_revoked_version_is_out_of_service_for_ever(world: World) -> None:
    world.register(gap=0.0)
    assert world.act("revoke", CAROL, 2, "It was trained on leaked rows.").status == (
        "revoked"
    )
    assert world.registry().champion() is None
    for act in ("approve", "reject", "promote", "rollback", "revoke"):
        with pytest.raises(InputError, match="version 2 is revoked"):
            world.act(act, ALICE, 2)
    # The next that passes finds nobody before it.
    assert world.register(gap=0.05).status == "champion"
    assert statuses(world) == ["pending", "revoked", "champion"]


def test_the_same_verdict_registered_again_stays_revoked(
    world: World, tmp_path: Path
) -> None:
    world.act("revoke", ALICE)
    world.count = 0
    assert world.register().status == "revoked"
    assert statuses(world) == ["revoked"]


def test_a_pass_that_lost_its_race_is_promoted_over_a_named_champion(
    world: World,
) -> None:
    first, lost = world.register(gap=0.0), None
    bundle = write_pending(world.folder / "late", b"late", gap=0.05)
    registry = world.registry()
    stored = registry.put_bundle(bundle)
    parents = read_manifest(bundle).parents
    entry = VersionEntry(
        **{
            **vars(first.entry),
            "model": parents["model"],
            "verdict": parents["verdict"],
            "bundle": stored.prefix,
            "bundle_digest": stored.digest,
        }
    )
    lost = registry.register(entry, expected=0)
    assert lost.status == "lost_race"
    with pytest.raises(InputError, match="is lost race: only a version"):
        world.act("approve", ALICE, 3)
    assert world.act("promote", ALICE, 3, "Compared: as good.").status == "champion"
    assert opened(events(world)[-1].body["envelope"]).statement["predicate"][
        "champion"
    ] == (2)
    assert statuses(world) == ["pending", "superseded", "champion"]


def test_without_an_owner_every_act_is_said_to_be_single_party(
    file_store: Store, tmp_path: Path
) -> None:
    world = World(file_store, tmp_path)
    world.register(run_owner="")
    approved = world.act("approve", ALICE)
    assert not approved.acts[0].independent
    stated = opened(events(world)[-1].body["envelope"]).statement["predicate"]
    assert stated["independence"] == SINGLE_PARTY


def test_promoting_twice_adds_one_event(world: World) -> None:
    world.act("approve", ALICE)
    world.promote()
    count = len(events(world))
    assert world.promote().status == "champion"
    assert len(events(world)) == count


# --- who may not ---


@pytest.mark.parametrize("act", ["approve", "reject", "revoke"])
def test_a_key_that_the_constitution_does_not_name_decides_nothing(
    world: World, act: str
) -> None:
    with pytest.raises(Refusal, match="is no approver's in the constitution of loans"):
        world.act(act, EVE)
    assert statuses(world) == ["pending"]
    assert len(events(world)) == 1


def test_where_nobody_is_named_nobody_approves(
    file_store: Store, tmp_path: Path
) -> None:
    world = World(file_store, tmp_path)
    world.register(human={"approvers": {}})
    with pytest.raises(Refusal, match="it names nobody"):
        world.act("approve", ALICE)
    with pytest.raises(Refusal, match="by 0 \\(nobody\\) in force"):
        world.promote()


@pytest.mark.parametrize("owner", ["alice", "Alice", "ALICE", public_key_of(ALICE)])
def test_the_owner_of_a_run_does_not_put_it_into_service(
    file_store: Store, tmp_path: Path, owner: str
) -> None:
    world = World(file_store, tmp_path)
    world.register(run_owner=owner)
    world.register(gap=0.0, run_owner=owner)
    world.register(gap=0.05, run_owner=owner)
    for act, number in (("approve", 1), ("rollback", 2)):
        with pytest.raises(Refusal, match=r"alice owns the run .*registry\.run_owner"):
            world.act(act, ALICE, number)
    # To stop a model of one's own is nobody's harm.
    assert world.act("reject", ALICE, 1).status == "rejected"
    assert world.act("revoke", ALICE, 3).status == "revoked"
    assert world.act("rollback", BOB, 2).status == "champion"


def test_an_owner_whose_letters_are_written_otherwise_is_the_same_person(
    file_store: Store, tmp_path: Path
) -> None:
    world = World(file_store, tmp_path)
    keys = {"Zo\u00eb ": public_key_of(ALICE), "bob": public_key_of(BOB)}
    world.register(human={"approvers": keys}, run_owner="zoe\u0308")
    with pytest.raises(Refusal, match="owns the run"):
        world.act("approve", ALICE)
    twice = {**keys, "zoe\u0308": public_key_of(CAROL)}
    with pytest.raises(ConstitutionError, match="names one person twice"):
        rule_with({"approvers": twice})


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"tier": "inviolable", "human": {"never": []}}, "inviolable"),
        ({"human": {"may_override": ["soft"]}}, "undecided_hard"),
        ({"human": {"may_override": []}}, "leaves to people nothing"),
        (
            {"human": {"may_override": ["soft"], "never": ["undecided_hard"]}},
            "undecided_hard",
        ),
        (
            {
                "gap": 0.0,
                "guarantee": "spent",
                "number": 2,
                "human": {"may_override": ["soft"]},
            },
            "guarantee",
        ),
    ],
)
def test_what_the_constitution_keeps_from_people_nobody_approves(
    file_store: Store, tmp_path: Path, about: dict[str, Any], named: str
) -> None:
    world = World(file_store, tmp_path)
    assert world.register(**about).status == "pending"
    with pytest.raises(Refusal, match=rf"cannot be approved by anybody.*{named}"):
        world.act("approve", ALICE)
    assert world.act("reject", ALICE).status == "rejected"


def test_a_spent_guarantee_is_waived_by_name(file_store: Store, tmp_path: Path) -> None:
    world = World(file_store, tmp_path)
    world.register(gap=0.0, guarantee="spent", number=2)
    (act,) = world.act("approve", ALICE).acts
    assert [(p.what, p.kind) for p in act.waived] == [("guarantee", "undecided_hard")]


def test_one_key_under_two_names_is_no_constitution() -> None:
    twice = {"approvers": {**HUMAN["approvers"], "mallory": public_key_of(ALICE)}}
    with pytest.raises(ConstitutionError, match="'alice' and 'mallory' have one key"):
        rule_with(twice)


def test_an_approval_expires(world: World) -> None:
    world.act("approve", ALICE)
    world.later(days=30, minutes=1)
    with pytest.raises(Refusal, match=r"by 0 \(nobody\) in force"):
        world.promote()
    # Once it is over, the same person may look again.
    world.act("approve", ALICE)
    assert world.promote().status == "champion"
    # A champion stays one: what counted when it was promoted is done.
    world.later(days=400)
    assert statuses(world) == ["champion"]


def test_a_promotion_in_the_last_minute_of_an_approval_stops_no_reader(
    file_store: Store, tmp_path: Path
) -> None:
    world = World(file_store, tmp_path)
    world.register(human={"quorum": 1})
    world.act("approve", ALICE)
    world.later(days=30, seconds=-30)
    world.act("approve", BOB)
    world.promote()
    assert events(world)[-1].body["approvals"] == [
        {"by": "bob", "key": public_key_of(BOB)}
    ]
    assert statuses(world) == ["champion"]


def test_an_approval_may_count_for_as_long_as_a_constitution_can_say(
    file_store: Store, tmp_path: Path
) -> None:
    world = World(file_store, tmp_path)
    world.register(human={"expires_days": 36_500})
    world.act("approve", ALICE)
    assert world.promote().status == "champion"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 2001, "a\x1b[2J", "a\nb", "\ud800"])
def test_a_reason_that_nobody_can_read_is_none(world: World, reason: str) -> None:
    with pytest.raises(InputError, match="The reason h"):
        world.act("approve", ALICE, reason=reason)
    assert len(events(world)) == 1


def test_a_version_that_is_not_there_is_one_sentence(world: World) -> None:
    for number in (0, 2, -1):
        with pytest.raises(InputError, match=f"has no version {number}: it has 1"):
            world.act("approve", ALICE, number)


# --- who writes into the store by hand ---


def signed_by(world: World, key: Any, act: str = "approve", **words: Any) -> Draft:
    """Signs an act for the log as it stands, without asking whether it counts."""
    state = world.registry().state()
    place = state.place(1)
    terms = state.terms_of(place.entry)
    envelope = sign(act, place, terms, key, reason=REASON, now=world.now)
    if words:
        statement = parse_json(base64.b64decode(envelope["payload"]))
        statement["predicate"] |= words
        envelope = seal(statement, key)
    return KINDS[act], {"version": 1, "envelope": envelope}


def promoted(world: World) -> Draft:
    body = {
        "version": 1,
        "replaces": 0,
        "approvals": [],
        "waived": [],
        "certificate": NO_CERTIFICATE,
    }
    return "promoted", body


def promoted_by_one_twice(world: World) -> Draft:
    world.act("approve", ALICE)
    kind, body = promotion(world.registry().state(), 1, world.now.isoformat())
    return kind, {**body, "approvals": [*body["approvals"], *body["approvals"]]}


def promoted_with_other_waivers(world: World) -> Draft:
    world.act("approve", ALICE)
    kind, body = promotion(world.registry().state(), 1, world.now.isoformat())
    return kind, {**body, "waived": []}


def promoted_over_another(world: World) -> Draft:
    world.act("approve", ALICE)
    kind, body = promotion(world.registry().state(), 1, world.now.isoformat())
    return kind, {**body, "replaces": 7}


def promoted_late(world: World) -> Draft:
    world.act("approve", ALICE)
    draft = promotion(world.registry().state(), 1, world.now.isoformat())
    world.later(days=31)
    return draft


def approved_without_signature(world: World) -> Draft:
    kind, body = signed_by(world, ALICE)
    return kind, {**body, "envelope": {**body["envelope"], "signatures": []}}


def approved_in_anothers_name(world: World) -> Draft:
    kind, body = signed_by(world, EVE)
    (signature,) = body["envelope"]["signatures"]
    named = {**signature, "keyid": public_key_of(ALICE)}
    return kind, {**body, "envelope": {**body["envelope"], "signatures": [named]}}


def approved_by_another_payload(world: World) -> Draft:
    kind, body = signed_by(world, ALICE)
    payload = base64.b64decode(body["envelope"]["payload"])
    other = base64.b64encode(payload.replace(b"tenth", b"third")).decode()
    return kind, {**body, "envelope": {**body["envelope"], "payload": other}}


def approval_replayed(world: World) -> Draft:
    world.act("approve", ALICE)
    event = events(world)[-1]
    world.later(days=31)
    return event.kind, event.body


def approval_written_twice(world: World) -> Draft:
    world.act("approve", ALICE)
    event = events(world)[-1]
    return event.kind, event.body


def approval_of_another_version(world: World) -> Draft:
    world.register()
    kind, body = signed_by(world, ALICE)
    return kind, {**body, "version": 2}


def rejection_as_approval(world: World) -> Draft:
    return KINDS["approve"], signed_by(world, ALICE, "reject")[1]


def of_another_kind_of_statement(world: World) -> Draft:
    kind, body = signed_by(world, ALICE)
    statement = parse_json(base64.b64decode(body["envelope"]["payload"]))
    envelope = seal({**statement, "predicateType": "urn:other"}, ALICE)
    return kind, {**body, "envelope": envelope}


def of_no_object(world: World) -> Draft:
    words: Any = []
    return "approved", {"version": 1, "envelope": seal(words, ALICE)}


def of_no_predicate(world: World) -> Draft:
    words = {"_type": "x", "predicate": ["approve"]}
    return "approved", {"version": 1, "envelope": seal(words, ALICE)}


FORGED: dict[str, tuple[Forge, str]] = {
    "a promotion that nobody approved": (promoted, "by 0 (nobody) in force"),
    "a promotion with another count": (promoted_by_one_twice, "other approvals"),
    "a promotion without its waivers": (promoted_with_other_waivers, "waivers"),
    "a promotion over another": (promoted_over_another, "another champion"),
    "a promotion by what expired": (promoted_late, "by 0 (nobody) in force"),
    "an approval without signature": (approved_without_signature, "none of ours"),
    "an approval in a name": (approved_in_anothers_name, "it was forged"),
    "an approval of other words": (approved_by_another_payload, "it was forged"),
    "an approval by nobody": (lambda w: signed_by(w, EVE), "is no approver's"),
    "an approval that is replayed": (approval_replayed, "The approval expired"),
    "an approval that is written twice": (
        approval_written_twice,
        "alice has approved loans version 1 already",
    ),
    "an approval of another version": (approval_of_another_version, "about something"),
    "a rejection as an approval": (rejection_as_approval, "it states act 'reject'"),
    "another statement": (of_another_kind_of_statement, "another form than an act"),
    "no statement": (of_no_object, "none of ours"),
    "no predicate": (of_no_predicate, "it states act None"),
    "approvals that are no list": (
        lambda w: ("promoted", {**promoted(w)[1], "approvals": 5}),
        "none of ours",
    ),
    "more words than an act has": (
        lambda w: signed_by(w, ALICE, note="x"),
        "another form than an act",
    ),
    "fewer waivers": (lambda w: signed_by(w, ALICE, waived=[]), "it states waived"),
    "another verdict": (
        lambda w: signed_by(w, ALICE, digests={"verdict": "sha256:" + "0" * 64}),
        "it states digests",
    ),
    "another registry": (
        lambda w: signed_by(w, ALICE, registry="cards"),
        "it states registry 'cards'",
    ),
    "a longer life": (
        lambda w: signed_by(w, ALICE, expires="2036-01-01T00:00:00+00:00"),
        "at most 30 days",
    ),
    "a life without end": (
        lambda w: signed_by(w, ALICE, expires=""),
        "no times of ours",
    ),
    "a day to come": (
        lambda w: signed_by(w, ALICE, issued=(w.now + timedelta(days=2)).isoformat()),
        "no later than its event",
    ),
    "times without a zone": (
        lambda w: signed_by(w, ALICE, issued="2026-01-05T09:00:00"),
        "no times of ours",
    ),
    "no reason": (lambda w: signed_by(w, ALICE, reason=" "), "The reason has 0"),
    "another owner": (
        lambda w: signed_by(w, ALICE, runOwner="zoe"),
        "it states runOwner",
    ),
    "a rollback of what is pending": (
        lambda w: signed_by(w, ALICE, "rollback"),
        "version 1 is pending",
    ),
    "an unsigned revocation": (
        lambda w: ("revoked", {"version": 1}),
        "is missing",
    ),
    "an unsigned rollback": (lambda w: ("rolled_back", {"version": 1}), "is pending"),
    "an act on a version that is not there": (
        lambda w: ("approved", {"version": 9, "envelope": {}}),
        "has no version 9",
    ),
    "a version that is no number": (
        lambda w: ("revoked", {"version": True, "envelope": {}}),
        "version is no int",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_is_written_by_hand_stops_every_reader(world: World, what: str) -> None:
    forge, says = FORGED[what]
    by_hand(world, forge(world))
    said = refused_by_all(world)
    assert any(word in said for word in says.split("|")), said
    assert said.startswith(f"event {len(events(world))} of the registry")


def replayed(world: World, body: Any) -> bool:
    """Says whether a log counts whose newest event has another body."""
    *earlier, last = events(world)
    registry = world.registry()
    state = RegistryState("loans", registry.terms)
    try:
        fold(state, [*earlier, replace(last, body=body)])
    except IntegrityError:
        return False
    return True


@pytest.mark.parametrize("promote", [False, True])
def test_a_value_of_another_type_anywhere_in_an_act_does_not_count(
    world: World, promote: bool
) -> None:
    world.act("approve", ALICE)
    if promote:
        world.promote()
    body = json_form(events(world)[-1].body)
    assert replayed(world, body)
    tried = [put(body, at, other) for at in places(body) for other in OTHERS]
    assert len(tried) > 90
    for changed in tried:
        counts = isinstance(changed, dict) and replayed(world, changed)
        assert counts == (changed == body and not differs(changed, body)), changed


def differs(one: Any, other: Any) -> bool:
    """Says whether two values that Python takes for equal are spelled otherwise."""
    return canonical_json(one) != canonical_json(other)


def test_any_other_word_of_a_signed_statement_does_not_count(world: World) -> None:
    """Signed again by the same approver, so that the signature itself holds."""
    world.act("approve", ALICE)
    envelope = events(world)[-1].body["envelope"]
    statement = parse_json(base64.b64decode(envelope["payload"]))
    # What is the signer's own to say: anything but a text of another type.
    own = {("predicate", name) for name in ("reason", "issued", "expires")}
    for at in places(statement):
        for other in OTHERS:
            changed = put(statement, at, other)
            if not differs(changed, statement) or (at in own and other == "x"):
                continue
            body = {"version": 1, "envelope": seal(changed, ALICE)}
            assert not replayed(world, body), (at, other)


@pytest.mark.parametrize("at", ["soon", "2026-01-06T09:00:00", ""])
def test_a_promotion_whose_time_is_none_stops_every_reader(
    world: World, at: str
) -> None:
    world.act("approve", ALICE)
    draft = promotion(world.registry().state(), 1, world.now.isoformat())
    by_hand(world, draft)
    key = "registry/loans/events/00000003.json"
    raw = {**parse_json(world.store.get(key)), "at": at}
    del raw["digest"]
    world.store.put(key, json_file({**raw, "digest": digest_json(raw)}))
    assert "event 3 of the registry is none of ours" in refused_by_all(world)


def test_an_approval_goes_to_no_other_registry(world: World, tmp_path: Path) -> None:
    """The same bundle under another name, and the same name in another store."""
    world.act("approve", ALICE)
    event = events(world)[-1]
    bundle = world.folder / "1" / "bundle"
    registered(world.store, bundle, "cards", "needs_human")
    by_hand(world, (event.kind, event.body), "cards")
    assert "it states registry 'loans'" in refused_by_other(world, "cards")
    far = World(open_store((tmp_path / "far").as_uri()), world.folder)
    registered(far.store, bundle, "loans", "needs_human")
    by_hand(far, (event.kind, event.body))
    assert "it states head 'sha256:" in refused_by_all(far)


def refused_by_other(world: World, name: str) -> str:
    with pytest.raises(IntegrityError) as error:
        world.registry(name).champion()
    return str(error.value)


def test_a_pending_verdict_is_no_champion_by_its_own_registration(
    world: World,
) -> None:
    body = dict(events(world)[0].body)
    by_hand(world, ("registered", {**body, "status": "champion"}))
    assert "a verdict needs_human makes no version champion" in refused_by_all(world)


def test_a_bundle_whose_verdict_decides_otherwise_is_not_acted_on(
    file_store: Store, tmp_path: Path
) -> None:
    """The gate refuses to register a failed verdict; who writes it in by hand fails."""
    world = World(file_store, tmp_path)
    bundle = write_pending(tmp_path / "1", gap=0.0)
    registered(file_store, bundle, "loans", "needs_human")
    with pytest.raises(IntegrityError, match="holds a verdict pass on model"):
        world.act("approve", ALICE)


@pytest.mark.parametrize(
    "name", ["model", "verdict", "constitution", "dataset", "holdout", "architecture"]
)
def test_nobody_signs_for_a_digest_that_the_bundle_does_not_hold(
    world: World, name: str
) -> None:
    """Who has the registry's key tells of other data than the model was made from."""
    body = events(world)[0].body
    world.act("approve", ALICE)
    other = {**body["entry"], name: "sha256:" + "0" * 64}
    by_hand(world, ("registered", {**body, "entry": other}))
    with pytest.raises(IntegrityError, match=f"(?s){name} .*{'0' * 64}"):
        world.act("approve", ALICE, 2)


def test_a_second_entry_of_a_bundle_is_compared_with_it_too(world: World) -> None:
    """Its terms were read for the first one, which said what the bundle says."""
    body = events(world)[0].body
    world.act("approve", ALICE)
    a_pass = {**body["entry"], "decision": "pass"}
    by_hand(world, ("registered", {**body, "entry": a_pass, "status": "lost_race"}))
    with pytest.raises(IntegrityError, match="recorded pass on"):
        world.act("promote", ALICE, 2)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_changed_event_is_found_whoever_changes_it(world: World, number: int) -> None:
    world.act("approve", ALICE)
    world.promote()
    key = f"registry/loans/events/{number:08d}.json"
    raw = parse_json(world.store.get(key))
    raw["at"] = "2026-01-06T09:00:00+00:00"
    world.store.put(key, json_file(raw))
    assert "was changed after it was written" in refused_by_all(world)


def test_an_event_that_is_changed_with_its_whole_chain_breaks_its_signature(
    world: World,
) -> None:
    """Who links every later event again can't sign for the head that moved."""
    world.act("approve", ALICE)
    keys = [f"registry/loans/events/{n:08d}.json" for n in (1, 2)]
    previous = ""
    for key in keys:
        raw = parse_json(world.store.get(key))
        raw["previous"] = previous
        raw["writer"] = "0" * 32
        del raw["digest"]
        previous = digest_json(raw)
        world.store.put(key, json_file({**raw, "digest": previous}))
    assert "it states head" in refused_by_all(world)


@pytest.mark.parametrize(
    "name", ["constitution.json", "about.json", "verdict/verdict.json"]
)
def test_a_bundle_that_was_changed_after_the_approval_stops_every_reader(
    world: World, name: str
) -> None:
    world.act("approve", ALICE)
    key = f"{world.registry().show(1).entry.bundle}/{name}"
    data = world.store.get(key).replace(b"risk", b"fisk").replace(b"dave", b"eave")
    world.store.put(key, data.replace(b'"rows":700', b'"rows":701'))
    assert "was changed" in refused_by_all(world)


# --- several at once, and kills ---


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Does several things at once; returns what each gave or raised."""
    results: list[Any] = []
    start = threading.Barrier(len(acts))

    def do(act: Callable[[], Any]) -> None:
        start.wait()
        try:
            results.append(act())
        except Refusal as error:
            results.append(error)

    threads = [threading.Thread(target=do, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_approvals_at_once_all_count(file_store: Store, tmp_path: Path) -> None:
    world = World(file_store, tmp_path)
    world.register(human={"quorum": 3})
    people = (ALICE, BOB, CAROL)
    at_once(*(lambda key=key: world.act("approve", key) for key in people))
    assert world.promote().status == "champion"


def test_of_two_promotions_at_once_the_loser_is_told(world: World) -> None:
    world.register()
    for number in (1, 2):
        world.act("approve", ALICE, number)
    looked = threading.Barrier(2)

    def promote(number: int) -> Any:
        registry = world.registry()
        read, first = registry.terms, [True]

        def terms(entry: Any) -> Any:
            # Both have looked at the log, and seen no champion, before either writes.
            if first.pop() if first else False:
                looked.wait()
            return read(entry)

        registry.terms = terms  # type: ignore[method-assign]
        return promote_version(registry, number)

    results = at_once(lambda: promote(1), lambda: promote(2))
    lost = [r for r in results if isinstance(r, Refusal)]
    assert len(lost) == 1
    assert "has another champion by now: none at first, version" in str(lost[0])
    assert sorted(statuses(world)) == ["champion", "pending"]


def test_people_decide_at_once_on_every_kind_of_store(
    store: Store, tmp_path: Path
) -> None:
    """Conditional writes are the store's: a folder's and SeaweedFS's."""
    world = World(store, tmp_path)
    world.register(human={"quorum": 2})
    at_once(*(lambda key=key: world.act("approve", key) for key in (ALICE, BOB)))
    at_once(world.promote, world.promote)
    assert statuses(world) == ["champion"]
    assert [event.kind for event in events(world)] == [
        *("registered", "approved", "approved", "promoted")
    ]


def test_an_act_that_is_killed_before_its_event_leaves_nothing(world: World) -> None:
    def killed(*_: Any) -> Draft:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.registry().add(killed)
    assert len(events(world)) == 1
    assert world.act("approve", ALICE).status == "pending"


def test_a_bundle_whose_event_was_never_written_is_served_by_nobody(
    world: World,
) -> None:
    """Killed between bundle and event; the repeated step registers it."""
    bundle = write_pending(world.folder / "late", b"late", gap=0.0)
    world.registry().put_bundle(bundle)
    assert statuses(world) == ["pending"]
    assert world.registry().champion() is None
    assert len(world.registry().verify()) == 1
