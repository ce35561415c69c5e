"""The benchmark of attacks: its goals, its networks, and what it refuses."""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import fashion_mnist
from benchmarks.attack_networks import MASKED, NETWORKS, network
from benchmarks.attacks import LEFT, MORE, THREAT, alone, figures, measured_or_kept
from benchmarks.peers.attack_peers import held_against
from safescale_ammt.attacks.tiers import WHITE
from safescale_ammt.binomial.paired import gain_bounds
from safescale_ammt.errors import DataError

ROW: dict[str, Any] = {
    "network": "quantised",
    "images": 10,
    "ours": "1" + "0" * 9,
    "ours_cpu_s": 2.0,
    "alone": {"fgsm": 0.5},
    "peers": {
        "strong": {"survived": "01" + "0" * 8},
        "weak": {"survived": "1" * 10},
        "absent": {"reason": "asks for git, which is not here"},
    },
}


def test_ours_is_held_against_the_peer_that_leaves_the_fewest() -> None:
    found = {row["what"]: row for row in figures([ROW])}
    more = found["quantised: more, against strong"]
    assert more["value"] == gain_bounds(1, 1, 10, 0.05)[1]
    assert (more["op"], more["goal"]) == ("<=", MORE)
    left = found["quantised: survive the battery"]
    assert (left["value"], left["goal"]) == (0.1, LEFT)
    assert found["quantised: CPU seconds of 1,000 images"]["value"] == 200
    assert not any("absent" in what for what in found)
    plain = {**ROW, "network": "undefended", "peers": {}}
    assert [row["goal"] for row in figures([plain])] == [None] * 3


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_trained_and_planted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, loss, middle, _ = NETWORKS[name]
    monkeypatch.setitem(NETWORKS, name, (mask, loss, middle, 3))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((40, 1, 28, 28), generator=generator)
    y = torch.arange(40) % 10
    once, again = (network(name, x, y, THREAT, 0) for _ in range(2))
    with torch.no_grad():
        out = once(x)
        assert torch.equal(out, again(x))
    assert out.shape == (40, 10)
    assert (name in MASKED) == (name not in ("undefended", "adversarial", "bounded"))


def test_each_attack_is_also_run_by_itself() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    x = torch.rand((6, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    y = module(x).argmax(1)
    left = dict(alone(module, x, y, torch.rand_like(x)))
    assert [*left] == [*WHITE, "square"]
    assert all(0 <= share <= 1 for share in left.values())


def test_a_row_that_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    kept = tmp_path / "rows.jsonl"
    kept.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    # There are no data: measuring would fail.
    options = argparse.Namespace(kept=kept, networks=["quantised"], data=tmp_path)
    assert measured_or_kept(options) == [ROW]


def test_a_package_that_is_not_there_is_said() -> None:
    module, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 10)), torch.rand(2, 1, 2, 2)
    found = held_against("pyautoattack", module, x, torch.zeros(2).long(), THREAT)
    assert found == {"reason": "asks for pyautoattack, which is not here"}


def test_other_files_than_fashion_mnist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        fashion_mnist.images(tmp_path, "t10k")
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(b"\0" * 800))
    with pytest.raises(DataError, match="expected 5b4141f0afbad91e"):
        fashion_mnist.images(tmp_path, "t10k")
