"""A user's own module is searched, trained and released as nets of a genome are."""

from __future__ import annotations

import itertools
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from own_world import NET, of, package, section
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

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    Interrupted,
    SafescaleError,
)
from safescale_ammt.files.artifacts import read_manifest, verify
from safescale_ammt.files.canonical import digest_json, read_json, write_json
from safescale_ammt.files.code_package import CODE, CodePackage
from safescale_ammt.launch.task import TrainingTask, make_model
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.model.program import PROGRAM
from safescale_ammt.modules.own_code import RowFormat
from safescale_ammt.modules.own_nets import OwnNets
from safescale_ammt.stages import search_architecture, train_agents
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

NETS = Path(__file__).parents[2] / "examples" / "own_model" / "my_nets"
RULES = promises(TPR, USEFUL)
BRIEF_SEARCH = {"rung_steps": 10, "power_draws": 200, "feasibility_steps": 0}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), rows=2400)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> EncodedDataset:
    return EncodedDataset(Dataset.load(dataset))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A section that carries the package of the tests."""
    return dict(section(*package(tmp_path_factory.mktemp("code"))))


@pytest.fixture(scope="module")
def found(
    dataset: Path, own: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The architecture artifact of that module."""
    out = tmp_path_factory.mktemp("found") / "architecture"
    search_architecture.run(dataset, RULES, BRIEF_SEARCH, own, out)
    return out


@pytest.fixture(scope="module")
def model(
    dataset: Path,
    found: Path,
    own: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    train_agents.run(dataset, found, RULES, own, out)
    return out


# --- from the search to a model ---


def test_nothing_is_searched_and_the_checks_are_made_all_the_same(
    dataset: Path, own: dict[str, Any], tmp_path: Path
) -> None:
    two = promises(TPR, {**DP, "threshold": 0.3}, USEFUL)
    asked = {**BRIEF_SEARCH, "feasibility_steps": 10, "candidates": 5, "rungs": 2}
    done = search_architecture.run(dataset, two, asked, own, tmp_path / "found")
    assert done["candidates"] == 1
    assert "Nothing: the architecture is a module of your own" in done["markdown"]
    assert own["model"] in done["markdown"].replace("\\", "")
    genome = ModuleGenome.from_dict(read_json(tmp_path / "found" / "genome.json"))
    assert (genome.model, genome.code) == (own["model"], own["model_digest"])
    layers = done["metrics"]["winner/parameters"]
    assert genome.size == layers == done["parameters"] > 0
    feasible = read_json(tmp_path / "found" / "feasibility.json")
    assert feasible["checked"]
    assert len(feasible["runs"]) == 4
    assert read_json(tmp_path / "found" / "power.json")["principles"]


def test_a_module_that_reads_files_is_measured(dataset: Path, tmp_path: Path) -> None:
    read = "import pathlib\npathlib.Path(__file__).with_name('w.txt').read_text()\n"
    name, _ = package(tmp_path, read + NET)
    (tmp_path / name / "w.txt").write_text("8")
    code = CodePackage.read(tmp_path, name, ["*.txt"])
    training = section(name, code, model_files=["*.txt"])
    out = tmp_path / "found"
    search_architecture.run(dataset, RULES, BRIEF_SEARCH, training, out)
    verify(out)


def test_a_module_over_the_cap_is_refused_before_it_is_trained(
    dataset: Path, own: dict[str, Any], tmp_path: Path
) -> None:
    asked = {**BRIEF_SEARCH, "max_parameters": 5}
    with pytest.raises(ConfigError, match=r"search\.max_parameters is 5, but of_a_use"):
        search_architecture.run(dataset, RULES, asked, own, tmp_path / "found")


def test_the_model_holds_program_weights_and_code(
    model: Path, own: dict[str, Any]
) -> None:
    for folder in (model, model / "twin"):
        assert (folder / PROGRAM).is_file()
        assert (folder / "weights.safetensors").is_file()
    assert digest_json(read_json(model / CODE)) == own["model_digest"]
    assert not (model / "twin" / CODE).exists()
    verify(model, "model")
    kinds = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}


def test_the_same_inputs_train_the_same_model_and_another_code_another(
    dataset: Path, found: Path, model: Path, own: dict[str, Any], tmp_path: Path
) -> None:
    train_agents.run(dataset, found, RULES, own, tmp_path / "again")
    identity = read_manifest(model).identity
    assert read_manifest(tmp_path / "again").identity == identity
    carried_otherwise = TrainingConfig.from_params({**own, "model_package": ""})
    assert carried_otherwise.digest == TrainingConfig.from_params(own).digest
    other = {**own, "model_encoding": "ple"}
    with pytest.raises(ConfigError, match="run search_architecture again"):
        train_agents.run(dataset, found, RULES, other, tmp_path / "other")


def test_a_training_that_is_stopped_ends_in_the_same_model(
    dataset: Path,
    found: Path,
    model: Path,
    own: dict[str, Any],
    tmp_path: Path,
) -> None:
    kept = {"SAFESCALE_CHECKPOINTS": str(tmp_path / "kept")}
    section = {**own, "checkpoint_every": 1}
    task = TrainingTask.load(dataset, found, RULES, section)

    def stop(event: Any) -> None:
        if event["event"] == "round" and event["step"] >= 30:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        make_model(task, tmp_path / "half", task.checkpoints(kept), note=stop)
    events: list[Any] = []
    make_model(task, tmp_path / "whole", task.checkpoints(kept), note=events.append)
    assert "resumed" in [event["event"] for event in events]
    identity = read_manifest(model).identity
    assert read_manifest(tmp_path / "whole").identity == identity


def test_raw_rows_are_answered_row_by_row(model: Path, dataset: Path) -> None:
    predictor = Predictor.load(model)
    features = Dataset.load(dataset).splits["select"].features
    whole = predictor.predict_table(features)
    assert 0.02 < whole.prediction.mean() < 0.98
    for at in (0, 7, features.num_rows - 1):
        alone = predictor.predict_table(features.slice(at, 1))
        assert alone.score[0] == whole.score[at]
    turned = pa.concat_tables([features.slice(100), features.slice(0, 100)])
    moved = predictor.predict_table(turned).score
    assert np.array_equal(np.roll(moved, 100), whole.score)
    assert len(predictor.predict_table(features.slice(0, 0)).score) == 0


def test_three_classes_have_a_logit_each(tmp_path: Path, own: dict[str, Any]) -> None:
    folder = prepared_three_classes(tmp_path)
    rules = promises(USEFUL)
    search_architecture.run(folder, rules, BRIEF_SEARCH, own, tmp_path / "found")
    train_agents.run(folder, tmp_path / "found", rules, own, tmp_path / "model")
    predictor = Predictor.load(tmp_path / "model")
    said = predictor.predict_table(Dataset.load(folder).splits["select"].features)
    assert set(said.prediction.tolist()) <= {0, 1, 2}


def test_an_ensemble_and_a_fair_head_are_deployable(
    encoded: EncodedDataset, own: dict[str, Any], tmp_path: Path
) -> None:
    config = TrainingConfig.from_params({**own, "merge": "ensemble"})
    nets = OwnNets(encoded, config)
    row = nets.layout.row(nets._module)
    torch.manual_seed(0)
    theta = row + 0.1 * torch.randn(3, len(row))
    form = nets.deployable(theta, "ensemble")
    assert form.members == 3
    rows = encoded.rows("select", "standard")
    each = [nets.deployable(theta[i : i + 1], "best") for i in range(3)]
    logits = [m.weights.raw(rows.batch(torch.arange(50)).numpy()) for m in each]
    mean = form.weights.raw(rows.batch(torch.arange(50)).numpy())
    assert np.abs(mean - np.mean(logits, 0)).max() < 1e-6
    form.save(tmp_path, encoded.schema)
    loaded = Predictor.load(tmp_path).model
    assert np.array_equal(rows.answers(loaded).score, rows.answers(form).score)
    pooled = encoded.joined(("train", "constraint"), "standard")
    rules = constitution({**TPR, "threshold": 0.0})
    law = enforce(rules, nets.groups, pooled.groups, pooled.y, nets.outcomes)
    headed = nets.headed(form, law, torch.zeros(len(law.pairs)))
    assert headed is not None
    headed.save(tmp_path / "headed", encoded.schema)
    again = Predictor.load(tmp_path / "headed").model
    assert again.head is not None
    assert np.array_equal(rows.answers(again).score, rows.answers(headed).score)
    parts = tuple(replace(p, shift=p.shift + 0.1) for p in again.head.parts)
    moved = replace(again, head=replace(again.head, parts=parts))
    assert not np.array_equal(rows.answers(moved).score, rows.answers(form).score)


def test_the_function_is_told_the_format_of_the_rows(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    form = RowFormat.of(encoded.schema, "ple")
    assert (form.inputs, form.outputs) == (encoded.d_in("ple"), 1)
    assert form.classes == ("no", "yes")
    ends = [0, *(end for _, end in form.columns.values())]
    assert list(form.columns.values()) == list(itertools.pairwise(ends))
    assert tuple(form.columns) == tuple(f.name for f in encoded.schema.features)
    net = NET + "\n    # nothing else\n"
    net = net.replace("def build(rows):", "def build(rows):\n    assert rows.columns")
    OwnNets(encoded, of(tmp_path, net))


SINES = """
import torch
from torch import nn

class Sines(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(rows.inputs, 4))
        self.level = nn.Embedding(3, 4)
        self.mix = nn.Linear(8 * rows.inputs + 4, 16)
        self.norm = nn.GroupNorm(4, 16)
        self.head = nn.Linear(16, rows.outputs)
        self.register_buffer("one", torch.tensor(1))

    def forward(self, x):
        p = x[:, :, None] * self.frequency
        waves = torch.cat([p.sin(), p.cos()], -1).flatten(1)
        level = self.level((x[:, 0] > 0).long() + self.one)
        h = self.norm(self.mix(torch.cat([waves, level], 1)))
        h = nn.functional.mish(h) + nn.functional.normalize(h, dim=1)
        h = h + torch.logsumexp(h, 1, keepdim=True) + h.var(1, keepdim=True)
        return self.head(nn.functional.gelu(h, approximate="tanh")).squeeze(1)

def build(rows):
    return Sines(rows)
"""


RECURRENT = """
from torch import nn

class Recurrent(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.along = nn.GRU(1, 4, batch_first=True)
        self.head = nn.Linear(4, outputs)

    def forward(self, x):
        return self.head(self.along(x[:, :, None])[0][:, -1])

def build(rows):
    return Recurrent(rows.outputs)
"""


@pytest.mark.parametrize("which", ["residual", "columns", "sines", "recurrent"])
def test_a_program_answers_as_its_module_does(
    which: str, encoded: EncodedDataset, tmp_path: Path
) -> None:
    here = {"sines": SINES, "recurrent": RECURRENT}
    text = here.get(which) or (NETS / f"{which}.py").read_text()
    nets = OwnNets(encoded, of(tmp_path, text))
    row = nets.layout.row(nets._module)[None]
    rows = encoded.rows("select", "standard")
    x = rows.batch(torch.arange(len(rows)))
    with torch.no_grad():
        module = nets._module.eval()(x).double().numpy().reshape(len(x), -1)
    program = nets.deployable(row, "best").weights
    found = program.raw(x.numpy())
    assert np.abs(found - module).max() < 1e-5 * max(1.0, np.abs(module).max())
    order = np.random.default_rng(0).permutation(len(x))
    assert np.array_equal(program.raw(x.numpy()[order]), found[order])
    assert np.array_equal(program.raw(x.numpy()[:1]), found[:1])


# --- what is refused, a sentence each ---


def replaced(old: str, new: str) -> str:
    assert old in NET
    return NET.replace(old, new)


FORWARD = "return self.head(self.drop(torch.relu(self.norm(self.first(x)))))"
BROKEN = {
    "a build that raises": (
        replaced("return Net(", "raise ValueError('no luck')\n    return Net("),
        r"did not build a module \(ValueError: no luck, in of_a_user_\d+/net.py line",
    ),
    "a script that ends its process": (
        "import sys\nsys.exit(0)\n" + NET,
        r"cannot be imported \(SystemExit: 0, in of_a_user_\d+/net.py line 2\)",
    ),
    "a file that was not carried": (
        "open(__file__ + '.json')\n" + NET,
        r"net.py line 1; files that it reads travel if training.model_files names",
    ),
    "a build that ends it": (
        replaced("return Net(", "raise SystemExit('bye')\n    return Net("),
        r"did not build a module \(SystemExit: bye",
    ),
    "an answer that ends it": (
        replaced(FORWARD, f"raise SystemExit(0)\n        {FORWARD}"),
        r"cannot be called on .* \(SystemExit",
    ),
    "no module": (
        replaced("return Net(rows.inputs, rows.outputs)", "return 7"),
        r"returned int, expected a torch\.nn\.Module",
    ),
    "no function": (NET.replace("def build", "def make"), "has no such function"),
    "a library that is not here": (
        "import library_of_mine\n" + NET,
        r"needs the library 'library_of_mine', which is not here",
    ),
    "a line that is no Python": (
        NET + "\n)",
        r"cannot be imported \(SyntaxError",
    ),
    "another shape": (
        replaced("nn.Linear(8, outputs)", "nn.Linear(8, outputs + 1)"),
        r"answers 128 rows with \(128, 2\), expected \(128, 1\)",
    ),
    "other inputs": (
        replaced("nn.Linear(inputs, 8)", "nn.Linear(inputs + 1, 8)"),
        r"cannot be called on a batch|cannot be called on rows",
    ),
    "a choice by values": (
        replaced(FORWARD, f"x = x if x.sum() > 0 else -x\n        {FORWARD}"),
        "a choice in Python",
    ),
    "the rows beside it": (
        replaced(FORWARD, f"x = x - x.mean(0)\n        {FORWARD}"),
        "when other rows are beside it",
    ),
    "chance": (
        replaced(FORWARD, f"x = x + torch.randn_like(x)\n        {FORWARD}"),
        "calls randn",
    ),
    "an operator that has no form": (
        replaced(FORWARD, f"x = torch.cumsum(x, 1)\n        {FORWARD}"),
        "calls cumsum, which has no form without torch",
    ),
    "nothing to train": (
        NET.replace(
            "return Net(rows.inputs, rows.outputs)",
            "return Net(rows.inputs, rows.outputs).requires_grad_(False)",
        ),
        "no parameter to train",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_module_that_cannot_be_trained_is_one_sentence(
    what: str, encoded: EncodedDataset, tmp_path: Path
) -> None:
    net, sentence = BROKEN[what]
    with pytest.raises(InputError, match=sentence) as caught:
        OwnNets(encoded, of(tmp_path, net))
    assert "\n" not in str(caught.value)


def test_what_fails_on_rows_is_told_by_its_line_and_without_its_words(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    net = replaced(FORWARD, f"assert not self.training, x\n        {FORWARD}")
    config = of(tmp_path, net)
    sentence = (
        r"on a batch \(AssertionError, in of_a_user_\d+/net.py line 14\); an input"
    )
    with pytest.raises(InputError, match=sentence):
        train(OwnNets(encoded, config), config, constitution(TPR), log=discard)


def test_a_user_s_exception_is_the_cause(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        OwnNets(encoded, of(tmp_path, BROKEN["a build that raises"][0]))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_module_of_its_package_that_is_missing_is_named(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    name, code = package(tmp_path)
    config = TrainingConfig.from_params(
        {**section(name, code), "model": f"{name}.nets:build"}
    )
    with pytest.raises(ConfigError, match=rf"has no module '{name}\.nets'"):
        OwnNets(encoded, config)


def test_code_without_a_digest_is_not_run(encoded: EncodedDataset) -> None:
    with pytest.raises(ConfigError, match=r"model_digest is empty; start the pipeline"):
        OwnNets(encoded, TrainingConfig(model="a.net:build"))


def test_code_of_another_digest_is_not_imported(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    name, code = package(tmp_path, f"raise SystemExit('run')\n{NET}")
    digest = "sha256:" + "0" * 64
    config = TrainingConfig.from_params({**section(name, code), "model_digest": digest})
    with pytest.raises(IntegrityError, match="is not the code of digest sha256:000"):
        OwnNets(encoded, config)


def test_a_name_that_is_taken_is_refused(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "net.py").write_text(NET)
    code = CodePackage.read(tmp_path, "numpy")
    config = TrainingConfig.from_params(section("numpy", code))
    with pytest.raises(ConfigError, match="give your package another name"):
        OwnNets(encoded, config)
    assert "tensor" not in dir(np)


@pytest.mark.parametrize(
    "clocked",
    [
        {"execution": "auto"},
        {"mixed_precision": True},
        {"precision_switching_enabled": True},
    ],
)
def test_what_a_clock_chooses_is_refused_in_several_processes(
    clocked: dict[str, Any],
) -> None:
    """Each process would choose by its own clock, and train other bits."""
    alone = {"model": "a.net:build", **clocked}
    TrainingConfig.from_params(alone)
    with pytest.raises(ConfigError, match=r"where training\.processes is over 1"):
        TrainingConfig.from_params({**alone, "backend": "torchrun", "processes": 2})


# --- code that is in the image ---


def test_code_in_the_image_is_found_by_its_digest_alone(
    encoded: EncodedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, code = package(tmp_path)
    there = {**section(name, code), "model_package": ""}
    with pytest.raises(ConfigError, match=rf"the package '{name}', which neither"):
        OwnNets(encoded, TrainingConfig.from_params(there))
    monkeypatch.syspath_prepend(tmp_path)
    nets = OwnNets(encoded, TrainingConfig.from_params(there))
    assert nets.genome.code == code.digest
    (tmp_path / name / "net.py").write_text(NET + "\n# another")
    with pytest.raises(IntegrityError, match="build the image anew"):
        OwnNets(encoded, TrainingConfig.from_params(there))


def test_other_code_of_the_same_name_takes_its_place(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    name, code = package(tmp_path)
    first = OwnNets(encoded, TrainingConfig.from_params(section(name, code)))
    wider = NET.replace("(8", "(9").replace(", 8)", ", 9)")
    (tmp_path / name / "net.py").write_text(wider)
    other = CodePackage.read(tmp_path, name)
    second = OwnNets(encoded, TrainingConfig.from_params(section(name, other)))
    assert first.genome.size < second.genome.size


# --- what is told, and what does not fit ---


def test_what_does_not_apply_is_said(encoded: EncodedDataset, tmp_path: Path) -> None:
    config = of(
        tmp_path,
        sensitive=["sex"],
        tpu_pods=2,
        evolution_frequency=10,
        agent_specializations=["vision"],
    )
    said = list(OwnNets(encoded, config).unapplied(config))
    for word in ("sensitive", "tpu_pods", "evolution_frequency", "vision"):
        assert any(word in sentence for sentence in said), word
    plain = of(tmp_path)
    assert not list(OwnNets(encoded, plain).unapplied(plain))


def test_an_architecture_of_nets_is_no_module(
    dataset: Path, own: dict[str, Any], tmp_path: Path
) -> None:
    net = searched(tmp_path, dataset, RULES)
    with pytest.raises(ConfigError, match="is a searched net, but the training"):
        train_agents.run(dataset, net, RULES, own, tmp_path / "model")


def test_an_architecture_of_a_module_is_no_net(
    dataset: Path, found: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="names a searched net"):
        train_agents.run(dataset, found, RULES, {}, tmp_path / "model")


@pytest.mark.parametrize(
    "change",
    [{"code": "sha1:0"}, {"size": 1.5}, {"encoding": "raw"}, {"schema": 2}, {"x": 1}],
)
def test_an_impossible_genome_is_one_sentence(
    found: Path, change: dict[str, Any]
) -> None:
    raw = read_json(found / "genome.json")
    with pytest.raises(InputError, match="genome of a module"):
        ModuleGenome.from_dict({**raw, **change})


# --- programs of others ---


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 2}, "has schema 2"),
        ({"rows": 10**9}, "blocks of 1000000000 rows"),
        ({"steps": 7}, "no program of schema 1"),
        ({"steps": [["a"]]}, "a step that is none"),
        ({"steps": [["a", "eval", []]]}, "calls 'eval', which this version does not"),
        ({"width": 3}, "reads 3 inputs"),
        ({"outputs": 2}, "gives 2 logits"),
        ({"answer": "nothing"}, "lacks the tensor 'nothing'"),
        ({"more": 1}, "no program of schema 1"),
    ],
)
def test_a_program_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    write_json(copy / PROGRAM, {**read_json(copy / PROGRAM), **change})
    with pytest.raises(InputError, match=sentence):
        Predictor.load(copy)


def test_a_program_whose_steps_do_not_fit_ends_in_a_sentence(
    model: Path, dataset: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    program = read_json(copy / PROGRAM)
    features = Dataset.load(dataset).splits["select"].features
    for wrong in ([{"of": "x"}, [1, 2, 3]], [{"of": []}], [{}], [{"of": "x"}] * 9):
        steps = [*program["steps"], ["end", "view", wrong]]
        write_json(copy / PROGRAM, {**program, "steps": steps, "answer": "end"})
        with pytest.raises(InputError, match="program"):
            Predictor.load(copy).predict_table(features)


def test_members_that_are_not_as_many_as_stated_are_refused(
    model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    decision = read_json(copy / "decision.json")
    write_json(copy / "decision.json", {**decision, "members": 9})
    with pytest.raises(SafescaleError, match="its decision rule of 9"):
        Predictor.load(copy)
