"""Runs the compiled pipeline through the seam to KFP, in a process of its own.

KFP's local runner is a singleton of its process, and the seam replaces two of KFP's
functions in it. No stage runs: containers are started by a function that fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from pipelines.local.kfp_seam import Outputs, TaskCall, run_pipeline
from pipelines.workload import Workload

ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"


def main(root: str) -> None:
    """Prints what the seam hands over: a line for each task and each container."""

    def watch(call: TaskCall) -> tuple[Outputs, bool]:
        facts = {name: getattr(call, name) for name in ("stage", "executor", "is_exit")}
        places = {"outputs": sorted(call.outputs), "folder": str(call.folder)}
        outputs, success = call.execute()
        say(task={**facts, **places, "success": success, "made": len(outputs)})
        return outputs, success

    def run_task(
        image: str, command: Sequence[str], environ: Mapping[str, str]
    ) -> bool:
        inputs = command[list(command).index("--executor_input") + 1]
        say(image=image, inputs=sorted(json.loads(inputs)["inputs"]), env=dict(environ))
        return False

    pipeline = CompiledPipeline.parse(compile_train())
    pipeline.drop_retries()  # KFP would wait a minute before each
    run_pipeline(
        pipeline.to_yaml(),
        Workload.load(ADULT).arguments(),
        pipeline_root=root,
        cache=False,
        watch=watch,
        run_task=run_task,
        in_containers=True,
    )


def say(**fields: Any) -> None:
    """Prints a line that is not one of KFP's."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
