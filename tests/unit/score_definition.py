"""The definition of a score, written down a second time for other libraries.

`answered` follows docs/mathematical_foundations.md over any numbers that know + - * /
and a few functions: torch's tensors, and nodes of an ONNX graph that onnxruntime runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch

from safescale_ammt.model.arithmetic import _LN2_HIGH, _LN2_LOW, _LOG2_E, _TAIL
from safescale_ammt.model.predictor import Deployable

PIECE = 512


class Torch:
    """Numbers of torch: float64 tensors."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = self.array(x)

    def array(self, values: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float64)

    def largest(self, x: Any) -> Any:
        return x.amax(1, keepdim=True)

    def most(self, x: Any, y: float) -> Any:
        return torch.clamp(x, min=y)

    def least(self, x: Any, y: float) -> Any:
        return torch.clamp(x, max=y)

    def at_least(self, x: Any, y: float) -> Any:
        return x >= y

    def where(self, mask: Any, x: Any, y: Any) -> Any:
        return torch.where(mask, x, y)

    def column(self, x: Any, i: int) -> Any:
        return x[:, i : i + 1]

    def inputs(self, x: Any, start: int, stop: int) -> Any:
        return x[:, start:stop]

    def on_grid(self, x: Any) -> Any:
        top = torch.clamp(x.abs().amax(1, keepdim=True), min=2.0**-500)
        shift = ((top * 2.0**52 + top) - top * 2.0**52) * (3 * 2.0**30)
        return (x + shift) - shift

    def __getattr__(self, name: str) -> Any:
        known = {"rint": torch.round, "abs": torch.abs, "argmax": torch.argmax}
        return known[name]

    def two_to(self, k: Any) -> Any:
        return torch.ldexp(torch.ones_like(k), k.to(torch.int64))

    def result(self, score: Any, prediction: Any) -> tuple[np.ndarray, np.ndarray]:
        return score.numpy()[:, 0], prediction.numpy().astype(np.int64).ravel()


class Node:
    """A value of an ONNX graph."""

    def __init__(self, graph: Onnx, name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Any) -> Node:
        return self.graph.node("Add", self, other)

    def __sub__(self, other: Any) -> Node:
        return self.graph.node("Sub", self, other)

    def __mul__(self, other: Any) -> Node:
        return self.graph.node("Mul", self, other)

    def __truediv__(self, other: Any) -> Node:
        return self.graph.node("Div", self, other)

    def __matmul__(self, other: Any) -> Node:
        return self.graph.node("MatMul", self, other)

    def __rsub__(self, other: Any) -> Node:
        return self.graph.node("Sub", other, self)

    __radd__, __rmul__ = __add__, __mul__


class Onnx:
    """Nodes of a graph of float64, which onnxruntime runs as it is written."""

    def __init__(self, x: np.ndarray) -> None:
        self.rows, self.nodes, self.constants = x, [], []
        self.x = Node(self, "x")

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> Node:
        from onnx import helper

        named = [i if isinstance(i, Node) else self.array(i) for i in inputs]
        out = f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, [i.name for i in named], [out], **attributes)
        )
        return Node(self, out)

    def array(self, values: Any, kind: Any = np.float64) -> Node:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        tensor = np.asarray(values, kind)
        self.constants.append(numpy_helper.from_array(tensor, name))
        return Node(self, name)

    def largest(self, x: Node) -> Node:
        return self.node("ReduceMax", x, self.array([1], np.int64), keepdims=1)

    def most(self, x: Node, y: float) -> Node:
        return self.node("Max", x, y)

    def least(self, x: Node, y: float) -> Node:
        return self.node("Min", x, y)

    def at_least(self, x: Node, y: float) -> Node:
        return self.node("GreaterOrEqual", x, y)

    def where(self, mask: Node, x: Any, y: Any) -> Node:
        return self.node("Where", mask, x, y)

    def column(self, x: Node, i: int) -> Node:
        return self.inputs(x, i, i + 1)

    def inputs(self, x: Node, start: int, stop: int) -> Node:
        ends = (self.array([n], np.int64) for n in (start, stop, 1))
        return self.node("Slice", x, *ends)

    def on_grid(self, x: Node) -> Node:
        top = self.most(self.largest(self.abs(x)), 2.0**-500)
        lifted = top * 2.0**52
        shift = ((lifted + top) - lifted) * (3 * 2.0**30)
        return (x + shift) - shift

    def rint(self, x: Node) -> Node:
        return self.node("Round", x)

    def abs(self, x: Node) -> Node:
        return self.node("Abs", x)

    def argmax(self, x: Node, axis: int) -> Node:
        return self.node("ArgMax", x, axis=axis, keepdims=0)

    def two_to(self, k: Node) -> Node:
        return self.node("Pow", 2.0, k)

    def result(self, score: Node, prediction: Node) -> tuple[np.ndarray, np.ndarray]:
        import onnxruntime
        from onnx import TensorProto, helper

        shape = [None, self.rows.shape[1]]
        inputs = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)]
        as_int = self.node("Cast", prediction, to=TensorProto.INT64)
        outputs = [
            helper.make_tensor_value_info(score.name, TensorProto.DOUBLE, None),
            helper.make_tensor_value_info(as_int.name, TensorProto.INT64, None),
        ]
        graph = helper.make_graph(self.nodes, "score", inputs, outputs, self.constants)
        opset = [helper.make_opsetid("", 18)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found = session.run(None, {"x": self.rows.astype(np.float64)})
        return found[0][:, 0], found[1].ravel()


def by_columns(matrix: np.ndarray) -> np.ndarray:
    """Rounds the columns of a matrix to 22 bits of their largest."""
    top = np.maximum(np.abs(matrix).max(0, initial=0.0), 2.0**-500)
    unit = ((top * 2.0**52 + top) - top * 2.0**52) * 2.0**-21
    # By division, where the library adds and takes away.
    return np.rint(matrix / unit) * unit


def product(ops: Any, x: Any, matrix: np.ndarray) -> Any:
    parts = []
    for at in range(0, len(matrix), PIECE):
        part = matrix[at : at + PIECE].astype(np.float64)
        rows = ops.inputs(x, at, at + len(part)) if len(matrix) > PIECE else x
        parts.append(ops.on_grid(rows) @ ops.array(by_columns(part)))
    return reduce(lambda a, b: a + b, parts)


def exp(ops: Any, x: Any) -> Any:
    x = ops.most(x, -700.0)
    twos = ops.rint(x * _LOG2_E)
    rest = (x - twos * _LN2_HIGH) - twos * _LN2_LOW
    terms = [1.0]
    for n in range(1, 14):
        terms.append(terms[-1] / n)
    total = rest * 0.0 + terms[13]
    for term in terms[12::-1]:
        total = total * rest + term
    return total * ops.two_to(twos)


def sigmoid(ops: Any, x: Any) -> Any:
    small = exp(ops, ops.abs(x) * -1.0)
    one = small * 0.0 + 1.0
    return ops.where(ops.at_least(x, 0.0), one, small) / (small + 1.0)


def softmax(ops: Any, x: Any, classes: int) -> list[Any]:
    part = exp(ops, x - ops.largest(x))
    columns = [ops.column(part, i) for i in range(classes)]
    total = reduce(lambda a, b: a + b, columns)
    return [column / total for column in columns]


def activation(ops: Any, name: str, x: Any) -> Any:
    if name == "relu":
        return ops.most(x, 0.0)
    if name == "silu":
        x = ops.most(x, -700.0)
        return x * sigmoid(ops, x)
    x = ops.most(x, -40.0) if name == "gelu" else x
    up = ops.at_least(x, 0.0)
    if name == "tanh":
        small = exp(ops, ops.abs(x) * -2.0)
        size = (1.0 - small) / (small + 1.0)
        return ops.where(up, size, size * -1.0)
    size = ops.least(ops.abs(x), 40.0)
    z = size * math.sqrt(0.5)
    t = (z - 3.75) / (z + 3.75)
    last = before = t * 0.0
    for coefficient in reversed(_TAIL[1:]):
        last, before = (((t + t) * last) - before) + coefficient, last
    scaled = (t * last - before) + _TAIL[0]
    tail = (scaled / (z * 2.0 + 1.0)) * 0.5 * exp(ops, (size * size) * -0.5)
    return x * ops.where(up, 1.0 - tail, tail)


def logits(ops: Any, model: Deployable, net: Mapping[str, np.ndarray], h: int) -> Any:
    genome, hidden, width = model.genome, ops.x, None
    for i, units in enumerate(genome.widths):
        layer, before = f"layer{i}", hidden
        wide = {n: np.asarray(w, np.float64) for n, w in net.items()}
        if genome.heads > 1:
            scaled = before * ops.array(wide[f"{layer}.scale_in"][h])
            found = product(ops, scaled, wide[f"{layer}.weight"])
            found = found * ops.array(wide[f"{layer}.scale_out"][h])
        else:
            found = product(ops, before, wide[f"{layer}.weight"])
        found = found + ops.array(wide[f"{layer}.bias"][h])
        hidden = activation(ops, genome.activation, found)
        fan_in = net[f"{layer}.weight"].shape[0]
        hidden = hidden + before if genome.residual and fan_in == units else hidden
        width = units
    del width
    return product(ops, hidden, net["out.weight"][h]) + ops.array(
        np.asarray(net["out.bias"][h], np.float64)
    )


def on_grid(ops: Any, x: Any) -> Any:
    return ops.rint(x * 2.0**20) / 2.0**20


def answered(ops: Any, model: Deployable) -> tuple[np.ndarray, np.ndarray]:
    """Returns score (n,) and prediction (n,) of a model's rows by another library."""
    found: Sequence[Any] = [
        on_grid(ops, logits(ops, model, {n: w[k] for n, w in model.weights.items()}, h))
        for k in range(model.members)
        for h in range(model.genome.heads)
    ]
    mean = on_grid(ops, reduce(lambda a, b: a + b, found) / float(len(found)))
    classes = model.weights["out.bias"].shape[-1]
    if classes > 1:
        chances = softmax(ops, mean, classes)
        if model.positive is not None:
            return ops.result(chances[model.positive], ops.argmax(mean, 1))
        best = chances[0]
        for chance in chances[1:]:
            best = ops.where(ops.at_least(chance - best, 0.0), chance, best)
        return ops.result(best, ops.argmax(mean, 1))
    score = sigmoid(ops, mean)
    pull = score * 0.0
    for part in model.head.parts if model.head else ():
        bias = ops.array(np.asarray(part.bias, np.float64))
        q = softmax(ops, product(ops, ops.x, part.weight) + bias, len(part.bias))
        shifts = [float(s) for s in part.shift]
        share = reduce(
            lambda a, b: a + b, (c * s for c, s in zip(q, shifts, strict=True))
        )
        kappa = {True: score, False: 1.0 - score, None: score * 0.0 + 1.0}
        pull = pull + kappa[part.condition] * share
    if model.head:
        score = ops.least(ops.most(score - pull / 2.0, 0.0), 1.0)
    return ops.result(score, ops.at_least(score, model.threshold))
