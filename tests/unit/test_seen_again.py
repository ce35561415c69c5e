"""The same sealed data in another dress are seen again; fresh people stay fresh."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import preparing
import pytest
from preparing import run

from safescale_ammt.data.row_keys import KEPT, Parts, RowKeys, sketch
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.reading.cells import mixed
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.key_sets import KeySets
from safescale_ammt.releasing.same_rows import (
    rows_by_chance,
    shares_parts,
    why_repeated,
)
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

SPLITS = {
    **dict.fromkeys(("validation", "constraint", "monitor", "select"), 0.07),
    "train": 0.42,
    "sealed": 0.3,
}
CONFIG: dict[str, Any] = {
    "label": "repaid",
    "positive": "yes",
    "sensitive": ["sex"],
    "splits": SPLITS,
}
Change = Callable[[pd.DataFrame], pd.DataFrame]


def people(rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Loans of people who hardly ever agree in all columns."""
    rng = np.random.default_rng(seed)
    odds = rng.random(rows)
    days = pd.Timestamp("1940-01-01") + pd.to_timedelta(
        rng.integers(0, 25_000, rows), "D"
    )
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows).astype(str),
            "born": days.strftime("%Y-%m-%d"),
            "income": np.round(rng.lognormal(10, 0.5, rows), 2).astype(str),
            "debt": np.where(odds < 0.2, "", (odds * 10_000).astype(int).astype(str)),
            "city": rng.choice(["Oslo", "Rome", "Bonn", "Köln"], rows),
            "job": rng.choice([f"job {i}" for i in range(25)], rows),
            "owner": rng.choice(["true", "false"], rows),
            "sex": rng.choice(["female", "male"], rows),
            "years": rng.integers(0, 40, rows).astype(str),
            "repaid": np.where(rng.random(rows) < 0.3 + odds / 3, "yes", "no"),
        }
    )


def used(
    store: Store,
    folder: Path,
    source: pd.DataFrame | bytes,
    sealed: pd.DataFrame | bytes | None = None,
    name: str = "data.csv",
    **changes: Any,
) -> Use:
    """Prepares tables and reserves, then opens, the use of the sealed rows."""
    config = {**CONFIG, **changes}
    for key, table in (("source", source), ("sealed_source", sealed)):
        if table is not None:
            path = folder / key / name
            path.parent.mkdir(parents=True)
            data = table if isinstance(table, bytes) else csv(table)
            path.write_bytes(data)
            config[key] = path.as_uri()
    if sealed is not None:
        config["splits"] = {**SPLITS, "train": 0.72}
        del config["splits"]["sealed"]
    run(config, folder / "dataset", folder / "holdout")
    word = digest_bytes(str(folder).encode())
    with preparing.whole(folder / "holdout") as whole:
        known = RowKeys.load(whole)
        use = ledger.reserve(
            store,
            rows=preparing.sealed(folder / "holdout").split.rows,
            model=word,
            holdout=word,
            planned=1,
            constitution=word,
            keys=known.whole,
            parts=known.parts,
        )
    # What the gate does: it follows from the ledger alone.
    ledger.recount(store, use, 1)
    ledger.mark_opened(store, use, evidence=word, verdict=word)
    return use


def csv(table: pd.DataFrame, **options: Any) -> bytes:
    return table.to_csv(index=False, **options).encode()


def parquet(table: pd.DataFrame) -> bytes:
    types = {"age": int, "years": int, "income": float, "owner": bool}
    table = table.assign(
        owner=table.owner == "true", debt=pd.to_numeric(table.debt, errors="coerce")
    )
    data: bytes = table.astype(types).to_parquet(index=False)
    return data


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    return table.sample(frac=1, random_state=3)[list(table.columns[::-1])]


def with_thousands(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(income=[f"{float(x):,.2f}" for x in table.income])


def with_german_numbers(table: pd.DataFrame) -> bytes:
    table = table.assign(income=table.income.str.replace(".", ","))
    return csv(table, sep=";")


def with_classes(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(repaid=table.repaid.map({"yes": "good", "no": "bad"}))


REWRITTEN: dict[str, Change] = {
    "rows and columns in another order": shuffled,
    "whole numbers with a point": lambda t: t.assign(
        age=t.age + ".0", years=t.years + ".00"
    ),
    "a constant column more": lambda t: t.assign(country="NO"),
    "rows numbered": lambda t: t.assign(number=[str(i + 1) for i in range(len(t))]),
    "a column of noise more": lambda t: t.assign(
        noise=np.random.default_rng(9).random(len(t)).round(6).astype(str)
    ),
    "a column twice": lambda t: t.assign(again=t.job),
    "white space around values": lambda t: t.assign(job=" " + t.job, city=t.city + " "),
    "thousands parted": with_thousands,
    "dates day first": lambda t: t.assign(
        born=pd.to_datetime(t.born).dt.strftime("%d/%m/%Y")
    ),
    "dates with a midnight": lambda t: t.assign(born=t.born + "T00:00:00"),
    "booleans in capitals": lambda t: t.assign(owner=t.owner.str.upper()),
    "booleans as yes and no": lambda t: t.assign(
        owner=t.owner.map({"true": "yes", "false": "no"})
    ),
    "gaps as NA": lambda t: t.assign(debt=t.debt.replace("", "NA")),
    "gaps as null and a header in capitals": lambda t: t.assign(
        debt=t.debt.replace("", "null")
    ).rename(columns={"job": "JOB", "age": "Age "}),
    "a column renamed": lambda t: t.rename(columns={"job": "occupation"}),
    "a group respelled": lambda t: t.assign(sex=t.sex.str[0]),
    "a group and a level respelled": lambda t: t.assign(
        sex=t.sex.str[0], city=t.city.str.lower()
    ),
    "two columns dropped": lambda t: t.drop(columns=["job", "born"]),
    "one dropped, one respelled": lambda t: t.drop(columns="job").assign(
        city=t.city.str[:2]
    ),
    "one dropped, one added": lambda t: t.drop(columns="income").assign(
        noise=np.random.default_rng(9).random(len(t)).round(6).astype(str)
    ),
    "incomes rounded": lambda t: t.assign(income=t.income.astype(float).round(-2)),
    "all texts in capitals": lambda t: t.assign(
        **{c: t[c].str.upper() for c in ("city", "job", "owner", "sex")}
    ),
    "duplicates of some rows": lambda t: pd.concat([t, t[::7]]),
    "a sample of 60 %": lambda t: t.sample(frac=0.6, random_state=1),
    "a sample of 60 % with a group respelled": lambda t: t.sample(
        frac=0.6, random_state=1
    ).assign(sex=t.sex.str[0]),
    "half of it other people": lambda t: pd.concat([t[:500], people(500, 8)]),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store whose ledger has the people, split by seed 0."""
    folder = tmp_path_factory.mktemp("seen")
    store = open_store((folder / "store").as_uri())
    use = used(store, folder / "first", people())
    assert (use.number, use.guarantee, why_repeated(use)) == (1, "holds", "")
    return store


def copy_of(store: Store, path: Path) -> Store:
    """A store with the same objects, for a test that writes."""
    copy = open_store(path.as_uri())
    for info in store.list(""):
        copy.put(info.key, store.get(info.key))
    return copy


@pytest.mark.parametrize("how", REWRITTEN)
def test_a_table_that_was_rewritten_and_split_anew_is_spent(
    how: str, seen: Store, tmp_path: Path
) -> None:
    store = copy_of(seen, tmp_path / "store")
    use = used(store, tmp_path / "again", REWRITTEN[how](people()), seed=5)
    assert (use.number, use.guarantee) == (2, "spent")
    assert "Use 2 of these sealed data: they share" in why_repeated(use)


FILES: dict[str, tuple[str, Callable[[pd.DataFrame], bytes], dict[str, Any]]] = {
    "semicolons and decimal commas": ("a.csv", with_german_numbers, {}),
    "tabs": ("a.tsv", lambda t: csv(t, sep="\t"), {}),
    "quotes around all": ("a.csv", lambda t: csv(t, quoting=1), {}),
    "a byte order mark": ("a.csv", lambda t: b"\xef\xbb\xbf" + csv(t), {}),
    "another encoding": (
        "a.csv",
        lambda t: csv(t).decode().encode("latin-1"),
        {"encoding": "latin-1"},
    ),
    "another line end, packed": (
        "a.csv.gz",
        lambda t: gzip.compress(csv(t, lineterminator="\r\n")),
        {},
    ),
    "Parquet": ("a.parquet", parquet, {}),
    "no header, other names": (
        "a.csv",
        lambda t: csv(t, header=False),
        {
            "columns": [*"abcdefghij"],
            "label": "j",
            "sensitive": ["h"],
        },
    ),
    "classes named anew by the config": (
        "a.csv",
        csv,
        {"label_map": {"yes": "good", "no": "bad"}, "positive": "good"},
    ),
    "classes named anew in the file": (
        "a.csv",
        lambda t: csv(with_classes(t)),
        {"positive": "good"},
    ),
    "other roles": (
        "a.csv",
        csv,
        {
            "sensitive": ["city"],
            "drop": ["job"],
            "categorical": ["years"],
            "missing": ["", "0"],
        },
    ),
    "another label, without the first": (
        "a.csv",
        lambda t: csv(t.drop(columns="repaid")),
        {"label": "owner", "positive": "true"},
    ),
}


@pytest.mark.parametrize("how", FILES)
def test_a_file_in_another_format_or_read_otherwise_is_spent(
    how: str, seen: Store, tmp_path: Path
) -> None:
    name, write, changes = FILES[how]
    store = copy_of(seen, tmp_path / "store")
    use = used(
        store, tmp_path / "again", write(people()), None, name, seed=5, **changes
    )
    assert (use.number, use.guarantee) == (2, "spent")


def test_an_official_sealed_file_is_known_again(tmp_path: Path) -> None:
    """Adult's test file ends its labels in a dot, and a config renames both classes."""
    store = open_store((tmp_path / "store").as_uri())
    source, sealed = people(900), people(400, 1)
    dotted = sealed.assign(repaid=sealed.repaid + ".")
    dots = {"yes.": "yes", "no.": "no"}
    first = used(store, tmp_path / "a", source, dotted, label_map=dots)
    assert first.number == 1
    good = {"yes": "good", "no": "bad", "yes.": "good", "no.": "bad"}
    renamed = used(
        store, tmp_path / "b", source, dotted, label_map=good, positive="good"
    )
    assert (renamed.number, renamed.seen) == (2, "rows")
    undotted = used(store, tmp_path / "c", source, sealed)
    assert (undotted.number, undotted.guarantee) == (3, "spent")
    as_source = used(store, tmp_path / "d", sealed)
    assert (as_source.number, as_source.guarantee) == (4, "spent")


def shifted(table: pd.DataFrame) -> pd.DataFrame:
    """One column other than before, so that no row is in common."""
    income = table.income.astype(float) * 1.00013 + 0.01
    return table.assign(income=income.round(2).astype(str))


def near_copies(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that agree with two of five in all columns but one, whichever it is."""
    some, rng = table.sample(frac=0.4, random_state=1), np.random.default_rng(0)
    return pd.concat(
        [some.assign(**{c: rng.permutation(some[c].to_numpy())}) for c in table]
    )


COPIED: dict[str, tuple[Change, Change]] = {
    "no copies": (lambda t: t[:0], lambda t: t[:0]),
    "each sealed row twice": (lambda t: t[:0], lambda t: t),
    "two of five sealed rows twice": (
        lambda t: t[:0],
        lambda t: t.sample(frac=0.4, random_state=1),
    ),
    "near copies in development": (near_copies, lambda t: t[:0]),
    "near copies in both": (near_copies, near_copies),
}


@pytest.mark.parametrize("how", COPIED)
def test_near_copies_beside_rows_that_changed_do_not_hide_them(
    tmp_path: Path, how: str
) -> None:
    """They raise how often rows meet in their own table, which is not the other's."""
    store = open_store((tmp_path / "store").as_uri())
    sealed, (development, beside) = people(400, 7), COPIED[how]
    first = used(store, tmp_path / "a", people(900, 5), sealed)
    assert (first.number, first.guarantee) == (1, "holds")
    again = shifted(sealed)
    source = pd.concat([people(900, 6), development(again)])
    second = used(store, tmp_path / "b", source, pd.concat([again, beside(again)]))
    assert (second.guarantee, second.seen) == ("spent", "parts")


def test_copies_beside_both_of_two_uses_hide_a_column_that_changed(
    tmp_path: Path,
) -> None:
    """Not found: no table is left that says how rarely such rows meet."""
    store = open_store((tmp_path / "store").as_uri())
    sealed = people(400, 7)
    twice = (pd.concat([sealed] * 2), pd.concat([shifted(sealed)] * 2))
    for i, rows in enumerate(twice):
        use = used(store, tmp_path / str(i), people(900, 5 + i), rows)
        assert (use.number, use.guarantee) == (1, "holds")


@pytest.mark.parametrize("rows", [(6000, 6000), (30_000, 6000), (3000, 40_000)])
def test_coarse_parts_of_other_people_are_no_repeat(rows: tuple[int, int]) -> None:
    """Whatever share of the one table a part meets by chance, and in the other."""
    rng = np.random.default_rng(11)
    one, other = (
        Parts(
            n // 3,
            n - n // 3,
            0.0,
            tuple(
                sketch(mixed(rng.integers(0, levels, n).astype(np.uint64)), n // 3)
                for levels in (50, 1000, 5000, 20_000, 100_000, 10**6)
            ),
        )
        for n in rows
    )
    assert not shares_parts(one, other)
    assert not shares_parts(other, one)


@pytest.mark.parametrize("change", ["none", "renamed", "numbered", "coarse years"])
def test_other_people_of_the_same_law_are_fresh(
    change: str, seen: Store, tmp_path: Path
) -> None:
    changes: dict[str, Change] = {
        "none": lambda t: t,
        "renamed": lambda t: t.rename(columns={"job": "occupation"}),
        "numbered": REWRITTEN["rows numbered"],
        "coarse years": lambda t: t.assign(years="7"),
    }
    store = copy_of(seen, tmp_path / "store")
    for seed in (1, 2):
        table = changes[change](people(1000, seed))
        use = used(store, tmp_path / str(seed), table)
        assert (use.number, use.guarantee, use.seen) == (1, "holds", "")


def test_fresh_answers_to_a_survey_are_fresh(tmp_path: Path) -> None:
    """In any order of their columns, two in three would have an equal."""
    store = open_store((tmp_path / "store").as_uri())
    for seed in range(2):
        rng = np.random.default_rng(seed)
        answers = rng.choice([*"12345"], (1200, 30), p=[0.5, 0.3, 0.1, 0.05, 0.05])
        table = pd.DataFrame(answers, columns=[f"q{i}" for i in range(30)])
        table["sex"], table["repaid"] = people(1200, seed)[["sex", "repaid"]].T.values
        assert used(store, tmp_path / str(seed), table).number == 1


def test_of_coarse_rows_any_in_common_is_a_repeat(tmp_path: Path) -> None:
    """Documented: nobody could tell the same people from equal ones."""
    store = open_store((tmp_path / "store").as_uri())
    coarse = ["city", "job", "sex", "repaid"]
    for number in (1, 2):
        table = people(600, number)[coarse]
        use = used(store, tmp_path / str(number), table)
        assert use.number == number
    assert use.seen in ("rows", "varying")
    with preparing.whole(tmp_path / "2" / "holdout") as whole:
        twins = RowKeys.load(whole).parts.twins
    assert "such as a time or an id, makes them fresh" in why_repeated(use, twins)


@pytest.mark.parametrize("column", ["time", "id"])
def test_a_column_that_tells_people_apart_makes_coarse_windows_fresh(
    column: str, tmp_path: Path
) -> None:
    """The way out that the sentence names, whatever the model makes of the column."""
    store = open_store((tmp_path / "store").as_uri())
    for month in (1, 2, 3):
        table = people(600, month)[["city", "job", "sex", "repaid"]]
        seconds = np.random.default_rng(month).integers(0, 2_500_000, 600)
        moments = pd.Timestamp(2026, month, 1) + pd.to_timedelta(seconds, "s")
        cells = {
            "time": moments.strftime("%Y-%m-%dT%H:%M:%S"),
            "id": [f"{month}-{i:05}" for i in range(600)],
        }
        table[column] = cells[column]
        use = used(store, tmp_path / str(month), table, drop=[column])
        assert (use.number, why_repeated(use)) == (1, "")


def test_rows_that_chance_makes_equal_now_and_then_are_fresh(tmp_path: Path) -> None:
    """Of 2^20 rows some tables meet an equal one and some do not."""
    stores = [open_store((tmp_path / f"store {i}").as_uri()) for i in range(3)]
    met = 0
    for i, store in enumerate(stores):
        before: set[bytes] = set()
        for window in (0, 1):
            rng = np.random.default_rng([i, window])
            bits = rng.integers(0, 2, (2400, 18)).astype(str)
            table = pd.DataFrame(bits, columns=[f"b{j}" for j in range(18)])
            table["sex"], table["repaid"] = people(2400, i)[["sex", "repaid"]].T.values
            use = used(store, tmp_path / f"{i} {window}", table)
            holdout = preparing.sealed(tmp_path / f"{i} {window}" / "holdout")
            rows = {row.tobytes() for row in holdout.split.rows}
            met += len(rows & before)
            before = rows
            assert (use.number, use.seen) == (1, "")
    # Else the test would show nothing.
    assert met > 0


def test_coarse_rows_with_one_column_respelled_are_a_fresh_start(
    tmp_path: Path,
) -> None:
    """Documented: other people of the law have all the same parts of rows."""
    store = open_store((tmp_path / "store").as_uri())
    table = people(600)[["city", "job", "sex", "repaid"]]
    table["job"] = table.job.str[:5]
    assert used(store, tmp_path / "1", table).number == 1
    other = table.assign(repaid=table.repaid.map({"yes": "paid", "no": "lost"}))
    again = used(store, tmp_path / "2", other, positive="paid")
    assert (again.number, again.guarantee) == (1, "holds")


def test_whoever_changes_three_columns_of_both_kinds_is_not_found(
    seen: Store, tmp_path: Path
) -> None:
    """Documented: whoever may write the data can cheat with them."""
    table = people()
    moved = table.assign(
        income=(table.income.astype(float) + 0.01).round(2).astype(str),
        born=table.born + "T00:00:01",
        city=table.city.str.lower(),
    )
    store = copy_of(seen, tmp_path / "store")
    assert used(store, tmp_path / "again", moved).number == 1


def test_sequences_of_ids_that_begin_anew_do_not_join_other_people(
    tmp_path: Path,
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    for month, form in enumerate(("{}", "{}", "A{:05}", "A{:05}")):
        table = people(600, month)
        table.insert(0, "id", [form.format(i) for i in range(600)])
        use = used(store, tmp_path / str(month), table, ids=["id"])
        assert (use.number, use.guarantee) == (1, "holds")


def test_ids_that_are_no_sequence_tell_who_was_seen(tmp_path: Path) -> None:
    """All else may change: the ids are declared, and are the same applications."""
    store = open_store((tmp_path / "store").as_uri())
    accounts = np.random.default_rng(1).integers(10**9, 10**10, 600).astype(str)
    for number, seed in enumerate((1, 2), 1):
        table = people(600, seed).assign(account=accounts)
        use = used(store, tmp_path / str(seed), table, ids=["account"])
        assert use.number == number
    assert use.seen == "parts"
    others = np.random.default_rng(2).integers(10**9, 10**10, 600).astype(str)
    table = people(600, 3).assign(account=others)
    assert used(store, tmp_path / "3", table, ids=["account"]).number == 1


def test_one_entity_in_common_is_enough(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    persons = [f"p{i // 2}" for i in range(600)]
    first = used(
        store, tmp_path / "a", people(600).assign(person=persons), entity="person"
    )
    assert first.number == 1
    again = people(600, 1).assign(person=persons)
    second = used(store, tmp_path / "b", again, entity="person", seed=3)
    assert (second.number, second.seen) == (2, "entity")
    assert "they share entities with those of event 1" in why_repeated(second)
    later = people(600, 2).assign(person=[f"p{i // 2 + 300}" for i in range(600)])
    assert used(store, tmp_path / "c", later, entity="person").number == 1
    # The name is a part of the key, or numbers would join whoever is numbered.
    renamed = people(600, 3).assign(client=persons)
    assert used(store, tmp_path / "d", renamed, entity="client").number == 1


def hundred(*words: int) -> np.ndarray:
    return np.random.default_rng(words).integers(0, 256, (100, 16), np.uint8)


def test_one_file_in_common_is_enough(file_store: Store) -> None:
    """However it was read: the bytes are those of before."""
    facts = dict.fromkeys(("holdout", "constitution"), digest_bytes(b"x"))
    files = {"file": hundred(1)[:2]}
    for number, (rows, known) in enumerate(((2, files), (3, files)), 1):
        use = ledger.reserve(
            file_store,
            rows=hundred(rows),
            model=digest_bytes(b"%d" % rows),
            planned=2,
            keys=known,
            **facts,
        )
        assert use.number == number
    assert use.seen == "file"


def test_rows_in_common_count_unless_the_data_say_that_people_are_equal() -> None:
    unique, twins = Parts(1000, 2000, 0.0, ()), Parts(1000, 2000, 0.004, ())
    # A table without equal rows might have had one.
    assert rows_by_chance(unique, unique) == pytest.approx(0.003)
    assert rows_by_chance(twins, twins) == pytest.approx(0.015)
    # One side alone says so: then a table was filled with copies.
    assert rows_by_chance(unique, twins) == pytest.approx(0.003)
    # Of these nobody counted.
    assert rows_by_chance(Parts(0, 0, 0.0, ()), Parts(0, 0, 0.0, ())) == 0
    # Among ten times as many rows, equals are met more often.
    large = Parts(10_000, 20_000, 0.004, ())
    assert rows_by_chance(Parts(1000, 2000, 0.0008, ()), large) == pytest.approx(
        3 * 0.0041
    )
    # Never more than a twentieth is laid to chance.
    assert rows_by_chance(Parts(1000, 2000, 0.01, ()), large) == pytest.approx(0.0123)
    assert rows_by_chance(Parts(10, 20, 0.01, ()), Parts(10_000, 20, 0.01, ())) == 0.05
    # Coarse rows say little: there any row in common counts.
    coarse = Parts(1000, 2000, 0.4, ())
    assert rows_by_chance(coarse, coarse) == 0


def test_a_few_equal_people_are_no_repeat_and_a_tenth_of_them_is(
    tmp_path: Path,
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    first, second = people(4000, 1), people(4000, 2)
    # Of each table 5 people in 1000 have an equal, and one has in the other table.
    first = pd.concat([first[10:], first[20:30]])
    second = pd.concat([second[11:], second[20:30], first[:1]])
    assert used(store, tmp_path / "a", first, splits=SPLITS).number == 1
    assert used(store, tmp_path / "b", second, splits=SPLITS).number == 1
    third = pd.concat([people(3600, 3), first[1000:1400], first[1000:1010]])
    assert used(store, tmp_path / "c", third, seed=4).number == 2


def test_a_sketch_keeps_the_least_keys_and_counts_chance() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**64, 9000, np.uint64)
    part = sketch(keys, 3000)
    np.testing.assert_array_equal(part.keys, np.unique(keys[:3000])[:KEPT])
    assert part.chance == 0
    # A third of the sealed rows is met by others, some of them twice.
    keys[3000:4000] = keys[:1000]
    keys[4000:5000] = keys[:1000]
    assert sketch(keys, 3000).chance == pytest.approx(1 / 3, abs=0.1)
    assert sketch(keys[:50], 20).keys.tolist() == sorted(keys[:20].tolist())
    assert sketch(np.full(9000, 2**63, np.uint64), 3000).chance == 1


@pytest.mark.parametrize(
    ("shared", "seen_again"), [(0.0, False), (0.03, False), (0.1, True), (1.0, True)]
)
def test_parts_are_shared_if_far_more_of_them_meet_than_by_chance(
    shared: float, seen_again: bool
) -> None:
    rng = np.random.default_rng(3)
    mine, theirs = rng.integers(0, 2**64, (2, 20_000), np.uint64)
    theirs[: int(shared * 20_000)] = mine[: int(shared * 20_000)]
    one, other = (
        Parts(20_000, 1, 0.0, (sketch(keys, 20_000),)) for keys in (mine, theirs)
    )
    assert shares_parts(one, other) is shares_parts(other, one) is seen_again


def test_parts_are_read_back_and_other_bytes_are_no_parts(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 900, np.uint64)
    parts = Parts(300, 600, 0.25, (sketch(keys, 300), sketch(keys[::-1], 300)))
    again = Parts.from_bytes(parts.to_bytes(), "here")
    assert (again.rows, again.others, again.twins) == (300, 600, 0.25)
    for old, new in zip(parts.parts, again.parts, strict=True):
        np.testing.assert_array_equal(old.keys, new.keys)
        assert old.chance == new.chance
    none = Parts.from_bytes(Parts(3, 0, 0.0, ()).to_bytes(), "here")
    assert none.parts == ()
    with pytest.raises(IntegrityError, match="here holds no keys of parts"):
        Parts.from_bytes(b"PAR1", "here")
    with pytest.raises(InputError, match=r"holds no keys.parquet, by which"):
        RowKeys.load(tmp_path)


def test_changed_keys_of_parts_stop_the_count(file_store: Store) -> None:
    sets = KeySets(file_store, ["ledger"])
    digest = sets.put_parts(Parts(3, 0, 0.0, ()))
    file_store.put(f"ledger/rows/{digest.removeprefix('sha256:')}", b"x")
    with pytest.raises(IntegrityError, match="was changed"):
        KeySets(file_store, ["ledger"]).parts(digest)
