"""Stage 5, the gate: what it registers, and everything it refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from trained_world import World, build

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import InputError, IntegrityError, Refusal
from safescale_ammt.files.artifacts import (
    Draft,
    Manifest,
    describe,
    read_manifest,
    verify,
)
from safescale_ammt.files.canonical import digest_file, read_json, write_json
from safescale_ammt.judging.assembly import (
    assemble,
    evidence_of,
    rederive,
    submission_of,
)
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    evidence_digest,
    write_evidence,
)
from safescale_ammt.judging.verdict import SealedUse, Verdict
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.stages import evaluate_safety, register_model
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.uri import open_store

OVER: dict[str, Any] = {"dirs_exist_ok": True}
REGISTRY = {"name": "loans", "description": "Who may be granted a loan."}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A trained model that keeps its promises."""
    return build(tmp_path_factory.getbasetemp() / "world")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Names an empty store."""
    return {"SAFESCALE_STORE": (tmp_path / "store").as_uri()}


@pytest.fixture(scope="module")
def first(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first verdict about the model, and the store behind it."""
    folder = tmp_path_factory.mktemp("first")
    judge(world, folder / "v", {"SAFESCALE_STORE": (folder / "store").as_uri()})
    return folder / "v", folder / "store"


@pytest.fixture
def verdict(first: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the first verdict; `environ` names a copy of its store."""
    for source, name in zip(first, ("v", "store"), strict=True):
        shutil.copytree(source, tmp_path / name)
    return tmp_path / "v"


def store_of(environ: dict[str, str]) -> Store:
    return open_store(environ["SAFESCALE_STORE"], environ=environ)


def bundle_of(environ: dict[str, str], told: dict[str, Any], folder: Path) -> Path:
    """Brings the bundle of a version from its registry."""
    store = store_of(environ)
    store.download_folder(told["bundle"].removeprefix(f"{store.uri}/"), folder)
    return folder


def versions(environ: dict[str, str]) -> list[Any]:
    return Registry(store_of(environ), "loans").versions()


def judge(
    world: World,
    out: Path,
    environ: dict[str, str],
    model: str = "model",
    **safety: Any,
) -> Path:
    dataset, holdout, architecture, _ = world.inputs
    world.kept_in(store_of(environ))
    evaluate_safety.run(
        *(dataset, holdout, architecture, world.folder / model),
        world.constitution,
        safety,
        out,
        environ=environ,
    )
    return out


def register(
    world: World,
    verdict: Path,
    out: Path,
    environ: dict[str, str],
    *,
    model: str = "model",
    run_id: str = "",
    **changes: Any,
) -> dict[str, Any]:
    return register_model.run(
        world.folder / model,
        verdict,
        world.constitution,
        {**REGISTRY, **changes},
        out,
        run_id=run_id,
        environ=environ,
    )


def forge(verdict: Path, world: World, *, right: int = 0, **changes: Any) -> None:
    """Judges the evidence again under false facts and writes the manifest anew.

    Args:
        verdict: the verdict artifact.
        world: what it is about.
        right: wrong predictions that are turned into right ones.
        changes: false facts about the submission.
    """
    rule = Constitution.from_dict(world.constitution)
    with preparing.opened(verdict, "verdict") as whole:
        stated = Verdict.load(whole)
        told, hashes = evidence_of(whole, stated)
        wrong = np.flatnonzero(told.prediction != told.label)[:right]
        prediction = told.prediction.copy()
        prediction[wrong] = told.label[wrong]
        told = replace(told, prediction=prediction)
        told, slices = preparing.confirmed_again(told, stated, rule)
        if right:
            write_evidence(whole / EVIDENCE, told, hashes)
        about = replace(submission_of(stated), slices=slices, **changes)
        shutil.rmtree(whole / "findings")
        assemble(rule, told, about, digest_file(whole / EVIDENCE)).save(whole)
        reseal(whole)


def answers_in(verdict: Path) -> str:
    """Digests the evidence of a verdict."""
    with preparing.whole(verdict, "verdict") as whole:
        return evidence_digest(*evidence_of(whole, Verdict.load(whole)))


def reseal(verdict: Path) -> None:
    """Writes a manifest anew, as somebody does who changed a file on purpose."""
    old = read_json(verdict / "manifest.json")
    outside = {n for n, entry in old["files"].items() if not entry["identity"]}
    draft = Draft(verdict, old["parents"], outside)
    new = describe(verdict, draft, old["kind"], old["stage"], old["config_digest"])
    write_json(verdict / "manifest.json", new.to_dict())


def test_a_pass_becomes_champion_with_a_bundle_that_verifies(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    told = register(world, verdict, tmp_path / "version", environ)

    verify(tmp_path / "version", "version")
    assert told == read_json(tmp_path / "version/version.json")
    assert (told["version"], told["status"]) == (1, "champion")
    assert told["model"] == read_manifest(world.folder / "model").identity
    assert told["verdict"] == read_manifest(verdict).identity
    assert set(verify(tmp_path / "version").files) == {"version.json"}
    bundle = bundle_of(environ, told, tmp_path / "bundle")
    found = verify_bundle(bundle, told["bundle_digest"])
    assert found.verdict.decision == "pass"
    (version,) = Registry(store_of(environ), "loans").verify()
    assert told["bundle"] == f"{store_of(environ).uri}/{version.entry.bundle}"


def test_registering_again_gives_the_same_version_and_its_first_bundle(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    first = register(world, verdict, tmp_path / "a", environ)
    again = register(world, verdict, tmp_path / "b", environ, description="Other.")

    assert again == first
    assert len(versions(environ)) == 1
    bundle = bundle_of(environ, again, tmp_path / "bundle")
    assert read_manifest(bundle).identity == first["bundle_digest"]
    identities = [read_manifest(tmp_path / n).identity for n in ("a", "b")]
    assert identities[0] == identities[1]


def test_equal_work_has_equal_identities_at_every_stage(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In other folders and fresh stores, at another time."""
    root = tmp_path_factory.mktemp("equal")
    worlds = {"a": world, "b": build(root / "b")}
    for name, made in worlds.items():
        environ = {"SAFESCALE_STORE": (root / f"store-{name}").as_uri()}
        verdict = judge(made, made.folder / f"verdict-{root.name}", environ)
        register(made, verdict, made.folder / f"version-{root.name}", environ)

    def manifests(kind: str) -> list[Manifest]:
        late = f"-{root.name}" if kind.startswith("ver") else ""
        return [verify(w.folder / f"{kind}{late}") for w in worlds.values()]

    kinds = ("dataset", "holdout", "architecture", "model", "verdict", "version")
    made_twice = {kind: manifests(kind) for kind in kinds}
    for kind, (one, two) in made_twice.items():
        assert one.identity == two.identity, kind
    # Seconds and logs do differ, and the registry's digest covers them.
    for kind in ("model", "version"):
        one, two = made_twice[kind]
        assert one.files != two.files, kind
    told = [
        read_json(w.folder / f"version-{root.name}" / "version.json")
        for w in worlds.values()
    ]
    assert told[0]["bundle_digest"] != told[1]["bundle_digest"]
    # The number it got is history, and so is what lies beside it.
    assert not any(entry.identity for entry in made_twice["version"][0].files.values())


def test_an_undecided_model_is_kept_as_pending_and_not_served(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    world.train("second-model", seed=11)
    verdict = judge(world, tmp_path / "second", environ, model="second-model")
    told = register(world, verdict, tmp_path / "version", environ, model="second-model")

    assert (told["decision"], told["status"]) == ("needs_human", "pending")
    assert Registry(store_of(environ), "loans").champion() is None


def test_a_failed_model_is_refused_in_one_sentence_and_nothing_is_registered(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environ: dict[str, str]
) -> None:
    world = build(tmp_path_factory.getbasetemp() / "broken", floor=0.97)
    verdict = judge(world, tmp_path / "v", environ)
    with pytest.raises(Refusal) as error:
        register(world, verdict, tmp_path / "version", environ, run_id="r-9")

    sentence = str(error.value)
    assert error.value.exit_code == 3
    model = read_manifest(world.folder / "model").identity
    assert sentence.startswith("useful is violated")
    assert sentence.endswith(f"; refused, nothing was registered: model {model}.")
    assert "\n" not in sentence
    promises = {p.principle: p for p in outcome_of(environ, "r-9").promises}
    assert promises["useful"].outcome == "fails"
    # The floor that failed stands there by itself, with its own figures.
    assert promises["useful: floor"].promised == "accuracy ≥ 0.97"
    assert not (tmp_path / "version").exists()
    assert versions(environ) == []


def test_a_rehearsal_registers_nothing_and_says_so(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    verdict = judge(world, tmp_path / "v", environ, rehearse=True)
    told = register(world, verdict, tmp_path / "version", environ)

    assert (told["status"], told["version"]) == ("not_registered", 0)
    assert sorted(verify(tmp_path / "version").files) == ["version.json"]


def test_a_research_verdict_can_never_be_registered(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    verdict = judge(world, tmp_path / "v", environ, ledger="research")

    with pytest.raises(Refusal, match="research ledger"):
        register(world, verdict, tmp_path / "version", environ)
    forge(verdict, world, ledger="official")
    with pytest.raises(IntegrityError, match="holds no use of rows"):
        register(world, verdict, tmp_path / "version", environ)
    assert versions(environ) == []


def test_a_verdict_about_another_model_is_refused_with_both_digests(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    other = world.train("second-model", seed=11)
    with pytest.raises(IntegrityError) as error:
        register(world, verdict, tmp_path / "version", environ, model="second-model")

    assert error.value.exit_code == 3
    for path in (other, world.folder / "model"):
        assert read_manifest(path).identity in str(error.value)


def test_another_constitution_is_refused_with_both_digests(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    other = {**world.constitution, "groups": {"min_n": 10}}
    with pytest.raises(IntegrityError) as error:
        register_model.run(
            world.folder / "model",
            verdict,
            other,
            REGISTRY,
            tmp_path / "version",
            environ=environ,
        )

    for rule in (other, world.constitution):
        assert Constitution.from_dict(rule).digest in str(error.value)


def test_a_forged_decision_with_a_fresh_manifest_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environ: dict[str, str]
) -> None:
    world = build(tmp_path_factory.getbasetemp() / "broken", floor=0.97)
    verdict = judge(world, tmp_path / "v", environ)
    with preparing.opened(verdict, "verdict") as whole:
        raw = read_json(whole / "verdict.json")
        write_json(whole / "verdict.json", {**raw, "decision": "pass", "reasons": []})
        reseal(whole)

    with pytest.raises(IntegrityError, match="does not follow from its evidence"):
        register(world, verdict, tmp_path / "version", environ)
    assert versions(environ) == []


def test_a_failed_verdict_with_edited_predictions_is_no_champion(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, environ: dict[str, str]
) -> None:
    """Evidence, figures, decision and manifest agree; the ledger knows better."""
    world = build(tmp_path_factory.getbasetemp() / "broken", floor=0.97)
    verdict = judge(world, tmp_path / "v", environ)
    honest = answers_in(verdict)
    forge(verdict, world, right=500)
    forged = answers_in(verdict)
    rule = Constitution.from_dict(world.constitution)
    with preparing.whole(verdict, "verdict") as whole:
        assert rederive(whole, rule).decision == "pass"

    for _ in range(2):
        with pytest.raises(IntegrityError) as error:
            register(world, verdict, tmp_path / "version", environ)
        assert error.value.exit_code == 3
        assert honest in str(error.value)
        assert forged in str(error.value)
        # Nor does it help to enter the edited answers into the ledger afterwards.
        store = store_of(environ)
        (use,) = ledger.uses(store)
        identity = read_manifest(verdict).identity
        ledger.mark_opened(store, use, evidence=forged, verdict=identity)
    assert versions(environ) == []


def test_a_judgement_in_other_words_counts_once_the_ledger_has_it(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    """A later version of the library judges the same answers, and words them anew."""
    with preparing.opened(verdict, "verdict") as whole:
        old = read_json(whole / "manifest.json")
        stated = read_json(whole / "verdict.json")
        stated["reasons"] = ["Every hard promise is kept."]
        write_json(whole / "verdict.json", stated)
        outside = {n for n, entry in old["files"].items() if not entry["identity"]}
        draft = Draft(whole, old["parents"], outside)
        new = describe(whole, draft, old["kind"], old["stage"], old["config_digest"])
        later = replace(new, code_version="9.9.9")
        write_json(whole / "manifest.json", later.to_dict())
    with pytest.raises(IntegrityError, match="recorded another judgement") as error:
        register(world, verdict, tmp_path / "version", environ)
    for identity in (old["identity"], later.identity):
        assert identity in str(error.value)

    store = store_of(environ)
    (use,) = ledger.uses(store)
    answers = use.openings[0].evidence
    ledger.mark_opened(store, use, evidence=answers, verdict=later.identity)
    assert register(world, verdict, tmp_path / "version", environ)["version"] == 1


@pytest.mark.parametrize(("what", "stated"), [("number", 1), ("planned", 9)])
def test_a_use_that_was_entered_by_hand_with_a_guarantee_is_counted_again(
    world: World,
    verdict: Path,
    tmp_path: Path,
    what: str,
    stated: int,
) -> None:
    """Somebody with the store's key writes the events that they would like to see."""
    environ = {"SAFESCALE_STORE": (tmp_path / "store").as_uri()}
    elsewhere = {"SAFESCALE_STORE": (tmp_path / "elsewhere").as_uri()}
    world.train("second-model", seed=11)
    second = judge(world, tmp_path / "second", elsewhere, model="second-model")
    (use,) = ledger.uses(store_of(elsewhere))
    store = store_of(environ)
    body = {**vars(use), "number": 2, "guarantee": "holds", what: stated}
    for name in ("event", "at", "openings", "keys"):
        del body[name]
    EventLog(store, "ledger").append(lambda events: ("reserved", body))
    shutil.copytree(tmp_path / "elsewhere/sealed", tmp_path / "store/sealed", **OVER)
    forge(second, world, use=SealedUse(body["number"], body["planned"], "holds"))
    forged = ledger.uses(store)[-1]
    answers = answers_in(second)
    identity = read_manifest(second).identity
    ledger.mark_opened(store, forged, evidence=answers, verdict=identity)

    # A number is the ledger's to know; the plan is seen before the ledger is asked.
    words = f"states {what} {stated}, .* follows from the constitution"
    if what == "planned":
        words = "states 9 planned uses, the constitution plans 1"
    with pytest.raises(IntegrityError, match=words) as error:
        register(world, second, tmp_path / "w", environ, model="second-model")
    assert error.value.exit_code == 3
    assert versions(environ) == []


@pytest.mark.parametrize("file", ["warnings.json", "constitution.json"])
def test_a_file_of_the_verdict_that_was_exchanged_is_refused_with_both_digests(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str], file: str
) -> None:
    opened = read_manifest(verdict).identity
    with preparing.opened(verdict, "verdict") as whole:
        write_json(whole / file, {"schema": 1, "warnings": []})
        (whole / file).write_bytes((whole / file).read_bytes() + b" ")
        reseal(whole)

    with pytest.raises(IntegrityError) as error:
        register(world, verdict, tmp_path / "version", environ)
    assert opened in str(error.value)
    assert read_manifest(verdict).identity in str(error.value)
    assert versions(environ) == []


def test_a_rehearsal_dressed_up_as_sealed_is_refused_by_the_ledger(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    verdict = judge(world, tmp_path / "second", environ, rehearse=True)
    forge(verdict, world, mode="sealed", use=SealedUse(1, 1, "holds"))

    with pytest.raises(IntegrityError, match="holds no use of rows"):
        register(world, verdict, tmp_path / "version", environ)


def test_a_spent_guarantee_cannot_be_written_back(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    world.train("second-model", seed=11)
    verdict = judge(world, tmp_path / "second", environ, model="second-model")
    forge(verdict, world, use=SealedUse(1, 1, "holds"))

    with pytest.raises(IntegrityError, match="holds use 2 of 1 with 'spent'"):
        register(world, verdict, tmp_path / "version", environ, model="second-model")
    assert versions(environ) == []


def test_a_store_whose_ledger_knows_no_such_use_is_refused(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    elsewhere = {"SAFESCALE_STORE": (tmp_path / "elsewhere").as_uri()}
    with pytest.raises(InputError, match=r"evidence\.parquet is not there, though a"):
        register(world, verdict, tmp_path / "version", elsewhere)

    shutil.copytree(tmp_path / "store/sealed", tmp_path / "elsewhere/sealed", **OVER)
    with pytest.raises(IntegrityError, match="judge the model again with this store"):
        register(world, verdict, tmp_path / "version", elsewhere)


def cut_ledger(environ: dict[str, str], kept: int) -> None:
    """Deletes the newest events of the ledger."""
    store = store_of(environ)
    for info in list(store.list("ledger/events/")):
        if int(info.key[-13:-5]) > kept:
            store.delete(info.key)


@pytest.mark.parametrize("apart", [False, True])
def test_a_use_that_was_cut_from_the_ledger_is_missed_by_the_next_gate(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str], apart: bool
) -> None:
    """Else a second model would be the first use of rows that were read."""
    if apart:
        environ["SAFESCALE_REGISTRY_STORE"] = (tmp_path / "registry").as_uri()
    register(world, verdict, tmp_path / "version", environ)
    cut_ledger(environ, 0)
    world.train("second-model", seed=11)
    second = judge(world, tmp_path / "second", environ, model="second-model")
    assert Verdict.load(second).use == SealedUse(1, 1, "holds")

    with pytest.raises(IntegrityError, match=r"was written anew|were cut") as error:
        register(
            world, second, tmp_path / "w", environ, model="second-model", run_id="r-9"
        )
    assert error.value.exit_code == 3
    assert outcome_of(environ, "r-9").status == "refused"


def test_a_run_that_is_refused_is_anchored_too(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    """A failed use is what somebody would like to see forgotten."""
    verdict = judge(world, tmp_path / "v", environ, ledger="research")
    with pytest.raises(Refusal, match="research ledger"):
        register(world, verdict, tmp_path / "version", environ)
    cut_ledger(environ, 1)
    with pytest.raises(IntegrityError, match="1 were cut off"):
        register(world, verdict, tmp_path / "version", environ)
    cut_ledger(environ, 0)
    verdict = judge(world, tmp_path / "w", environ)
    with pytest.raises(IntegrityError, match="was written anew"):
        register(world, verdict, tmp_path / "version", environ)
    assert versions(environ) == []


def test_a_gate_that_is_repeated_adds_nothing(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    register(world, verdict, tmp_path / "version", environ)
    register(world, verdict, tmp_path / "version", environ)
    before = {info.key for info in store_of(environ).list()}
    register(world, verdict, tmp_path / "version", environ)
    assert {info.key for info in store_of(environ).list()} == before


def test_a_version_that_was_cut_from_the_registry_is_missed_by_the_next_gate(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    environ["SAFESCALE_REGISTRY_STORE"] = (tmp_path / "registry").as_uri()
    register(world, verdict, tmp_path / "version", environ)
    (tmp_path / "registry/registry/loans/events/00000001.json").unlink()

    with pytest.raises(IntegrityError, match="registry/loans ends with event 0"):
        register(world, verdict, tmp_path / "version", environ)


def test_without_a_store_nothing_can_be_registered(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:

    with pytest.raises(InputError, match="no ledger, no registry and"):
        register(world, verdict, tmp_path / "version", {})


def test_a_changed_byte_of_the_model_is_refused(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(world.folder / "model", copy)
    weights = copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)

    with pytest.raises(IntegrityError, match="was changed"):
        register_model.run(
            copy,
            verdict,
            world.constitution,
            REGISTRY,
            tmp_path / "version",
            environ=environ,
        )


def test_judging_and_registering_work_on_s3(
    world: World,
    tmp_path: Path,
    s3_store: Store,
    s3_environ: dict[str, str],
) -> None:
    environ = {**s3_environ, "SAFESCALE_STORE": s3_store.uri}
    verdict = judge(world, tmp_path / "v", environ)
    told = register(world, verdict, tmp_path / "version", environ)

    assert told["status"] == "champion"
    assert told["bundle"].startswith("s3://")
    (use,) = ledger.uses(s3_store)
    assert use.opened
    s3_store.download_folder(
        told["bundle"].removeprefix(f"{s3_store.uri}/"), tmp_path / "fetched"
    )
    verify_bundle(tmp_path / "fetched", told["bundle_digest"])


def outcome_of(environ: dict[str, str], run: str) -> RunOutcome:
    found = RunOutcome.read(store_of(environ), run)
    assert found is not None
    return found


def test_the_registry_may_lie_in_a_store_of_its_own(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    place = (tmp_path / "registry").as_uri()
    both = {**environ, "SAFESCALE_REGISTRY_STORE": place}
    told = register(world, verdict, tmp_path / "version", both, run_id="r-1")

    assert told["status"] == "champion"
    assert told["bundle"].startswith(place)
    assert versions(environ) == []
    elsewhere = {"SAFESCALE_STORE": place}
    assert len(versions(elsewhere)) == 1
    assert ledger.uses(store_of(elsewhere)) == []
    assert outcome_of(environ, "r-1").version == 1
    assert RunOutcome.read(store_of(elsewhere), "r-1") is None


def test_what_was_registered_is_on_record_under_the_runs_id(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    told = register(world, verdict, tmp_path / "version", environ, run_id="r-1")

    left = outcome_of(environ, "r-1")
    assert left.sentence == "loans version 1 is champion."
    for key in ("status", "version", "decision", "model", "verdict", "registry"):
        assert getattr(left, key) == told[key]
    assert left.exit_code == 0


def test_a_refusal_is_on_record_before_it_ends_the_run(
    world: World, verdict: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    world.train("second-model", seed=11)
    with pytest.raises(IntegrityError) as error:
        register(
            world,
            verdict,
            tmp_path / "version",
            environ,
            model="second-model",
            run_id="r-2",
        )

    left = outcome_of(environ, "r-2")
    assert (left.status, left.exit_code) == ("refused", 3)
    assert left.sentence == str(error.value)
    assert left.verdict == read_manifest(verdict).identity
    assert versions(environ) == []


def test_a_rehearsal_is_on_record_as_one(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    verdict = judge(world, tmp_path / "v", environ, rehearse=True)
    told = register(world, verdict, tmp_path / "version", environ, run_id="r-3")

    left = outcome_of(environ, "r-3")
    assert (left.status, left.exit_code) == ("not_registered", 0)
    decision = told["decision"]
    assert left.sentence == f"Rehearsal: {decision}; nothing was registered."


def test_an_outcome_that_cannot_be_recorded_changes_nothing(
    world: World,
    verdict: Path,
    tmp_path: Path,
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "store" / "runs").write_text("in the way")
    told = register(world, verdict, tmp_path / "version", environ, run_id="r-4")

    assert told["status"] == "champion"
    assert "The outcome was not recorded" in capsys.readouterr().err
