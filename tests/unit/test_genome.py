"""Genomes: what may be written, how it is spelled, what it costs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.errors import InputError
from safescale_ammt.model.genome import ACTIVATIONS, ENCODINGS, Genome, shapes

genomes = st.builds(
    Genome,
    encoding=st.sampled_from(ENCODINGS),
    widths=st.lists(st.integers(1, 64), max_size=4).map(tuple),
    activation=st.sampled_from(ACTIVATIONS),
    dropout=st.floats(0, 0.9),
    residual=st.booleans(),
    heads=st.integers(1, 8),
)


@given(genomes)
def test_a_genome_survives_its_json_form(genome: Genome) -> None:
    assert Genome.from_dict(genome.to_dict()) == genome


@given(genomes)
def test_a_genome_survives_the_floats_of_kfp(genome: Genome) -> None:
    raw = genome.to_dict()
    raw |= {
        "schema": 1.0,
        "heads": float(raw["heads"]),
        "widths": [float(w) for w in raw["widths"]],
    }
    assert Genome.from_dict(raw).digest == genome.digest


@given(genomes, st.integers(1, 30), st.integers(1, 4))
def test_the_parameter_count_is_that_of_the_tensors(
    genome: Genome, d_in: int, n_out: int
) -> None:
    layout = shapes(genome, d_in, n_out)
    sizes = [
        a * b
        for a, b in (
            (s[0], s[1] if len(s) == 2 else s[1] * s[2]) for s in layout.values()
        )
    ]
    assert genome.parameters(d_in, n_out) == sum(sizes)


def test_flops_of_a_small_network_are_known() -> None:
    assert Genome(widths=(3,)).flops(2, 1) == 2 * (2 * 3 + 3)
    assert Genome(widths=(3,), heads=4).flops(2, 1) == 4 * 2 * (2 * 3 + 3)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("encoding", "onehot", "expected one of ple, standard"),
        ("activation", "sine", "genome.activation is 'sine'"),
        ("widths", [64], "at most 8 hidden layers"),
        ("widths", (64,) * 9, "at most 8 hidden layers"),
        ("widths", (0,), "whole numbers from 1 to 4096"),
        ("widths", (2.5,), "holds 2.5"),
        ("heads", True, "holds True"),
        ("heads", 65, "whole numbers from 1 to 64"),
        ("dropout", 0.95, "expected a number in [0, 0.9]"),
        ("dropout", "0.1", "expected a number"),
        ("residual", 1, "expected true or false"),
    ],
)
def test_an_impossible_gene_is_one_sentence(field: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        dataclasses.replace(Genome(), **{field: value})
    assert said in str(caught.value)


def test_an_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'activation', 'dropout'"):
        Genome.from_dict({**Genome().to_dict(), "depth": 2})
    with pytest.raises(InputError, match="found list"):
        Genome.from_dict([])  # type: ignore[arg-type]


def test_another_schema_and_widths_that_are_no_list_are_refused() -> None:
    with pytest.raises(InputError, match="schema 2"):
        Genome.from_dict({**Genome().to_dict(), "schema": 2})
    with pytest.raises(InputError, match="expected a list"):
        Genome.from_dict({**Genome().to_dict(), "widths": 64})
