"""Trials: what a short training of a genome shows the search.

A short run is the library's training loop under the user's training section, with
one agent and the settings that have a length in steps compressed, so that it gets
far in few: a higher learning rate, smaller batches, multipliers that move more
often. It trains on *train* and *constraint* and is read on
*validation*; *monitor*, *select* and the sealed split stay unseen.

On the first rung nothing is enforced: its steps are too few for a multiplier to
take hold, so it ranks by loss alone. From the second rung on those principles are
enforced that a relaxed run of the default genome provably breaks, and what a
candidate provably breaks even so is its violation. To enforce a promise that is
kept anyway would double the time of a run and change nothing above the noise.
Gaps alone are read: ratios and levels are low after a short run whatever is enforced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.model.genome import ENCODINGS, Genome, shapes
from safescale_ammt.model.network import forward, log_loss, predicted, unflatten
from safescale_ammt.search.asha import rung_steps
from safescale_ammt.search.domination import Measurement
from safescale_ammt.search.evolution import Trial
from safescale_ammt.search.feasibility import Reading, gap_principles
from safescale_ammt.search.search_space import Space
from safescale_ammt.training.constraints import Constraints, hard_rates, z_value
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

READ_ON = "validation"
CONFIDENCE = 0.95
"""Confidence, over all pairs of a principle, that a violation is one."""
# Eight agents of the winner are trained next: this bounds what they cost, and how
# far a budget in steps may differ from one in FLOPs.
MOST_FLOPS = 1.5
"""Most FLOPs of a candidate, in units of the default genome's."""
# Measured on Adult over 14 drawn genomes, rank correlation with the loss after 1,200
# steps of the long run's settings: .81 after 80 such steps, .92 after 120; with the
# long run's own settings .06 after 60. Forcing demographic parity brings its gap from
# .18 down to .03 in 150 steps.
SHORT: Mapping[str, Any] = {
    "learning_rate": 1e-2,
    "batch_size": 256,
    "warmup_steps": 10,
    "ema": 0.9,
    "dual_every": 5,
}
"""What a short run has instead of the default training section's values."""
# Adam's steps are as long as its rate, whatever the gradient: above this a raised rate
# only makes noise. Who asks for more gets what they ask for.
_MOST_RATE = 0.02
# The trunk is trained without constraints: an enforced run has a short one, so that
# its few steps are the multipliers', and a relaxed run is trunk alone.
TRUNK_SHARE = 0.2


class Trials:
    """Makes short runs on one problem under one constitution."""

    def __init__(
        self,
        encoded: EncodedDataset,
        constitution: Constitution,
        config: SearchConfig,
        training: TrainingConfig,
    ) -> None:
        """Prepares trials.

        Args:
            encoded: the dataset as tensors.
            constitution: the promises.
            config: rungs, caps, threads and seed.
            training: the section that the winner will be trained under.
        """
        self.encoded, self.constitution, self.config = encoded, constitution, config
        self.training = short_run(training, config)
        # Enforced or not, every gap is read: enforcing one may break another.
        gaps = {p.id for p in gap_principles(constitution)}
        self._all_gaps = enforce_only(constitution, gaps)
        self._readings: dict[tuple[str, ...], Mapping[str, Reading]] = {}

    def space(self) -> Space:
        """Returns the genomes that may be tried on this problem."""
        d_in = {name: self.encoded.d_in(name) for name in ENCODINGS}
        n_out = self.encoded.n_out
        reference = Genome().flops(d_in[Genome().encoding], n_out)
        most = MOST_FLOPS * reference
        return Space(d_in, n_out, self.config.max_parameters, most)

    def measure(self, trial: Trial) -> Measurement:
        """Trains a candidate for its rung's steps."""
        genome = trial.genome
        # The first rung is too short for a multiplier to take hold.
        names = self.broken_when_relaxed() if trial.rung else ()
        loss, readings = self.short_run_of(genome, trial.steps, names)
        d_in = self.encoded.d_in(genome.encoding)
        excess = {name: r.excess for name, r in readings.items()} if trial.rung else {}
        return Measurement(loss, genome.flops(d_in, self.encoded.n_out), excess)

    def read(self, enforced: tuple[str, ...]) -> Mapping[str, Reading]:
        """Reads a short run of the default genome with these principles enforced.

        The same principles twice train once.
        """
        if enforced not in self._readings:
            last = rung_steps(self.config, self.config.rungs - 1)
            steps = self.config.feasibility_steps or last
            genome = self.space().seed()
            self._readings[enforced] = self.short_run_of(genome, steps, enforced)[1]
        return self._readings[enforced]

    def broken_when_relaxed(self) -> tuple[str, ...]:
        """Returns the enforced principles that need enforcing in a short run."""
        names = [p.id for p in self.constitution.enforced]
        if not names:
            return ()
        relaxed = self.read(())
        return tuple(n for n in names if n in relaxed and relaxed[n].excess > 0)

    def short_run_of(
        self, genome: Any, steps: int, names: Collection[str]
    ) -> tuple[float, dict[str, Reading]]:
        """Trains a genome for so many steps under the named principles; reads it."""
        encoded = self.encoded
        trunk = round(TRUNK_SHARE * steps) if names else steps
        settings = replace(self.training, steps=steps, trunk_steps=trunk)
        constitution = enforce_only(self.constitution, names)
        try:
            # A twin would take 40 % of an enforced run's time, and nothing reads it.
            nets = GenomeNets(encoded, genome)
            result = train(nets, settings, constitution, log=discard, twin=False)
        except InputError:
            raise
        except SafescaleError:
            # A training that lost its gradients is a result, not a failure.
            return float("inf"), {}
        rows = encoded.rows(READ_ON, genome.encoding)
        return self.figures(rows, logits(genome, result.agents, rows, encoded.n_out))

    def figures(
        self, rows: EncodedRows, out: Tensor
    ) -> tuple[float, dict[str, Reading]]:
        """Returns log loss and gaps of logits (n, n_out) of rows."""
        # Measured with the cells that training uses: groups below `min_n` or `min_pos`
        # are not compared, a principle without two groups left has no reading.
        groups, outcomes = self.encoded.schema.groups, self.encoded.outcomes
        cells = enforce(self._all_gaps, groups, rows.groups, rows.y, outcomes)
        membership = cells.membership(rows.groups, rows.y)
        return log_loss(out, rows.y), read_gaps(cells, membership, predicted(out))


def short_run(training: TrainingConfig, config: SearchConfig) -> TrainingConfig:
    """Returns a training section with its time compressed to a short run's.

    What the user changed stays changed in proportion: twice the default's batch is
    twice `SHORT`'s. All other keys stay, but for how many train, how long and where.
    """
    default = TrainingConfig()
    alone = {
        **{key: getattr(default, key) for key in TrainingConfig.how},
        # A user's own module is built of the same files.
        "model_package": training.model_package,
        "model_files": training.model_files,
        "num_agents": 1,
        "agent_specializations": ("generalist",),
        # Candidates are compared after as many steps.
        "patience": 0,
        "budget_seconds": 0.0,
        "budget_steps": 0,
        "branch": "auto",
        "seed": config.seed,
        "threads": config.threads,
    }
    # A short run of trees has as many rounds as it may: they are in its genome.
    if training.learner == "trees":
        return replace(training, **alone)
    ratio = {key: getattr(training, key) / getattr(default, key) for key in SHORT}
    # A rate that tunes itself is a mere entry of the race: no candidate's long run has
    # it, and a wild guess would make all of them diverge. So it is with a batch.
    if training.tune == "population":
        ratio["learning_rate"] = 1.0
        tuning = {key for key in TrainingConfig.later if key.startswith("tune")}
        alone |= {key: getattr(default, key) for key in tuning}
        if "batch_size" in training.tune_also:
            ratio["batch_size"] = 1.0
        training = replace(training, learning_rate=default.learning_rate)
    scaled = {key: ratio[key] * SHORT[key] for key in SHORT}
    rate = min(scaled["learning_rate"], _MOST_RATE)
    # The average forgets within 1 / (1 - ema) steps: that is its length.
    forgets = (1 - training.ema) / (1 - default.ema) * (1 - SHORT["ema"])
    return replace(
        training,
        **alone,
        max_epochs=0,
        steps=config.rung_steps,
        trunk_steps=config.rung_steps,
        learning_rate=max(rate, training.learning_rate),
        batch_size=max(1, round(scaled["batch_size"])),
        warmup_steps=round(scaled["warmup_steps"]),
        ema=max(0.0, 1 - forgets),
        dual_every=max(1, round(scaled["dual_every"])),
    )


def read_gaps(
    constraints: Constraints, membership: Tensor, prediction: Tensor
) -> dict[str, Reading]:
    """Returns gap and lower bound of each principle that has pairs.

    The lower bound is the largest of its pairs' normal bounds at an error level
    that they share (Bonferroni), with the standard errors of the training loop.

    Args:
        constraints: cells and pairs.
        membership: which rows count in which cell (cells, n).
        prediction: class codes (n,).
    """
    outcomes = torch.tensor([cell.outcome for cell in constraints.cells])
    sizes = membership.sum(-1).to(torch.float32)
    hits = hard_rates(prediction[None], membership, outcomes)[0]
    rates = hits / sizes
    gaps = constraints.values(rates)
    differences = constraints.differences(rates)
    errors = constraints.standard_errors(rates, sizes)
    readings = {}
    for name, threshold in constraints.thresholds.items():
        pairs = [i for i, p in enumerate(constraints.pairs) if p.principle == name]
        # A gap that is not defined is no reading.
        if name in gaps:
            z = z_value(1 - (1 - CONFIDENCE) / len(pairs))
            lower = float((differences[pairs] - z * errors[pairs]).max())
            readings[name] = Reading(gaps[name], lower, threshold)
    return readings


def enforce_only(constitution: Constitution, names: Collection[str]) -> Constitution:
    """Returns the same promises with exactly these enforced in training."""
    principles = tuple(
        replace(p, enforce=p.id in names) for p in constitution.principles
    )
    return replace(constitution, principles=principles)


def logits(genome: Genome, theta: Tensor, rows: EncodedRows, n_out: int) -> Tensor:
    """Returns head-averaged logits (n, n_out) of the one net in theta (1, P)."""
    weights = unflatten(theta, shapes(genome, rows.width, n_out))
    with torch.no_grad():
        blocks = [
            forward(genome, weights, x[None]).mean(1)[0]
            for x in map(rows.batch, rows.blocks())
        ]
    return torch.cat(blocks)
