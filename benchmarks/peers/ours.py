"""Ours: agents under the constitution, merged as the stage merges them (blind)."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.transfer_tasks import Answer, Case
from safescale_ammt.model.device import settled
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.merge import merge
from safescale_ammt.training.nets import Rows
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard


def agents(case: Case, base: Any, aim: Any) -> Answer:  # noqa: ARG001
    """Trains and merges as the stage does, with the default recipe and genome.

    It wraps the twin that it trains on the way, whose scores, and the gap aimed at, are
    left in `case.kept`.
    """
    config = case.config
    trained = train(case.nets, config, case.constitution, log=discard)
    with settled(config.threads):
        merged = merge(
            trained,
            case.constitution,
            form=config.merge,
            seed=config.seed,
            rule=config.threshold,
        )
    sealed: Rows = EncodedRows(
        torch.from_numpy(case.sealed.x), torch.from_numpy(case.sealed.y), {}
    )
    case.kept["own twin"] = sealed.answers(merged.twin).score
    case.kept["own aim"] = float(trained.targets.min())
    answer = sealed.answers(merged.model)
    return Answer(answer.prediction, answer.score)
