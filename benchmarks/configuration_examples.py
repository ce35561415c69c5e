"""Examples of docs/configuration.md where a default or another word is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLITS = {
    "train": 0.42,
    "validation": 0.07,
    "constraint": 0.07,
    "monitor": 0.07,
    "select": 0.07,
    "sealed": 0.3,
}
_SHA = "sha256:" + 64 * "0"
EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "data.source": {"source": "loans.csv"},
    "data.source_digest": {"source_digest": _SHA},
    "data.sealed_source": {"sealed_source": "s3://lake/loans-sealed.parquet"},
    "data.window": {"window": "7d"},
    "data.label": {"label": "outcome"},
    "data.positive": {"positive": "repaid"},
    "data.label_map": {"label_map": {"yes.": "yes"}},
    "data.label_other": {"label_other": "lost"},
    "data.sensitive": {"sensitive": ["sex", "district"]},
    "data.allow_leak": {"allow_leak": ["final_balance"]},
    "data.merges": {
        "merges": {"age_group": {"column": "age_band", "values": {"18-25": "young"}}}
    },
    "data.numbers": {"numbers": {"price": ","}},
    "data.dates": {"dates": {"born": "dmy"}},
    "data.crosses": {"crosses": {"both": ["sex", "district"]}},
    "data.drop": {"drop": ["application_id"]},
    "data.numeric": {"numeric": ["income"]},
    "data.categorical": {"categorical": ["postcode"]},
    "data.entity": {"entity": "customer"},
    "data.columns": {"columns": ["age", "income", "outcome"]},
    "data.missing": {"missing": ["", "?", "-999"]},
    "data.comment": {"comment": "#"},
    "data.delimiter": {"delimiter": ";"},
    "data.decimal": {"decimal": ","},
    "data.encoding": {"encoding": "cp1252"},
    "data.trusted_label": {"trusted_label": "outcome_checked"},
    "data.population": {
        "population": {"sex": {"f": 0.51, "m": 0.49}},
        "sensitive": ["sex"],
    },
    "data.repeats": {"repeats": {"income": "income_second"}},
    "data.splits": {"splits": SPLITS},
    "search.feasibility_steps": {"feasibility_steps": 0},
    "training.ema": {"ema": 0.995},
    "safety.slices": {"slices": {"most": 20, "conditions": 1, "fdr": 0.05}},
    "training.threshold": {"threshold": {"objective": "balanced_accuracy"}},
    "training.self_weight": {"self_weight": 0.8},
    "training.dual_nu": {"dual_nu": 0.8},
    "training.safety_threshold": {"safety_threshold": 0.99},
    "training.agent_specializations": {"agent_specializations": ["generalist"]},
    "training.model": {"model": "my_package.my_module:build"},
    "training.model_encoding": {"model_encoding": "ple", "model": "my_nets.net:build"},
    "training.model_files": {"model_files": ["*.json"], "model": "my_nets.net:build"},
    "training.model_digest": {"model_digest": _SHA, "model": "my_nets.net:build"},
    "training.model_package": {"model_package": "", "model": "my_nets.net:build"},
    "training.num_agents": {"num_agents": "auto"},
    "training.branch": {"branch": 0.5},
    "training.max_epochs": {"max_epochs": 20},
    "training.budget_seconds": {"budget_seconds": 600.0},
    "training.budget_steps": {"budget_steps": 2400, "budget_seconds": 600.0},
    "training.patience": {"patience": 5},
    "training.changed_copies": {"changed_copies": 2},
    "training.outer_momentum": {"outer_momentum": 0.9},
    "training.bias_tolerance": {"bias_tolerance": 0.01},
    "training.tune_budget": {"tune_budget": 6000, "tune": "population"},
    "training.tune_every": {"tune_every": 100, "tune": "population"},
    "training.tune_learning_rate": {
        "tune_learning_rate": [1e-4, 0.1],
        "tune": "population",
    },
    "training.tune_weight_decay": {
        "tune_weight_decay": [1e-4, 0.3],
        "tune": "population",
    },
    "training.tune_dual_rate": {"tune_dual_rate": [0.25, 4.0], "tune": "population"},
    "training.processes": {"processes": 2, "backend": "torchrun"},
    "training.nodes": {"nodes": 2, "processes": 4, "backend": "trainjob"},
    "training.queue": {"queue": "team-a", "backend": "trainjob"},
    "training.restarts": {"restarts": 5, "backend": "trainjob"},
    "training.checkpoint_every": {"checkpoint_every": 25},
    "registry.name": {"name": "loans"},
    "registry.description": {"description": "Who repays a loan."},
    "registry.record_retention_days": {"record_retention_days": 3650},
}
"""`section.key` -> lines that use it, with what it cannot do without."""
RAW: Mapping[str, Mapping[str, Any]] = {"data": {"label": "outcome", "splits": SPLITS}}
"""Lines that some examples need beside them: a source has a label and sealed rows."""
CONSTRAINT = {"metric": "tpr_gap", "group": "sex", "threshold": 0.08}
"""The constraint whose defaults the page shows."""
_TWIN = {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -0.01}
_STEADY = {
    "metric": "robust_accuracy",
    "threshold": 0.7,
    "threat": {"changes": 1, "columns": {"income": {"by": 2, "step": 1}, "sex": "any"}},
}
_BALL = {"norm": "linf", "eps": 0.03}
_PIXELS = {"metric": "robust_accuracy", "threshold": 0.7, "threat": _BALL}
BESIDE: Mapping[str, Mapping[str, Any]] = {
    "robust_accuracy": {"threat": {"columns": {"income": {"by": 2, "step": 1}}}},
    "certified_accuracy": {"threat": _BALL},
    "attack_sanity_flags": {"threat": {**_BALL, "tier": "full"}, "threshold": 0},
}
"""Metric -> lines that it cannot do without."""
LINES: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("reference", "delta", "floor"), _TWIN),
    **dict.fromkeys(("changes", "columns", "sensitive"), _STEADY),
    **dict.fromkeys(("norm", "eps", "range", "tier"), _PIXELS),
    "corruptions": {"metric": "corruption_accuracy", "threshold": 0.8},
}
"""Key of a constraint -> the constraint that may have it."""
DEFAULTS: Mapping[str, str] = {
    **dict.fromkeys(("norm", "eps"), "required"),
    "id": "required",
    "metric": "required",
    "op": "the metric's side",
    "group": "none",
    "threshold": "none",
    "given": "none",
    "reference": "none",
    "delta": "0 with a reference",
    "floor": "none",
    "allow_constant": "`false`",
    "feedback": "`figures`",
    "changes": "`1`",
    "columns": "required",
    "sensitive": "`[]`",
    "corruptions": "all",
}
"""Key of a principle or constitution whose default is no plain value -> words."""
RULES: Mapping[str, Mapping[str, Any]] = {
    "constitution.id": {"id": "loans"},
    "constitution.version": {"version": "1.0.0"},
    "constitution.owner": {"owner": "credit-risk"},
    "principles[].id": {"id": "equal-opportunity"},
    "principles[].text": {"text": "Who repays is found alike, whatever the sex."},
    "principles[].why": {"why": "EU AI Act, Art. 10"},
    "principles[].constraint.given": {"given": "region"},
    "principles[].constraint.reference": {"reference": "unconstrained_twin"},
    "principles[].constraint.delta": {"delta": -0.01},
    "principles[].constraint.floor": {"floor": 0.8},
    "principles[].constraint.corruptions": {"corruptions": ["noise", "blur"]},
    "principles[].constraint.threat.changes": {"changes": 2},
    "principles[].constraint.threat.columns": {
        "columns": {"income": {"share": 0.1, "step": 0.05}, "sex": ["f", "m"]}
    },
    "principles[].constraint.threat.sensitive": {"sensitive": ["sex"]},
    "principles[].constraint.threat.norm": {"norm": "l2"},
    "principles[].constraint.threat.eps": {"eps": 0.03},
    "principles[].constraint.threat.range": {"range": [0, 1]},
    "principles[].constraint.threat.tier": {"tier": "release"},
    "gate.planned_submissions": {"planned_submissions": 4},
    "gate.on_uncertifiable": {"on_uncertifiable": "human"},
    "gate.allow_constant": {"allow_constant": True},
    "gate.feedback": {"feedback": "bit"},
    "human.approvers": {
        "approvers": {"alice": "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}
    },
}
"""Key of a constitution -> lines that use it."""
