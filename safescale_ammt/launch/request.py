"""Request: the inputs and outputs of a training worker, as one JSON file.

    {"dataset": PLACE, "architecture": PLACE, "constitution": {...},
     "training": {...}, "model": PLACE, "checkpoints": PLACE or "",
     "report": PLACE or ""}

A place is the path of a folder, or the URI of a folder or of a prefix in an object
store. Keys and addresses of a store never stand here: they come from the
environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError, InputError, one_of
from safescale_ammt.files.json_text import LARGEST, JsonError, parse_json
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store, read_uri, split_uri

CHECKPOINTS = "SAFESCALE_CHECKPOINTS"
"""Variable that names a place for checkpoints."""
_OPTIONAL = ("checkpoints", "report")
_MAPPINGS = ("constitution", "training")


@dataclass(frozen=True)
class TrainingRequest:
    """One training task, as a launcher hands it to its workers.

    Attributes:
        dataset: place of the dataset artifact.
        architecture: place of the architecture artifact.
        constitution: the constitution's mapping.
        training: section `training` of the config.
        model: place that the model artifact is put in, its manifest last.
        checkpoints: place of checkpoints; "" = none.
        report: place for the failure reports of the processes; "" = none.
    """

    dataset: str
    architecture: str
    constitution: Mapping[str, Any]
    training: Mapping[str, Any]
    model: str
    checkpoints: str = ""
    report: str = ""

    @classmethod
    def from_dict(cls, raw: Any, where: str = "The request") -> Self:
        """Parses the JSON form.

        Raises:
            InputError: a key is missing, unknown or of the wrong type.
        """
        names = [f.name for f in fields(cls)]
        if not isinstance(raw, Mapping):
            raise InputError(f"{where} is no mapping, found {type(raw).__name__}.")
        # A misspelt `checkpoints` would otherwise train on, and save nothing.
        for key in raw:
            if key not in names:
                raise InputError(
                    f"{where} has the unknown key {key!r}, {one_of(names, key)}."
                )
        for name in names:
            kind = Mapping if name in _MAPPINGS else str
            if name in _OPTIONAL and name not in raw:
                continue
            if not isinstance(raw.get(name), kind) or not (
                raw[name] or name in _OPTIONAL
            ):
                expected = "a mapping" if kind is Mapping else "a place"
                raise InputError(
                    f"{where} has {name!r} = {raw.get(name)!r}, expected {expected}."
                )
        return cls(**raw)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


def load_request(
    where: str, environ: Mapping[str, str] = os.environ
) -> TrainingRequest:
    """Reads a request from a path or a URI.

    Raises:
        InputError: it does not exist or is no request.
    """
    try:
        raw = parse_json(read_uri(place_uri(where), LARGEST, environ=environ))
    except JsonError as error:
        raise InputError(f"{where} is not JSON ({error}).") from None
    return TrainingRequest.from_dict(raw, where)


def checkpoint_place(config: TrainingConfig, environ: Mapping[str, str]) -> str:
    """Returns where checkpoints go if the request names no place; "" is nowhere.

    Raises:
        ConfigError: the config asks for checkpoints, but the environment names no
            place.
    """
    # A place alone is reason enough: a checkpoint is then taken at SIGTERM.
    if environ.get(CHECKPOINTS) or not config.checkpoint_every:
        return environ.get(CHECKPOINTS, "")
    if not environ.get(STORE):
        raise ConfigError(
            f"training.checkpoint_every is {config.checkpoint_every}, but neither "
            f"{CHECKPOINTS} nor {STORE} names a place; set one to s3://BUCKET/PREFIX "
            "or file:///PATH."
        )
    # Beside the other prefixes of the store; names of checkpoints hold the run.
    return environ[STORE].rstrip("/") + "/checkpoints"


def place_uri(where: str) -> str:
    """Returns the URI of a place; a path becomes a file:// URI."""
    return where if "://" in where else Path(where).absolute().as_uri()


def open_place(where: str, environ: Mapping[str, str] = os.environ) -> Store:
    """Opens a place as a store."""
    return open_store(place_uri(where), environ=environ)


def local_folder(
    where: str, scratch: Path, environ: Mapping[str, str] = os.environ
) -> Path:
    """Returns the local folder of a place, downloaded into `scratch` if need be."""
    if "://" not in where:
        return Path(where)
    # A folder of this machine is read where it lies: a dataset may be large.
    if where.startswith("file://"):
        return Path(unquote(urlsplit(where).path))
    store, key = split_uri(where)
    open_store(store, environ=environ).download_folder(key, scratch)
    return scratch


def deliver(folder: Path, where: str, environ: Mapping[str, str] = os.environ) -> None:
    """Uploads a finished artifact to its place in a store, its manifest last."""
    store, key = split_uri(where)
    open_store(store, environ=environ).upload_folder(folder, key)
