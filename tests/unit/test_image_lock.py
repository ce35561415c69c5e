"""The lock of images, and the files that they are built from."""

from __future__ import annotations

import ast
import ctypes
import json
import re
import sysconfig
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from components import STAGES, image
from images import fetch, pin, slim
from images.lock import from_metadata
from images.lock import write as write_lock
from pipelines.cli import run_command
from pipelines.compile import compile_train
from pipelines.image_lock import Lock
from safescale_ammt import __version__
from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.files.library import library_digest

IMAGES = Path(__file__).parents[2] / "images"
PREFIX = "registry.example.org/team"


def digest(number):
    return f"sha256:{number:064x}"


def content(**changes):
    entries = {
        stage: {
            "reference": image(stage),
            "id": digest(i),
            "digest": digest(100 + i),
            "size": 1000 + i,
            "user": "10001:0",
        }
        for i, stage in enumerate(STAGES)
    }
    return {"schema": 1, "version": __version__, "images": entries, **changes}


def written(tmp_path, lock):
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(lock))
    return path


def images_of(compiled):
    return re.findall(r"^ +image: (.+)$", compiled, flags=re.MULTILINE)


def test_a_lock_gives_the_engine_an_id_and_kubernetes_a_digest(tmp_path):
    lock = Lock.load(written(tmp_path, content(commit="c0ffee")))
    assert lock.commit == "c0ffee"
    assert lock.reference("train_agents") == digest(2)
    assert lock.pinned("train_agents", PREFIX) == f"{PREFIX}/train_agents@{digest(102)}"


def test_every_executor_is_pinned_the_exit_task_too(tmp_path):
    lock = Lock.load(written(tmp_path, content()))
    compiled = compile_train(image_prefix=PREFIX, images=lock)
    graph = next(iter(yaml.safe_load_all(compiled)))
    executors = graph["deploymentSpec"]["executors"]
    assert len(images_of(compiled)) == len(executors)
    allowed = {lock.pinned(stage, PREFIX) for stage in STAGES}
    assert {e["container"]["image"] for e in executors.values()} == allowed


def test_pinning_changes_images_alone(tmp_path):
    lock = Lock.load(written(tmp_path, content()))
    pinned = compile_train(image_prefix=PREFIX, images=lock)
    for stage in STAGES:
        pinned = pinned.replace(lock.pinned(stage, PREFIX), image(stage))
    assert pinned == compile_train()


def test_the_place_that_images_were_pushed_to_is_the_default_prefix(tmp_path):
    lock = Lock.load(written(tmp_path, content(pushed=PREFIX)))
    assert all(
        name.startswith(f"{PREFIX}/") for name in images_of(compile_train(images=lock))
    )


def without(stage):
    lock = content()
    del lock["images"][stage]
    return lock


def with_entry(**values):
    lock = content()
    lock["images"]["search_architecture"] |= values
    return lock


@pytest.mark.parametrize(
    ("lock", "sentence"),
    [
        (without("train_agents"), "no image for train_agents"),
        (
            with_entry(digest="sha256:12"),
            "digest 'sha256:12' of search_architecture is",
        ),
        (with_entry(id="latest"), "id 'latest' of search_architecture is no sha256"),
        (with_entry(id=7), "id 7 of search_architecture is no sha256"),
        (with_entry(id="", digest=""), "neither id nor digest of search_architecture"),
        (content(version="0.0.9"), f"is of version 0.0.9, this is {__version__}"),
        (with_entry(size="big"), "size 'big' of search_architecture is no number"),
        (content(schema=2), "has schema 2, this version reads schema: 1"),
        (content(images=[]), "no mapping `images`"),
        ([], "must hold a mapping, found list"),
    ],
)
def test_a_bad_lock_is_one_clear_sentence(tmp_path, lock, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as error:
        Lock.load(written(tmp_path, lock))
    assert "\n" not in str(error.value)


def test_images_of_other_code_are_not_pinned(tmp_path):
    same = Lock.load(written(tmp_path, content(code=library_digest())))
    compiled = compile_train(images=same, image_prefix=PREFIX)
    assert f"{PREFIX}/train_agents@" in compiled
    other = Lock.load(written(tmp_path, content(code=digest(9))))
    with pytest.raises(ConfigError, match="other code than this; `make images PUSH="):
        compile_train(images=other, image_prefix=PREFIX)


def test_a_missing_lock_says_what_writes_one(tmp_path):
    with pytest.raises(ConfigError, match="`make images`"):
        Lock.load(tmp_path / "lock.json")


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe"])
def test_a_lock_that_is_no_json_is_refused(tmp_path, data):
    path = tmp_path / "lock.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is no lock of images"):
        Lock.load(path)


def test_images_that_were_never_pushed_cannot_be_pinned(tmp_path, capsys):
    lock = content()
    for entry in lock["images"].values():
        entry["digest"] = ""
    path, output = written(tmp_path, lock), tmp_path / "train.yaml"
    arguments = ["compile", "--images", str(path), "--image-prefix", PREFIX]
    assert run_command([*arguments, "-o", str(output)]) == 2
    assert f"make images PUSH={PREFIX}" in capsys.readouterr().err
    assert not output.exists()


def test_the_command_line_pins(tmp_path):
    path, output = written(tmp_path, content()), tmp_path / "train.yaml"
    arguments = ["compile", "--images", str(path), "--image-prefix", PREFIX]
    assert run_command([*arguments, "-o", str(output)]) == 0
    assert all(f"@{digest(100)[:-3]}" in name for name in images_of(output.read_text()))


def test_images_of_another_machine_have_no_id_here(tmp_path):
    lock = Lock.load(written(tmp_path, with_entry(id="")))
    with pytest.raises(ConfigError, match="built on another machine"):
        lock.reference("search_architecture")


def metadata():
    return {
        stage.replace("_", "-"): {
            "containerimage.config.digest": digest(i),
            "containerimage.digest": digest(100 + i),
        }
        for i, stage in enumerate(STAGES)
    }


def test_the_metadata_of_a_pushing_bake_become_a_lock(tmp_path):
    path = tmp_path / "lock.json"
    write_lock(from_metadata(metadata(), PREFIX), path)
    lock = Lock.load(path)
    assert lock.pushed == PREFIX
    assert lock.pinned("register_model", PREFIX).endswith(digest(104))


def test_a_bake_that_did_not_push_gives_no_lock():
    built = {
        name: {"containerimage.digest": known["containerimage.config.digest"]}
        for name, known in metadata().items()
    }
    with pytest.raises(ConfigError, match="no registry digest of prepare_data"):
        from_metadata(built, PREFIX)


def layers():
    return {
        name: pin.pinned(IMAGES / "requirements" / f"{name}.txt") for name in pin.LAYERS
    }


def test_images_have_the_versions_that_the_tests_run_with():
    files = map(pin.pinned, (IMAGES.parent / name for name in pin.VERSIONS))
    versions = {name: version for file in files for name, version in file.items()}
    for layer, packages in layers().items():
        for name, version in packages.items():
            if name in versions:
                assert version.partition("+")[0] == versions[name], (layer, name)
            else:  # what torch's CUDA build brings along
                assert layer.startswith("torch-cu")
                assert name.startswith(("nvidia-", "cuda-", "triton"))


def test_each_package_of_an_image_is_pinned_by_hash():
    for layer in pin.LAYERS:
        text = (IMAGES / "requirements" / f"{layer}.txt").read_text()
        packages = re.findall(r"^[a-z].*==\S+ \\$", text, flags=re.MULTILINE)
        hashes = re.findall(
            r"^    --hash=sha256:[0-9a-f]{64}$", text, flags=re.MULTILINE
        )
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert len(packages) == len(hashes) == len(lines) / 2


def test_a_layer_repeats_nothing_of_the_layer_below_it():
    found = layers()
    for name, layer in pin.LAYERS.items():
        for below in layer.below:
            assert not found[name].keys() & found[below].keys()


def test_the_roots_of_the_layers_are_what_the_project_asks_for():
    text = (IMAGES.parent / "pyproject.toml").read_text().lower()
    # PySpark says what its client takes, and names it for no extra of ours.
    of_spark = pin.pinned(IMAGES.parent / "requirements-spark.txt")
    for name, layer in pin.LAYERS.items():
        for root in (*layer.roots, *layer.alone):
            known = name == "spark" and root in of_spark
            assert known or f'"{root.lower()}' in text, (name, root)


def instructions():
    """Returns the Dockerfile's instructions, continued lines joined."""
    text = re.sub(
        r"^#.*\n", "", (IMAGES / "Dockerfile").read_text(), flags=re.MULTILINE
    )
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.split(None, 1) for line in joined.splitlines() if line.strip()]


def stages_of_the_dockerfile():
    """Returns stage -> (parent, its instructions)."""
    found, name = {}, ""
    for word, rest in instructions():
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = (parent, [])
        elif name:
            found[name][1].append((word, rest))
    return found


def lineage(name):
    found = stages_of_the_dockerfile()
    while name in found:
        parent, lines = found[name]
        yield from lines
        name = parent


TARGETS = [stage.replace("_", "-") for stage in STAGES]


def test_there_is_one_target_for_each_stage_and_bake_builds_them_all():
    bake = (IMAGES / "docker-bake.hcl").read_text()
    assert set(TARGETS) <= stages_of_the_dockerfile().keys()
    assert set(re.findall(r'^target "(.+)"', bake, re.MULTILINE)) == {*TARGETS, "stage"}
    assert re.findall(r'^    "(.+)",$', bake, re.MULTILINE) == TARGETS
    for stage in STAGES:
        assert f"${{PREFIX}}/{stage}:${{VERSION}}" in bake
    assert f'default = "{__version__}"' in bake


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_sets_its_user_and_needs_no_entry_point(target):
    lines = list(lineage(target))
    assert [rest for word, rest in lines if word == "USER"] == ["10001:0"]
    assert not [word for word, _ in lines if word in {"ENTRYPOINT", "VOLUME", "EXPOSE"}]


def test_a_build_takes_nothing_from_the_network_but_pinned_packages():
    for word, rest in instructions():
        assert word != "ADD"
        assert not re.search(r"curl|wget|git clone|apt-get|https?://", rest)
        assert "pip install" not in rest
    install = (IMAGES / "install.sh").read_text()
    assert install.count("pip install") == 1
    assert "pip install --require-hashes --no-deps" in install


def test_no_image_is_named_latest_and_stages_are_named():
    for name, (parent, _) in stages_of_the_dockerfile().items():
        assert name
        assert parent in {"${BASE_IMAGE}", *stages_of_the_dockerfile()}
    assert "latest" not in (IMAGES / "Dockerfile").read_text()


def test_the_build_context_is_an_allow_list():
    lines = (IMAGES.parent / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {r for r in rules if r.startswith("!")} == {
        "!safescale_ammt",
        "!images/requirements",
        "!images/wheels",
        "!images/install.sh",
        "!images/slim.py",
        "!images/spark_executor.py",
    }


def test_no_line_of_a_stage_imports_what_slimming_takes_out():
    root = IMAGES.parent
    rooms = (root / room for room in ("safescale_ammt", "components"))
    named = {
        name.replace(".", "/")
        for room in rooms
        for file in room.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in imported(node)
    }
    assert "scipy/special" in named
    taken = [n for n in sorted(named) for p in slim.PATHS if fnmatch(n, p)]
    assert not taken


def imported(node):
    """Lists the modules that a statement imports, whole and by their parts."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return []
    parts = [name.split(".") for name in names]
    return [".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)]


def test_a_slimmed_library_is_shorter_and_still_loads(tmp_path):
    packages = Path(sysconfig.get_paths()["purelib"])
    original = next(packages.glob("yaml/_yaml*.so")).read_bytes()
    slimmed = slim.loaded(original)
    assert len(slimmed) < len(original)
    path = tmp_path / "slimmed.so"
    path.write_bytes(slimmed)
    assert ctypes.CDLL(str(path)).PyInit__yaml
    assert slim.loaded(slimmed) == slimmed


def test_slimming_leaves_alone_what_is_no_shared_library():
    for data in (b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(100)):
        assert slim.loaded(data) == data


def test_wheels_that_nothing_asks_for_are_removed_before_a_build(tmp_path):
    (tmp_path / "old-1-py3-none-any.whl").write_bytes(b"old")
    requirements = tmp_path / "some.txt"
    requirements.write_text(f"new==2 --hash={digest(1)}\n")
    assert not fetch.complete(tmp_path, requirements)
    assert not list(tmp_path.glob("*.whl"))


def test_there_are_hashes_for_the_cpu_and_for_nvidia_gpus():
    assert fetch.variants() == ["cpu", "cu130"]


_IGNORED = "ERROR: Ignored the following versions that require a different python: 3.7"
_FULL = "OSError: [Errno 28] No space left on device"
_ABSENT = "ERROR: No matching distribution found for"


@pytest.mark.parametrize(
    ("complaint", "reason", "remedy"),
    [
        (
            [
                _IGNORED,
                (
                    "ERROR: Could not find a version that satisfies the requirement "
                    "torch==2.13.0+cpu (from versions: 2.13.0)"
                ),
                f"{_ABSENT} torch==2.13.0+cpu",
            ],
            "No matching distribution found for torch==2.13.0+cpu",
            (
                "Only PyTorch's own index has that build: let this machine reach "
                "https://download.pytorch.org/whl/cpu, name a mirror of it"
            ),
        ),
        (
            ["WARNING: Retrying after 'ERROR'", f"{_ABSENT} numpy==2.4.0"],
            "No matching distribution found for numpy==2.4.0",
            "Let this machine reach PyPI, or name a mirror",
        ),
        (
            [
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES, have a look.",
                "    six==1 from https://x:",
                "        Expected sha256 aa",
                "             Got        bb",
            ],
            "THESE PACKAGES DO NOT MATCH THE HASHES",
            "The index holds other bytes than images/requirements pins",
        ),
        (
            ["ERROR: Exception:", "Traceback (most recent call last):", _FULL],
            f"Exception: {_FULL}",
            "PIP_FIND_LINKS",
        ),
        ([], "it gives no reason", "PIP_FIND_LINKS"),
        (["pip: killed"], "pip: killed", "PIP_FIND_LINKS"),
    ],
)
def test_the_line_by_which_pip_gave_up_is_quoted_and_what_would_do(
    complaint, reason, remedy
):
    assert fetch.reason("\n".join(complaint)).startswith(reason)
    assert remedy in fetch.remedy("\n".join(complaint), "cpu")


def test_a_build_that_no_index_has_is_named_with_its_index(monkeypatch, tmp_path):
    """Pip itself, against an index that has other versions and nothing else."""
    index = tmp_path / "simple" / "torch"
    index.mkdir(parents=True)
    (index / "index.html").write_text(
        '<a href="torch-1.0-py3-none-any.whl" data-requires-python="&lt;3">old</a>'
        '<a href="torch-1.1-py3-none-any.whl">torch</a>'
    )
    pinned = tmp_path / "torch-cpu.txt"
    pinned.write_text(f"torch==2.13.0+cpu --hash={digest(1)}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(fetch, "TORCH_INDEX", (tmp_path / "none").as_uri() + "/")
    with pytest.raises(InputError) as caught:
        fetch.download(pinned, tmp_path / "wheels", "cpu")
    said = str(caught.value)
    assert "No matching distribution found for torch==2.13.0+cpu. Only" in said
    assert "different python" not in said
