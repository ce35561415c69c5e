"""Small problems for modules, and a section that takes a fraction of a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.precision import AdaptivePrecisionEngine
from safescale_ammt.modules.rows import given_rows
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import find_task, with_splits
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer

GAP = {"max_bias": 0.05}

BRIEF: dict[str, Any] = {
    "num_agents": 2,
    "agent_specializations": ["generalist"],
    "steps": 30,
    "trunk_steps": 10,
    "branch": 0.0,
    "batch_size": 32,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "ema": 0.8,
    "sync_every": 5,
    "dual_every": 5,
}


def brief(**changes: Any) -> TrainingConfig:
    """Returns the brief section, with changes."""
    return TrainingConfig.from_params({**BRIEF, **changes})


def rows(
    n: int = 240, seed: int = 0, classes: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns inputs, labels and groups; one group has the higher labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    group = torch.randint(0, 2, (n,), generator=generator)
    x[:, 3] = group
    score = x[:, 0] + 0.8 * group + 0.3 * torch.randn(n, generator=generator)
    edges = torch.linspace(-0.5, 1.0, classes - 1) if classes > 2 else torch.zeros(1)
    return x, torch.bucketize(score, edges), group


def both(n: int = 240, classes: int = 2) -> tuple[TensorDataset, TensorDataset]:
    """Returns rows for training and for validation."""
    return TensorDataset(*rows(n, 1, classes)), TensorDataset(
        *rows(max(160, n // 2), 2, classes)
    )


def net(n_out: int = 1, *layers: nn.Module) -> nn.Sequential:
    """Returns a small network, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), *layers, nn.ReLU(), nn.Linear(8, n_out))


def trained(model: nn.Module, *data: Any, **changes: Any) -> tuple[nn.Module, Any]:
    """Trains with the brief section; `options` are the trainer's."""
    options = changes.pop("options", {})
    promises = changes.pop("promises", None)
    trainer = SAFESCALEAMMTTrainer(brief(**changes), **options)
    given, held = data or both()
    return trainer.train(model, given, held, promises)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def nets(model: nn.Module, **changes: Any) -> tuple[ModuleNets, Constitution]:
    """Returns nets on the small problem without promises."""
    config, law = brief(**changes), Promises.read(None, ()).constitution
    given, held = (given_rows(d.tensors[:2], None, (), "rows") for d in both())
    task = with_splits(find_task(given, held, 1, "auto"), given, held, config, law)
    cpu = torch.device("cpu")
    engine = AdaptivePrecisionEngine(switching=False)
    return ModuleNets(model, task, device=cpu, precision=engine), law


class Rows(Dataset[Any]):
    """Rows that a function gives."""

    def __init__(self, row: Any) -> None:
        self.row = row

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return self.row(index)


X, Y, G = rows(64)
