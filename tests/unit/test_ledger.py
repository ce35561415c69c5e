"""The ledger of sealed rows: numbers, guarantees, and nothing forgotten."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.judging.evidence import distinct_rows, rows_digest
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.sealed_uses import Opening, Use, counted
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.uri import open_store


def digest(word: str) -> str:
    return digest_bytes(word.encode())


def hashes(*numbers: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % n).digest()[:16] for n in numbers]


def reserve(
    store: Store,
    model: str,
    rows: Any,
    planned: int = 1,
    constitution: str = "c",
    **changes: Any,
) -> Use:
    return ledger.reserve(
        store,
        rows=rows,
        model=digest(model),
        holdout=digest("holdout"),
        planned=planned,
        constitution=digest(constitution),
        clock=lambda: datetime(2030, 1, 2, tzinfo=UTC),
        **changes,
    )


def mark_opened(store: Store, use: Use, word: str = "answers") -> Use:
    """Opens a use; equal words are equal evidence and verdicts."""
    return ledger.mark_opened(
        store, use, evidence=digest(word), verdict=digest(f"verdict of {word}")
    )


def test_the_first_use_of_rows_has_number_one_and_holds(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1, 2, 3))
    assert (use.number, use.guarantee, use.count, use.opened) == (1, "holds", 3, False)
    assert use.at == "2030-01-02T00:00:00+00:00"
    assert ledger.uses(file_store) == [use]


def test_a_use_counts_each_row_that_it_shares(file_store: Store) -> None:
    assert reserve(file_store, "a", hashes(1, 2, 3), 9).number == 1
    assert reserve(file_store, "b", hashes(3, 4), 9).number == 2
    assert reserve(file_store, "c", hashes(4, 5), 9).number == 3
    assert reserve(file_store, "d", hashes(6, 7), 9).number == 1
    assert reserve(file_store, "e", hashes(7, 1), 9).number == 2


def test_more_uses_than_planned_are_spent(file_store: Store) -> None:
    made = [reserve(file_store, m, hashes(1, 2), 2).guarantee for m in "abc"]
    assert made == ["holds", "holds", "spent"]


def test_the_smallest_number_ever_planned_binds(file_store: Store) -> None:
    """alpha/1 + alpha/9 would be more than the alpha that was promised."""
    assert reserve(file_store, "a", hashes(1), planned=1).guarantee == "holds"
    assert reserve(file_store, "b", hashes(1), planned=9).guarantee == "spent"


def test_the_same_model_keeps_its_use_and_its_guarantee(file_store: Store) -> None:
    first = reserve(file_store, "a", hashes(1, 2), 3)
    second = reserve(file_store, "b", hashes(2), 3)
    mark_opened(file_store, second)
    again = reserve(file_store, "a", [*hashes(2, 1), *hashes(1)], 3)
    assert again == first
    assert len(ledger.uses(file_store)) == 2


def test_a_different_model_on_opened_rows_is_spent(file_store: Store) -> None:
    mark_opened(file_store, reserve(file_store, "a", hashes(1, 2, 3), 9))
    late = reserve(file_store, "b", hashes(3, 4, 5), 9)
    assert (late.number, late.guarantee) == (2, "spent")
    assert reserve(file_store, "b", hashes(4, 5, 6), 9).guarantee == "holds"


def test_a_model_reserved_before_the_rows_were_opened_keeps_its_guarantee(
    file_store: Store,
) -> None:
    early = reserve(file_store, "a", hashes(1), 2)
    other = reserve(file_store, "b", hashes(1), 2)
    mark_opened(file_store, early)
    assert reserve(file_store, "b", hashes(1), 2) == other
    assert other.guarantee == "holds"


def test_a_constitution_written_after_the_figures_is_a_new_use(
    file_store: Store,
) -> None:
    """Else a tolerance could be set to what was measured."""
    mark_opened(file_store, reserve(file_store, "a", hashes(1), 9))
    fitted = reserve(file_store, "a", hashes(1), 9, constitution="looser")
    assert (fitted.number, fitted.guarantee) == (2, "spent")


def test_the_same_model_on_other_rows_is_a_new_use(file_store: Store) -> None:
    reserve(file_store, "a", hashes(1, 2), 9)
    assert reserve(file_store, "a", hashes(1), 9).number == 2


def test_opening_twice_is_opening_once(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1))
    opened = mark_opened(file_store, use)
    assert opened.opened
    assert mark_opened(file_store, use) == opened
    assert mark_opened(file_store, opened) == opened
    assert ledger.uses(file_store) == [opened]
    assert reserve(file_store, "a", hashes(1)) == opened


def test_a_use_of_another_ledger_cannot_be_opened(
    file_store: Store, tmp_path: Path
) -> None:
    use = reserve(open_store((tmp_path / "other").as_uri()), "a", hashes(1))
    with pytest.raises(InputError, match="holds no use 1"):
        mark_opened(file_store, use)
    reserve(file_store, "b", hashes(1))
    with pytest.raises(InputError, match="holds no use 1"):
        mark_opened(file_store, use)


def test_rows_that_were_read_in_research_are_open_for_an_official_use(
    file_store: Store,
) -> None:
    for number in range(1, 21):
        use = reserve(file_store, f"try {number}", hashes(1, 2), ledger="research")
        assert use.number == number
        mark_opened(file_store, use)
    official = reserve(file_store, "last", hashes(2, 3))
    assert (official.number, official.guarantee) == (21, "spent")


def test_official_uses_count_for_research_too(file_store: Store) -> None:
    mark_opened(file_store, reserve(file_store, "a", hashes(1), 9))
    research = reserve(file_store, "b", hashes(1), 9, ledger="research")
    assert (research.number, research.guarantee) == (2, "spent")


def test_a_model_that_was_read_in_research_is_a_new_use_officially(
    file_store: Store,
) -> None:
    """Else one could look in research and register only what was liked."""
    mark_opened(file_store, reserve(file_store, "a", hashes(1), 9, ledger="research"))
    official = reserve(file_store, "a", hashes(1), 9)
    assert (official.number, official.guarantee) == (2, "spent")
    assert [use.ledger for use in ledger.uses(file_store)] == ["research", "official"]


def old_research(
    store: Store, model: str, rows: list[bytes], *, planned: int = 1, opens: bool
) -> None:
    """Writes a use as research did when it had a book of its own."""
    data = b"".join(sorted(rows))
    name = digest_bytes(data)
    store.put(f"research-ledger/rows/{name.removeprefix('sha256:')}", data)
    body = {
        "number": 1,
        "planned": planned,
        "guarantee": "holds",
        "model": digest(model),
        "constitution": digest("c"),
        "holdout": digest("holdout"),
        "rows": name,
        "count": len(rows),
    }
    log = EventLog(store, "research-ledger")
    event = log.append(lambda events: ("reserved", body))
    assert event is not None
    if opens:
        log.append(lambda events: ("opened", {"use": event.sequence}))


@pytest.mark.parametrize(("opens", "guarantee"), [(True, "spent"), (False, "holds")])
def test_what_an_old_research_ledger_opened_is_open(
    file_store: Store, opens: bool, guarantee: str
) -> None:
    old_research(file_store, "old", hashes(1, 2), planned=9, opens=opens)
    use = reserve(file_store, "new", hashes(2, 4), 9)
    assert (use.number, use.guarantee) == (2, guarantee)
    fresh = reserve(file_store, "newer", hashes(5), 9)
    assert (fresh.number, fresh.guarantee) == (1, "holds")
    kinds = [use.ledger for use in ledger.verify(file_store)]
    assert kinds == ["research", "official", "official"]


def test_the_number_that_old_research_planned_binds(file_store: Store) -> None:
    old_research(file_store, "old", hashes(1), planned=1, opens=False)
    assert reserve(file_store, "new", hashes(1), 9).guarantee == "spent"


def test_an_old_research_set_that_is_lost_stops_the_count(file_store: Store) -> None:
    old_research(file_store, "old", hashes(1, 2), opens=True)
    (info,) = file_store.list("research-ledger/rows/")
    file_store.delete(info.key)
    with pytest.raises(IntegrityError, match="is missing"):
        reserve(file_store, "new", hashes(2, 4))


@pytest.mark.parametrize("first", ["official", "research"])
def test_a_benchmark_is_refused_in_an_ordinary_book_and_the_other_way_round(
    file_store: Store, tmp_path: Path, first: str
) -> None:
    reserve(file_store, "a", hashes(1), ledger=first)
    with pytest.raises(InputError, match=f"a book of {first} uses, so no benchmark"):
        reserve(file_store, "b", hashes(2), ledger="benchmark")
    other = open_store((tmp_path / "bench").as_uri())
    reserve(other, "a", hashes(1), ledger="benchmark")
    with pytest.raises(InputError, match=f"a book of benchmark uses, so no {first}"):
        reserve(other, "a", hashes(9), ledger=first)
    assert reserve(other, "b", hashes(1), 9, ledger="benchmark").number == 2
    assert len(ledger.verify(file_store)) == 1
    assert len(ledger.verify(other)) == 2


def test_a_store_with_old_research_takes_no_benchmark(file_store: Store) -> None:
    old_research(file_store, "old", hashes(1), opens=True)
    with pytest.raises(InputError, match="a book of research uses"):
        reserve(file_store, "b", hashes(2), ledger="benchmark")


def test_a_purpose_that_does_not_exist_is_bad_input(file_store: Store) -> None:
    with pytest.raises(InputError, match="the ledger is 'mine', expected one of"):
        reserve(file_store, "a", hashes(1), ledger="mine")


def test_a_further_key_in_common_is_a_row_in_common(file_store: Store) -> None:
    """Rows that were respelled still name the same person by their id."""
    ids = {"entity": hashes(100, 101), "file": hashes(7)}
    mark_opened(file_store, reserve(file_store, "a", hashes(1, 2), 9, keys=ids))
    apart = {"entity": hashes(200), "file": hashes(8)}
    assert reserve(file_store, "b", hashes(3), 9, keys=apart).number == 1
    # The same hash under another name is another thing.
    crossed = {"file": hashes(100), "entity": hashes(7)}
    assert reserve(file_store, "c", hashes(4), 9, keys=crossed).number == 1
    person = reserve(file_store, "d", hashes(5), 9, keys={"entity": hashes(101, 300)})
    assert (person.number, person.guarantee) == (2, "spent")
    assert [name for name, _ in person.keys] == ["entity"]
    assert len(ledger.verify(file_store)) == 4


def test_a_key_of_another_width_is_bad_input(file_store: Store) -> None:
    with pytest.raises(InputError, match=r"hashes of entity of \[5\] bytes"):
        reserve(file_store, "a", hashes(1), keys={"entity": [b"short"]})


def test_what_was_counted_is_counted_again_the_same(file_store: Store) -> None:
    old_research(file_store, "old", hashes(1), planned=9, opens=True)
    made = [
        reserve(file_store, "a", hashes(1, 2), 9),
        reserve(file_store, "b", hashes(2, 3), 9),
        reserve(file_store, "c", hashes(4), 9, keys={"entity": hashes(7)}),
        reserve(file_store, "d", hashes(5), 1, keys={"entity": hashes(7)}),
    ]
    # What is opened later changes nothing of what was counted before.
    for use in made:
        mark_opened(file_store, use)
    reserve(file_store, "e", hashes(*range(9)), 9)
    for use in ledger.uses(file_store)[1:]:
        ledger.recount(file_store, use, use.planned)
    assert [use.guarantee for use in made] == ["spent", "holds", "holds", "spent"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"number": 1}, "states number 1, 2 follows"),
        ({"guarantee": "holds"}, "states guarantee 'holds', 'spent' follows"),
        ({"planned": 7}, "states planned 7, 9 follows"),
    ],
)
def test_an_event_that_counts_itself_otherwise_is_found(
    file_store: Store, changes: dict[str, Any], words: str
) -> None:
    mark_opened(file_store, reserve(file_store, "a", hashes(1, 2), 9))
    honest = reserve(file_store, "b", hashes(2, 3), 9)
    body = {**vars(honest), "model": digest("forged"), **changes}
    for name in ("event", "at", "openings", "keys"):
        del body[name]
    other = open_store(file_store.uri + "-forged")
    for info in file_store.list():
        if info.key != "ledger/events/00000003.json":
            other.put(info.key, file_store.get(info.key))
    EventLog(other, "ledger").append(lambda events: ("reserved", body))
    ledger.recount(file_store, honest, 9)
    with pytest.raises(IntegrityError, match=words):
        ledger.recount(other, ledger.uses(other)[-1], 9)


def judged(word: str, verdict: str = "") -> Opening:
    return Opening(digest(word), digest(verdict or f"verdict of {word}"))


def test_an_opening_binds_the_digests_of_what_becomes_readable(
    file_store: Store,
) -> None:
    use = mark_opened(file_store, reserve(file_store, "a", hashes(1)), "one")
    assert use.openings == (judged("one"),)
    assert use.departure(judged("one")) == ""
    assert mark_opened(file_store, use, "one") == use
    assert ledger.uses(file_store) == [use]
    for other in (judged("two", "verdict of one"), judged("one", "forged")):
        fault = use.departure(other)
        assert (digest("one") in fault) == (other.evidence == digest("two"))
        assert set(vars(other).values()) - set(vars(judged("one")).values())
        assert any(value in fault for value in vars(other).values())


def test_other_answers_that_come_later_are_recorded_and_never_count(
    file_store: Store,
) -> None:
    use = mark_opened(file_store, reserve(file_store, "a", hashes(1)), "one")
    forged = mark_opened(file_store, use, "two")
    assert len(forged.openings) == 2
    assert digest("one") in forged.departure(judged("two"))
    assert digest("two") in forged.departure(judged("two"))
    assert forged.departure(judged("one")) == ""


def test_the_same_answers_in_other_words_count_once_they_are_recorded(
    file_store: Store,
) -> None:
    """A later version of the library may word a verdict otherwise."""
    use = mark_opened(file_store, reserve(file_store, "a", hashes(1)), "one")
    reworded = judged("one", "reworded")
    assert use.departure(reworded)
    again = ledger.mark_opened(file_store, use, **vars(reworded))
    assert again.departure(reworded) == ""
    assert again.departure(judged("one")) == ""
    assert again.departure(judged("one", "third"))


def test_an_opening_of_before_there_were_digests_opens_and_binds_nothing(
    file_store: Store,
) -> None:
    use = reserve(file_store, "a", hashes(1))
    log = EventLog(file_store, "ledger")
    log.append(lambda events: ("opened", {"use": use.event}))
    (old,) = ledger.uses(file_store)
    assert old.opened
    assert "of evidence none" in old.departure(judged("one"))
    assert mark_opened(file_store, old, "one").departure(judged("one")) == ""


def test_a_malformed_digest_opens_nothing(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1))
    with pytest.raises(InputError, match="the evidence is ''"):
        ledger.mark_opened(file_store, use, evidence="", verdict=digest("v"))
    assert not ledger.uses(file_store)[0].opened


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("reserved", {"number": 1}),
        ("reserved", {"keys": "none"}),
        ("opened", {"use": 7}),
        ("opened", {"use": [1]}),
        ("opened", {}),
    ],
)
def test_an_event_of_another_form_stops_the_count(
    file_store: Store, kind: str, body: dict[str, Any]
) -> None:
    EventLog(file_store, "ledger").append(lambda events: (kind, body))
    with pytest.raises(InputError, match=f"event 1 of the ledger is '{kind}'"):
        ledger.uses(file_store)


@pytest.mark.parametrize(
    ("earlier", "planned", "number", "guarantee"),
    [
        ([], 1, 1, "holds"),
        ([(1, 3, False)], 3, 2, "holds"),
        ([(1, 3, False)], 1, 2, "spent"),
        ([(1, 3, True)], 3, 2, "spent"),
        ([(1, 9, False), (4, 9, False)], 9, 5, "holds"),
        ([(1, 4, False), (4, 9, False)], 9, 5, "spent"),
    ],
)
def test_number_and_guarantee_follow_from_the_uses_that_share_a_row(
    earlier: list[tuple[int, int, bool]], planned: int, number: int, guarantee: str
) -> None:
    about = dict.fromkeys(("model", "constitution", "holdout", "rows", "at"), "")
    sharing = [
        Use(
            number=n,
            planned=p,
            guarantee="holds",
            count=1,
            event=1,
            **about,
            openings=(Opening(),) * opened,
        )
        for n, p, opened in earlier
    ]
    expected = {"number": number, "planned": planned, "guarantee": guarantee}
    assert counted(sharing, planned) == expected


@pytest.mark.parametrize("form", ["V16", "S16", "matrix", "list"])
def test_every_form_of_the_same_rows_is_the_same_set(
    file_store: Store, form: str
) -> None:
    rows = [b"\0" * 16, b"a" + b"\0" * 15, b"\0" * 15 + b"a", b"z" * 16]
    data = b"".join(rows)
    shapes = {
        "V16": np.frombuffer(data, "V16"),
        "S16": np.frombuffer(data, "S16"),
        "matrix": np.frombuffer(data, np.uint8).reshape(-1, 16),
        "list": rows,
    }
    use = reserve(file_store, "a", shapes[form])
    assert use.count == 4
    assert use.rows == digest_bytes(b"".join(sorted(rows)))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows were given"),
        (np.zeros(0, "V16"), "no rows were given"),
        ([b"short"], r"of \[5\] bytes"),
        ([b"x" * 16, b"short"], r"of \[5, 16\] bytes"),
        (np.zeros((3, 8), np.uint8), r"of \[8\] bytes"),
    ],
)
def test_rows_of_another_form_are_bad_input(
    file_store: Store, rows: list[bytes], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        reserve(file_store, "a", rows)


def test_no_submissions_planned_is_bad_input(file_store: Store) -> None:
    with pytest.raises(InputError, match="at least 1"):
        reserve(file_store, "a", hashes(1), planned=0)


def test_a_malformed_model_digest_is_bad_input(file_store: Store) -> None:
    with pytest.raises(InputError, match="the model is 'm1'"):
        ledger.reserve(
            file_store,
            rows=hashes(1),
            model="m1",
            holdout=digest("h"),
            planned=1,
            constitution=digest("c"),
        )


def test_lost_or_changed_rows_stop_the_count(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1, 2), 9)
    assert ledger.verify(file_store) == [use]
    key = f"ledger/rows/{use.rows.removeprefix('sha256:')}"
    file_store.put(key, b"x" * 32)
    for check in (
        lambda: reserve(file_store, "b", hashes(2), 9),
        lambda: ledger.verify(file_store),
    ):
        with pytest.raises(IntegrityError, match=f"recorded {use.rows}, found sha256:"):
            check()
    file_store.delete(key)
    with pytest.raises(IntegrityError, match="is missing"):
        reserve(file_store, "b", hashes(2), 9)
    assert len(ledger.uses(file_store)) == 1


def test_a_set_under_another_name_than_its_digest_is_found(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1, 2), 9)
    data = file_store.get(f"ledger/rows/{use.rows.removeprefix('sha256:')}")
    # One that was reserved by a run that was killed is whole, and of no use.
    left = digest_bytes(b"x" * 32)
    file_store.put(f"ledger/rows/{left.removeprefix('sha256:')}", b"x" * 32)
    assert ledger.verify(file_store) == [use]
    other = "f" * 64
    file_store.put(f"ledger/rows/{other}", data)
    with pytest.raises(IntegrityError, match=f"rows/{other} was changed"):
        ledger.verify(file_store)


def test_an_event_that_this_version_does_not_know_stops_the_count(
    file_store: Store,
) -> None:
    EventLog(file_store, "ledger").append(lambda events: ("forgiven", {}))
    with pytest.raises(InputError, match="is 'forgiven', which this version"):
        reserve(file_store, "a", hashes(1))


def test_a_count_that_does_not_fit_the_set_is_found(file_store: Store) -> None:
    use = reserve(file_store, "a", hashes(1))
    body = {**vars(use), "count": 7}
    for name in ("event", "at", "openings", "keys"):
        del body[name]
    EventLog(file_store, "ledger").append(lambda events: ("reserved", body))
    with pytest.raises(IntegrityError, match="counts 7 rows"):
        ledger.verify(file_store)


SETS = st.sets(st.integers(0, 12), min_size=1, max_size=6)
DEED = st.tuples(st.sampled_from("abcd"), SETS, st.booleans())


@settings(max_examples=40, deadline=None)
@given(deeds=st.lists(DEED, min_size=1, max_size=8), planned=st.integers(1, 4))
def test_the_ledger_agrees_with_counting_by_hand(
    deeds: list[tuple[str, set[int], bool]],
    planned: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The definition, row by row, with nothing clever."""
    store = open_store(tmp_path_factory.mktemp("ledger").as_uri())
    known: dict[tuple[str, frozenset[int]], tuple[int, str]] = {}
    count: dict[int, int] = {}
    opened: set[int] = set()
    for model, rows, opens in deeds:
        use = reserve(store, model, hashes(*rows), planned)
        if (model, frozenset(rows)) not in known:
            number = 1 + max(count.get(row, 0) for row in rows)
            spent = number > planned or bool(rows & opened)
            known[model, frozenset(rows)] = number, "spent" if spent else "holds"
            count.update({row: max(count.get(row, 0), number) for row in rows})
        assert (use.number, use.guarantee) == known[model, frozenset(rows)]
        if opens:
            mark_opened(store, use)
            opened |= rows
    assert len(ledger.verify(store)) == len(known)


def test_a_million_rows_are_counted(file_store: Store) -> None:
    rng = np.random.default_rng(7)
    rows = rng.integers(0, 256, (1_000_000, 16), dtype=np.uint8)
    facts = {"holdout": digest("h"), "planned": 9, "constitution": digest("c")}
    one = ledger.reserve(file_store, rows=rows, model=digest("a"), **facts)  # type: ignore[arg-type]
    assert (one.number, one.count) == (1, 1_000_000)
    other = rng.integers(0, 256, (1_000_000, 16), dtype=np.uint8)
    assert (
        ledger.reserve(file_store, rows=other, model=digest("b"), **facts).number == 1  # type: ignore[arg-type]
    )
    other[123_456] = rows[999_999]
    assert (
        ledger.reserve(file_store, rows=other, model=digest("c"), **facts).number == 2  # type: ignore[arg-type]
    )


def test_evidence_and_ledger_digest_one_set_of_rows(file_store: Store) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (500, 16), np.uint8)
    rows[:50, -3:] = 0  # a hash may end in zero bytes, which a text would lose
    again = np.concatenate([rows[::-1], rows[:70]])
    use = reserve(file_store, "a", again, 9)
    assert use.rows == rows_digest(rows) == rows_digest(again)
    flat = np.frombuffer(again.tobytes(), "S16")
    assert distinct_rows(again.tobytes()).tobytes() == np.unique(flat).tobytes()
    assert len(distinct_rows(b"")) == 0
