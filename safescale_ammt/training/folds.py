"""Folds: rows dealt out evenly within every stratum."""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.training.nets import Rows


def strata_of(rows: Rows, constitution: Constitution) -> Tensor:
    """Numbers the strata that occur: label x the constitution's group columns.

    Returns:
        Codes (n,) int32 from 0 to the number of strata - 1.
    """
    # A number to predict parts nothing: only groups do.
    code = torch.zeros(len(rows), dtype=torch.long)
    if not rows.y.is_floating_point():
        code = rows.y
    for name in constitution.group_columns:
        codes = rows.groups[name]
        code = code * (int(codes.max()) + 1) + codes
    # Most products of labels and groups have no row: without the gaps `bincount`
    # over the codes stays small, however many columns are crossed.
    strata: Tensor = torch.unique(code, return_inverse=True)[1]
    return strata.to(torch.int32)


def stratified_folds(
    strata: Tensor, folds: int, seed: int, entity: Tensor | None = None
) -> Tensor:
    """Deals rows, or entities with all of their rows, into folds.

    Every stratum is spread evenly; an entity is of the least stratum of its rows.

    Args:
        strata: code (n,) of each row's stratum.
        folds: how many.
        seed: of the deal.
        entity: number (n,) of each row's entity, from 0; None = each has its own.

    Returns:
        Fold number (n,) of each row; sizes differ by at most one row (or entity) in
        all and within each stratum.
    """
    if entity is not None:
        # A row that is held out must not have a sibling among the rows fitted on.
        least = strata.new_full((int(entity.max()) + 1,), int(strata.max()))
        least.scatter_reduce_(0, entity, strata, "amin")
        return stratified_folds(least, folds, seed)[entity]
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(strata), generator=generator)
    # The stable sort keeps the shuffled order inside a stratum. Fold numbers run on
    # from one stratum to the next, so that the remainders do not all fall to fold 0.
    by_stratum = shuffled[torch.argsort(strata[shuffled], stable=True)]
    fold = torch.empty(len(strata), dtype=torch.int32)
    fold[by_stratum] = torch.arange(len(strata), dtype=torch.int32) % folds
    return fold
