"""Kubernetes quantities, as people write them."""

from __future__ import annotations

import pytest

from pipelines.quantities import quantity
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
