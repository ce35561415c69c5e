"""Answers: written, read beside their verdicts by who may, and checked in a bundle.

An answer artifact stands where a verdict stands under `gate.feedback: figures`, in a
run and in a bundle: `answer.json`, the constitution and a page. All of it follows from
the answer and the constitution, so that it is written again to be checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safescale_ammt.constitution.constitution import BIT, Constitution
from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import (
    Draft,
    Manifest,
    describe_contents,
    verify,
    writing,
)
from safescale_ammt.files.canonical import json_file, read_json
from safescale_ammt.files.library import code_version
from safescale_ammt.judging.answer import ANSWER, KIND, Answer
from safescale_ammt.judging.assembly import rederive
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.printable import printable_lines
from safescale_ammt.releasing.card import front_matter
from safescale_ammt.releasing.contents import check_covered
from safescale_ammt.releasing.ledger import mark_answered, mark_opened
from safescale_ammt.releasing.page import REPORT
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.releasing.use_check import check_use
from safescale_ammt.reporting.answer_page import (
    FIGURES,
    SHORT,
    answer_page,
    guaranteed,
    left,
)
from safescale_ammt.reporting.markdown import bullets, plain
from safescale_ammt.store.auditor import committed, keep_for_auditor, kept_for_auditor
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import set_apart

CONSTITUTION = "constitution.json"


def tell_answer(
    store: Store,
    use: Use,
    judged: Verdict,
    whole: Manifest,
    files: Mapping[str, bytes | BinaryIO],
    *,
    evidence: str,
    constitution: Constitution,
    path: Path,
) -> Answer:
    """Tells one bit of a judgement, and keeps all else for the auditor.

    In this order, so that a kill at any moment tells no more than was recorded: the
    ledger's event, the verdict into the auditor's part of the store, the answer.

    Args:
        store: of data and ledger.
        use: of the sealed rows.
        judged: the verdict.
        whole: manifest of its artifact.
        files: contents of that, by name; an open file is at its beginning.
        evidence: digest of what the evidence says.
        constitution: that it was judged by.
        path: folder of the answer artifact.

    Raises:
        IntegrityError: the use was answered by other evidence.
        StorageError: the store fails, or its key does not open the auditor's part.
    """
    answer = Answer.of(judged)
    contents = answer_files(answer, constitution)
    config, parents = whole.config_digest, whole.parents
    draft = Draft(path, dict(parents), {REPORT})
    told = describe_contents(contents, draft, KIND, whole.stage, config)
    mark_answered(
        store,
        use,
        evidence=committed(store, evidence),
        verdict=committed(store, whole.identity),
        passed=answer.passed,
    )
    keep_for_auditor(store, told.identity, whole, files)
    with writing(
        path, kind=KIND, stage=whole.stage, config_digest=config, parents=parents
    ) as draft:
        draft.outside_identity.add(REPORT)
        for name, data in contents.items():
            (draft.folder / name).write_bytes(data)
    return answer


def answer_files(answer: Answer, constitution: Constitution) -> dict[str, bytes]:
    """Returns what an answer artifact holds, by name."""
    return {
        ANSWER: json_file(answer.to_dict()),
        CONSTITUTION: json_file(constitution.to_dict()),
        REPORT: answer_page(answer, constitution).encode(),
    }


def verify_answer(path: Path) -> tuple[Manifest, Answer, Constitution]:
    """Checks an answer artifact, from its bytes to the last word of its page.

    Raises:
        InputError: this is no answer.
        IntegrityError: a byte or a word that does not follow.
    """
    told = verify(path, KIND)
    answer = Answer.load(path)
    constitution = Constitution.from_dict(read_json(path / CONSTITUTION))
    expected = answer_files(answer, constitution)
    check_covered({KIND: told})
    for name in sorted(told.files.keys() | expected.keys()):
        # Another version may have worded its page otherwise, and nothing else.
        worded = name == REPORT and told.code_version != code_version()
        stored = (path / name).read_bytes() if name in told.files else None
        if stored is None or (stored != expected.get(name) and not worded):
            raise IntegrityError(
                f"{path / name} does not follow from the answer beside it."
            )
    stated = {
        "constitution": (answer.constitution, constitution.digest),
        **{
            role: (getattr(answer, role), told.parents.get(role))
            for role in ("model", "dataset", "holdout")
        },
    }
    for what, (own, other) in stated.items():
        if own != other:
            raise IntegrityError(f"The answer's {what} is {own}, found {other}.")
    if constitution.gate.feedback != BIT:
        raise IntegrityError(
            f"{path} is an answer, and its constitution asks for figures "
            "(gate.feedback)."
        )
    return told, answer, constitution


@contextmanager
def behind(
    store: Store, path: Path, beside: Path | None = None
) -> Iterator[tuple[Path, Verdict]]:
    """Gives the verdict behind an answer, derived again, to who may read it.

    Args:
        store: of data.
        path: the answer artifact.
        beside: as in `store.protected.private_scratch`.

    Raises:
        InputError: this is no answer, or the store holds no verdict behind it.
        IntegrityError: answer or verdict was changed, or they are not of each other.
        StorageError: the store fails, or its key does not open the auditor's part.
    """
    told, answer, constitution = verify_answer(path)
    with kept_for_auditor(store, told.identity, beside) as whole:
        verdict = rederive(whole, constitution)
        judged = verify(whole, "verdict")
        if Answer.of(verdict) != answer or judged.parents != told.parents:
            raise IntegrityError(
                f"The answer {told.identity} is not that of the verdict that the "
                f"auditor's part of {store.uri} holds behind it."
            )
        yield whole, verdict


def opened_verdict(store: Store, path: Path, out: Path) -> tuple[Verdict, Use]:
    """Opens the use behind an answer, and writes its verdict for everybody to read.

    Args:
        store: of data and ledger.
        path: the answer artifact.
        out: folder to write: the verdict artifact as a run has it whose figures are
            told, its evidence below `sealed/` of the store.

    Returns:
        The verdict, and the use as the ledger has it now.

    Raises:
        InputError, IntegrityError, StorageError: as in `behind`; also if the ledger
            holds no such answer, or the key does not open `sealed/`.
    """
    constitution = verify_answer(path)[2]
    planned = constitution.gate.planned_submissions
    with behind(store, path, out) as (whole, verdict):
        use, told = check_use(store, whole, verdict, planned, answered=True)
        # Before a byte of it is where others read.
        opened = mark_opened(store, use, evidence=told.evidence, verdict=told.verdict)
        set_apart(store, whole, out)
    return verdict, opened


def answer_card(
    answer: Answer,
    identity: str,
    constitution: Constitution,
    schema: Mapping[str, Any],
    *,
    name: str,
    description: str,
) -> str:
    """Writes the model card of an answer; the arguments are those of `write_card`."""
    features = ", ".join(plain(f["name"]) for f in schema["features"])
    classes = ", ".join(f"`{plain(label)}`" for label in schema["classes"])
    parts = [
        front_matter(answer, identity, name),
        f"# {plain(name)}\n",
        f"{plain(description)}\n" if description else "",
        f"**{SHORT[answer.passed]}.** {answer.reasons[0]}\n",
        "## What goes in and comes out\n",
        (
            f"Reads rows with {len(schema['features'])} features ({features}) and "
            f"predicts *{plain(schema['label'])}*: {classes}.\n"
        ),
        "## What was promised\n",
        (
            f"Constitution *{plain(constitution.id)}* {plain(constitution.version)}, "
            f"written by {plain(constitution.owner)}; {answer.rows:,} rows.\n"
        ),
        bullets([f"{p.id}: {p.sentence()}" for p in constitution.principles]),
        "## What this guarantees\n",
        f"{guaranteed(answer, constitution)} {left(answer)}\n",
        "## Where the figures are\n",
        f"{FIGURES}\n",
    ]
    return printable_lines("\n".join(part for part in parts if part))


def answer_summary(answer: Answer, constitution: Constitution) -> str:
    """Writes the short Markdown form that the pipeline's page shows."""
    parts = [
        f"# {SHORT[answer.passed]}\n",
        f"{answer.reasons[0]}\n",
        f"{left(answer)}\n",
        f"{guaranteed(answer, constitution)}\n",
        f"{FIGURES}\n",
    ]
    return printable_lines("\n".join(parts))
