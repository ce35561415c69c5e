"""Technical documentation in the structure of Annex IV, from a bundle alone.

The annex lists what a provider of a high-risk system writes down. What the record of a
release holds of it is told under the point that asks for it, each fact with the file
that it stands in; where it holds nothing, that is said, and a person has to write it.
Nothing here claims that a point is answered in full, or that a system conforms.

Source: Regulation (EU) 2024/1689, Annex IV; its points in our own words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import WARNINGS, read_warnings
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.findings import figure
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.releasing.record import EVENTS, read_chain
from safescale_ammt.releasing.versions import Version
from safescale_ammt.reporting.logs import TRAINING
from safescale_ammt.reporting.markdown import plain
from safescale_ammt.reporting.measure_bar import measures_of
from safescale_ammt.reporting.people import SINGLE_PARTY
from safescale_ammt.reporting.provenance import PROVENANCE, Provenance
from safescale_ammt.reporting.slices_section import told as slices_told
from safescale_ammt.reporting.wording import (
    decided,
    ends,
    guarantee,
    limits,
    percent,
    reasons_told,
    rows_told,
    without_few,
)

Fact = tuple[str, str]
"""What the record says, as Markdown, and the file of the bundle where it stands."""
LOG = "the registry's log"
NOTHING = "*Not in the record: a person must write it.*"
HEAD = (
    "What follows is taken from the record of one release and nothing else, in the "
    "structure of Annex IV to Regulation (EU) 2024/1689. It is no declaration of "
    "conformity and no legal advice, and a point under which something stands need not "
    "be answered in full. Each fact names the file of the bundle that holds it; "
    "`safescale verify` derives the figures again."
)
SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "1. What the system is",
        (
            ("1a", "Purpose, provider, version and how it relates to earlier ones"),
            ("1b", "Other hardware, software or AI systems that it works with"),
            ("1c", "Versions of the software, and what updates ask for"),
            ("1d", "Forms in which it is put on the market or into service"),
            ("1e", "Hardware that it is meant to run on"),
            ("1f", "Looks, marking and inside of the product it is a part of"),
            ("1g", "The interface that its deployer sees"),
            ("1h", "Instructions for use"),
        ),
    ),
    (
        "2. What it is made of, and how it was developed",
        (
            ("2a", "Methods and steps of development, and parts by others"),
            ("2b", "Design: logic, what is optimised for, choices and trade-offs"),
            ("2c", "Architecture, and the computing that went into it"),
            ("2d", "Data: origin, scope, selection, labels, cleaning"),
            ("2e", "Measures of human oversight"),
            ("2f", "Changes that are determined beforehand"),
            ("2g", "Validation and testing: data, metrics, results, logs"),
            ("2h", "Measures of cybersecurity"),
        ),
    ),
    (
        "3. How it works, is watched and is controlled",
        (
            ("3a", "Accuracy over all, and for groups of people"),
            ("3b", "Limits, foreseeable unintended outcomes and sources of risk"),
            ("3c", "Oversight, and means by which deployers read its output"),
            ("3d", "What input data have to be"),
        ),
    ),
    ("4. Why its metrics are the right ones", (("4", "Choice of the metrics"),)),
    ("5. Risk management", (("5", "The risk management system"),)),
    ("6. Changes over its life", (("6", "Changes by the provider"),)),
    ("7. Standards", (("7", "Harmonised standards, or what is used instead"),)),
    ("8. Declaration", (("8", "Copy of the EU declaration of conformity"),)),
    ("9. After it is on the market", (("9", "How its performance is watched"),)),
)
"""Sections, and of each the points by name with what they ask for."""


def annex_iv(
    bundle: Path, verdict: Verdict, digest: str, version: Version | None = None
) -> str:
    """Writes the document as Markdown, which prints as it is.

    Args:
        bundle: a verified bundle.
        verdict: its verdict.
        digest: the bundle's identity digest.
        version: that it is in a registry; None = nothing is known of one.

    Raises:
        InputError: a file of the bundle is of another form.
    """
    known: dict[str, list[Fact]] = defaultdict(list)
    for facts in (
        system_facts(bundle, verdict),
        making_facts(bundle),
        data_facts(bundle, verdict),
        oversight_facts(bundle, version),
        testing_facts(bundle, verdict),
        limits_facts(bundle, verdict),
    ):
        for point, text, where in facts:
            known[point].append((text, where))
    parts = ["# Technical documentation, in the structure of Annex IV\n", f"{HEAD}\n"]
    parts.append(f"Bundle `{digest}`, model `{verdict.model}`.\n")
    for title, points in SECTIONS:
        parts.append(f"## {title}\n")
        for point, asks in points:
            parts.append(f"### {point}) {asks}\n")
            told = [f"- {text} (`{where}`)" for text, where in known[point]]
            parts.append(("\n".join(told) or NOTHING) + "\n")
    return printable_lines("\n".join(parts))


Facts = Iterator[tuple[str, str, str]]
"""Point, what is known of it as Markdown, and where it stands."""


def system_facts(bundle: Path, verdict: Verdict) -> Facts:
    """Yields what it is, which code made it and what it reads."""
    about = read_json(bundle / "about.json")
    registry, schema = about["registry"], read_json(bundle / "schema.json")
    yield "1a", f"Registered as *{plain(registry['name'])}*.", "about.json"
    if registry["description"]:
        told = plain(registry["description"])
        yield "1a", f"Described by its owner as: {told}", "about.json"
    if registry.get("run_owner"):
        owner = plain(registry["run_owner"])
        yield "1a", f"The run that made it is answered for by {owner}.", "about.json"
    label, classes = plain(schema["label"]), ", ".join(map(plain, verdict.classes))
    yield "1a", f"It predicts *{label}*, one of: {classes}.", "schema.json"
    code = plain(about["code_version"])
    yield "1c", f"Registered by safescale-ammt, code {code}.", "about.json"
    for part in ("model", "verdict"):
        code = plain(read_manifest(bundle / part).code_version)
        yield "1c", f"The {part} was made by code {code}.", f"{part}/manifest.json"
    for feature in schema["features"]:
        told = f"Input *{plain(feature['name'])}*, {plain(feature['kind'])}."
        yield "3d", told, "schema.json"


def making_facts(bundle: Path) -> Facts:
    """Yields how it was trained, for which promises, and what the net is."""
    constitution = Constitution.from_dict(read_json(bundle / "constitution.json"))
    trained, where = read_manifest(bundle / "model"), "model/manifest.json"
    config = ""
    if trained.config_digest:
        config = f", under a config of digest `{plain(trained.config_digest)}`"
    yield "2a", f"Trained by the stage {plain(trained.stage)}{config}.", where
    for role, digest in sorted(trained.parents.items()):
        point = {"dataset": "2d", "architecture": "2c"}.get(role, "2b")
        yield point, f"Made from {plain(role)} `{digest}`.", where
    if TRAINING in trained.files:
        yield "2a", "Each step of the training is logged.", f"model/{TRAINING}"
    for principle in constitution.principles:
        name, told = plain(principle.id), plain(principle.sentence())
        yield "2b", f"Promise *{name}*: {told}.", "constitution.json"
        if principle.why:
            yield "4", f"*{name}*: {plain(principle.why)}", "constitution.json"
    genome = bundle / "model" / "genome.json"
    for key, value in sorted(read_json(genome).items()) if genome.is_file() else ():
        # Of a module of the user's own the code stands there too.
        if isinstance(value, str | int | float):
            yield "2c", f"{plain(key)}: {plain(value)}.", "model/genome.json"


def data_facts(bundle: Path, verdict: Verdict) -> Facts:
    """Yields which rows it saw and was judged on."""
    file = bundle / "verdict" / PROVENANCE
    known, where = Provenance.of(verdict), "verdict/verdict.json"
    if file.is_file():
        known, where = Provenance.load(file.parent), f"verdict/{PROVENANCE}"
    for split, rows in known.rows.items():
        yield "2d", f"Split *{plain(split)}*: {rows:,} rows.", where
    if known.sealed_rows:
        told = f"Sealed rows, which training never read: {known.sealed_rows:,}."
        yield "2d", told, where
    if known.source_digest:
        yield "2d", f"Raw data of digest `{plain(known.source_digest)}`.", where
    if known.judged:
        yield "2g", f"Judged {plain(known.judged)}.", where
    for warning in read_warnings(bundle / "verdict" / WARNINGS):
        yield "2d", f"Audit: {plain(warning.sentence)}", f"verdict/{WARNINGS}"


def oversight_facts(bundle: Path, version: Version | None) -> Facts:
    """Yields who may decide about it, and who did."""
    human = Constitution.from_dict(read_json(bundle / "constitution.json")).human
    for name in human.approvers:
        told = f"{plain(name)} may approve what the gate leaves open."
        yield "2e", told, "constitution.json"
    if human.approvers:
        quorum = f"{human.quorum} of them have to, each for {human.expires_days} days"
        points = ", ".join(human.may_override) or "nothing"
        told = f"{quorum}; people may decide about: {points}."
        yield "2e", told, "constitution.json"
    if version is None:
        return
    status = version.status.replace("_", " ")
    told = f"Version {version.number}, registered {version.at}, is {status}"
    before = f"the champion before it was {version.predecessor or 'none'}"
    yield "6", f"{told}; {before}.", LOG
    for act in version.acts:
        alone = "" if act.independent else f" ({SINGLE_PARTY})"
        told = f"{act.act} by {plain(act.by)}, {act.issued}{alone}: {plain(act.reason)}"
        yield "2e", told, LOG
        yield "6", f"{act.act} by {plain(act.by)}, {act.issued}.", LOG


def testing_facts(bundle: Path, verdict: Verdict) -> Facts:
    """Yields what was measured, with bounds."""
    where = "verdict/verdict.json"
    use = f"use {verdict.use.number} of {verdict.use.planned} planned"
    rows = f"{verdict.rows:,} rows, {use}; error level {verdict.alpha:g}"
    yield "2g", f"{decided(verdict)[1]} On {rows}.", where
    for finding in verdict.findings:
        for measure in measures_of(finding):
            name = f"*{plain(finding.principle)}*, {plain(measure.label)}"
            bounds = ends(measure.lower, measure.upper)
            told = f"{name}: {figure(measure.value)}, bounds {bounds}"
            end = f"by {plain(finding.method)}: {measure.outcome}"
            yield "2g", f"{told}, {end}.", where
    head = read_chain(bundle / "record" / EVENTS)[-1]["digest"]
    yield "2g", f"The log of the release ends in `{head}`.", f"record/{EVENTS}"
    for who in ("model", "twin"):
        rate = verdict.figures[who]["accuracy"]
        title = "the model" if who == "model" else "the unconstrained twin"
        yield "3a", f"Accuracy of {title}: {_rate(rate)}.", where
    for name, group in verdict.figures["model"]["groups"].items():
        for rate in without_few(group["rates"]):
            told = f"{plain(name)} = {plain(rate['value'])}"
            yield "3a", f"Errors of {told}: {_rate(rate['error'])}.", where
    if verdict.slices is None:
        return
    yield "2g", plain(slices_told(verdict.slices)), where
    for found in verdict.slices.confirmed:
        inside, outside = (percent(rate[0]) for rate in (found.inside, found.outside))
        name = plain(found.proposal.words)
        told = f"Where {name}, {inside} of {found.rows:,} rows are wrong"
        yield "3a", f"{told}, of all others {outside}.", where


def limits_facts(bundle: Path, verdict: Verdict) -> Facts:
    """Yields what the figures do not show."""
    constitution = Constitution.from_dict(read_json(bundle / "constitution.json"))
    where = "verdict/verdict.json"
    for reason in reasons_told(verdict):
        yield "3b", plain(reason), where
    yield "3b", guarantee(verdict, constitution), where
    for sentence in limits(verdict, constitution):
        yield "3b", plain(sentence), where


def _rate(rate: Mapping[str, Any]) -> str:
    rows = f"{rows_told(rate['n'])} rows"
    if rate["value"] is None:
        return f"not told of {rows}"
    low, value, high = (rate[key] * 100 for key in ("lower", "value", "upper"))
    return f"{value:.2f} % [{low:.2f}, {high:.2f}], {rows}"
