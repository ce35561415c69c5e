"""SAFESCALE-AMMT: from a written constitution and raw data to a tested model.

Names load on first use (PEP 562), so that images without torch can import the
package and start-up pays only for what a stage needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Module of each public name; `Constitution` needs PyYAML, a `Store` minio, the trainer,
# its codistillation, the safety layer, the precision engine and the battery torch.
_HOME = {
    "AdaptivePrecisionEngine": "modules.precision",
    "Codistillation": "training.codistillation",
    "Constitution": "constitution.constitution",
    "ConstitutionalSafetyLayer": "modules.safety",
    "Role": "config.roles",
    "SAFESCALEAMMTTrainer": "modules.trainer",
    "SafescaleError": "errors",
    "Store": "store.base",
    "Threat": "constitution.threats",
    "TrainingConfig": "config.sections",
    "open_store": "store.uri",
    "run_battery": "attacks.battery",
}
__all__ = [
    "AdaptivePrecisionEngine",
    "Codistillation",
    "Constitution",
    "ConstitutionalSafetyLayer",
    "Role",
    "SAFESCALEAMMTTrainer",
    "SafescaleError",
    "Store",
    "Threat",
    "TrainingConfig",
    "__version__",
    "open_store",
    "run_battery",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
