"""What is judged: independent draws of a stated unit, and nobody chooses them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
import torch
from preparing import run
from promises import adult_counts
from safety_world import constitution, evidence, hashes, submission, write_verdict
from small_tables import config, loans, officially_sealed, save, spell

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.audit_warnings import read_warnings
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import row_hex
from safescale_ammt.errors import DataError, InputError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.files.canonical import digest_bytes, digest_file, read_json
from safescale_ammt.judging.assembly import assemble, rederive
from safescale_ammt.judging.evidence import EVIDENCE, write_evidence
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.card import write_card
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.wording import guarantee, limits
from safescale_ammt.training.folds import stratified_folds

Rows = list[list[str]]
ID = 5
ONE_EACH = {"drop": [], "entity": "id"}
MODEL = digest_bytes(b"model")


def prepared(
    folder: Path, rows: Rows, sealed: Rows | None = None, **changes: Any
) -> tuple[Dataset, Holdout, dict[str, Any]]:
    section = {"source": save(folder / "loans.csv", spell(rows)), **changes}
    if sealed is None:
        section = config(**section)
    else:
        official = save(folder / "sealed.csv", spell(sealed))
        section = officially_sealed(sealed_source=official, **section)
    run(section, folder / "dataset", folder / "holdout")
    source = dict(read_json(folder / "dataset" / "source.json"))
    dataset = Dataset.load(folder / "dataset")
    return dataset, preparing.sealed(folder / "holdout"), source


def of_customers(rows: Rows, each: int, first: int = 0) -> Rows:
    """Gives every so many rows in a row the id of one customer."""
    return [
        [*row[:ID], f"c{first + i // each}", *row[ID + 1 :]]
        for i, row in enumerate(rows)
    ]


def contents(dataset: Dataset, holdout: Holdout) -> list[tuple[str, Counter[str]]]:
    splits = {**dataset.splits, "sealed": holdout.split}
    return [(name, Counter(row_hex(split.rows))) for name, split in splits.items()]


def test_how_many_equal_rows_lie_where_does_not_depend_on_the_files_order(
    tmp_path: Path,
) -> None:
    rows = loans(200) * 3
    order = np.random.default_rng(0).permutation(len(rows))
    first = prepared(tmp_path / "a", rows)
    second = prepared(tmp_path / "b", [rows[i] for i in order])
    assert contents(*first[:2]) == contents(*second[:2])


def test_of_copies_one_is_kept_wherever_it_lies(tmp_path: Path) -> None:
    rows = loans(300)
    once = prepared(tmp_path / "a", rows, drop_duplicates=True)
    thrice = prepared(tmp_path / "b", rows * 3, drop_duplicates=True)
    assert contents(*once[:2]) == contents(*thrice[:2])
    assert thrice[2]["repeated_rows_dropped"] == 600
    assert "repeated_rows_dropped" not in once[2]
    assert sum(max(c.values()) for _, c in contents(*thrice[:2])) == 6
    (said,) = [
        warning.sentence
        for warning in read_warnings(tmp_path / "b" / "dataset" / "audit.json")
        if warning.kind == "duplicates"
    ]
    assert said.startswith("600 rows of the source repeat another and are left out")


def test_copies_in_a_sealed_file_are_left_out_and_few_are_not_counted(
    tmp_path: Path,
) -> None:
    rows, sealed = loans(400), loans(200, 1, 1000)
    for extra, told in ((4, "<10"), (60, 60)):
        folder = tmp_path / str(extra)
        whole = sealed + sealed[:extra]
        _, holdout, source = prepared(folder, rows, whole, drop_duplicates=True)
        assert len(holdout.split) == 200
        assert source["repeated_sealed_rows_dropped"] == told
        _, holdout, source = prepared(folder / "not", rows, whole)
        assert len(holdout.split) == 200 + extra
        assert "repeated_sealed_rows_dropped" not in source


def test_an_official_row_stays_whatever_copies_of_it_the_source_has(
    tmp_path: Path,
) -> None:
    rows, sealed = loans(400), loans(200, 1, 1000)
    dataset, holdout, source = prepared(
        tmp_path, rows + sealed[:30] * 2, sealed, drop_duplicates=True
    )
    assert len(holdout.split) == 200
    assert sum(map(len, dataset.splits.values())) == 400
    assert source["development_rows_also_sealed_removed"] == 30
    assert source["repeated_rows_dropped"] == 30


def test_people_who_equal_an_official_row_are_told_of_when_they_leave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may be no copies; then training depends on the sealed rows."""
    rows, sealed = loans(400), loans(300, 1, 1000)
    for common, told in ((2, False), (3, True)):
        prepared(tmp_path / str(common), rows + sealed[:common], sealed)
        out = capsys.readouterr().out
        said = f"{common} development rows equal a sealed row and are left out" in out
        assert said == told
    with pytest.raises(DataError, match="300 equal a sealed row and are left out, but"):
        prepared(tmp_path / "all", sealed, sealed)


def test_of_a_sealed_entity_one_row_is_kept_and_its_others_go_nowhere(
    tmp_path: Path,
) -> None:
    rows = of_customers(loans(900), 3)
    dataset, holdout, source = prepared(tmp_path, rows, **ONE_EACH)
    sealed = holdout.split
    assert 50 <= len(sealed) <= 70
    assert holdout.rows == 3 * len(sealed)
    development = sum(len(split) for split in dataset.splits.values())
    assert development + holdout.rows == 900
    assert source["sealed_rows_beside_one_of_their_entity"] == 2 * len(sealed)
    assert dataset.counts.split("sealed").rows == len(sealed)


def test_a_copied_person_is_never_on_both_sides_of_an_entitys_split(
    tmp_path: Path,
) -> None:
    rows = of_customers(loans(300), 1)
    dataset, holdout, _ = prepared(tmp_path, rows + rows + rows[:100], **ONE_EACH)
    places = [set(c) for _, c in contents(dataset, holdout)]
    assert sum(map(len, places)) == len(set.union(*places)) == 300


@pytest.mark.parametrize("change", ["seed", "order"])
def test_nobody_chooses_which_row_of_a_sealed_entity_is_judged(
    tmp_path: Path, change: str
) -> None:
    rows = of_customers(loans(400), 2)
    sealed = of_customers(loans(300, 1, 1000), 3, 1000)
    order = np.random.default_rng(0).permutation(len(sealed))
    again = [sealed[i] for i in order] if change == "order" else sealed
    first = prepared(tmp_path / "a", rows, sealed, **ONE_EACH)[1]
    second = prepared(
        tmp_path / "b", rows, again, **ONE_EACH, seed=5 * (change == "seed")
    )[1]
    assert len(first.split) == 100
    assert set(row_hex(first.split.rows)) == set(row_hex(second.split.rows))


def test_few_rows_beside_the_judged_ones_are_not_counted(tmp_path: Path) -> None:
    rows = of_customers(loans(400), 1)
    sealed = of_customers(loans(200, 1, 1000), 1, 1000)
    sealed += of_customers(loans(4, 2, 3000), 1, 1000)
    source = prepared(tmp_path, rows, sealed, **ONE_EACH)[2]
    assert source["sealed_rows_beside_one_of_their_entity"] == "<10"


def test_a_holdout_with_two_rows_of_one_entity_is_refused(tmp_path: Path) -> None:
    _, holdout, _ = prepared(tmp_path, of_customers(loans(600), 2), **ONE_EACH)
    entity = holdout.split.entity
    assert entity is not None
    forged = replace(holdout.split, entity=np.minimum(entity, len(entity) - 4))
    with writing(tmp_path / "forged", kind="holdout", stage="prepare_data") as draft:
        shutil.copy(tmp_path / "holdout" / "schema.json", draft.folder)
        rows = preparing.rows_of(tmp_path / "holdout")
        shutil.copy(rows / "sampling.json", draft.folder)
        forged.write(draft.folder / "sealed.parquet", holdout.schema)
    with pytest.raises(IntegrityError, match=r"3 sealed rows .* of an entity"):
        Holdout.load(tmp_path / "forged")


def test_a_table_without_entities_and_copies_has_the_files_it_always_had(
    tmp_path: Path,
) -> None:
    prepared(tmp_path, loans(300))
    schema = read_json(tmp_path / "holdout" / "schema.json")
    assert "drop_duplicates" not in schema
    files = read_manifest(tmp_path / "holdout").files
    always = {"keys.parquet", "parts.parquet", "schema.json", "sealed.parquet"}
    assert always >= set(files) - {"execution.json"}


def test_the_unit_follows_from_what_is_declared(tmp_path: Path) -> None:
    rows = of_customers(loans(600), 2)
    units = {
        "rows": {},
        "distinct records": {"drop_duplicates": True},
        "entities": {**ONE_EACH, "drop_duplicates": True},
    }
    for unit, changes in units.items():
        schema = prepared(tmp_path / unit, rows, **changes)[0].schema
        assert schema.unit == unit
        assert Schema.from_dict(schema.to_dict()) == schema


def test_select_is_thinned_as_the_sealed_rows_are(tmp_path: Path) -> None:
    dataset, _, _ = prepared(tmp_path, of_customers(loans(900), 3), **ONE_EACH)
    whole = dataset.splits["select"]
    thin = whole.thinned()
    assert len(thin) * 3 == len(whole)
    assert len(set(thin.entity.tolist())) == len(thin)
    plain, _, _ = prepared(tmp_path / "plain", loans(300))
    assert plain.splits["select"].thinned() is plain.splits["select"]


def test_folds_keep_an_entity_together_and_are_as_even_as_entities_allow() -> None:
    strata, entity = torch.arange(600) // 300, torch.arange(600) // 4
    fold = stratified_folds(strata, 5, 0, entity)
    assert (
        len({(e, f) for e, f in zip(entity.tolist(), fold.tolist(), strict=True)})
        == 150
    )
    sizes = torch.bincount(fold[:300], minlength=5)
    assert int(sizes.max() - sizes.min()) <= 4
    alone = stratified_folds(strata, 5, 0, torch.arange(600))
    assert torch.equal(alone, stratified_folds(strata, 5, 0))


def test_the_advice_on_repeated_rows_names_the_key_that_fits(tmp_path: Path) -> None:
    rows = loans(600)

    def advice(name: str, table: Rows, **changes: Any) -> str:
        prepared(tmp_path / name, table, **changes)
        warnings = read_warnings(tmp_path / name / "dataset" / "audit.json")
        return " ".join(w.sentence for w in warnings if w.kind == "duplicates")

    # Whole rows repeat: copies, or one person's.
    copies = advice("copies", rows + rows[:400], numeric=["age"])
    assert "data.drop_duplicates: true" in copies
    assert "data.entity should say who" in copies
    # All but the id repeats: no copies of a record.
    other = [[*row[:ID], f"x{i}", *row[ID + 1 :]] for i, row in enumerate(rows[:400])]
    people = advice("people", rows + other)
    assert "data.entity should say who" in people
    assert "drop_duplicates" not in people


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (("rows", 10, 11, 5), "cannot hold 11"),
        (("rows", 10, 10, 11), "11 of them distinct"),
        (("rows", 0, 0, 0), "cannot hold 0"),
        (("people", 10, 10, 10), "No sampling unit is 'people'"),
        (("entities", 30, 10, 9), "1 of 10 judged rows repeat another"),
        (("distinct records", 10, 10, 4), "6 of 10 judged rows repeat another"),
    ],
)
def test_counts_that_no_such_sample_has_are_refused(counts: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SamplingModel(*counts)


def verdict_of(
    folder: Path, model: SamplingModel | None, change: dict[str, Any] | None = None
) -> Verdict:
    about = replace(submission(MODEL), sampling=model)
    return write_verdict(folder, constitution(), evidence(), about, change=change)


@pytest.mark.parametrize(
    ("unit", "rows"), [("rows", 700), ("distinct records", 700), ("entities", 2100)]
)
def test_a_verdict_states_its_sampling_model_and_is_derived_again(
    tmp_path: Path, unit: str, rows: int
) -> None:
    model = SamplingModel(unit, rows, 700, 700)
    verdict_of(tmp_path / "v", model)
    assert rederive(tmp_path / "v", constitution()).sampling == model


def test_a_verdict_of_before_reads_and_is_written_as_it_was(tmp_path: Path) -> None:
    verdict_of(tmp_path / "v", None)
    verdict = rederive(tmp_path / "v", constitution())
    assert verdict.sampling is None
    assert "sampling" not in verdict.to_dict()
    assert not [
        line for line in limits(verdict, constitution()) if "Sampling model" in line
    ]
    assert "effective sample size" not in render(verdict, constitution())


@pytest.mark.parametrize(
    "sampling",
    [
        {"unit": "rows", "rows": 700, "units": 700, "distinct": 640},
        {"unit": "rows", "rows": 900, "units": 800, "distinct": 700},
        {"unit": "persons", "rows": 700, "units": 700, "distinct": 700},
        {"unit": "rows", "rows": 700, "units": 700},
        "rows",
    ],
)
def test_a_sampling_model_that_the_evidence_does_not_show_is_refused(
    tmp_path: Path, sampling: Any
) -> None:
    model = SamplingModel("rows", 700, 700, 700)
    verdict_of(tmp_path / "v", model, {"sampling": sampling})
    with pytest.raises((InputError, IntegrityError)):
        rederive(tmp_path / "v", constitution())


def test_entities_whose_evidence_repeats_a_row_are_no_entities(tmp_path: Path) -> None:
    rows = hashes(700).copy()
    rows[5] = rows[6]
    about = replace(
        submission(MODEL), sampling=SamplingModel("entities", 2100, 700, 700)
    )
    with writing(tmp_path / "v", kind="verdict", stage="evaluate_safety") as draft:
        write_evidence(draft.folder / EVIDENCE, evidence(), rows)
        digest = digest_file(draft.folder / EVIDENCE)
        assemble(constitution(), evidence(), about, digest).save(draft.folder)
    with pytest.raises(IntegrityError, match="does not follow from its evidence: 1 of"):
        rederive(tmp_path / "v", constitution())


def test_report_card_and_guarantee_name_the_unit_and_the_effective_size(
    tmp_path: Path,
) -> None:
    said = {
        "rows": (700, "independent draws from the population", "690 of them distinct"),
        "entities": (2100, "one random row of each", "700 entities, one row of each"),
    }
    for unit, (rows, assumed, drawn) in said.items():
        distinct = 690 if unit == "rows" else 700
        model = SamplingModel(unit, rows, 700, distinct)
        verdict = verdict_of(tmp_path / unit, model)
        rule = constitution()
        assert assumed in guarantee(verdict, rule)
        schema = {"features": [], "label": "y"}
        card = write_card(verdict, "d", rule, schema, name="m", description="")
        for page in (card, render(verdict, rule)):
            assert "Sampling model: the effective sample size is 700" in page
            assert drawn in page
            assert assumed in page


def test_the_power_check_says_how_many_draws_it_reckons_with() -> None:
    rules = constitution(0.2)
    report = power_check(rules, adult_counts(), draws=50, unit="entities")
    assert report.basis == (
        "Reckoned for independent draws, the sealed 16,281 entities, one row of each."
    )
    told = report.to_dict()
    assert "as from one of a stranger" in told["assumptions"][-1]
    assert (told["unit"], told["sealed"]) == ("entities", 16281)


def test_no_development_split_names_an_entity(tmp_path: Path) -> None:
    rows = of_customers(loans(600), 2)
    dataset, holdout, _ = prepared(tmp_path, rows, **ONE_EACH)
    for name in SPLITS:
        numbers = dataset.splits[name].entity
        assert numbers is not None
        assert sorted(set(numbers.tolist())) == list(range(len(set(numbers.tolist()))))
    assert holdout.split.entity is not None
    written = b"".join(p.read_bytes() for p in (tmp_path / "dataset").glob("*.parquet"))
    assert b"c17" not in written
