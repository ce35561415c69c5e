"""Trials of boosted trees: fewer rounds, as far as the genome goes in all of its own.

What a booster has learnt depends on rate times rounds, the distance it goes. A short
run goes as far in fewer and longer steps, as a short run of nets does: with the rate
as it stands, whatever learns fastest at first would win.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch

from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.search.feasibility import Reading
from safescale_ammt.search.tree_space import TreeSpace
from safescale_ammt.search.trials import (
    MOST_FLOPS,
    READ_ON,
    TRUNK_SHARE,
    Trials,
    enforce_only,
)
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.library import lightgbm
from safescale_ammt.trees.trainer import train_trees
from safescale_ammt.trees.tree_nets import TreeNets

MOST_RATE = 0.3
"""Greatest rate of a short run: longer steps overshoot, whatever the genome."""


class TreeTrials(Trials):
    """Makes short runs of boosted trees.

    Raises:
        ConfigError: LightGBM is not here.
    """

    def __init__(self, *problem: Any) -> None:
        lightgbm()
        super().__init__(*problem)

    def space(self) -> TreeSpace:
        """Returns the settings that may be tried on this problem."""
        d_in = {TreeGenome.encoding: self.encoded.d_in(TreeGenome.encoding)}
        n_out = self.encoded.n_out
        # A booster of three classes has three times the trees, whatever its settings.
        most = MOST_FLOPS * TreeGenome().flops(0, n_out)
        return TreeSpace(d_in, n_out, self.config.max_parameters * n_out, most)

    def short_run_of(
        self, genome: Any, steps: int, names: Collection[str]
    ) -> tuple[float, dict[str, Reading]]:
        """Boosts so many rounds under the named principles, and reads them."""
        rate = min(MOST_RATE, genome.rate * genome.rounds / steps)
        nets = TreeNets(self.encoded, replace(genome, rate=rate, rounds=steps))
        whole = self.training.steps
        trunk = round(TRUNK_SHARE * whole) if names else whole
        result = train_trees(
            nets,
            replace(self.training, trunk_steps=trunk),
            enforce_only(self.constitution, names),
            log=discard,
            twin=False,
        )
        rows = self.encoded.rows(READ_ON, genome.encoding)
        numbers = torch.arange(len(rows))[None]
        return self.figures(rows, nets.logits(result.agents, rows, numbers)[0])
