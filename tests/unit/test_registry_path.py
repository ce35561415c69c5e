"""What may stand before the images' names, and what becomes of it in the file."""

from __future__ import annotations

import pytest
import yaml

from components import STAGES
from images.build import push
from images.engine import Engine
from pipelines.compile import compile_train
from safescale_ammt.config.kubernetes_names import registry_path
from safescale_ammt.errors import ConfigError

PATHS = (
    "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team",
    "10.88.0.1:5000/team",
    "10.88.0.1:5000",
    "127.0.0.1",
    "1",
    "1e5",
    "0x10",
    "12.5",
    "1_000",
    "localhost:5000",
    "registry.example.org/a/b-c/d__e/f.g",
    "on",
    "safescale-ammt",
)
NO_PATHS = (
    *("", "Team", "a b", "team/", "/team", "x\ny", "a//b", "reg..org/x", "reg:/x"),
    *("reg:port/x", "reg/x:1.0", "https://reg/x", "[::1]:5000/x", "::1", "-a", "a-"),
    *("a/b@sha256", "reg:123456/x", "\u0661/x", "a/b\n", "user:word@reg/x"),
)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_stands_before_every_image_as_it_is(path):
    graph, _ = yaml.safe_load_all(compile_train(image_prefix=path))
    images = {
        e["container"]["image"] for e in graph["deploymentSpec"]["executors"].values()
    }
    assert {image.rpartition(":")[0] for image in images} == {
        f"{path}/{stage}" for stage in STAGES
    }


@pytest.mark.parametrize("path", NO_PATHS)
def test_what_no_image_can_be_called_is_refused(path):
    with pytest.raises(ConfigError, match=r"no registry path; give one such as"):
        registry_path(path, "--image-prefix")


def test_a_push_refuses_the_same():
    engine = Engine(("/bin/false",), "docker")
    with pytest.raises(ConfigError, match="PUSH 'Team' is no registry path"):
        push(engine, "train_agents", "Team")
