"""Provenance: when a model was judged, in which run, under which name, on which rows.

The stage that judges knows the day and the rows, and keeps them beside its verdict;
run, name and version come later, from who keeps a copy of the page. So the list that
says all this is a part of the page that can be written again by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.typed_json import build
from safescale_ammt.judging.verdict import REHEARSAL, SEALED, Verdict
from safescale_ammt.printable import printable_lines

PROVENANCE = "provenance.json"
# Nobody else can write these: text from a file has no `<` of its own on the page.
_START, _END = "<!--provenance-->", "<!--/provenance-->"


@dataclass(frozen=True)
class Provenance:
    """Where a verdict comes from.

    Attributes:
        model: identity digest of the model.
        mode: `sealed` or `rehearsal`.
        judged: when, ISO 8601 in UTC; "" = not recorded.
        predicts: what the model predicts, the label in words; "" = not recorded.
        rows: rows by development split; empty = not recorded.
        sealed_rows: rows of the sealed split, 0 = not recorded.
        source_digest: digest of the raw data.
        days: `window` of the dataset's `source.json`; empty = all files.
        run: id of the run.
        name: the model's name in the registry.
        version: its version there and what became of it.
        source: URI of the raw rows.
        sealed_source: URI of an official test file.
    """

    model: str
    mode: str
    judged: str = ""
    predicts: str = ""
    rows: Mapping[str, int] = field(default_factory=dict)
    sealed_rows: int = 0
    source_digest: str = ""
    days: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    name: str = ""
    version: str = ""
    source: str = ""
    sealed_source: str = ""

    @classmethod
    def of(cls, verdict: Verdict) -> Provenance:
        """Returns what a verdict itself says of its provenance."""
        sealed = verdict.rows if verdict.mode == SEALED else 0
        return cls(model=verdict.model, mode=verdict.mode, sealed_rows=sealed)

    @classmethod
    def load(cls, folder: Path) -> Provenance:
        """Reads what lies beside a verdict; verdicts of older versions have less.

        Raises:
            InputError: the file has another form.
        """
        file = folder / PROVENANCE
        if not file.is_file():
            return cls.of(Verdict.load(folder))
        try:
            found = build(cls, read_json(file))
            # A day that is none, or a window without its days, shows here.
            found.facts()
            return found
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} holds no provenance: {error}.") from None

    def in_run(self, run: Mapping[str, Any]) -> Provenance:
        """Adds what only a run knows: its id, its data's URIs, the model's version.

        Args:
            run: what `run.json` holds; without a version, its model was refused.
        """
        version = run["version"] or {"version": 0, "status": "refused"}
        number = f"version {version['version']}, " if version["version"] else ""
        return replace(
            self,
            run=run["run"],
            name=run["config"]["registry"]["name"],
            version=number + version["status"].replace("_", " "),
            source=run["source"],
            sealed_source=run["sealed_source"],
        )

    def save(self, folder: Path) -> None:
        """Writes it beside a verdict."""
        write_json(folder / PROVENANCE, asdict(self))

    def facts(self) -> dict[str, str]:
        """Returns heading -> text, in the order of the page."""
        facts = {"Judged": day_and_time(self.judged), "Run": self.run}
        # A digest alone until the registry has given a name.
        named = ", ".join(part for part in (self.name, self.version) if part)
        facts["Model"] = named or f"{self.model[:19]}…, not yet named by a registry"
        facts["Predicts"] = self.predicts
        facts["Data"] = self.source or self.source_digest
        facts["Sealed data"] = self.sealed_source
        if self.days:
            facts["Days"] = days_in_words(self.days)
        # By the pipeline's order: canonical JSON sorts by name.
        splits = [f"{name} {self.rows[name]:,}" for name in SPLITS if name in self.rows]
        facts["Development rows"] = " · ".join(splits)
        if self.sealed_rows:
            until = "and not read" if self.mode == REHEARSAL else "until this judgement"
            facts["Sealed rows"] = f"{self.sealed_rows:,}, kept apart {until}"
        return {name: text for name, text in facts.items() if text}

    def html(self) -> str:
        """Writes the list of facts, between marks by which `renewed` finds it."""
        cells = "".join(
            # A line may break at the slashes of a URI.
            f"<div><dt>{name}</dt><dd>"
            f"{re.sub('(?<=[^/])/(?=[^/])', '/<wbr>', escape(text))}</dd></div>"
            for name, text in self.facts().items()
        )
        return f'{_START}<dl class="provenance">{cells}</dl>{_END}'


def renewed(page: str, provenance: Provenance) -> str:
    """Writes the list of a whole page again, now that more is known."""
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    listed = printable_lines(provenance.html())
    return before + listed + after if start and end else page


def prediction_words(label: str, positive: str) -> str:
    """Says what a model predicts: the label, and its positive class if it has one."""
    return f"{label} = {positive}" if positive else f"{label} (several classes)"


def day_and_time(at: str) -> str:
    """Writes a moment as people do, in UTC; "" for none.

    Args:
        at: ISO 8601 with an offset.
    """
    if not at:
        return ""
    moment = datetime.fromisoformat(at).astimezone(UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def days_in_words(days: Mapping[str, Any]) -> str:
    """Says which dated files were taken, and which days between had none.

    Args:
        days: as `config.window` chose them.
    """
    absent = ", ".join(days["absent_days"])
    # A day without a file is no error of a window, but its reader should know.
    gaps = f"; no file of {absent}" if absent else ""
    return f"from {days['start']} up to {days['end']}, {days['files']} files{gaps}"
