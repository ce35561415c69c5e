"""Trials of a user's own module: nothing is searched, and one short run measures it.

The checks that come before a search are made all the same: which promises fight is
asked of short runs of this very module.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ConfigError, InputError, SafescaleError
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.modules.own_nets import OwnNets
from safescale_ammt.search.feasibility import Reading
from safescale_ammt.search.search_space import Space
from safescale_ammt.search.trials import (
    READ_ON,
    TRUNK_SHARE,
    Trials,
    enforce_only,
    short_run,
)
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

_ONE = {"candidates": 1, "rungs": 1}
_OF_A_POPULATION = {"population", "sample"}
"""Keys that no search of one candidate reads."""


@dataclass(frozen=True)
class OneModule(Space):
    """The space of one module.

    Attributes:
        own: its genome.
    """

    own: ModuleGenome

    def __post_init__(self) -> None:
        """Checks that the module lies inside.

        Raises:
            ConfigError: it has too many parameters.
        """
        if self.own.size > self.max_parameters:
            raise ConfigError(
                f"search.max_parameters is {self.max_parameters}, but {self.own.model} "
                f"has {self.own.size}; raise it."
            )

    def seed(self) -> Any:
        """Returns the one genome that there is."""
        return self.own


class ModuleTrials(Trials):
    """Makes short runs of a user's own module.

    Raises:
        ConfigError: its code cannot be had, or it has too many parameters.
        IntegrityError: its code is of another digest.
        InputError: a module that cannot be trained, or not be written down.
    """

    def __init__(
        self,
        encoded: EncodedDataset,
        constitution: Constitution,
        config: SearchConfig,
        training: TrainingConfig,
    ) -> None:
        super().__init__(encoded, constitution, of_one(config), training)
        # Built as training will build it, by training's own seed.
        self._genome = OwnNets(encoded, training).genome
        self.training = short_run(training, config)

    def space(self) -> OneModule:
        """Returns the space of this module alone."""
        encoding = self._genome.encoding
        d_in = {encoding: self.encoded.d_in(encoding)}
        most = self.config.max_parameters
        return OneModule(d_in, self.encoded.n_out, most, float("inf"), self._genome)

    def short_run_of(
        self, genome: Any, steps: int, names: Collection[str]
    ) -> tuple[float, dict[str, Reading]]:
        """Trains the module for so many steps under the named principles; reads it."""
        trunk = round(TRUNK_SHARE * steps) if names else steps
        settings = replace(self.training, steps=steps, trunk_steps=trunk)
        nets = OwnNets(self.encoded, settings)
        law = enforce_only(self.constitution, names)
        try:
            result = train(nets, settings, law, log=discard, twin=False)
        except InputError:
            raise
        except SafescaleError:
            # A training that lost its gradients is a result, not a failure.
            return float("inf"), {}
        rows = self.encoded.rows(READ_ON, genome.encoding)
        numbers = torch.arange(len(rows))[None]
        asked: Any = rows
        return self.figures(rows, nets.logits(result.agents, asked, numbers)[0])


def of_one(config: SearchConfig) -> SearchConfig:
    """Returns the section as it is where there is one candidate alone."""
    kept = {k: v for k, v in asdict(config).items() if k not in _OF_A_POPULATION}
    return SearchConfig(**(kept | {"strategy": "local", "control": "none"} | _ONE))
