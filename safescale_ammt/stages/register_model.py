"""Stage 5, the gate that refuses: register a model whose verdict allows it.

    pass         registered, and champion unless another run was faster
    needs_human  registered as pending: kept, not servable
    fail         refused in one sentence, nothing registered
    rehearsal    nothing registered, and the version artifact says so

A verdict is trusted only after it has been derived again from its evidence and
the ledger has confirmed the use that it claims. This stage is never cached and
never retried; registering the same verdict twice gives the same version.

It alone holds the registry's key (`store.places`). How it ended is left in the
store of data and ledger (`releasing.outcome`), for those who do not hold it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safescale_ammt import __version__
from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import (
    IntegrityError,
    Refusal,
    SafescaleError,
)
from safescale_ammt.files.artifacts import read_manifest, verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.evidence import EVIDENCE, read_evidence, rows_digest
from safescale_ammt.judging.verdict import LEDGERS, OFFICIAL, REHEARSAL, Verdict
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.bundle import check_parts, verify_bundle, write_bundle
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.run_outcome import NOT_REGISTERED, REFUSED, RunOutcome
from safescale_ammt.releasing.versions import VersionEntry
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import data_store, registry_store

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
    """Registers a model or refuses to, and leaves word of it.

    Args:
        model: the model artifact that was judged.
        verdict: the verdict artifact about it.
        constitution: the constitution as a mapping.
        registry: the `registry` section of the config.
        version: folder to write: `version.json`, and `bundle/` if registered.
        run_id: the run whose outcome is recorded; "" records none.
        environ: names the stores of ledger and registry.

    Returns:
        The contents of `version.json`: registry, version, status, model, verdict,
        decision, bundle (URI) and bundle_digest.

    Raises:
        InputError: an input is missing, or no store is named.
        IntegrityError: an input was changed, the inputs are not about each other,
            the verdict does not follow from its evidence, or the ledger holds no
            such use.
        Refusal: the decision is `fail`, or the verdict comes from a research
            ledger.
    """
    config = RegistryConfig.from_params(registry)
    model, verdict, version = Path(model), Path(verdict), Path(version)
    about: dict[str, Any] = {"run": run_id, "registry": config.name}
    try:
        rule = Constitution.from_dict(constitution)
        facts = _release(model, verdict, rule, config, version=version, environ=environ)
    except Refusal as no:
        about |= {"status": REFUSED, "sentence": str(no), **_stated(verdict)}
        _leave_word(about, environ)
        raise
    kept = ("status", "version", "decision", "model", "verdict")
    about |= {key: facts[key] for key in kept} | {"sentence": _sentence(facts)}
    _leave_word(about, environ)
    return facts


def _release(
    model: Path,
    verdict: Path,
    rule: Constitution,
    config: RegistryConfig,
    *,
    version: Path,
    environ: Mapping[str, str],
) -> dict[str, Any]:
    """Registers a model or refuses to; see `run`."""
    trained, judged = verify(model, "model"), verify(verdict, "verdict")
    stated = Verdict.load(verdict)
    check_parts(model, trained, judged, stated, rule)
    stated = rederive(verdict, rule)
    _refuse(stated)
    parents = {"model": trained.identity, "verdict": judged.identity}
    with writing(
        version,
        kind="version",
        stage=STAGE,
        config_digest=config.digest,
        parents=parents,
    ) as draft:
        # which number it got is history, not work: the same work has one identity
        draft.outside_identity.add(VERSION)
        if stated.mode == REHEARSAL:
            facts = _facts(config, stated, judged.identity)
        else:
            _check_use(data_store(environ), verdict, stated)
            folder = draft.folder / BUNDLE
            write_bundle(
                folder, model=model, verdict=verdict, constitution=rule, registry=config
            )
            facts = _register(registry_store(environ), config, folder, stated)
        write_json(draft.folder / VERSION, facts)
    return facts


def _refuse(verdict: Verdict) -> None:
    """Says no to a verdict that nobody may register.

    Raises:
        Refusal: it failed, or was made for research.
    """
    if verdict.mode == REHEARSAL:
        return
    if verdict.decision == "fail":
        reasons = "; ".join(reason.rstrip(". ") for reason in verdict.reasons)
        raise Refusal(
            f"Model {verdict.model} is refused, nothing was registered: {reasons}."
        )
    if verdict.ledger != OFFICIAL:
        raise Refusal(
            f"Model {verdict.model} is refused, nothing was registered: its verdict "
            f"was made in the {verdict.ledger} ledger; only verdicts of the "
            f"{OFFICIAL} ledger can be registered (safety.ledger)."
        )


def _stated(verdict: Path) -> dict[str, str]:
    """What a refused verdict says of itself, if it can be read at all."""
    try:
        stated = Verdict.load(verdict)
        identity = read_manifest(verdict).identity
    except SafescaleError:
        return {}
    about = {"decision": stated.decision, "model": stated.model}
    return {**about, "verdict": identity}


def _sentence(facts: Mapping[str, Any]) -> str:
    if facts["status"] == NOT_REGISTERED:
        return f"Rehearsal: {facts['decision']}; nothing was registered."
    status = facts["status"].replace("_", " ")
    return f"{facts['registry']} version {facts['version']} is {status}."


def _leave_word(about: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Records how the run ended; what cannot be recorded has ended so all the same."""
    if not about["run"]:
        return
    try:
        RunOutcome.now(**about).write(data_store(environ))
    except SafescaleError as error:
        print(f"The outcome was not recorded: {error}", file=sys.stderr, flush=True)


def _check_use(store: Store, folder: Path, verdict: Verdict) -> None:
    """Checks that the ledger confirms the use, down to the rows judged.

    Raises:
        IntegrityError: no such use, or another number, plan, guarantee or rows.
    """
    _, rows = read_evidence(
        folder / EVIDENCE,
        verdict.groups,
        classes=verdict.classes,
        positive=verdict.positive,
    )
    digest = rows_digest(rows)
    claim = (verdict.model, verdict.constitution, verdict.holdout, digest)
    name = LEDGERS[verdict.ledger]
    for use in ledger.uses(store, name=name):
        if (use.model, use.constitution, use.holdout, use.rows) == claim:
            held = (use.number, use.planned, use.guarantee)
            break
    else:
        raise IntegrityError(
            f"The ledger {store.uri}/{name} holds no use of rows {digest} by model "
            f"{verdict.model}; judge the model again with this store."
        )
    stated = (verdict.use.number, verdict.use.planned, verdict.use.guarantee)
    if held != stated or not use.opened:
        raise IntegrityError(
            f"The verdict about model {verdict.model} states use {stated[0]} of "
            f"{stated[1]} with guarantee {stated[2]!r}, the ledger {store.uri}/{name} "
            f"holds use {held[0]} of {held[1]} with {held[2]!r}, "
            f"{'opened' if use.opened else 'never opened'}."
        )


def _register(
    store: Store, config: RegistryConfig, folder: Path, verdict: Verdict
) -> dict[str, Any]:
    """Stores the bundle, adds the version, returns what it became."""
    home = Registry(store, config.name)
    stored = home.put_bundle(folder)
    holds = read_manifest(folder).parents
    entry = VersionEntry(
        model=holds["model"],
        verdict=holds["verdict"],
        constitution=verdict.constitution,
        dataset=verdict.dataset,
        holdout=verdict.holdout,
        architecture=read_manifest(folder / "model").parents["architecture"],
        decision=verdict.decision,
        bundle=stored.prefix,
        bundle_digest=stored.digest,
        code_version=__version__,
    )
    found = home.register(entry)
    if found.entry.bundle_digest != stored.digest:
        # registered before: the bundle of that time is the one that counts
        shutil.rmtree(folder)
        home.get_bundle(found, folder)
    verify_bundle(folder, found.entry.bundle_digest)
    return {
        **_facts(config, verdict, entry.verdict),
        "version": found.number,
        "status": found.status,
        "bundle": f"{store.uri}/{found.entry.bundle}",
        "bundle_digest": found.entry.bundle_digest,
    }


def _facts(config: RegistryConfig, verdict: Verdict, identity: str) -> dict[str, Any]:
    """The facts of a version that is not registered."""
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
