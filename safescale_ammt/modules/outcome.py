"""Outcome of a training: the agents become one model, and what is measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.binomial.bounded_means import mean_bounds
from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.loss_gap import judge_loss_gap
from safescale_ammt.judging.usefulness import doubts
from safescale_ammt.model.predictor import Prediction
from safescale_ammt.modules.form import ModuleForm
from safescale_ammt.modules.metrics import (
    AgentMetrics,
    ArchitectureMetrics,
    TrainingMetrics,
)
from safescale_ammt.modules.nets import ModuleNets
from safescale_ammt.modules.robust import robust_accuracy
from safescale_ammt.modules.rows import ModuleRows
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.task import Task
from safescale_ammt.training.bounded_loss import hard_losses
from safescale_ammt.training.merge import (
    BEST,
    SOUP,
    first_unbeaten,
    forms_of,
    merge,
)
from safescale_ammt.training.placement import SINGLE_PROCESS, ProcessGroup
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.trainer import Trained
from safescale_ammt.training.training_log import steps_left


@dataclass(frozen=True)
class ModuleRun:
    """One training: what it is of, and what was said meanwhile.

    Attributes:
        nets: copies of the user's module.
        task: what they learn, and of which rows.
        promises: what the model shall keep.
        config: the training section.
        device: the kind of device.
        events: the log so far.
        log: takes an event more.
        group: the processes that train.
    """

    nets: ModuleNets
    task: Task
    promises: Promises
    config: TrainingConfig
    device: str
    events: list[dict[str, Any]]
    log: Callable[[dict[str, Any]], None]
    group: ProcessGroup = SINGLE_PROCESS

    def reasons(self, event: str) -> list[str]:
        """Returns the sentences of events of one name, each once."""
        found = (e["reason"] for e in self.events if e["event"] == event)
        return list(dict.fromkeys(found))


def merged(
    run: ModuleRun, trained: Trained
) -> tuple[ModuleForm, ModuleForm, TrainingMetrics]:
    """Merges the agents; returns model, twin and how they were merged."""
    config, law = run.config, run.promises.constitution
    if run.task.predicts_numbers:
        model, choice = merged_numbers(run, trained)
        twin = run.nets.deployable(trained.twin, TWIN.name)
        chosen: TrainingMetrics = {"choice": choice, "members": model.members}
        return model, twin, chosen
    found = merge(
        trained, law, form=config.merge, seed=config.seed, rule=config.threshold
    )
    for event in found.events():
        run.log(event)
    model, twin = (cast("ModuleForm", f) for f in (found.model, found.twin))
    chosen = {"choice": found.choice, "members": model.members}
    return model, twin, {**chosen, "threshold": model.threshold}


def merged_numbers(run: ModuleRun, trained: Trained) -> tuple[ModuleForm, str]:
    """Merges agents that predict numbers: the first form that no other clearly beats.

    Raises:
        ConfigError: the section asks for a threshold.
    """
    if run.config.threshold:
        raise ConfigError("training.threshold parts two classes, but numbers are told.")
    nets, select = run.nets, run.nets.rows("select")
    numbers, held = trained.finite.nonzero()[:, 0].tolist(), nets.rows("validation")
    alone = [(i, nets.deployable(trained.agents[i][None], BEST)) for i in numbers]
    alone.sort(key=lambda agent: -r2(run, agent[1], held))
    law = run.promises.constitution
    forms = cast(
        "dict[str, ModuleForm]", forms_of(trained, alone, law, run.config.merge)
    )
    # As with classes: what is shown to break a promise is out, if anything is left.
    kept = {
        name: form for name, form in forms.items() if not refuted(run, form, select)
    }
    forms = kept or forms
    worth = {name: worths(run, form, select).numpy() for name, form in forms.items()}
    choice = first_unbeaten(tuple(forms), worth.__getitem__)
    return forms[choice], choice


def refuted(run: ModuleRun, model: ModuleForm, rows: ModuleRows) -> bool:
    """Tells whether rows show that a form breaks a hard promise on losses."""
    found = loss_gaps(run, model, rows, run.promises.constitution.gate.alpha)
    return any(f.outcome == FAILS and f.tier != "soft" for f in found)


def unskilled(run: ModuleRun, model: ModuleForm, held: ModuleRows) -> tuple[str, ...]:
    """Says where a model that promises something of losses may be as a constant is."""
    gate, found = run.promises.constitution.gate, []
    promised = (p.constraint.loss for p in run.promises.constitution.principles)
    losses = [] if gate.allow_constant else [loss for loss in promised if loss]
    answer = held.answers(model).prediction if losses else np.zeros(0)
    for loss in dict.fromkeys(losses):
        y, constant = held.y.double(), run.task.splits["train"].y.double().mean(0)
        own = hard_losses(loss, torch.from_numpy(answer), y)
        gain = (hard_losses(loss, constant.expand_as(y), y) - own).numpy()
        # Differences lie in [-1, 1].
        if mean_bounds((1 + gain) / 2, gate.alpha_k)[0] <= 0.5:
            found.append(
                f"The {loss.name} is not shown to be smaller than that of one number "
                "for everybody, the mean of those for training."
            )
    return tuple(found)


def loss_gaps(
    run: ModuleRun, model: ModuleForm, rows: ModuleRows, alpha: float
) -> list[Finding]:
    """Judges the promises on losses of predicted numbers."""
    law, found = run.promises.constitution, []
    promised = [p for p in law.principles if p.constraint.loss is not None]
    answer = rows.answers(model).prediction if promised else np.zeros(0)
    for p in promised:
        loss, group = p.constraint.loss, p.constraint.group
        assert loss is not None
        assert group is not None
        losses = hard_losses(loss, torch.from_numpy(answer), rows.y.double()).numpy()
        codes, names = rows.groups[group].numpy(), run.task.groups[group]
        found.append(
            judge_loss_gap(p, losses, codes, law.groups, names=names, alpha=alpha)
        )
    return found


def worths(run: ModuleRun, model: ModuleForm, rows: ModuleRows) -> Tensor:
    """Returns what a form's answers are worth (n,): their mean is R2 or accuracy."""
    answer = torch.from_numpy(rows.answers(model).prediction)
    if run.task.predicts_numbers:
        return run.nets.worth(answer.float(), rows.y)
    return (answer == rows.y).double()


def r2(run: ModuleRun, model: ModuleForm, rows: ModuleRows) -> float:
    """Returns the mean worth of a form's answers."""
    return float(worths(run, model, rows).mean())


def measured(
    run: ModuleRun, trained: Trained, model: ModuleForm, twin: ModuleForm
) -> TrainingMetrics:
    """Measures a model, its twin and its agents on the rows for validation."""
    held = run.task.splits["held"]
    precision, rows = run.nets.precision, len(run.task.splits["train"])
    steps = trained.steps - steps_left(run.events)
    metrics: TrainingMetrics = {
        **figures(run, model, held),
        "agents": each_agent(run, trained, held),
        "twin": of_net(run, twin, held, TWIN.name),
        "steps": steps,
        "stopped": " ".join(run.reasons("stopped")),
        "epochs": steps * min(trained.config.batch_size, rows) / rows,
        "device": run.device,
        "precision": {
            "used": precision.used,
            "speedup": None if math.isnan(precision.speedup) else precision.speedup,
            "decisions": precision.decisions,
        },
        "execution": run.nets.execution,
        "unapplied": run.reasons("unapplied") + run.reasons("device"),
        "left_out": run.reasons("left_out"),
        **of_architectures(run, trained, model, held),
    }
    found = loss_gaps(run, model, held, run.promises.constitution.gate.alpha_k)
    doubtful = unskilled(run, model, held)
    if not run.task.predicts_numbers:
        law = run.promises.constitution
        evidence = evidence_of(run, held, held.answers(model), held.answers(twin))
        if not run.promises.promises_nothing:
            alpha = law.gate.alpha_k
            sizes = law.groups
            found = [
                judge(p, evidence, sizes, alpha)
                if p.constraint.threat is None
                else run.nets.judge_attacked(p, model, held, sizes, alpha)
                for p in law.principles
            ]
        if not law.gate.allow_constant:
            doubtful = doubts(evidence, law, run.task.classes)
    return {**metrics, **verdict(run, found, doubtful, model, held)}


def figures(run: ModuleRun, model: ModuleForm, held: ModuleRows) -> TrainingMetrics:
    """Returns accuracy with its interval, or R2, and the loss."""
    worth = worths(run, model, held)
    outs = [torch.from_numpy(model.logits(held.batch(b))) for b in held.blocks()]
    loss = float(run.nets.row_losses(torch.cat(outs).float(), held.y).mean())
    if run.task.predicts_numbers:
        return {
            "task": "regression",
            "final_r2": float(worth.mean()),
            "final_loss": loss,
        }
    alpha = run.promises.constitution.gate.alpha
    return {
        "task": "classification",
        "final_accuracy": float(worth.mean()),
        "final_accuracy_interval": clopper_pearson(int(worth.sum()), len(held), alpha),
        "final_loss": loss,
        "classes": list(run.task.classes),
        "threshold": model.threshold,
    }


def each_agent(
    run: ModuleRun, trained: Trained, held: ModuleRows
) -> list[AgentMetrics]:
    """Measures every agent by itself."""
    of = run.nets.architectures(trained.agents).tolist()
    found: list[AgentMetrics] = []
    for row, finite, role, number in zip(
        trained.agents, trained.finite.tolist(), trained.roles, of, strict=True
    ):
        own: AgentMetrics = {"role": role, "finite": False}
        if finite:
            form = run.nets.deployable(row[None], BEST)
            own = of_net(run, form, held, role)
        if len(run.nets.mix) > 1:
            own["architecture"] = number
        found.append(own)
    return found


def of_net(
    run: ModuleRun, model: ModuleForm, held: ModuleRows, role: str
) -> AgentMetrics:
    """Measures one net."""
    value = r2(run, model, held)
    own: AgentMetrics = {"role": role, "finite": True}
    return (
        {**own, "r2": value}
        if run.task.predicts_numbers
        else {**own, "accuracy": value}
    )


def of_architectures(
    run: ModuleRun, trained: Trained, model: ModuleForm, held: ModuleRows
) -> TrainingMetrics:
    """Says which of several architectures a model is of, and what each can do alone."""
    nets = run.nets
    if len(nets.mix) == 1:
        return {}
    of = nets.architectures(trained.agents)
    found: list[ArchitectureMetrics] = []
    for number, module in enumerate(nets.mix.modules):
        own = (of == number).nonzero()[:, 0].tolist()
        each: ArchitectureMetrics = {"module": type(module).__name__, "agents": own}
        rows = trained.agents[(of == number) & trained.finite]
        if len(rows):
            soup = nets.deployable(rows.mean(0, keepdim=True), SOUP)
            each["soup"] = r2(run, soup, held)
            alone = [nets.deployable(row[None], BEST) for row in rows]
            each["best"] = max(r2(run, agent, held) for agent in alone)
        found.append(each)
    won = model.architectures
    return {
        "architecture": won[0] if len(won) == 1 else None,
        "architectures": found,
    }


def evidence_of(
    run: ModuleRun, held: ModuleRows, answer: Prediction, twin: Prediction
) -> Evidence:
    """Returns what promises are judged by, of the rows for validation."""
    groups = {
        name: (run.task.groups[name], codes.numpy())
        for name, codes in held.groups.items()
    }
    return Evidence(
        held.y.numpy(),
        answer.prediction,
        answer.score,
        groups,
        twin.prediction,
        twin.score,
        classes=len(run.task.classes),
        positive=run.nets.outcomes[0] if len(run.nets.outcomes) == 1 else None,
    )


def verdict(
    run: ModuleRun,
    found: list[Finding],
    doubtful: tuple[str, ...],
    model: ModuleForm,
    held: ModuleRows,
) -> TrainingMetrics:
    """Says what findings, doubts and the robust accuracy mean for a release."""
    law, promises = run.promises.constitution, run.promises
    outcomes = [f.outcome for f in found if f.tier != "soft"]
    outcomes += [UNDECIDED] * len(promises.left_out)
    metrics: TrainingMetrics = {
        "findings": [f.to_dict() for f in found],
        "doubts": list(doubtful),
        "gaps": {
            f.principle: {"value": f.value, "lower": f.lower, "upper": f.upper}
            for f in found
            if f.group
        },
    }
    if promises.threat is not None:
        eps = promises.threat.eps
        robust: dict[str, Any] = {
            "eps": eps,
            "reason": "predicted numbers are not right or wrong",
        }
        if not run.task.predicts_numbers:
            robust = robust_accuracy(model, held, promises.threat, law.gate.alpha_k)
        promised = [p.id for p in law.principles if p.constraint.threat]
        for finding in found:
            if finding.principle in promised[:1]:
                robust["outcome"] = finding.outcome
        metrics["robust"] = robust
    undecided = UNDECIDED in outcomes
    metrics["feasible"] = FAILS not in outcomes
    # A constant keeps every gap at 0; as at the gate, a person decides on one.
    useful = not doubtful
    metrics["may_be_released"] = useful and set(outcomes) <= {HOLDS}
    metrics["needs_human"] = (
        undecided or not useful
    ) and run.config.human_oversight_enabled
    return metrics
