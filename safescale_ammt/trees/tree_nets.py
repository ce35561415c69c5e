"""Boosted trees in place of nets: what planning, duals and merging ask of them.

What is averaged of nets are weights, of boosters it is scores: the "weights" of a model
here are its shares of the boosters (k + 1,), agents first, then the twin. An agent is 1
at its own place, the mean of all agents is their ensemble, and a step from there to the
twin is a mixture of both. A mixture is one forest, whose leaves are scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.config.unapplied import changed
from safescale_ammt.model.forest import Forest, mixture
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.plan import POOL
from safescale_ammt.training.table_nets import TableNets
from safescale_ammt.trees.boosting import Boosting, objective


class TreeNets(TableNets):
    """Boosters of one genome on one dataset.

    Args:
        encoded: the dataset.
        genome: of every booster.

    Attributes:
        boosters: agents, then the twin, once they are boosted.
    """

    # Nobody watches boosters live, and they have no head: *monitor* is theirs to learn.
    pool = (*POOL, "monitor")

    def __init__(self, encoded: EncodedDataset, genome: TreeGenome) -> None:
        super().__init__(encoded, genome.encoding)
        self.genome = genome
        self.boosters: Sequence[Boosting] = ()
        self._texts: tuple[str, ...] = ()
        self._forests: dict[tuple[float, ...], Forest] = {}

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and trees do not do."""
        yield from super().unapplied(config)
        if config.device not in ("auto", "cpu"):
            yield from changed(config, {"device": "trees are boosted on processors"})

    def logits(
        self,
        theta: Tensor,
        rows: EncodedRows,
        index: Tensor,
        *,
        one_of_several: bool = False,
    ) -> Tensor:
        """Returns the raw scores (k, B, outputs) of shares (k, boosters)."""
        del one_of_several
        found = []
        for shares, numbers in zip(theta, index.expand(len(theta), -1), strict=True):
            x = rows.batch(numbers).numpy()
            parts = [
                share * torch.from_numpy(booster.raw(x))
                for share, booster in zip(shares.tolist(), self.boosters, strict=True)
                if share
            ]
            found.append(torch.stack(parts).sum(0))
        return torch.stack(found)

    def deployable(self, theta: Tensor, form: str) -> Deployable:
        """Makes shares (members, boosters) one model: the mean of their scores."""
        positive = self.outcomes[0] if len(self.outcomes) == 1 else None
        says = objective(len(self.classes))
        if not self._texts:
            self._texts = tuple(booster.text(says) for booster in self.boosters)
        shares = tuple(theta.mean(0).tolist())
        if shares not in self._forests:
            text = mixture(self._texts, shares, says)
            members = sum(share > 0 for share in shares)
            self._forests[shares] = Forest.read(text, members=members)
        return Deployable(self.genome, self._forests[shares], form, positive)

    def headed(
        self, model: Deployable, constraints: Constraints, targets: Tensor
    ) -> None:
        """Returns None: a head reads other inputs than trees do."""
        del model, constraints, targets
