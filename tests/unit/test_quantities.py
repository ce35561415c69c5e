"""Kubernetes quantities, as people write them."""

from __future__ import annotations

import pytest
from kubernetes.utils.quantity import parse_quantity

from pipelines.quantities import amount, quantity
from safescale_ammt.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("500m", 0.5),
        ("128k", 128e3),
        ("1.5G", 1.5e9),
        ("64Ki", 64 * 1024),
        ("512Mi", 512 * 1024**2),
        ("2Gi", 2 * 1024**3),
        ("1Ti", 1024**4),
    ],
)
def test_a_quantity_is_cpus_or_bytes(text, value):
    assert quantity(text, "memory") == value


@pytest.mark.parametrize("text", ["", "Gi", "2 Gi", "2gi", "2mi", "-1", "0", "1e3"])
def test_what_is_no_quantity_is_one_sentence(text):
    with pytest.raises(ConfigError, match=r"train_memory is '.*', no quantity"):
        quantity(text, "train_memory")


@pytest.mark.parametrize(
    "text", ["0", "-1", "1e3", "2E3", "1E", "100n", "7u", "3.", "500m", "2Gi", "1Ei"]
)
def test_an_amount_is_what_kubernetes_makes_of_it(text):
    if text not in {"1e3", "2E3"}:  # its own client reads no exponents here
        assert amount(text) == parse_quantity(text)
    assert amount("1e3") == amount("1k") == 1000
    assert amount("2E3") == 2000


@pytest.mark.parametrize("text", ["", "Gi", "2 Gi", "2gi", "1e", "1e3k", "--1"])
def test_what_kubernetes_never_writes_is_no_amount(text):
    with pytest.raises(ConfigError, match="no quantity"):
        amount(text)
