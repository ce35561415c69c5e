"""Slices: groups that nobody named, proposed on one sample and confirmed on another.

Rows of development propose slices (`slice_search`); the judged rows, which no proposal
has read, confirm some of m proposals:

    hypothesis   inside the model errs at most as often as outside
    e-value      the bet of `binomial.two_rate_bets` on all judged rows as one block, by
                 beliefs of the development rows: at most 1 in the mean under the
                 hypothesis, for any number of rows
    confirmed    the k slices with the largest e-values, for the largest k at which all
                 of these are at least m / (k fdr): e-BH (Wang & Ramdas 2022, JRSS B
                 84(3), sec. 4), by which the expected share of false ones among the
                 confirmed is at most fdr however the slices overlap

A slice that is too small to be told of has the e-value 0, which is valid too. Nothing
here is promised, and so the gate reads none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.binomial.two_rate_bets import beliefs, log_bets
from safescale_ammt.data.condition import Condition
from safescale_ammt.data.conditions import holds
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slice_forms import LEVEL, Proposal, SliceFinding, Slices
from safescale_ammt.judging.slice_search import discover

Mask = NDArray[np.bool_]
_MOST_NATS = 700.0


def propose(
    features: pa.Table, wrong: Mask, *, most: int, conditions: int, least: int
) -> tuple[Proposal, ...]:
    """Proposes slices in which a model errs more than elsewhere.

    Args:
        features: raw columns of n development rows.
        wrong: which of them the model gets wrong (n,).
        most: slices that are proposed.
        conditions: most conditions of a slice.
        least: rows that lie inside of a slice, and outside.
    """
    found = discover(features, wrong, most=most, conditions=conditions, least=least)
    proposals = []
    for slice_ in found:
        inside = members(slice_, features)
        proposals.append(
            Proposal(slice_, int(inside.sum()), int((inside & wrong).sum()))
        )
    return tuple(proposals)


def members(conditions: Sequence[Condition], features: pa.Table) -> Mask:
    """Returns the rows of raw features in which all conditions hold (n,)."""
    asked = [holds(condition, features) for condition in conditions]
    return np.asarray(np.all(asked, axis=0))


def e_values(
    evidence: Evidence, inside: Sequence[Mask], about: Slices, given: Sequence[Proposal]
) -> NDArray[np.float64]:
    """Returns the e-value of each slice (k,).

    Args:
        evidence: the judged rows, n of them.
        inside: the rows of each slice (n,).
        about: the search that proposed them.
        given: the slices.
    """
    wrong = evidence.prediction != evidence.label
    size = np.array([rows.sum() for rows in inside], float)
    hits = np.array([(rows & wrong).sum() for rows in inside], float)
    own = np.array([(p.errors, p.rows) for p in given], float).reshape(-1, 2)
    tau = np.zeros(len(given))
    before = np.stack([own, np.array([about.wrong, about.searched]) - own], -1)
    believed = beliefs(before[:, 0], before[:, 1], tau)
    hits, size = (
        np.stack([one, whole - one], -1)
        for one, whole in ((hits, wrong.sum()), (size, len(wrong)))
    )
    logs = log_bets(hits, size, tau, believed)
    found: NDArray[np.float64] = np.exp(logs.clip(max=_MOST_NATS)).mean(-1)
    return found


def may_be_told(evidence: Evidence, inside: Mask, least: int) -> bool:
    """Says whether a slice is large enough, and tells of nobody.

    Args:
        evidence: the judged rows, n of them.
        inside: the rows of the slice (n,).
        least: rows of a group that is judged.
    """
    wrong = evidence.prediction != evidence.label
    cells = np.bincount(inside * 2 + wrong, minlength=4)
    if inside.sum() < least or cells.min() < LEAST_SHOWN:
        return False
    # Rates of a named group are told too: those of few other people would be theirs.
    for values, codes in evidence.groups.values():
        for code in range(len(values)):
            if 0 < (inside ^ (codes == code)).sum() < LEAST_SHOWN:
                return False
    return True


def confirmed(
    evidence: Evidence,
    inside: Sequence[Mask],
    about: Slices,
    given: Sequence[Proposal],
    least: int,
) -> tuple[Slices, tuple[Mask, ...]]:
    """Confirms slices on judged rows.

    Args:
        evidence: the judged rows, n of them.
        inside: the rows of each slice (n,).
        about: the search that proposed them; `tested` may be more than are given here,
            which then have no say.
        given: the slices.
        least: rows of a group that is judged.

    Returns:
        The search with what is confirmed, and the rows of each confirmed slice.
    """
    if not given:
        return replace(about, confirmed=()), ()
    told = [may_be_told(evidence, rows, least) for rows in inside]
    values = np.where(told, e_values(evidence, inside, about, given), 0.0)
    order = np.argsort(-values, kind="stable")
    ranks = np.arange(1, len(order) + 1)
    held = np.flatnonzero(values[order] * ranks * about.fdr >= about.tested)
    kept = order[: held[-1] + 1] if len(held) else order[:0]
    wrong = evidence.prediction != evidence.label
    # Two rates of each slice, two ends of each.
    alpha = LEVEL / (4 * about.tested)
    found = []
    for i in kept:
        rates = []
        for side in (~inside[i], inside[i]):
            x, n = int((wrong & side).sum()), int(side.sum())
            rates.append((x / n, *clopper_pearson(x, n, alpha)))
        outside, own = rates
        found.append(SliceFinding(given[i], n, x, own, outside, float(values[i])))
    return replace(about, confirmed=tuple(found)), tuple(inside[i] for i in kept)
