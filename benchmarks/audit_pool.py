"""Adult with an audit pool: rows that nothing in a training reads, nor its monitor.

The pool is the official test file, 16,281 rows. At every sync round the soup of the
agents and the twin answer all of it; no figure goes back into the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.fair_baselines import store_beside
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.coding import Coding
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.errors import Refusal
from safescale_ammt.model.genome import Genome
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.dual_update import cell_hits
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows, coded
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import POOL, Plan, make_plan
from safescale_ammt.training.stateful import Stateful
from safescale_ammt.training.trainer import train

CACHE = Path.home() / ".cache" / "safescale-ammt"


def prepared(
    folder: Path, seed: int, splits: Mapping[str, float] | None = None
) -> tuple[EncodedDataset, EncodedRows]:
    """Splits the development rows by a seed; returns them and the audit pool."""
    uris = {role: p.resolve().as_uri() for role, p in fetch("adult", CACHE).items()}
    dataset, holdout = folder / "dataset", folder / "holdout"
    section: dict[str, Any] = {**ADULT.data, **uris, "seed": seed}
    if splits:
        section["splits"] = dict(splits)
    environ = {STORE: store_beside(holdout).uri}
    prepare_data.run(section, dataset, holdout, environ=environ)
    encoded = EncodedDataset(Dataset.load(dataset))
    coding = Coding(encoded.schema, "ple")
    with made_whole(store_beside(holdout), holdout, "holdout") as rows:
        batches = Holdout.load(rows).stored.batches()
        parts = [coded(batch, coding, encoded.schema) for batch in batches]
    return encoded, EncodedRows.joined(parts, one_split=True)


def promise(metric: str, tau: float) -> Constitution:
    """Returns the constitution of one gap by sex."""
    gap = {"metric": metric, "group": "sex", "op": "<=", "threshold": tau}
    principles = [{"id": metric.replace("_", "-"), "constraint": gap}]
    return Constitution.from_dict({"schema": 1, "principles": principles})


def flip(encoded: EncodedDataset, share: float, seed: int) -> int:
    """Turns a share of the women's negative labels positive, in the rows that train.

    Both the loss and the multipliers see them. *monitor* and the audit pool keep the
    labels that they have.
    """
    rows = encoded.joined(POOL, Genome().encoding)
    women = rows.groups["sex"] == encoded.schema.groups["sex"].index("Female")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(rows), generator=generator) < share
    wrong = women & (rows.y != encoded.outcomes[0]) & drawn
    rows.y[wrong] = encoded.outcomes[0]
    return int(wrong.sum())


class Audit(Checkpoints):
    """Sees the nets at every sync round and keeps the gaps on the pool.

    Attributes:
        gaps: (step, gap of the soup, gap of the twin) of each round.
    """

    def __init__(self, plan: Plan, pool: EncodedRows) -> None:
        super().__init__()
        self.gaps: list[tuple[int, float, float]] = []
        self._plan, self._pool = plan, pool
        self._inside = plan.constraints.membership(pool.groups, pool.y)
        self._learner: Learner | None = None

    def begin(self, phase: str, placement: Placement, **components: Stateful) -> int:
        """Remembers the agents and begins at step 0."""
        del placement
        learner = components["learner"]
        assert isinstance(learner, Learner)
        self._learner = None if phase == "trunk" else learner
        return 0

    def save_if_due(self, step: int) -> None:
        """Measures."""
        if self._learner is not None:
            k = len(self._plan.roles)
            nets = self._learner.averaged
            self.gaps.append((step, self.gap(nets[:k].mean(0)), self.gap(nets[k])))

    def rates(self, weights: Tensor) -> Tensor:
        """Returns the rates of the cells (cells,) on the pool of weights (P,)."""
        nets, pledged = self._plan.nets, self._plan.constraints
        hits = cell_hits(nets, pledged, weights, self._pool, self._inside)
        return hits / self._inside.sum(1)

    def gap(self, weights: Tensor) -> float:
        """Returns the largest difference of rates on the pool of weights (P,)."""
        return max(self._plan.constraints.values(self.rates(weights)).values())


@dataclass
class Run:
    """What a training was like.

    Attributes:
        events: of its log.
        gaps: as in `Audit`.
        last: gap of the last soup on the pool.
        rates: of its cells there.
        refused: whether it ended by asking a person.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[tuple[int, float, float]] = field(default_factory=list)
    last: float = 0.0
    rates: list[float] = field(default_factory=list)
    refused: bool = False

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Returns the events of a kind."""
        return [event for event in self.events if event["event"] == kind]


def audited(
    encoded: EncodedDataset,
    pool: EncodedRows,
    constitution: Constitution,
    config: TrainingConfig,
) -> Run:
    """Trains under audit."""
    run = Run()
    nets = GenomeNets(encoded, Genome())
    audit = Audit(make_plan(nets, config, constitution), pool)
    try:
        trained = train(
            nets,
            config,
            constitution,
            log=run.events.append,
            checkpoints=audit,
        )
        soup = trained.agents[trained.finite].mean(0)
        run.last, run.rates = audit.gap(soup), audit.rates(soup).tolist()
    except Refusal:
        run.refused = True
    run.gaps = audit.gaps
    return run
