"""The report: one HTML page that a risk owner can read, print and keep.

Self-contained: no scripts, no network, pictures inline. Everything that comes
from a file is escaped. The first screen says in plain words what was decided,
promised and measured, on how many rows, and what that does and does not mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt import __version__
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.data.bias_findings import Told
from safescale_ammt.judging.findings import figure
from safescale_ammt.judging.verdict import OFFICIAL, REHEARSAL, RESEARCH, Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.reporting.approval_view import approval_view
from safescale_ammt.reporting.attack_table import attack_section
from safescale_ammt.reporting.cards import about_card, card
from safescale_ammt.reporting.data_warnings import examined_section, warnings_section
from safescale_ammt.reporting.gallery import gallery
from safescale_ammt.reporting.glossary import Glossary
from safescale_ammt.reporting.headline import facts, headline
from safescale_ammt.reporting.measure_bar import measure_bar, measures_of
from safescale_ammt.reporting.people import people_section
from safescale_ammt.reporting.provenance import Provenance
from safescale_ammt.reporting.report_style import STYLE
from safescale_ammt.reporting.slices_section import slices_section
from safescale_ammt.reporting.tables import table
from safescale_ammt.reporting.what_would_change import (
    decision_would_change,
    promise_would_change,
)
from safescale_ammt.reporting.wording import (
    RATES,
    decided,
    ends,
    guarantee,
    in_one_sentence,
    interval,
    limits,
    line,
    measured,
    percent,
    reasons_told,
    rows_told,
    without_few,
)

Json = Mapping[str, Any]
# Kubeflow's page loads an HTML artifact whole, into a sandboxed frame.
MAX_BYTES = 5_000_000
"""The largest page, in bytes."""
# Whatever escaping might miss can still neither run nor load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NO_EVIDENCE = (
    "Drawings are no evidence, and neither are the logs behind the last three "
    "pictures: <code>safescale verify</code> writes every word and number of this page "
    "again, and not what is drawn."
)


def render(
    verdict: Verdict,
    constitution: Constitution,
    *,
    training: Sequence[Json] = (),
    search: Json | None = None,
    control: Json | None = None,
    power: Json | None = None,
    provenance: Provenance | None = None,
    warnings: Sequence[AuditWarning] = (),
    examined: Sequence[Told] = (),
    acts: Sequence[Json] = (),
    status: str = "",
    open_points: Sequence[Json] = (),
    drawn: bool = True,
) -> str:
    """Writes the page.

    The decision first, then where it comes from, facts, warnings, promises, what people
    are asked and have decided, guarantee, digests, pictures and tables: from the
    general to the particular.

    Args:
        verdict: the verdict to report.
        constitution: the constitution it was judged by.
        training: events of `training.jsonl`.
        search: `search.json` of the architecture, if there is one.
        control: `control.json` beside it.
        power: `power.json` of the architecture, if there is one.
        provenance: day, run, name and rows; what the verdict says itself, if None.
        warnings: about the data, the worst first.
        examined: what the audit of the data says of each kind of bias.
        acts: what people decided about the version, as `people_section` takes them.
        status: what has become of the version; "" = it is none.
        open_points: what the verdict does not show, as `approval_view` takes it.
        drawn: whether its pictures are drawn; a page that is
            written to be compared has all their words and empty drawings.

    Returns:
        A whole HTML document; the same arguments give the same bytes.
    """
    title = f"Safety report: {constitution.id} {constitution.version}"
    figures = []
    for p in gallery(verdict, training, (search, control), power):
        panels = p.html(drawn=drawn)
        body = f'<div class="panels n{len(p.panels)}">{panels}</div>'
        if p.absent:
            body = f'<p class="absent">Absent: {escape(p.absent)}.</p>'
        caption = f"<figcaption>{escape(p.caption)}</figcaption>" if p.caption else ""
        figures.append(f"<figure><h3>{escape(p.title)}</h3>{body}{caption}</figure>\n")
    glossary = Glossary(verdict.positive)
    # In the order in which they are read, as a term is explained where it first stands.
    sections = [
        _head(constitution),
        _decision(verdict, constitution, glossary),
        (provenance or Provenance.of(verdict)).html(),
        facts(verdict, constitution),
        warnings_section(warnings),
        examined_section(examined),
        _promises(verdict, constitution, glossary),
        slices_section(verdict.slices),
        approval_view(verdict, constitution, open_points),
        people_section(acts, status),
        card("How well it answers", headline(verdict, glossary)),
        _guarantee(verdict, constitution),
        f"<h2>Pictures</h2>\n<p>{_NO_EVIDENCE}</p>\n",
        *figures,
        _group_tables(verdict),
        attack_section(verdict),
    ]
    return framed(
        title,
        "".join(sections),
        "from the verdict "
        "artifact beside this page. Every figure can be derived again from "
        "evidence.parquet: run <code>safescale verify</code> on the bundle. The "
        "evidence holds label, groups and prediction of single people: keep it safe.",
    )


def framed(title: str, body: str, source: str) -> str:
    """Writes a whole HTML document around what stands on a page.

    Args:
        title: of the page, as text.
        body: HTML.
        source: what it was written from, and what its reader should know; HTML.
    """
    # Escaped for HTML before; here what no reader of the page or its source would see.
    return printable_lines(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{body}"
        f"<footer>Written by SAFESCALE-AMMT {escape(__version__)} {source}"
        "</footer>\n</main>\n</body>\n</html>\n"
    )


def _head(constitution: Constitution) -> str:
    """Writes what this is a report of."""
    return (
        '<header><p class="kind">Safety report</p>'
        f"<h1>{escape(constitution.id)} <small>constitution "
        f"{escape(constitution.version)}, owned by {escape(constitution.owner)}"
        "</small></h1></header>\n"
    )


def _decision(verdict: Verdict, constitution: Constitution, glossary: Glossary) -> str:
    """Writes what limits this verdict, the decision, and what would change it."""
    # Before the decision: who reads only the word "Pass" has read this first.
    notes = []
    if verdict.mode == REHEARSAL:
        notes.append(
            "<strong>This is a rehearsal.</strong> The model was judged on the "
            "<em>select</em> split, which its makers have seen. No use of the sealed "
            "rows was counted, nothing is registered, and there is no guarantee."
        )
    if verdict.ledger != OFFICIAL:
        kind = "research" if verdict.ledger == RESEARCH else "benchmark's"
        notes.append(
            f"<strong>This is a {kind} verdict.</strong> It can never be registered; "
            "a use of sealed rows counts all the same."
        )
    banners = "".join(f'<div class="rehearsal"><p>{n}</p></div>\n' for n in notes)
    short, sentence = decided(verdict)
    reasons = reasons_told(verdict)
    points = "".join(f"<li>{escape(r)}</li>" for r in reasons)
    change = escape(decision_would_change(verdict, constitution))
    change = f"<p><b>What would change this:</b> {change}</p>" if change else ""
    limit = escape(in_one_sentence(verdict, constitution))
    return (
        f'{banners}<section class="decision {verdict.decision}" aria-label="Decision">'
        f"<strong>{escape(short)}</strong>{escape(sentence)}"
        f"{f'<ul>{points}</ul>' if points else ''}{glossary.explain(*reasons)}"
        f"{change}<p><b>Guarantee and its limits:</b> {limit}</p></section>\n"
    )


def _promises(verdict: Verdict, constitution: Constitution, glossary: Glossary) -> str:
    """Writes a table row per finding: its promise, line, numbers and outcome."""
    rows = []
    for f in verdict.findings:
        # A promise against the twin with a floor has two measures in its one row.
        measures = measures_of(f)
        numbers = "".join(
            f'<div class="measured">{figure(m.value)}<span class="note">'
            f"{ends(m.lower, m.upper)}</span></div>"
            for m in measures
        )
        text = constitution.principle(f.principle).text
        promise = f"{escape(f.principle)}<span>{escape(text)}</span>"
        limit = f"{escape(measured(f))} {escape(line(f))}"
        limit += f'<span class="note">{escape(f.tier)} promise</span>'
        tier = "" if f.tier == "hard" else f" · {f.tier}"
        found = f'<span class="pill {f.outcome}">{f.outcome}{tier}</span>'
        change = promise_would_change(f, verdict, constitution)
        notes = filter(None, (f.reason, change))
        found += "".join(f'<span class="note">{escape(note)}</span>' for note in notes)
        bars = "".join(map(measure_bar, measures))
        rows.append([promise, limit, numbers, bars, found])
    heads = ("Promise", "Line", "Measured", "Interval against the line", "Finding")
    lines = (f"{f.metric} {measured(f)} {line(f)}" for f in verdict.findings)
    return card(
        "What was promised, and what was measured",
        glossary.explain(*lines) + table(heads, rows, numbers=[2]),
    )


def _guarantee(verdict: Verdict, constitution: Constitution) -> str:
    """Writes what is guaranteed and what is not, and the digests that this is about."""
    points = "".join(f"<li>{escape(p)}</li>" for p in limits(verdict, constitution))
    digests = {
        "Model": verdict.model,
        "Constitution": verdict.constitution,
        "Dataset": verdict.dataset,
        "Holdout": verdict.holdout,
        "Evidence": verdict.evidence,
    }
    kept = card(
        "What this guarantees",
        f"<p>{escape(guarantee(verdict, constitution))}</p><ul>{points}</ul>",
    )
    return kept + about_card(digests)


def _group_tables(verdict: Verdict) -> str:
    """Writes the rates that the charts draw, for every value of every group column."""
    tables = []
    for name, group in verdict.figures["model"]["groups"].items():
        rates = without_few(group["rates"])
        # With more than two classes there are errors alone.
        kinds = [kind for kind in RATES if rates and kind in rates[0]]
        rows = [
            [escape(str(r["value"])), rows_told(r["n"])]
            + [
                f'{percent(r[k]["value"])}<span class="note">{interval(r[k])}</span>'
                if r[k]["value"] is not None
                else rows_told(r[k]["n"])
                for k in kinds
            ]
            for r in rates
        ]
        heads = [name, "Rows", *(RATES[k] for k in kinds)]
        caption = f"Rates of the model by {name}, with two-sided 95 % intervals"
        whole = table(heads, rows, numbers=range(1, len(heads)), caption=caption)
        tables.append(f'<section class="card">{whole}</section>\n')
    return "".join(["<h2>Rates in figures</h2>\n", *tables]) if tables else ""
