"""Assembly: from evidence to a verdict, and back from a verdict to its evidence.

`assemble` judges every principle on the evidence at the error level of one
submission, lets the gate decide and writes down what it is about. `rederive`
does the same again from a stored verdict's own evidence and refuses a verdict
whose figures, findings or decision do not follow from it: a forger would have
to forge the evidence too, row by row, and the digests that lead to it.

No model runs here and nothing is downloaded, so this needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.schema import ENTITIES
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import digest_file, json_file, read_json
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    Evidence,
    distinct_count,
    read_evidence,
)
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.profile import describe
from safescale_ammt.judging.robust import attack_figures, faults, wrongly_drawn
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.slice_forms import Slices
from safescale_ammt.judging.slices import confirmed
from safescale_ammt.judging.usefulness import doubts, headlines
from safescale_ammt.judging.verdict import (
    FINDINGS,
    REHEARSAL,
    VERDICT,
    SealedUse,
    Verdict,
    differences,
)

WORDS = ("reason", "reasons", "method")
"""Keys of a verdict that hold sentences or names, no figures.

Another version of this code may word them otherwise: there they are not compared, and
`verify` says so.
"""


_FOLLOW: set[tuple[str, ...]] = set()
"""What was found to follow in this process: digests of constitution, evidence and
verdict, and the versions that wrote and derived it. Equal bytes derive equally."""


@dataclass(frozen=True)
class Submission:
    """What is judged, on which rows and as which use of them.

    Attributes:
        model, dataset, holdout: identity digests.
        mode: `sealed` or `rehearsal`.
        ledger: `official`, `research` or `benchmark`.
        use: which use of the sealed rows this is.
        classes: class names by code.
        positive: the positive class, or "".
        bins: bins of the reliability curve.
        base_rates: share of each class in the training rows, () if not known.
        sampling: what the rows are draws of; None in a verdict that does not say.
        slices: what a search for slices came to, whose rows the evidence has; None in
            a verdict of before there was one.
    """

    model: str
    dataset: str
    holdout: str
    mode: str
    ledger: str
    use: SealedUse
    classes: tuple[str, ...]
    positive: str
    bins: int
    base_rates: tuple[float, ...] = ()
    sampling: SamplingModel | None = None
    slices: Slices | None = None


def judge_all(
    constitution: Constitution, evidence: Evidence, bins: int
) -> tuple[Finding, ...]:
    """Judges every principle in order, at the error level of one submission."""
    alpha = constitution.gate.alpha_k
    return tuple(
        judge(principle, evidence, constitution.groups, alpha, bins)
        for principle in constitution.principles
    )


def problems(evidence: Evidence) -> tuple[str, ...]:
    """Says what is wrong with the evidence itself; any problem means `fail`."""
    sentences = []
    for name, prefix in (("model", ""), ("twin", "twin_")):
        score = getattr(evidence, f"{prefix}score")
        strange = int((~np.isfinite(score)).sum() + ((score < 0) | (score > 1)).sum())
        if strange:
            sentences.append(f"{strange} scores of the {name} lie outside [0, 1].")
        codes = getattr(evidence, f"{prefix}prediction")
        if ((codes < 0) | (codes >= evidence.classes)).any():
            sentences.append(f"The {name} predicts a class that does not exist.")
    sentences += faults(evidence)
    return tuple(sentences)


def assemble(
    constitution: Constitution,
    evidence: Evidence,
    submission: Submission,
    evidence_digest: str,
) -> Verdict:
    """Judges the evidence and writes the verdict.

    Args:
        constitution: the promises and the error level of the gate.
        evidence: labels, predictions, scores and groups of the judged rows.
        submission: what is judged and which use of the sealed rows this is.
        evidence_digest: sha256 of the evidence file.
    """
    findings = judge_all(constitution, evidence, submission.bins)
    broken = problems(evidence)
    decision = decide(
        constitution,
        findings,
        guarantee=submission.use.guarantee,
        problems=broken,
        # Answers that are no classes are likened to nothing: the evidence fails.
        doubts=() if broken else doubts(evidence, constitution, submission.classes),
    )
    slices = submission.slices
    figures = dict(describe(evidence, submission.bins, parity=slices is not None))
    # A verdict of before there were headlines states no base rates.
    if submission.base_rates:
        figures["headlines"] = headlines(evidence, submission.base_rates)
    if evidence.attacks:
        figures["attacks"] = attack_figures(evidence, constitution)
    if slices is not None:
        given = [own.proposal for own in slices.confirmed]
        least = constitution.groups.min_n
        slices, _ = confirmed(evidence, evidence.slices, slices, given, least)
    return Verdict(
        model=submission.model,
        constitution=constitution.digest,
        dataset=submission.dataset,
        holdout=submission.holdout,
        mode=submission.mode,
        ledger=submission.ledger,
        use=submission.use,
        alpha=constitution.gate.alpha_k,
        rows=len(evidence.label),
        classes=submission.classes,
        positive=submission.positive,
        groups={name: values for name, (values, _) in evidence.groups.items()},
        bins=submission.bins,
        findings=findings,
        decision=decision.decision,
        reasons=tuple(decision.reasons),
        figures=figures,
        evidence=evidence_digest,
        base_rates=submission.base_rates,
        sampling=submission.sampling,
        attacks={key: words for key, (words, _) in evidence.attacks.items()},
        slices=slices,
    )


def rederive(folder: Path | str, constitution: Constitution) -> Verdict:
    """Derives a stored verdict again from its own evidence, and returns it.

    Args:
        folder: a verdict artifact (its file digests are the caller's to check).
        constitution: the constitution that the verdict must have been judged by.

    Raises:
        IntegrityError: another constitution or evidence file, or a figure,
            finding, reason or decision that does not follow from the evidence.
    """
    folder = Path(folder)
    verdict = Verdict.load(folder)
    # By another constitution every finding may depart: this is the clearer sentence.
    _same_digest(folder, "constitution", verdict.constitution, constitution.digest)
    evidence_digest = digest_file(folder / EVIDENCE)
    _same_digest(folder, "evidence", verdict.evidence, evidence_digest)
    # The gate asks for the same bytes before and after it packs them.
    told = (constitution.digest, evidence_digest, digest_file(folder / VERDICT))
    derived_by = (*told, read_manifest(folder).code_version, code_version())
    if derived_by not in _FOLLOW:
        check_figures(folder, verdict, constitution, evidence_digest)
        _FOLLOW.add(derived_by)
    # The finding files repeat the verdict for reading one by one: a file that departs
    # from it would say what no decision rests on.
    files = verdict.finding_files()
    present = {f"{FINDINGS}/{path.name}" for path in (folder / FINDINGS).glob("*")}
    for name in sorted(present ^ files.keys()):
        raise IntegrityError(f"{folder / name} is missing or belongs to no finding.")
    for name, finding in files.items():
        # By bytes: of a key that stands twice, a parser sees one value.
        if (folder / name).read_bytes() != json_file(finding.to_dict()):
            raise IntegrityError(
                f"{folder / name} departs from the finding in the verdict."
            )
    return verdict


def check_figures(
    folder: Path, verdict: Verdict, constitution: Constitution, evidence_digest: str
) -> None:
    """Derives all figures of a verdict from its evidence, and compares them.

    Args:
        folder: a verdict artifact.
        verdict: what its file holds.
        constitution: the constitution that it was judged by.
        evidence_digest: of the evidence's bytes.

    Raises:
        IntegrityError: a figure, finding, reason or decision does not follow.
    """
    if fault := departs_from_plan(verdict, constitution):
        raise IntegrityError(f"The verdict in {folder} states {fault}.")
    evidence, rows = evidence_of(folder, verdict)
    submission = submission_of(verdict)
    if why := wrongly_drawn(evidence, rows, verdict.holdout):
        raise IntegrityError(
            f"The verdict in {folder} does not follow from its evidence: {why}."
        )
    if sampling := verdict.sampling:
        # How many draws there are, and how many are distinct, the evidence shows.
        units, distinct = len(rows), distinct_count(rows, in_place=True)
        # What follows is about the evidence alone.
        del rows
        try:
            sampling = replace(sampling, units=units, distinct=distinct)
        except InputError as error:
            raise IntegrityError(
                f"The verdict in {folder} does not follow from its evidence: {error}"
            ) from None
        submission = replace(submission, sampling=sampling)
    derived = assemble(constitution, evidence, submission, evidence_digest)
    # Another version may say the same in other words; figures and outcomes must agree.
    ignore = () if read_manifest(folder).code_version == code_version() else WORDS
    # The file and not the parsed verdict: a key that nothing reads is a difference too.
    stated = read_json(folder / VERDICT)
    # The first difference is enough: a forged figure moves dozens of others with it.
    for difference in differences(stated, derived.to_dict(), ignore=ignore):
        raise IntegrityError(
            f"The verdict in {folder} does not follow from its evidence: {difference}."
        )


def departs_from_plan(verdict: Verdict, constitution: Constitution) -> str:
    """Says what of the use of sealed rows nobody can have recorded, "" if it could be.

    Which use it really is, the ledger knows alone.
    """
    use, planned = verdict.use, constitution.gate.planned_submissions
    if use.planned != planned:
        return f"{use.planned} planned uses, the constitution plans {planned}"
    rehearses = verdict.mode == REHEARSAL
    if rehearses != (use.number < 1) or rehearses != (use.guarantee == "none"):
        return f"use {use.number} with guarantee {use.guarantee!r} of a {verdict.mode}"
    if use.guarantee == "holds" and use.number > planned:
        return f"that its guarantee holds at use {use.number} of {planned} planned"
    drawn = verdict.sampling
    # Only of entities one row each was drawn; how many there were no file here shows.
    if drawn and drawn.unit != ENTITIES and drawn.rows != drawn.units:
        return f"{drawn.units} judged {drawn.unit} of {drawn.rows}: all are judged"
    return ""


def evidence_of(folder: Path, verdict: Verdict) -> tuple[Evidence, np.ndarray]:
    """Reads the evidence of a verdict artifact, and its raw-row hashes (n, 16)."""
    return read_evidence(
        folder / EVIDENCE,
        verdict.groups,
        classes=verdict.classes,
        positive=verdict.positive,
        rows=verdict.rows,
        attacks=verdict.attacks,
        slices=len(verdict.slices.confirmed) if verdict.slices else 0,
    )


def submission_of(verdict: Verdict) -> Submission:
    """Returns what a verdict states as judged."""
    return Submission(
        model=verdict.model,
        dataset=verdict.dataset,
        holdout=verdict.holdout,
        mode=verdict.mode,
        ledger=verdict.ledger,
        use=verdict.use,
        classes=verdict.classes,
        positive=verdict.positive,
        bins=verdict.bins,
        base_rates=verdict.base_rates,
        sampling=verdict.sampling,
        slices=verdict.slices,
    )


def _same_digest(folder: Path, what: str, stated: str, actual: str) -> None:
    if stated != actual:
        raise IntegrityError(
            f"The verdict in {folder} states {what} {stated}, found {actual}."
        )
