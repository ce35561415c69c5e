"""Runs the compiled promote pipeline under KFP's local runner, in this process.

KFP's runner is a singleton of its process. Prints whether the step went well, and the
path of each of its artifacts.
"""

from __future__ import annotations

import json
import sys

from pipelines.compile import compile_promote
from pipelines.local.kfp_seam import Outputs, TaskCall, run_pipeline
from pipelines.local.process_runner import run_cold


def main(root: str, arguments: str) -> None:
    """Runs the pipeline with arguments that are JSON."""

    def watch(call: TaskCall) -> tuple[Outputs, bool]:
        outputs, success = call.execute()
        paths = {name: artifact.path for name, artifact in outputs.items()}
        print(json.dumps({"success": success, "outputs": paths}), flush=True)
        return outputs, success

    run_pipeline(
        compile_promote(),
        json.loads(arguments),
        pipeline_root=root,
        cache=True,
        watch=watch,
        run_task=lambda _, command, environ: run_cold(command, environ) == 0,
        in_containers=False,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
