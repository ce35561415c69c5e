"""Uses of which one bit was told: what they spend, and what they bind."""

from __future__ import annotations

import hashlib
from itertools import product
from pathlib import Path

import pytest

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.sealed_uses import Answered, Opening, Use
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.uri import open_store

ROWS = [hashlib.sha256(b"%d" % n).digest()[:16] for n in range(5)]


def digest(word: str) -> str:
    return digest_bytes(word.encode())


def reserve(store: Store, model: str, planned: int = 4) -> Use:
    return ledger.reserve(
        store,
        rows=ROWS,
        model=digest(model),
        holdout=digest("holdout"),
        planned=planned,
        constitution=digest("c"),
    )


def answer(store: Store, use: Use, *, passed: bool, word: str = "e") -> Use:
    return ledger.mark_answered(
        store, use, evidence=digest(word), verdict=digest(f"v{word}"), passed=passed
    )


def test_a_use_that_was_answered_is_closed_and_spends_nothing(
    file_store: Store,
) -> None:
    for number in range(1, 5):
        use = reserve(file_store, f"m{number}")
        assert (use.number, use.guarantee) == (number, "holds")
        told = answer(file_store, use, passed=False)
        assert (told.opened, told.passed) == (False, False)
    assert reserve(file_store, "m5").guarantee == "spent"


def test_after_a_pass_and_after_an_opening_the_next_model_is_spent(
    file_store: Store, tmp_path: Path
) -> None:
    answer(file_store, reserve(file_store, "a"), passed=True)
    assert reserve(file_store, "b").guarantee == "spent"
    # The one that passed keeps what it had.
    assert reserve(file_store, "a").guarantee == "holds"

    other = open_store((tmp_path / "other").as_uri())
    use = answer(other, reserve(other, "a"), passed=False)
    assert reserve(other, "b").guarantee == "holds"
    ledger.mark_opened(other, use, evidence=digest("e"), verdict=digest("ve"))
    assert reserve(other, "c").guarantee == "spent"


def test_a_model_that_was_fixed_before_a_pass_was_told_keeps_its_guarantee(
    file_store: Store,
) -> None:
    first, second = reserve(file_store, "a"), reserve(file_store, "b")
    answer(file_store, first, passed=True)
    assert reserve(file_store, "b") == second
    assert second.guarantee == "holds"


def test_whoever_chooses_by_what_was_told_has_one_way_to_each_use_that_holds(
    tmp_path: Path,
) -> None:
    """The proof that levels add up, of all strategies on all answers of three tries.

    A strategy is a tree: its next model by all bits so far. If each use that has a
    guarantee is reached by one way, its models are as many as the planned uses, and
    P(a false pass) is at most the sum of their levels, whatever the strategy.
    """
    holding: dict[int, set[tuple[bool, ...]]] = {}
    for number, bits in enumerate(product((False, True), repeat=3)):
        store = open_store((tmp_path / str(number)).as_uri())
        heard: tuple[bool, ...] = ()
        for bit in bits:
            use = reserve(store, f"by {heard}", planned=3)
            if use.guarantee == "holds":
                holding.setdefault(use.number, set()).add(heard)
            # Where the guarantee is spent, no model passes.
            told = bit and use.guarantee == "holds"
            answer(store, use, passed=told)
            heard = (*heard, told)
    assert holding == {k + 1: {(False,) * k} for k in range(3)}


def test_equal_answers_are_one_and_other_evidence_is_no_answer(
    file_store: Store,
) -> None:
    use = reserve(file_store, "a")
    told = answer(file_store, use, passed=False)
    assert answer(file_store, use, passed=False) == told
    assert answer(file_store, told, passed=False) == told
    with pytest.raises(IntegrityError, match="was answered by other evidence"):
        answer(file_store, use, passed=True, word="other")
    with pytest.raises(IntegrityError, match="or with another bit"):
        answer(file_store, use, passed=True)
    assert ledger.uses(file_store) == [told]
    # Other words of a later version about the same evidence count once recorded.
    ledger.mark_answered(
        file_store, use, evidence=digest("e"), verdict=digest("later"), passed=False
    )
    (again,) = ledger.uses(file_store)
    assert again.departure(Answered(digest("e"), digest("later"), passed=False)) == ""


def test_an_answer_is_compared_with_answers_alone(file_store: Store) -> None:
    use = answer(file_store, reserve(file_store, "a"), passed=False)
    judged = Answered(digest("e"), digest("ve"), passed=False)
    assert use.departure(judged) == ""
    for other in (
        Answered(digest("e"), digest("ve"), passed=True),
        Answered(digest("x"), digest("ve"), passed=False),
        Answered(digest("e"), digest("x"), passed=False),
        Opening(digest("e"), digest("ve")),
    ):
        assert use.departure(other), other


@pytest.mark.parametrize(
    "body",
    [
        {"use": 1, "evidence": digest("e"), "verdict": digest("v"), "passed": "yes"},
        {"use": 1, "evidence": 5},
        {"use": 1, "more": True},
        {"use": 7, "evidence": digest("e"), "verdict": digest("v"), "passed": True},
    ],
)
def test_an_answer_of_another_form_stops_the_count(
    file_store: Store, body: dict[str, object]
) -> None:
    reserve(file_store, "a")
    EventLog(file_store, ledger.BOOK).append(lambda _: ("answered", body))
    with pytest.raises(InputError, match="does not understand"):
        reserve(file_store, "b")


def test_an_answer_of_no_use_or_of_no_digest_is_refused(
    file_store: Store, tmp_path: Path
) -> None:
    use = reserve(open_store((tmp_path / "other").as_uri()), "a")
    with pytest.raises(InputError, match="holds no use 1"):
        answer(file_store, use, passed=False)
    own = reserve(file_store, "a")
    with pytest.raises(InputError, match="expected a digest"):
        ledger.mark_answered(file_store, own, evidence="x", verdict="y", passed=False)
    assert not ledger.uses(file_store)[0].answers
