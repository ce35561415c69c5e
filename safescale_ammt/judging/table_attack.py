"""Table attack: does a permitted change turn a row's right answer into a wrong one?

Rows that are answered right are changed and answered again, by a function from raw
rows to answers: nets, trees and users' modules are attacked alike, and no gradient is
asked for.

    up to two changes   every permitted change is tried, so that who survives is exact
    more                every one of up to two; then greedily the change that makes the
                        truth least likely, one more column at a time; then `DRAWS`
                        drawn ones: who survives may still break, so that the share is
                        an upper bound (this is `SEARCH`)

What breaks a row is the first change that does, in an order that neither other rows nor
sizes of blocks have a say in. Of it the names of columns alone are kept, and no value.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.constitution.table_threats import ENUMERATED, TableThreat
from safescale_ammt.data.row_changes import (
    ChangeableRows,
    Choices,
    changes_of,
    options_of,
)
from safescale_ammt.data.schema import Schema

Answer = Callable[[pa.Table], tuple[NDArray[np.float64], NDArray[np.int64]]]
"""Scores and class codes (m,) of raw rows."""
SURVIVED, WRONG, NOT_DRAWN = "survived", "wrong as it is", "not drawn"
BROKEN = "broken by "
"""Before the names of the columns whose change breaks a row."""
DRAWS = 200
"""Drawn changes that each survivor of the search is tried with."""
MOST_ANSWERS = 50_000_000
"""Answers to changed rows from which on a part of the rows is attacked."""
AT_ONCE = 1 << 16
"""Changed rows that are answered at once."""
_CELLS = 1 << 22
"""Rows times options that are held at once."""


@dataclass
class TableAttack:
    """An attack on the rows of a schema.

    Attributes:
        threat: what may be changed, checked against the schema.
        schema: of the rows.
        seed: identity digest of the holdout; drawn changes are drawn by it.
        positive: code of the class whose probability a score is; None = of the
            predicted one.
        broken_by: columns whose change broke a row -> code, as they were met.
    """

    threat: TableThreat
    schema: Schema
    seed: str
    positive: int | None
    broken_by: dict[tuple[int, ...], int] = field(default_factory=dict)

    def permitted(self, features: pa.Table) -> int:
        """Counts the answers that an attack on rows asks for, if none breaks early."""
        total = 0
        for rows in self._blocks(features):
            counts = rows.counts()
            total += int(changes_of(counts, self.threat.changes).sum())
            if not self.threat.enumerated:
                steps = self.threat.changes * int(np.sum(counts))
                total += steps + DRAWS * len(rows)
        return total

    def outcomes(
        self, features: pa.Table, label: NDArray[Any], answer: Answer
    ) -> NDArray[np.int64]:
        """Attacks rows that are answered right.

        Args:
            features: the schema's feature columns of n rows.
            label: class codes (n,).
            answer: the model.

        Returns:
            Code in `broken_by` of what broke a row, -1 of one that survives (n,).
        """
        parts, at = [np.zeros(0, np.int64)], 0
        for rows in self._blocks(features):
            own = _Block(self, rows, label[at : (at := at + len(rows))], answer)
            own.try_every(range(1, min(self.threat.changes, ENUMERATED) + 1))
            if not self.threat.enumerated:
                own.try_greedily()
                own.try_drawn(self.drawn_choices())
            parts.append(own.found)
        return np.concatenate(parts)

    def told(self, codes: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[Any]]:
        """Returns outcomes in words, and the codes (n,) into them.

        Args:
            codes: of `outcomes`, -2 of a row that is wrong as it is, -3 of one that
                is not drawn.
        """
        names = [name for name, _ in self.threat.columns]
        words = [BROKEN + ", ".join(names[c] for c in key) for key in self.broken_by]
        order = sorted(range(len(words)), key=words.__getitem__)
        values = (SURVIVED, WRONG, NOT_DRAWN, *(words[i] for i in order))
        places = np.empty(len(words) + 3, np.int64)
        places[[-1, -2, -3]] = 0, 1, 2
        places[order] = np.arange(len(words)) + 3
        return values, places[codes]

    def drawn_choices(self) -> Iterator[tuple[int, ...]]:
        """Yields choices of as many columns as may be changed, drawn by the seed."""
        options = options_of(self.threat, self.schema)
        key, seed = self.threat.key, self.seed.encode()
        for i in range(DRAWS):
            told = (f"{key} {i} {c}".encode() for c in range(len(options)))
            lots = [hmac.digest(seed, words, "sha256") for words in told]
            chosen = sorted(range(len(options)), key=lots.__getitem__)
            choice = [-1] * len(options)
            for c in chosen[: self.threat.changes]:
                # The first half of a lot has chosen the column, this one its option.
                choice[c] = int.from_bytes(lots[c][16:], "big") % len(options[c])
            yield tuple(choice)

    def _blocks(self, features: pa.Table) -> Iterator[ChangeableRows]:
        """Yields rows so many at once that what is permitted of them fits."""
        options = sum(map(len, options_of(self.threat, self.schema)))
        size = max(1, min(AT_ONCE, _CELLS // max(1, options)))
        for at in range(0, features.num_rows, size):
            yield ChangeableRows(features.slice(at, size), self.threat, self.schema)


class _Block:
    """Rows under attack, and what broke each.

    Args:
        attack: that they are under.
        rows: answered right, n of them.
        label: class codes (n,).
        answer: the model.

    Attributes:
        found: code of what broke a row (n,), -1 of those that stand.
    """

    def __init__(
        self,
        attack: TableAttack,
        rows: ChangeableRows,
        label: NDArray[Any],
        answer: Answer,
    ) -> None:
        self._attack, self._rows, self._answer = attack, rows, answer
        self._label = np.asarray(label, np.int64)
        self.found = np.full(len(rows), -1, np.int64)

    @property
    def _standing(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.found < 0)

    def try_every(self, sizes: Sequence[int]) -> None:
        """Tries each permitted change of so many columns, on rows that stand."""
        waiting: list[tuple[NDArray[np.int64], tuple[int, ...]]] = []
        size, standing = 0, self._standing
        for choice in chain.from_iterable(map(self._rows.choices, sizes)):
            at = standing[self._rows.may_take(standing, choice)]
            if not len(at):
                continue
            waiting.append((at, choice))
            size += len(at)
            if size >= AT_ONCE:
                self._try_all(waiting)
                waiting, size, standing = [], 0, self._standing
            if not len(standing):
                return
        if waiting:
            self._try_all(waiting)

    def _try_all(
        self, waiting: Sequence[tuple[NDArray[np.int64], tuple[int, ...]]]
    ) -> None:
        at = np.concatenate([rows for rows, _ in waiting])
        each = [np.tile(choice, (len(rows), 1)) for rows, choice in waiting]
        self._try(at, np.concatenate(each))

    def try_drawn(self, choices: Iterator[tuple[int, ...]]) -> None:
        """Tries drawn changes, each as far as it is permitted of a row."""
        for choice in choices:
            at = self._standing
            if not len(at):
                return
            may = [
                (at >= 0) if option < 0 else allowed[at, option]
                for allowed, option in zip(self._rows.permitted, choice, strict=True)
            ]
            self._try(at, np.where(np.stack(may, 1), choice, -1))

    def try_greedily(self) -> None:
        """Adds to each row, column by column, the change that harms the truth most."""
        chosen = np.full((len(self.found), len(self._rows.permitted)), -1)
        for _ in range(self._attack.threat.changes):
            worst = np.full(len(chosen), -np.inf)
            step = chosen.copy()
            for choice in self._rows.choices(1):
                at = self._standing
                column = int(np.argmax(np.array(choice) >= 0))
                free = chosen[at, column] < 0
                at = at[free & self._rows.may_take(at, choice)]
                if not len(at):
                    continue
                tried = chosen[at]
                tried[:, column] = choice[column]
                harm = self._try(at, tried)
                more = harm > worst[at]
                worst[at[more]], step[at[more]] = harm[more], tried[more]
            chosen = step

    def _try(self, at: NDArray[np.int64], choices: Choices) -> NDArray[np.float64]:
        """Answers rows (m,) changed by choices, and returns the harm of each (m,)."""
        score, prediction = self._answer(self._rows.changed(at, choices))
        label, positive = self._label[at], self._attack.positive
        # An answer that is no number is right for no label.
        wrong = (prediction != label) | ~np.isfinite(score)
        # Of one row the first change that breaks it counts, in the order of choices.
        rows, first = np.unique(at[wrong], return_index=True)
        by = self._attack.broken_by
        for row, choice in zip(rows, choices[wrong][first], strict=True):
            if self.found[row] < 0:
                columns = tuple(np.flatnonzero(choice >= 0).tolist())
                self.found[row] = by.setdefault(columns, len(by))
        spoken_of = np.full(len(at), True) if positive is None else label == positive
        return np.where(spoken_of, -score, score)
