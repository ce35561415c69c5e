"""Whether the ledger confirms the use of sealed rows that a verdict states."""

from __future__ import annotations

from pathlib import Path

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.judging.assembly import evidence_of
from safescale_ammt.judging.evidence import evidence_digest, rows_digest
from safescale_ammt.judging.gate import PASS
from safescale_ammt.judging.verdict import SealedUse, Verdict
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.sealed_uses import Answered, Opening, Use
from safescale_ammt.store.auditor import committed
from safescale_ammt.store.base import Store


def check_use(
    store: Store, folder: Path, verdict: Verdict, planned: int, *, answered: bool
) -> tuple[Use, Opening]:
    """Checks that the ledger confirms a use, down to the rows judged.

    Args:
        store: of data and ledger.
        folder: the whole verdict artifact; it follows from its evidence.
        verdict: what it holds.
        planned: submissions planned in the constitution.
        answered: whether one bit was told of it, else its figures were opened.

    Returns:
        The use, and the digests of evidence and verdict.

    Raises:
        IntegrityError: no such use, or another number, plan, guarantee, rows,
            evidence, verdict or answer, or a use that is counted wrongly.
    """
    evidence, hashes = evidence_of(folder, verdict)
    told = evidence_digest(evidence, hashes)
    # Their order is told; of what follows none needs it, or what was answered.
    digest = rows_digest(hashes, in_place=True)
    del evidence, hashes
    where = f"The ledger {store.uri}/{ledger.BOOK}"
    # By the hashes in the evidence, not by the holdout's digest alone: a verdict could
    # name a fresh holdout and hold the rows of another.
    about = (verdict.model, verdict.constitution, verdict.holdout, digest)
    claim = (*about, verdict.ledger)
    for use in ledger.uses(store):
        facts = (use.model, use.constitution, use.holdout, use.rows, use.ledger)
        if facts == claim:
            break
    else:
        raise IntegrityError(
            f"{where} holds no use of rows {digest} by model {verdict.model}; judge "
            "the model again with this store."
        )
    stated, recorded = verdict.use, SealedUse(use.number, use.planned, use.guarantee)
    # Of a use of which nothing was told the judgement did not end: this verdict was
    # then written by something else than the stage before.
    way = "answered" if answered else "opened"
    if recorded != stated or not (use.answers if answered else use.opened):
        was = way if (use.answers if answered else use.opened) else f"never {way}"
        raise IntegrityError(
            f"The verdict about model {verdict.model} states use {stated.number} of "
            f"{stated.planned} with guarantee {stated.guarantee!r}. {where} holds use "
            f"{use.number} of {use.planned} with {use.guarantee!r}, {was}."
        )
    opening = Opening(told, read_manifest(folder).identity)
    bound = opening
    if answered:
        bound = Answered(
            committed(store, opening.evidence),
            committed(store, opening.verdict),
            verdict.decision == PASS,
        )
    if fault := use.departure(bound):
        raise IntegrityError(f"{where} recorded another judgement: {fault}.")
    ledger.recount(store, use, planned)
    return use, opening
