"""The step of the promote pipeline: people have decided, the registry is told.

    pending, enough approvals   champion; what was waived stands in the event
    champion already            champion: the step may run twice
    anything else               one sentence, nothing promoted

No step waits for people. They sign with keys that no pipeline ever sees (`safescale
approve`), into the registry or into a file that is kept in git; this step verifies what
is there, adds what is new, and moves the alias. Each approval is checked against the
constitution in the version's own bundle, and the bundle down to its last figure.

It holds the two keys that the gate holds: the registry's, and that of data and ledger,
of which it uses `ledger/`, for the heads of both logs, and `runs/`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import BIT
from safescale_ammt.errors import InputError, PreconditionFailed, Refusal
from safescale_ammt.execution import utc_now
from safescale_ammt.files.artifacts import writing
from safescale_ammt.files.canonical import (
    digest_json,
    json_file,
    json_form,
    write_json,
)
from safescale_ammt.files.json_text import parse_json
from safescale_ammt.judging.answer import Answer, Told
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.acts import APPROVE
from safescale_ammt.releasing.anchor import check_registry_head, keep_registry_head
from safescale_ammt.releasing.deciding import add_approvals, check_whole
from safescale_ammt.releasing.deciding import promote as promote_by_quorum
from safescale_ammt.releasing.ledger import BOOK
from safescale_ammt.releasing.outcome_page import promises_shown
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.retention import lock_logs
from safescale_ammt.releasing.run_outcome import REFUSED, RunOutcome
from safescale_ammt.releasing.signed_files import MOST, envelopes_in, version_of
from safescale_ammt.releasing.versions import CHAMPION, PENDING, Version
from safescale_ammt.store.base import Store, check_key
from safescale_ammt.store.environment import data_store, registry_store
from safescale_ammt.store.uri import check_given, read_uri

STAGE, KIND = "promote", "promotion"
PROMOTION = "promotion.json"


def run(
    version: str,
    registry: str,
    approvals: str,
    promotion: Path,
    *,
    run_id: str = "",
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Makes a pending version champion by its approvals, or says why not.

    Args:
        version: its number; `pending` is the one that the given approvals are about,
            without any the only pending one.
        registry: the registered model's name.
        approvals: signed approvals to add first, as `signed_files` reads them, or the
            URI of such a file, in a pod an s3:// one; "" adds none.
        promotion: folder to write, with `promotion.json`.
        run_id: the run whose outcome is recorded; "" records none.
        environ: names the stores of registry and ledger.

    Returns:
        The contents of `promotion.json`: registry, version, status, a sentence,
        decision, model, verdict, bundle and its digest, report (URI), the champion
        before, quorum, approvals, waivers, and what certifies them.

    Raises:
        InputError: there is no such version, its status takes no promotion, or the
            approvals are none.
        IntegrityError: an approval, the log or the bundle is not what was signed.
        Refusal: an approval does not count, they are too few, or a race was lost.
    """
    outcome: dict[str, Any] = {"run": run_id, "registry": registry}
    data, store = data_store(environ), registry_store(environ)
    chosen = Registry(store, registry)
    check_registry_head(store, data, registry)
    try:
        text = approvals.strip()
        if text.startswith(("s3://", "file://")):
            check_given(text, "approvals", environ)
            text = read_uri(text, MOST, environ=environ).decode("utf-8", "replace")
        envelopes = envelopes_in(text)
        about = version_of(envelopes) if envelopes else 0
        number = version_of_run(
            data, run_id, lambda: meant_version(chosen, version, about)
        )
        found = chosen.state().version(number)
        if found.status != CHAMPION:
            # Before an approval is added: nobody decides for less.
            check_whole(chosen, found)
        try:
            add_approvals(chosen, number, envelopes)
            decided = promote_by_quorum(chosen, number)
        finally:
            # Of approvals, too: who cut one off would be seen.
            if any(data.list(f"{BOOK}/")):
                keep_registry_head(store, data, registry)
            # As the version's own config says.
            days = chosen.terms(found.entry).retention_days
            logs = lock_logs(store, data, chosen.events, days, utc_now())
            if logs.why:
                print(f"The ledger is not locked: {logs.why}", file=sys.stderr)
    except Refusal as refusal:
        _record(data, {**outcome, "status": REFUSED, "sentence": str(refusal)})
        raise
    facts = promotion_facts(chosen, decided)
    told = chosen.verdict(decided)
    shown: Told
    # The gate made it champion by one bit, and a step of that number changes nothing.
    if told.get("feedback") == BIT:
        shown = Answer.from_dict(told)
    else:
        shown = Verdict.from_dict(told)
    names = ("status", "version", "decision", "model", "verdict")
    outcome |= {name: facts[name] for name in names}
    outcome |= {"sentence": facts["sentence"], "promises": promises_shown(shown)}
    _record(data, outcome)
    with writing(
        promotion,
        kind=KIND,
        stage=STAGE,
        config_digest=digest_json({"version": version, "registry": registry}),
        parents={"model": decided.entry.model, "verdict": decided.entry.verdict},
    ) as draft:
        write_json(draft.folder / PROMOTION, facts)
    return facts


def meant_version(registry: Registry, version: str, approved: int) -> int:
    """Returns the number of the version that is meant.

    Raises:
        InputError: there is none, or `pending` could be several.
    """
    word = version.strip()
    if word != PENDING:
        # No other word: what `latest` is may change between a form and its pod.
        if not word.removeprefix("v").isdecimal():
            raise InputError(
                f"The version is {version!r}, expected a number or {PENDING!r}."
            )
        return registry.show(word).number
    if approved:
        return approved
    waiting = [v.number for v in registry.versions() if v.status == PENDING]
    if len(waiting) != 1:
        raise InputError(
            f"{registry.name} has {len(waiting) or 'no'} pending versions"
            f"{f' {waiting}' * bool(waiting)}: give the number of the one that was "
            "read."
        )
    return waiting[0]


def version_of_run(data: Store, run_id: str, meant: Callable[[], int]) -> int:
    """Returns the version that this run was about when it first ran.

    A pod that was lost once it had promoted finds no pending version any more, or a
    newer one that nobody of this run meant.
    """
    if not run_id:
        return meant()
    key = check_key(f"runs/{run_id}/promotes.json")
    if not data.exists(key):
        with suppress(PreconditionFailed):
            data.put(key, json_file({"version": meant()}), if_absent=True)
    return int(parse_json(data.get(key, MOST))["version"])


def promotion_facts(registry: Registry, version: Version) -> dict[str, Any]:
    """Returns the contents of `promotion.json`, the same however often it runs."""
    # Its own event tells by which approvals; of one that the gate passed there is none.
    told = registry.promotion_of(version.number) or {}
    keys = {one["key"] for one in told.get("approvals", ())}
    approvals = {a.key: json_form(asdict(a)) for a in version.acts if a.act == APPROVE}
    counted = [act for key, act in approvals.items() if key in keys]
    replaced = told.get("replaces", 0)
    sentence = f"{registry.name} version {version.number} is {version.status}"
    who = ", ".join(act["by"] for act in counted)
    sentence += f", approved by {who}" if who else ", and no approval made it so"
    sentence += f"; it replaces version {replaced}" if replaced else ""
    entry = version.entry
    return {
        "schema": 1,
        "registry": registry.name,
        "version": version.number,
        "status": version.status,
        "sentence": f"{sentence}.",
        "decision": entry.decision,
        "model": entry.model,
        "verdict": entry.verdict,
        "bundle": entry.bundle,
        "bundle_digest": entry.bundle_digest,
        "report": registry.report(version),
        "replaced": replaced,
        "quorum": registry.terms(entry).human.quorum,
        "approvals": counted,
        "waived": told.get("waived", []),
        "certificate": told.get("certificate", ""),
    }


def _record(data: Store, outcome: dict[str, Any]) -> None:
    if outcome["run"]:
        RunOutcome.now(**outcome).write(data)
