"""Artifacts: whole or not there, and every changed byte is found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files import artifacts
from safescale_ammt.files.artifacts import Manifest, read_manifest, verify, writing
from safescale_ammt.files.canonical import (
    canonical_json,
    digest_bytes,
    digest_file,
    digest_json,
    read_json,
    write_json,
)

FILES = {
    "counts.json": b'{"rows":3}\n',
    "train.parquet": bytes(range(256)) * 5,
    "twin/weights.safetensors": b"\x00" * 100,
    "log.jsonl": b'{"step":1}\n{"step":2}\n',
}
EVENT_LOG = "log.jsonl"
EMPTY = {
    "schema": 1,
    "kind": "dataset",
    "stage": "s",
    "files": {},
    "parents": {},
    "config_digest": "",
    "code_version": "",
    "identity": "",
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def write(path: Path, files: dict[str, bytes] | None = None, **options: Any) -> Path:
    arguments = {"kind": "dataset", "stage": "prepare_data", **options}
    with writing(path, **arguments) as draft:
        draft.outside_identity.add(EVENT_LOG)
        for name, content in (FILES if files is None else files).items():
            file = draft.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write(tmp_path / "dataset", parents={"raw": "sha256:00"})


def positions(size: int) -> Iterator[int]:
    """First, last and three positions between."""
    yield from sorted({0, size // 4, size // 2, 3 * size // 4, size - 1})


@given(json_values)
def test_canonical_json_reads_back_and_is_its_own_fixed_point(value: Any) -> None:
    spelled = canonical_json(value)
    assert json.loads(spelled) == value
    assert canonical_json(json.loads(spelled)) == spelled


@given(st.dictionaries(st.text("abcdef"), st.integers(0, 9), max_size=6))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, int]) -> None:
    reversed_order = dict(reversed(list(value.items())))
    assert digest_json(reversed_order) == digest_json(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_has_no_digest(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"loss": number})


def test_digest_of_a_file_is_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3) * (1 << 19)  # more than one chunk
    (tmp_path / "big").write_bytes(data)
    assert digest_file(tmp_path / "big") == digest_bytes(data)
    assert digest_bytes(b"").startswith("sha256:e3b0c44298fc1c14")


def test_json_on_disk_has_one_spelling(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"b": 1, "a": [1.5, "é"]})
    assert (tmp_path / "deep" / "a.json").read_bytes() == (
        '{"a":[1.5,"é"],"b":1}\n'.encode()
    )
    assert read_json(tmp_path / "deep" / "a.json") == {"a": [1.5, "é"], "b": 1}


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe", b""])
def test_a_file_that_is_not_json_is_one_clear_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json does not exist\."):
        read_json(tmp_path / "a.json")


def test_a_written_artifact_is_verified_and_says_what_it_holds(artifact: Path) -> None:
    manifest = verify(artifact, "dataset")
    assert set(manifest.files) == set(FILES)
    assert manifest.files["counts.json"].size == len(FILES["counts.json"])
    assert manifest.files["counts.json"].identity
    assert not manifest.files[EVENT_LOG].identity
    assert manifest.parents == {"raw": "sha256:00"}
    assert manifest.stage == "prepare_data"
    assert Manifest.from_dict(manifest.to_dict()) == manifest


def test_nothing_but_the_artifact_is_left_beside_it(artifact: Path) -> None:
    assert [p.name for p in artifact.parent.iterdir()] == ["dataset"]


def test_the_same_work_twice_has_the_same_manifest(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert (first / "manifest.json").read_bytes() == (
        second / "manifest.json"
    ).read_bytes()


def test_a_moved_folder_keeps_its_digest(artifact: Path, tmp_path: Path) -> None:
    before = verify(artifact).identity
    moved = tmp_path / "elsewhere" / "under another name"
    shutil.copytree(artifact, moved)
    shutil.rmtree(artifact)
    assert verify(moved).identity == before


def test_times_and_logs_are_hashed_but_do_not_change_identity(tmp_path: Path) -> None:
    later = {**FILES, EVENT_LOG: b'{"step":1,"seconds":9}\n', "execution.json": b"{}"}
    first, second = write(tmp_path / "a"), write(tmp_path / "b", later)
    assert verify(first).identity == verify(second).identity
    (second / EVENT_LOG).write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"log\.jsonl was changed"):
        verify(second)


@pytest.mark.parametrize("name", [n for n in FILES if n != EVENT_LOG])
def test_each_file_of_the_work_is_part_of_identity(tmp_path: Path, name: str) -> None:
    first = write(tmp_path / "a")
    second = write(tmp_path / "b", {**FILES, name: FILES[name] + b"!"})
    assert verify(first).identity != verify(second).identity


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "model"},
        {"parents": {"raw": "sha256:01"}},
        {"parents": {"twin": "sha256:00"}},
    ],
)
def test_kind_and_parents_are_part_of_identity(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    plain = {"parents": {"raw": "sha256:00"}}
    first = write(tmp_path / "a", **plain)
    second = write(tmp_path / "b", **{**plain, **options})
    assert verify(first).identity != verify(second).identity


def test_stage_and_config_are_recorded_outside_identity(tmp_path: Path) -> None:
    first = write(tmp_path / "a", config_digest="sha256:aa")
    second = write(tmp_path / "b", stage="another")
    assert verify(first).identity == verify(second).identity
    assert verify(first).config_digest == "sha256:aa"


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_any_changed_byte_is_found(artifact: Path, name: str, bit: int) -> None:
    file = artifact / name
    whole = file.read_bytes()
    for at in positions(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= bit
        file.write_bytes(bytes(changed))
        with pytest.raises(IntegrityError, match="was changed") as caught:
            verify(artifact)
        assert digest_bytes(whole) in str(caught.value)
        assert digest_bytes(bytes(changed)) in str(caught.value)
    file.write_bytes(whole)
    verify(artifact)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_truncated_or_longer_file_is_found(artifact: Path, name: str) -> None:
    for content in (FILES[name][:-1], FILES[name] + b"\n", b""):
        (artifact / name).write_bytes(content)
        with pytest.raises(IntegrityError, match="was changed"):
            verify(artifact)


def test_any_changed_byte_of_the_manifests_identity_is_found(artifact: Path) -> None:
    file = artifact / "manifest.json"
    whole = file.read_bytes()
    manifest = read_manifest(artifact)
    recorded = [e.sha256 for e in manifest.files.values() if e.identity]
    for text in (*recorded, manifest.identity, "dataset", "raw", '"schema":1'):
        at = whole.index(text.encode()) + len(text) - 1
        changed = bytearray(whole)
        changed[at] ^= 0x01
        file.write_bytes(bytes(changed))
        with pytest.raises((IntegrityError, InputError)):
            verify(artifact)


def test_a_manifest_in_another_spelling_is_found(artifact: Path) -> None:
    file = artifact / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()), indent=1))
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        verify(artifact)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"3",
        b"{}",
        b'{"schema":1,"kind":"dataset"}',
        canonical_json({**EMPTY, "files": []}),
        canonical_json({**EMPTY, "files": {"a": {"md5": "0"}}}),
        canonical_json({**EMPTY, "parents": None}),
    ],
)
def test_what_is_not_a_manifest_is_one_clear_sentence(
    artifact: Path, content: bytes
) -> None:
    (artifact / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="is not the manifest of an artifact"):
        verify(artifact)


def test_a_manifest_of_another_schema_is_one_clear_sentence(artifact: Path) -> None:
    raw = read_json(artifact / "manifest.json")
    write_json(artifact / "manifest.json", {**raw, "schema": 2})
    with pytest.raises(InputError, match="has schema 2, this version reads 1"):
        verify(artifact)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json does not exist"):
        verify(tmp_path)


def test_an_added_and_a_missing_file_are_found(artifact: Path) -> None:
    (artifact / "twin" / "extra.bin").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"twin/extra\.bin was added to"):
        verify(artifact)
    (artifact / "twin" / "extra.bin").unlink()
    (artifact / "counts.json").unlink()
    with pytest.raises(IntegrityError, match=r"counts\.json is missing from"):
        verify(artifact)


def test_an_artifact_of_another_kind_is_refused(artifact: Path) -> None:
    with pytest.raises(InputError, match="is a dataset artifact, expected a model"):
        verify(artifact, "model")


def test_writing_replaces_what_stood_there(artifact: Path) -> None:
    before = verify(artifact).identity
    write(artifact, {"other.json": b"{}"})
    assert set(verify(artifact).files) == {"other.json"}
    assert verify(artifact).identity != before


def fail_while_writing(path: Path) -> None:
    with writing(path, kind="model", stage="train_agents") as draft:
        (draft.folder / "weights").write_bytes(b"half")
        raise RuntimeError("boom")


def test_an_error_inside_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_the_block_keeps_what_stood_there(artifact: Path) -> None:
    before = verify(artifact).identity
    with pytest.raises(RuntimeError, match="boom"):
        fail_while_writing(artifact)
    assert verify(artifact).identity == before
    assert [p.name for p in artifact.parent.iterdir()] == ["dataset"]


DEATHS = {
    "exit": "os._exit(7)",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
    "term": "os.kill(os.getpid(), signal.SIGTERM)",
}


def die_while_writing(path: Path, death: str) -> int:
    program = (
        "import os, signal, sys\n"
        "from safescale_ammt.files.artifacts import writing\n"
        "with writing(sys.argv[1], kind='model', stage='train') as draft:\n"
        "    (draft.folder / 'weights').write_bytes(b'half')\n"
        "    (draft.folder / 'manifest.json').write_bytes(b'{}')\n"
        f"    {DEATHS[death]}\n"
    )
    finished = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    return finished.returncode


@pytest.mark.parametrize("death", sorted(DEATHS))
def test_a_process_that_dies_while_writing_leaves_no_artifact(
    tmp_path: Path, death: str
) -> None:
    assert die_while_writing(tmp_path / "model", death) != 0
    assert not (tmp_path / "model").exists()
    write(tmp_path / "model", kind="model")
    verify(tmp_path / "model", "model")


@pytest.mark.parametrize("death", sorted(DEATHS))
def test_a_process_that_dies_while_writing_keeps_what_stood_there(
    artifact: Path, death: str
) -> None:
    before = verify(artifact).identity
    assert die_while_writing(artifact, death) != 0
    assert verify(artifact).identity == before


def test_the_execution_file_is_outside_identity_by_default(tmp_path: Path) -> None:
    with writing(tmp_path / "a", kind="model", stage="train") as draft:
        write_json(draft.folder / artifacts.EXECUTION, {"ended": "now"})
    assert not verify(tmp_path / "a").files[artifacts.EXECUTION].identity


_FULL_DISK = """
import resource, signal, sys
import pyarrow as pa
import pyarrow.parquet as pq
from safescale_ammt.files.artifacts import writing
from safescale_ammt.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for kind in ("bytes", "parquet"):
    try:
        with writing(sys.argv[1], kind="dataset", stage="prepare_data") as draft:
            if kind == "bytes":
                (draft.folder / "x").write_bytes(b"x" * (1 << 20))
            else:
                table = pa.table({"a": range(1 << 18)})
                pq.write_table(table, draft.folder / "x", compression="none")
    except StorageError as error:
        print(error)
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: both end in the middle."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=True,
    )
    sentences = done.stdout.splitlines()
    assert len(sentences) == 2
    assert all("the disk has no room left" in sentence for sentence in sentences)
    assert list(tmp_path.iterdir()) == []
