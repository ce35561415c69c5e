"""Which container engine builds the images; commands on the PATH stand for engines."""

from __future__ import annotations

import pytest

from images import build
from images.engine import find_engine
from safescale_ammt.errors import ConfigError, InputError

ANSWERS = 'case "$1" in info|version) echo "Docker Engine";; '
BUILDS = ANSWERS + "build) echo usage;; *) exit 1;; esac"
BUILDS_NOT = ANSWERS + "*) echo no buildx >&2; exit 1;; esac"
PODMAN_IN_DISGUISE = 'case "$1" in version) echo "Podman Engine";; *) echo x;; esac'
SILENT = "exit 1"


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Puts commands, name to shell script, into folders that become the PATH."""

    def place(*folders):
        for number, commands in enumerate(folders):
            folder = tmp_path / str(number)
            folder.mkdir()
            for name, script in commands.items():
                command = folder / name
                command.write_text(f"#!/bin/sh\n{script}\n")
                command.chmod(0o755)
        numbers = range(len(folders))
        monkeypatch.setenv("PATH", ":".join(str(tmp_path / str(n)) for n in numbers))

    return place


def test_docker_is_preferred_because_the_stages_run_in_it(on_path):
    on_path({"docker": BUILDS, "podman": BUILDS})
    assert find_engine().kind == "docker"


def test_a_second_docker_command_builds_where_the_first_lacks_buildx(on_path, tmp_path):
    on_path({"docker": BUILDS_NOT}, {"docker": BUILDS})
    assert find_engine().command == (str(tmp_path / "1" / "docker"),)


def test_images_never_go_where_the_answering_docker_would_not_find_them(on_path):
    on_path({"docker": BUILDS_NOT, "podman": BUILDS})
    with pytest.raises(InputError, match="install its buildx plugin"):
        find_engine()


def test_podman_builds_where_no_docker_answers(on_path):
    on_path({"docker": SILENT, "podman": BUILDS})
    assert find_engine().kind == "podman"


def test_podman_builds_where_its_socket_poses_as_docker(on_path):
    on_path({"docker": PODMAN_IN_DISGUISE, "podman": BUILDS})
    assert find_engine().kind == "podman"


def test_without_an_engine_one_sentence_says_what_would_do(
    on_path, monkeypatch, capsys
):
    on_path({})
    monkeypatch.setattr("sys.argv", ["images.build"])
    assert build.main() == 2
    said = capsys.readouterr().err
    assert "make engines" in said
    assert said.count("\n") == 1


def test_an_engine_that_has_no_such_image_says_nothing_of_it(on_path):
    on_path({"docker": BUILDS})
    assert find_engine().inspect("safescale-ammt/none:1") is None


@pytest.mark.parametrize("prefix", ["", "Team", "a b", "team/", "x\ny"])
def test_images_are_pushed_to_a_registry_path_alone(on_path, prefix):
    on_path({"docker": BUILDS})
    with pytest.raises(ConfigError, match="no registry path"):
        build.push(find_engine(), "prepare_data", prefix)
