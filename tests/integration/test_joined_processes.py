"""Scripts under torchrun: two processes are one training, to the last bit of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.modules.processes import joined

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "several_processes.py"
DIFFERENCES = ("layers of the model", "config", "rows")
SCRIPT = HERE / "joined_script.py"


def run(script: Path, *arguments: str, processes: int = 1) -> Any:
    """Runs a script by itself, or by torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    several = [*launcher, str(processes)] if processes > 1 else []
    command = [sys.executable, *several, str(script), *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=240
    )


def lines(done: Any) -> list[dict[str, Any]]:
    """Returns what each process has printed, in the order of their ranks."""
    said = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(said, key=lambda line: line["rank"])


def test_the_example_trains_the_same_model_in_one_process_and_in_two() -> None:
    alone, both = (run(EXAMPLE, "60", processes=n) for n in (1, 2))
    assert alone.returncode == both.returncode == 0, both.stderr
    # The two write where they like: a line may hold what both of them say.
    figures = r"accuracy [.\d]+, weights [0-9a-f]{12}"
    told = [re.findall(figures, done.stdout) for done in (alone, both)]
    assert told[1] == told[0] * 2
    assert "process 2 of 2" in both.stdout


def test_processes_take_the_first_ones_weights_and_refuse_what_differs() -> None:
    done = run(SCRIPT, "refused", "-", processes=2)
    assert done.returncode == 0, done.stderr
    said = lines(done)
    first, second = said[:5], said[5:]
    for rank in (first, second):
        assert [given.get("error") for given in rank] == ["InputError"] * 3 + [None] * 2
        for given, differs in zip(rank, DIFFERENCES, strict=False):
            assert f"differs from process 1 in {differs};" in given["says"]
    for one, other in zip(first[3:], second[3:], strict=True):
        assert one["weights"] == other["weights"]
        assert one["metrics"] == other["metrics"]
        assert one["metrics"]["processes"] == 2
        # One process tells the log, or each line of it would be there twice.
        assert (one["told"], other["told"]) == (2, 0)
    # A second training in the same script is the first one again.
    assert first[3]["weights"] == first[4]["weights"]


def test_two_architectures_are_spread_over_processes_to_the_same_bits() -> None:
    alone, several = (run(SCRIPT, "mixed", "-", processes=n) for n in (1, 2))
    assert alone.returncode == several.returncode == 0, several.stderr
    (_, whole), (refused, first, other, second) = lines(alone), lines(several)
    for given in (refused, other):
        assert "differs from process 1 in number of models;" in given["says"]
    assert first["weights"] == second["weights"] == whole["weights"]
    assert first["metrics"]["architectures"] == whole["metrics"]["architectures"]
    assert first["metrics"]["processes"] == 2


def test_a_lost_process_is_one_sentence_and_training_goes_on_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = run(SCRIPT, "lost", str(tmp_path / "a"), processes=2)
    assert done.returncode != 0
    (left,) = lines(done)
    assert left["error"] == "PeerLost"
    assert left["says"].startswith("Training lost touch with another of its processes")
    assert list((tmp_path / "a" / "checkpoints").rglob("*.safetensors"))
    resumed, whole = (
        lines(run(SCRIPT, "alone", str(tmp_path / folder)))[0] for folder in "ab"
    )
    assert resumed["resumed"]
    assert not whole["resumed"]
    assert resumed["weights"] == whole["weights"]
    assert not list((tmp_path / "a" / "checkpoints").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, MASTER_ADDR, MASTER_PORT unset; start the script"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a number of processes."),
        (
            {"WORLD_SIZE": "5", "RANK": "0", "MASTER_ADDR": "-", "MASTER_PORT": "1"},
            "5 processes were started for 2 agents and the twin; start at most 3",
        ),
    ],
)
def test_an_environment_that_fits_no_training_is_one_sentence(
    environ: dict[str, str], says: str
) -> None:
    config = TrainingConfig(num_agents=2)
    with pytest.raises(ConfigError, match=says), joined(config, environ):
        raise AssertionError("nobody may join")
