"""The model card: what the model reads, what it promises, what was measured.

Markdown, written from the verdict, the constitution, the schema and the warnings about
the data alone, so that `verify_bundle` can write it again and compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.judging.answer import Told
from safescale_ammt.judging.findings import Finding, figure
from safescale_ammt.judging.verdict import OFFICIAL, REHEARSAL, Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.reporting.data_warnings import TITLE
from safescale_ammt.reporting.headline_table import (
    NOTE,
    constant_name,
    headline_rows,
)
from safescale_ammt.reporting.markdown import bullets, plain, table
from safescale_ammt.reporting.measure_bar import measures_of
from safescale_ammt.reporting.wording import (
    SIGNS,
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
    features = ", ".join(plain(f["name"]) for f in schema["features"])
    classes = ", ".join(f"`{plain(name)}`" for name in verdict.classes)
    parts = [
        front_matter(verdict, identity, name),
        f"# {plain(name)}\n",
        f"{plain(description)}\n" if description else "",
        f"**{short}.** {sentence}\n",
        bullets(reasons_told(verdict)),
        f"## {TITLE}\n" if warnings else "",
        bullets([warning.sentence for warning in warnings]),
        "## What goes in and comes out\n",
        (
            f"Reads rows with {len(schema['features'])} features ({features}) and "
            f"predicts *{plain(schema['label'])}*: {classes}.\n"
        ),
        "## What was promised and measured\n",
        (
            f"Constitution *{plain(constitution.id)}* {plain(constitution.version)}, "
            f"written by {plain(constitution.owner)}; {verdict.rows:,} rows.\n"
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
        bullets(limits(verdict, constitution)),
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
        bullets(reasons_told(verdict)),
        (
            f"Constitution *{plain(constitution.id)}* {plain(constitution.version)} "
            f"on {verdict.rows:,} {rows}; guarantee: {verdict.use.guarantee}.\n"
        ),
        "" if official else f"For {verdict.ledger} only: cannot be registered.\n",
        _findings_table(verdict.findings),
        usefulness(verdict),
    ]
    return printable_lines("\n".join(part for part in parts if part))


def front_matter(verdict: Told, identity: str, name: str) -> str:
    """Writes what a card says to programs."""
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
    """Writes a row per finding, and one more for the floor of a promise that has one.

    The line that failed may be the floor: a table without it would show a promise that
    holds and one that fails with the same figures.
    """
    heads = ("promise", "line", "measured", "bounds", "tier", "finding")
    rows = []
    for f in findings:
        own, *floors = measures_of(f)
        promise = f"{plain(measured(f))} {plain(line(f))}"
        figures = (figure(own.value), ends(own.lower, own.upper), f.tier)
        rows.append((plain(f.principle), promise, *figures, f"**{f.outcome}**"))
        for floor in floors:
            limit = f"{plain(floor.label)} {SIGNS[floor.op]} {floor.line:g}"
            figures = (figure(floor.value), ends(floor.lower, floor.upper), f.tier)
            rows.append(
                (f"{plain(f.principle)}: floor", limit, *figures, floor.outcome)
            )
    return table(heads, rows)


def usefulness(verdict: Verdict) -> str:
    """Writes the figures of use of model, twin and constant answer, "" without any."""
    rows = headline_rows(verdict)
    if not rows:
        return ""
    heads = ("figure", "model", "twin", f"always *{plain(constant_name(verdict))}*")
    return f"{table(heads, rows)}\n{NOTE}\n"


def _rates(verdict: Verdict) -> str:
    """Writes each group's error rate."""
    # Errors are the one rate that every task has: with more than two classes there is
    # no selection rate and no true positive rate.
    rows = [
        (
            f"{plain(name)} = {plain(r['value'])}",
            rows_told(r["n"]),
            _rate(r["error"]),
        )
        for name, group in verdict.figures["model"]["groups"].items()
        for r in without_few(group["rates"])
    ]
    return table(("group", "rows", "errors"), rows) if rows else ""


def _rate(rate: Mapping[str, Any]) -> str:
    # Of few rows or of none, which the card does not tell apart.
    if rate["value"] is None:
        return "–"
    value, lower, upper = (rate[k] * 100 for k in ("value", "lower", "upper"))
    return f"{value:.2f} % [{lower:.2f}, {upper:.2f}]"
