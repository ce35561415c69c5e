"""A forger: changes parts of a bundle and makes every digest fit again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.resealing import sealed_again
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.record import write_record


def rerecorded(folder: Path, **versions: str) -> None:
    """Writes record and manifests anew: the record tells of what lies there now."""
    if "bundle" in versions:
        change(folder / "about.json", code_version=versions["bundle"])
    sealed_again(folder, **versions)
    model = read_manifest(folder / "model").identity
    change(folder / "verdict/verdict.json", model=model)
    sealed_again(folder, **versions)
    rule = Constitution.from_dict(read_json(folder / "constitution.json"))
    trained, judged = (read_manifest(folder / part) for part in ("model", "verdict"))
    verdict = Verdict.load(folder / "verdict")
    write_record(folder / "record", verdict, judged, rule, trained)
    card = folder / "card.md"
    lines = card.read_text("utf-8").splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith("verdict: "))
    lines[at] = f"verdict: {judged.identity}\n"
    card.write_text("".join(lines), "utf-8")
    sealed_again(folder, **versions)


def change(file: Path, **fields: Any) -> None:
    """Sets fields of a JSON file."""
    write_json(file, {**read_json(file), **fields})


def change_findings(folder: Path, **fields: str) -> None:
    """Sets fields of the first finding, in the verdict and in its own file."""
    verdict = Verdict.load(folder / "verdict")
    first = replace(verdict.findings[0], **fields)  # type: ignore[arg-type]
    forged = replace(verdict, findings=(first, *verdict.findings[1:]))
    forged.save(folder / "verdict")


def rewrite(file: Path, words: Mapping[str, str]) -> None:
    """Replaces texts, each of which stands there."""
    text = file.read_text("utf-8")
    for old, new in words.items():
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text, "utf-8")
