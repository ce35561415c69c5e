"""Operators with numpy: each is what torch computes, in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from safescale_ammt.errors import InputError
from safescale_ammt.model import functions
from safescale_ammt.model.operators import MOST_NUMBERS, OPERATORS, PREPARED
from safescale_ammt.modules.tracing import WHERE

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)) * 2
Y = RNG.normal(size=(4, 6))
POSITIVE = np.abs(X) + 0.1
CUBE = RNG.normal(size=(3, 4, 5))
OTHER = RNG.normal(size=(3, 5, 2))
IMAGE = RNG.normal(size=(2, 4, 3))
PHOTOS = RNG.normal(size=(3, 4, 11, 9))
LINES = RNG.normal(size=(2, 4, 13))
SOLID = RNG.normal(size=(2, 4, 5, 6, 7))
WIDE = RNG.normal(size=(2, 70, 5, 5))


def kernel(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


BITS, MORE = X > 0, Y > 0
WHOLE = np.array([2, 0, 1])
VECTOR = RNG.normal(size=6)
CASES: dict[str, list[tuple[Any, ...]]] = {
    "add.Tensor": [(X, Y, 1), (X, VECTOR, 0.5)],
    "add.Scalar": [(X, 2.0, 1), (X, 2.0, 3)],
    "sub.Tensor": [(X, Y, 1), (X, Y, 2)],
    "sub.Scalar": [(X, 2.0, 1)],
    "rsub.Tensor": [(X, Y, 1)],
    "rsub.Scalar": [(X, 1.0, 2)],
    "mul.Tensor": [(X, Y)],
    "mul.Scalar": [(X, 0.1)],
    "div.Tensor": [(X, POSITIVE)],
    "div.Scalar": [(X, 3.0)],
    **{f"{n}.Tensor": [(X, np.round(X))] for n in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"{n}.Scalar": [(np.round(X), 1.0)] for n in ("eq", "ne", "lt", "le", "gt")},
    "ge.Scalar": [(X, -math.inf)],
    "maximum": [(X, Y)],
    "minimum": [(X, Y)],
    "pow.Tensor_Scalar": [(X, 2), (X, -3), (POSITIVE, 0.5), (POSITIVE, 1.7), (X, 0)],
    "logical_and": [(BITS, MORE)],
    "logical_or": [(BITS, MORE)],
    "logical_not": [(BITS,)],
    "bitwise_and.Tensor": [(BITS, MORE)],
    "bitwise_or.Tensor": [(BITS, MORE)],
    "bitwise_not": [(BITS,)],
    "where.self": [(BITS, X, Y)],
    **{n: [(X,)] for n in ("neg", "abs", "sign", "floor", "ceil", "round", "exp")},
    **{n: [(POSITIVE,)] for n in ("sqrt", "rsqrt", "reciprocal", "log")},
    "log1p": [(POSITIVE,), (X / 1e9,), (np.array([0.0, -0.5, np.inf]),)],
    **{n: [(X,), (X * 1e3,)] for n in ("sin", "cos", "erf", "tanh", "sigmoid")},
    **{n: [(X,)] for n in ("relu", "silu", "isnan", "isinf")},
    "gelu": [(X, "none"), (X, "tanh")],
    "elu": [(X, 1, 1, 1), (X, 1.6, 1.05, 1)],
    "leaky_relu": [(X, 0.01)],
    "clamp": [(X, -0.5, 0.7), (X, None, 0.7), (X, -0.5)],
    "hardtanh": [(X, -1, 1)],
    "sum.dim_IntList": [(CUBE, [1], False), (CUBE, [0, 2], True), (BITS, [0], False)],
    "sum": [(CUBE,)],
    "mean.dim": [(CUBE, [-1], True)],
    "mean": [(CUBE,)],
    "var.correction": [(CUBE, [1], 1, True), (CUBE, [1], 0, False)],
    "linalg_vector_norm": [(CUBE, 2, [1], True), (CUBE, 1, [0, 1]), (X, math.inf, [1])],
    "amax": [(CUBE, [1], False), (CUBE, [], False)],
    "amin": [(CUBE, [0], True)],
    "max.dim": [(X, 1, False)],
    "argmax": [(X, 1, False), (X, None)],
    "any.dim": [(BITS, 1, True)],
    "any": [(BITS,)],
    "_softmax": [(CUBE, -1, False), (CUBE, 1, False)],
    "_log_softmax": [(CUBE, 1, False)],
    "native_layer_norm": [
        (X, [6], VECTOR, VECTOR, 1e-5),
        (CUBE, [4, 5], None, None, 1e-5),
    ],
    "native_group_norm": [(IMAGE, VECTOR[:4], VECTOR[:4], 2, 4, 3, 2, 1e-5)],
    "_native_batch_norm_legit_no_training": [
        (X, VECTOR, VECTOR, VECTOR, POSITIVE[0], 0.1, 1e-5)
    ],
    "_native_batch_norm_legit.no_stats": [
        (IMAGE, VECTOR[:4], VECTOR[:4], True, 0.1, 1e-5),
        (PHOTOS, None, None, True, 0.1, 1e-5),
    ],
    "convolution": [
        (PHOTOS, kernel(5, 4, 3, 3), VECTOR[:5], [1], [0], [1], False, [0], 1),
        (PHOTOS, kernel(5, 4, 3, 2), None, [2, 3], [1, 0], [1], False, [0], 1),
        (PHOTOS, kernel(6, 4, 2, 3), VECTOR, [1], [2, 3], [2, 3], False, [0], 1),
        (PHOTOS, kernel(6, 2, 3, 3), VECTOR, [4], [1], [1], False, [0], 2),
        (PHOTOS, kernel(4, 1, 3, 3), VECTOR[:4], [1], [1], [1], False, [0], 4),
        (PHOTOS, kernel(8, 1, 3, 3), None, [2], [1], [2], False, [0], 4),
        (PHOTOS, kernel(3, 4, 1, 1), None, [1], [0], [1], False, [0], 1),
        (PHOTOS, kernel(3, 4, 11, 9), None, [1], [0], [1], False, [0], 1),
        # More inputs than are added at once.
        (WIDE, kernel(3, 70, 3, 3), None, [1], [1], [1], False, [0], 1),
        (LINES, kernel(5, 4, 3), VECTOR[:5], [2], [1], [1], False, [0], 1),
        (SOLID, kernel(5, 4, 3, 3, 3), None, [1], [1], [1], False, [0], 1),
        (PHOTOS[:0], kernel(5, 4, 3, 3), None, [1], [0], [1], False, [0], 1),
    ],
    "max_pool2d_with_indices": [
        (PHOTOS, [2, 2]),
        (PHOTOS, [3, 3], [2, 2], [1, 1], [1, 1], True),
        (PHOTOS, [3, 2], [1, 3], [1, 0], [2, 1], False),
        (PHOTOS, [2, 2], [3, 3], [1, 1], [1, 1], True),
        (LINES, [1, 2], [1, 2]),
    ],
    "max_pool3d_with_indices": [(SOLID, [2, 3, 2], [2, 1, 2], [1, 1, 0])],
    "avg_pool2d": [
        (PHOTOS, [2, 2]),
        (PHOTOS, [3, 3], [2, 2], [1, 1], True, True),
        (PHOTOS, [3, 3], [2, 2], [1, 1], True, False),
        (PHOTOS, [4, 3], [3, 2], [2, 1], False, True),
        (PHOTOS, [2, 2], [3, 3], [1, 1], True, True),
        (PHOTOS, [2, 2], [2, 2], [0, 0], False, True, 3),
        (LINES, [1, 3], [1, 2]),
    ],
    "avg_pool3d": [(SOLID, [2, 3, 2], [2, 1, 2], [1, 1, 0], False, False)],
    "_adaptive_avg_pool2d": [(PHOTOS, [5, 4]), (PHOTOS, [1, 9]), (PHOTOS, [13, 2])],
    "_adaptive_avg_pool3d": [(SOLID, [2, 3, 5])],
    "adaptive_max_pool2d": [(PHOTOS, [5, 4]), (PHOTOS, [11, 1])],
    "adaptive_max_pool3d": [(SOLID, [2, 3, 5])],
    "upsample_nearest1d.vec": [(LINES, [20], None), (LINES, None, [2.0])],
    "upsample_nearest2d.vec": [
        (PHOTOS, [7, 20], None),
        (PHOTOS, None, [2.0, 1.5]),
    ],
    "upsample_linear1d.vec": [(LINES, [20], False, None)],
    "upsample_bilinear2d.vec": [
        (PHOTOS, [7, 20], False, None),
        (PHOTOS, [7, 20], True, None),
        (PHOTOS, None, False, [2.0, 1.5]),
        (PHOTOS, [1, 1], True, None),
    ],
    "mm": [(X, Y.T)],
    "addmm": [(VECTOR[:4], X, Y.T, 1, 1), (VECTOR[:4], X, Y.T, 0.5, 2)],
    "bmm": [(CUBE, OTHER)],
    "view": [(CUBE, [12, 5])],
    "_unsafe_view": [(CUBE, [-1, 5])],
    "reshape": [(CUBE, [5, 12])],
    "expand": [(VECTOR, [3, -1], False)],
    "permute": [(CUBE, [2, 0, 1])],
    "transpose.int": [(CUBE, 0, 2)],
    "t": [(X,)],
    "unsqueeze": [(X, 1)],
    "squeeze": [(CUBE[:1, :, :1],)],
    "squeeze.dim": [(CUBE[:1], 0), (CUBE, 0)],
    "squeeze.dims": [(CUBE[:1, :, :1], [0, 2])],
    "select.int": [(CUBE, 1, 2), (CUBE, -1, -1)],
    "slice.Tensor": [(CUBE, 1, 1, 2**63 - 1, 2), (CUBE, 2, None, 3, 1)],
    "cat": [([X, Y], 1)],
    "stack": [([X, Y], 1)],
    "split_with_sizes": [(X, [1, 2, 3], 1)],
    "split.Tensor": [(X, 4, 1)],
    "unbind.int": [(X, 1)],
    "flip": [(CUBE, [0, 2])],
    "index_select": [(X, 0, WHOLE)],
    "index.Tensor": [(X, [None, WHOLE]), (CUBE, [-WHOLE])],
    "embedding": [(X, WHOLE, -1, False, False)],
    "constant_pad_nd": [(CUBE, [1, 2], 0.5), (CUBE, [0, 1, 2, 0], 0)],
    "full_like": [(X, 2.5)],
    "clone": [(X,)],
    "alias": [(X,)],
    "detach": [(X,)],
    "lift_fresh_copy": [(X,)],
}
MADE = {"full", "arange.start_step", "scalar_tensor", "_to_copy", "getitem"}
"""Operators that are asked for types by name, or that are none of torch's."""


def torchs(name: str) -> Any:
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base), overload or "default")


def called(operator: Any, arguments: tuple[Any, ...]) -> Any:
    """Calls torch's operator: what has to be named is named."""
    known = [a for a in operator._schema.arguments if a.name not in WHERE]
    given = list(zip(known, map(as_tensor, arguments), strict=False))
    named = {a.name: value for a, value in given if a.kwarg_only}
    return operator(*(value for a, value in given if not a.kwarg_only), **named)


def as_tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    many = isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value)
    return [as_tensor(v) for v in value] if many else value


def test_every_operator_has_a_case() -> None:
    assert CASES.keys() | MADE == OPERATORS.keys()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_what_torch_computes(name: str) -> None:
    for arguments in CASES[name]:
        expected = called(torchs(name), arguments)
        with np.errstate(all="ignore"):
            found = OPERATORS[name](*arguments)
        if isinstance(expected, torch.Tensor):
            expected, found = [expected], [found]
        # Of norms torch gives means and scales too, which no answer needs.
        for own, theirs in zip(found, expected, strict=False):
            assert own.shape == tuple(theirs.shape)
            assert np.asarray(own).dtype.kind == theirs.numpy().dtype.kind
            # Factors of a product have 22 bits, as those of a genome's nets.
            close = 1e-5 if name in PREPARED else 1e-12
            # Of an image they are bits below the largest of all its windows.
            wide = 3 if name == "convolution" else 1
            np.testing.assert_allclose(own, theirs.numpy(), close, wide * close)


def test_numbers_are_made_and_changed_to_types_by_their_names() -> None:
    assert OPERATORS["full"]([2], 1.5).tolist() == [1.5, 1.5]
    assert OPERATORS["scalar_tensor"](3, "int").dtype == np.int64
    assert OPERATORS["arange.start_step"](1, 8, 3).tolist() == [1, 4, 7]
    assert OPERATORS["arange.start_step"](0, 1, 0.5, "float").tolist() == [0, 0.5]
    assert OPERATORS["_to_copy"](np.array([-1.7, 1.7]), "int").tolist() == [-1, 1]
    assert OPERATORS["_to_copy"](np.array([0.0, 2.0]), "bool").tolist() == [False, True]
    assert OPERATORS["getitem"](["a", "b"], 1) == "b"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("full", ([MOST_NUMBERS, 2], 0.0)),
        ("expand", (np.zeros(1), [MOST_NUMBERS + 1])),
        ("add.Tensor", (np.zeros((2**14, 1)), np.zeros((1, 2**14)))),
        ("where.self", (np.zeros((2**14, 1)) > 0, np.zeros((1, 2**14)), np.zeros(1))),
        ("constant_pad_nd", (np.zeros(1), [MOST_NUMBERS, 0])),
        ("arange.start_step", (0, 2**40, 1)),
        ("bmm", (np.zeros((1, 2**14, 1)), np.zeros((1, 1, 2**14)))),
    ],
)
def test_what_would_fill_the_memory_is_refused(name: str, arguments: Any) -> None:
    with pytest.raises(InputError, match="numbers, at most"):
        OPERATORS[name](*arguments)


def test_an_entry_beyond_a_table_is_refused() -> None:
    for index in (np.array([3]), np.array([-1])):
        with pytest.raises(InputError, match="a table of 3"):
            OPERATORS["embedding"](np.zeros((3, 2)), index, -1, False, False)


def test_functions_are_right_to_the_last_bits_far_from_0_too() -> None:
    with np.errstate(all="ignore"):
        check_functions()


def check_functions() -> None:
    x = np.concatenate([np.logspace(-300, 300, 1000), -np.logspace(-10, 2.5, 1000)])
    up = x[x > 0]
    np.testing.assert_allclose(functions.log_of(up), np.log(up), 1e-15)
    small = x[np.abs(x) < 690]
    np.testing.assert_allclose(functions.exp_of(small), np.exp(small), 1e-14)
    angle = x[np.abs(x) < 2**19]
    np.testing.assert_allclose(functions.sine(angle), np.sin(angle), 1e-12, 1e-15)
    assert np.isnan(functions.sine(np.array([2.0**21]))).all()
    assert functions.log_of(np.array([0.0]))[0] == -np.inf
    assert functions.log_of(np.array([np.inf]))[0] == np.inf
    assert np.isnan(functions.log_of(np.array([-1.0, np.nan]))).all()
