"""The search stage: checks first, then a genome, the same one every time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from small_tables import CONFIG, loans, save, spell

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.errors import (
    ConfigError,
    ConstitutionError,
    InputError,
    IntegrityError,
    Uncertifiable,
)
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json
from safescale_ammt.model.genome import Genome
from safescale_ammt.search.evolution import Trial
from safescale_ammt.search.feasibility import check_feasibility
from safescale_ammt.search.trials import Trials
from safescale_ammt.stage_progress import PROGRESS, progress_of
from safescale_ammt.stages import search_architecture
from safescale_ammt.training.encoded import EncodedDataset

SEARCH: Mapping[str, Any] = {
    "candidates": 4,
    "rung_steps": 5,
    "power_draws": 100,
    "feasibility_steps": 0,
}
WIDE = {"metric": "tpr_gap", "group": "gender", "threshold": 0.6}
NARROW = {**WIDE, "threshold": 0.01}
FILES = {
    *("genome.json", "search.json", "power.json", "feasibility.json"),
    *("times.json", "control.json"),
}


def of(*constraints: Mapping[str, Any], **gate: Any) -> dict[str, Any]:
    listed = [{"id": f"p{i}", "constraint": dict(c)} for i, c in enumerate(constraints)]
    small = {"min_n": 20, "min_pos": 10}
    return {"schema": 1, "principles": listed, "gate": gate, "groups": small}


def prepared(folder: Path, table: bytes, **changes: Any) -> Path:
    config = {**CONFIG, **changes, "source": save(folder / "raw.csv", table)}
    preparing.run(config, folder / "dataset", folder / "holdout")
    return folder / "dataset"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), spell(loans(3000)))


@pytest.fixture(scope="module")
def architecture(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searched") / "architecture"
    search_architecture.run(dataset, of(WIDE), SEARCH, {}, out)
    return out


# --- the artifact ---


def test_the_artifact_holds_genome_log_and_both_checks(
    dataset: Path, architecture: Path
) -> None:
    manifest = verify(architecture, "architecture")
    assert set(manifest.files) == FILES
    assert manifest.parents == {
        "dataset": verify(dataset).identity,
        "constitution": Constitution.from_dict(of(WIDE)).digest,
    }
    assert not manifest.files["times.json"].identity
    assert not manifest.files["control.json"].identity
    assert read_json(architecture / "power.json")["certifiable"]
    assert not read_json(architecture / "feasibility.json")["checked"]


def test_the_genome_is_that_of_the_winner_in_the_log(architecture: Path) -> None:
    log = read_json(architecture / "search.json")
    by_id = {entry["id"]: entry for entry in log["candidates"]}
    winner = by_id[log["winner"]]
    assert read_json(architecture / "genome.json") == winner["genome"]
    assert Genome.from_dict(winner["genome"]).check() is None
    assert log["winner"] in log["front"]
    assert winner["rung"] == 1


def test_the_stage_says_how_far_it_is_and_does_the_same_work(
    dataset: Path,
    architecture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PROGRESS, "1")
    asked = {**SEARCH, "control": "random"}
    search_architecture.run(dataset, of(WIDE), asked, {}, tmp_path / "architecture")
    told = list(filter(None, map(progress_of, capsys.readouterr().out.splitlines())))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    texts = [text for _, text in told]
    for text in (
        "what the sealed rows can certify",
        "1 of 4 candidates (local)",
        "4 of 4 candidates (local)",
        "4 of 4 candidates (random)",
    ):
        assert text in texts
    found = verify(tmp_path / "architecture").identity
    assert found == verify(architecture).identity


def test_a_search_spends_its_planned_budget_and_no_control_unasked(
    architecture: Path,
) -> None:
    log = read_json(architecture / "search.json")
    assert log["strategy"] == "local"
    assert [e["id"] for e in log["candidates"]] == list(range(4))
    assert log["budget"]["spent"] == log["budget"]["planned"] == 4 * 5 + 1 * 15
    control = read_json(architecture / "control.json")
    assert control == {"schema": 1, "strategy": "none", "candidates": []}
    assert set(read_json(architecture / "times.json")) == {"feasibility", "search"}


def test_a_control_is_counted_apart_and_makes_no_other_architecture(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    asked = {**SEARCH, "control": "random"}
    summary = search_architecture.run(dataset, of(WIDE), asked, {}, tmp_path / "a")
    assert (summary["control"], summary["control_steps"]) == ("random", 35)
    assert summary["steps"] == 35
    control = read_json(tmp_path / "a" / "control.json")
    assert [e["id"] for e in control["candidates"]] == list(range(4, 8))
    assert {e["origin"] for e in control["candidates"]} == {"random"}
    assert control["winner"] >= 4
    assert control["budget"]["spent"] == 35
    assert "control" in read_json(tmp_path / "a" / "times.json")
    assert verify(tmp_path / "a").identity == verify(architecture).identity


def test_the_strategy_that_is_asked_for_is_the_one_that_searches(
    dataset: Path, tmp_path: Path
) -> None:
    aged = {**SEARCH, "candidates": 8, "strategy": "ageing", "rungs": 1}
    genomes = {}
    for population, sample in ((2, 1), (2, 2), (6, 1)):
        asked = {**aged, "population": population, "sample": sample}
        out = tmp_path / f"{population}-{sample}"
        summary = search_architecture.run(dataset, of(WIDE), asked, {}, out)
        assert summary["strategy"] == "ageing"
        log = read_json(out / "search.json")
        # The oldest leave: nobody older than the population has a child.
        for entry in log["candidates"]:
            assert all(p >= entry["id"] - population for p in entry["parents"])
        genomes[population, sample] = [e["genome"] for e in log["candidates"]]
    # Both keys are read: another value of either is another search.
    assert genomes[2, 1] != genomes[2, 2]
    assert genomes[2, 1] != genomes[6, 1]


def test_candidates_train_under_the_training_section(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    default = read_json(architecture / "search.json")
    for key, value in {"batch_size": 64, "learning_rate": 3e-4, "ema": 0.5}.items():
        out = tmp_path / key
        search_architecture.run(dataset, of(WIDE), SEARCH, {key: value}, out)
        log = read_json(out / "search.json")
        assert log["candidates"][0]["loss"] != default["candidates"][0]["loss"]
    assert default["short_run"]["batch_size"] == 256
    assert log["short_run"]["ema"] == 0.0


def test_where_and_how_long_the_winner_trains_is_nothing_to_the_search(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    training = {
        "num_agents": 3,
        "steps": 2000,
        "seed": 7,
        "backend": "torchrun",
        "processes": 2,
        "checkpoint_every": 5,
        "agent_specializations": ["robust"],
    }
    search_architecture.run(dataset, of(WIDE), SEARCH, training, tmp_path / "a")
    assert verify(tmp_path / "a").identity == verify(architecture).identity


def test_a_role_that_nobody_knows_is_refused_before_the_search(
    tmp_path: Path,
) -> None:
    roles = {"agent_specializations": ["generalist", "poet"]}
    nowhere = tmp_path / "no dataset"
    with pytest.raises(ConfigError, match="'poet', expected one of calibrated"):
        search_architecture.run(nowhere, of(WIDE), SEARCH, roles, tmp_path / "a")


def test_a_threshold_for_three_classes_is_refused_before_the_search(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    rows = [[*r[:6], str(rng.choice(["a", "b", "c"]))] for r in loans(900)]
    data = prepared(tmp_path, spell(rows), positive="")
    rule = {"threshold": {"objective": "balanced_accuracy"}}
    with pytest.raises(ConfigError, match=r"training\.threshold parts two classes"):
        search_architecture.run(data, of(WIDE), SEARCH, rule, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_same_work_twice_has_the_same_identity(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    summary = search_architecture.run(dataset, of(WIDE), SEARCH, {}, tmp_path / "again")
    first, again = verify(architecture), verify(tmp_path / "again")
    assert again.identity == first.identity == summary["architecture"]


def test_another_seed_is_other_work(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    search_architecture.run(
        dataset, of(WIDE), {**SEARCH, "seed": 1}, {}, tmp_path / "b"
    )
    assert verify(tmp_path / "b").identity != verify(architecture).identity


def test_the_stage_takes_what_kfp_hands_over(
    dataset: Path, architecture: Path, tmp_path: Path
) -> None:
    floats = {k: float(v) for k, v in SEARCH.items()}
    out = tmp_path / "architecture"
    search_architecture.run(str(dataset), of(WIDE), floats, {}, str(out))
    assert verify(out).identity == verify(architecture).identity


# --- checks before anything is trained ---


def test_an_uncertifiable_promise_names_what_could_be_certified(
    dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(Uncertifiable, match="least certifiable") as caught:
        search_architecture.run(dataset, of(NARROW), SEARCH, {}, tmp_path / "a")
    assert caught.value.exit_code == 2
    assert "rows" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_uncertifiable_promise_goes_on_to_a_human_if_the_file_says_so(
    dataset: Path, tmp_path: Path
) -> None:
    rules = of(NARROW, on_uncertifiable="human")
    summary = search_architecture.run(dataset, rules, SEARCH, {}, tmp_path / "a")
    assert not summary["certifiable"]
    assert not read_json(tmp_path / "a" / "power.json")["certifiable"]


def test_nothing_is_trained_before_the_power_check_has_passed(
    dataset: Path, tmp_path: Path
) -> None:
    program = (
        "import json, sys\n"
        "from safescale_ammt.errors import Uncertifiable\n"
        "from safescale_ammt.stages import search_architecture\n"
        "try:\n"
        "    search_architecture.run(sys.argv[1], json.loads(sys.argv[2]),\n"
        "                            json.loads(sys.argv[3]), {}, sys.argv[4])\n"
        "except Uncertifiable:\n"
        "    sys.exit('torch' in sys.modules)\n"
        "sys.exit(9)\n"
    )
    texts = [json.dumps(of(NARROW)), json.dumps(dict(SEARCH)), str(tmp_path / "a")]
    command = [sys.executable, "-c", program, str(dataset), *texts]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_group_that_the_data_lack_lists_the_known_ones(
    dataset: Path, tmp_path: Path
) -> None:
    rules = of({**WIDE, "group": "sex"})
    with pytest.raises(ConstitutionError, match="'p0' speaks of the group 'sex'") as e:
        search_architecture.run(dataset, rules, SEARCH, {}, tmp_path / "a")
    assert "expected one of gender, origin" in str(e.value)


def test_a_group_with_one_value_cannot_be_compared(tmp_path: Path) -> None:
    rows = [[*row[:3], "m", *row[4:]] for row in loans(600)]
    data = prepared(tmp_path, spell(rows))
    with pytest.raises(ConstitutionError, match="row of the dataset has the value 'm'"):
        search_architecture.run(data, of(WIDE), SEARCH, {}, tmp_path / "a")


def test_a_dataset_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    data = prepared(tmp_path, spell(loans(600)))
    file = data / "select.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match=r"select\.parquet was changed"):
        search_architecture.run(data, of(WIDE), SEARCH, {}, tmp_path / "a")


def test_a_holdout_is_no_dataset(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a holdout artifact, expected a dataset"):
        search_architecture.run(
            dataset.parent / "holdout", of(WIDE), SEARCH, {}, tmp_path
        )


# --- what a trial sees and says ---


def trials(data: Dataset, *constraints: Mapping[str, Any], **search: Any) -> Trials:
    rules = Constitution.from_dict(of(*constraints))
    config = SearchConfig.from_params({**SEARCH, **search})
    return Trials(EncodedDataset(data), rules, config, TrainingConfig())


def spoiled(split: Split) -> Split:
    """The same rows with every label flipped."""
    return replace(split, label=1 - split.label)


def test_the_search_never_sees_monitor_or_select(dataset: Path) -> None:
    data = Dataset.load(dataset)
    unseen = {name: spoiled(data.splits[name]) for name in ("monitor", "select")}
    other = replace(data, splits={**data.splits, **unseen})
    trial = Trial(0, Genome(), 1, 20)
    assert trials(data, WIDE).measure(trial) == trials(other, WIDE).measure(trial)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_trial_trains_on_train_and_is_read_on_validation(
    dataset: Path, split: str
) -> None:
    data = Dataset.load(dataset)
    other = replace(data, splits={**data.splits, split: spoiled(data.splits[split])})
    trial = Trial(0, Genome(), 1, 20)
    assert trials(data, WIDE).measure(trial) != trials(other, WIDE).measure(trial)


def test_the_first_rung_ranks_by_loss_alone(dataset: Path) -> None:
    found = trials(Dataset.load(dataset), NARROW).measure(Trial(0, Genome(), 0, 20))
    assert found.violations == {}
    assert math.isfinite(found.loss)
    assert found.flops == Genome().flops(
        EncodedDataset(Dataset.load(dataset)).d_in("ple"), n_out=1
    )


def test_a_candidate_that_loses_its_gradients_counts_as_diverged(
    dataset: Path,
) -> None:
    rules = Constitution.from_dict(of(WIDE))
    stiff = TrainingConfig(gradient_stability_threshold=1e-9)
    encoded = EncodedDataset(Dataset.load(dataset))
    trial = Trial(0, Genome(), 0, 60)
    found = Trials(encoded, rules, SearchConfig(), stiff).measure(trial)
    assert found.diverged
    assert not found.feasible


SHARED = [
    {"sharing": "fitness", "self_weight": 0.0},
    {"sharing": "trimmed_mean", "outer_momentum": 0.9, "outer_learning_rate": 0.7},
    {"sharing": "median", "sync_every": 1},
    {"merge": "best", "folds": 2, "bias_tolerance": 0.05, "safety_threshold": 0.5},
]


@pytest.mark.parametrize("training", SHARED)
def test_a_section_made_for_many_agents_trains_one_candidate(
    dataset: Path, training: dict[str, Any]
) -> None:
    rules = Constitution.from_dict(of(NARROW))
    encoded = EncodedDataset(Dataset.load(dataset))
    config = SearchConfig.from_params({**SEARCH, "rung_steps": 20})
    found = Trials(encoded, rules, config, TrainingConfig(**training))
    for rung in (0, 1):
        assert math.isfinite(found.measure(Trial(0, Genome(), rung, 30)).loss)


def test_too_few_rows_for_a_short_run_are_no_divergence(tmp_path: Path) -> None:
    data = Dataset.load(prepared(tmp_path, spell(loans(600))))
    few = {n: s.take(np.arange(3)) for n, s in data.splits.items()}
    small = replace(data, splits=few)
    with pytest.raises(InputError, match="too few for 4 folds"):
        trials(small, WIDE).measure(Trial(0, Genome(), 0, 5))


def test_a_task_of_three_classes_is_searched(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [[*r[:6], str(rng.choice(["a", "b", "c"]))] for r in loans(900)]
    data = Dataset.load(prepared(tmp_path, spell(rows), positive=""))
    found = trials(data, WIDE).measure(Trial(0, Genome(), 1, 20))
    assert found.loss == pytest.approx(math.log(3), abs=0.3)


# --- principles that fight, on rows where they must ---


def proxies(rows: int = 6000) -> bytes:
    """Approvals whose base rates differ by gender, which a feature gives away."""
    rng = np.random.default_rng(0)
    female = rng.random(rows) < 0.5
    label = rng.random(rows) < np.where(female, 0.2, 0.6)
    # Nearly a perfect feature: without a promise, errors are rare and alike.
    age = np.round(40 + 40 * label + rng.normal(0, 8, rows)).astype(int)
    table = zip(age, female, np.where(label, "yes", "no"), strict=True)
    return spell(
        [
            [str(a), "0", *(("oslo", "f") if f else ("rome", "m")), "north", str(i), y]
            for i, (a, f, y) in enumerate(table)
        ]
    )


DP = {"metric": "dp_gap", "group": "gender", "threshold": 0.02}
EO = {"metric": "eo_difference", "group": "gender", "threshold": 0.05}
SPLITS = {
    "train": 0.3,
    "validation": 0.4,
    "constraint": 0.15,
    "monitor": 0.05,
    "select": 0.05,
    "sealed": 0.05,
}


def test_forcing_parity_on_unequal_base_rates_breaks_equal_odds(tmp_path: Path) -> None:
    # The age all but tells the label here, so that what is left is parity's doing.
    roles = {"sensitive": ["gender"], "allow_leak": ["age"], "splits": SPLITS}
    folder = prepared(tmp_path, proxies(), **roles)
    data = Dataset.load(folder)
    # The multiplier swings in so short a run: of ten seeds some end at its far side.
    found = trials(data, DP, EO, feasibility_steps=500, seed=1)
    answer = check_feasibility(found.constitution, found.read, 500)
    assert [(f["forcing"], f["worsens"]) for f in answer["fights"]] == [("p0", "p1")]
    assert "p0" in found.broken_when_relaxed()


def test_a_promise_that_is_kept_anyway_is_not_enforced_in_short_runs(
    dataset: Path,
) -> None:
    assert trials(Dataset.load(dataset), WIDE).broken_when_relaxed() == ()


def test_the_same_reading_is_trained_once(dataset: Path) -> None:
    found = trials(Dataset.load(dataset), WIDE)
    assert found.read(()) is found.read(())
