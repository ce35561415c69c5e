"""Ours: agents under the constitution, merged as the stage merges them (blind)."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.transfer_tasks import Answer, Case
from benchmarks.transfer_tasks import Rows as Judged
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.model.device import settled
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.merge import merge
from safescale_ammt.training.nets import Rows
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.trainer import train_trees
from safescale_ammt.trees.tree_nets import TreeNets


def agents(case: Case, base: Any, aim: Any) -> Answer:  # noqa: ARG001
    """Trains and merges as the stage does, with the default recipe and genome.

    It wraps the twin that it trains on the way, whose scores, and the gap aimed at, are
    left in `case.kept`.
    """
    trained = train(case.nets, case.config, case.constitution, log=discard)
    return merged(case, trained, case.sealed)


def boosters(case: Case, base: Any, aim: Any) -> Answer:  # noqa: ARG001
    """Boosts and merges as the stage does, with the default settings of trees."""
    config = TrainingConfig(learner="trees", seed=case.config.seed)
    nets = TreeNets(EncodedDataset(case.data), TreeGenome())
    trained = train_trees(nets, config, case.constitution, log=discard)
    return merged(case, trained, case.judged("raw"))


def merged(case: Case, trained: Trained, judged: Judged, form: str = "auto") -> Answer:
    """Merges trained agents and answers the sealed rows.

    Args:
        case: the re-split.
        trained: agents and twin.
        judged: the sealed rows in the encoding that these take.
        form: how they are merged.
    """
    config = case.config
    with settled(config.threads):
        found = merge(
            trained,
            case.constitution,
            form=form,
            seed=config.seed,
            rule=config.threshold,
        )
    sealed: Rows = EncodedRows(
        torch.from_numpy(judged.x), torch.from_numpy(judged.y), {}
    )
    case.kept["own twin"] = sealed.answers(found.twin).score
    case.kept["own aim"] = float(trained.targets.min())
    answer = sealed.answers(found.model)
    return Answer(answer.prediction, answer.score)
