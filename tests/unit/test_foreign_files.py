"""What is no regular file is refused in one sentence, and nobody waits for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from foreign_world import IRREGULAR, pipe, within
from registered_world import write_parts

from pipelines.cli import run_command
from safescale_ammt.errors import InputError, IntegrityError, SafescaleError
from safescale_ammt.files import regular
from safescale_ammt.files.artifacts import MANIFEST, FileEntry, digest_of, verify
from safescale_ammt.files.canonical import digest_json, read_json, write_json
from safescale_ammt.files.regular import open_given, open_regular, read_regular, walk
from safescale_ammt.reading.csv_reader import Layout
from safescale_ammt.reading.sources import read_table
from safescale_ammt.releasing.bundle import verify_bundle
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

PLACES = (
    *(MANIFEST, "about.json", "card.md", "constitution.json", "schema.json"),
    *("model/manifest.json", "model/weights.safetensors", "model/schema.json"),
    *("verdict/manifest.json", "verdict/verdict.json", "verdict/evidence.parquet"),
    "record/events.jsonl",
)
"""Files of a bundle that something reads."""


@pytest.fixture(autouse=True)
def _nobody_waits() -> Iterator[None]:
    with within(30):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle, for tests that copy it."""
    return write_parts(tmp_path_factory.mktemp("parts"))


def one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith(".\n")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_in_a_bundle_is_refused_where_it_lies(
    made: Path,
    tmp_path: Path,
    kind: str,
    place: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    (bundle / place).unlink()
    IRREGULAR[kind](bundle / place)

    code = run_command(["verify", str(bundle)])

    assert code in (2, 3)
    assert one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_and_was_added_is_named(
    made: Path, tmp_path: Path, kind: str
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    IRREGULAR[kind](bundle / "more")
    if kind == "folder":
        (bundle / "more" / "file").write_text("x")

    with pytest.raises(IntegrityError, match=r"^more\S* was added to the bundle"):
        verify(bundle)


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize("follow", [True, False])
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str, follow: bool) -> None:
    IRREGULAR[kind](tmp_path / "x")
    if kind == "outside" and follow:
        assert read_regular(tmp_path / "x", 10_000)
        return

    with pytest.raises(InputError, match=r"a regular file was expected|does not exist"):
        read_regular(tmp_path / "x", 10_000, follow=follow)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev/tty", "x\0y"])
def test_a_device_and_a_name_of_none_are_not_opened(name: str) -> None:
    with pytest.raises(InputError, match=r"regular file was expected|no name of"):
        open_regular(name)


def test_a_file_past_its_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(InputError, match=r"has 1,099,511,627,776 bytes, a file of its"):
        read_json(tmp_path / "hole")


def test_a_file_with_a_hole_is_not_hashed_for_days(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(IntegrityError, match="recorded 7 bytes, found 1,099"):
        digest_of(tmp_path / "weights", FileEntry("sha256:", 7))


def test_folders_without_end_are_no_artifact(tmp_path: Path) -> None:
    path = tmp_path
    for _ in range(regular.DEEPEST + 2):
        path /= "d"
    path.mkdir(parents=True)

    with pytest.raises(IntegrityError, match="is no artifact"):
        list(walk(tmp_path))


@pytest.mark.parametrize("name", [b"\xff", b"a\x1b[2J", b"a\nb", "a\u202eb".encode()])
def test_a_name_that_nobody_sees_is_no_part_of_an_artifact(
    made: Path, tmp_path: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    Path(os.fsdecode(os.fsencode(bundle) + b"/" + name)).write_text("x")

    assert run_command(["verify", str(bundle)]) == 3
    assert one_sentence(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", ""])
def test_a_manifest_that_lists_a_file_elsewhere_is_refused(
    made: Path, tmp_path: Path, name: str
) -> None:
    bundle = shutil.copytree(made, tmp_path / "bundle")
    (tmp_path / "outside").write_text("x")
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["files"][name] = dict(raw["files"]["card.md"])
    # A forger writes both digests anew.
    facts = {"schema": 1, "kind": raw["kind"], "parents": raw["parents"]}
    files = {n: e["sha256"] for n, e in raw["files"].items() if e["identity"]}
    raw["identity"] = digest_json({**facts, "files": files})
    raw["digest"] = digest_json({k: v for k, v in raw.items() if k != "digest"})
    write_json(bundle / MANIFEST, raw)

    with pytest.raises(IntegrityError, match="is missing from the bundle artifact"):
        verify_bundle(bundle)


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "a//b", "a\0b", "a\\b"])
def test_no_key_leaves_its_store(file_store: Store, key: str) -> None:
    with pytest.raises(SafescaleError):
        file_store.get(key)


def test_a_link_is_not_sent_to_a_store(made: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    bundle = shutil.copytree(made, tmp_path / "bundle")
    (bundle / "more").symlink_to("/etc/hostname")

    with pytest.raises(InputError, match="is a link, so it is not stored"):
        store.upload_folder(bundle, "bundle")


@pytest.mark.parametrize("kind", [k for k in IRREGULAR if k != "folder"])
def test_rows_are_read_from_files_alone(tmp_path: Path, kind: str) -> None:
    IRREGULAR[kind](tmp_path / "rows.csv")
    if kind == "outside":
        (tmp_path / "rows.csv").unlink()
        pipe(tmp_path / "pipe")
        (tmp_path / "rows.csv").symlink_to("pipe")

    with pytest.raises(InputError, match=r"regular file was exp|does not exist|leads"):
        read_table(f"file://{tmp_path}/rows.csv", Layout())


def test_a_pipe_among_the_files_of_a_folder_of_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    pipe(tmp_path / "b.csv")

    with pytest.raises(InputError, match=r"b\.csv is a named pipe"):
        read_table(tmp_path.as_uri(), Layout())


@pytest.mark.parametrize("kind", IRREGULAR)
@pytest.mark.parametrize(
    "command",
    [
        ["constitution", "check", "--config"],
        ["constitution", "check", "--data", ".", "--"],
        ["run", "--config"],
        ["run", "--constitution"],
        ["compile", "-o", "out.yaml", "--config"],
    ],
)
def test_a_config_that_is_no_file_is_a_sentence(
    tmp_path: Path,
    kind: str,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    IRREGULAR[kind](tmp_path / "my.yaml")

    assert run_command([*command, "my.yaml"]) == 2
    said = capsys.readouterr().err
    assert "my.yaml" in said or "hostname" in said or "mapping" in said
    assert "Traceback" not in said


def test_what_a_shell_has_opened_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x\n1\n")
    script = (
        "from pathlib import Path\n"
        "from safescale_ammt.files.regular import open_given\n"
        "print(open_given(Path('/dev/stdin')).read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"x\n1\n", capture_output=True, check=True
    )
    assert b"x\\n1" in done.stdout


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe(tmp_path / "rows.csv")

    with pytest.raises(InputError, match="is a named pipe"):
        open_given(tmp_path / "rows.csv")


def test_a_name_that_becomes_a_pipe_in_between_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    opened: Callable[..., int] = os.open

    def swapped(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opened(name, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(InputError, match="is a named pipe"):
        open_regular(path)
