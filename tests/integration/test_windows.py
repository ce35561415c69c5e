"""Windows of dated files on a real object store: fresh sealed rows for each run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import preparing
from preparing import run
from small_tables import config, loans, spell

from pipelines.kubeflow.preparation import KubeflowRequest, prepare
from pipelines.sources import resolve_locally
from pipelines.workload import Workload
from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Window
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import DataError, IntegrityError
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import read_json
from safescale_ammt.reading.sources import content_digest
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.store.base import Store

DIGEST = "sha256:" + 64 * "0"
ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"


@pytest.fixture
def store(s3_environ, s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with three weeks of loans, a file for every day."""
    for name, value in s3_environ.items():
        monkeypatch.setenv(name, value)
    for day in range(21):
        put_day(s3_store, f"2026-11-{day + 1:02d}", day)
    return s3_store


def put_day(store: Store, day: str, seed: int) -> None:
    rows = spell(loans(150, seed=seed, first_id=10_000 * seed))
    store.put(f"rows/dt={day}/part-0.csv", rows)


def prepared(store: Store, out: Path, **data: Any) -> dict[str, Any]:
    section = config(source=f"{store.uri}/rows", **data)
    return run(section, out / "dataset", out / "holdout")


def use(store: Store, holdout: Path, model: int) -> Use:
    """Reserves a use of a holdout's rows for a model."""
    return ledger.reserve(
        store,
        rows=preparing.sealed(holdout).split.rows,
        model=f"sha256:{model:064x}",
        holdout=read_manifest(holdout).identity,
        planned=1,
        constitution=DIGEST,
    )


def test_a_submitted_run_is_given_the_days_that_were_digested(store, tmp_path):
    file = tmp_path / "w.yaml"
    about = {"id": "mine", "version": "1.0.0", "owner": "tests"}
    rule = {"id": "useful", "constraint": {"metric": "accuracy", "threshold": 0.6}}
    rules = {"schema": 1, "constitution": about, "principles": [rule]}
    section = config(source=f"{store.uri}/rows", window="7d")
    whole = {"schema": 1, "constitution": rules, "data": section}
    file.write_text(yaml.safe_dump(whole), encoding="utf-8")
    given = prepare(KubeflowRequest(file)).parameters
    assert given["window"] == "2026-11-15/2026-11-22"
    put_day(store, "2026-11-22", 30)  # it comes between the look and the stage
    scalars = {"source": given["source"], "window": given["window"]}
    run({**given["data"], **scalars}, tmp_path / "d", tmp_path / "h")
    # A schedule has no bytes yet to name: each run counts back from its own newest.
    later = prepare(KubeflowRequest(file, recurring=True)).parameters
    assert (later["window"], later["data"]["source_digest"]) == ("7d", "")


def test_each_weeks_run_brings_sealed_rows_that_nobody_has_seen(store, tmp_path):
    first = prepared(store, tmp_path / "1", window="7d")
    assert first["window"] == "2026-11-15 to 2026-11-22"
    for day in range(21, 28):
        put_day(store, f"2026-11-{day + 1:02d}", day)
    second = prepared(store, tmp_path / "2", window="7d")
    assert second["window"] == "2026-11-22 to 2026-11-29"
    uses = [use(store, tmp_path / str(i) / "holdout", i) for i in (1, 2)]
    assert [(u.number, u.guarantee) for u in uses] == [(1, "holds"), (1, "holds")]


def test_windows_that_overlap_share_sealed_rows_and_the_ledger_says_so(store, tmp_path):
    prepared(store, tmp_path / "1", window="2026-11-08/2026-11-15")
    prepared(store, tmp_path / "2", window="2026-11-12/2026-11-19")
    uses = [use(store, tmp_path / str(i) / "holdout", i) for i in (1, 2)]
    assert [(u.number, u.guarantee) for u in uses] == [(1, "holds"), (2, "spent")]


def test_the_dataset_says_which_days_it_was_made_from(store, tmp_path):
    store.delete("rows/dt=2026-11-18/part-0.csv")
    prepared(store, tmp_path, window="7d")
    record = read_json(tmp_path / "dataset" / "source.json")
    assert record["window"] == {
        "asked": "7d",
        "start": "2026-11-15",
        "end": "2026-11-22",
        "files": 6,
        "files_before": 14,
        "files_after": 0,
        "absent_days": ["2026-11-18"],
    }
    assert min(record["source"]) == "dt=2026-11-15/part-0.csv"


def test_the_same_days_asked_for_in_other_words_give_the_same_rows(store, tmp_path):
    words = ("7d", "1w", "7d/2026-11-22", "2026-11-15/2026-11-22")
    for i, window in enumerate(words):
        prepared(store, tmp_path / str(i), window=window)
    folders = [tmp_path / str(i) / "holdout" for i in range(len(words))]
    assert len({read_manifest(folder).identity for folder in folders}) == 1


def test_without_a_window_every_file_is_read(store, tmp_path):
    told = prepared(store, tmp_path)
    assert told["window"] == ""
    assert sum(told["rows"].values()) == 21 * 150
    assert read_json(tmp_path / "dataset" / "source.json")["window"] == {}


def test_a_run_names_the_days_and_a_late_file_is_noticed(store, tmp_path):
    workload = Workload.load(ADULT)
    section = config(source=f"{store.uri}/rows", window="7d")
    promises = workload.constitution.to_dict()
    for principle in promises["principles"]:
        if principle["constraint"].get("group"):
            principle["constraint"]["group"] = "gender"
    sections = {**workload.sections, "data": DataConfig.from_params(section)}
    workload = Workload(sections, Constitution.from_dict(promises))
    found = resolve_locally(workload, store, tmp_path, tmp_path)
    assert found.data.window == "2026-11-15/2026-11-22"
    assert found.arguments()["window"] == "2026-11-15/2026-11-22"
    days = Window.parse("7d")
    assert found.data.source_digest == content_digest(found.data.source, window=days)
    run(found.data.to_params(), tmp_path / "dataset", tmp_path / "holdout")
    put_day(store, "2026-11-22", 30)
    run(found.data.to_params(), tmp_path / "dataset", tmp_path / "holdout")
    store.put("rows/dt=2026-11-20/late.csv", spell(loans(20, seed=40)))
    with pytest.raises(
        IntegrityError, match=r"changed: data\.source_digest is sha256:"
    ):
        run(found.data.to_params(), tmp_path / "late", tmp_path / "holdout")
    assert not (tmp_path / "late").exists()


def test_an_official_test_set_keeps_its_days_if_it_has_any(store, tmp_path):
    for day in ("2026-11-14", "2026-11-16"):
        store.put(f"sealed/{day}.csv", spell(loans(60, int(day[-2:]), 900_000)))
    splits = dict.fromkeys(("train", "validation"), 0.35)
    splits |= dict.fromkeys(("constraint", "monitor", "select"), 0.1)
    whole = f"{store.uri}/sealed/2026-11-14.csv"
    for name, sealed in (("folder", f"{store.uri}/sealed"), ("file", whole)):
        official = {"sealed_source": sealed, "splits": splits, "window": "7d"}
        told = prepared(store, tmp_path / name, **official)
        assert told["rows"]["sealed"] == 60
        record = read_json(tmp_path / name / "dataset" / "source.json")
        names = {"folder": ["2026-11-16.csv"], "file": [""]}
        assert list(record["sealed_source"]) == names[name]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"window": "7d/2026-12-24"}, "has no rows from 2026-12-17 up to 2026-12-24"),
        ({"window": "7d", "source": "/rows/dt=2026-11-01/part-0.csv"}, "is one file"),
        ({"window": "7d", "source": "/mixed"}, "notes.csv in .* has no date"),
        ({"window": "7d", "source": "/none"}, "does not exist"),
    ],
)
def test_a_window_that_holds_nothing_is_one_sentence(store, tmp_path, data, said):
    store.put("mixed/2026-11-01.csv", spell(loans(10)))
    store.put("mixed/notes.csv", spell(loans(10)))
    source = store.uri + data.get("source", "/rows")
    with pytest.raises(DataError, match=said) as caught:
        run(config(**{**data, "source": source}), tmp_path / "d", tmp_path / "h")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()
