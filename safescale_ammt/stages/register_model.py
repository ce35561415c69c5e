"""Stage 5, the gate that refuses: register a model whose verdict allows it.

    pass         registered, and champion unless another run was faster
    needs_human  registered as pending: kept, not servable
    fail         refused in one sentence, nothing registered
    rehearsal    nothing registered, and the version artifact says so

A verdict is trusted only after it has been derived again from its evidence and
the ledger has confirmed the use that it claims. This stage is never cached. It may
run twice, since a cluster makes a lost pod again: for one verdict, and one run, its
work is done once.

The evidence comes from the protected prefix of the store of data (`store.protected`)
and goes into the bundle, which lies in the registry alone: the version artifact names
it. This stage alone holds the registry's key (`store.environment`). How the run ended
is written to the store of data and ledger (`releasing.run_outcome`), for those without
that key.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import (
    IntegrityError,
    Refusal,
    SafescaleError,
)
from safescale_ammt.files.artifacts import file_names, read_manifest, verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.assembly import evidence_of, rederive
from safescale_ammt.judging.evidence import evidence_digest, rows_digest
from safescale_ammt.judging.verdict import (
    OFFICIAL,
    REHEARSAL,
    SealedUse,
    Verdict,
)
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.anchor import (
    check_registry_head,
    keep_ledger_heads,
    keep_registry_head,
)
from safescale_ammt.releasing.bundle import check_parts, verify_bundle, write_bundle
from safescale_ammt.releasing.outcome_page import promises_shown
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.run_outcome import NOT_REGISTERED, REFUSED, RunOutcome
from safescale_ammt.releasing.sealed_uses import Opening
from safescale_ammt.releasing.versions import VersionEntry
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import data_store, registry_store
from safescale_ammt.store.protected import made_whole

STAGE = "register_model"
VERSION = "version.json"
BUNDLE = "bundle"


def run(
    model: Path,
    verdict: Path,
    constitution: Mapping[str, Any],
    registry: Mapping[str, Any],
    version: Path,
    *,
    run_id: str = "",
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Registers a model or refuses to, and records how the run ended.

    Args:
        model: the model artifact that was judged.
        verdict: the verdict artifact about it.
        constitution: the constitution as a mapping.
        registry: the `registry` section of the config.
        version: folder to write, with `version.json`.
        run_id: the run whose outcome is recorded; "" records none.
        environ: names the stores of ledger and registry.

    Returns:
        The contents of `version.json`: registry, version, status, model, verdict,
        decision, bundle (URI) and bundle_digest.

    Raises:
        InputError: an input is missing or of an earlier form, no store is named, or it
            has not the evidence.
        IntegrityError: an input was changed, the inputs are not about each other,
            the verdict does not follow from its evidence, or the ledger holds no
            such use.
        Refusal: the decision is `fail`, or the verdict comes from a research
            ledger.
    """
    config = RegistryConfig.from_params(registry)
    model, verdict, version = Path(model), Path(verdict), Path(version)
    outcome: dict[str, Any] = {"run": run_id, "registry": config.name}
    try:
        parsed = Constitution.from_dict(constitution)
        facts = _release(
            model, verdict, parsed, config, version=version, environ=environ
        )
    except Refusal as refusal:
        outcome |= {"status": REFUSED, "sentence": str(refusal)}
        # A verdict that cannot be read is refused all the same, without its facts.
        with suppress(SafescaleError):
            loaded = Verdict.load(verdict)
            outcome |= {
                "verdict": read_manifest(verdict).identity,
                "decision": loaded.decision,
                "model": loaded.model,
                "promises": promises_shown(loaded),
            }
        _record_outcome(outcome, environ)
        raise
    status = facts["status"].replace("_", " ")
    sentence = f"{facts['registry']} version {facts['version']} is {status}."
    if facts["status"] == NOT_REGISTERED:
        sentence = f"Rehearsal: {facts['decision']}; nothing was registered."
    names = ("status", "version", "decision", "model", "verdict")
    outcome |= {name: facts[name] for name in names} | {"sentence": sentence}
    outcome["promises"] = promises_shown(Verdict.load(verdict))
    _record_outcome(outcome, environ)
    return facts


def _release(
    model: Path,
    verdict: Path,
    constitution: Constitution,
    config: RegistryConfig,
    *,
    version: Path,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """Verifies, refuses or registers, and writes the version artifact; see `run`."""
    data = data_store(environ)
    if Verdict.load(verdict).mode != REHEARSAL:
        # First of all, and for those that are refused too: every use that a gate has
        # seen is beyond the reach of whoever can write to the ledger.
        keep_ledger_heads(registry_store(environ), data)
    with made_whole(data, verdict, "verdict", version) as whole:
        trained, judged = verify(model, "model"), read_manifest(whole)
        # The digests first: who gives the wrong artifacts should read that, not that
        # some figure does not follow.
        check_parts(model, trained, judged, Verdict.load(whole), constitution)
        rederived = rederive(whole, constitution)
        _refuse(rederived)
        facts = _facts(config, rederived, judged.identity)
        if rederived.mode != REHEARSAL:
            planned = constitution.gate.planned_submissions
            _check_use(data, whole, rederived, planned)
            folder = whole.parent / BUNDLE
            write_bundle(
                folder,
                model=model,
                verdict=whole,
                constitution=constitution,
                registry=config,
            )
            # All that can be found wrong is found before an event says otherwise.
            verify_bundle(folder)
            store = registry_store(environ)
            facts = _register(store, data, config, folder, rederived)
    parents = {"model": trained.identity, "verdict": judged.identity}
    with writing(
        version,
        kind="version",
        stage=STAGE,
        config_digest=config.digest,
        parents=parents,
    ) as draft:
        write_json(draft.folder / VERSION, facts)
        # A version is one verdict about one model, so these two are its identity, and
        # equal for equal work. Its number is history: the bundle's own digest in it,
        # which covers logs and a page with the day, is the registry's.
        draft.outside_identity |= set(file_names(draft.folder))
    return facts


def _refuse(verdict: Verdict) -> None:
    """Refuses a verdict that may not be registered.

    Raises:
        Refusal: it failed, or was made for research.
    """
    # A rehearsal is never registered, so there is nothing to refuse, whatever it found.
    if verdict.mode == REHEARSAL:
        return
    # The reason first: a list of runs and a telephone show the beginning of a sentence.
    end = f"refused, nothing was registered: model {verdict.model}"
    if verdict.decision == "fail":
        reasons = "; ".join(reason.rstrip(". ") for reason in verdict.reasons)
        raise Refusal(f"{reasons}; {end}.")
    if verdict.ledger != OFFICIAL:
        raise Refusal(
            f"The verdict was made in the {verdict.ledger} ledger, and only verdicts "
            f"of the {OFFICIAL} ledger can be registered (safety.ledger); {end}."
        )


def _record_outcome(outcome: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Writes how the run ended, if the run has an id; a failure changes no result."""
    if not outcome["run"]:
        return
    try:
        RunOutcome.now(**outcome).write(data_store(environ))
    except SafescaleError as error:
        # The version is in the registry by now. A stage that failed here would report
        # a champion as a crash.
        print(f"The outcome was not recorded: {error}", file=sys.stderr, flush=True)


def _check_use(store: Store, folder: Path, verdict: Verdict, planned: int) -> None:
    """Checks that the ledger confirms the use, down to the rows judged.

    Raises:
        IntegrityError: no such use, or another number, plan, guarantee, rows,
            evidence or verdict, or a use that is counted wrongly.
    """
    evidence, hashes = evidence_of(folder, verdict)
    told = evidence_digest(evidence, hashes)
    # Their order is told; of what follows none needs it, or what was answered.
    digest = rows_digest(hashes, in_place=True)
    del evidence, hashes
    where = f"The ledger {store.uri}/{ledger.BOOK}"
    # By the hashes in the evidence, not by the holdout's digest alone: a verdict could
    # name a fresh holdout and hold the rows of another.
    claim = (verdict.model, verdict.constitution, verdict.holdout, digest, OFFICIAL)
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
    # A use that was never opened belongs to a judgement that did not end: this verdict
    # was then written by something else than the stage before.
    if recorded != stated or not use.opened:
        raise IntegrityError(
            f"The verdict about model {verdict.model} states use {stated.number} of "
            f"{stated.planned} with guarantee {stated.guarantee!r}. {where} holds use "
            f"{use.number} of {use.planned} with {use.guarantee!r}, "
            f"{'opened' if use.opened else 'never opened'}."
        )
    opening = Opening(told, read_manifest(folder).identity)
    if fault := use.departure(opening):
        raise IntegrityError(f"{where} recorded another judgement: {fault}.")
    ledger.recount(store, use, planned)


def _register(
    store: Store, data: Store, config: RegistryConfig, folder: Path, verdict: Verdict
) -> dict[str, Any]:
    """Stores the bundle, adds the version, returns what it became."""
    check_registry_head(store, data, config.name)
    registry = Registry(store, config.name)
    # The bundle is stored before the event that names it: a version whose bundle is
    # missing could not be served, a bundle without a version harms nobody.
    stored = registry.put_bundle(folder)
    parents = read_manifest(folder).parents
    entry = VersionEntry(
        model=parents["model"],
        verdict=parents["verdict"],
        constitution=verdict.constitution,
        dataset=verdict.dataset,
        holdout=verdict.holdout,
        architecture=read_manifest(folder / "model").parents["architecture"],
        decision=verdict.decision,
        bundle=stored.prefix,
        bundle_digest=stored.digest,
        code_version=code_version(),
    )
    registered = registry.register(entry)
    keep_registry_head(store, data, config.name)
    if registered.entry.bundle_digest != stored.digest:
        # Registered before: the bundle of that time is the one that counts.
        shutil.rmtree(folder)
        registry.get_bundle(registered, folder)
        verify_bundle(folder, registered.entry.bundle_digest)
    return {
        **_facts(config, verdict, entry.verdict),
        "version": registered.number,
        "status": registered.status,
        "bundle": f"{store.uri}/{registered.entry.bundle}",
        "bundle_digest": registered.entry.bundle_digest,
    }


def _facts(config: RegistryConfig, verdict: Verdict, identity: str) -> dict[str, Any]:
    """Returns the contents of `version.json` for what is not registered."""
    return {
        "schema": 1,
        "registry": config.name,
        "version": 0,
        "status": NOT_REGISTERED,
        "model": verdict.model,
        "verdict": identity,
        "decision": verdict.decision,
        "bundle": "",
        "bundle_digest": "",
    }
