"""One table in many spellings: each is read alike, or refused with the remedy."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import preparing
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import feather
from small_tables import config, loans, save, spell

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.raw_rows import read_raw
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConfigError, DataError
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import parse_bytes, read_table

PLAIN = b"name,x,y\nada,0.53,1\nbob,-12.5,2\n"
TABLE = {"name": ["ada", "bob"], "x": ["0.53", "-12.5"], "y": ["1", "2"]}


def table(data: bytes, layout: Layout = Layout()) -> dict[str, list[str]]:  # noqa: B008
    raw = parse_bytes(data, "t.csv", layout)
    return {name: column.texts().to_pylist() for name, column in raw.columns.items()}


def notes(data: bytes, layout: Layout = Layout()) -> list[str]:  # noqa: B008
    return list(parse_bytes(data, "t.csv", layout).notes)


def refused(data: bytes, layout: Layout = Layout()) -> str:  # noqa: B008
    with pytest.raises(DataError) as caught:
        parse_bytes(data, "t.csv", layout)
    return str(caught.value)


# What parts the fields, and the decimal sign


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_a_delimiter_is_found_where_it_fits_every_line(sign: str) -> None:
    data = PLAIN.replace(b",", sign.encode())
    assert table(data) == table(PLAIN) == TABLE
    assert table(data, Layout(delimiter=sign)) == TABLE
    assert len(notes(data)) == 1
    assert not notes(PLAIN)


def test_a_decimal_comma_is_a_point_where_no_comma_parts_the_fields() -> None:
    data = PLAIN.replace(b",", b";").replace(b".", b",")
    assert table(data) == TABLE
    assert "decimal comma in column 2" in notes(data)[1]
    assert table(data, Layout(decimal="."))["x"] == ["0,53", "-12,5"]
    assert table(data.replace(b";", b"\t")) == TABLE


def test_points_between_thousands_go_with_a_decimal_comma() -> None:
    assert table(b"a;b\n1.234,5;x\n12,25;y\n")["a"] == ["1234.5", "12.25"]
    assert table(b"a;b\n1.234;x\n", Layout(decimal=","))["a"] == ["1234"]


def test_a_column_with_another_text_keeps_its_commas() -> None:
    data = b"a;b\n1,5;x\nn.a.;y\nabc;z\n"
    assert table(data)["a"] == ["1,5", "n.a.", "abc"]
    absent = Layout(missing=("n.a.",))
    assert table(data.replace(b"abc;z\n", b""), absent)["a"] == ["1.5", "n.a."]


def test_a_comma_and_a_point_in_one_file_ask_for_the_decimal_sign() -> None:
    data = b"a;b\n1,5;0.25\n2,5;0.75\n"
    assert "data.decimal" in refused(data)
    assert table(data, Layout(decimal="."))["b"] == ["0.25", "0.75"]


def test_a_declared_comma_is_believed_between_commas_too() -> None:
    data = b'a,b\n"1,5",x\n"2,5",y\n'
    assert table(data)["a"] == ["1,5", "2,5"]
    assert table(data, Layout(decimal=","))["a"] == ["1.5", "2.5"]


def test_a_sign_inside_values_parts_nothing() -> None:
    assert list(table(b"id,tags\n1,a;b\n2,c;d\n")) == ["id", "tags"]
    assert list(table(b"text\nwell; yes\nwell; no\n")) == ["text"]
    lines = b"well; yes\nwell; no\n"
    assert list(table(lines, Layout(columns=("text",)))) == ["text"]


def test_quoted_values_may_hold_the_other_signs() -> None:
    data = b'"id, no";"weight"\n1;"2,5"\n2;"3,5; net"\n'
    assert table(data)["weight"] == ["2,5", "3,5; net"]
    assert table(b'x;"w, kg"\n3;"2,5"\n4;"1,5"\n')["w, kg"] == ["2.5", "1.5"]


def test_names_tell_the_delimiter_of_a_file_without_a_header() -> None:
    assert table(b"1,5;2,5\n3,5;4,5\n", Layout(columns=("a", "b"))) == {
        "a": ["1.5", "3.5"],
        "b": ["2.5", "4.5"],
    }


def test_a_ragged_row_is_counted_by_the_delimiter_of_the_others() -> None:
    said = refused(b"a;b\n1;2\n3\n4;5\n6;7\n")
    assert "Row 3 of t.csv has 1 fields, expected 2 parted by a semicolon" in said
    assert "data.delimiter" in refused(b"a;b\n1,2;3\n", Layout(delimiter=","))


def test_comments_and_skipped_lines_say_nothing_of_the_delimiter() -> None:
    data = b"made, by, hand\n# one, two\na;b\n1;2\n"
    assert table(data, Layout(comment="#", skip_rows=1)) == {"a": ["1"], "b": ["2"]}


def test_the_line_in_which_excel_names_the_delimiter_is_no_row() -> None:
    data = b"sep=^\r\n" + PLAIN.replace(b",", b"^").replace(b"\n", b"\r\n")
    assert table(data) == TABLE
    assert "Row 5" in refused(data + b"eve^1\r\neve^1\r\n")


# Bytes and lines


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
def test_any_line_ends_are_taken(end: bytes) -> None:
    assert table(PLAIN.replace(b"\n", end)) == TABLE
    assert table(PLAIN.replace(b"\n", end, 2)) == TABLE
    skipped = b"old header" + end + PLAIN.replace(b"\n", end)
    assert table(skipped, Layout(skip_rows=1)) == TABLE
    ragged = PLAIN.replace(b"\n", end) + b"eve,1" + end + b"eve,2" + end
    assert "Row 4" in refused(ragged)


def test_a_name_in_quotes_may_have_line_breaks() -> None:
    data = b'"first\nname","x ""y"""\nada,1\n'
    assert list(table(data)) == ["first name", 'x "y"']


def test_a_header_whose_quote_stays_open_is_refused() -> None:
    assert "never closed" in refused(b'"a,b\n1,2\n')


def test_a_header_of_any_length_is_read() -> None:
    names = [f"column {i} {'x' * 100}" for i in range(3000)]
    data = ",".join(names) + "\n" + ",".join(["1"] * 3000) + "\n"
    assert list(table(data.encode())) == names


def test_long_fields_are_read_whole() -> None:
    text = "x" * (3 << 20)
    assert table(f"a,b\n1,{text}\n2,y\n".encode())["b"] == [text, "y"]
    long_name = "n" * 200_000
    assert list(table(f"{long_name},b\n1,2\n".encode())) == [long_name, "b"]


def test_a_row_longer_than_a_block_is_one_sentence() -> None:
    said = refused(b"a,b\n1," + b"x" * (20 << 20) + b"\n")
    assert "a row of more than 8 MiB" in said
    assert "xxx" not in said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_marked_unicode_is_found(encoding: str) -> None:
    data = PLAIN.decode().replace("ada", "Ädä").encode(encoding)
    assert table(data)["name"] == ["Ädä", "bob"]
    assert table(data, Layout(columns=("a", "b", "c")))["a"][0] == "name"


def test_another_encoding_is_declared() -> None:
    data = PLAIN.decode().replace("ada", "Ädä").encode("cp1252")
    assert "data.encoding" in refused(data)
    assert table(data, Layout(encoding="cp1252"))["name"] == ["Ädä", "bob"]
    unmarked = PLAIN.decode().encode("utf-16-le")
    assert "data.encoding" in refused(unmarked)
    assert table(unmarked, Layout(encoding="utf-16-le")) == TABLE


def test_a_half_character_at_the_end_is_refused() -> None:
    assert "UTF-16" in refused(PLAIN.decode().encode("utf-16")[:-1])
    assert "not UTF-8" in refused(b"a\n\xc3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoding", "hex"),
        ("encoding", "latin-99"),
        ("delimiter", ";;"),
        ("delimiter", '"'),
    ],
)
def test_an_impossible_dialect_is_a_sentence(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{key} is"):
        DataConfig.from_params({key: value})


def packed(data: bytes, kind: str) -> bytes:
    # Two streams in a row are one file, as parallel packers write them.
    streams = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    if kind in streams:
        return streams[kind](data[:10]) + streams[kind](data[10:])
    return bytes(pa.compress(data, "zstd", asbytes=True))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "bzip2", "xz"])
def test_packed_files_are_read_under_any_name(tmp_path: Path, kind: str) -> None:
    assert table(packed(PLAIN, kind)) == TABLE
    pq.write_table(pa.table(TABLE), tmp_path / "t.parquet")
    assert table(packed((tmp_path / "t.parquet").read_bytes(), kind)) == TABLE
    raw = parse_bytes(packed(PLAIN, kind), "t.csv", Layout())
    assert raw.digests != parse_bytes(PLAIN, "t.csv", Layout()).digests
    assert f"packed by {kind}" in raw.notes
    assert f"not a whole {kind} file" in refused(packed(PLAIN, kind)[:-3])


def test_a_header_may_begin_as_a_packed_file_does() -> None:
    assert table(b"BZh1,x\na,1\n") == {"BZh1": ["a"], "x": ["1"]}


@pytest.mark.parametrize("packing", ["", "gzip"])
@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"PK\x03\x04", "a ZIP archive, as an Excel workbook is one"),
        (b"ARROW1\0\0", "an Arrow"),
        (b"PARE", "an encrypted Parquet file"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_a_file_of_another_format_is_called_by_its_name(
    first: bytes, what: str, packing: str
) -> None:
    data = first + bytes(100)
    said = refused(packed(data, packing) if packing else data)
    assert said.startswith(f"t.csv is {what}")
    assert "CSV and Parquet are read" in said


def test_a_real_feather_file_is_called_by_its_name(tmp_path: Path) -> None:
    feather.write_feather(pa.table(TABLE), tmp_path / "t.feather")
    assert "is an Arrow (Feather) file" in refused(
        (tmp_path / "t.feather").read_bytes()
    )


def test_a_folder_may_hold_packed_and_tab_separated_files(tmp_path: Path) -> None:
    save(tmp_path / "a.tsv", PLAIN.replace(b",", b"\t"))
    save(tmp_path / "b.csv.gz", packed(PLAIN, "gzip"))
    save(tmp_path / "c.csv.bz2", packed(PLAIN, "bzip2"))
    for hidden in ("_c.csv", ".d.parquet", "_temporary/e.csv", ".git/f.csv"):
        save(tmp_path / hidden, b"torn")
    raw = read_table(tmp_path.as_uri(), Layout())
    assert raw.rows == 6
    assert sorted(raw.digests) == ["a.tsv", "b.csv.gz", "c.csv.bz2"]


# Nameless columns


def test_the_index_of_a_frame_is_left_out() -> None:
    for numbers in ((0, 1), (2800, 2801), (7, 3)):
        lines = PLAIN.decode().splitlines()
        rows = [f"{n},{line}" for n, line in zip(numbers, lines[1:], strict=True)]
        data = "\n".join(["," + lines[0], *rows, ""]).encode()
        assert table(data) == TABLE
        assert "only numbers the rows" in notes(data)[0]


def test_an_index_that_was_read_back_is_left_out_unless_it_is_named() -> None:
    data = b"Unnamed: 0,a\n0,x\n1,y\n"
    assert list(table(data)) == ["a"]
    named = Layout(chosen=frozenset({"Unnamed: 0"}))
    assert list(table(data, named)) == ["Unnamed: 0", "a"]
    assert list(table(b"Unnamed: 0,a\n9,x\n5,y\n")) == ["Unnamed: 0", "a"]


def test_the_index_of_a_parquet_frame_is_left_out(tmp_path: Path) -> None:
    frame = pa.table({**TABLE, "__index_level_0__": [5, 3]})
    pq.write_table(frame, tmp_path / "t.parquet")
    assert table((tmp_path / "t.parquet").read_bytes()) == TABLE


@pytest.mark.parametrize("name", ["", " ", "\u3000"])
def test_a_blank_name_of_parquet_is_none_either(tmp_path: Path, name: str) -> None:
    place = tmp_path / "t.parquet"
    pq.write_table(pa.table({**TABLE, name: ["", ""]}), place)
    assert table(place.read_bytes()) == TABLE
    pq.write_table(pa.table({**TABLE, name: ["x", "y"]}), place)
    assert "has no name of its own" in refused(place.read_bytes())


def test_nameless_empty_columns_are_left_out() -> None:
    assert table(b"a,b,,\n1,2,,\n3,4,,\n") == {"a": ["1", "3"], "b": ["2", "4"]}
    assert table(b"a\tb\t\n1\t2\t\n") == {"a": ["1"], "b": ["2"]}


def test_a_nameless_column_with_values_names_the_remedy() -> None:
    said = refused(b"a,b,\n1,2,x\n3,4,\n")
    assert "Column 3" in said
    assert "data.columns" in said
    assert "data.drop" in said
    assert "Column 1" in refused(b",a\nx,1\ny,2\n")


# Parquet


@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.large_string(), pa.binary(), pa.large_binary()],
    ids=str,
)
def test_every_type_of_text_in_parquet_is_text(
    kind: pa.DataType, tmp_path: Path
) -> None:
    columns = {name: pa.array(texts).cast(kind) for name, texts in TABLE.items()}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert table((tmp_path / "t.parquet").read_bytes()) == TABLE


def test_a_whole_file_that_the_reader_refuses_keeps_its_reason(tmp_path: Path) -> None:
    parts = [
        pa.DictionaryArray.from_arrays(
            pa.array(range(100), pa.int8()), pa.array([f"{n}-{i}" for i in range(100)])
        )
        for n in range(2)
    ]
    pq.write_table(pa.table({"c": pa.chunked_array(parts)}), tmp_path / "t.parquet")
    said = refused((tmp_path / "t.parquet").read_bytes())
    assert "not a whole" not in said
    assert "Integer value ... not in range" in said
    assert "plain text" in said


def test_damaged_pages_are_a_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [f"text {i}" for i in range(1000)]}), tmp_path / "t")
    data = bytearray((tmp_path / "t").read_bytes())
    data[40:400] = b"\xff" * 360
    assert "t.csv" in refused(bytes(data))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_columns_of_a_partitioned_folder_are_kept(
    tmp_path: Path, ending: str
) -> None:
    for folder in ("g=01/h=a%20b", "g=2/h=__HIVE_DEFAULT_PARTITION__"):
        path = tmp_path / folder / f"part.{ending}"
        path.parent.mkdir(parents=True)
        frame = pa.table({"x": ["1", "2"]})
        (pacsv.write_csv if ending == "csv" else pq.write_table)(frame, path)
    raw = read_table(tmp_path.as_uri(), Layout())
    assert raw.columns["g"].texts().to_pylist() == ["01", "01", "2", "2"]
    assert raw.columns["h"].texts().to_pylist() == ["a b", "a b", "", ""]


def test_a_partition_that_contradicts_its_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "g=1" / "a.csv", b"x,g\n1,1\n")
    assert read_table(tmp_path.as_uri(), Layout()).rows == 1
    save(tmp_path / "g=2" / "a.csv", b"x,g\n1,1\n")
    with pytest.raises(DataError, match="another value"):
        read_table(tmp_path.as_uri(), Layout())


# Tables of any texts

CELL = st.text("ab,;\t|\"'. 1\n-", max_size=6)


@settings(deadline=None)
@given(
    rows=st.integers(2, 5).flatmap(
        lambda n: st.lists(st.lists(CELL, min_size=n, max_size=n), min_size=1)
    ),
    sign=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_a_table_of_any_texts_is_the_same_in_every_dialect(
    rows: list[list[str]], sign: str, end: str, encoding: str, quoting: Any
) -> None:
    # Python's writer leaves a line feed without quotes if lines end in another sign.
    assume(quoting == csv.QUOTE_ALL or "\n" not in "".join(map("".join, rows)))
    names = [f"name {i}" for i in range(len(rows[0]))]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=sign, lineterminator=end, quoting=quoting)
    writer.writerows([names, *rows])
    found = table(text.getvalue().encode(encoding), Layout(decimal="."))
    assert [*zip(*found.values(), strict=True)] == [
        tuple(cell.strip() for cell in row) for row in rows
    ]


# From a file to a dataset and to a prediction


def prepared(tmp_path: Path, data: bytes, **changes: Any) -> Path:
    folder = tmp_path / "out"
    folder.mkdir(parents=True)
    source = save(tmp_path / "loans.csv", data)
    preparing.run(
        config(source=source, **changes), folder / "dataset", folder / "holdout"
    )
    return folder / "dataset"


def test_what_was_found_out_is_in_the_notes_and_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = spell(loans()).replace(b",", b";")
    dataset = prepared(tmp_path, data)
    said = json.loads((dataset / "source.json").read_text())["reading"]
    assert said == ["data.source: fields are parted by a semicolon"]
    assert said[0] in capsys.readouterr().out


def test_a_plain_table_has_no_notes_and_an_old_digest(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, spell(loans()))
    assert "reading" not in json.loads((dataset / "source.json").read_text())
    assert "dialect" not in json.loads((dataset / "schema.json").read_text())
    plain, declared = DataConfig(), DataConfig(delimiter=";")
    assert plain.digest != declared.digest
    assert "delimiter" in plain.to_params()


def test_rows_without_a_label_are_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = loans()
    for row in rows[::50]:
        row[-1] = "?"
    with pytest.raises(DataError, match=r"12 rows .* data\.unlabelled: drop"):
        prepared(tmp_path / "refuse", spell(rows))
    dataset = prepared(tmp_path / "drop", spell(rows), unlabelled="drop")
    report = json.loads((dataset / "source.json").read_text())
    assert report["unlabelled_rows_dropped"] == 12
    said = f"Rows without a label that are left out: 12 of {len(rows)}."
    assert said in capsys.readouterr().out


def test_rows_keep_their_number_in_the_file_though_others_are_left_out(
    tmp_path: Path,
) -> None:
    rows = loans()
    rows[0][-1], rows[7][0] = "", "inf"
    with pytest.raises(DataError, match="data row 8"):
        prepared(tmp_path, spell(rows), unlabelled="drop")


def test_a_table_without_any_label_is_refused(tmp_path: Path) -> None:
    rows = [[*row[:-1], ""] for row in loans()]
    with pytest.raises(DataError, match="No row of"):
        prepared(tmp_path, spell(rows), unlabelled="drop")


def test_a_prediction_file_may_be_of_any_dialect(tmp_path: Path) -> None:
    rows = [[r[0], f"{i}.5", *r[2:]] for i, r in enumerate(loans())]
    schema = Schema.load(prepared(tmp_path, spell(rows)))
    new = [[r[0], f"{i}.25", "Zürich", *r[3:]] for i, r in enumerate(loans(30, seed=5))]
    expected = read_raw(schema, spell(new))
    plain = spell(new).decode()
    german = plain.replace(",", ";").replace(".25", ",25")
    index = "\n".join(
        f"{i - 1 if i else ''},{line}" for i, line in enumerate(plain.splitlines())
    )
    for data in (
        plain.replace(",", "\t").encode(),
        german.encode(),
        german.encode("utf-16"),
        plain.replace("\n", "\r").encode(),
        gzip.compress(german.encode()),
        codecs.BOM_UTF8 + plain.encode(),
        (index + "\n").encode(),
        "\n".join(line + "," for line in plain.splitlines()).encode() + b"\n",
        german.split("\n", 1)[1].encode(),
        "\n".join(",".join(r[:-1]) for r in new).encode() + b"\n",
    ):
        assert read_raw(schema, data).equals(expected)


def test_a_prediction_remembers_what_training_had_to_declare(tmp_path: Path) -> None:
    rows = [[r[0], f"{i}.5", "Zürich", *r[3:]] for i, r in enumerate(loans())]
    text = spell(rows).decode().replace(",", "~")
    declared = {"encoding": "cp1252", "delimiter": "~", "decimal": "."}
    dataset = prepared(tmp_path, text.encode("cp1252"), **declared)
    schema = Schema.load(dataset)
    assert schema.dialect == declared
    expected = read_raw(schema, spell(rows))
    assert read_raw(schema, text.encode("cp1252")).equals(expected)
    assert read_raw(schema, text.encode()).equals(expected)


@pytest.mark.parametrize("title", ["Loans of 2020\n", "# Loans of 2020\n"])
def test_a_title_above_the_table_is_one_sentence_with_its_remedies(
    tmp_path: Path, title: str
) -> None:
    source = save(tmp_path / "titled.csv", title.encode() + spell(loans()))
    with pytest.raises(DataError, match=r"data\.skip_rows or data\.comment leaves"):
        preparing.run(config(source=source), tmp_path / "d", tmp_path / "h")
    left_out = {"comment": "#"} if title[0] == "#" else {"skip_rows": 1}
    preparing.run(config(source=source, **left_out), tmp_path / "d", tmp_path / "h")
