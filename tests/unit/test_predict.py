"""Predictions: which row an answer is of, in what form, and what the score means."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import preparing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_world import BRIEF, promises, searched

from pipelines.answers import BATCH, put_answers
from pipelines.cli import run_command
from safescale_ammt.data.schema import Schema
from safescale_ammt.stages import train_agents

ROOT = Path(__file__).parents[2]


def customers(rows: int, seed: int) -> pd.DataFrame:
    """Draws a table with three columns that say which row it is."""
    rng = np.random.default_rng(seed)
    income = rng.normal(40, 10, rows).round(2)
    job = rng.choice(["none", "part", "full"], rows)
    odds = 1 / (1 + np.exp(-((income - 40) / 5 + (job == "full"))))
    return pd.DataFrame(
        {
            "number": np.arange(rows) + 9_007_199_254_740_993,
            "code": [f"{i:07}" for i in range(rows)],
            "income": income,
            "job": job,
            "sex": rng.choice(["F", "M"], rows),
            "note": "x",
            "household": [f"h{i // 2}" for i in range(rows)],
            "repaid": np.where(rng.random(rows) < odds, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model whose config names two id columns and an entity."""
    folder = tmp_path_factory.mktemp("customers")
    customers(1600, 0).to_csv(folder / "dev.csv", index=False)
    section = {
        "source": (folder / "dev.csv").as_uri(),
        "label": "repaid",
        "positive": "yes",
        "sensitive": ["sex"],
        "ids": ["number", "code"],
        "drop": ["note"],
        "entity": "household",
        "splits": {
            "train": 0.5,
            "validation": 0.1,
            "constraint": 0.1,
            "monitor": 0.1,
            "select": 0.1,
            "sealed": 0.1,
        },
    }
    preparing.run(section, folder / "dataset", folder / "holdout")
    rules = promises({"metric": "tpr_gap", "group": "sex", "threshold": 0.3})
    architecture = searched(folder, folder / "dataset", rules)
    brief = {**BRIEF, "steps": 40}
    train_agents.run(folder / "dataset", architecture, rules, brief, folder / "model")
    return folder / "model"


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Rows to predict, in the working folder as CSV and Parquet."""
    monkeypatch.chdir(tmp_path)
    rows = customers(300, 1).drop(columns=["repaid"])
    rows.to_csv("new.csv", index=False)
    rows.to_parquet("new.parquet", index=False)
    return rows


def predict(model: Path, *words: str) -> None:
    assert run_command(["predict", str(model), *words]) == 0


def test_id_columns_are_no_inputs_and_stand_in_the_schema(model: Path) -> None:
    schema = Schema.load(model)
    assert schema.ids == ("number", "code")
    assert schema.names == ("income", "job")


def test_ids_of_the_config_and_the_entity_stand_beside_each_answer(
    model: Path, new: pd.DataFrame
) -> None:
    predict(model, "--data", "new.csv", "-o", "out.csv")
    out = pd.read_csv("out.csv", dtype=str)
    ids = ["household", "number", "code"]
    assert list(out) == [*ids, "prediction", "score"]
    for name in ids:
        # Leading zeros and digits beyond a double's stay.
        assert out[name].tolist() == new[name].astype(str).tolist()


def test_parquet_keeps_the_types_of_whole_numbers_and_texts(
    model: Path, new: pd.DataFrame
) -> None:
    predict(model, "--data", "new.parquet", "-o", "out.parquet")
    out = pq.read_table("out.parquet")
    assert out.schema.field("number").type == pa.int64()
    assert pa.types.is_string(out.schema.field("code").type)
    assert out["number"].to_pylist() == new["number"].tolist()
    assert out["code"].to_pylist() == new["code"].tolist()
    assert out.schema.field("score").type == pa.float64()
    # A text file has texts, and no number is made of one.
    predict(model, "--data", "new.csv", "-o", "text.parquet")
    text = pq.read_table("text.parquet")
    assert pa.types.is_string(text.schema.field("number").type)
    assert text["score"] == out["score"]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([3, None, 1], pa.uint8()),
        pa.array(["a", None, "c"]),
        pa.array(["a", None, "c"], pa.large_string()),
        pa.array(["a", None, "c"], pa.string_view()),
        pa.array(["b", "a", "b"]).dictionary_encode(),
        pa.array([True, False, None]),
        pa.array([0, None, 20000], pa.int32()).cast(pa.date32()),
        pa.array([0, None, 1], pa.int64()).cast(pa.timestamp("us", "UTC")),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
def test_ids_of_every_plain_type_come_back(
    array: pa.Array, ending: str, model: Path, new: pd.DataFrame
) -> None:
    columns = {"id": array, "income": [1.0, 2.0, 3.0], "job": ["none", "part", "full"]}
    pq.write_table(pa.table(columns), "few.parquet")
    out = f"out{ending}"
    predict(model, "--data", "few.parquet", "--id", "id", "-o", out)
    if ending == ".parquet":
        found = pq.read_table(out)["id"].to_pylist()
        assert found == array.to_pylist()
    elif ending == ".jsonl":
        lines = [json.loads(line) for line in Path(out).read_text().splitlines()]
        for value, line in zip(array.to_pylist(), lines, strict=True):
            plain = value is None or isinstance(value, bool | int | str)
            assert line["id"] == (value if plain else line["id"])
            assert (line["id"] is None) == (value is None)
    else:
        with Path(out).open(encoding="utf-8") as file:
            texts = [row["id"] for row in csv.DictReader(file)]
        assert [text == "" for text in texts] == array.is_null().to_pylist()


def test_a_file_without_its_ids_has_its_rows_numbered(
    model: Path, new: pd.DataFrame
) -> None:
    new[["job", "income"]].to_csv("bare.csv", index=False)
    predict(model, "--data", "bare.csv", "-o", "out.csv")
    out = pd.read_csv("out.csv")
    assert list(out) == ["row", "prediction", "score"]
    assert out["row"].tolist() == list(range(300))
    new[["job", "income", "code"]].to_csv("one.csv", index=False)
    predict(model, "--data", "one.csv", "-o", "out.csv")
    assert list(pd.read_csv("out.csv")) == ["code", "prediction", "score"]


def test_any_column_can_be_asked_for_as_an_id(model: Path, new: pd.DataFrame) -> None:
    new.assign(extra=range(300)).to_csv("more.csv", index=False)
    options = ("--id", "extra", "--id", "income")
    predict(model, "--data", "more.csv", "-o", "out.csv", *options)
    out = pd.read_csv("out.csv")
    assert list(out) == ["extra", "income", "prediction", "score"]
    assert out["income"].tolist() == new["income"].tolist()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("zzz", "The rows have no column 'zzz', so it cannot be kept"),
        # A first line may be a person's: the column is told by its place.
        ("incom", "column 3 is spelled nearly like 'incom', so it cannot"),
        ("score", "'score' cannot be kept"),
    ],
)
def test_an_id_that_cannot_be_kept_is_one_sentence(
    name: str, part: str, model: Path, new: pd.DataFrame, capsys
) -> None:
    new.assign(score=1).to_csv("new.csv", index=False)
    words = ["predict", str(model), "--data", "new.csv", "-o", "o.csv", "--id", name]
    assert run_command(words) == 2
    assert part in capsys.readouterr().err
    assert not Path("o.csv").exists()


def from_jsonl(data: bytes) -> pd.DataFrame:
    return pd.read_json(io.BytesIO(data), lines=True, dtype=False, precise_float=True)


@pytest.mark.parametrize(
    ("ending", "read"),
    [
        (".csv", lambda data: pd.read_csv(io.BytesIO(data), dtype={"code": str})),
        (".tsv", lambda d: pd.read_csv(io.BytesIO(d), sep="\t", dtype={"code": str})),
        (".jsonl", from_jsonl),
        (".parquet", lambda data: pq.read_table(pa.BufferReader(data)).to_pandas()),
    ],
)
def test_every_ending_holds_the_same_answers_packed_or_not(
    ending: str,
    read: Callable[[bytes], pd.DataFrame],
    model: Path,
    new: pd.DataFrame,
) -> None:
    predict(model, "--data", "new.parquet", "-o", "plain.parquet")
    plain = pq.read_table("plain.parquet").to_pandas()
    unpack = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
    for packing in ("", ".gz", ".zst", ".bz2", ".xz"):
        out = Path(f"OUT{ending.upper()}{packing}")
        predict(model, "--data", "new.parquet", "-o", str(out))
        data = out.read_bytes()
        if packing in unpack:
            data = unpack[packing](data)
        elif packing:
            data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
        found = read(data)
        assert list(found) == list(plain)
        assert found["prediction"].tolist() == plain["prediction"].tolist()
        assert found["code"].tolist() == plain["code"].tolist()
        if ending != ".jsonl":  # pandas reads 2**53 + 1 as a double there
            assert found["number"].tolist() == plain["number"].tolist()
        np.testing.assert_allclose(found["score"], plain["score"], rtol=1e-15)
    # Nothing half-written stays.
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("rows", [0, 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_many_rows_are_written_as_few_are(
    ending: str, rows: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(rows)
    table = pa.table(
        {
            "id": pa.array([f"r{i}" for i in range(rows)], pa.string()),
            "day": pa.array(np.arange(rows, dtype=np.int32)).cast(pa.date32()),
            "number": pa.array([None if i % 3 else i for i in range(rows)], pa.int64()),
            "score": pa.array(rng.random(rows)),
        }
    )
    put_answers(table, tmp_path / f"out{ending}")
    if ending == ".parquet":
        assert pq.read_table(tmp_path / "out.parquet").equals(table)
        return
    text = (tmp_path / f"out{ending}").read_text("utf-8")
    lines = text.split("\n")
    assert lines.pop() == ""
    if ending == ".jsonl":
        found = [json.loads(line) for line in lines]
        assert [f["day"] for f in found] == [str(d) for d in table["day"].to_pylist()]
        assert [f["number"] for f in found] == table["number"].to_pylist()
    else:
        parts = {".csv": ",", ".tsv": "\t"}
        found = list(csv.DictReader(lines, delimiter=parts[ending]))
        assert lines[0].split(parts[ending]) == table.column_names
    assert [f["id"] for f in found] == table["id"].to_pylist()
    assert [float(f["score"]) for f in found] == table["score"].to_pylist()


def test_one_odd_line_end_beyond_the_first_batch_quotes_all_rows(
    tmp_path: Path,
) -> None:
    ids = ["a"] * BATCH + ["b\rc"]
    table = pa.table({"id": ids, "score": [0.5] * len(ids)})
    put_answers(table, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        lines = file.read().split("\n")
    assert lines[0] == '"id","score"'
    assert lines[1:3] == ['"a","0.5"'] * 2
    assert lines[-2] == '"b\rc","0.5"'


def test_a_written_table_can_be_read_as_rows_again(
    model: Path, new: pd.DataFrame
) -> None:
    odd = ['a,"b"', "tab\there", "line\nbreak", "cr\rhere", "ünï", " "]
    new["code"] = (odd * 50)[:300]
    new.to_parquet("new.parquet", index=False)
    predict(model, "--data", "new.parquet", "-o", "out.csv")
    with Path("out.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["code"] for row in csv.DictReader(file)]
    assert texts == new["code"].tolist()


@pytest.mark.parametrize("name", ["out", "out.xlsx", "out.gz", "csv", "out.csv.zip"])
def test_an_ending_that_names_no_form_is_refused_before_anything_is_read(
    name: str, tmp_path: Path, capsys
) -> None:
    words = ["predict", str(tmp_path), "--data", "none.csv", "-o", name]
    assert run_command(words) == 2
    assert "expected .csv, .tsv, .jsonl, .parquet" in capsys.readouterr().err


def test_what_the_score_means_is_said_in_one_line(
    model: Path, new: pd.DataFrame, capsys
) -> None:
    predict(model, "--data", "new.csv", "-o", "out.csv")
    shown = capsys.readouterr()
    assert shown.out == "Wrote 300 predictions to out.csv.\n"
    assert shown.err == (
        "score is the model's probability that repaid is yes; prediction is yes from "
        "0.5 on, else no.\n"
    )
    out = pd.read_csv("out.csv")
    assert ((out["score"] >= 0.5) == (out["prediction"] == "yes")).all()


def piped(model: Path, data: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipelines", "predict", str(model), *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, input=data, capture_output=True, check=False, env=environ
    )


def test_rows_come_from_standard_input_in_a_dialect_and_go_to_standard_output(
    model: Path, new: pd.DataFrame
) -> None:
    predict(model, "--data", "new.csv", "-o", "out.csv")
    text = new.to_csv(index=False, sep=";", decimal=",").encode("utf-16")
    done = piped(model, gzip.compress(text), "--data", "-", "-o", "-")
    assert done.returncode == 0
    assert done.stdout == Path("out.csv").read_bytes()
    said = done.stderr.decode().splitlines()
    assert said[0].startswith("score is the model's probability")
    assert said[-1] == "Wrote 300 predictions to -."
    # Parquet is no text, and comes through a pipe as well.
    parquet = piped(model, Path("new.parquet").read_bytes(), "--data", "-", "-o", "-")
    assert parquet.stdout == done.stdout


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "standard input is empty"),
        (b"job\nfull\n", "standard input lacks the column 'income'"),
        (b"income,job\n1,full\n2,fu", "standard input"),
        (b"PAR1 and no more", "standard input is not a whole Parquet file"),
        (b"\x1f\x8b\x08 and no more", "standard input is not a whole gzip file"),
    ],
)
def test_standard_input_that_holds_no_rows_is_one_sentence(
    data: bytes, part: str, model: Path, tmp_path: Path
) -> None:
    done = piped(model, data, "--data", "-", "-o", str(tmp_path / "out.csv"))
    said = done.stderr.decode()
    if data.endswith(b"2,fu"):
        # A last line without its end is a row.
        assert done.returncode == 0
        return
    assert done.returncode == 2
    assert part in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()


def test_a_reader_that_leaves_is_no_traceback(model: Path, new: pd.DataFrame) -> None:
    words = f"{sys.executable} -m pipelines predict {model} --data new.csv -o -"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.startswith("household,number,code,prediction,score")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has it")
def test_a_full_standard_output_is_one_sentence(model: Path, new: pd.DataFrame) -> None:
    words = [sys.executable, "-m", "pipelines", "predict", str(model)]
    new.to_csv("new.csv", index=False)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*words, "--data", "new.csv", "-o", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 2
    assert "Standard output cannot be written (No space left" in done.stderr
    assert "broke" not in done.stderr


def test_two_commands_at_once_leave_a_whole_file(
    model: Path, new: pd.DataFrame
) -> None:
    command = [sys.executable, "-m", "pipelines", "predict", str(model)]
    both = [
        subprocess.Popen(
            [*command, "--data", "new.csv", "-o", "out.csv"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert len(pd.read_csv("out.csv")) == 300
    assert not list(Path().glob(".*"))
