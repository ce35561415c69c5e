"""What a bundle holds: which files, in which spelling, and what of it is no evidence.

Nothing in a bundle goes unnoticed: a file is a part that is written or derived again,
a part that is covered by digests alone, which `verify` names, or it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safescale_ammt.data.audit_warnings import AUDIT
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import MANIFEST, Manifest, file_names
from safescale_ammt.files.canonical import digest_json, json_file, read_json
from safescale_ammt.files.code_package import CODE
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.answer import ANSWER, Answer
from safescale_ammt.judging.answer import KIND as ANSWERED
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.module_genome import KIND as MODULE
from safescale_ammt.releasing.page import REPORT
from safescale_ammt.reporting.logs import LOG_FILES, LOGS, TRAINING
from safescale_ammt.reporting.provenance import PROVENANCE

_NET = (
    *("decision.json", "genome.json", "schema.json"),
    *("weights.safetensors", "trees.txt"),  # of nets, of boosted trees
    "program.json",  # of a user's own module, beside its weights
)
_CONSTITUTION = "constitution.json"
_RECORD = ("events.jsonl", "safety-decision.intoto.json", "test-result.intoto.json")
_VERDICT = ("verdict.json", "evidence.parquet", "warnings.json", PROVENANCE, REPORT)
PARTS = frozenset(
    (
        *("about.json", "card.md", _CONSTITUTION, "schema.json"),
        *(f"record/{name}" for name in _RECORD),
        *(f"model/{name}" for name in (MANIFEST, _CONSTITUTION, TRAINING, *_NET)),
        f"model/{CODE}",
        *(f"model/twin/{name}" for name in _NET),
        *(f"verdict/{name}" for name in (MANIFEST, _CONSTITUTION, *_VERDICT)),
        *(f"verdict/{LOGS}/{name}" for name in LOG_FILES.values()),
        f"verdict/{ANSWER}",
    )
)
"""Files that a bundle may hold, beside one for each finding."""
REQUIRED = (
    *("about.json", "card.md", _CONSTITUTION, "schema.json"),
    *(f"record/{name}" for name in _RECORD),
    *(f"model/{name}" for name in (MANIFEST, _CONSTITUTION, "schema.json")),
    *(f"verdict/{name}" for name in (MANIFEST, _CONSTITUTION, "warnings.json")),
    *(f"verdict/{name}" for name in ("verdict.json", "evidence.parquet", REPORT)),
)
"""Files that every bundle with figures has."""
REQUIRED_ANSWERED = (
    *(name for name in REQUIRED if not name.startswith("verdict/")),
    *(f"verdict/{name}" for name in (MANIFEST, _CONSTITUTION, ANSWER, REPORT)),
)
"""Files that every bundle has whose figures are the auditor's."""
_MOST_NAMED = 10
_LOGS = frozenset((TRAINING, *(f"{LOGS}/{name}" for name in LOG_FILES.values())))
OUTSIDE = {
    "dataset": frozenset((AUDIT,)),
    "holdout": frozenset[str](),
    "architecture": _LOGS | {"control.json", "times.json"},
    "model": _LOGS,
    "verdict": _LOGS | {PROVENANCE, REPORT},
    ANSWERED: frozenset((REPORT,)),
}
"""Kind of artifact -> its files that may be outside of its identity."""

NO_EVIDENCE = (
    "Drawings in the report: its words and numbers alone are derived again.",
    (
        "Which slices were proposed, how many were tested and what development rows "
        "say of them: as the judge wrote it. Which rows lie in a confirmed slice: its "
        "column of the evidence says so, and the sealed rows (--data) show it."
    ),
    "Logs of training, search and power check: covered by digests alone.",
    (
        "The day, the days of the data, the development rows and the digest of the "
        "raw data in the report's head, and the warnings about the data: as the "
        "stages wrote them."
    ),
    (
        "Which use of which sealed rows it is, and so its guarantee, of how many rows "
        "one of each entity was drawn, and the training rows' base rates: as the "
        "verdict states them; the ledger knows the use."
    ),
    "Name, description and the constitution's own words: their owner's.",
    (
        "Stages, digests of configs and parents in the manifests: what they name is "
        "elsewhere."
    ),
)
"""What no check of a bundle can show, a sentence each."""
NOT_SHOWN = (
    (
        "That the figures bear the answer out: figures, findings and evidence are the "
        "auditor's, and nothing was derived again from them."
    ),
    (
        "Which use of which sealed rows it is, and so its guarantee: as the answer "
        "states it; the ledger knows the use."
    ),
    *NO_EVIDENCE[-2:],
)
"""The same where the figures are the auditor's."""


def strange_files(
    path: Path, findings: Collection[str], *, part: str = "", refuse: bool = False
) -> list[str]:
    """Returns the files of a bundle, or of its verdict, that are no parts, sorted.

    Args:
        path: the folder.
        findings: files of the findings, relative to the verdict.
        part: `verdict/` if the folder is a verdict, else "".
        refuse: whether this version wrote all of it, so that there can be none.

    Raises:
        IntegrityError: there is one, and is refused.
    """
    known = PARTS | {f"verdict/{name}" for name in findings}
    strange = [name for name in file_names(path) if part + name not in known]
    if strange and refuse:
        raise IntegrityError(f"{path}/{strange[0]!r} is no part of a bundle.")
    return strange


def check_present(
    path: Path, part: str = "", required: Collection[str] = REQUIRED
) -> None:
    """Checks that a bundle, or its verdict, has the parts that every one has.

    Args:
        path: the folder.
        part: `verdict/` if the folder is a verdict, else "".
        required: what has to be there, relative to the bundle.

    Raises:
        IntegrityError: one is not there.
    """
    for name in required:
        if name.startswith(part) and not (path / name.removeprefix(part)).is_file():
            raise IntegrityError(f"{path / name.removeprefix(part)} is missing.")


def check_json(path: Path) -> None:
    """Checks that every JSON file below a folder is spelled as this product does it.

    Raises:
        IntegrityError: one is not.
    """
    for name in (n for n in file_names(path) if n.endswith(".json")):
        # A key that stands twice has two readings: a parser's and a person's.
        if (path / name).read_bytes() != json_file(read_json(path / name)):
            raise IntegrityError(
                f"{path / name} is not spelled as this product spells JSON."
            )


def check_copies(path: Path, parts: dict[str, Manifest]) -> None:
    """Checks the copies in a bundle, and what the identities of its parts leave out.

    Args:
        path: the bundle's folder.
        parts: the manifests of model and verdict, or answer, by kind.

    Raises:
        IntegrityError: a copy that departs, or a file outside of an identity that
            should be inside.
    """
    own = path / "verdict" / LOGS / TRAINING
    copies = {
        path / "verdict" / _CONSTITUTION: path / _CONSTITUTION,
        own: path / "model" / TRAINING,
    }
    for copy, original in copies.items():
        both = [file.read_bytes() for file in (copy, original) if file.is_file()]
        if copy.is_file() and both != [copy.read_bytes()] * 2:
            raise IntegrityError(f"{copy} departs from {original}.")
    check_covered(parts)


def check_code(model: Path) -> None:
    """Checks that the code beside a model is that of the genome's digest.

    Raises:
        IntegrityError: it is another, or a model of the user's own has none.
    """
    named = model / "genome.json"
    genome = read_json(named) if named.is_file() else None
    stated = None
    if isinstance(genome, Mapping) and genome.get("kind") == MODULE:
        stated = genome.get("code")
    file = model / CODE
    found = digest_json(read_json(file)) if file.is_file() else None
    if found != stated:
        raise IntegrityError(
            f"{file} has the code {found}, but the model's genome names {stated}; they "
            "must be the same."
        )


def check_covered(manifests: Mapping[str, Manifest]) -> None:
    """Checks that identities cover all but logs, figures of an audit and pages.

    An identity that leaves weights or rows out stays when they are exchanged.

    Args:
        manifests: by kind of artifact.

    Raises:
        IntegrityError: one leaves another file out.
    """
    for kind, manifest in manifests.items():
        outside = {n for n, entry in manifest.files.items() if not entry.identity}
        for name in sorted(outside - OUTSIDE[kind]):
            raise IntegrityError(
                f"The identity of the {kind} leaves {name} out; make the {kind} anew."
            )


def not_evidence(
    bundle: str, trained: Manifest, judged: Manifest, strange: Collection[str]
) -> tuple[str, ...]:
    """Says what of a verified bundle nobody should take for shown, a sentence each.

    Args:
        bundle: the code version that wrote card and record.
        trained: manifest of the model.
        judged: manifest of the verdict.
        strange: files that are no parts.
    """
    said = [*(NOT_SHOWN if judged.kind == ANSWERED else NO_EVIDENCE)]
    if bundle != code_version():
        said.append(
            "The card below its head and the promises' sentences in the record: "
            f"written by version {bundle!r}; not derived again."
        )
    if trained.code_version != code_version():
        said.append(f"The model: trained by version {trained.code_version!r}.")
    if CODE in trained.files:
        said.append(
            f"That model/{CODE} builds what the program computes: it was traced from "
            "that code by the training stage."
        )
    return (*said, *verdict_words(judged, strange))


def battery_words(verdict: Verdict | Answer) -> list[str]:
    """Says what of batteries on images is the judge's word."""
    attacks = verdict.figures.get("attacks", {}) if isinstance(verdict, Verdict) else {}
    if not any("battery" in attack for attack in attacks.values()):
        return []
    told = (
        "What became of images under a battery, and which of its checks are raised: as "
        "the judge wrote it; the sealed rows (--data) and torch show it. That its seed "
        "is the judge's: the key in the store of data shows it."
    )
    return [told]


def verdict_words(judged: Manifest, strange: Collection[str]) -> list[str]:
    """Says which words of a verdict, and which files, this version cannot derive."""
    said = []
    if judged.code_version != code_version():
        said.append(
            "Reasons and methods in verdict and findings, and the report: written by "
            f"version {judged.code_version!r}; not derived again."
        )
    if strange:
        # A name is whatever its author likes, a line break among it.
        names = ", ".join(map(repr, sorted(strange)[:_MOST_NAMED]))
        more = len(strange) - _MOST_NAMED
        said.append(
            f"Files that this version does not know: {names}"
            f"{f' and {more} more' if more > 0 else ''}."
        )
    return said
