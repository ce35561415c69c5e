"""The CI recipe: pinned, without rights to spare, and made of commands that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipelines.cli import cli

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
RIGHTS = {"images": {"packages": "write"}, "upload": {"id-token": "write"}}
"""What a job may do beside reading the repository."""
ELSEWHERE = {"docker", "git", "curl", "jq", "umask", "echo"}
"""Programs of the machine that runs the workflow."""


def loaded(file: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in FILES:
        for name, job in loaded(file)["jobs"].items():
            for step in job.get("steps", []):
                yield f"{file.name}: {name}", step


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yields every simple command of every step, as words."""
    for where, step in steps():
        text = step.get("run", "").replace("\\\n", " ")
        text = re.sub(r"env( \w+=\S+)* \$\((.+?)\)", r"\2\n", text)
        text = re.sub(r"\w+=\$\((.+?)\)", r"\1", text)
        for line in re.split(r"[\n|]", text):
            words = shlex.split(line.split("<<<")[0])
            if words:
                yield where, words


def test_there_is_a_recipe():
    names = ["check.yaml", "cluster.yaml", "release.yaml"]
    assert [file.name for file in FILES] == names


def test_every_action_is_pinned_by_commit_and_says_which_release_that_is():
    for file in FILES:
        for line in file.read_text(encoding="utf-8").splitlines():
            used = re.search(r"uses: (\S+)(.*)", line)
            if used and used[1].startswith("./"):
                assert (ROOT / used[1]).is_file()
            elif used:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used[1]), line
                assert re.fullmatch(r" # v\d+\.\d+\.\d+", used[2]), line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_job_has_a_right_that_it_does_not_need(file):
    workflow = loaded(file)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        needed = {"contents": "read", **RIGHTS.get(name, {})}
        assert job["permissions"] == needed, name
        # Acceptance is up to 14 runs of some minutes, one after the other.
        longest = 180 if file.name == "cluster.yaml" else 90
        assert "uses" in job or job["timeout-minutes"] <= longest, name


def test_no_key_is_kept_and_no_checkout_leaves_one():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"secrets\.(\w+)", text)) <= {"GITHUB_TOKEN"}
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, where


def test_nothing_from_outside_is_pasted_into_a_shell():
    for where, step in steps():
        assert "${{" not in step.get("run", ""), where


def test_every_make_target_exists():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    used = {word for _, words in commands() if words[0] == "make" for word in words[1:]}
    used = {word for word in used if "=" not in word}
    assert used
    assert used <= set(targets)


def test_every_change_is_tested_whole_on_each_python_that_is_promised():
    job = loaded(ROOT / ".github" / "workflows" / "check.yaml")["jobs"]["test"]
    pythons = job["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == f">={pythons[0]}"
    promised = [
        line.rpartition(" ")[2]
        for line in project["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    ]
    assert pythons == promised
    (step,) = [step for step in job["steps"] if "run" in step]
    assert step["run"] == 'make test PYTHON="python$PYTHON_VERSION"'
    assert step["env"] == {"PYTHON_VERSION": "${{ matrix.python }}"}


def test_coverage_has_a_floor_and_measures_all_that_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = project["tool"]
    found = tools["setuptools"]["packages"]["find"]["include"]
    installed = [pattern.removesuffix("*") for pattern in found]
    assert tools["coverage"]["run"]["source"] == installed
    assert tools["coverage"]["report"]["fail_under"] >= 90
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^\t\$\(BIN\)/pytest .*--cov ", makefile, re.MULTILINE)


def test_what_is_installed_says_that_it_has_types():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for package in project["tool"]["coverage"]["run"]["source"]:
        assert (ROOT / package / "py.typed").is_file()
        shipped = project["tool"]["setuptools"]["package-data"][package]
        assert "py.typed" in shipped


def test_updates_are_looked_for_wherever_something_is_pinned():
    file = ROOT / ".github" / "dependabot.yml"
    updates = loaded(file)["updates"]
    assert {(u["package-ecosystem"], u["directory"]) for u in updates} == {
        ("pip", "/"),
        ("github-actions", "/"),
        ("docker", "/images"),
    }


def test_every_safescale_command_and_option_exists():
    seen = set()
    for where, words in commands():
        if words[0] != ".venv/bin/safescale":
            continue
        command = cli.get_command(click.Context(cli), words[1])
        assert command is not None, (where, words[1])
        known = {name for option in command.params for name in option.opts}
        used = {word for word in words[2:] if re.match(r"--?[a-z]", word)}
        assert used <= known, (where, words[1], used - known)
        seen.add(words[1])
    assert seen == {"compile", "submit"}


def test_every_module_that_is_run_exists():
    seen = set()
    for where, words in commands():
        if words[:2] == [".venv/bin/python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, where
            seen.add(words[2])
    assert seen == {"images.labels", "images.lock"}


def test_every_file_of_the_repository_that_is_named_exists():
    for where, words in commands():
        for word in words:
            if re.match(r"(tests|pipelines|images)/", word) and ".json" not in word:
                assert (ROOT / word).exists(), (where, word)


def test_everything_that_the_build_is_told_it_knows():
    bake = (ROOT / "images" / "docker-bake.hcl").read_text(encoding="utf-8")
    known = set(re.findall(r'^variable "(\w+)"', bake, re.MULTILINE))
    told = set()
    for _, step in steps():
        told |= set(re.findall(r"env (\w+)=", step.get("run", "")))
        told |= set(re.findall(r'echo "(\w+)=', step.get("run", "")))
    assert told == {"PREFIX", "BASE_IMAGE"}
    assert told <= known
    base = re.search(r'variable "BASE_IMAGE" {\s+default = "(.+)"', bake)
    assert base is not None
    release = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    assert f"BASE: {base[1]}" in release


def test_every_other_program_comes_with_the_machine():
    ours = {"make", ".venv/bin/safescale", ".venv/bin/python", ".venv/bin/pytest"}
    for where, words in commands():
        assert words[0] in ELSEWHERE | ours, where


def test_what_is_uploaded_is_pinned_to_what_was_pushed():
    workflow = loaded(ROOT / ".github" / "workflows" / "release.yaml")
    text = str(workflow["jobs"]["images"])
    order = ["buildx bake", "images.lock", "safescale compile", "upload-artifact"]
    assert [text.index(word) for word in order] == sorted(map(text.index, order))
    for words in (w for _, w in commands() if w[0].endswith("safescale")):
        pinned = "--images" in words
        assert pinned or "dist/safescale-train.yaml" in words
    submit = next(w for _, w in commands() if w[1:2] == ["submit"])
    assert {"--upload-only", "--images", "--image-prefix"} <= set(submit)
    assert workflow["jobs"]["upload"]["needs"] == "images"
    assert workflow["jobs"]["images"]["needs"] == "check"


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_have_what_the_host_asks_of_a_form(name):
    form = loaded(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yaml")
    assert form.keys() == {"name", "description", "labels", "body"}
    questions = [item for item in form["body"] if item["type"] != "markdown"]
    ids = [item["id"] for item in questions]
    assert len(ids) == len(set(ids))
    for item in questions:
        assert item["type"] in {"textarea", "checkboxes"}
        assert item["attributes"]["label"]


def test_a_bug_report_warns_of_rows_about_people():
    form = loaded(ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yaml")
    assert "no rows about people" in form["body"][0]["attributes"]["value"]
    (promise,) = form["body"][-1]["attributes"]["options"]
    assert promise["required"] is True


def test_links_between_the_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    assert len(documents) > 5
    for file in documents:
        text = file.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (file.parent / target).exists(), (file.name, target)
