"""How often the gate passes a model that breaks its promise, by how rows repeat.

    python -m benchmarks gate-sampling [--replicates N] [--write]

Tables of 20,000 rows are drawn from populations whose gap is known: with few distinct
rows, with entities of many rows, stratified by another column than the promise's, with
copies of records. Each is split, thinned and judged by the product's own functions for
the promise tpr_gap <= .08 at alpha .05. Beside it stands the design before
decision 86: equal rows, or rows of one entity, share a split, and all of them are
judged. Some tables go the whole way, through `prepare`, `assemble` and the gate: the
same rows and decision, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.configuration_examples import SPLITS
from benchmarks.gate_populations import (
    GAPS,
    LOW,
    People,
    cells,
    copied,
    entities,
    other_column,
    uneven,
)
from benchmarks.pages import DOCS, replaced, table
from benchmarks.provenance import in_form, store
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.two_rates import shows_below
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.local_table import prepare_here
from safescale_ammt.data.relations import ALL_SPLITS, SEALED
from safescale_ammt.data.splitting import (
    draw_splits,
    drawn_keys,
    equal_codes,
    occurrences,
    one_of_each,
    row_hex,
)
from safescale_ammt.judging.assembly import Submission, assemble
from safescale_ammt.judging.certify import GroupHits, pairs
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import Rates
from safescale_ammt.judging.sampling_model import SamplingModel
from safescale_ammt.judging.verdict import SealedUse
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.spool import Spool

RESULT = Path(__file__).parent / "results" / "gate-sampling.json"
PAGE = DOCS / "mathematical_foundations.md"
ALPHA, LINE = 0.05, 0.08
BASES = (0.1, 0.3, 0.5)
REPLICATES = 400
LARGE = 100
"""Trials from which the normal law may leave no doubt."""
WHOLE_WAY = 1
"""Tables of each population that go through prepare, assemble and the gate."""
Draw = Callable[[np.random.Generator, float, int], People]
POPULATIONS: tuple[tuple[str, Draw, tuple[int, ...]], ...] = (
    ("distinct rows", cells, (100, 500, 2_000, 10_000, 30_000, 0)),
    ("rows of an entity", entities, (1, 2, 5, 50)),
    ("uneven entities, up to", uneven, (10,)),
    ("strata of another column", other_column, (4,)),
    ("copies of a record, up to", copied, (9,)),
)
FRACTIONS = [SPLITS[name] for name in ALL_SPLITS]
RULES = Constitution.from_dict(
    {
        "schema": 1,
        "constitution": {"id": "sampling", "version": "1.0.0"},
        "principles": [
            {
                "id": "equal-opportunity",
                "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": LINE},
            }
        ],
        # The test alone decides: no group is too small, no model too simple.
        "gate": {"alpha": ALPHA, "allow_constant": True},
        "groups": {"min_n": 1, "min_pos": 1},
    }
)


def judged(people: People, rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns which rows are sealed and judged, as `cut` draws them: positions."""
    strata = people.stratum * 2 + people.label
    kept = np.flatnonzero(~(people.copies & (occurrences(rows) > 0)))
    who = None
    if people.entity is not None:
        names = pa.array([f"e{i}" for i in range(int(people.entity.max()) + 1)])
        who = Column(people.entity.astype(np.int32), names)
    split = draw_splits(rows[kept], strata[kept], FRACTIONS, seed, who)
    sealed = kept[split == ALL_SPLITS.index(SEALED)]
    if people.entity is None:
        return np.asarray(sealed)
    drawn = one_of_each(people.entity[sealed], rows[sealed])
    return np.asarray(sealed[drawn])


def formerly_judged(people: People, rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns which rows were judged when equal ones, and an entity's, kept together.

    A block counted as one point within its width, drawn by its key's low bits.
    """
    strata, block = people.stratum * 2 + people.label, equal_codes(rows)
    if people.entity is not None:
        block = people.entity
        # The least stratum of an entity's rows; they are sorted by entity.
        first = np.flatnonzero(np.diff(block, prepend=-1))
        strata = np.minimum.reduceat(strata, first)[block]
    keys = drawn_keys(rows[np.unique(block, return_index=True)[1]], f"split {seed}")
    order = np.lexsort((block, keys[block], strata))
    stratum, ordered = strata[order], block[order]
    start = np.searchsorted(stratum, stratum, side="left")
    size = np.searchsorted(stratum, stratum, side="right") - start
    fresh = np.diff(ordered, prepend=-1) != 0
    first = np.flatnonzero(fresh)[np.cumsum(fresh) - 1]
    phase = (keys[ordered] & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    width = np.bincount(block)[ordered]
    quantile = (first - start + phase * width) / size
    return np.asarray(order[quantile >= 1 - SPLITS[SEALED]])


def held(people: People, rows: np.ndarray) -> list[bool]:
    """Says at which of `GAPS` the judged rows show the promise, by the gate's test."""
    positive = rows[people.label[rows] == 1]
    sex = people.sex[positive]
    trials = np.bincount(sex, minlength=2)
    shown, lost = [], False
    for gap in GAPS:
        found = people.found(gap)[positive]
        hits = np.bincount(sex, weights=found, minlength=2).astype(np.int64)
        counted = GroupHits((Rates("tpr", hits[None], trials),), trials < 1)
        other, favoured = pairs(counted, RULES.principles[0].constraint)
        # With the gap the hits of sex 1 alone grow: where it is not shown to stay below
        # its line, it is not at a larger gap, and no test has to say so.
        lost = lost or not below(*favoured)
        shown.append(not lost and below(*other))
    return shown


def below(x1: np.ndarray, x0: np.ndarray, line: Line) -> bool:
    """Says whether the gate's test shows p1 below its line.

    Nine times in ten the normal law leaves no doubt of what the exact one, which takes
    much longer, says: at these sizes it rejects between .7 and 1.04 times alpha of it.
    """
    if min(line.n1, line.n0) >= LARGE:
        if not shows_below(x1, x0, line, 1.6 * ALPHA, normal=True)[0]:
            return False
        if shows_below(x1, x0, line, 0.6 * ALPHA, normal=True)[0]:
            return True
    return bool(shows_below(x1, x0, line, ALPHA)[0])


def prepared_and_judged(people: People, seed: int) -> tuple[list[str], list[bool]]:
    """Prepares, judges and decides; returns the sealed rows, and which gaps pass."""
    prepared = prepare_here(people.config(seed), [Spool.of(people.table())])
    sealed, schema = prepared.rows.split(SEALED), prepared.schema
    sex, label = sealed.groups["sex"], sealed.label
    u = sealed.features["u"].to_numpy()
    rows, passed = sealed.rows, []
    distinct = int(equal_codes(rows).max()) + 1
    sampling = SamplingModel(schema.unit, prepared.sealed, len(rows), distinct)
    use = SealedUse(1, 1, "holds")
    about = ("", "", "", "sealed", "official", use, schema.classes, "1", 15, ())
    for gap in GAPS:
        answer = (u < np.where(label == 1, LOW + gap * sex, 0.1)).astype(np.int64)
        score, groups = answer.astype(float), {"sex": (schema.groups["sex"], sex)}
        evidence = Evidence(label, answer, score, groups, answer, score)
        verdict = assemble(RULES, evidence, Submission(*about, sampling), "")
        passed.append(verdict.decision == "pass")
    return sorted(row_hex(rows)), passed


def numbered(content: np.ndarray, label: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """Numbers rows, equal ones alike."""
    return np.asarray((content * 2 + label) * 2 + sex)


def hashed(people: People, rng: np.random.Generator) -> np.ndarray:
    """Returns random row hashes, equal where rows are."""
    number = numbered(people.content, people.label, people.sex)
    _, same = np.unique(number, return_inverse=True)
    return np.frombuffer(rng.bytes(16 * (int(same.max()) + 1)), "V16")[same]


def prepared_hashes(people: People) -> np.ndarray:
    """Returns the row hashes that `prepare` computes, in the order of the table."""
    # Without entities and copies every row is in some split, whatever its place there.
    plain = replace(people, copies=False)
    config = replace(
        plain.config(0), entity="", drop=("who",) * (plain.entity is not None)
    )
    found: dict[int, np.void] = {}
    rows = prepare_here(config, [Spool.of(plain.table())]).rows
    for split in map(rows.split, ALL_SPLITS):
        content = split.features["content"].to_numpy().astype(np.int64)
        number = numbered(content, split.label, split.groups["sex"])
        found |= dict(zip(number.tolist(), split.rows, strict=True))
    number = numbered(people.content, people.label, people.sex)
    return np.array([found[n] for n in number.tolist()], "V16")


def agrees(people: People, seed: int) -> bool:
    """Says whether the quick way judges and decides as the whole way does."""
    rows = prepared_hashes(people)
    chosen = judged(people, rows, seed)
    quick = sorted(row_hex(rows[chosen])), held(people, chosen)
    return prepared_and_judged(people, seed) == quick


def rates(
    draw: Draw,
    value: int,
    base: float,
    *,
    replicates: int,
    seed: int,
    whole_way: int = WHOLE_WAY,
) -> dict[str, Any]:
    """Measures one population at one base rate.

    Args:
        draw: draws a table.
        value: what the population is told by.
        base: share of positives.
        replicates: tables, each split by a data seed of its own.
        seed: of the tables.
        whole_way: tables that go through prepare, assemble and the gate as well.
    """
    rng = np.random.default_rng(seed)
    ways = {"new": judged, "old": formerly_judged}
    passed = {way: np.zeros(len(GAPS)) for way in ways}
    units = 0
    for data_seed in range(replicates):
        people = draw(rng, base, value)
        rows = hashed(people, rng)
        for way, choose in ways.items():
            chosen = choose(people, rows, data_seed)
            units += len(chosen) * (way == "new")
            passed[way] += held(people, chosen)
    shares = {
        f"{way}_{gap:g}": count / replicates
        for way, counts in passed.items()
        for gap, count in zip(GAPS, counts.tolist(), strict=True)
    }
    agree = [agrees(draw(rng, base, value), seed) for seed in range(whole_way)]
    return {
        "judged": round(units / replicates),
        **shares,
        "whole_way_agrees": all(agree),
    }


def measured(replicates: int) -> Iterator[dict[str, Any]]:
    """Measures every population at every base rate."""
    every = [
        (n, d, v, b) for n, d, values in POPULATIONS for v in values for b in BASES
    ]
    for seed, (name, draw, value, base) in enumerate(every):
        yield {
            "population": name,
            "value": value or "all",
            "base_rate": base,
            **rates(draw, value, base, replicates=replicates, seed=seed),
        }


def page_table(rows: list[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    heads = ["population", "base rate", "judged"]
    heads += [f"P(holds), gap {gap:g}" for gap in GAPS]
    heads += [f"before, gap {gap:g}" for gap in GAPS]
    keys = [f"{way}_{gap:g}" for way in ("new", "old") for gap in GAPS]
    return table(
        heads,
        [
            [
                f"{r['population']} {r['value']}",
                r["base_rate"],
                f"{r['judged']:,}",
                *(f"{r[key]:.3f}" for key in keys),
            ]
            for r in rows
        ],
    )


def result(rows: list[dict[str, Any]], replicates: int) -> dict[str, Any]:
    """Puts the rows into the form of all benchmark results."""
    false = {
        way: [r[f"{way}_{gap:g}"] for r in rows for gap in GAPS if gap >= LINE]
        for way in ("new", "old")
    }
    error = (ALPHA * (1 - ALPHA) / replicates) ** 0.5
    agree = [float(r["whole_way_agrees"]) for r in rows]
    power = [r["new_0"] for r in rows]
    goals = [
        ("largest false-pass rate", "<=", ALPHA + 3 * error, max(false["new"])),
        ("share of tables decided alike by the whole way", "==", 1.0, min(agree)),
        ("largest false-pass rate, former design", ">", ALPHA, max(false["old"])),
        ("largest power at gap 0", ">", 0.8, max(power)),
    ]
    spreads = (false["new"], agree, false["old"], power)
    return in_form(
        "gate-sampling",
        f"python -m benchmarks gate-sampling --replicates {replicates} --write",
        packages=("numpy",),
        cores=None,
        seeds=range(replicates),
        rows=rows,
        goals=[
            {
                "what": what,
                "op": op,
                "goal": goal,
                "value": value,
                "spread": [min(spread), max(spread)],
            }
            for (what, op, goal, value), spread in zip(goals, spreads, strict=True)
        ],
    )


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for row in measured(options.replicates):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(page_table(rows))
    if options.write:
        stored = result(rows, options.replicates)
        store(RESULT, stored)
        page = replaced(
            PAGE.read_text(encoding="utf-8"), "gate-sampling", page_table(rows)
        )
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
