"""Predictor: raw rows in, a score and a decision out, the same bits everywhere.

Trainer, evaluator and `safescale predict` all answer through this module. A row's
answer depends on that row alone: rows are computed in blocks of one fixed size,
padded with zeros, by one thread and in double precision, and logits are rounded to
a grid of 2^-20, so that neither the neighbours of a row, nor the number of
threads, nor (within rounding distance of a grid edge) the processor shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.files.regular import open_regular
from safescale_ammt.model.device import settled
from safescale_ammt.model.fair_head import FairHead
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import Weights, forward, shapes

BLOCK = 1024
"""Rows per block; the last one is padded."""
GRID = 2.0**20
"""Logits are rounded to multiples of 1 / GRID."""
_SCHEMA = 1
_DECISION_KEYS = {"schema", "form", "members", "threshold", "head"}
_HEAD = "head."
"""Prefix of the fair head's tensors beside the weights."""


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
    """One model: nets whose logits are averaged, and perhaps a fair head.

    Attributes:
        genome: architecture of each member.
        weights: stacked tensors (members, ...), float32.
        form: how it came to be: soup, best, ensemble or twin.
        positive: code of the positive class, or None.
        head: group-blind score correction, or None.
        threshold: least score (corrected, if there is a head) that is answered
            positive, of two classes.
    """

    genome: Genome
    weights: Weights
    form: str
    positive: int | None
    head: FairHead | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        at = self.threshold
        if not isinstance(at, float) or not 0 <= at <= 1:
            raise InputError(f"A model has threshold {at!r}, expected one in [0, 1].")

    @property
    def members(self) -> int:
        """Nets whose logits are averaged."""
        return len(self.weights["out.bias"])

    def answer(self, x: NDArray[np.float32] | Tensor) -> Prediction:
        """Answers encoded rows (n, d)."""
        rows = torch.as_tensor(x)
        weights = {name: w.double() for name, w in self.weights.items()}
        scores, predictions = [], []
        # One thread: a sum that is split over threads is added in another order.
        with settled(1), torch.no_grad():
            for part in torch.split(rows, BLOCK):
                # Always a whole block: matrix routines choose by size, and another
                # routine may give a row other bits.
                block = torch.zeros(BLOCK, rows.shape[1], dtype=torch.float64)
                block[: len(part)] = part
                logits = forward(self.genome, weights, block[None]).mean((0, 1))
                # The grid is far coarser than double precision: what processors round
                # differently falls on one point of it, unless an edge lies between.
                logits = torch.round(logits * GRID) / GRID
                if logits.shape[1] > 1:
                    chance = torch.softmax(logits, 1)
                    score, prediction = chance.max(1)
                    if self.positive is not None:
                        score = chance[:, self.positive]
                else:
                    score = torch.sigmoid(logits[:, 0])
                    if self.head is not None:
                        score = self.head.correct(block, score)
                    prediction = (score >= self.threshold).to(torch.int64)
                scores.append(score[: len(part)])
                predictions.append(prediction[: len(part)])
        return Prediction(torch.cat(scores).numpy(), torch.cat(predictions).numpy())

    def save(self, folder: Path, schema: Schema) -> None:
        """Writes weights, genome, schema and decision rule."""
        folder.mkdir(parents=True, exist_ok=True)
        # Layers are views of one row of theta, and safetensors wants whole tensors.
        tensors = {name: w.contiguous() for name, w in self.weights.items()}
        if self.head is not None:
            tensors |= {_HEAD + n: w for n, w in self.head.tensors().items()}
        (folder / "weights.safetensors").write_bytes(save(tensors))
        write_json(folder / "genome.json", self.genome.to_dict())
        write_json(folder / "schema.json", schema.to_dict())
        decision = {
            "schema": _SCHEMA,
            "form": self.form,
            "members": self.members,
            "threshold": self.threshold,
            "head": None if self.head is None else self.head.to_dict(),
        }
        write_json(folder / "decision.json", decision)


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
        genome = Genome.from_dict(read_json(folder / "genome.json"))
        decision = read_json(folder / "decision.json")
        if (
            not isinstance(decision, Mapping)
            or set(decision) != _DECISION_KEYS
            or decision["schema"] != _SCHEMA
        ):
            raise InputError(
                f"{folder / 'decision.json'} is not a decision rule of schema "
                f"{_SCHEMA}."
            )
        weights, rest = _tensors(folder, schema, genome, decision["members"])
        head = None
        if decision["head"] is not None:
            head = FairHead.from_dict(decision["head"], rest)
        positive = schema.classes.index(schema.positive) if schema.positive else None
        form, at = decision["form"], decision["threshold"]
        model = Deployable(genome, weights, form, positive, head, at)
        return cls(schema, model)

    def predict_table(self, features: pa.Table) -> Prediction:
        """Answers raw rows.

        Args:
            features: the schema's feature columns; others are ignored.

        Raises:
            DataError: a feature column is missing.
        """
        encoding = cast("Numeric", self.model.genome.encoding)
        return self.model.answer(encode(self.schema, features, encoding))


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file.

    Raises:
        InputError: it is not there, no regular file, or none whose header is true.
    """
    try:
        # The library opens by name, and would wait for a pipe.
        open_regular(path, follow=False).close()
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a safetensors file ({error}).") from None


def _tensors(
    folder: Path, schema: Schema, genome: Genome, members: int
) -> tuple[Weights, dict[str, Tensor]]:
    """Reads the stacked weights, and the fair head's tensors.

    Raises:
        InputError: no safetensors file, or weights that do not fit the genome.
    """
    tensors = tensors_of(folder / "weights.safetensors")
    weights = {n: w for n, w in tensors.items() if not n.startswith(_HEAD)}
    head = {n.removeprefix(_HEAD): w for n, w in tensors.items() if n not in weights}
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
