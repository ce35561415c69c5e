"""The image of a step: by digest where a registry knows that digest."""

from __future__ import annotations

import pytest

from safescale_ammt.cluster.owner import Owner

DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "pulled", "chosen"),
    [
        (f"host/train_agents{DIGEST}", "", f"host/train_agents{DIGEST}"),
        ("host:5/t/train:1", f"host:5/t/train{DIGEST}", f"host:5/t/train{DIGEST}"),
        ("t/train:1", f"docker.io/t/train{DIGEST}", f"docker.io/t/train{DIGEST}"),
        ("train:1", f"docker.io/library/train{DIGEST}", None),
        ("train", f"docker-pullable://train{DIGEST}", f"train{DIGEST}"),
        # Loaded into the node: a name that containerd made up, or an id alone.
        ("t/train:1", f"docker.io/library/import-2026-11-29{DIGEST}", "t/train:1"),
        ("t/train:1", "sha256:" + "a" * 64, "t/train:1"),
        ("t/train:1", f"other/train{DIGEST}", "t/train:1"),
    ],
)
def test_a_tag_becomes_the_digest_of_its_own_repository(image, pulled, chosen):
    pod = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "wait"}, {"name": "main", "image": image}]},
        "status": {"containerStatuses": [{"name": "main", "imageID": pulled}]},
    }
    assert Owner.of(pod).image == (chosen or pulled)
