"""A whole table prepared on a real Spark: the artifacts of one machine, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prepared_tables import CASES, put
from spark_server import SPARK, address, partitions

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.local_table import Held
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import digest_json, read_json
from safescale_ammt.stages import prepare_data

pytestmark = SPARK
GOLDEN = json.loads(
    (Path(__file__).parent.parent / "golden" / "prepared.json").read_text()
)


def prepared(given: dict[str, Any], folder: Path, spark=None, **held: Any) -> dict:
    """Prepares a case, on Spark if there is one; returns what the stage tells."""
    environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    if spark:
        given = {**given, "engine": "spark"}
        environ |= address(spark)
    out = folder / "dataset", folder / "holdout"
    return prepare_data.run(given, *out, environ=environ, held=Held(**held))


@pytest.mark.parametrize("name", CASES)
def test_spark_makes_the_artifacts_of_one_machine(spark, tmp_path: Path, name) -> None:
    given = put(tmp_path / "in", name, 700)
    with partitions(spark, 3):
        # Keys are cut into many ranges, as those of a large table are.
        found = prepared(given, tmp_path, spark, bucket_rows=97)
    audit = digest_json(read_json(tmp_path / "dataset" / "audit.json"))
    whole = {"dataset": found["dataset"], "holdout": found["holdout"], "audit": audit}
    assert whole == GOLDEN[f"{name} 700"]
    manifest = read_manifest(tmp_path / "dataset")
    assert {n for n, e in manifest.files.items() if e.apart} == {
        f"{split}.parquet" for split in Dataset.load(tmp_path / "dataset").splits
    }
