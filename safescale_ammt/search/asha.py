"""ASHA's rungs (Li et al. 2020, arXiv:1810.05934): who runs how long.

n candidates start on the first rung; one in `eta` goes on to the next, where it
trains from scratch for `eta` times the steps. Each rung costs about as much as
the one below.
"""

from __future__ import annotations

from safescale_ammt.config.sections import SearchConfig


def rung_steps(config: SearchConfig, rung: int) -> int:
    """Returns the optimizer steps of one trial on a rung: eta times the one below."""
    return int(config.rung_steps * config.eta**rung)


def rung_places(config: SearchConfig) -> list[int]:
    """Returns how many candidates run on each rung: n, n/eta, n/eta^2, ... >= 1."""
    # At least one each: the winner has to be measured on the last rung.
    return [max(1, config.candidates // config.eta**r) for r in range(config.rungs)]


def budget_steps(config: SearchConfig) -> int:
    """Returns the optimizer steps that one strategy spends in all."""
    return sum(
        places * rung_steps(config, rung)
        for rung, places in enumerate(rung_places(config))
    )
