"""The registry: versions, their order, their bundles, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    Refusal,
    StoreInputError,
)
from safescale_ammt.files.artifacts import writing
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import VersionEntry
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog


def digest(word: str) -> str:
    return digest_bytes(word.encode())


@pytest.fixture
def registry(file_store: Store) -> Registry:
    return Registry(file_store, "adult-income")


def bundle(folder: Path, word: str, **extra: str) -> Path:
    parents = {"model": digest(f"model {word}"), "verdict": digest(f"verdict {word}")}
    with writing(
        folder / word, kind="bundle", stage="register_model", parents=parents
    ) as draft:
        draft.outside_identity = set(extra)
        for name in ("model/weights.safetensors", "model/manifest.json", "card.md"):
            (draft.folder / name).parent.mkdir(exist_ok=True)
            (draft.folder / name).write_text(f"{name} of {word}")
        for name, text in extra.items():
            (draft.folder / name).write_text(text)
    return folder / word


def entry(
    registry: Registry, folder: Path, word: str, decision: str = "pass"
) -> VersionEntry:
    stored = registry.put_bundle(bundle(folder, word))
    return VersionEntry(
        model=digest(f"model {word}"),
        verdict=digest(f"verdict {word}"),
        constitution=digest("constitution"),
        dataset=digest("dataset"),
        holdout=digest("holdout"),
        architecture=digest("architecture"),
        decision=decision,
        bundle=stored.prefix,
        bundle_digest=stored.digest,
        code_version="0.1.0",
    )


def test_a_pass_becomes_champion_and_supersedes(
    registry: Registry, tmp_path: Path
) -> None:
    assert registry.champion() is None
    one = registry.register(entry(registry, tmp_path, "one"))
    assert (one.number, one.status, one.predecessor) == (1, "champion", 0)
    two = registry.register(entry(registry, tmp_path, "two"))
    assert (two.number, two.status, two.predecessor) == (2, "champion", 1)
    assert registry.champion() == two
    assert [v.status for v in registry.versions()] == ["superseded", "champion"]


def test_needs_human_is_pending_and_leaves_the_champion(
    registry: Registry, tmp_path: Path
) -> None:
    one = registry.register(entry(registry, tmp_path, "one"))
    two = registry.register(entry(registry, tmp_path, "two", "needs_human"))
    assert two.status == "pending"
    assert registry.champion() == one
    assert registry.show("pending") == two


@pytest.mark.parametrize("decision", ["fail", "", "PASS"])
def test_a_failed_verdict_is_refused_and_nothing_registered(
    registry: Registry, tmp_path: Path, decision: str
) -> None:
    with pytest.raises(Refusal, match="cannot be registered") as error:
        registry.register(entry(registry, tmp_path, "one", decision))
    assert error.value.exit_code == 3
    assert registry.versions() == []


def test_registering_again_returns_the_version_that_is_there(
    registry: Registry, tmp_path: Path
) -> None:
    first = registry.register(entry(registry, tmp_path, "one"))
    registry.register(entry(registry, tmp_path, "two"))
    again = registry.register(entry(registry, tmp_path, "one"))
    assert again == replace(first, status="superseded")
    assert len(registry.versions()) == 2


def test_another_verdict_about_the_same_model_is_another_version(
    registry: Registry, tmp_path: Path
) -> None:
    registry.register(entry(registry, tmp_path, "one", "needs_human"))
    two = entry(registry, tmp_path, "two")
    other = VersionEntry(**{**vars(two), "model": digest("model two")})
    assert registry.register(other).number == 2


def test_a_pass_that_expected_another_champion_is_a_recorded_loser(
    registry: Registry, tmp_path: Path
) -> None:
    one = registry.register(entry(registry, tmp_path, "one"), expected=0)
    late = registry.register(entry(registry, tmp_path, "two"), expected=0)
    assert (late.number, late.status, late.predecessor) == (2, "lost_race", 1)
    assert registry.champion() == one
    assert registry.verify() == [one, late]
    third = registry.register(entry(registry, tmp_path, "three"), expected=1)
    assert third.status == "champion"


def test_versions_are_shown_by_number_or_by_role(
    registry: Registry, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="it holds no version yet"):
        registry.show("champion")
    one = registry.register(entry(registry, tmp_path, "one"))
    two = registry.register(entry(registry, tmp_path, "two", "needs_human"))
    assert registry.show(1) == registry.show("v1") == registry.show("champion") == one
    assert registry.show("latest") == two
    for unknown in (3, 0, "best"):
        with pytest.raises(InputError, match="it holds versions 1 to 2"):
            registry.show(unknown)


def test_a_bundle_comes_back_verified(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(entry(registry, tmp_path, "one"))
    manifest = registry.get_bundle(version, tmp_path / "back")
    assert manifest.identity == version.entry.bundle_digest
    text = (tmp_path / "back/model/weights.safetensors").read_text()
    assert text == "model/weights.safetensors of one"
    assert version.entry.bundle == (
        "registry/adult-income/bundles/" + manifest.identity.removeprefix("sha256:")
    )


def test_a_bundle_that_is_not_the_registered_one_names_both_digests(
    registry: Registry, tmp_path: Path
) -> None:
    one = entry(registry, tmp_path, "one")
    wrong = replace(one, bundle_digest=digest("other"))
    with pytest.raises(IntegrityError) as error:
        registry.register(wrong)
    assert one.bundle_digest in str(error.value)
    assert digest("other") in str(error.value)
    assert registry.versions() == []


def test_a_bundle_that_was_never_stored_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    one = replace(entry(registry, tmp_path, "one"), bundle="registry/x/bundles/0")
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        registry.register(one)


def test_a_bundle_of_another_model_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    one = replace(entry(registry, tmp_path, "one"), model=digest("another"))
    with pytest.raises(IntegrityError, match=r"holds model sha256:.* the entry names"):
        registry.register(one)


def test_a_verdict_is_not_registered_with_other_facts(
    registry: Registry, tmp_path: Path
) -> None:
    one = entry(registry, tmp_path, "one")
    registry.register(one)
    with pytest.raises(IntegrityError, match="with other digests") as error:
        registry.register(replace(one, constitution=digest("looser")))
    assert digest("looser") in str(error.value)
    assert digest("constitution") in str(error.value)


def test_a_malformed_digest_is_bad_input(registry: Registry, tmp_path: Path) -> None:
    one = replace(entry(registry, tmp_path, "one"), holdout="h")
    with pytest.raises(InputError, match="the holdout is 'h'"):
        registry.register(one)


def test_a_bundle_whose_digest_leaves_files_out_is_bad_input(
    registry: Registry, tmp_path: Path
) -> None:
    folder = bundle(tmp_path, "one", **{"execution.json": "{}"})
    with pytest.raises(InputError, match=r"does not cover execution\.json"):
        registry.put_bundle(folder)


def test_a_changed_bundle_is_not_stored(registry: Registry, tmp_path: Path) -> None:
    folder = bundle(tmp_path, "one")
    (folder / "card.md").write_text("better")
    with pytest.raises(IntegrityError, match=r"card\.md was changed"):
        registry.put_bundle(folder)


def test_storing_a_bundle_again_sends_nothing(
    registry: Registry, file_store: Store, tmp_path: Path
) -> None:
    folder = bundle(tmp_path, "one")
    stored = registry.put_bundle(folder)
    before = {i.key: i.etag for i in file_store.list(stored.prefix)}
    assert registry.put_bundle(folder) == stored
    assert {i.key: i.etag for i in file_store.list(stored.prefix)} == before


def test_verify_finds_whatever_was_done_to_a_bundle(
    registry: Registry, file_store: Store, tmp_path: Path
) -> None:
    one = registry.register(entry(registry, tmp_path, "one"))
    registry.register(entry(registry, tmp_path, "two"))
    assert [v.number for v in registry.verify()] == [1, 2]
    card = f"{one.entry.bundle}/card.md"
    good = file_store.get(card)
    file_store.put(card, b"better")
    with pytest.raises(IntegrityError, match=r"card\.md was changed.*sha256.*sha256"):
        registry.verify()
    with pytest.raises(IntegrityError, match="was changed"):
        registry.get_bundle(one, tmp_path / "back")
    file_store.delete(card)
    with pytest.raises(IntegrityError, match=r"card\.md is missing from"):
        registry.verify()
    file_store.put(card, good)
    file_store.put(f"{one.entry.bundle}/extra", b"")
    with pytest.raises(IntegrityError, match="extra was added to"):
        registry.verify()
    file_store.delete(f"{one.entry.bundle}/extra")
    file_store.put(f"{one.entry.bundle}/manifest.json", b"{}")
    with pytest.raises(IntegrityError, match=r"manifest\.json was changed"):
        registry.verify()
    file_store.delete(f"{one.entry.bundle}/manifest.json")
    with pytest.raises(IntegrityError, match=r"manifest\.json is missing"):
        registry.verify()


def test_another_bundle_in_the_place_of_the_registered_one_is_found(
    registry: Registry, file_store: Store, tmp_path: Path
) -> None:
    one = registry.register(entry(registry, tmp_path, "one"))
    file_store.upload_folder(bundle(tmp_path, "two"), one.entry.bundle)
    with pytest.raises(IntegrityError, match="is not the bundle that was registered"):
        registry.verify()


def test_an_event_that_this_version_does_not_know_is_not_overlooked(
    registry: Registry, file_store: Store, tmp_path: Path
) -> None:
    registry.register(entry(registry, tmp_path, "one"))
    EventLog(file_store, "registry/adult-income").append(
        lambda events: ("recalled", {"version": 1})
    )
    with pytest.raises(InputError, match="event 2 of the registry is 'recalled'"):
        registry.champion()


def test_registries_of_different_names_are_apart(
    registry: Registry, file_store: Store, tmp_path: Path
) -> None:
    registry.register(entry(registry, tmp_path, "one"))
    assert Registry(file_store, "other").versions() == []
    with pytest.raises(StoreInputError, match="not allowed"):
        Registry(file_store, "../up")
