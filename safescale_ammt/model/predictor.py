"""Predictor: raw rows in, a score and a decision out, the same bits everywhere.

Trainer, evaluator and `safescale predict` all answer through this module, without
torch. A row's answer depends on that row alone, and its bits on nothing else than the
definition that its model was saved with (`logits`, `arithmetic`): neither the
neighbours of a row, nor threads, library or processor show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.regular import open_regular
from safescale_ammt.model.arithmetic import Floats, sigmoid, softmax
from safescale_ammt.model.fair_head import Array, FairHead
from safescale_ammt.model.forest import Forest
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.logits import (
    BY_LIBRARY,
    EXACT,
    MULTIPLIED,
    logits,
    on_logit_grid,
)
from safescale_ammt.model.module_genome import ModuleGenome
from safescale_ammt.model.program import PROGRAM, Program, Steps
from safescale_ammt.model.tree_genome import AnyGenome, TreeGenome, read_genome

BLOCK = 512
"""Rows that are computed at once, as a cache holds them."""
BATCH = 16 * BLOCK
"""Rows that are encoded at once."""
DECISION = "decision.json"
"""Form, head, threshold, and as `schema` the definition of a model's scores."""
_DECISION_KEYS = {"schema", "form", "members", "threshold", "head"}
TREES = "trees.txt"
"""Boosted trees as LightGBM writes them, in place of weights."""
_HEAD = "head."
"""Prefix of the fair head's tensors beside the weights."""
_MODULE = "module."
"""Prefix of the tensors of a user's own module, which may have any name."""


class Prediction(NamedTuple):
    """What a model says of n rows.

    Attributes:
        score: probability of the positive class, or of the predicted class where
            no class is declared positive, float64 (n,).
        prediction: class codes int64 (n,).
    """

    score: NDArray[np.float64]
    prediction: NDArray[np.int64]


@dataclass(frozen=True)
class Deployable:
    """One model: nets or boosters whose logits are averaged, perhaps a fair head.

    Attributes:
        genome: architecture of each member.
        weights: stacked arrays (members, ...), float32; of boosters their trees, of a
            user's own modules the steps that they compute, with their tensors.
        form: how it came to be: soup, best, ensemble or twin.
        positive: code of the positive class, or None.
        head: group-blind score correction, or None.
        threshold: least score (corrected, if there is a head) that is answered
            positive, of two classes.
        definition: of its scores, a key of `MULTIPLIED`.
    """

    genome: AnyGenome
    weights: Mapping[str, Array] | Forest | Program
    form: str
    positive: int | None
    head: FairHead | None = None
    threshold: float = 0.5
    definition: int = EXACT

    def __post_init__(self) -> None:
        at = self.threshold
        if not isinstance(at, float) or not 0 <= at <= 1:
            raise InputError(f"A model has threshold {at!r}, expected one in [0, 1].")

    @property
    def members(self) -> int:
        """Nets, or boosters, whose logits are averaged."""
        if isinstance(self.weights, Forest | Program):
            return self.weights.members
        return len(self.weights["out.bias"])

    def at(self, threshold: float) -> Deployable:
        """Returns the same model, deciding at another threshold."""
        return replace(self, threshold=threshold)

    def answer(self, x: ArrayLike) -> Prediction:
        """Answers encoded rows (n, d)."""
        rows = np.asarray(x)
        if isinstance(self.weights, Forest | Program):
            rows = np.asarray(rows, np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                return self.decide(rows, on_logit_grid(self.weights.raw(rows)))
        assert isinstance(self.genome, Genome)
        weights = {n: np.asarray(w, np.float64) for n, w in self.weights.items()}
        answer = Prediction(np.empty(len(rows)), np.empty(len(rows), np.int64))
        # What is infinite or no number anywhere has no score, and needs no warning.
        with np.errstate(over="ignore", invalid="ignore"):
            for at in range(0, len(rows), BLOCK):
                part = rows[at : at + BLOCK]
                # By definition 1 always a whole block: matrix routines choose by size,
                # and another routine may give a row other bits.
                size = BLOCK if self.definition == BY_LIBRARY else len(part)
                block = np.zeros((size, rows.shape[1]))
                block[: len(part)] = part
                found = logits(self.genome, weights, block, self.definition)
                for whole, own in zip(answer, self.decide(block, found), strict=True):
                    whole[at : at + BLOCK] = own[: len(part)]
        return answer

    def decide(self, x: Floats, found: Floats) -> Prediction:
        """Scores encoded rows (n, d) by their logits (n, n_out), and decides."""
        if found.shape[1] > 1:
            chance, prediction = softmax(found), found.argmax(1)
            if self.positive is not None:
                return Prediction(chance[:, self.positive], prediction)
            return Prediction(chance.max(1), prediction)
        score = sigmoid(found[:, 0])
        if self.head is not None:
            score = self.head.correct(x, score, MULTIPLIED[self.definition])
        return Prediction(score, (score >= self.threshold).astype(np.int64))

    def save(self, folder: Path, schema: Schema) -> None:
        """Writes weights, genome, schema and decision rule."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.weights, Forest):
            (folder / TREES).write_bytes(self.weights.text.encode())
        else:
            named: Mapping[str, NDArray[Any]]
            if isinstance(self.weights, Program):
                named = {_MODULE + n: t for n, t in self.weights.tensors.items()}
            else:
                named = self.weights
            # Layers are views of one row of theta, safetensors wants whole tensors.
            tensors = {n: np.ascontiguousarray(w) for n, w in named.items()}
            if self.head is not None:
                tensors |= {_HEAD + n: w for n, w in self.head.tensors().items()}
            (folder / "weights.safetensors").write_bytes(save(tensors))
        if isinstance(self.weights, Program):
            write_json(folder / PROGRAM, self.weights.steps.to_dict())
        write_json(folder / "genome.json", self.genome.to_dict())
        write_json(folder / "schema.json", schema.to_dict())
        decision = {
            "schema": self.definition,
            "form": self.form,
            "members": self.members,
            "threshold": self.threshold,
            "head": None if self.head is None else self.head.to_dict(),
        }
        write_json(folder / DECISION, decision)


class Predictor:
    """A saved model that answers raw rows."""

    def __init__(self, schema: Schema, model: Deployable) -> None:
        self.schema, self.model = schema, model

    @classmethod
    def load(cls, model_dir: Path | str) -> Predictor:
        """Reads a model folder (the model's own, or its `twin`).

        The folder's digests are the caller's to verify.

        Raises:
            InputError: a file is missing, or the weights do not fit the genome.
        """
        folder = Path(model_dir)
        schema = Schema.load(folder)
        genome = read_genome(read_json(folder / "genome.json"))
        decision = read_json(folder / DECISION)
        if (
            not isinstance(decision, Mapping)
            or set(decision) != _DECISION_KEYS
            or decision["schema"] not in MULTIPLIED
        ):
            known = " or ".join(map(str, MULTIPLIED))
            raise InputError(
                f"{folder / DECISION} is not a decision rule of schema {known}."
            )
        weights: Mapping[str, Array] | Forest | Program
        head, members = None, decision["members"]
        if isinstance(genome, TreeGenome):
            weights = trees_of(folder, schema, decision)
        elif isinstance(genome, ModuleGenome):
            weights, rest = program_of(folder, schema, genome, decision)
            if decision["head"] is not None:
                head = FairHead.from_dict(decision["head"], rest)
        else:
            weights, rest = _tensors(folder, schema, genome, members)
            if decision["head"] is not None:
                head = FairHead.from_dict(decision["head"], rest)
        positive = schema.classes.index(schema.positive) if schema.positive else None
        form, at = decision["form"], decision["threshold"]
        rule = (form, positive, head, at, decision["schema"])
        model = Deployable(genome, weights, *rule)
        return cls(schema, model)

    def predict_table(self, features: pa.Table) -> Prediction:
        """Answers raw rows.

        Args:
            features: the schema's feature columns; others are ignored.

        Raises:
            DataError: a feature column is missing.
        """
        encoding = cast("Numeric", self.model.genome.encoding)
        # Encoded rows take many times the room of typed ones.
        parts = [
            self.model.answer(encode(self.schema, features.slice(at, BATCH), encoding))
            for at in range(0, max(features.num_rows, 1), BATCH)
        ]
        return Prediction(*map(np.concatenate, zip(*parts, strict=True)))


def trees_of(folder: Path, schema: Schema, decision: Mapping[str, Any]) -> Forest:
    """Reads the trees of a model of tables with a schema.

    Raises:
        InputError: no such file, trees that do not fit the schema, or a decision rule
            that trees do not have.
    """
    path, members = folder / TREES, decision["members"]
    if decision["head"] is not None or type(members) is not int or members < 1:
        raise InputError(
            f"{folder / DECISION} is no decision rule of trees: they have no fair head "
            "and are of one booster or more."
        )
    try:
        with open_regular(path, follow=False) as file:
            text = file.read().decode("ascii")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not the text of boosted trees.") from None
    forest = Forest.read(text, path, members)
    classes, inputs = len(schema.classes), width(schema, "raw")
    outputs = 1 if classes == 2 else classes
    if (forest.width, forest.outputs) != (inputs, outputs):
        raise InputError(
            f"The trees in {path} read {forest.width} inputs and give {forest.outputs} "
            f"scores; the schema has {inputs} and {outputs}."
        )
    return forest


def program_of(
    folder: Path, schema: Schema, genome: ModuleGenome, decision: Mapping[str, Any]
) -> tuple[Program, dict[str, Array]]:
    """Reads the program of a user's own modules, and the fair head's tensors.

    Raises:
        InputError: a file is missing or is none, or they do not fit each other or the
            schema.
    """
    steps = Steps.from_dict(read_json(folder / PROGRAM), folder / PROGRAM)
    found, head = parted(tensors_of(folder / "weights.safetensors"))
    tensors = {n.removeprefix(_MODULE): t for n, t in found.items()}
    classes = len(schema.classes)
    needed = (
        width(schema, cast("Numeric", genome.encoding)),
        1 if classes == 2 else classes,
    )
    if (steps.width, steps.outputs) != needed or decision["schema"] != EXACT:
        raise InputError(
            f"{folder / PROGRAM} reads {steps.width} inputs and gives {steps.outputs} "
            f"logits by definition {decision['schema']}; the schema has {needed[0]} "
            f"and {needed[1]}, by definition {EXACT}."
        )
    program = Program(steps, tensors)
    if program.members != decision["members"]:
        raise InputError(
            f"{folder / PROGRAM} is of {program.members} modules, its decision rule of "
            f"{decision['members']}."
        )
    return program, head


def parted(
    tensors: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, Array]]:
    """Returns the tensors of a model, and those of its fair head."""
    weights = {n: w for n, w in tensors.items() if not n.startswith(_HEAD)}
    head = {n.removeprefix(_HEAD): w for n, w in tensors.items() if n not in weights}
    return weights, head


def tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the tensors of a safetensors file.

    Raises:
        InputError: it is not there, no regular file, or none whose header is true.
    """
    try:
        # The library opens by name, and would wait for a pipe.
        open_regular(path, follow=False).close()
        tensors: dict[str, NDArray[Any]] = load_file(path)
        # Unless another library has taught it: no answer may depend on who is imported.
        taught = {str(t.dtype) for t in tensors.values() if t.dtype.kind == "V"}
        if taught:
            raise TypeError(f"it holds {min(taught)}")
        return tensors
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    # numpy has no bfloat16, and says so in one way or the other.
    except (OSError, SafetensorError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}).") from None


def _tensors(
    folder: Path, schema: Schema, genome: Genome, members: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Reads the stacked weights, and the fair head's tensors.

    Raises:
        InputError: no safetensors file, or weights that do not fit the genome.
    """
    weights, head = parted(tensors_of(folder / "weights.safetensors"))
    classes = len(schema.classes)
    d_in = width(schema, cast("Numeric", genome.encoding))
    layout = shapes(genome, d_in, 1 if classes == 2 else classes)
    expected = {name: (members, *shape) for name, shape in layout.items()}
    for name in sorted(weights.keys() | expected.keys()):
        shape = tuple(weights[name].shape) if name in weights else None
        if shape != expected.get(name):
            raise InputError(
                f"The weights in {folder} do not fit its genome and schema: {name} has "
                f"shape {shape}, expected {expected.get(name)}."
            )
    return weights, head
