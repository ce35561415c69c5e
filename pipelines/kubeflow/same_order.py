"""Whether the run of a name is what is ordered under that name now.

What was ordered under a name stands as a digest in the run's description.
"""

from __future__ import annotations

import re
from typing import Any

from pipelines.kubeflow.preparation import RunSpec
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import digest_json

# 128 bits: the description has room for 255 characters in KFP's database.
_DIGITS = 32
_ORDER = re.compile(rf"order ([0-9a-f]{{{_DIGITS}}})$")


def order_digest(run_spec: RunSpec) -> str:
    """Returns the start of the digest of what a run shall be: pipeline and values."""
    order = {
        "pipeline": run_spec.pipeline.to_api(),
        "parameters": dict(run_spec.parameters),
    }
    return digest_json(order).removeprefix("sha256:")[:_DIGITS]


def is_same_order(run: Any, body: Any) -> bool:
    """Says whether a run is what a body orders."""
    wanted = _ORDER.search(str(body.description or ""))
    ordered = _ORDER.search(str(run.description or ""))
    if wanted and ordered:
        return wanted[1] == ordered[1]
    # A run of somebody else, or of an earlier version: its values at least.
    config = run.runtime_config
    values = (config.parameters if config else None) or {}
    return all(
        values.get(key) == value
        for key, value in body.runtime_config.parameters.items()
    )


def check_order(run: Any, body: Any) -> None:
    """Checks that the run of a name is what is ordered under that name now.

    Raises:
        InputError: it is something else.
    """
    if not is_same_order(run, body):
        raise InputError(
            f"Run {run.display_name!r} is there already and is another order: its "
            "pipeline or its values differ. Give a --name of its own to this one, or "
            f"follow that one with `safescale submit --follow {run.run_id}`."
        )
