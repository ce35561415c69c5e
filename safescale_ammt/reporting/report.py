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
from safescale_ammt.judging.verdict import REHEARSAL, RESEARCH, Verdict
from safescale_ammt.reporting.measure_bar import measure_bar, measures_of
from safescale_ammt.reporting.report_style import STYLE
from safescale_ammt.reporting.wording import (
    HEADLINES,
    RATES,
    guarantee,
    limits,
    line,
    measured,
    rows_judged,
)

Json = Mapping[str, Any]
# Kubeflow's page loads an HTML artifact whole, into a sandboxed frame.
MAX_BYTES = 5_000_000
"""The largest page, in bytes."""
# Whatever escaping might miss can still neither run nor load anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(
    verdict: Verdict,
    constitution: Constitution,
    *,
    training: Sequence[Json] = (),
    search: Json | None = None,
    power: Json | None = None,
    days: Json | None = None,
) -> str:
    """Writes the page.

    Decision and facts first, then promises, guarantee and digests, then pictures
    and tables, from the general to the particular.

    Args:
        verdict: the verdict to report.
        constitution: the constitution it was judged by.
        training: events of `training.jsonl`.
        search: `search.json` of the architecture, if there is one.
        power: `power.json` of the architecture, if there is one.
        days: `window` of the dataset's `source.json`, if days were chosen.

    Returns:
        A whole HTML document; the same arguments give the same bytes.
    """
    # This imports matplotlib, which `verify` and the gate never need.
    from safescale_ammt.reporting.gallery import gallery

    title = f"Safety report: {constitution.id} {constitution.version}"
    figures = []
    for p in gallery(verdict, training, search, power):
        body = p.svg or f'<p class="absent">Absent: {escape(p.absent)}.</p>'
        caption = f"<figcaption>{escape(p.caption)}</figcaption>" if p.caption else ""
        figures.append(f"<figure><h3>{escape(p.title)}</h3>{body}{caption}</figure>\n")
    sections = [
        _decision(verdict, constitution),
        _facts(verdict, constitution),
        _promises(verdict, constitution),
        _guarantee(verdict, constitution, days or {}),
        "<h2>Pictures</h2>\n",
        *figures,
        _group_tables(verdict),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}"
        f"<footer>Written by SAFESCALE-AMMT {escape(__version__)} from the verdict "
        "artifact beside this page. Every figure can be derived again from "
        "evidence.parquet: run <code>safescale verify</code> on the bundle. The "
        "evidence holds label, groups and prediction of single people: keep it safe."
        "</footer>\n</main>\n</body>\n</html>\n"
    )


def _decision(verdict: Verdict, constitution: Constitution) -> str:
    """Writes the heading, what limits this kind of verdict, and the decision."""
    # Before the decision: who reads only the word "Pass" has read this first.
    notes = []
    if verdict.mode == REHEARSAL:
        notes.append(
            "<strong>This is a rehearsal.</strong> The model was judged on the "
            "<em>select</em> split, which its makers have seen. No use of the sealed "
            "rows was counted, nothing is registered, and there is no guarantee."
        )
    if verdict.ledger == RESEARCH:
        notes.append(
            "<strong>This is a research verdict.</strong> Its uses are counted in a "
            "ledger of their own and it can never be registered."
        )
    banners = "".join(f'<div class="rehearsal"><p>{n}</p></div>\n' for n in notes)
    short, sentence = HEADLINES[verdict.decision]
    # The first reason of a pass says what the headline says.
    reasons = verdict.reasons[1:] if verdict.decision == "pass" else verdict.reasons
    points = "".join(f"<li>{escape(r)}</li>" for r in reasons)
    return (
        '<header><p class="kind">Safety report</p>'
        f"<h1>{escape(constitution.id)} <small>constitution "
        f"{escape(constitution.version)}, owned by {escape(constitution.owner)}"
        f"</small></h1></header>\n{banners}"
        f'<section class="decision {verdict.decision}" aria-label="Decision">'
        f"<strong>{escape(short)}</strong>{escape(sentence)}"
        f"{f'<ul>{points}</ul>' if points else ''}</section>\n"
    )


def _facts(verdict: Verdict, constitution: Constitution) -> str:
    """Writes the five numbers that the decision rests on."""
    model, twin = (verdict.figures[who]["accuracy"] for who in ("model", "twin"))
    use = verdict.use
    number = f"{use.number} of {use.planned}" if use.number else "none"
    # The level of this submission, not that of the gate: planned submissions share it.
    level = f"{constitution.gate.alpha:g} over {use.planned} planned use"
    facts = [
        ("Rows judged", f"{verdict.rows:,}", rows_judged(verdict)),
        ("Accuracy", _percent(model["value"]), _interval(model)),
        ("Unconstrained twin", _percent(twin["value"]), _interval(twin)),
        ("Use of the sealed rows", number, f"guarantee: {use.guarantee}"),
        ("Error level", _percent(verdict.alpha), level + "s" * (use.planned > 1)),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small>"
        "</dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>\n'


def _promises(verdict: Verdict, constitution: Constitution) -> str:
    """Writes a table row per finding: its promise, line, numbers and outcome."""
    rows = []
    for finding in verdict.findings:
        tier = "" if finding.tier == "hard" else f" · {finding.tier}"
        # A promise against the twin with a floor has two measures in its one row.
        measures = measures_of(finding)
        numbers = "".join(
            f'<div class="measured">{_number(m.value)}<span class="note">'
            f"{_number(m.lower)} to {_number(m.upper)}</span></div>"
            for m in measures
        )
        reason = f'<span class="note">{escape(finding.reason)}</span>'
        rows.append(
            f'<tr><th scope="row">{escape(finding.principle)}'
            f"<span>{escape(constitution.principle(finding.principle).text)}</span></th>"
            f"<td>{escape(measured(finding))} {escape(line(finding))}"
            f'<span class="note">{escape(finding.tier)} promise</span></td>'
            f'<td class="n">{numbers}</td>'
            f"<td>{''.join(map(measure_bar, measures))}</td>"
            f'<td><span class="pill {finding.outcome}">{finding.outcome}{tier}</span>'
            f"{reason if finding.reason else ''}</td></tr>"
        )
    return _card(
        "What was promised, and what was measured",
        '<div class="scroll"><table><thead><tr><th scope="col">Promise</th>'
        '<th scope="col">Line</th><th scope="col" class="n">Measured</th>'
        '<th scope="col">Interval against the line</th><th scope="col">Finding</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    )


def _guarantee(verdict: Verdict, constitution: Constitution, days: Json) -> str:
    """Writes what is guaranteed and what is not, and the digests that this is about."""
    points = "".join(f"<li>{escape(p)}</li>" for p in limits(verdict))
    digests = {
        "Model": verdict.model,
        "Constitution": verdict.constitution,
        "Dataset": verdict.dataset,
        "Holdout": verdict.holdout,
        "Evidence": verdict.evidence,
    }
    cells = "".join(
        f'<dt>{name}</dt><dd class="digest">{escape(digest)}</dd>'
        for name, digest in digests.items()
    )
    if days:
        absent = ", ".join(days["absent_days"])
        # A day without a file is no error of a window, but its reader should know.
        gaps = f"; no file of {absent}" if absent else ""
        span = f"from {days['start']} up to {days['end']}, {days['files']} files{gaps}"
        cells += f"<dt>Days</dt><dd>{escape(span)}</dd>"
    return _card(
        "What this guarantees",
        f"<p>{escape(guarantee(verdict, constitution))}</p><ul>{points}</ul>",
    ) + _card("What this is about", f'<dl class="digests">{cells}</dl>')


def _group_tables(verdict: Verdict) -> str:
    """Writes the rates that the charts draw, for every value of every group column."""
    tables = []
    for name, group in verdict.figures["model"]["groups"].items():
        rates = group["rates"]
        # With more than two classes there are errors alone.
        kinds = [kind for kind in RATES if rates and kind in rates[0]]
        heads = "".join(f'<th class="n" scope="col">{RATES[k]}</th>' for k in kinds)
        rows = "".join(
            f'<tr><th scope="row">{escape(str(r["value"]))}</th>'
            f'<td class="n">{r["n"]:,}</td>'
            + "".join(
                f'<td class="n">{_percent(r[k]["value"])}'
                f'<span class="note">{escape(_interval(r[k]))}</span></td>'
                for k in kinds
            )
            + "</tr>"
            for r in rates
        )
        tables.append(
            '<section class="card scroll"><table><caption>Rates of the model by '
            f"{escape(name)}, with two-sided 95 % intervals</caption><thead><tr>"
            f'<th scope="col">{escape(name)}</th><th class="n" scope="col">Rows</th>'
            f"{heads}</tr></thead><tbody>{rows}</tbody></table></section>\n"
        )
    return "".join(["<h2>Rates in figures</h2>\n", *tables]) if tables else ""


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{title}</h2>{body}</section>\n'


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.2f} %"


def _interval(rate: Json) -> str:
    if rate["value"] is None:
        return "no rows"
    return f"{rate['lower'] * 100:.2f} to {rate['upper'] * 100:.2f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
