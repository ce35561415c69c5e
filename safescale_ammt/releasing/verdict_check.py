"""A verdict without its bundle: of a model that was refused, or only rehearsed."""

from __future__ import annotations

from pathlib import Path

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import Manifest, verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.contents import (
    NO_EVIDENCE,
    battery_words,
    check_covered,
    check_json,
    check_present,
    strange_files,
    verdict_words,
)
from safescale_ammt.releasing.page import check_provenance, check_report

ALONE = "What the model that it names is, and by which constitution it was trained."


def verify_verdict(path: Path) -> tuple[Manifest, Verdict, list[str], list[str]]:
    """Checks a verdict artifact offline, from its bytes to the last word of its report.

    Returns:
        The manifest, the verdict, what holds and what is no evidence, a sentence each.

    Raises:
        InputError: this is no verdict.
        IntegrityError: a byte, figure, word or decision that does not follow.
    """
    judged = verify(path, "verdict")
    check_covered({"verdict": judged})
    check_present(path, "verdict/")
    check_json(path)
    constitution = Constitution.from_dict(read_json(path / "constitution.json"))
    verdict = rederive(path, constitution)
    ours = judged.code_version == code_version()
    strange = strange_files(path, verdict.finding_files(), part="verdict/", refuse=ours)
    check_provenance(path, verdict)
    if ours:
        check_report(path, constitution)
    checks = [
        f"All {len(judged.files)} files have the bytes that the manifest recorded.",
        f"Constitution {verdict.constitution} is that of the judgement.",
        (
            f"All figures and {len(verdict.findings)} findings follow from the "
            f"evidence of {verdict.rows:,} rows."
        ),
        f"The gate decides {verdict.decision} on them.",
    ]
    told = [*NO_EVIDENCE, *battery_words(verdict), ALONE]
    told += verdict_words(judged, strange)
    return judged, verdict, checks, told
