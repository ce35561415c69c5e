"""The look of the report: one style sheet, no fonts or scripts from elsewhere.

Colours are variables; a dark screen or a sheet of paper only changes those.
"""

# The variables from --page to --purple are those that `figures` writes into every
# drawing in the place of its colours: a name that changes here has to change there.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #f4f6f8; --surface: #ffffff; --ink: #1b2733; --muted: #566573;
  --grid: #d5dde5; --blue: #0072b2; --orange: #8f5a00; --green: #00795a;
  --red: #c04a00; --purple: #a8558a; --soft: #eef2f5;
  --pass: #e3f3ee; --human: #fbf0da; --fail: #fbe7dc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12181f; --surface: #1a222b; --ink: #e6ebf0; --muted: #9fb0bf;
    --grid: #36434f; --blue: #5bb4ec; --orange: #f0b445; --green: #3cc79b;
    --red: #ff8a4c; --purple: #e0a3c8; --soft: #222c36;
    --pass: #15342c; --human: #3a2d12; --fail: #402313;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    Arial, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
main { max-width: 1060px; margin: 0 auto; padding: 32px 24px 64px; }
header p.kind {
  margin: 0; color: var(--muted); font-size: 13px; letter-spacing: .08em;
  text-transform: uppercase;
}
h1 { font-size: 30px; line-height: 1.2; margin: 4px 0 14px; }
h1 small { font-weight: 400; color: var(--muted); font-size: 20px; }
h2 { font-size: 20px; margin: 44px 0 6px; }
h3 { font-size: 16px; margin: 0 0 2px; }
h4 { font-size: 14px; margin: 10px 0 0; }
p { margin: 8px 0; max-width: 76ch; }
dl.provenance { columns: 2 400px; column-gap: 28px; margin: 0 0 20px; font-size: 14px; }
dl.provenance div { display: grid; grid-template-columns: 9.5em 1fr; gap: 10px;
  break-inside: avoid; padding: 1px 0; }
dl.provenance dt { color: var(--muted); }
dl.provenance dd { margin: 0; }
p.term { font-size: 14px; color: var(--muted); max-width: 96ch; }
p.term dfn { font-style: normal; font-weight: 600; color: var(--ink); }
.decision {
  border-left: 6px solid; border-radius: 8px; padding: 18px 22px; margin: 0 0 18px;
}
.decision strong { font-size: 23px; display: block; }
.decision ul { margin: 8px 0 0; padding-left: 20px; }
.decision li { max-width: 86ch; }
.pass { background: var(--pass); border-color: var(--green); }
.needs_human { background: var(--human); border-color: var(--orange); }
.fail { background: var(--fail); border-color: var(--red); }
.warnings { border-left: 6px solid var(--orange); }
.rehearsal {
  background: var(--soft); border: 1px dashed var(--muted); border-radius: 8px;
  padding: 12px 22px; margin: 0 0 18px;
}
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr));
  gap: 12px; margin: 0 0 18px; padding: 0;
}
.facts div { background: var(--surface); border-radius: 8px; padding: 12px 16px; }
.facts dt { color: var(--muted); font-size: 13px; }
.facts dd { margin: 0; font-size: 22px; font-weight: 600; line-height: 1.3; }
.facts dd small { display: block; font-size: 13px; font-weight: 400;
  color: var(--muted); }
.big { font-size: 20px; font-weight: 600; }
.card { background: var(--surface); border-radius: 8px; padding: 18px 22px;
  margin: 0 0 18px; }
.card h2 { margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px;
  table-layout: fixed; }
thead th:first-child { width: 22%; }
table:has(.measure) th:last-child { width: 26%; }
caption { text-align: left; color: var(--muted); font-size: 13px; padding: 0 0 6px; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 13px; }
th, td { padding: 9px 12px 9px 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
td.n, th.n { text-align: right; }
tbody th { color: var(--ink); font-size: 14.5px; }
tbody th span, td span.note { display: block; font-weight: 400; color: var(--muted);
  font-size: 13px; max-width: 44ch; }
.pill { display: inline-block; border-radius: 99px; padding: 1px 11px; font-size: 13px;
  font-weight: 600; white-space: nowrap; border: 1.5px solid currentColor; }
.pill.holds { color: var(--green); }
.pill.undecided { color: var(--orange); }
.pill.fails { color: var(--red); }
.measure { display: block; width: 100%; max-width: 230px; height: 34px; }
.measured { min-height: 42px; }
.measure { margin-bottom: 8px; }
.measure .allowed { fill: var(--grid); }
.measure .axis { stroke: var(--muted); stroke-width: 1; }
.measure .line { stroke: var(--ink); stroke-width: 2; }
.measure .range { stroke-width: 5; stroke-linecap: round; }
.measure.holds .range, .measure.holds circle { stroke: var(--green); }
.measure.undecided .range, .measure.undecided circle { stroke: var(--orange); }
.measure.fails .range, .measure.fails circle { stroke: var(--red); }
.slice .inside * { stroke: var(--purple); }
.slice .elsewhere * { stroke: var(--muted); }
.measure .undefined { fill: var(--ink); font-size: 13px; }
.measure circle { fill: var(--surface); stroke-width: 3; }
code, .digest { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
dl.digests { display: grid; grid-template-columns: 10em 1fr; gap: 4px 14px; margin: 0;
  font-size: 14px; }
dl.digests dt { color: var(--muted); }
dl.digests dd { margin: 0; }
figure { background: var(--surface); border-radius: 8px; margin: 0 0 18px;
  padding: 18px 22px; break-inside: avoid; }
.panels { display: grid; gap: 6px 28px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
.panels.n2, .panels.n4 {
  grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); }
.panel { max-width: 430px; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
@media screen and (min-width: 900px) {
  /* A single drawing has its caption at its side. */
  figure:has(.n1) { display: grid; grid-template-columns: 430px 1fr; gap: 0 32px; }
  figure:has(.n1) h3 { grid-column: 1 / -1; }
  figure:has(.n1) figcaption { align-self: center; }
}
figure svg text { font-family: inherit !important; }
figcaption { color: var(--muted); font-size: 14px; margin-top: 10px; max-width: 96ch; }
.absent { color: var(--muted); font-style: italic; margin: 4px 0; }
footer { color: var(--muted); font-size: 13px; margin-top: 36px; }
@media screen and (max-width: 760px) {
  main { padding: 20px 14px 40px; }
  h1 { font-size: 26px; }
  h1 small { display: block; font-size: 16px; }
  .card, figure { padding: 14px 12px; }
  dl.digests { grid-template-columns: 1fr; }
  dl.provenance div { grid-template-columns: 8em 1fr; }
  .facts { grid-template-columns: 1fr 1fr; }
  /* A row is a card: its first cell on top, each other beside its column's heading. */
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  table, caption, tbody, tr, tbody th { display: block; }
  tr { border: 1px solid var(--grid); border-radius: 8px; padding: 8px 12px;
    margin: 0 0 10px; }
  tbody th, td { border: 0; padding: 4px 0; }
  tbody th { font-size: 16px; }
  td, td.n { display: grid; grid-template-columns: 7.5em minmax(0, 1fr); gap: 10px;
    text-align: left; }
  td::before { content: attr(data-label); color: var(--muted); font-size: 13px;
    padding-top: 1px; }
  /* What was found stands right below the promise, before its line and figures. */
  tr:has(.pill) { display: flex; flex-direction: column; }
  tr:has(.pill) > :not(th) { order: 2; }
  tr:has(.pill) > :has(.pill) { order: 1; }
  .facts div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .measured { min-height: 0; }
}
@media print {
  :root {
    --page: #ffffff; --surface: #ffffff; --ink: #000000; --muted: #444444;
    --grid: #cccccc; --blue: #0072b2; --orange: #8f5a00; --green: #00795a;
    --red: #c04a00; --purple: #a8558a; --soft: #ffffff;
  }
  body { font-size: 11pt; }
  table { font-size: 9.5pt; }
  .panels.n2, .panels.n3, .panels.n4 { grid-template-columns: 1fr 1fr; }
  main { max-width: none; padding: 0; }
  .card, figure, .facts div { border: 1px solid var(--grid); }
  /* A table may go on overleaf, a row of it may not. */
  .decision, .card:not(:has(table)), tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
