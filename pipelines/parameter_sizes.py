"""How large a run's values may be in sum: Kubeflow hands them over in one argument."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.ir import CompiledPipeline
from safescale_ammt.errors import ConfigError

MOST = 120 * 1024
"""Bytes of all values. Linux takes no argument of 128 KiB (execve(2)); Argo 4.0.8 puts
the name of a file in its place (emissary.go:82-97), which KFP's driver does not read.
8 KiB are left for what KFP puts beside the values of a stage."""
# Go's encoding/json, by which KFP writes them, spells these characters as six bytes.
_SPELLED = {"<": 5, ">": 5, "&": 5, "\u2028": 3, "\u2029": 3}


def size(value: Any) -> int:
    """Returns the bytes of a value as KFP writes it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    more = sum(text.count(character) * extra for character, extra in _SPELLED.items())
    return len(text.encode()) + more


def check_sizes(pipeline: CompiledPipeline, values: Mapping[str, Any]) -> None:
    """Refuses values of a run, or defaults of its form, that no run would start with.

    Args:
        pipeline: whose defaults count: they stand in its root (argocompiler/dag.go).
        values: of its parameters.

    Raises:
        ConfigError: they are too large in sum.
    """
    root = pipeline.graph["root"]
    defaults = {n: p.get("defaultValue", "") for n, p in pipeline.parameters.items()}
    given = {"parameterValues": dict(values)}
    for whole, parts in ((given, values), (root, defaults)):
        if (found := size(whole)) > MOST:
            greatest = max(parts, key=lambda name: size(parts[name]))
            raise ConfigError(
                f"The run's values are {found:,} bytes in sum, and Kubeflow starts no "
                f"run with more than {MOST:,}; the greatest is {greatest!r} with "
                f"{size(parts[greatest]):,}: shorten its lists or texts."
            )
