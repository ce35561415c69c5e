"""Raw bytes behind a URI: what is read, and what is refused in one sentence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_tables import HEADER, loans, save, spell

from safescale_ammt.errors import DataError, IntegrityError, StoreInputError
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import (
    check_digest,
    content_digest,
    parse_bytes,
    read_table,
)

PLAIN = Layout()


def refused(data: bytes, layout: Layout = PLAIN) -> str:
    with pytest.raises(DataError) as caught:
        parse_bytes(data, "t.csv", layout)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def texts(data: bytes, name: str, layout: Layout = PLAIN) -> list[str]:
    return parse_bytes(data, "t.csv", layout).columns[name].texts().to_pylist()


def test_a_file_is_read_as_stripped_text_in_source_order(tmp_path: Path) -> None:
    uri = save(tmp_path / "t.csv", b"a, b ,c\n 1 ,x,\n2, y,z\n")
    table = read_table(uri, PLAIN)
    assert list(table.columns) == ["a", "b", "c"]
    assert table.rows == 2
    assert table.columns["a"].texts().to_pylist() == ["1", "2"]
    assert table.columns["c"].texts().to_pylist() == ["", "z"]


def test_the_digest_is_that_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    data = spell(loans(50))
    table = read_table(save(tmp_path / "t.csv", data), PLAIN)
    assert table.digests == {"": "sha256:" + hashlib.sha256(data).hexdigest()}


def test_names_can_be_given_for_a_file_without_a_header() -> None:
    layout = Layout(columns=("a", "b"))
    assert texts(b"1,2\n3,4\n", "b", layout) == ["2", "4"]


def test_a_header_can_be_skipped_and_replaced() -> None:
    layout = Layout(columns=("a", "b"), skip_rows=1)
    table = parse_bytes(b"x,x\n1,2\n", "t.csv", layout)
    assert table.rows == 1
    assert table.columns["b"].texts().to_pylist() == ["2"]
    ragged = refused(b"x,x\n1,2\n3\n4,5\n", layout)
    assert "Row 3 of t.csv has 1 fields" in ragged


def test_empty_lines_windows_lines_and_a_byte_order_mark_are_taken() -> None:
    data = b"\xef\xbb\xbf\r\na,b\r\n1,2\r\n\r\n3,4\r\n\r\n"
    assert texts(data, "a") == ["1", "3"]


def test_a_quoted_value_may_hold_commas_and_lines() -> None:
    assert texts(b'a,b\n1,"x, y"\n2,"p\nq"\n', "b") == ["x, y", "p\nq"]


def test_comment_lines_are_skipped_wherever_they_stand() -> None:
    layout = Layout(comment="|")
    data = b"|about this\na,b\n|one\n1,2\n|with,two\n3,4\n"
    assert texts(data, "a", layout) == ["1", "3"]
    named = Layout(columns=("a", "b"), comment="|")
    assert texts(b"|1x3 Cross\n1,2\n", "a", named) == ["1"]


def test_a_folder_of_equal_files_is_one_table_in_name_order(tmp_path: Path) -> None:
    save(tmp_path / "d" / "b.csv", b"x\n3\n")
    save(tmp_path / "d" / "a.csv", b"x\n1\n2\n")
    save(tmp_path / "d" / "notes.txt", b"no table")
    for uri in ((tmp_path / "d").as_uri(), (tmp_path / "d").as_uri() + "/"):
        table = read_table(uri, PLAIN)
        assert table.columns["x"].texts().to_pylist() == ["1", "2", "3"]
        assert sorted(table.digests) == ["a.csv", "b.csv"]


def test_a_folder_whose_files_have_other_columns_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.csv", b"x\n1\n")
    save(tmp_path / "b.csv", b"y\n1\n")
    with pytest.raises(DataError, match=r"b\.csv in .*, 2 of them in one only"):
        read_table(tmp_path.as_uri(), PLAIN)


def test_parquet_holds_the_same_table_as_csv(tmp_path: Path) -> None:
    frame = pa.table(
        {"n": [1, 2, None], "t": ["a", None, "c"], "b": [True, False, None]}
    )
    pq.write_table(frame, tmp_path / "t.parquet")
    table = read_table((tmp_path / "t.parquet").as_uri(), PLAIN)
    assert table.columns["n"].texts().to_pylist() == ["1", "2", ""]
    assert table.columns["t"].texts().to_pylist() == ["a", "", "c"]
    assert table.columns["b"].texts().to_pylist() == ["true", "false", ""]


def test_a_broken_parquet_file_is_one_sentence(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "t.parquet")
    data = (tmp_path / "t.parquet").read_bytes()
    assert "not a whole Parquet file" in refused(data[:-20])


def test_parquet_columns_of_lists_or_bytes_are_refused(tmp_path: Path) -> None:
    lists, no_text = [[1], [2]], [b"\xff", b"b"]
    for values, part in (
        (lists, "numbers, text, dates and booleans"),
        (no_text, "no spelling"),
    ):
        pq.write_table(pa.table({"n": values}), tmp_path / "t.parquet")
        data = (tmp_path / "t.parquet").read_bytes()
        assert part in refused(data)


def test_a_dictionary_column_of_parquet_is_text(tmp_path: Path) -> None:
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"n": column}), tmp_path / "t.parquet")
    assert texts((tmp_path / "t.parquet").read_bytes(), "n") == ["a", "b", "a"]


def test_a_missing_file_names_its_uri(tmp_path: Path) -> None:
    uri = (tmp_path / "absent.csv").as_uri()
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        read_table(uri, PLAIN)


def test_a_bare_name_is_one_clear_sentence() -> None:
    with pytest.raises(DataError, match="'adult' is no URI"):
        read_table("adult", PLAIN)


def test_missing_credentials_are_the_stores_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreInputError, match="AWS_ACCESS_KEY_ID"):
        read_table("s3://bucket/t.csv", PLAIN)


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_an_empty_file_is_refused(data: bytes) -> None:
    assert "t.csv" in refused(data)


def test_a_header_without_rows_is_refused() -> None:
    assert "no rows" in refused(b"a,b\n")
    assert "no rows" in refused(b"a,b\n\n\n")


def test_a_truncated_file_is_one_clear_sentence() -> None:
    whole = spell(loans(5))
    cut = whole[: whole.rstrip().rfind(b",") - 3]
    message = refused(cut)
    assert "ends in the middle of row 6" in message
    assert f"of {len(HEADER)} fields" in message


def test_a_truncated_file_with_comments_is_told_apart_from_a_ragged_one() -> None:
    layout = Layout(columns=("a", "b", "c"), comment="|")
    assert "ends in the middle of row 3" in refused(b"|x\n1,2,3\n4,5", layout)


def test_a_ragged_row_names_row_found_and_expected() -> None:
    assert "Row 3 of t.csv has 1 fields, expected 2" in refused(b"a,b\n1,2\n3\n4,5\n")
    assert "Row 2 of t.csv has 3 fields" in refused(b"a,b\n1,2,3\n4,5\n6\n7\n")
    assert "Row 3 of t.csv has 3 fields" in refused(b"a,b\n1,2\n4,5,6\n")


def test_a_ragged_row_far_into_a_large_file_is_counted_right() -> None:
    rows = [[str(i), "x" * 20] for i in range(120_000)]
    rows[99_998] = ["1", "2", "3"]
    assert "Row 100000 of t.csv" in refused(spell(rows, ("a", "b")))


def test_bytes_that_are_not_utf8_are_named_by_offset() -> None:
    assert "not UTF-8 at byte 6" in refused(b"a,b\n1,\xff\n")
    far = b"a,b\n" + b"1,2\n" * 600_000 + b"1,\xe9\n"
    assert f"not UTF-8 at byte {far.index(0xE9)}" in refused(far)


def test_a_character_on_a_block_border_is_no_error() -> None:
    data = b"a\n" + b"x" * ((1 << 20) - 3) + "é".encode() * 3 + b"\n"
    assert texts(data, "a")[0].endswith("ééé")


def test_an_open_quote_is_refused() -> None:
    assert "never closed" in refused(b'a,b\n1,"2\n3,4\n5,6\n')
    assert "never closed" in refused(b'a,b\n1,"2\n' + b"3,4\n" * 700_000)


def test_an_odd_quote_inside_a_value_is_data() -> None:
    assert texts(b'a,b\n1,5" pipe\n2,x\n', "b") == ['5" pipe', "x"]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"a,a", "Columns 1 and 2 of t.csv have one name"),
        (b"a,_b", "underscore"),
        (b"a,", "has no name"),
    ],
)
def test_bad_column_names_are_refused(header: bytes, said: str) -> None:
    assert said in refused(header + b"\n1,2\n")


def test_no_sentence_holds_a_row(tmp_path: Path) -> None:
    secret = b"jane-doe"
    for data in (b"a,b\n" + secret + b"\n1,2\n", b"a,b\n" + secret + b",1,2\n3\n4\n"):
        assert secret.decode() not in refused(data)


def test_the_content_digest_follows_bytes_and_not_places(tmp_path: Path) -> None:
    first = save(tmp_path / "one.csv", b"a\n1\n")
    second = save(tmp_path / "two.csv", b"a\n1\n")
    other = save(tmp_path / "three.csv", b"a\n2\n")
    assert content_digest(first) == content_digest(second)
    assert content_digest(first) != content_digest(other)
    assert content_digest(first, other) != content_digest(first)


def test_a_changed_source_is_refused_with_both_digests(tmp_path: Path) -> None:
    source = save(tmp_path / "a.csv", b"a\n1\n")
    sealed = save(tmp_path / "b.csv", b"a\n2\n")
    tables = read_table(source, PLAIN), read_table(sealed, PLAIN)
    right = content_digest(source, sealed)
    assert check_digest(right, *tables) == right
    assert check_digest("", *tables) == right
    with pytest.raises(IntegrityError, match=f"sha256:0, found {right}"):
        check_digest("sha256:0", *tables)


def test_columns_keep_only_the_values_that_are_used() -> None:
    table = parse_bytes(b"a\nx\ny\nx\nz\n", "t.csv", PLAIN)
    taken = table.take(np.array([0, 2]))
    assert taken.rows == 2
    assert taken.columns["a"].values.to_pylist() == ["x"]
