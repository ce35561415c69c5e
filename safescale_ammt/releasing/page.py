"""The page of a verdict, written again from the files that lie with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import (
    WARNINGS,
    AuditWarning,
    read_warnings,
)
from safescale_ammt.data.bias_findings import Told, read_examined
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import canonical_json, is_digest
from safescale_ammt.judging.verdict import SEALED, Verdict
from safescale_ammt.releasing.terms import open_points
from safescale_ammt.releasing.versions import Version
from safescale_ammt.reporting.logs import parse_logs, read_logs
from safescale_ammt.reporting.page_check import check_page
from safescale_ammt.reporting.provenance import (
    PROVENANCE,
    Provenance,
    prediction_words,
)
from safescale_ammt.reporting.report import MAX_BYTES, render

REPORT = "report.html"
# What a log or a provenance of another form raises where a page is written of it.
_OTHER_FORM = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def page_of(
    folder: Path,
    constitution: Constitution,
    *,
    name: str = "",
    decided: Version | None = None,
    drawn: bool = True,
) -> str:
    """Writes the page of a verdict artifact from its files.

    Args:
        folder: the artifact; whether its verdict is sound is the caller's to check.
        constitution: the constitution it was judged by.
        name: the model's name in a registry; "" = not known.
        decided: the version that it is there, with what people decided about it.
        drawn: whether pictures are drawn.

    Raises:
        InputError: a file there has another form than a page is written of.
    """
    origin = Provenance.load(folder)
    if name:
        origin = replace(origin, name=name)
    warnings, logs = read_warnings(folder / WARNINGS), read_logs(folder)
    verdict = Verdict.load(folder)
    try:
        return page_from(
            verdict,
            constitution,
            origin,
            warnings,
            logs,
            examined=read_examined(folder / WARNINGS),
            decided=decided,
            drawn=drawn,
        )
    except _OTHER_FORM as error:
        raise InputError(
            f"No page can be written of {folder}: its logs or its provenance have "
            f"another form than this version writes ({type(error).__name__})."
        ) from None


def page_from(
    verdict: Verdict,
    constitution: Constitution,
    origin: Provenance,
    warnings: Sequence[AuditWarning],
    logs: Mapping[str, bytes],
    *,
    examined: Sequence[Told] = (),
    decided: Version | None = None,
    drawn: bool = True,
) -> str:
    """Writes the page of a verdict from its parts.

    Args:
        verdict: the verdict.
        constitution: the constitution it was judged by.
        origin: where it comes from.
        warnings: about the data.
        logs: bytes by name, as `reporting.logs` returns them.
        examined: what the audit of the data says of each kind of bias.
        decided: the version that it is in a registry; its acts stand on the page.
        drawn: whether pictures are drawn.

    Raises:
        InputError: a log is not JSON.
    """
    # As the file has it, whoever writes the page: JSON gives groups and gaps one order.
    stored = Verdict.from_dict(json.loads(canonical_json(verdict.to_dict())))
    return render(
        stored,
        constitution,
        provenance=origin,
        warnings=warnings,
        examined=examined,
        acts=[asdict(act) for act in decided.acts] if decided else (),
        status=decided.status if decided else "",
        open_points=[asdict(point) for point in open_points(stored)],
        drawn=drawn,
        **parse_logs(logs),
    )


def check_provenance(folder: Path, verdict: Verdict, label: str = "") -> None:
    """Checks that the provenance beside a verdict is of this verdict.

    Args:
        folder: the verdict artifact.
        verdict: the verdict.
        label: the model's label column; "" = it is not known.

    Raises:
        IntegrityError: it is of another model, mode, label or number of rows, or tells
            of a run or a registry.
    """
    origin, own = Provenance.load(folder), Provenance.of(verdict)
    predicts = prediction_words(label, verdict.positive)
    # What only a run or a registry knows is written on their copies of the page.
    later = (origin.run, origin.name, origin.version, origin.source)
    if (
        (origin.model, origin.mode) != (own.model, own.mode)
        or (label and origin.predicts not in ("", predicts))
        or not (is_digest(origin.source_digest) or origin.source_digest == "")
        or (own.mode == SEALED and origin.sealed_rows != verdict.rows)
        or any((*later, origin.sealed_source))
    ):
        raise IntegrityError(
            f"{folder / PROVENANCE} tells of another model, mode, label or number of "
            "sealed rows than the verdict beside it, of a run or a registry, or of no "
            "digest."
        )


def check_report(folder: Path, constitution: Constitution) -> None:
    """Checks every word and number of the page of a verdict that this version wrote.

    Args:
        folder: the verdict artifact; its verdict follows from its evidence.
        constitution: the constitution it was judged by.

    Raises:
        InputError: a file there has another form than a page is written of.
        IntegrityError: a word or number that departs, or more than a page.
    """
    file = folder / REPORT
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise IntegrityError(
            f"{file} has {size:,} bytes, a page has {MAX_BYTES:,} at most."
        )
    derived = page_of(folder, constitution, drawn=False)
    try:
        stored = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise IntegrityError(f"{file} is not UTF-8.") from None
    check_page(stored, derived, str(file))
