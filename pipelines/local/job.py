"""What the command hands to the child that runs the pipeline: one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Job:
    """One run of the compiled pipeline on this machine.

    Attributes:
        pipeline: file that gets the compiled pipeline.
        arguments: values of its parameters.
        pipeline_root: folder that artifacts and cache stay in.
        cache: whether finished stages are taken from the cache.
        store: URI of the store that artifacts are copied to.
        prefix: where to, in that store.
        run: the run's id.
        runner: name of the runner, one of `runners.RUNNERS`.
        stage_timeout: seconds that a stage may take; None = as compiled.
        environ: the child's environment, with place and keys of the store.
    """

    pipeline: str
    arguments: Mapping[str, Any]
    pipeline_root: str
    cache: bool
    store: str
    prefix: str
    run: str
    runner: str
    stage_timeout: float | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> str:
        """Returns the job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(line))
