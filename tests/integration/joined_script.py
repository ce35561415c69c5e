"""A script of a user's, which torchrun starts twice; each process prints JSON lines.

refused FOLDER   what the processes were given differs, then it does not, twice
lost FOLDER      process 1 is killed once there is a checkpoint
alone FOLDER     one process: from the checkpoints there, if any
mixed FOLDER     models of two architectures, in any number of processes
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from safescale_ammt import SAFESCALEAMMTTrainer, TrainingConfig
from safescale_ammt.errors import SafescaleError

RANK = int(os.environ.get("RANK", "0"))


def rows(n: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    group = (torch.rand(n, generator=generator) < 0.4).long()
    return TensorDataset(x, (x[:, 0] + 0.8 * group > 0.3).long(), group)


def net(seed: int = 0, width: int = 12) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 1))
    return nn.Sequential(nn.Linear(6, width), *layers)


def run(
    model: Any, seed: int = 1, options: Any = None, **changes: Any
) -> dict[str, Any]:
    settings = {"steps": 90, "trunk_steps": 30, "batch_size": 64, "num_agents": 3}
    settings |= {"sync_every": 10, "dual_every": 10, "checkpoint_every": 1}
    config = TrainingConfig(**{**settings, **changes})
    trainer = SAFESCALEAMMTTrainer(config, **(options or {}))
    models = model if isinstance(model, list) else [model]
    before = [p.detach().clone() for each in models for p in each.parameters()]
    try:
        found, metrics = trainer.train(model, rows(300, seed), rows(160, 2), PROMISE)
    except SafescaleError as error:
        return {"rank": RANK, "error": type(error).__name__, "says": str(error)}
    after = [p for each in models for p in each.parameters()]
    kept = zip(before, after, strict=True)
    assert all(torch.equal(a, b) for a, b in kept)
    tensors = found.state_dict().items()
    weights = {name: tensor.double().flatten().tolist() for name, tensor in tensors}
    return {"rank": RANK, "weights": weights, "metrics": metrics}


PROMISE = {
    "max_bias": 0.1,
    "adversarial_budget": 0.2,
    "min_robust_accuracy": 0.6,
}


def main(case: str, folder: Path) -> None:
    events: list[dict[str, Any]] = []
    if case == "refused":
        for given in (
            run(net(width=12 + RANK)),
            run(net(), steps=90 + RANK),
            run(net(), seed=1 + RANK),
            run(net(seed=RANK), options={"log": events.append}),
            run(net(seed=RANK), options={"log": events.append}),
        ):
            told = sum(event["event"] == "plan" for event in events)
            say({**given, "told": told})
        return

    if case == "mixed":
        say(run([net()] * (1 + RANK)))
        both = [net(seed=RANK), nn.Linear(6, 1)]
        say(run(both, merge="ensemble", num_agents=4))
        return

    def stop(event: dict[str, Any]) -> None:
        events.append(event)
        if case == "lost" and event.get("step") == 70:
            os.kill(int((folder / "pid").read_text()), signal.SIGKILL)

    # The launcher stops who is left: here it is to tell first what it has seen.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if RANK == 1:
        (folder / "pid").write_text(str(os.getpid()))
    given = run(net(), options={"log": stop, "checkpoints": folder / "checkpoints"})
    say({**given, "resumed": [e["step"] for e in events if e["event"] == "resumed"]})


def say(what: dict[str, Any]) -> None:
    """Prints a line at once: two processes share the pipe."""
    os.write(1, (json.dumps(what) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
