"""The plan for a cluster, on paper."""

from __future__ import annotations

import json
import sys

import pytest
from policy.objects import amount, of_kind, shipped

from benchmarks import cluster_plan
from benchmarks.cluster_plan import KEPT, PART, Cluster, Need, plan

NEED = Need(shuffled=100.0, kept=60.0, cpu=1e-5, raw=50.0)
FOUR = Cluster(executors=4, cores=2, scratch=1e9, network=1e9, store=1e8)


def test_twice_the_rows_take_twice_of_everything():
    one, two = plan(10**9, NEED, FOUR), plan(2 * 10**9, NEED, FOUR)
    for name in ("shuffled", "held", "computing", "moving", "reading"):
        assert getattr(two, name) == pytest.approx(2 * getattr(one, name))
    assert two.fits == one.fits


def test_the_rows_that_disks_hold_fill_them():
    found = plan(1, NEED, FOUR)
    assert plan(found.fits, NEED, FOUR).held == pytest.approx(FOUR.scratch, 1e-6)
    assert found.fits == int(FOUR.executors * FOUR.scratch / (KEPT * 100.0 + 60.0))


def test_figures_of_one_part_by_hand():
    found = plan(10**9, NEED, FOUR)
    assert found.shuffled == 1e11
    assert found.computing == pytest.approx(1e4 / 8)
    assert found.moving == pytest.approx(1e11 * 3 / 4 / 4e9)
    assert found.reading == pytest.approx(2 * 5e10 / 4e8)
    assert found.partitions == -(-int(1e11) // PART)
    assert found.binds == "CPU"
    assert plan(10**9, Need(100.0, 0.0, 1e-9, 5e4), FOUR).binds == "store"
    assert plan(10**9, Need(1e6, 0.0, 1e-9, 1.0), FOUR).binds == "network"


def test_one_executor_moves_nothing():
    assert plan(10**6, NEED, Cluster(1, 2, 1e9, 1e9, 1e8)).moving == 0


def test_a_stored_measurement_fills_in_the_figures(tmp_path, monkeypatch, capsys):
    of_all = {"shuffle_bytes_a_row": 101.0, "held_bytes_a_row": 40.0}
    of_all |= {"raw_bytes_a_row": 60.0}
    rows = [
        {"rows": 1000, "spark_cpu_s": 9.02, **of_all},
        {"rows": 10, **of_all, "spark_cpu_s": 9.0002, "shuffle_bytes_a_row": 300.0},
    ]
    stored = tmp_path / "spark.json"
    monkeypatch.setattr(cluster_plan, "MEASURED", stored)
    monkeypatch.setattr(sys, "argv", ["cluster-plan", "--row-bytes", "60"])
    with pytest.raises(SystemExit):
        cluster_plan.main()
    assert "--shuffle-bytes" in capsys.readouterr().err
    stored.write_text(json.dumps({"rows": rows}))
    found = {"shuffle_bytes": 101.0, "held_bytes": 40.0, "row_bytes": 60.0}
    assert cluster_plan.measured() == pytest.approx({**found, "cpu_us": 20.0})
    cluster_plan.main()
    assert "shuffles            1.01 TB" in capsys.readouterr().out


def test_the_plan_begins_with_the_component_as_it_is_shipped(monkeypatch, capsys):
    (connect,) = of_kind(shipped()["components/spark"], "SparkConnect")
    spec = connect["spec"]
    volumes = spec["executor"]["template"]["spec"]["volumes"]
    (limit,) = [
        v["emptyDir"]["sizeLimit"] for v in volumes if v["name"] == "spark-local-dir-1"
    ]
    figures = ["--shuffle-bytes=101", "--held-bytes=40", "--cpu-us=20"]
    figures.append("--row-bytes=60")
    monkeypatch.setattr(sys, "argv", ["cluster-plan", *figures])
    cluster_plan.main()
    said = capsys.readouterr().out
    many, cores = spec["dynamicAllocation"]["maxExecutors"], spec["executor"]["cores"]
    assert f"on {many} executors of {cores} cores" in said
    assert f"GiB of {amount(limit) / 2**30:.0f};" in said
