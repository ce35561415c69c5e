"""A user's package is found, packed and pinned by its text alone."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_world import NET, package

from pipelines.kubeflow.preparation import KubeflowRequest, prepare
from pipelines.own_code import with_code
from pipelines.workload import Workload
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError, InputError, IntegrityError
from safescale_ammt.files.canonical import canonical_json, digest_json
from safescale_ammt.files.code_package import (
    MOST_BYTES,
    CodePackage,
    Entry,
    find_package,
)


def test_a_package_is_its_code_and_the_text_that_it_names(tmp_path: Path) -> None:
    name, bare = package(tmp_path)
    home = tmp_path / name
    (home / "deep").mkdir()
    (home / "deep" / "more.py").write_text("x = 1\r\n", newline="")
    (home / "levels.json").write_text("[1]")
    (home / "notes.md").write_text("not carried")
    for hidden in ("__pycache__", ".git"):
        (home / hidden).mkdir()
        (home / hidden / "old.py").write_text("y = 2")
    found = CodePackage.read(tmp_path, name, ["*.json"])
    assert set(found.files) == {
        *bare.files,
        f"{name}/deep/more.py",
        f"{name}/levels.json",
    }
    again = CodePackage.unpack(found.pack(), found.digest)
    assert again == found
    again.write(tmp_path / "there")
    assert CodePackage.read(tmp_path / "there", name, ["*.json"]) == found
    assert found.digest != bare.digest == digest_json(dict(bare.files))


def test_a_module_alone_is_a_package_too(tmp_path: Path) -> None:
    (tmp_path / "one_file.py").write_text(NET)
    assert find_package("one_file", [tmp_path]) == tmp_path
    assert set(CodePackage.read(tmp_path, "one_file").files) == {"one_file.py"}
    (tmp_path / "one_file").mkdir()  # of data, say
    assert set(CodePackage.read(tmp_path, "one_file").files) == {"one_file.py"}
    with pytest.raises(ConfigError, match="one module; make it a package"):
        CodePackage.read(tmp_path, "one_file", ["*.json"])


@pytest.mark.parametrize("pattern", ["*.csv", "../secret.txt", "/etc/passwd", ""])
def test_files_that_are_not_there_or_outside_are_refused(
    tmp_path: Path, pattern: str
) -> None:
    name, _ = package(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(ConfigError, match=r"model_files names"):
        CodePackage.read(tmp_path, name, [pattern])


def test_a_link_out_of_the_package_is_not_followed(tmp_path: Path) -> None:
    name, bare = package(tmp_path)
    (tmp_path / "secret.py").write_text("secret")
    (tmp_path / name / "link.py").symlink_to(tmp_path / "secret.py")
    assert CodePackage.read(tmp_path, name) == bare
    (tmp_path / name / "link.json").symlink_to(tmp_path / "secret.py")
    with pytest.raises(ConfigError, match=r"expected files below"):
        CodePackage.read(tmp_path, name, ["*.json"])


def test_what_is_no_small_text_is_refused(tmp_path: Path) -> None:
    name, _ = package(tmp_path)
    (tmp_path / name / "bytes.py").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        CodePackage.read(tmp_path, name)
    (tmp_path / name / "bytes.py").write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(InputError, match="bytes"):
        CodePackage.read(tmp_path, name)


@pytest.mark.parametrize("how", ["other", "cut", "no base64", "a bomb", "leads out"])
def test_another_code_than_the_digest_s_is_refused(tmp_path: Path, how: str) -> None:
    _, code = package(tmp_path)
    digest, packed = code.digest, code.pack()
    if how == "other":
        packed = CodePackage({"a.py": "x"}).pack()
    elif how == "cut":
        packed = packed[: len(packed) // 2 // 4 * 4]
    elif how == "no base64":
        packed = "§"
    elif how == "a bomb":
        bomb = zlib.compress(b'{"a":"' + b" " * (8 * MOST_BYTES) + b'"}')
        packed = base64.b64encode(bomb).decode()
    else:
        files = {"../a.py": "x"}
        packed = base64.b64encode(zlib.compress(canonical_json(files))).decode()
        digest = digest_json(files)
    with pytest.raises(IntegrityError, match="is not the code of digest sha256:"):
        CodePackage.unpack(packed, digest)


@pytest.mark.parametrize("module", ["json", "email.message", "nowhere.net"])
def test_a_package_that_is_not_there_or_python_s_is_refused(
    tmp_path: Path, module: str
) -> None:
    with pytest.raises(ConfigError, match=r"training\.model names"):
        find_package(module, [tmp_path])


@pytest.mark.parametrize("name", ["net", "net:", "a.b:c.d", "a-b:c", "a b:c", ":build"])
def test_what_names_no_function_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"package\.module:function"):
        Entry.parse(name)
    with pytest.raises(ConfigError, match=r"package\.module:function"):
        TrainingConfig(model=name)


# --- the section ---


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "a.b:c", "learner": "trees"}, r"training\.learner is 'trees'"),
        ({"model_encoding": "ple"}, r"nothing where training\.model"),
        ({"model_digest": "sha256:" + "0" * 64}, r"nothing where training\.model"),
        ({"model_files": ["*.json"]}, r"nothing where training\.model"),
        ({"model": "a.b:c", "model_digest": "sha256:1"}, r"training\.model_digest"),
        (
            {
                "model": "a.b:c",
                "execution": "auto",
                "backend": "torchrun",
                "processes": 2,
            },
            r"training\.execution is 'auto', expected loop",
        ),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrainingConfig.from_params(changes)


def test_the_digest_of_a_section_is_of_the_code_and_not_of_how_it_travels() -> None:
    assert TrainingConfig(model="").digest == TrainingConfig().digest
    one = TrainingConfig(model="a.b:c", model_digest="sha256:" + "1" * 64)
    two = TrainingConfig(model="a.b:c", model_digest="sha256:" + "2" * 64)
    carried = TrainingConfig.from_params({**one.to_params(), "model_package": "text"})
    assert len({TrainingConfig().digest, one.digest, two.digest}) == 3
    assert carried.digest == one.digest


# --- the command line ---


def workload(folder: Path, **training: Any) -> Path:
    text: dict[str, Any] = {
        "schema": 1,
        "constitution": {"schema": 1, "principles": []},
        "data": {"source": "s3://bucket/people.csv", "label": "y"},
        "training": training,
    }
    useful = {"metric": "accuracy", "op": ">=", "threshold": 0.6}
    text["constitution"]["principles"] = [{"id": "useful", "constraint": useful}]
    text["data"] |= {"splits": {"train": 0.5, "validation": 0.1, "constraint": 0.1}}
    text["data"]["splits"] |= {"monitor": 0.1, "select": 0.1, "sealed": 0.1}
    text["data"]["source_digest"] = "sha256:" + "0" * 64
    (folder / "own.yaml").write_text(yaml.safe_dump(text))
    return folder / "own.yaml"


def test_the_code_beside_the_workload_is_carried_to_the_stages(tmp_path: Path) -> None:
    name, code = package(tmp_path)
    path = workload(tmp_path, model=f"{name}.net:build")
    found = with_code(Workload.load(path), tmp_path).training
    assert found.model_digest == code.digest
    assert CodePackage.unpack(found.model_package, code.digest) == code
    spec = prepare(KubeflowRequest(path))
    sent = spec.parameters["training"]
    assert sent["model_digest"] == code.digest
    # What the cluster gets is what its stages read.
    assert TrainingConfig.from_params(json.loads(json.dumps(sent))) == found


def test_code_on_python_s_path_is_found_after_the_workload_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, code = package(tmp_path / "elsewhere")
    path = workload(tmp_path, model=f"{name}.net:build")
    with pytest.raises(ConfigError, match="put its package beside the workload file"):
        with_code(Workload.load(path), tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    found = with_code(Workload.load(path), tmp_path).training
    assert found.model_digest == code.digest


def test_a_digest_that_is_given_says_that_the_image_has_the_code(
    tmp_path: Path,
) -> None:
    digest = "sha256:" + "1" * 64
    path = workload(tmp_path, model="anywhere.net:build", model_digest=digest)
    found = with_code(Workload.load(path), tmp_path).training
    assert (found.model_digest, found.model_package) == (digest, "")


def test_a_package_too_large_to_be_carried_names_its_digest(tmp_path: Path) -> None:
    noise = "".join(digest_json(i) for i in range(2000))
    name, code = package(tmp_path, more=f"NOISE = '{noise}'")
    path = workload(tmp_path, model=f"{name}.net:build")
    with pytest.raises(ConfigError, match=f"model_digest: {code.digest}"):
        with_code(Workload.load(path), tmp_path)


def test_without_a_model_nothing_is_looked_for(tmp_path: Path) -> None:
    found = Workload.load(workload(tmp_path))
    assert with_code(found, tmp_path) is found
