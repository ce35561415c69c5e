"""The report: one HTML page that a risk owner can read, print and keep.

Self-contained: no scripts, no network, pictures inline. Everything that came
from a file is escaped. The first screen says in plain words what was decided,
promised and measured, on how many rows, and what that does and does not mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.verdict import REHEARSAL, RESEARCH, Verdict
from safescale_ammt.reporting.measure_bar import Measure, measure_bar, measures_of
from safescale_ammt.reporting.report_style import STYLE
from safescale_ammt.reporting.wording import (
    HEADLINES,
    guarantee,
    limits,
    line,
    measured,
    rows_judged,
)

Json = Mapping[str, Any]
MAX_BYTES = 5_000_000
"""Kubeflow loads the whole page into a frame."""
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

    Args:
        verdict: the verdict to report.
        constitution: the constitution it was judged by.
        training: events of `training.jsonl`.
        search: `search.json` of the architecture, if there is one.
        power: `power.json` of the architecture, if there is one.
        days: `window` of the dataset's `source.json`, if days were chosen.
    """
    from safescale_ammt.reporting.gallery import gallery

    title = f"Safety report: {constitution.id} {constitution.version}"
    sections = [
        _header(constitution),
        _rehearsal(verdict),
        _decision(verdict),
        _facts(verdict, constitution),
        _promises(verdict, constitution),
        _guarantee(verdict, constitution),
        _digests(verdict, days or {}),
        _figures(gallery(verdict, training, search, power)),
        _group_tables(verdict),
        _footer(),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _header(constitution: Constitution) -> str:
    return (
        '<header><p class="kind">Safety report</p>'
        f"<h1>{escape(constitution.id)} <small>constitution "
        f"{escape(constitution.version)}, owned by {escape(constitution.owner)}"
        "</small></h1></header>\n"
    )


def _rehearsal(verdict: Verdict) -> str:
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
    return "".join(f'<div class="rehearsal"><p>{n}</p></div>\n' for n in notes)


def _decision(verdict: Verdict) -> str:
    short, sentence = HEADLINES[verdict.decision]
    # the first reason of a pass says what the headline says
    shown = verdict.reasons[1:] if verdict.decision == "pass" else verdict.reasons
    reasons = "".join(f"<li>{escape(r)}</li>" for r in shown)
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    return (
        f'<section class="decision {verdict.decision}" aria-label="Decision">'
        f"<strong>{escape(short)}</strong>{escape(sentence)}{listed}</section>\n"
    )


def _facts(verdict: Verdict, constitution: Constitution) -> str:
    ours, twin = (verdict.figures[who]["accuracy"] for who in ("model", "twin"))
    use = verdict.use
    counted = f"{use.number} of {use.planned}" if use.number else "none"
    facts = [
        ("Rows judged", f"{verdict.rows:,}", rows_judged(verdict)),
        ("Accuracy", _percent(ours["value"]), _interval(ours)),
        ("Unconstrained twin", _percent(twin["value"]), _interval(twin)),
        ("Use of the sealed rows", counted, f"guarantee: {use.guarantee}"),
        (
            "Error level",
            _percent(verdict.alpha),
            (
                f"{constitution.gate.alpha:g} over {use.planned} planned use"
                f"{'s' if use.planned > 1 else ''}"
            ),
        ),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small>"
        "</dd></div>"
        for name, value, note in facts
    )
    return f'<dl class="facts">{cells}</dl>\n'


def _promises(verdict: Verdict, constitution: Constitution) -> str:
    rows = "".join(
        _promise_row(finding, constitution.principle(finding.principle).text)
        for finding in verdict.findings
    )
    return (
        '<section class="card"><h2>What was promised, and what was measured</h2>'
        '<div class="scroll"><table><thead><tr><th scope="col">Promise</th>'
        '<th scope="col">Line</th><th scope="col" class="n">Measured</th>'
        '<th scope="col">Interval against the line</th><th scope="col">Finding</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></section>\n"
    )


def _promise_row(finding: Finding, text: str) -> str:
    tier = "" if finding.tier == "hard" else f" · {finding.tier}"
    measures = measures_of(finding)
    reason = f'<span class="note">{escape(finding.reason)}</span>'
    return (
        f'<tr><th scope="row">{escape(finding.principle)}'
        f"<span>{escape(text)}</span></th>"
        f"<td>{escape(measured(finding))} {escape(line(finding))}"
        f'<span class="note">{escape(finding.tier)} promise</span></td>'
        f'<td class="n">{"".join(map(_measured, measures))}</td>'
        f"<td>{''.join(map(measure_bar, measures))}</td>"
        f'<td><span class="pill {finding.outcome}">{finding.outcome}{tier}</span>'
        f"{reason if finding.reason else ''}</td></tr>"
    )


def _measured(measure: Measure) -> str:
    bounds = f"{_number(measure.lower)} to {_number(measure.upper)}"
    note = f'<span class="note">{bounds}</span>'
    return f'<div class="measured">{_number(measure.value)}{note}</div>'


def _guarantee(verdict: Verdict, constitution: Constitution) -> str:
    points = "".join(f"<li>{escape(p)}</li>" for p in limits(verdict))
    return (
        '<section class="card"><h2>What this guarantees</h2>'
        f"<p>{escape(guarantee(verdict, constitution))}</p>"
        f"<ul>{points}</ul></section>\n"
    )


def _digests(verdict: Verdict, days: Json) -> str:
    named = {
        "Model": verdict.model,
        "Constitution": verdict.constitution,
        "Dataset": verdict.dataset,
        "Holdout": verdict.holdout,
        "Evidence": verdict.evidence,
    }
    cells = "".join(
        f'<dt>{name}</dt><dd class="digest">{escape(digest)}</dd>'
        for name, digest in named.items()
    )
    if days:
        cells += f"<dt>Days</dt><dd>{escape(_span(days))}</dd>"
    return (
        '<section class="card"><h2>What this is about</h2>'
        f'<dl class="digests">{cells}</dl></section>\n'
    )


def _span(days: Json) -> str:
    """Says which days' rows were prepared, and which of them had none."""
    absent = ", ".join(days["absent_days"])
    gaps = f"; no file of {absent}" if absent else ""
    return f"from {days['start']} up to {days['end']}, {days['files']} files{gaps}"


def _figures(pictures: Iterable[Any]) -> str:
    parts = ["<h2>Pictures</h2>\n"]
    for p in pictures:
        body = p.svg or f'<p class="absent">Absent: {escape(p.absent)}.</p>'
        caption = f"<figcaption>{escape(p.caption)}</figcaption>" if p.caption else ""
        parts.append(f"<figure><h3>{escape(p.title)}</h3>{body}{caption}</figure>\n")
    return "".join(parts)


_TABLE_HEADS = {
    "selection": "Selected",
    "tpr": "True positives found",
    "fpr": "False alarms",
    "error": "Errors",
}


def _group_tables(verdict: Verdict) -> str:
    groups = verdict.figures["model"]["groups"]
    if not groups:
        return ""
    tables = "".join(_group_table(name, g["rates"]) for name, g in groups.items())
    return f"<h2>Rates in figures</h2>\n{tables}"


def _group_table(name: str, rates: Sequence[Json]) -> str:
    kinds = [kind for kind in _TABLE_HEADS if rates and kind in rates[0]]
    heads = "".join(f'<th class="n" scope="col">{_TABLE_HEADS[k]}</th>' for k in kinds)
    rows = "".join(
        f'<tr><th scope="row">{escape(str(r["value"]))}</th>'
        f'<td class="n">{r["n"]:,}</td>'
        + "".join(f'<td class="n">{_rate_cell(r[k])}</td>' for k in kinds)
        + "</tr>"
        for r in rates
    )
    return (
        '<section class="card scroll"><table><caption>Rates of the model by '
        f"{escape(name)}, with two-sided 95 % intervals</caption><thead><tr>"
        f'<th scope="col">{escape(name)}</th><th class="n" scope="col">Rows</th>{heads}'
        f"</tr></thead><tbody>{rows}</tbody></table></section>\n"
    )


def _rate_cell(rate: Json) -> str:
    note = f'<span class="note">{escape(_interval(rate))}</span>'
    return f"{_percent(rate['value'])}{note}"


def _footer() -> str:
    from safescale_ammt import __version__

    return (
        f"<footer>Written by SAFESCALE-AMMT {escape(__version__)} from the verdict "
        "artifact beside this page. Every figure can be derived again from "
        "evidence.parquet: run <code>safescale verify</code> on the bundle. The "
        "evidence holds label, groups and prediction of single people: keep it safe."
        "</footer>\n"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.2f} %"


def _interval(rate: Json) -> str:
    if rate["value"] is None:
        return "no rows"
    return f"{rate['lower'] * 100:.2f} to {rate['upper'] * 100:.2f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
