"""The images, asked from inside and from outside: what they hold and what they lack."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from children import Child
from patience import PATIENCE, eventually

from components import STAGES, image
from images import build
from images.engine import find_engine
from images.labels import labels
from images.lock import TORCH_FREE, from_engine, pushed_digest
from safescale_ammt import __version__
from safescale_ammt.files.library import library_digest

PROBE = Path(__file__).with_name("image_probe.py")
RUNS = {"register_model": ("register_model", "notify", "promote")}
"""Stages by image, where it is not the one of the same name alone."""
MB = 1_000_000
FIND_SETTINGS = (
    "find / -xdev ( -name pip.conf -o -name .netrc -o -name .docker -o -name *.whl "
    "-o -name *.key -o -name id_rsa -o -name id_ed25519 )"
)


def ask(client, stage):
    """Runs the probe in a stage's image, as hardened as a run does."""
    container = client.containers.create(
        image(stage),
        ["python3", "-c", PROBE.read_text(), *RUNS.get(stage, (stage,))],
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": "rw,size=64m,mode=1777"},
        network_mode="none",
        mem_limit="2g",
        pids_limit=256,
    )
    try:
        container.start()
        code = container.wait()["StatusCode"]
        assert code == 0, container.logs(stdout=False).decode()[-2000:]
        return json.loads(container.logs(stderr=False))
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module", params=STAGES)
def asked(request, engine):
    """A stage, what its image says of itself, and what the engine says of it."""
    found = engine.images.get(image(request.param)).attrs
    answers = ask(engine, request.param)
    return SimpleNamespace(stage=request.param, image=found, **answers)


@pytest.fixture(scope="module")
def sizes(engine):
    return from_engine(find_engine())


def test_an_image_runs_as_an_unprivileged_user_without_being_told(asked):
    assert (asked.uid, asked.gid) == (10001, 0)
    assert asked.image["Config"]["User"] == "10001:0"


def test_nothing_but_the_scratch_folder_can_be_written(asked):
    assert asked.writable == ["/tmp"]


def test_a_container_holds_no_capability_and_can_gain_none(asked):
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(asked.status[name], 16) == 0
    assert asked.status["NoNewPrivs"] == "1"


def test_an_image_runs_its_stages_and_has_only_their_packages(asked):
    assert asked.stages_load
    assert asked.packages == {
        "torch": asked.stage not in TORCH_FREE,
        "lightgbm": asked.stage not in TORCH_FREE,
        "matplotlib": False,
        "kubernetes": asked.stage == "train_agents",
    }


def test_where_lightgbm_is_it_boosts(asked):
    assert asked.boosts


def test_an_image_has_no_compiler_and_nothing_that_installs(asked):
    assert asked.tools == []
    assert asked.installers == []


def test_what_slimming_left_still_loads(asked):
    assert asked.broken == []


def test_bytecode_is_there_and_valid_whatever_time_a_file_bears(asked):
    assert asked.stale == []


def test_the_code_in_an_image_is_the_code_of_the_tree(asked):
    assert asked.version == __version__
    assert asked.code == library_digest()


def test_labels_say_what_an_image_is_and_of_which_code(asked):
    found = asked.image["Config"]["Labels"]
    oci = "org.opencontainers.image."
    assert found[f"{oci}title"] == f"safescale-ammt/{asked.stage}"
    assert found[f"{oci}version"] == __version__
    assert found[f"{oci}licenses"] == "Apache-2.0"
    assert found[f"{oci}description"]
    assert found[f"{oci}base.name"]
    assert len(found[f"{oci}revision"].removesuffix("-dirty")) == 40
    assert found[f"{oci}created"] == labels().created
    assert found["safescale-ammt.code"] == asked.code


def test_no_setting_of_the_building_machine_is_left_in_an_image(asked, engine):
    found = engine.containers.run(
        image(asked.stage), FIND_SETTINGS, user="0", remove=True
    )
    assert found == b""
    history = engine.images.get(image(asked.stage)).history()
    steps = " ".join(step["CreatedBy"] for step in history)
    for value in machine_settings():
        assert value not in steps + json.dumps(asked.image) + json.dumps(asked.environ)


def machine_settings():
    """Returns indexes, certificates and folders that pip uses on this machine."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = (line.partition("=")[2].strip("'") for line in done.stdout.splitlines())
    return [word for value in values for word in value.split() if "/" in word]


def test_torch_free_images_stay_under_350_mb(sizes):
    for stage in TORCH_FREE:
        assert sizes["images"][stage]["size"] <= 350 * MB
    assert sizes["together"]["torch_free"] <= 350 * MB


def test_torch_images_stay_under_1300_mb_shared_layers_counted_once(sizes):
    assert sizes["together"]["torch"] <= 1300 * MB
    assert sizes["together"]["all"] <= 1300 * MB


@pytest.fixture
def registry(tmp_path):
    """Debian's registry on loopback; its address."""
    program = shutil.which("docker-registry")
    if not program:
        pytest.skip("No docker-registry here (Debian's package of that name).")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'data'}}}}}\n"
        f"http: {{addr: {address}}}\n"
    )
    with (tmp_path / "registry.log").open("wb") as log:
        server = Child([program, "serve", config], stdout=log, stderr=log)
    try:
        yield waiting_for(address)
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)


def waiting_for(address):
    host, port = address.split(":")

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    eventually(listens)
    return address


@pytest.mark.slow
def test_a_pushed_image_can_be_pulled_by_the_digest_that_the_lock_gets(
    engine, registry, tmp_path
):
    prefix = f"{registry}/team"
    build.push(find_engine(), "prepare_data", prefix)
    digest = pushed_digest(find_engine(), f"{prefix}/prepare_data")
    built = engine.images.get(image("prepare_data"))
    assert digest != built.id
    engine.images.remove(f"{prefix}/prepare_data:{__version__}")
    pulled = engine.images.pull(f"{prefix}/prepare_data@{digest}")
    assert pulled.id == built.id
    engine.images.remove(f"{prefix}/prepare_data@{digest}")
