"""Metrics: what `train_model` gives beside the model."""

from __future__ import annotations

from typing import Any, TypedDict


class AgentMetrics(TypedDict, total=False):
    """One agent."""

    role: str
    """Its specialisation."""
    finite: bool
    """Whether its weights ended as numbers; lost agents are in no model."""
    accuracy: float
    """On the rows for validation, by itself; of numbers `r2` stands in its place."""
    r2: float
    architecture: int
    """Number of the model in the list that was given, of several."""


class ArchitectureMetrics(TypedDict, total=False):
    """One of several models that were given; accuracy, or R2 of numbers."""

    module: str
    """Its class."""
    agents: list[int]
    """Numbers of its agents."""
    soup: float
    """Of their soup, on the rows for validation; none if all of them were lost."""
    best: float
    """Of the best of them by itself there."""


class TrainingMetrics(TypedDict, total=False):
    """What was measured on the rows for validation, of which one half chose the model.

    Of numbers `final_r2` and `final_loss` stand where `final_accuracy` would.
    """

    final_accuracy: float
    """Right answers / rows."""
    final_accuracy_interval: tuple[float, float]
    """Clopper-Pearson bounds, each at the constitution's alpha."""
    final_r2: float
    """1 - squared error / variance of the numbers for training."""
    final_loss: float
    """Mean log loss, or mean squared error."""
    task: str
    """classification or regression."""
    classes: list[str]
    """Names of the labels in the order of their codes; none of numbers."""
    choice: str
    """How the agents became one: soup, best, ensemble, or what took its place."""
    members: int
    """Modules that answer together."""
    threshold: float
    """Least chance of class 1 that is answered so; logit 0 of the model."""
    findings: list[dict[str, Any]]
    """Each promise with value, bounds and outcome: holds, fails or undecided."""
    doubts: list[str]
    """Why the model may be no better than the same answer for everybody."""
    gaps: dict[str, dict[str, Any]]
    """Of promises on groups: value, lower and upper bound by principle."""
    feasible: bool
    """Whether no hard promise is shown to be broken."""
    may_be_released: bool
    """Whether every hard promise is shown to hold, by a model that has skill."""
    needs_human: bool
    """Whether a promise or the model's use is open, and human oversight is enabled."""
    robust: dict[str, Any]
    """Accuracy under the first threat: eps, attack, rows, accuracy with bounds, and the
    outcome of its promise; or the reason why there is none."""
    agents: list[AgentMetrics]
    """One by one."""
    twin: AgentMetrics
    """The unconstrained reference, as long in training; of the first architecture."""
    architecture: int | None
    """Of several: number of the one that the model is of, None of an ensemble."""
    architectures: list[ArchitectureMetrics]
    """Of several: what each can do, in the order of the list."""
    steps: int
    """Optimizer steps of each net."""
    stopped: str
    """Why training ended before its last step; "" if it took all."""
    epochs: float
    """Passes over the rows of each net."""
    seconds: float
    """Of the whole call, by the clock on the wall."""
    processes: int
    """That trained it together."""
    device: str
    """Where it trained."""
    precision: dict[str, Any]
    """used, speedup of bfloat16 by the probe, and every decision with its evidence."""
    execution: dict[str, Any]
    """loop or stacked, and the probe's timings where there was one."""
    unapplied: list[str]
    """What the config asks for and cannot apply, a sentence each."""
    left_out: list[str]
    """Promises and groups that are not enforced or undecided, a sentence each."""
