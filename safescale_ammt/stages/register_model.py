"""Stage 5, the gate that refuses: register a model whose verdict allows it.

    pass         registered, and champion unless another run was faster
    needs_human  registered as pending: kept, not servable
    fail         refused in one sentence, nothing registered
    not_passed   the same: under gate.feedback: bit needs_human and fail are one word
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
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import BIT, Constitution
from safescale_ammt.errors import (
    Refusal,
    SafescaleError,
)
from safescale_ammt.execution import utc_now
from safescale_ammt.files.artifacts import file_names, read_manifest, verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.answer import KIND as ANSWERED
from safescale_ammt.judging.answer import NOT_PASSED, Answer, Told
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.gate import PASS
from safescale_ammt.judging.verdict import OFFICIAL, REHEARSAL, Verdict
from safescale_ammt.releasing.anchor import (
    check_registry_head,
    keep_ledger_heads,
    keep_registry_head,
)
from safescale_ammt.releasing.answers import behind
from safescale_ammt.releasing.bundle import check_parts, verify_bundle, write_bundle
from safescale_ammt.releasing.even_time import even_time
from safescale_ammt.releasing.outcome_page import promises_shown
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.retention import lock_logs, lock_objects
from safescale_ammt.releasing.run_outcome import NOT_REGISTERED, REFUSED, RunOutcome
from safescale_ammt.releasing.use_check import check_use
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
        decision, bundle (URI) and bundle_digest; locked and locked_data, ids of
        versions by key in either store, or not_locked, why, where the config asks for
        object lock.

    Raises:
        InputError: an input is missing or of an earlier form, no store is named, or it
            has not the evidence.
        IntegrityError: an input was changed, the inputs are not about each other,
            the verdict does not follow from its evidence, or the ledger holds no
            such use.
        Refusal: the decision is `fail`, the answer no pass, or the verdict comes from a
            research ledger.
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
            loaded = told_of(verdict)
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
    outcome["promises"] = promises_shown(told_of(verdict))
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
    told = told_of(verdict)
    if told.mode != REHEARSAL:
        # First of all, and for those that are refused too: every use that a gate has
        # seen is beyond the reach of whoever can write to the ledger.
        keep_ledger_heads(registry_store(environ), data)
    with ExitStack() as stack:
        answered = isinstance(told, Answer)
        if answered:
            stack.enter_context(even_time())
            whole, _ = stack.enter_context(behind(data, verdict, version))
        else:
            whole = stack.enter_context(made_whole(data, verdict, "verdict", version))
        # What goes into the bundle, and who is told of it.
        released = verdict if answered else whole
        trained, judged = verify(model, "model"), read_manifest(released)
        # The digests first: who gives the wrong artifacts should read that, not that
        # some figure does not follow.
        behind_it = read_manifest(whole)
        check_parts(model, trained, behind_it, Verdict.load(whole), constitution)
        rederived = rederive(whole, constitution)
        told = told if answered else rederived
        _refuse(told, opened=not answered and constitution.gate.feedback == BIT)
        facts = _facts(config, told, judged.identity)
        if rederived.mode != REHEARSAL:
            planned = constitution.gate.planned_submissions
            check_use(data, whole, rederived, planned, answered=answered)
            folder = whole.parent / BUNDLE
            write_bundle(
                folder,
                model=model,
                verdict=released,
                constitution=constitution,
                registry=config,
            )
            # All that can be found wrong is found before an event says otherwise.
            verify_bundle(folder)
            store = registry_store(environ)
            facts = _register(store, data, config, folder, told)
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


def told_of(folder: Path) -> Told:
    """Reads what is told of a judgement: a verdict with its figures, or an answer."""
    if read_manifest(folder).kind == ANSWERED:
        return Answer.load(folder)
    return Verdict.load(folder)


def _refuse(verdict: Told, *, opened: bool) -> None:
    """Refuses a verdict that may not be registered.

    Args:
        verdict: what is told of the judgement.
        opened: whether it is a verdict of which one bit was told before.

    Raises:
        Refusal: it failed, was answered by no pass, or was made for research.
    """
    # A rehearsal is never registered, so there is nothing to refuse, whatever it found.
    if verdict.mode == REHEARSAL:
        return
    # The reason first: a list of runs and a telephone show the beginning of a sentence.
    end = f"refused, nothing was registered: model {verdict.model}"
    # That it needs a person would be a second bit: an answer that is no pass registers
    # nothing. Who opens it (`safescale open`) may have it registered then.
    if verdict.decision in ("fail", NOT_PASSED):
        reasons = "; ".join(reason.rstrip(". ") for reason in verdict.reasons)
        raise Refusal(f"{reasons}; {end}.")
    if opened and verdict.decision == PASS:
        raise Refusal(f"A pass is registered by its answer, which is there; {end}.")
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


def _register(
    store: Store,
    data: Store,
    config: RegistryConfig,
    folder: Path,
    verdict: Told,
) -> dict[str, Any]:
    """Stores the bundle, adds the version, returns what it became."""
    check_registry_head(store, data, config.name)
    registry = Registry(store, config.name)
    # The bundle is stored before the event that names it: a version whose bundle is
    # missing could not be served, a bundle without a version harms nobody.
    stored = registry.put_bundle(folder)
    # Before the event too: a store without locks is found while nothing is registered.
    days, now = config.record_retention_days, utc_now()
    locked = lock_objects(store, f"{stored.prefix}/", days, now)
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
    answer = entry.verdict if isinstance(verdict, Answer) else ""
    logs = lock_logs(store, data, registry.events, days, now, answer=answer)
    if logs.why:
        print(f"The ledger is not locked: {logs.why}", file=sys.stderr, flush=True)
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
        **replace(logs, registry=locked | logs.registry).to_dict(),
    }


def _facts(config: RegistryConfig, verdict: Told, identity: str) -> dict[str, Any]:
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
