"""A small made-up world for tests: evidence, constitution, model and verdict.

The model artifact has the right form but no network in it: what is tested here
begins where predictions have been made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.audit_warnings import AuditWarning, save_warnings
from safescale_ammt.files.artifacts import Manifest, verify, writing
from safescale_ammt.files.canonical import digest_bytes, digest_file, write_json
from safescale_ammt.judging.assembly import Submission, assemble
from safescale_ammt.judging.evidence import EVIDENCE, Evidence, write_evidence
from safescale_ammt.judging.verdict import SealedUse, Verdict
from safescale_ammt.releasing.page import page_of

GROUPS = {"sex": ("Female", "Male"), "race": ("(missing)", "A", "B")}
CLASSES = ("no", "yes")
TRAINING = [
    {
        "event": "round",
        "step": 20 * i,
        "loss": [0.5 / (1 + i), 0.6 / (1 + i), 0.7],
        "violation": {"equal-opportunity": 0.05 - 0.01 * i},
        "multiplier": {"equal-opportunity": {"Female<Male": 0.1 * i}},
    }
    for i in range(8)
]


def constitution(
    threshold: float = 0.2, *, text: str = "Similar rates for all.", **gate: Any
) -> Constitution:
    """Equal opportunity by sex, accuracy against the twin, a soft parity by race."""
    return Constitution.from_dict(
        {
            "schema": 1,
            "constitution": {"id": "test", "version": "1.2.3", "owner": "risk-team"},
            "principles": [
                {
                    "id": "equal-opportunity",
                    "text": text,
                    "constraint": {
                        "metric": "tpr_gap",
                        "group": "sex",
                        "threshold": threshold,
                    },
                },
                {
                    "id": "race-parity",
                    "constraint": {
                        "metric": "dp_gap",
                        "group": "race",
                        "threshold": 0.2,
                        "tier": "soft",
                    },
                },
                {
                    "id": "useful",
                    "constraint": {
                        "metric": "accuracy",
                        "reference": "unconstrained_twin",
                        "delta": -0.02,
                        "floor": 0.7,
                    },
                },
            ],
            "gate": gate,
            "groups": {"min_n": 50, "min_pos": 20},
        }
    )


def evidence(rows: int = 700, gap: float = 0.0, seed: int = 0) -> Evidence:
    """Draws rows whose true positive rate differs by `gap` between the sexes."""
    rng = np.random.default_rng(seed)
    sex, race = rng.integers(0, 2, rows), rng.integers(0, 3, rows)
    label = (rng.random(rows) < 0.4).astype(np.int64)
    right = np.where(label == 1, 0.85 - gap * (sex == 0), 0.9)
    prediction = np.where(rng.random(rows) < right, label, 1 - label)
    twin = np.where(rng.random(rows) < 0.02, 1 - prediction, prediction)
    noise = rng.random(rows) / 2
    return Evidence(
        label=label,
        prediction=prediction,
        score=prediction / 2 + noise,
        groups={"sex": (GROUPS["sex"], sex), "race": (GROUPS["race"], race)},
        twin_prediction=twin,
        twin_score=twin / 2 + noise,
    )


def hashes(rows: int, seed: int = 0) -> np.ndarray:
    """Draws raw-row hashes, (n,) V16."""
    return np.frombuffer(np.random.default_rng(seed).bytes(16 * rows), dtype="V16")


def schema() -> dict[str, Any]:
    """The parts of a model's `schema.json` that a bundle reads."""
    return {
        "schema": 1,
        "features": [{"name": "age", "kind": "numeric"}],
        "label": "outcome",
        "classes": list(CLASSES),
        "positive": "yes",
        "groups": {name: list(values) for name, values in GROUPS.items()},
    }


WARNINGS = tuple(
    AuditWarning("proxy", (f"c{i}",), 0.9 - i / 10, f"'c{i}' | stands in <for> 'sex'.")
    for i in range(8)
)

PARENTS = {
    "dataset": digest_bytes(b"dataset"),
    "architecture": digest_bytes(b"architecture"),
}
HOLDOUT = digest_bytes(b"holdout")


def write_model(path: Path, rule: Constitution, weights: bytes = b"w") -> Manifest:
    """Writes an artifact with the form of a model."""
    with writing(path, kind="model", stage="train_agents", parents=PARENTS) as draft:
        for folder in (draft.folder, draft.folder / "twin"):
            folder.mkdir(exist_ok=True)
            (folder / "weights.safetensors").write_bytes(weights)
            write_json(folder / "schema.json", schema())
        write_json(draft.folder / "constitution.json", rule.to_dict())
        write_training(draft.folder / "training.jsonl")
        draft.outside_identity.add("training.jsonl")
    return verify(path, "model")


def write_training(file: Path) -> None:
    """Writes the log of a training."""
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(event)}\n" for event in TRAINING))


def submission(
    model: str, *, mode: str = "sealed", ledger: str = "official", **use: Any
) -> Submission:
    """A first use of the sealed rows by a model."""
    facts = {"number": 1, "planned": 1, "guarantee": "holds", **use}
    return Submission(
        model=model,
        dataset=PARENTS["dataset"],
        holdout=HOLDOUT,
        mode=mode,
        ledger=ledger,
        use=SealedUse(**facts),
        classes=CLASSES,
        positive="yes",
        bins=10,
        base_rates=(0.6, 0.4),
    )


_ASSEMBLED: dict[tuple[str, str, Submission], Verdict] = {}


def assembled(
    rule: Constitution, rows: Evidence, about: Submission, digest: str
) -> Verdict:
    """Judges once per constitution, evidence file and submission: it takes time."""
    key = (rule.digest, digest, about)
    if key not in _ASSEMBLED:
        _ASSEMBLED[key] = assemble(rule, rows, about, digest)
    return _ASSEMBLED[key]


def write_verdict(
    path: Path,
    rule: Constitution,
    rows: Evidence,
    about: Submission,
    *,
    change: Mapping[str, Any] | None = None,
    page: bool = False,
    warnings: Sequence[AuditWarning] = (),
) -> Verdict:
    """Writes a verdict artifact; `change` forges fields of verdict.json.

    With `page`, its report has pictures, which take a second.
    """
    parents = {
        **PARENTS,
        "model": about.model,
        "dataset": about.dataset,
        "holdout": about.holdout,
    }
    with writing(
        path, kind="verdict", stage="evaluate_safety", parents=parents
    ) as draft:
        file = draft.folder / EVIDENCE
        write_evidence(file, rows, hashes(len(rows.label)))
        verdict = assembled(rule, rows, about, digest_file(file))
        verdict.save(draft.folder)
        save_warnings(draft.folder, warnings)
        write_json(draft.folder / "constitution.json", rule.to_dict())
        write_training(draft.folder / "logs/training.jsonl")
        html = page_of(draft.folder, rule, drawn=page)
        (draft.folder / "report.html").write_text(html)
        draft.outside_identity |= {"report.html", "logs/training.jsonl"}
        if change:
            write_json(draft.folder / "verdict.json", {**verdict.to_dict(), **change})
    return verdict
