"""What docs/kubeflow.md says of Kubeflow's form is the form, and its example works."""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from pipelines.workload import Workload
from safescale_ammt.config.sections import SECTIONS
from safescale_ammt.constitution.constitution import Constitution

TEXT = Path(__file__).parents[2].joinpath("docs", "kubeflow.md").read_text("utf-8")


def test_the_table_names_every_field_and_no_other():
    rows = TEXT.partition("| field | what it is |")[2].partition("\n\n")[0]
    cells = [row.split(" | ")[0] for row in rows.splitlines()[2:]]
    told = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert told == set(CompiledPipeline.parse(compile_train()).parameters)
    assert len(told) == 16
    assert "the sixteen fields" in TEXT


def test_the_worked_example_is_a_workload_that_can_run():
    blocks = re.findall(r"`(\w+)`\n```json\n(.+?)\n```", TEXT, flags=re.DOTALL)
    given = {name: json.loads(block) for name, block in blocks}
    assert set(given) == {"constitution", "data", "registry"}
    constitution = Constitution.from_dict(given.pop("constitution"))
    (source,) = re.findall(r"^`source`: `(s3://\S+)`, and", TEXT, flags=re.MULTILINE)
    given["data"] |= {"source": source, "sealed_source": "", "window": ""}
    sections = {n: kind.from_params(given.get(n, {})) for n, kind in SECTIONS.items()}
    # Its groups are declared, as the promises need them.
    assert Workload(sections, constitution).data.splits["sealed"] == 0.3
