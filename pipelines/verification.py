"""What `safescale verify` finds out about a folder, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.auditing import AuditorView
from pipelines.local.resolution import Found
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest, verify
from safescale_ammt.files.canonical import is_digest
from safescale_ammt.judging.answer import KIND as ANSWERED
from safescale_ammt.judging.verdict import (
    BENCHMARK,
    LEDGERS,
    REHEARSAL,
    RESEARCH,
    SEALED,
    Verdict,
)
from safescale_ammt.releasing.versions import Version
from safescale_ammt.reporting.people import SINGLE_PARTY

GIVEN = "the digest that was given (--digest)"
_ASKED = "That model and twin answer so: they were not asked again (--data asks them)."
_UNASKED = (
    "That model and twin answer so: the evidence to compare their answers with is the "
    "auditor's (gate.feedback: bit), so they were not asked; with the auditor's key of "
    "the store of data --data asks them."
)
_BYTES = "What the {} says: its bytes were checked, nothing of it was derived again."
_NO_RELEASE = {
    f"{REHEARSAL} {ledger}": "Its decision, which binds nobody: it is a rehearsal, on "
    "rows that development may see."
    for ledger in LEDGERS
} | {
    f"{SEALED} {ledger}": f"Its decision, for a registry: its use was for {ledger}."
    for ledger in (RESEARCH, BENCHMARK)
}


@dataclass(frozen=True)
class Verification:
    """A folder that is whole.

    Attributes:
        kind: of artifact, such as `bundle`.
        digest: its identity digest.
        decision: of the verdict; "" if it holds none.
        anchor: who vouches for the digest, "" if nobody does.
        checks: what holds, one sentence each.
        not_evidence: what is in it and was not shown, one sentence each.
        rescored: whether its model has answered the sealed rows again.
    """

    kind: str
    digest: str
    decision: str
    anchor: str
    checks: tuple[str, ...]
    not_evidence: tuple[str, ...]
    rescored: bool = False

    @property
    def subject(self) -> str:
        """Names it at the beginning of a sentence."""
        if self.kind == "bundle":
            return f"Bundle {self.digest}"
        return f"The {self.kind} artifact {self.digest}"

    def as_text(self) -> str:
        """Returns a line for each check, for what is no evidence, and the result."""
        whole = "is whole" if self.anchor else "is whole, but by whom is not shown"
        end = f": {self.decision}." if self.decision else "."
        return "\n".join(
            (
                *(f"ok  {check}" for check in self.checks),
                *(f"not evidence  {what}" for what in self.not_evidence),
                f"{self.subject} {whole}{end}",
            )
        )

    def as_json(self) -> str:
        """Returns the same for programs."""
        return json.dumps({**asdict(self), "anchored": bool(self.anchor)}, indent=2)


def checked(
    meant: Found,
    digest: str = "",
    sealed: Path | None = None,
    view: AuditorView | None = None,
) -> Verification:
    """Checks a folder as far as it can be checked.

    Args:
        meant: the folder, and what is known of it elsewhere.
        digest: what somebody recorded; "" = nothing was given.
        sealed: a holdout artifact whose rows are answered again; None = they are not.
        view: what the key at hand shows of the verdict behind an answer.

    Raises:
        InputError: it is no artifact, or rows are given beside something else than a
            bundle.
        IntegrityError: it is not whole, does not follow from its evidence, or the model
            gives other answers than the evidence.
    """
    if digest and not is_digest(digest):
        raise InputError(f"--digest is {digest!r}, expected sha256: and 64 hex digits.")
    kind = read_manifest(meant.folder).kind
    if kind == "bundle":
        return of_bundle(meant, digest, sealed, view)
    if sealed:
        raise InputError(
            "--data goes with a bundle, which holds a model and its evidence; "
            f"{meant.title} is a {kind} artifact."
        )
    checks: list[str] = []
    told, decision = [_BYTES.format(kind)], ""
    if kind == "verdict":
        from safescale_ammt.releasing.verdict_check import verify_verdict

        manifest, verdict, checks, told = verify_verdict(meant.folder)
        decision = verdict.decision
        # Of a run that registered nothing: who reads "pass" has to know what for.
        if (purpose := f"{verdict.mode} {verdict.ledger}") in _NO_RELEASE:
            told.append(_NO_RELEASE[purpose])
    elif kind == ANSWERED:
        from safescale_ammt.releasing.answers import verify_answer
        from safescale_ammt.releasing.contents import NOT_SHOWN

        manifest, answer, _ = verify_answer(meant.folder)
        decision, told = answer.decision, list(NOT_SHOWN)
        checks = [f"The answer is {decision}; its page says nothing else."]
    else:
        from safescale_ammt.releasing.contents import OUTSIDE, check_covered

        manifest = verify(meant.folder)
        check_covered({kind: manifest} if kind in OUTSIDE else {})
    if digest and manifest.identity != digest:
        raise IntegrityError(
            f"{meant.title} has digest {manifest.identity}, --digest is {digest}."
        )
    told = shown_by(view, checks, told)
    if outside := sorted(n for n, e in manifest.files.items() if not e.identity):
        told.append(f"Its digest does not cover {', '.join(map(repr, outside))}.")
    anchor = GIVEN if digest else ""
    return Verification(
        kind, manifest.identity, decision, anchor, tuple(checks), tuple(told)
    )


def shown_by(view: AuditorView | None, checks: list[str], told: list[str]) -> list[str]:
    """Adds to what holds what the auditor's key shows of an answer.

    Returns:
        What is no evidence, or why the key at hand shows nothing.
    """
    if view is None:
        return told
    if view.folder is None:
        return [*told, f"The verdict behind the answer: {view.why}"]
    checks += view.checks
    # What the key has shown is no longer open: the figures, and the use.
    return told[2:]


def of_bundle(
    meant: Found, digest: str, sealed: Path | None, view: AuditorView | None = None
) -> Verification:
    """Checks a bundle; see `checked`."""
    from safescale_ammt.releasing.bundle import verify_bundle

    anchor = GIVEN if digest else meant.anchor
    verified = verify_bundle(meant.folder, digest or meant.digest)
    checks, told = list(verified.checks), list(verified.not_evidence)
    told = shown_by(view, checks, told)
    if anchor:
        checks.append(f"The bundle's digest is vouched for by {anchor}.")
    elif meant.digest:
        checks.append(f"It is the bundle that the record of {meant.title} names.")
    checks += signed_by(meant.version)
    told.append(unsigned(meant.version))
    rescored = False
    if sealed:
        from safescale_ammt.releasing.rescoring import judged_rows, rescore

        # Of one bit the auditor has the evidence; who has his key compares with that.
        whole = view.folder if view else None
        verdict = Verdict.load(whole) if whole else verified.verdict
        if rescored := isinstance(verdict, Verdict):
            checks += rescore(meant.folder, verdict, sealed, judged=whole)
        else:
            named = judged_rows(meant.folder, verdict.holdout, sealed).identity
            checks.append(f"Holdout {named} is the one that the answer names.")
            told.append(_UNASKED)
    else:
        told.append(_ASKED)
    decision = verified.verdict.decision
    return Verification(
        "bundle",
        verified.digest,
        decision,
        anchor,
        tuple(checks),
        tuple(told),
        rescored,
    )


def signed_by(version: Version | None) -> list[str]:
    """Says which people's signatures stand for what was registered, a sentence each."""
    return [
        f"{act.by} signed to {act.act} it on {act.issued}: its digest, and those of "
        "model, verdict, constitution, dataset, holdout and architecture."
        for act in (version.acts if version else ())
    ]


def unsigned(version: Version | None) -> str:
    """Says what of a bundle no signature covers."""
    if version is None:
        return "Who made it and who decided: no file of a bundle is signed."
    if not version.acts:
        return (
            "Who registered it: the gate's event is unsigned, and no person has signed "
            "a decision about this version."
        )
    alone = [act.by for act in version.acts if not act.independent]
    single = f" Of {', '.join(alone)}: {SINGLE_PARTY}." if alone else ""
    return (
        "Who registered it, and whether its signers were right: people signed "
        f"digests, and the gate's own event is unsigned.{single}"
    )
