"""What Kubeflow's page shows of a stage that judges nothing: a short Markdown each.

A search shows what could be certified and what was tried, a training how it ended, the
gate what it registered. The page of the judge is the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.promise_warnings import not_aimed_at
from safescale_ammt.files.canonical import read_json_lines
from safescale_ammt.printable import printable_lines
from safescale_ammt.reporting.logs import TRAINING, last_rounds
from safescale_ammt.reporting.markdown import bullets, plain, table
from safescale_ammt.reporting.people import BIAS_NOTE, SINGLE_PARTY
from safescale_ammt.reporting.wording import line, measured

Json = Mapping[str, Any]
_SHOWN = 10
"""Candidates that are listed, the best first."""


def search_summary(
    search: Json, power: Json, feasibility: Json, constitution: Constitution
) -> str:
    """Tells what can be certified, and which candidates were tried.

    Args:
        search: `search.json` of an architecture.
        power: `power.json` beside it.
        feasibility: `feasibility.json` beside it.
        constitution: what was promised.
    """
    promised = {p.id: p.constraint for p in constitution.principles}
    winner, budget = search["winner"], search["budget"]
    tried = len(search["candidates"])
    heads = ("candidate", "form", "parameters", "loss", "violation", "steps")
    fights = [fight["sentence"] for fight in feasibility.get("fights", [])]
    unread = [
        f"{name} is enforced in training, and neither read nor enforced in the short "
        "runs of the search, which read gaps alone."
        for name in feasibility.get("unread", [])
    ]
    promises = [
        (
            plain(p["principle"]),
            f"{measured(promised[p['principle']])} {line(promised[p['principle']])}",
            _share(p["spread"]["passes"]),
            ", ".join(map(plain, p["too_small"])) or "none",
        )
        for p in power["principles"]
    ]
    parts = [
        "# What the sealed rows can certify\n",
        f"{plain(power['sentence'])} {power['sealed']:,} rows are sealed.\n",
        table(("promise", "line", "chance to pass", "groups too small"), promises),
        bullets([*fights, *unread, *not_aimed_at(constitution)]),
        "# What was searched\n",
        (
            "Nothing: the architecture is a module of your own, measured by one run of "
            f"{budget['spent']:,} {plain(budget['unit'])}.\n"
            if search["candidates"][0]["genome"].get("kind") == "module"
            else f"Strategy *{plain(search['strategy'])}* tried {tried} "
            f"candidate{'s' * (tried != 1)} in {budget['spent']:,} of "
            f"{budget['planned']:,} {plain(budget['unit'])}; candidate **{winner}** "
            "won.\n"
        ),
        table(heads, _best(search["candidates"], winner)),
        f"The best {_SHOWN} of {tried} are shown.\n" if tried > _SHOWN else "",
    ]
    return _joined(parts)


def training_summary(facts: Json, model: Path) -> str:
    """Tells how a training ended, and how far each promise was missed on the way.

    Args:
        facts: `training_log.summary` of the model.
        model: the model artifact, whose log may lack its rounds.
    """
    names, rows = _violations(read_json_lines(model / TRAINING))
    accuracy = facts["accuracy"]
    parts = [
        "# How the agents were merged\n",
        (
            f"The model is *{plain(facts['form'])}* of {facts['members']} "
            f"agent{'s' * (facts['members'] != 1)} after {facts['steps']:,} steps"
            + (f"; accuracy on *select* {accuracy:.4f}" if accuracy else "")
            + (
                ".\n"
                if facts["feasible"]
                else "; on *select* it does not keep every promise.\n"
            )
        ),
        bullets([*facts.get("decided", ()), *facts["doubts"], *facts["left_out"]]),
        bullets(facts.get("alarms", ())),
        "# How far each promise was missed while training\n" if rows else "",
        table(("step", *map(plain, names)), rows) if rows else "",
        "Below zero a promise is kept on the rows that train it.\n" if rows else "",
    ]
    return _joined(parts)


def version_summary(version: Json) -> str:
    """Tells what the gate registered, and how to look at it.

    Args:
        version: `version.json`.
    """
    name, number = plain(version["registry"]), version["version"]
    status = plain(version["status"].replace("_", " "))
    head = f"{name} version {number}: {status}" if number else status.capitalize()
    keys = ("decision", "model", "verdict", "bundle", "bundle_digest")
    rows = [(key, plain(version[key])) for key in keys if version[key]]
    parts = [f"# {head}\n", table(("what", "which"), rows)]
    return _joined([*parts, _commands(name, number) if number else ""])


def promotion_summary(promotion: Json) -> str:
    """Tells who approved a version and what they waived, and how to look at it.

    Args:
        promotion: `promotion.json`.
    """
    name, number = plain(promotion["registry"]), promotion["version"]
    approvals, waived = promotion["approvals"], promotion["waived"]
    heads = ("approved by", "signed", "counted until", "independent", "why")
    rows = [
        (
            f"**{plain(act['by'])}**",
            plain(act["issued"]),
            plain(act["expires"]),
            "yes" if act["independent"] else f"**{SINGLE_PARTY}**",
            plain(act["reason"]),
        )
        for act in approvals
    ]
    points = [
        (plain(point["what"]), plain(point["kind"]), plain(", ".join(point["by"])))
        for point in waived
    ]
    keys = ("decision", "model", "verdict", "bundle_digest", "report")
    parts = [
        f"# {name} version {number}: {plain(promotion['status'])}\n",
        f"{plain(promotion['sentence'])}\n",
        table(heads, rows) if rows else "",
        f"A quorum of {promotion['quorum']} was asked for.\n" if rows else "",
        "# What was waived\n" if points else "",
        table(("what the verdict does not show", "kind", "waived by"), points)
        if points
        else "",
        f"{plain(promotion['certificate'])}\n" if points else "",
        f"{BIAS_NOTE}\n" if rows else "",
        "# Where to look\n",
        table(("what", "which"), [(k, plain(promotion[k])) for k in keys]),
        _commands(name, number),
    ]
    return _joined(parts)


def _commands(name: str, number: int) -> str:
    return (
        f"`safescale registry show {name} {number}` shows it, `safescale registry "
        f"verify --name {name}` hashes every byte again.\n"
    )


def _best(candidates: Sequence[Json], winner: int) -> list[tuple[str, ...]]:
    """Returns a row each of the best candidates, the winner first."""

    def rank(candidate: Json) -> tuple[bool, float]:
        fitness = candidate.get("fitness")  # who was never measured comes last
        return candidate["id"] != winner, float("inf") if fitness is None else fitness

    return [
        (
            f"**{c['id']}**" if c["id"] == winner else str(c["id"]),
            plain(_form(c["genome"])),
            f"{c['parameters']:,}",
            _number(c["loss"]),
            _number(c["violation"]),
            str(c["steps"]),
        )
        for c in sorted(candidates, key=rank)[:_SHOWN]
    ]


def _violations(
    events: Sequence[Json],
) -> tuple[Sequence[str], Iterable[tuple[str, ...]]]:
    """Returns the promises of a training log, and a row each of some of its rounds."""
    rounds = [e for e in last_rounds(events) if e.get("violation")]
    step = max(1, (len(rounds) - 1) // _SHOWN + 1)
    shown = [*rounds[::step], *rounds[-1:]] if rounds else []
    names = list(shown[0]["violation"]) if shown else []
    # Without doubles: the last round may be among those before it.
    return names, dict.fromkeys(
        (
            str(e["step"]),
            *(f"{e['violation'].get(name, 0.0):+.4f}" for name in names),
        )
        for e in shown
    )


def _form(genome: Json) -> str:
    """Writes a genome in a few words."""
    if genome.get("kind") == "trees":
        return (
            f"{genome['rounds']} trees of {genome['leaves']} leaves, rate "
            f"{genome['rate']:g}, {genome['least_rows']} rows a leaf, l2 "
            f"{genome['l2']:g}"
        )
    if genome.get("kind") == "module":
        return f"{genome['model']} of {genome['code'][:19]}, {genome['encoding']}"
    widths = " x ".join(map(str, genome["widths"])) or "linear"
    residual = ", residual" if genome["residual"] else ""
    return f"{widths}, {genome['activation']}, {genome['encoding']}{residual}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


def _joined(parts: Sequence[str]) -> str:
    # As in the model card: each part ends in a line break of its own.
    return printable_lines("\n".join(part for part in parts if part))
