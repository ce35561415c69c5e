"""Whatever is wrong with a file: no sentence, log or record shows a row of it.

Every file has a marker in each cell of its first lines, as a file without a header
has a person there; what is said about it must never hold the marker.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import preparing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_tables import HEADER, config, loans, save, spell

from pipelines.local.state import log_failure
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.shown import shown_values
from safescale_ammt.errors import DataError, InputError
from safescale_ammt.execution import stage
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes

MARK = "jane-doe"


def marked(width: int = 7, cell: Callable[[int], str] = lambda i: f"{MARK}-{i}") -> str:
    """One line of a person: the marker in every cell."""
    return ",".join(cell(i) for i in range(width)) + "\n"


def rows(count: int = 200) -> str:
    return spell(loans(count)).decode().partition("\n")[2]


def same(_: int) -> str:
    return MARK


HEAD = ",".join(HEADER) + "\n"
REST = rows()
PERSON = marked()
ROWS_OF_ONE = "".join(marked(cell=same) for _ in range(20))
BROKEN: dict[str, str | bytes] = {
    "no header": PERSON + PERSON + REST,
    "no header, one column named by chance": PERSON.replace(f"{MARK}-6", "approved")
    + REST,
    "no header, all but one named": HEAD.replace("age", MARK).replace("city", MARK)
    + REST,
    "no header, cells given twice": marked(cell=same) + REST,
    "no header, an empty cell": PERSON.replace(f"{MARK}-2", "") + PERSON + REST,
    "no header, an underscore": PERSON.replace(f"{MARK}-1", f"_{MARK}") + REST,
    "no header, semicolons": PERSON.replace(",", ";") + REST.replace(",", ";"),
    "a ragged row": HEAD + PERSON + marked(3) + REST,
    "a long ragged row": HEAD + PERSON + marked(9) + REST,
    "a truncated file": HEAD + PERSON + REST + marked(4).rstrip(),
    "one line": PERSON,
    "no rows": PERSON + "\n\n",
    "an open quote in the header": f'"{MARK},a\n' + PERSON,
    "an open quote": HEAD + PERSON + f'"{MARK}' + PERSON * 3,
    "a single class": HEAD + ROWS_OF_ONE,
    "a rare class": HEAD + PERSON + REST,
    "many classes": HEAD + "".join(PERSON[:-1] + f"{k}\n" for k in range(150)),
    "not UTF-8": (HEAD + PERSON + REST).encode() + f"{MARK}é".encode("latin-1"),
    "zero bytes": (HEAD + PERSON + REST).encode("utf-16-le"),
    "half a packed file": gzip.compress((HEAD + PERSON + REST).encode())[:-9],
    "called Parquet": b"PAR1" + (HEAD + PERSON).encode() + b"PAR1",
    "a row that is too long": HEAD + PERSON + f"{MARK}," + MARK * (3 << 20) + "\n",
    "another decimal sign": "a;b\n1,5;0.5\n" + PERSON.replace(",", ";"),
}
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "numeric": {"numeric": ["age"], "positive": ""},
    "two classes": {"positive": "no", "label_map": {"yes": "ja"}},
    "merged": {
        "positive": "",
        "label_map": {f"{MARK}-6": "yes"},
        "merges": {"m": {"column": "gender", "values": {"x": "y"}}},
    },
    "entity": {"entity": "city", "unlabelled": "drop"},
    "sealed apart": {"splits": None},
}


def said(tmp_path: Path, data: bytes, changes: dict[str, Any]) -> str:
    """Returns what preparing says of a file, "" if it has no complaint."""
    source = save(tmp_path / "people.csv", data)
    changes = dict(changes)
    if changes.get("splits", ...) is None:
        changes.pop("splits")
        changes["sealed_source"] = save(tmp_path / "sealed.csv", spell(loans(50)))
        section = {**config(source=source), **changes}
        section.pop("splits")
    else:
        section = config(source=source, **changes)
    return complaint(
        lambda: preparing.run(section, tmp_path / "dataset", tmp_path / "holdout"),
        tmp_path / "log.txt",
    )


def complaint(work: Callable[[], object], log: Path) -> str:
    """Returns the sentence about bad input and what a log would hold of it."""
    try:
        work()
    except InputError as error:
        return str(error) + log_failure(error, log).read_text()
    return ""


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("change", CHANGES)
def test_no_sentence_about_a_file_holds_a_row(
    kind: str, change: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = BROKEN[kind]
    words = said(
        tmp_path, data.encode() if isinstance(data, str) else data, CHANGES[change]
    )
    if change == "as it is":
        assert words
    out, err = capfd.readouterr()
    assert MARK not in words + out + err


@pytest.mark.parametrize("value", ["y", "3", "oslo"])
def test_a_row_that_has_a_name_of_the_config_by_chance_is_no_header(
    value: str, tmp_path: Path
) -> None:
    table = [[*row[:-1], value if row[-1] == "yes" else "n"] for row in loans(300)]
    table[0] = ["37", "1234", "rome", "m", "north", "999", value]
    data = spell(table).split(b"\n", 1)[1]
    section = {**config(source=save(tmp_path / "t.csv", data)), "label": value}
    section |= {"sensitive": [], "drop": [], "positive": ""}
    with pytest.raises(DataError, match="seems to have no header"):
        preparing.run(section, tmp_path / "d", tmp_path / "h")


def test_a_folder_whose_files_differ_shows_no_row(tmp_path: Path) -> None:
    save(tmp_path / "a.csv", (HEAD + REST).encode())
    save(tmp_path / "b.csv", (PERSON + REST).encode())
    section = config(source=tmp_path.as_uri())
    with pytest.raises(DataError) as caught:
        preparing.run(section, tmp_path / "d", tmp_path / "h")
    assert MARK not in str(caught.value)


def test_a_label_that_a_merge_or_the_source_lacks_shows_no_rare_value() -> None:
    assert shown_values({"no": 90, "yes": 80, MARK: 1}) == (
        ", expected one of no, yes or 1 of fewer than 10 rows"
    )
    assert shown_values({f"{MARK}{i}": 50 for i in range(11)}) == (
        ", found 11 other values"
    )


@pytest.mark.parametrize("kind", BROKEN)
def test_no_sentence_about_a_prediction_holds_a_row(kind: str, tmp_path: Path) -> None:
    source = save(tmp_path / "good.csv", spell(loans()))
    preparing.run(config(source=source), tmp_path / "d", tmp_path / "h")
    schema, data = Schema.load(tmp_path / "d"), BROKEN[kind]
    data = data.encode() if isinstance(data, str) else data
    words = complaint(lambda: read_raw(schema, data), tmp_path / "log.txt")
    assert MARK not in words


def test_parquet_is_refused_without_its_values(tmp_path: Path) -> None:
    texts = pa.array([f"{MARK}{i}" for i in range(300)])
    codes = pa.array(range(100), pa.int8())
    parts = [
        pa.DictionaryArray.from_arrays(codes, texts[i : i + 100]) for i in (0, 100)
    ]
    for name, column in {
        "overflow": pa.chunked_array(parts),
        "lists": pa.array([[MARK]] * 3),
        "bytes": pa.array([MARK.encode() + b"\xff"] * 3),
        "structs": pa.array([{"a": MARK}] * 3),
    }.items():
        pq.write_table(pa.table({"approved": column}), tmp_path / name)
        with pytest.raises(DataError) as caught:
            parse_bytes((tmp_path / name).read_bytes(), "t.parquet", Layout())
        assert MARK not in str(caught.value)
        assert MARK not in log_failure(caught.value, tmp_path / "log").read_text()


@pytest.mark.parametrize("error", [ValueError, KeyError, pa.ArrowInvalid, IndexError])
def test_an_unforeseen_error_leaves_no_row_in_log_or_record(
    error: type[Exception], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, stage("prepare_data", tmp_path / "d"):
        raise error(f"could not convert '{MARK}'")
    assert ended.value.code == 1
    left = (tmp_path / "execution.json").read_text() + capsys.readouterr().err
    assert MARK not in left
    assert "test_no_row_is_shown.py" in left
    assert error.__name__ in left


def test_an_error_that_came_of_another_one_leaves_no_row_in_the_log(
    tmp_path: Path,
) -> None:
    def work() -> None:
        try:
            float(MARK)
        except ValueError as error:
            raise OSError("the disk is full") from error

    with pytest.raises(OSError, match="disk") as caught:
        work()
    log = log_failure(caught.value, tmp_path / "log.txt").read_text()
    assert MARK not in log
    assert "the disk is full" in log
    assert "ValueError" in log
