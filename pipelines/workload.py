"""A workload: the config's five sections and the constitution, from YAML.

The file has `schema: 1`, `constitution_file:` (a path beside it) or
`constitution:` (inline), and any of the sections `data`, `search`, `training`,
`safety` and `registry`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from safescale_ammt.config.section import Section
from safescale_ammt.config.sections import (
    SECTIONS,
    DataConfig,
    SearchConfig,
    TrainingConfig,
)
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ConfigError, ConstitutionError, one_of
from safescale_ammt.files.canonical import digest_json
from safescale_ammt.files.yaml_file import parse_yaml, read_yaml
from safescale_ammt.reading.catalogue import CATALOGUE

SCHEMA_VERSION = 1
_CONSTITUTION = ("constitution", "constitution_file")
SCALARS = ("source", "sealed_source", "window")
"""Keys of `data` that are parameters of their own: plain boxes in Kubeflow's form."""


@dataclass(frozen=True)
class Workload:
    """What a run is to do.

    Attributes:
        sections: section name -> checked config.
        constitution: the constitution.
    """

    sections: Mapping[str, Section]
    constitution: Constitution

    def __post_init__(self) -> None:
        """Refuses a promise about a group that the data section does not declare.

        Raises:
            ConstitutionError: there is such a promise, or one within strata whose
                groups nobody would count, or on changes of such a column.
        """
        # The search refuses it too, but only after the data have been prepared.
        data = self.data
        declared = {*data.sensitive, *data.merges, *data.crosses}
        for group in self.constitution.group_columns:
            if group not in declared:
                expected = one_of(declared, group) if declared else "it declares none"
                raise ConstitutionError(
                    f"The constitution speaks of the group {group!r}, which the data "
                    f"section does not declare; {expected}."
                )
        self.constitution.require_crosses(data.crosses)
        never = (*data.drop, data.label)
        self.constitution.require_changeable(
            data.sensitive, never, in_model=data.sensitive_in_model
        )
        self.constitution.require_slopes(
            trees=self.training.learner == "trees", own=bool(self.training.model)
        )

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        constitution: Path | None = None,
        overrides: Iterable[str] = (),
    ) -> Workload:
        """Reads a workload file.

        Args:
            path: the YAML file.
            constitution: a constitution that replaces the file's own.
            overrides: `section.key=value`, the value spelled as in YAML.

        Raises:
            ConfigError: a file, key or value that cannot be used.
            ConstitutionError: a constitution that cannot be compiled.
        """
        raw = read_workload(path)
        keys = ("schema", *_CONSTITUTION, *SECTIONS)
        for key in raw:
            if key not in keys:
                raise ConfigError(
                    f"Unknown section {key!r} in {path}, {expected(keys, key)}."
                )
        if raw.get("schema") != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has schema {raw.get('schema')!r}, this version reads schema: "
                f"{SCHEMA_VERSION}."
            )
        sections: dict[str, dict[str, Any]] = {}
        for name in SECTIONS:
            section = raw.get(name) or {}
            if not isinstance(section, dict):
                raise ConfigError(
                    f"Section {name!r} of {path} must be a mapping, found "
                    f"{type(section).__name__}."
                )
            names = _names(name)
            for key in (key for key in section if key not in names):
                # The section itself would not know that another one has the key.
                raise ConfigError(
                    f"Unknown key {key!r} in section {name!r} of {path}, "
                    f"{expected(names, key)}."
                )
            sections[name] = section
        for override in overrides:
            _override(sections, override)
        data = sections["data"]
        source = data.get("source")
        if isinstance(source, str) and source in CATALOGUE:
            # What the catalogue knows of a built-in data set lies beneath the file.
            builtin = CATALOGUE[source]
            members = dict.fromkeys(builtin.members, source)
            sections["data"] = {**members, **builtin.data, **data}
        return cls(
            {n: kind.from_params(sections[n]) for n, kind in SECTIONS.items()},
            _constitution(raw, path, constitution),
        )

    @property
    def data(self) -> DataConfig:
        """The section that says where the rows lie."""
        return typing.cast("DataConfig", self.sections["data"])

    @property
    def search(self) -> SearchConfig:
        """The section that says how architectures are searched."""
        return typing.cast("SearchConfig", self.sections["search"])

    @property
    def training(self) -> TrainingConfig:
        """The section that says how the agents are trained."""
        return typing.cast("TrainingConfig", self.sections["training"])

    def replace(self, section: str, **values: Any) -> Workload:
        """Returns a workload with other values in one section."""
        changed = dataclasses.replace(self.sections[section], **values)
        return Workload({**self.sections, section: changed}, self.constitution)

    def arguments(self) -> dict[str, Any]:
        """Returns the values of the pipeline's parameters."""
        values: dict[str, Any] = {n: s.to_params() for n, s in self.sections.items()}
        # Left in the section too, Kubeflow's form would show one value twice, and
        # only one of the two would count.
        scalars = {k: values["data"].pop(k) for k in SCALARS}
        return {**values, **scalars, "constitution": self.constitution.to_dict()}

    @property
    def digest(self) -> str:
        """Digest of all sections, defaults filled in; not of the constitution."""
        return digest_json({n: s.to_params() for n, s in self.sections.items()})


def expected(names: Iterable[str], key: str) -> str:
    """Returns the end of a sentence about an unknown key: what it may mean, and where.

    Args:
        names: what is known in this place.
        key: what was given.
    """
    sections = [name for name in SECTIONS if key in _names(name)]
    where = f"; {key!r} is a key of section {' and '.join(sections)}"
    return one_of(names, key) + where * bool(sections)


def read_workload(path: Path) -> dict[str, Any]:
    """Reads a YAML file that holds one mapping.

    Raises:
        ConfigError: the file is missing, is not YAML or holds something else.
    """
    raw = read_yaml(path, ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping, found {type(raw).__name__}.")
    return raw


def _names(section: str) -> frozenset[str]:
    return frozenset(f.name for f in dataclasses.fields(SECTIONS[section]))


def _constitution(
    raw: Mapping[str, Any], path: Path, other: Path | None
) -> Constitution:
    if other is not None:
        return Constitution.load(other)
    keys = [key for key in _CONSTITUTION if key in raw]
    # With both, a reader could not say which of them a verdict speaks of.
    if len(keys) != 1:
        raise ConfigError(
            f"{path} must have one of {' or '.join(_CONSTITUTION)}, found "
            f"{' and '.join(keys) or 'neither'}."
        )
    if keys == ["constitution"]:
        return Constitution.from_dict(raw["constitution"])
    return Constitution.load(path.parent / str(raw["constitution_file"]))


def _override(sections: dict[str, dict[str, Any]], override: str) -> None:
    """Applies one `section.key=value`; deeper keys reach into mappings."""
    name, equals, text = override.partition("=")
    section, *keys = name.split(".")
    if not equals or not keys or not all(keys):
        raise ConfigError(
            f"--set {override!r} is not of the form section.key=value, such as "
            "training.steps=600."
        )
    if section not in sections:
        raise ConfigError(f"--set names {section!r}: {one_of(sections, section)}.")
    if keys[0] not in (names := _names(section)):
        known = expected(names, keys[0])
        raise ConfigError(f"--set names {section}.{keys[0]}, unknown; {known}.")
    target = sections[section]
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {name}: {key} holds no further keys.")
    value: Any = text
    # YAML would turn a window or a version such as 2026-11-09 or 1.10 into a value.
    if typing.get_type_hints(SECTIONS[section])[keys[0]] is not str:
        try:
            value = parse_yaml(text)
        except (ValueError, yaml.YAMLError):
            raise ConfigError(f"--set {name}: {text!r} is no YAML value.") from None
        # YAML 1.1 reads 1e-3 as text: its floats need a dot.
        with suppress(ValueError):
            real = isinstance(value, str) and "e" in value.lower()
            value = float(value) if real else value
    target[keys[-1]] = value
