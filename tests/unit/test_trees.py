"""Boosted trees: the same promises, agents and twin as with nets."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
import torch
from training_world import (
    DP,
    TPR,
    USEFUL,
    constitution,
    prepared,
    prepared_three_classes,
    promises,
    searched,
)

from safescale_ammt.config.roles import ROLES
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.coding import encode
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError, InputError, IntegrityError, Interrupted
from safescale_ammt.files.canonical import read_json
from safescale_ammt.model.forest import Forest
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.predictor import TREES, Predictor
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.search.tree_space import TreeSpace
from safescale_ammt.stages import search_architecture, train_agents
from safescale_ammt.store.base import Store
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import merge
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.selection import Selection
from safescale_ammt.training.trainer import Trained
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.boosting import BINNED, settings
from safescale_ammt.trees.lagrangian import Lagrangian
from safescale_ammt.trees.trainer import train_trees
from safescale_ammt.trees.tree_nets import TreeNets

GENOME = TreeGenome(leaves=4, least_rows=10, rate=0.2, rounds=24)
SECTION = {"learner": "trees", "num_agents": 3, "folds": 4}
PARITY = {**DP, "threshold": 0.02}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The sensitive column is an input: without a promise its gap stays.
    folder = tmp_path_factory.mktemp("loans")
    return prepared(folder, rows=2400, sensitive_in_model=True)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = prepared_three_classes(
        tmp_path_factory.mktemp("three"), rows=1500, sensitive_in_model=True
    )
    return EncodedDataset(Dataset.load(folder))


def boosted(
    encoded: EncodedDataset,
    rules: Constitution,
    genome: TreeGenome = GENOME,
    checkpoints: Checkpoints | None = None,
    log: Any = discard,
    **changes: Any,
) -> Trained:
    config = TrainingConfig.from_params({**SECTION, **changes})
    nets = TreeNets(encoded, genome)
    return train_trees(nets, config, rules, log=log, checkpoints=checkpoints)


def text(trained: Trained, shares: Any) -> str:
    return str(trained.nets.deployable(shares, "best").weights.text)


def texts(trained: Trained) -> list[str]:
    agents = [text(trained, trained.agents[i : i + 1]) for i in range(3)]
    return [*agents, text(trained, trained.twin)]


# --- what is boosted ---


def test_the_twin_is_plain_lightgbm_to_the_last_bit(encoded: EncodedDataset) -> None:
    rows = encoded.joined(("train", "constraint", "monitor"), "raw")
    x = rows.batch(torch.arange(len(rows))).numpy()
    levels = rows.x.coding.levels
    data = lightgbm.Dataset(
        x, rows.y.numpy(), categorical_feature=levels, params=BINNED
    )
    plain = lightgbm.train(settings(GENOME, classes=2), data, GENOME.rounds)
    twin = Forest.read(
        text(trained := boosted(encoded, constitution(TPR)), trained.twin)
    )
    assert len(twin.trees) == GENOME.rounds
    expected = plain.predict(x, raw_score=True, num_threads=1)
    assert np.array_equal(twin.raw(x)[:, 0], expected)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    """Other people than those that trees are boosted on, and more of them."""
    folder = tmp_path_factory.mktemp("others")
    kept = prepared(folder, rows=6000, seed=1, sensitive_in_model=True)
    return EncodedDataset(Dataset.load(kept))


def gap(trained: Trained, others: EncodedDataset, shares: Any) -> float:
    """Returns the selection rates' gap by gender on rows that nobody fitted on."""
    rows = others.rows("train", "raw")
    model = trained.nets.deployable(shares, "soup")
    chosen = rows.answers(model).prediction == 1
    groups = rows.groups["gender"].numpy()
    rates = [chosen[groups == code].mean() for code in (0, 1)]
    return abs(float(rates[0] - rates[1]))


def test_a_promise_that_the_twin_breaks_is_kept_by_the_agents(
    encoded: EncodedDataset, others: EncodedDataset
) -> None:
    trained = boosted(encoded, constitution(PARITY), replace(GENOME, rounds=60))
    assert gap(trained, others, trained.twin) > 0.4
    assert gap(trained, others, trained.agents.mean(0, keepdim=True)) < 0.1


def test_three_classes_are_held_to_a_promise_too(three: EncodedDataset) -> None:
    rounds: list[dict[str, Any]] = []
    boosted(
        three,
        constitution({**DP, "threshold": 0.02}),
        replace(GENOME, rounds=60),
        log=lambda event: rounds.append(event) if event["event"] == "round" else None,
    )
    first, last = (e["violation"]["dp-gap"] for e in (rounds[0], rounds[-1]))
    assert first > 0.15
    assert last < first / 2


def test_no_promise_that_trains_leaves_plain_agents(encoded: EncodedDataset) -> None:
    # Each agent is then LightGBM's own on the rows of its folds.
    generalists = {"agent_specializations": ["generalist"]}
    free = boosted(encoded, constitution(USEFUL), **generalists)
    tied = boosted(encoded, constitution(PARITY), **generalists)
    assert text(free, free.twin) == text(tied, tied.twin)
    assert texts(free)[0] != texts(tied)[0]


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"generalist"}))
def test_every_role_changes_the_trees(encoded: EncodedDataset, role: str) -> None:
    def agent(name: str) -> str:
        rules = constitution(PARITY, min_n=20, min_pos=10)
        trained = boosted(encoded, rules, agent_specializations=[name])
        return texts(trained)[0]

    assert agent(role) != agent("generalist")


# --- the Lagrangian ---


def lagrangian(n: int, classes: int, role: str, **changes: Any) -> Lagrangian:
    rng = np.random.default_rng(3)
    return Lagrangian(
        rng.integers(0, classes, n),
        rng.random((2, n)) < 0.4,
        [1, classes - 1],
        weight=rng.random(n) + 0.5,
        role=replace(ROLES[role], **changes),
        classes=classes,
    )


def value(of: Lagrangian, scores: Any, pulls: Any) -> Any:
    """Returns each row's own part of the Lagrangian (n,), by its definition."""
    if scores.ndim == 1:
        scores = np.stack([np.zeros(len(scores)), scores], 1)
    chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    hit, b = np.eye(scores.shape[1])[of._label], of._role.brier
    loss = -(1 - b) * np.log((chance * hit).sum(1))
    loss += 4 * b * ((chance - hit) ** 2).sum(1) / 2
    return of._weight * loss + (pulls * chance).sum(1)


@pytest.mark.parametrize("role", ["generalist", "safety", "calibrated"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_is_the_lagrangians(classes: int, role: str) -> None:
    of, rng = lagrangian(40, classes, role), np.random.default_rng(0)
    pulls = of.pulls(np.array([0.3, -0.2]))
    scores = rng.normal(size=(40, classes)[: 1 + (classes > 2)])
    gradient, bend = of(scores, pulls)
    assert (bend > 0).all()
    for column in range(classes if classes > 2 else 1):
        step = np.zeros_like(scores)
        step[(..., column)[: scores.ndim] if classes > 2 else ...] = 1e-6
        rise = value(of, scores + step, pulls) - value(of, scores - step, pulls)
        own = gradient[:, column] if classes > 2 else gradient
        assert own == pytest.approx(rise / 2e-6, abs=1e-6)


def test_boosting_ends_where_the_lagrangian_is_least() -> None:
    # Rows with one input and a share s of positives: p - s + k p (1 - p) = 0.
    share, pull, n = 0.6, 0.5, 2000
    label = (np.arange(n) < share * n).astype(np.int64)
    of = Lagrangian(
        label,
        np.ones((1, n), np.bool_),
        [1],
        weight=np.ones(n),
        role=ROLES["generalist"],
        classes=2,
    )
    scores, pulls = np.zeros(n), of.pulls(np.array([pull]))
    for _ in range(200):
        gradient, bend = of(scores, pulls)
        scores = scores - 0.2 * gradient.sum() / bend.sum()
    root = ((1 + pull) - np.sqrt((1 + pull) ** 2 - 4 * pull * share)) / (2 * pull)
    assert 1 / (1 + np.exp(-scores[0])) == pytest.approx(root, abs=1e-9)


# --- the same bytes ---


def test_threads_change_no_byte(encoded: EncodedDataset) -> None:
    rules, few = constitution(PARITY), replace(GENOME, rounds=8)
    one, two = (boosted(encoded, rules, few, threads=threads) for threads in (1, 2))
    assert texts(one) == texts(two)


def test_a_seed_deals_other_folds(encoded: EncodedDataset) -> None:
    rules = constitution(PARITY)
    one, two = (texts(boosted(encoded, rules, seed=seed)) for seed in (0, 1))
    assert one[0] != two[0]
    assert one[-1] == two[-1]  # nothing of the twin's is drawn


@pytest.mark.parametrize("at", [8, 12, 16])
def test_a_run_that_sigterm_stops_goes_on_to_the_same_scores(
    encoded: EncodedDataset, file_store: Store, at: int
) -> None:
    rules, roles = constitution(PARITY), ["generalist", "robust", "calibrated"]
    kinds = {"agent_specializations": roles, "dual_every": 200}  # every fourth round

    def stop(event: dict[str, Any]) -> None:
        if event.get("step") == at:
            signal.raise_signal(signal.SIGTERM)

    def saved() -> Checkpoints:
        return Checkpoints(file_store, run={"of": "this"})

    whole = boosted(encoded, rules, **kinds)
    with pytest.raises(Interrupted, match=r"is of that step|before it was done"):
        boosted(encoded, rules, checkpoints=saved(), log=stop, **kinds)
    resumed = boosted(encoded, rules, checkpoints=saved(), **kinds)
    assert resumed.targets.equal(whole.targets)
    assert texts(resumed) == texts(whole)


# --- the stages ---

RULES = promises(TPR, USEFUL)
BRIEF_SEARCH = {"candidates": 3, "rung_steps": 8, "feasibility_steps": 0, "rungs": 2}


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    found = searched(folder, dataset, RULES, GENOME)
    train_agents.run(dataset, found, RULES, SECTION, folder / "model")
    return folder / "model"


def test_the_model_is_the_mean_of_its_agents_as_lightgbm_reads_it(
    model: Path, dataset: Path
) -> None:
    decision = read_json(model / "decision.json")
    assert (decision["form"], decision["members"]) == ("soup", 3)
    data = Dataset.load(dataset)
    features = data.splits["select"].features
    x = encode(data.schema, features, "raw")
    booster = lightgbm.Booster(model_file=model / TREES)
    assert booster.num_trees() == 3 * GENOME.rounds
    answer = Predictor.load(model).predict_table(features)
    chance = booster.predict(x, num_threads=1)
    assert answer.score == pytest.approx(chance, abs=1e-6)
    assert np.array_equal(answer.prediction, answer.score >= decision["threshold"])


def test_who_answers_imports_no_lightgbm(model: Path, dataset: Path) -> None:
    import subprocess

    code = (
        "import sys\n"
        "from safescale_ammt.model.predictor import Predictor\n"
        "from safescale_ammt.data.dataset import Dataset\n"
        "rows = Dataset.load(sys.argv[2]).splits['select'].features\n"
        "print(len(Predictor.load(sys.argv[1]).predict_table(rows).score))\n"
        "assert not {'lightgbm', 'torch'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-c", code, str(model), str(dataset)]
    subprocess.run(command, check=True, capture_output=True)


def test_model_and_twin_travel_as_text_and_answer_the_same(model: Path) -> None:
    files = {path.name for path in model.iterdir() if path.is_file()}
    assert files == {
        *("manifest.json", "genome.json", "schema.json", "decision.json", TREES),
        *("constitution.json", "training.jsonl"),
    }
    assert read_json(model / "genome.json")["kind"] == "trees"
    assert (model / TWIN.name / TREES).is_file()


def test_a_changed_text_is_no_model(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / TREES).write_text((copy / TREES).read_text()[:-500])
    with pytest.raises(InputError, match=r"trees\.txt is not the text of boosted"):
        Predictor.load(copy)
    (copy / TREES).unlink()
    with pytest.raises(InputError, match=r"trees\.txt does not exist"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    "odd", [{"head": {}}, {"members": 0}, {"members": "8"}, {"members": True}]
)
def test_a_decision_rule_that_trees_do_not_have_is_refused(
    model: Path, tmp_path: Path, odd: dict[str, Any]
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    rule = read_json(copy / "decision.json") | odd
    (copy / "decision.json").write_text(json.dumps(rule))
    with pytest.raises(
        InputError, match=r"decision\.json is no decision rule of trees"
    ):
        Predictor.load(copy)


def test_trees_of_another_table_are_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    broken = (copy / TREES).read_text().replace("max_feature_idx=", "max_feature_idx=1")
    (copy / TREES).write_text(broken)
    with pytest.raises(InputError, match="inputs and give 1 scores; the schema has"):
        Predictor.load(copy)


def test_the_search_tries_settings_of_trees(dataset: Path, tmp_path: Path) -> None:
    summary = search_architecture.run(
        dataset, RULES, BRIEF_SEARCH, {"learner": "trees"}, tmp_path / "found"
    )
    assert TreeGenome.from_dict(summary["genome"])
    log = read_json(tmp_path / "found" / "search.json")
    assert log["budget"]["unit"] == "boosting rounds"
    assert log["budget"]["spent"] == log["budget"]["planned"]
    assert len({str(c["genome"]) for c in log["candidates"]}) == 3


def test_an_architecture_of_nets_is_no_genome_of_trees(
    dataset: Path, tmp_path: Path
) -> None:
    found = searched(tmp_path, dataset, RULES)
    with pytest.raises(
        ConfigError, match=r"searched for nets, but training\.learner is"
    ):
        train_agents.run(dataset, found, RULES, SECTION, tmp_path / "model")


def test_merging_offers_what_lies_between_agents_and_twin(
    encoded: EncodedDataset,
) -> None:
    rules = constitution(PARITY, USEFUL)
    trained = boosted(encoded, rules)
    merged = merge(trained, rules)
    assert merged.choice in merged.scores or merged.choice.startswith(("agent", "1/"))
    half = torch.lerp(trained.agents.mean(0, keepdim=True), trained.twin, 0.5)
    assert trained.nets.deployable(half, "blend").members == 4


# --- what is searched, and seen ---


def test_moves_in_the_space_of_trees_stay_under_its_caps() -> None:
    space, rng = TreeSpace({"raw": 5}, 1, 12_000, 2_500.0), np.random.default_rng(0)
    assert not space.holds(TreeGenome(leaves=63, rounds=600))
    genomes = [space.seed(), *(space.draw(rng) for _ in range(40))]
    assert len(set(genomes)) > 20
    for one, two in itertools.pairwise(genomes):
        child = space.mutate(space.cross(one, two, rng), 0.3, rng)
        assert all(map(space.holds, (one, two, child)))
        assert space.mutate(one, 0.0, rng) != one


def test_trees_see_numbers_as_they_are_and_levels_by_number(
    encoded: EncodedDataset, dataset: Path
) -> None:
    schema = encoded.schema
    rows = {
        "age": [31.5, None, 1e9],
        "gain": [0.1, None, 0.3],
        "city": ["rome", None, "atlantis"],
        "gender": ["f", "m", None],
        "origin": ["west", "north", "south"],
    }
    x = encode(schema, pa.table(rows), "raw")
    assert x.dtype == np.float64
    age, gain, city, gender, _ = x.T
    # *train* lacks some ages and no gain; a city that it did not know is no other's.
    assert np.isnan(age[1])
    assert (age[0], age[2], gain[0]) == (31.5, 1e9, 0.1)
    assert gain[1] == next(f for f in schema.features if f.name == "gain").median
    known = encode(schema, Dataset.load(dataset).splits["train"].features, "raw")
    assert city[0] in known[:, 2]
    assert city[2] not in known[:, 2]
    assert set(gender[:2]) == set(known[:, 3])


# --- what is refused ---


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("batch_size", 64), ("learning_rate", 0.1), ("self_weight", 0.5)),
        *(("backend", "torchrun"), ("backend", "trainjob"), ("num_agents", "auto")),
    ],
)
def test_what_trees_do_not_read_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{key} is .* with .*trees"):
        TrainingConfig.from_params({"learner": "trees", key: value})


def test_what_modules_alone_read_is_said_once_as_nets_say_it(
    encoded: EncodedDataset,
) -> None:
    asked: dict[str, Any] = {"execution": "auto", "sensitive": ["sex"]}
    events: list[dict[str, Any]] = []
    rules = constitution(USEFUL)
    boosted(encoded, rules, log=events.append, device="cuda", **asked)
    said = [event["reason"] for event in events if event["event"] == "unapplied"]
    config = TrainingConfig.from_params(asked)
    nets = GenomeNets(encoded, Genome())
    assert said[:-1] == list(nets.unapplied(config))
    assert len(said) == len(asked) + 1
    # Nets of a table train on a device that is there, trees on none.
    assert said[-1].endswith("does not apply: trees are boosted on processors.")
    on_cpu = TrainingConfig.from_params({"device": "cpu"})
    assert not list(TreeNets(encoded, GENOME).unapplied(on_cpu))


def test_a_config_of_nets_has_the_digest_that_it_always_had() -> None:
    assert TrainingConfig().digest == TrainingConfig(learner="nets").digest
    assert TrainingConfig().digest != TrainingConfig(learner="trees").digest


def test_without_lightgbm_the_sentence_says_what_to_install(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"pip install 'safescale-ammt\[trees\]'"):
        search_architecture.run(
            dataset, RULES, BRIEF_SEARCH, {"learner": "trees"}, tmp_path / "found"
        )
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    "change",
    [
        *({"leaves": 65}, {"leaves": 2.5}, {"rounds": 0}, {"rate": 0}, {"l2": -1}),
        *({"least_rows": True}, {"depth": 3}, {"schema": 2}),
    ],
)
def test_an_impossible_genome_is_one_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="genome"):
        TreeGenome.from_dict({**GENOME.to_dict(), **change})


def test_a_genome_survives_numbers_that_kfp_turned_into_floats() -> None:
    floats = {
        k: float(v) if type(v) is int and k != "schema" else v
        for k, v in GENOME.to_dict().items()
    }
    assert TreeGenome.from_dict(floats) == GENOME


def test_a_changed_byte_of_the_model_is_found(model: Path, tmp_path: Path) -> None:
    import shutil

    from safescale_ammt.files.artifacts import verify

    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / TREES).write_text((copy / TREES).read_text() + "\n")
    with pytest.raises(IntegrityError):
        verify(copy, "model")


# --- which rows are whose ---


def test_trees_learn_from_all_rows_that_nobody_reads_them_on(
    dataset: Path, encoded: EncodedDataset
) -> None:
    known = Dataset.load(dataset).splits
    nets = TreeNets(encoded, GENOME)
    assert set(known) - set(nets.pool) == {"validation", "select"}
    rules = constitution(PARITY)
    trained = boosted(encoded, rules)
    twin = trained.nets.deployable(trained.twin, "twin")
    asked = Selection(twin, trained.nets, rules, 0, {})._unseen
    left = known["validation"].label, known["select"].label
    assert len(asked) == sum(map(len, left))
