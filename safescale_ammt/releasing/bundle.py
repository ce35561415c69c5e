"""The bundle: everything a registry version points to, checkable offline.

    manifest.json  about.json  constitution.json  schema.json  card.md
    model/         the model artifact, with its own manifest
    verdict/       the verdict artifact, with its evidence and report; or the answer, if
                   its figures are the auditor's (`gate.feedback: bit`)
    record/        the chain of events and the two Statements

`verify_bundle` needs nothing but the folder: no network, no store, no torch. It
checks every byte, derives every figure, word and decision from the evidence again,
and writes report, record and card again to compare; what it cannot derive it names. A
bundle that is invented as a whole passes, and is told to be whole, *by whom is not
shown*, unless a digest is given that somebody vouches for.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import WARNINGS, read_warnings
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import (
    MANIFEST,
    Draft,
    Manifest,
    describe,
    verify,
    writing,
)
from safescale_ammt.files.canonical import (
    digest_file,
    digest_json,
    json_file,
    read_json,
    write_json,
)
from safescale_ammt.files.json_text import LARGEST
from safescale_ammt.files.library import code_version
from safescale_ammt.files.regular import read_regular
from safescale_ammt.files.typed_json import typed
from safescale_ammt.judging.answer import ANSWER, Answer, Told
from safescale_ammt.judging.answer import KIND as ANSWERED
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.answers import answer_card, verify_answer
from safescale_ammt.releasing.card import write_card
from safescale_ammt.releasing.contents import (
    REQUIRED,
    REQUIRED_ANSWERED,
    battery_words,
    check_code,
    check_copies,
    check_json,
    check_present,
    not_evidence,
    strange_files,
)
from safescale_ammt.releasing.page import check_provenance, check_report
from safescale_ammt.releasing.record import verify_record, write_record

KIND, STAGE = "bundle", "register_model"
CARD, ABOUT, CONSTITUTION, SCHEMA = (
    "card.md",
    "about.json",
    "constitution.json",
    "schema.json",
)


@dataclass(frozen=True)
class BundleCheck:
    """The result of `verify_bundle`.

    Attributes:
        digest: the bundle's identity digest.
        verdict: the verdict, derived again from its evidence; or the answer.
        checks: what holds, one sentence each.
        not_evidence: what is in it and was not shown, one sentence each.
    """

    digest: str
    verdict: Told
    checks: tuple[str, ...]
    not_evidence: tuple[str, ...]


def write_bundle(
    path: Path,
    *,
    model: Path,
    verdict: Path,
    constitution: Constitution,
    registry: RegistryConfig,
) -> Manifest:
    """Assembles a bundle from verified artifacts and returns its manifest.

    Args:
        path: folder to write.
        model: the model artifact.
        verdict: the verdict artifact about it, or the answer.
        constitution: the constitution of both.
        registry: name and description for the card.

    Raises:
        IntegrityError: the parts do not belong together.
    """
    trained, judged = verify(model, "model"), verify(verdict)
    parents = {"model": trained.identity, "verdict": judged.identity}
    with writing(
        path,
        kind=KIND,
        stage=STAGE,
        config_digest=registry.digest,
        parents=parents,
    ) as draft:
        folder = draft.folder
        # The registry's log holds this digest alone, so it has to cover every byte;
        # by default event logs and times are left out.
        draft.outside_identity = set()
        shutil.copytree(model, folder / "model")
        shutil.copytree(verdict, folder / "verdict")
        shutil.copyfile(model / SCHEMA, folder / SCHEMA)
        write_json(folder / CONSTITUTION, constitution.to_dict())
        # The manifest keeps a digest of the config and no identity covers its code
        # version: who writes card and manifest again needs both in full.
        about = {"registry": registry.to_params(), "code_version": code_version()}
        write_json(folder / ABOUT, about)
        answered = judged.kind == ANSWERED
        loaded = Answer.load(verdict) if answered else Verdict.load(verdict)
        write_record(folder / "record", loaded, judged, constitution, trained)
        card = _card(folder, loaded, judged.identity)
        (folder / CARD).write_bytes(card.encode())
    return verify(path, KIND)


def verify_bundle(path: Path | str, digest: str = "") -> BundleCheck:
    """Checks a bundle offline, from its bytes to its decision.

    Args:
        path: the bundle's folder.
        digest: the digest that was recorded for it elsewhere; "" = unknown.

    Raises:
        InputError: this is no bundle.
        IntegrityError: a changed, missing or added file; parts that do not
            belong together; a figure, finding or decision that does not follow
            from the evidence; a card or record that departs from the verdict.
    """
    path = Path(path)
    manifest = verify(path, KIND)
    if digest and manifest.identity != digest:
        raise IntegrityError(
            f"The bundle {path} has digest {manifest.identity}, recorded for it is "
            f"{digest}."
        )
    # Bytes first, then what they say: the later checks may trust what they read.
    answered = (path / "verdict" / ANSWER).is_file()
    required = REQUIRED_ANSWERED if answered else REQUIRED
    check_present(path, required=required)
    _check_manifest(path, manifest)
    trained = verify(path / "model", "model")
    judged = verify(path / "verdict", ANSWERED if answered else "verdict")
    check_json(path)
    check_copies(path, {"model": trained, judged.kind: judged})
    check_code(path / "model")
    constitution = Constitution.from_dict(read_json(path / CONSTITUTION))
    verdict: Told
    if answered:
        _, verdict, _ = verify_answer(path / "verdict")
        check_digests(path / "model", trained, judged, verdict, constitution)
    else:
        verdict = rederive(path / "verdict", constitution)
        check_parts(path / "model", trained, judged, verdict, constitution)
    _same("bundle's model", manifest.parents.get("model"), trained.identity)
    _same("bundle's verdict", manifest.parents.get("verdict"), judged.identity)
    # The copy beside the card is what a person opens; the model reads its own.
    copy, own = digest_file(path / SCHEMA), digest_file(path / "model" / SCHEMA)
    if copy != own:
        raise IntegrityError(
            f"{path / SCHEMA} has {copy}, {path / 'model' / SCHEMA} has {own}; both "
            "must agree."
        )
    # A later version may have more parts; a file that no version has is refused.
    versions = {part.code_version for part in (manifest, trained, judged)}
    findings = () if isinstance(verdict, Answer) else verdict.finding_files()
    ours = versions == {code_version()}
    strange = strange_files(path, findings, refuse=ours)
    _check_words(path, verdict, judged, constitution, trained)
    checks = (
        f"All {len(manifest.files)} files have the bytes that the manifest recorded.",
        f"Model {verdict.model} is the one that was judged.",
        f"Constitution {verdict.constitution} is that of training and judgement.",
        *_followed(verdict),
    )
    told = not_evidence(manifest.code_version, trained, judged, strange)
    told += tuple(battery_words(verdict))
    return BundleCheck(manifest.identity, verdict, checks, told)


def _followed(verdict: Told) -> tuple[str, ...]:
    """Says what follows from what in a bundle whose checks have passed."""
    if isinstance(verdict, Answer):
        return (
            (
                f"The answer is {verdict.decision}, as use {verdict.use.number} of "
                f"{verdict.use.planned} planned uses of the sealed rows."
            ),
            "Page, card and record tell of this answer and of the code behind it.",
        )
    return (
        (
            f"All figures and {len(verdict.findings)} findings follow from the "
            f"evidence of {verdict.rows:,} rows."
        ),
        f"The gate decides {verdict.decision} on them.",
        "Report, card and record tell of this verdict and of the code behind it.",
    )


def check_parts(
    model: Path,
    trained: Manifest,
    judged: Manifest,
    verdict: Verdict,
    constitution: Constitution,
) -> None:
    """Checks that model, verdict and constitution are about one another.

    Raises:
        IntegrityError: two digests that should be one, both in the sentence.
    """
    check_digests(model, trained, judged, verdict, constitution)
    # Classes and groups give the codes in the evidence their names: in another order
    # the same rows would be about other people.
    if (verdict.classes, verdict.groups) != names_of(model / SCHEMA):
        raise IntegrityError(
            f"The verdict's classes or groups are not those of {model / SCHEMA}."
        )


def check_digests(
    model: Path,
    trained: Manifest,
    judged: Manifest,
    verdict: Told,
    constitution: Constitution,
) -> None:
    """Checks by digests alone what `check_parts` does, of an answer too.

    Raises:
        IntegrityError: two digests that should be one, both in the sentence.
    """
    _same("verdict's model", verdict.model, trained.identity)
    _same("verdict's parent model", judged.parents.get("model"), trained.identity)
    _same("verdict's dataset", verdict.dataset, trained.parents.get("dataset"))
    for role in ("dataset", "holdout"):
        # Stated twice, in the verdict's figures and in its manifest: a forger has to
        # change both, and the second is part of the artifact's identity.
        _same(f"verdict's {role}", getattr(verdict, role), judged.parents.get(role))
    _same("verdict's constitution", verdict.constitution, constitution.digest)
    own = digest_json(read_json(model / CONSTITUTION))
    _same("model's constitution", own, constitution.digest)


def names_of(file: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Returns classes and groups of a schema, and checks the names that a card tells.

    Raises:
        IntegrityError: it is no schema.
    """
    schema = read_json(file)
    try:
        typed([f["name"] for f in schema["features"]], tuple[str, ...], "features")
        typed(schema["label"], str, "label")
        return (
            typed(schema["classes"], tuple[str, ...], "classes"),
            typed(schema["groups"], dict[str, tuple[str, ...]], "groups"),
        )
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"{file} is no schema ({error}).") from None


def _same(what: str, stated: str | None, expected: str | None) -> None:
    if stated != expected:
        raise IntegrityError(
            f"The {what} is {stated}, but {expected} is what was given; they must be "
            "the same."
        )


def _check_manifest(path: Path, manifest: Manifest) -> None:
    """Refuses a manifest with a byte that the bundle's contents do not call for.

    An identity does not cover stage, config and code version; `about.json` does.
    """
    about = _about(path)
    draft = Draft(path, dict(manifest.parents), set())
    config = RegistryConfig.from_params(about["registry"]).digest
    expected = describe(path, draft, KIND, STAGE, config)
    # `describe` states this version; a bundle of an earlier one keeps its own.
    written = replace(expected, code_version=about["code_version"]).to_dict()
    if (path / MANIFEST).read_bytes() != json_file(written):
        raise IntegrityError(
            f"{path / MANIFEST} departs from what the files of the bundle call for."
        )


def _about(path: Path) -> dict[str, Any]:
    about = read_json(path / ABOUT)
    # No other key: one that nothing reads could carry text that nobody checks.
    known = isinstance(about, dict) and set(about) == {"registry", "code_version"}
    if not known or not isinstance(about["code_version"], str):
        raise InputError(f"{path / ABOUT} does not hold registry and code_version.")
    return dict(about)


def _card(path: Path, verdict: Told, identity: str) -> str:
    registry = RegistryConfig.from_params(_about(path)["registry"])
    constitution = Constitution.from_dict(read_json(path / CONSTITUTION))
    schema = read_json(path / SCHEMA)
    name, told = registry.name, registry.description
    if isinstance(verdict, Answer):
        return answer_card(
            verdict, identity, constitution, schema, name=name, description=told
        )
    return write_card(
        verdict,
        identity,
        constitution,
        schema,
        name=name,
        description=told,
        warnings=read_warnings(path / "verdict" / WARNINGS),
    )


def _check_words(
    path: Path,
    verdict: Told,
    judged: Manifest,
    constitution: Constitution,
    trained: Manifest,
) -> None:
    """Compares record, report and card with ones written anew.

    Where another version wrote them, it may have worded them differently.
    """
    ours = _about(path)["code_version"] == code_version()
    ignore = () if ours else ("principles",)
    about = (verdict, judged, constitution, trained)
    verify_record(path / "record", *about, ignore=ignore)
    names_of(path / SCHEMA)
    # The page of an answer is compared with its other files.
    if isinstance(verdict, Verdict):
        check_provenance(path / "verdict", verdict, read_json(path / SCHEMA)["label"])
        if judged.code_version == code_version():
            check_report(path / "verdict", constitution)
    # By bytes: reading as text would make every line end alike.
    stored = read_regular(path / CARD, LARGEST).decode("utf-8", "replace")
    expected = _card(path, verdict, judged.identity)
    if not ours:
        # What a card says to programs must agree, whoever wrote it.
        stored, expected = (text.split("\n---\n")[0] for text in (stored, expected))
    if stored != expected:
        raise IntegrityError(
            f"{path / CARD} does not tell of verdict {judged.identity}."
        )
