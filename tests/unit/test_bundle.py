"""The bundle: everything behind a version, checked offline to the last byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from forger import sealed_again
from safety_world import (
    HOLDOUT,
    WARNINGS,
    constitution,
    evidence,
    schema,
    submission,
    write_model,
    write_verdict,
)

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.data.audit_warnings import AuditWarning, save_warnings
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import (
    MANIFEST,
    file_names,
    read_manifest,
    verify,
)
from safescale_ammt.files.canonical import canonical_json, digest_json, write_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.bundle import verify_bundle, write_bundle
from safescale_ammt.releasing.card import summary, write_card

REGISTRY = RegistryConfig(name="test-model", description="Says yes | <b>or</b> no.")


def build(path: Path, gap: float = 0.0, warnings: Sequence[AuditWarning] = ()) -> Path:
    rule = constitution()
    model = write_model(path / "model", rule)
    about = submission(model.identity)
    write_verdict(path / "verdict", rule, evidence(gap=gap), about, warnings=warnings)
    write_bundle(
        path / "bundle",
        model=path / "model",
        verdict=path / "verdict",
        constitution=rule,
        registry=REGISTRY,
    )
    return path / "bundle"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle, for tests that copy it."""
    return build(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A bundle to tamper with."""
    shutil.copytree(made, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_sound_bundle_says_what_was_checked(made: Path) -> None:
    digest = read_manifest(made).identity
    found = verify_bundle(made, digest)

    assert found.digest == digest
    assert found.verdict.decision == "pass"
    assert any("700 rows" in check for check in found.checks)


def test_the_digest_of_a_bundle_covers_every_file(made: Path) -> None:
    assert all(entry.identity for entry in verify(made).files.values())


def test_the_same_parts_make_the_same_bundle(made: Path, tmp_path: Path) -> None:
    assert read_manifest(build(tmp_path)).identity == read_manifest(made).identity


def test_any_changed_byte_in_any_file_is_found(made: Path, tmp_path: Path) -> None:
    names = [*file_names(made), MANIFEST]
    assert len(names) > 15
    for name in names:
        copy = tmp_path / "copy"
        shutil.copytree(made, copy)
        data = bytearray((copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises((IntegrityError, InputError)):
            verify_bundle(copy)
        shutil.rmtree(copy)


def test_any_changed_byte_of_the_manifest_itself_is_found(bundle: Path) -> None:
    """Stage, config and version are outside an identity, yet checked."""
    whole = json.loads((bundle / MANIFEST).read_text())
    for change in (
        {"code_version": "9.9.9"},
        {"stage": "elsewhere"},
        {"config_digest": "sha256:x"},
    ):
        (bundle / MANIFEST).write_bytes(canonical_json({**whole, **change}) + b"\n")
        with pytest.raises(IntegrityError, match="was changed after it was written"):
            verify_bundle(bundle)
        restate(bundle, **change)
        with pytest.raises(IntegrityError, match="departs from what the files"):
            verify_bundle(bundle)


def test_a_missing_and_an_added_file_are_found(bundle: Path) -> None:
    (bundle / "extra.txt").write_text("hello")
    with pytest.raises(IntegrityError, match="was added"):
        verify_bundle(bundle)
    (bundle / "extra.txt").unlink()

    (bundle / "verdict" / "evidence.parquet").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        verify_bundle(bundle)


def test_another_bundle_than_the_registered_one_is_refused(made: Path) -> None:
    with pytest.raises(IntegrityError, match="recorded for it is sha256:other"):
        verify_bundle(made, "sha256:other")


def test_a_folder_that_is_no_bundle_is_one_clear_sentence(made: Path) -> None:
    with pytest.raises(InputError, match="expected a bundle artifact"):
        verify_bundle(made / "model")


def _better_verdict(folder: Path) -> None:
    verdict = Verdict.load(folder / "verdict")
    finding = replace(verdict.findings[0], value=0.0)
    findings = (finding, *verdict.findings[1:])
    replace(verdict, findings=findings).save(folder / "verdict")


def _other_weights(folder: Path) -> None:
    (folder / "model/weights.safetensors").write_bytes(b"other")


def _other_schema(folder: Path) -> None:
    for place in (folder, folder / "model"):
        write_json(place / "schema.json", {**schema(), "classes": ["a", "b"]})


def _own_schema(folder: Path) -> None:
    write_json(folder / "schema.json", {**schema(), "label": "x"})


def _softer_constitution(folder: Path) -> None:
    rule = constitution(threshold=0.9)
    for place in (folder, folder / "verdict"):
        write_json(place / "constitution.json", rule.to_dict())


def _prettier_card(folder: Path) -> None:
    card = folder / "card.md"
    card.write_text(card.read_text() + "Best model ever.\n")


def _cut_record(folder: Path) -> None:
    events = folder / "record/events.jsonl"
    events.write_text("\n".join(events.read_text().splitlines()[:-1]) + "\n")


def _foreign_about(folder: Path) -> None:
    write_json(folder / "about.json", {"registry": {}})


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (_better_verdict, "does not follow from its evidence"),
        (_other_weights, "verdict's model is sha256:"),
        (_other_schema, "verdict's model is sha256:"),
        (_own_schema, "both must agree"),
        (_softer_constitution, "states constitution sha256:"),
        (_prettier_card, "card.md does not tell of verdict"),
        (_cut_record, "events end in"),
        (_foreign_about, "does not hold registry and code_version"),
    ],
)
def test_a_forger_who_writes_every_manifest_anew_is_still_found(
    bundle: Path, forge: Callable[[Path], None], sentence: str
) -> None:
    forge(bundle)
    sealed_again(bundle)

    with pytest.raises((IntegrityError, InputError), match=sentence):
        verify_bundle(bundle)


def test_parts_of_different_origin_make_no_bundle_of_a_verdict(tmp_path: Path) -> None:
    rule = constitution()
    write_model(tmp_path / "model", rule)
    other = write_model(tmp_path / "other", rule, b"other")
    write_verdict(tmp_path / "verdict", rule, evidence(), submission(other.identity))
    write_bundle(
        tmp_path / "bundle",
        model=tmp_path / "model",
        verdict=tmp_path / "verdict",
        constitution=rule,
        registry=REGISTRY,
    )

    with pytest.raises(IntegrityError) as error:
        verify_bundle(tmp_path / "bundle")
    assert other.identity in str(error.value)
    assert read_manifest(tmp_path / "model").identity in str(error.value)


def restate(bundle: Path, **changes: str) -> None:
    """Changes the manifest and its own digest with it."""
    stated = {**json.loads((bundle / MANIFEST).read_text()), **changes}
    rest = {key: value for key, value in stated.items() if key != "digest"}
    write_json(bundle / MANIFEST, {**rest, "digest": digest_json(rest)})


def test_a_card_of_an_earlier_version_needs_to_agree_only_in_its_head(
    bundle: Path,
) -> None:
    card = bundle / "card.md"
    head, body = card.read_text().split("\n---\n")
    card.write_text(f"{head}\n---\nThe same in other words.\n")
    about = json.loads((bundle / "about.json").read_text())
    write_json(bundle / "about.json", {**about, "code_version": "0.0.9"})
    sealed_again(bundle, bundle="0.0.9")

    assert verify_bundle(bundle).verdict.decision == "pass"
    card.write_text(f"{head.replace('pass', 'fail')}\n---\n{body}")
    sealed_again(bundle, bundle="0.0.9")
    with pytest.raises(IntegrityError, match=r"card\.md"):
        verify_bundle(bundle)


def test_the_card_says_what_was_promised_and_measured(made: Path) -> None:
    card = (made / "card.md").read_text()
    verdict = Verdict.load(made / "verdict")

    assert card.startswith("---\nname: test-model\ndecision: pass\n")
    assert f"model: {verdict.model}" in card
    assert "| equal-opportunity | true-positive-rate gap by sex ≤ 0.2 |" in card
    assert f"{verdict.accuracy * 100:.2f} %" in card
    assert "It is not the probability" in card
    assert HOLDOUT not in card


def test_a_card_escapes_what_others_wrote() -> None:
    """Cells stay cells, and text stays text."""
    rule = constitution()
    hostile = replace(rule, owner="a | b\n# <script>", id="`x`")
    from safescale_ammt.judging.assembly import assemble

    verdict = assemble(hostile, evidence(), submission("sha256:m"), "sha256:e")
    card = write_card(
        verdict, "sha256:v", hostile, schema(), name="n", description="[a](b) | <i>"
    )

    assert "<script>" not in card
    assert "\\[a\\](b) &#124; &lt;i&gt;" in card
    assert "a &#124; b # &lt;script&gt;" in card


def test_the_summary_says_when_it_was_only_a_rehearsal_or_research() -> None:
    from safescale_ammt.judging.assembly import assemble

    rule = constitution()
    facts = {"number": 0, "guarantee": "none"}
    about = submission("sha256:m", mode="rehearsal", ledger="research", **facts)
    text = summary(assemble(rule, evidence(), about, "sha256:e"), rule)

    assert "rehearsal" in text
    assert "cannot be registered" in text


def test_the_card_tells_all_warnings_about_the_data(made: Path, tmp_path: Path) -> None:
    card = (build(tmp_path, warnings=WARNINGS) / "card.md").read_text("utf-8")
    _, section = card.split("## Warnings about the data\n")
    section = section.split("##")[0]
    for i in range(len(WARNINGS)):
        assert f"- 'c{i}' &#124; stands in &lt;for&gt; 'sex'." in section
    assert "Warnings about the data" not in (made / "card.md").read_text("utf-8")


def test_a_warning_that_was_taken_out_of_a_bundle_is_missed(tmp_path: Path) -> None:
    bundle = build(tmp_path, warnings=WARNINGS)
    verify_bundle(bundle)
    save_warnings(bundle / "verdict", WARNINGS[1:])
    with pytest.raises(IntegrityError, match=r"warnings\.json was changed"):
        verify_bundle(bundle)
    # With every manifest written anew, the card still tells of it.
    sealed_again(bundle)
    with pytest.raises(IntegrityError):
        verify_bundle(bundle)
