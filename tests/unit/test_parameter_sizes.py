"""A run whose values Kubeflow cannot hand over is refused, with the greatest named."""

from __future__ import annotations

import json

import pytest

from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from pipelines.parameter_sizes import MOST, check_sizes, size
from safescale_ammt.errors import ConfigError


@pytest.fixture
def pipeline():
    return CompiledPipeline.parse(compile_train())


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"a": 1}, '{"a":1}'),
        ("é", '"é"'),
        # As Go's encoding/json writes them, lest a page takes them for markup.
        ("<&>", r'"\u003c\u0026\u003e"'),
        ("\u2028", r'"\u2028"'),
        ({"b": [True, None, "\n"]}, '{"b":[true,null,"\\n"]}'),
    ],
)
def test_a_value_is_as_large_as_kubeflow_writes_it(value, written):
    assert size(value) == len(written.encode())


def values(total):
    """Returns values of parameters whose JSON has so many bytes."""
    given = {"data": {"note": ""}, "training": {"note": "x" * 40_000}}
    rest = total - size({"parameterValues": given})
    given["data"]["note"] = "x" * rest
    assert len(json.dumps({"parameterValues": given}, separators=(",", ":"))) == total
    return given


def test_what_fits_is_let_through_and_one_byte_more_is_not(pipeline):
    check_sizes(pipeline, values(MOST))
    with pytest.raises(ConfigError, match=r"122,881 bytes in sum.* 'data' with"):
        check_sizes(pipeline, values(MOST + 1))


def test_the_defaults_of_a_form_count_with_the_graph_that_they_stand_in():
    with pytest.raises(ConfigError, match=r"the greatest is 'data' with 70,011"):
        compile_train(
            arguments={
                "data": {"note": "x" * 70_000},
                "training": {"note": "x" * 50_000},
            }
        )
