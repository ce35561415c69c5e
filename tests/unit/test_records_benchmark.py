"""The records benchmark: edits are edits, and what is missed is counted as missed."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from registered_world import write_parts

from benchmarks.records import goals, refused, steady, summary, table
from benchmarks.records_edits import KINDS, PROBE, Target, edited, undone
from benchmarks.resealing import sealed_again
from safescale_ammt.files.artifacts import read_manifest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle."""
    return write_parts(tmp_path_factory.mktemp("made"))


def test_edits_of_a_bundle_are_found_and_undone(bundle: Path) -> None:
    before = read_manifest(bundle).identity
    target = Target("bundle", bundle, lambda: refused("verify", bundle))
    rows = list(edited(target, 30, seed=3))
    assert len(rows) == 30
    assert all(row["detected"] for row in rows)
    assert len({row["kind"] for row in rows}) > 6
    assert read_manifest(bundle).identity == before
    assert refused("verify", bundle) == ""


def test_a_forger_who_mends_all_digests_is_found_by_the_registered_one(
    bundle: Path,
) -> None:
    registered = read_manifest(bundle).identity
    verify = ("verify", bundle, "--digest", registered)
    target = Target("bundle", bundle / "record", lambda: refused(*verify))
    rows = list(edited(target, 4, 0, lambda _: sealed_again(bundle)))
    assert all("recorded for it is" in str(r["said"]) for r in rows if r["detected"])
    assert all(row["detected"] for row in rows)


def test_a_command_that_finds_nothing_misses_every_edit(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "b.txt").write_text("four\nfive\n")
    (tmp_path / PROBE).write_text("never read")
    rows = list(edited(Target("blind", tmp_path, str), 20, 0))
    assert not any(row["detected"] for row in rows)
    assert {row["file"] for row in rows} == {"a.txt", "b.txt"}
    raw = [{"part": "edits", **row} for row in rows]
    (goal,) = goals(summary(raw))
    assert (goal["op"], goal["goal"], goal["value"]) == (">=", 1, 0)
    assert "0 of" in table(summary(raw))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_bytes_or_names_and_is_undone(
    tmp_path: Path, kind: str
) -> None:
    text, rows = tmp_path / "a.jsonl", tmp_path / "b.parquet"
    text.write_text("".join(f'{{"n": {i}}}\n' for i in range(9)))
    pq.write_table(pa.table({"n": list(range(9))}), rows)
    (tmp_path / "c.jsonl").write_text("other\n")
    (tmp_path / "d.parquet").write_bytes(b"other")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for file in (text, rows):
        with undone(tmp_path) as changed:
            assert not changed()
            tries = range(9)  # a byte may be drawn as what it was
            others = sorted(tmp_path.iterdir())
            any(
                KINDS[kind](random.Random(i), file, others) and changed() for i in tries
            )
            assert changed()
        assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_honest_approvals_that_are_refused_miss_their_goal() -> None:
    row = {"part": "approvals", "class": "honest", "way": "asked", "refused": True}
    (goal,) = goals(summary([row]))
    assert (goal["op"], goal["goal"], goal["value"]) == ("<=", 0, 1)
    models = [
        {"part": "models", "kind": "bad", "right": False},
        {"part": "models", "kind": "good", "right": True},
    ]
    bad, good, number = goals(summary(models))
    assert (bad["value"], good["value"]) == (0, 1)
    assert (number["what"], number["goal"]) == ("kinds of planted bad models", 12)


def test_a_sentence_is_the_same_in_every_run() -> None:
    said = f"{Path('/tmp/x')}/a has sha256:{'0' * 64}, 2026-01-02T03:04:05+00:00."
    assert steady(said, Path("/tmp/x")) == "/a has DIGEST, TIME."
