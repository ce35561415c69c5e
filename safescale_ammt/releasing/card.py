"""The model card: what the model reads, what it promises, what was measured.

Markdown, written from the verdict, the constitution, the schema and the warnings about
the data alone, so that `verify_bundle` can write it again and compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.judging.findings import Finding, figure
from safescale_ammt.judging.verdict import OFFICIAL, REHEARSAL, Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.reporting.data_warnings import TITLE
from safescale_ammt.reporting.headline_table import (
    NOTE,
    constant_name,
    headline_rows,
)
from safescale_ammt.reporting.wording import (
    decided,
    ends,
    guarantee,
    limits,
    line,
    measured,
    reasons_told,
    rows_told,
    without_few,
)


def write_card(
    verdict: Verdict,
    identity: str,
    constitution: Constitution,
    schema: Mapping[str, Any],
    *,
    name: str,
    description: str,
    warnings: Sequence[AuditWarning] = (),
) -> str:
    """Writes the model card.

    Front matter for programs, then for people: the decision, warnings about the data,
    the model's inputs and outputs, promises and measurements, the guarantee, how to
    check all of it.

    Args:
        verdict: the verdict about the model.
        identity: identity digest of the verdict artifact.
        constitution: the constitution it was judged by.
        schema: `schema.json` of the model.
        name: name in the registry.
        description: one line by the owner.
        warnings: about the data, the worst first.
    """
    short, sentence = decided(verdict)
    model, twin = (verdict.figures[who]["accuracy"] for who in ("model", "twin"))
    features = ", ".join(_plain(f["name"]) for f in schema["features"])
    classes = ", ".join(f"`{_plain(name)}`" for name in verdict.classes)
    parts = [
        _front_matter(verdict, identity, name),
        f"# {_plain(name)}\n",
        f"{_plain(description)}\n" if description else "",
        f"**{short}.** {sentence}\n",
        _bullets(reasons_told(verdict)),
        f"## {TITLE}\n" if warnings else "",
        _bullets([warning.sentence for warning in warnings]),
        "## What goes in and comes out\n",
        (
            f"Reads rows with {len(schema['features'])} features ({features}) and "
            f"predicts *{_plain(schema['label'])}*: {classes}.\n"
        ),
        "## What was promised and measured\n",
        (
            f"Constitution *{_plain(constitution.id)}* {_plain(constitution.version)}, "
            f"written by {_plain(constitution.owner)}; {verdict.rows:,} rows.\n"
        ),
        _findings_table(verdict.findings),
        (
            f"Accuracy {_rate(model)}; the unconstrained twin {_rate(twin)} (two-sided "
            "95 % intervals).\n"
        ),
        usefulness(verdict),
        _rates(verdict),
        "## What this guarantees\n",
        f"{guarantee(verdict, constitution)}\n",
        _bullets(limits(verdict, constitution)),
        "## How to check it\n",
        (
            "Run `safescale verify` on the bundle that holds this card: it derives "
            "every figure above from the evidence again and checks every digest, "
            "offline. Whether the model answers so, `--data` with the sealed rows "
            "shows; by whom the bundle is, a digest from elsewhere.\n"
        ),
    ]
    # Each part ends in a line break of its own: joined by one more, a blank line
    # stands between blocks, which Markdown needs.
    return printable_lines("\n".join(part for part in parts if part))


def summary(verdict: Verdict, constitution: Constitution) -> str:
    """Writes the short Markdown form that the pipeline's page shows.

    Args:
        verdict: the verdict about the model.
        constitution: the constitution it was judged by.
    """
    short, sentence = decided(verdict)
    rehearsal, official = verdict.mode == REHEARSAL, verdict.ledger == OFFICIAL
    rows = "rows of *select* (rehearsal)" if rehearsal else "sealed rows"
    parts = [
        f"# {short}\n",
        f"{sentence}\n",
        _bullets(reasons_told(verdict)),
        (
            f"Constitution *{_plain(constitution.id)}* {_plain(constitution.version)} "
            f"on {verdict.rows:,} {rows}; guarantee: {verdict.use.guarantee}.\n"
        ),
        "" if official else f"For {verdict.ledger} only: cannot be registered.\n",
        _findings_table(verdict.findings),
        usefulness(verdict),
    ]
    return printable_lines("\n".join(part for part in parts if part))


def _front_matter(verdict: Verdict, identity: str, name: str) -> str:
    # What two versions of this library must agree on: `verify_bundle` compares the
    # front matter alone when another version worded the rest. Every value is a digest,
    # a word of ours or a checked name, so none needs quoting in YAML.
    fields = {
        "name": name,
        "decision": verdict.decision,
        "model": verdict.model,
        "verdict": identity,
        "constitution": verdict.constitution,
        "mode": verdict.mode,
        "guarantee": verdict.use.guarantee,
    }
    lines = "\n".join(f"{key}: {value}" for key, value in fields.items())
    return f"---\n{lines}\n---\n"


def _findings_table(findings: Sequence[Finding]) -> str:
    """Writes one table row per finding."""
    rows = [
        "| promise | line | measured | bounds | tier | finding |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {_plain(f.principle)} "
        f"| {_plain(measured(f))} {_plain(line(f))} "
        f"| {figure(f.value)} | {ends(f.lower, f.upper)} | {f.tier} "
        f"| **{f.outcome}** |"
        for f in findings
    ]
    return "\n".join(rows) + "\n"


def usefulness(verdict: Verdict) -> str:
    """Writes the figures of use of model, twin and constant answer, "" without any."""
    rows = headline_rows(verdict)
    if not rows:
        return ""
    constant = _plain(constant_name(verdict))
    lines = [f"| figure | model | twin | always *{constant}* |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + f"\n\n{NOTE}\n"


def _rates(verdict: Verdict) -> str:
    """Writes each group's error rate."""
    # Errors are the one rate that every task has: with more than two classes there is
    # no selection rate and no true positive rate.
    rows = [
        f"| {_plain(name)} = {_plain(r['value'])} | {rows_told(r['n'])} "
        f"| {_rate(r['error'])} |"
        for name, group in verdict.figures["model"]["groups"].items()
        for r in without_few(group["rates"])
    ]
    head = ["| group | rows | errors |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n" if rows else ""


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines) + "\n" if lines else ""


def _plain(text: Any) -> str:
    """Returns foreign text in a form that is read neither as Markdown nor as HTML."""
    # A line break would end a table row, and a column of an owner's file may hold one.
    one_line = " ".join(str(text).split())
    # Tables are split at their pipes before anything else of Markdown is read.
    one_line = escape(one_line, quote=False).replace("|", "&#124;")
    # An address becomes a link by itself in some readers.
    one_line = re.sub(r"(?<=\w):(?=//)", "&#58;", one_line)
    one_line = re.sub(r"(?i)\b(www)\.", r"\1&#46;", one_line)
    one_line = re.sub(r"[\\`*\[\]!]", r"\\\g<0>", one_line)
    # At the start of a point or a line: a heading, a list or a rule; a numbered list.
    one_line = re.sub(r"^([-#+]+(?= |$)|[-_=~]{3,})", r"\\\g<0>", one_line)
    return re.sub(r"^(\d+)([.)])(?= )", r"\1\\\2", one_line)


def _rate(rate: Mapping[str, Any]) -> str:
    # Of few rows or of none, which the card does not tell apart.
    if rate["value"] is None:
        return "–"
    value, lower, upper = (rate[k] * 100 for k in ("value", "lower", "upper"))
    return f"{value:.2f} % [{lower:.2f}, {upper:.2f}]"
