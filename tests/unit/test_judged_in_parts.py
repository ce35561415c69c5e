"""Sealed rows and evidence in parts: the same bytes, bits and counts as all at once."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safety_world import CLASSES, GROUPS, evidence, hashes

from safescale_ammt.data import dataset
from safescale_ammt.data.encoding import learn_categorical
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.data.row_keys import Parts, RowKeys
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import ROW, arrow_rows
from safescale_ammt.data.unseen import UnseenTally, unseen_inputs
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.parquet import fixed_bytes, read_fixed
from safescale_ammt.judging import calibration
from safescale_ammt.judging import evidence as evidence_module
from safescale_ammt.judging.assembly import problems
from safescale_ammt.judging.evidence import (
    EVIDENCE,
    Evidence,
    code_type,
    distinct_rows,
    evidence_digest,
    read_evidence,
    write_evidence,
)
from safescale_ammt.judging.profile import describe, roc
from safescale_ammt.judging.skill import area
from safescale_ammt.judging.usefulness import headlines
from safescale_ammt.reading.columns import Column
from safescale_ammt.releasing import key_sets
from safescale_ammt.releasing.key_sets import KeySets, shared
from safescale_ammt.releasing.rescoring import departures, orders_of
from safescale_ammt.store.base import Store

NAMED: dict[str, Any] = {"classes": CLASSES, "positive": "yes"}


def figures(rows: Evidence) -> str:
    """All that is made of scores and codes, to the last bit."""
    told = (describe(rows, 15), roc(rows), headlines(rows, (0.7, 0.3)), area(rows))
    return repr((told, calibration.binned_errors(rows, "race")))


def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "PART_ROWS", 64)
    monkeypatch.setattr(evidence_module, "READ_ROWS", 50)
    monkeypatch.setattr(calibration, "AT_ONCE", 7)


def test_evidence_by_row_groups_is_the_file_and_digest_of_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, names, whole = evidence(), hashes(700), io.BytesIO()
    write_evidence(tmp_path / "one", rows, names)
    digest, distinct = evidence_digest(rows, names), distinct_rows(names).tobytes()
    pq.write_table(
        pq.read_table(tmp_path / "one"), whole, row_group_size=64, compression="zstd"
    )
    in_small_parts(monkeypatch)
    write_evidence(tmp_path / EVIDENCE, rows, names)

    assert (tmp_path / EVIDENCE).read_bytes() == whole.getvalue()
    assert pq.read_metadata(tmp_path / EVIDENCE).num_row_groups == 11
    back, again = read_evidence(tmp_path / EVIDENCE, GROUPS, **NAMED)
    assert again.tobytes() == names.tobytes()
    assert evidence_digest(rows, names) == evidence_digest(back, again) == digest
    assert distinct_rows(again).tobytes() == distinct
    assert {back.label.dtype, back.prediction.dtype} == {np.dtype(np.int8)}


@pytest.mark.parametrize("seed", range(4))
def test_figures_of_parts_and_of_small_codes_have_the_same_bits(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = evidence(seed=seed)
    # Scores that many rows share, for half of the worlds.
    rows = replace(rows, score=np.round(rows.score, 2)) if seed % 2 else rows
    small = replace(
        rows,
        label=rows.label.astype(np.int8),
        prediction=rows.prediction.astype(np.int8),
        groups={n: (v, c.astype(np.int8)) for n, (v, c) in rows.groups.items()},
    )
    expected = figures(rows)
    in_small_parts(monkeypatch)
    assert figures(small) == figures(rows) == expected


def test_a_class_that_no_code_type_holds_is_read_and_told(tmp_path: Path) -> None:
    rows = evidence()
    rows.prediction[3] = 70_000
    write_evidence(tmp_path / EVIDENCE, rows, hashes(700))
    back, _ = read_evidence(tmp_path / EVIDENCE, GROUPS, **NAMED)
    assert back.prediction[3] == 70_000
    assert problems(back) == ("The model predicts a class that does not exist.",)
    assert [code_type(n) for n in (2, 128, 129, 40_000)] == [
        *(np.int8, np.int8, np.int16, np.int64),
    ]


def test_evidence_with_a_gap_in_a_later_row_group_is_refused(tmp_path: Path) -> None:
    write_evidence(tmp_path / "whole", evidence(), hashes(700))
    table = pq.read_table(tmp_path / "whole")
    scores = table["score"].to_pylist()
    scores[650] = None
    holed = table.set_column(3, "score", pa.array(scores, pa.float64()))
    pq.write_table(holed, tmp_path / EVIDENCE, row_group_size=100)
    with pytest.raises(IntegrityError, match=r"'score' of .* lacks 1 values"):
        read_evidence(tmp_path / EVIDENCE, GROUPS, **NAMED)


NUMBERS = st.sets(st.integers(0, 60))


@given(NUMBERS, NUMBERS, st.integers(1, 5), st.integers(1, 5))
def test_sets_in_parts_share_what_sets_share(
    one: set[int], other: set[int], a: int, b: int
) -> None:
    def parts(numbers: set[int], size: int) -> Any:
        names = [n.to_bytes(16, "big") for n in sorted(numbers)]
        cuts = range(0, len(names), size)
        return (np.array(names[at : at + size], "S16") for at in cuts)

    assert shared(parts(one, a), parts(other, b)) == len(one & other)


def test_large_sets_are_counted_as_small_ones_and_a_change_shows(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sets, "SMALL", 40)
    names = hashes(300)
    first, second = names[:200], names[150:]
    sets = KeySets(file_store, ["ledger"])
    one, other = sets.put(first, "rows"), sets.put(second, "rows")
    assert sets.common(one, other) == sets.common(other, one) == 50
    again = KeySets(file_store, ["ledger"])
    assert (again.size(one), again.size(other), again.common(one, other)) == (
        *(200, 150, 50),
    )
    key = f"ledger/rows/{other.removeprefix('sha256:')}"
    # Its last byte: what comes before is sorted as it was.
    file_store.put(key, file_store.get(key)[:-1] + b"\xff")
    for read in (lambda s: s.size(other), lambda s: s.common(one, other)):
        with pytest.raises(IntegrityError, match=f"recorded {other}, found sha256:"):
            read(KeySets(file_store, ["ledger"]))


def people(entity: str) -> Schema:
    column = Column.of(pa.chunked_array([["a", "b", "a", "c"]]))
    return Schema(
        features=(learn_categorical("job", column, (), 64),),
        label="y",
        classes=("no", "yes"),
        positive="yes",
        sensitive=(),
        groups={"sex": ("F", "M")},
        merges={},
        crosses={},
        drop=(),
        entity=entity,
        columns=("job", "sex", "y"),
        missing=(),
        label_map={},
        comment="",
    )


@pytest.mark.parametrize("entity", ["", "who"])
def test_judged_rows_come_in_batches_one_of_each_entity(
    entity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, schema = np.random.default_rng(0), people(entity)
    whole = dataset.Split(
        pa.table({"job": rng.choice([*"abcxy"], 90)}),
        rng.integers(0, 2, 90),
        {"sex": rng.integers(0, 2, 90)},
        hashes(90),
        rng.integers(0, 40, 90) if entity else None,
    )
    whole.write(tmp_path / "s.parquet", schema)
    monkeypatch.setattr(dataset, "BATCH_ROWS", 16)
    stored = StoredRows.of([tmp_path / "s.parquet"], schema, 90)
    judged, batches = whole.thinned(), [*stored.batches()]

    assert (len(stored), stored.rows) == (len(judged), 90)
    assert len(batches) == 6
    assert np.concatenate([b.label for b in batches]).tolist() == judged.label.tolist()
    assert stored.hashes().tobytes() == judged.rows.tobytes()
    tally = UnseenTally(schema)
    for batch in batches:
        tally.add(batch.features)
    expected = {u.column: u.shown for u in unseen_inputs(schema, judged.features)}
    assert tally.told() == expected
    assert expected.keys() == {"job"}


def test_hashes_of_slices_are_theirs_and_a_gap_is_refused(tmp_path: Path) -> None:
    names = hashes(9)
    column = pa.chunked_array([arrow_rows(names)[2:5], arrow_rows(names)[7:]])
    assert fixed_bytes(column, ROW).tobytes() == names[[2, 3, 4, 7, 8]].tobytes()
    gap = pa.array([b"x" * 16, None], pa.binary(16))
    pq.write_table(pa.table({"_row": gap}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="values of another type in '_row'"):
        read_fixed(tmp_path / "x.parquet", "_row", ROW)


def test_keys_are_read_kind_by_kind(tmp_path: Path) -> None:
    keys = {"file": hashes(1), "varying": hashes(50, seed=1)}
    RowKeys(keys, Parts(50, 9, 0.0, ())).save(tmp_path)
    (tmp_path / "schema.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schema, "load", lambda folder: people(""))
        known = RowKeys.load(tmp_path).whole
    assert {kind: known[kind].tobytes() for kind in known} == {
        kind: names.tobytes() for kind, names in keys.items()
    }
    with pytest.raises(KeyError):
        known["entity"]


def test_rows_in_another_order_are_likened_by_their_hashes() -> None:
    rows, names = evidence(), hashes(700)
    order = np.random.default_rng(0).permutation(700)
    moved = Evidence(
        **{
            name: getattr(rows, name)[order]
            for name in (
                *("label", "prediction", "score"),
                *("twin_prediction", "twin_score"),
            )
        },
        groups={name: (v, codes[order]) for name, (v, codes) in rows.groups.items()},
    )
    keys = names.view(np.uint8).reshape(-1, 16)
    orders, faults = orders_of(keys, names[order])
    assert not faults
    assert [*departures(rows, moved, orders, 0.0)] == []
    assert [*departures(rows, moved, None, 0.0)]
    assert orders_of(keys, names) == (None, [])
    twice = np.append(names[:699], names[:1])
    assert orders_of(keys, twice)[1] == [
        "1 sealed rows are not in the evidence",
        "1 rows of the evidence are no sealed rows",
    ]
