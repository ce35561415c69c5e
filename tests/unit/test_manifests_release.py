"""From the lock of images to what a cluster that follows git is given."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess

import pytest
import yaml
from policy import complaints, names, references, security
from policy.breaking import broken
from policy.objects import MANIFESTS, ROOT, build, copy_manifests, shipped
from policy.schemas import custom_complaint

from components import STAGES
from pipelines.cli import run_command
from pipelines.compile import compile_promote, compile_train
from pipelines.image_lock import Lock
from pipelines.kubeflow.manifests import (
    TRAIN_IMAGE,
    Release,
    kubernetes_objects,
    write_objects,
)
from safescale_ammt import __version__
from safescale_ammt.errors import ConfigError

PREFIX = "registry.example.org/team"


def a_lock(folder):
    """Writes a lock as `make images PUSH=...` does; each stage has its own digest."""
    images = {
        stage: {
            "reference": f"safescale-ammt/{stage}:{__version__}",
            "id": "",
            "digest": "sha256:" + str(number) * 64,
            "size": 1,
            "user": "10001:0",
        }
        for number, stage in enumerate(STAGES, 1)
    }
    path = folder / "lock.json"
    path.write_text(
        json.dumps(
            {"schema": 1, "version": __version__, "commit": "", "images": images}
        )
    )
    return path


@pytest.fixture(scope="module")
def compiled():
    return compile_train()


@pytest.fixture(scope="module")
def pinned(tmp_path_factory):
    lock = Lock.load(a_lock(tmp_path_factory.mktemp("lock")))
    return compile_train(image_prefix=PREFIX, images=lock)


@pytest.fixture(scope="module")
def released(pinned, tmp_path_factory):
    """The gitops overlay, generated and built, with filled-in secrets."""
    copied = copy_manifests(tmp_path_factory.mktemp("release"))
    generated = copied / "overlays" / "gitops" / "generated"
    write_objects(kubernetes_objects(pinned, Release()), generated)
    return build(copied / "overlays" / "gitops")


def filled_secrets():
    """The templates with every placeholder replaced."""
    objects = json.loads(json.dumps(shipped()["secrets"]))
    for secret in objects:
        for key, value in secret["data"].items():
            text = base64.b64decode(value).decode().replace(security.PLACEHOLDER, "x")
            secret["data"][key] = base64.b64encode(text.encode()).decode()
    return objects


def test_a_release_keeps_every_rule_and_the_stricter_ones(released):
    rules = (*names.RULES, *references.RULES, *security.RELEASE)
    assert complaints(rules, [*released, *filled_secrets()]) == []
    assert complaints(security.RULES, released) == []


def test_a_release_may_hold_the_promote_pipeline_too(pinned, tmp_path):
    copied = copy_manifests(tmp_path)
    overlay = copied / "overlays" / "gitops"
    promote = compile_promote(image_prefix=PREFIX, images=Lock.load(a_lock(tmp_path)))
    for text, place in ((pinned, "generated"), (promote, "generated/promote")):
        write_objects(kubernetes_objects(text, Release()), overlay / place)
    file = overlay / "kustomization.yaml"
    listed = yaml.safe_load(file.read_text())
    listed["components"].append("generated/promote")
    file.write_text(yaml.safe_dump(listed))
    built = build(overlay)
    rules = (*names.RULES, *references.RULES, *security.RELEASE)
    assert complaints(rules, [*built, *filled_secrets()]) == []
    found = [o["metadata"]["name"] for o in built if o["kind"] == "Pipeline"]
    assert sorted(found) == ["safescale-promote", "safescale-train"]
    images = dict(references.all_images(built))
    assert images["TrainingRuntime/safescale-torch"].startswith(
        f"{PREFIX}/train_agents@sha256:"
    )


def test_a_release_names_its_registry_to_the_guards(released):
    (space,) = [o for o in released if o["kind"] == "Namespace"]
    assert space["metadata"]["name"] == "safescale"
    assert space["metadata"]["annotations"] == {TRAIN_IMAGE: f"{PREFIX}/train_agents"}
    images = dict(references.all_images(released))
    image = images["TrainingRuntime/safescale-torch"]
    assert image.startswith(f"{PREFIX}/train_agents@sha256:")


def test_what_is_generated_fits_kfps_model(released):
    kinds = {"Pipeline", "PipelineVersion"}
    generated = [o for o in released if o["kind"] in kinds]
    assert {o["kind"] for o in generated} == kinds
    assert [s for o in generated if (s := custom_complaint(o))] == []


def test_the_runtime_runs_the_very_image_that_the_pipeline_trains_in(released):
    images = dict(references.all_images(released))
    number = STAGES.index("train_agents") + 1
    wanted = f"{PREFIX}/train_agents@sha256:{str(number) * 64}"
    assert images["TrainingRuntime/safescale-torch"] == wanted


def version_of(objects):
    """Returns the kind/name of the PipelineVersion."""
    (found,) = [
        o["metadata"]["name"] for o in objects if o["kind"] == "PipelineVersion"
    ]
    return f"PipelineVersion/{found}"


def test_a_version_of_no_pipeline_is_caught(released):
    changed = broken(released, (version_of(released), ("spec", "pipelineName"), "x"))
    rules = [references.references_resolve]
    assert complaints(rules, [*changed, *filled_secrets()])


@pytest.mark.parametrize("field", ["version", "pipelineSpecs"])
def test_a_version_with_an_unknown_field_is_caught(released, field):
    changed = broken(released, (version_of(released), ("spec", field), "x"))
    (version,) = [o for o in changed if o["kind"] == "PipelineVersion"]
    assert custom_complaint(version)


def test_an_image_by_tag_is_no_release(compiled):
    assert complaints([security.images_are_pinned], shipped()["base"])
    objects = kubernetes_objects(compiled, Release())
    assert len(complaints([security.images_are_pinned], objects)) >= len(STAGES)


def test_a_placeholder_is_no_release():
    rules = [security.nothing_is_left_to_replace]
    assert complaints(rules, filled_secrets()) == []
    assert len(complaints(rules, shipped()["secrets"])) == len(security.SECRETS)
    assert complaints(rules, shipped()["components/irsa"])


def test_the_objects_hold_exactly_what_was_compiled(pinned):
    pipeline, version = kubernetes_objects(pinned, Release())
    graph, platform = yaml.safe_load_all(pinned)
    assert version["spec"]["pipelineSpec"] == graph
    assert version["spec"]["platformSpec"] == platform
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"]
    assert version["apiVersion"] == "pipelines.kubeflow.org/v2beta1"


def test_another_content_is_another_version_and_the_same_is_the_same(
    compiled, pinned, released
):
    def name(text):
        return kubernetes_objects(text, Release())[1]["metadata"]["name"]

    assert version_of(released) == f"PipelineVersion/{name(pinned)}"
    assert name(pinned) != name(compiled)
    assert name(pinned).startswith(f"safescale-train-{__version__}-")


def test_a_version_and_a_namespace_can_be_given(compiled):
    release = Release("1.4.0-3f2a9c1", "team")
    pipeline, version = kubernetes_objects(compiled, release)
    assert version["metadata"] == {
        "name": "safescale-train-1.4.0-3f2a9c1",
        "namespace": "team",
    }
    assert version["spec"]["displayName"] == "1.4.0-3f2a9c1"
    assert pipeline["metadata"]["namespace"] == "team"


@pytest.mark.parametrize(
    "version", ["1.4.0+sha", "V1", "a/b", "-1", "1..2", "1.-2", "x" * 250]
)
def test_a_version_that_is_no_name_is_refused(compiled, version):
    with pytest.raises(ConfigError, match="no version that Kubernetes takes"):
        kubernetes_objects(compiled, Release(version))


@pytest.mark.parametrize("namespace", ["Team", "a.b", "", "x" * 64])
def test_a_namespace_that_is_no_name_is_refused(compiled, namespace):
    with pytest.raises(ConfigError, match="no namespace"):
        kubernetes_objects(compiled, Release(namespace=namespace))


@pytest.mark.parametrize("more", [[], ["--kubernetes-manifests"]])
def test_a_place_that_takes_no_file_is_one_sentence(tmp_path, capsys, more):
    (tmp_path / "plain").write_text("")
    output = tmp_path / "plain" / "below" / "x.yaml"
    assert run_command(["compile", "-o", str(output), *more]) == 2
    assert f"{output} cannot be written" in capsys.readouterr().err


def test_the_command_writes_a_file_or_a_component(tmp_path):
    file, folder = tmp_path / "objects.yaml", tmp_path / "generated"
    for output in (file, folder):
        command = ["compile", "--kubernetes-manifests", "-o", str(output)]
        assert run_command(command) == 0
    kinds = [o["kind"] for o in yaml.safe_load_all(file.read_text())]
    assert kinds == ["Pipeline", "PipelineVersion"]
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert component["kind"] == "Component"
    assert component["resources"] == ["pipeline.yaml", "pipelineversion.yaml"]
    assert "images" not in component, "nothing is pinned yet"


def test_the_command_pins_the_component_by_the_lock(tmp_path):
    output = tmp_path / "generated"
    command = ["compile", "--kubernetes-manifests", "-o", str(output)]
    lock = ["--images", str(a_lock(tmp_path)), "--image-prefix", PREFIX]
    assert run_command([*command, *lock, "--namespace", "team"]) == 0
    component = yaml.safe_load((output / "kustomization.yaml").read_text())
    assert {i["newName"] for i in component["images"]} == {
        f"{PREFIX}/{stage}" for stage in STAGES
    }
    pipeline = yaml.safe_load((output / "pipeline.yaml").read_text())
    assert pipeline["metadata"]["namespace"] == "team"


def test_what_is_generated_is_not_in_git(tmp_path):
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "manifests/overlays/gitops/generated/x.yaml"],
        cwd=ROOT,
        check=False,
    )
    assert ignored.returncode == 0
    for name in ("store.env", "registry.env", "pull.json"):
        path = f"manifests/secrets/{name}"
        done = subprocess.run(
            ["git", "check-ignore", "-q", path], cwd=ROOT, check=False
        )
        assert done.returncode == 0, path


def test_where_there_is_no_kustomize_the_script_says_so(tmp_path):
    """With an empty PATH but for a shell, and no network."""
    for name in ("bash", "dirname", "basename", "mktemp", "mkdir", "cat", "rm", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [str(MANIFESTS / "kustomize.sh"), "which"],
        env={
            "PATH": str(tmp_path),
            "SAFESCALE_OFFLINE": "1",
            "SAFESCALE_TOOLS": str(tmp_path / "tools"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "install kustomize" in done.stderr


def test_a_kustomize_that_is_too_old_is_not_used(tmp_path):
    old = tmp_path / "kustomize"
    old.write_text("#!/bin/sh\necho 'unknown field components' >&2\nexit 1\n")
    old.chmod(0o755)
    script = str(MANIFESTS / "kustomize.sh")
    environ = {**os.environ, "KUSTOMIZE": str(old), "SAFESCALE_OFFLINE": "1"}
    done = subprocess.run(
        [script, "which"], env=environ, capture_output=True, text=True, check=False
    )
    assert str(old) not in done.stdout
