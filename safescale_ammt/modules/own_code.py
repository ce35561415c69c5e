"""A user's own code: imported after its digest was checked, and asked for a module.

    build(format) -> torch.nn.Module

The code comes packed in the config, or lies in the image. It is unpacked into a folder
of this process, from which Python imports it, before any installed package of its name.
It is refused where that has been imported already, as ours and torch have.
"""

from __future__ import annotations

import atexit
import importlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.data.feature_codes import Numeric, feature_width
from safescale_ammt.data.schema import DateFeature, Schema
from safescale_ammt.errors import ConfigError, IntegrityError, SafescaleError
from safescale_ammt.files.code_package import CodePackage, Entry
from safescale_ammt.library_imports import allow_imports
from safescale_ammt.modules.randomness import own_randomness
from safescale_ammt.training.seeds import derived_seed

_MOST_WORDS = 200
_FOLDERS: dict[str, tuple[str, str]] = {}
"""Package -> digest and folder of what this process has imported of it."""


@dataclass(frozen=True)
class RowFormat:
    """What a user's function is told of the rows that its module will read.

    Attributes:
        inputs: numbers of a row: the module is called with float32 (rows, inputs).
        outputs: logits that it answers a row with: 1 for two classes (of the second
            one), else one per class.
        columns: feature -> its inputs, as a half-open range of their numbers.
        classes: names, in the order of their codes.
        encoding: of numbers, `standard` or `ple`.
        image: channels, height and width of the images that all inputs are pixels of,
            in this order and in [0, 1]; None of a table.
    """

    inputs: int
    outputs: int
    columns: Mapping[str, tuple[int, int]]
    classes: tuple[str, ...]
    encoding: str
    image: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, schema: Schema, encoding: Numeric) -> RowFormat:
        """Returns the format of a schema's rows."""
        columns, at = {}, 0
        for feature in schema.features:
            # The parts of a date lie side by side.
            parts = feature.parts if isinstance(feature, DateFeature) else (feature,)
            end = at + sum(feature_width(part, encoding) for part in parts)
            columns[feature.name], at = (at, end), end
        classes = schema.classes
        outputs = 1 if len(classes) == 2 else len(classes)
        image = schema.image.shape if schema.image else None
        return cls(at, outputs, columns, classes, encoding, image)


def carried_code(config: TrainingConfig) -> tuple[CodePackage, Path | None]:
    """Returns the code that a section names, and the folder it lies in if in the image.

    Raises:
        ConfigError: no digest was filled in, or nothing carries the code.
        IntegrityError: the code is of another digest.
    """
    entry, wanted = Entry.parse(config.model), config.model_digest
    if not wanted:
        raise ConfigError(
            f"training.model is {config.model!r}, but training.model_digest is empty; "
            "start the pipeline with `safescale run` or `safescale submit`, which find "
            "the package and fill it in."
        )
    if config.model_package:
        return CodePackage.unpack(config.model_package, wanted), None
    spec = PathFinder.find_spec(entry.top)
    if spec is None or not (spec.origin or spec.submodule_search_locations):
        raise ConfigError(
            f"training.model names the package {entry.top!r}, which neither the config "
            "carries nor this image has; leave out training.model_digest to have it "
            "carried, or build an image that has it."
        )
    places = list(spec.submodule_search_locations or ()) or [str(spec.origin)]
    root = Path(places[0]).parent
    package = CodePackage.read(root, entry.top, config.model_files)
    if package.digest != wanted:
        raise IntegrityError(
            f"The package {entry.top!r} in {root} has digest {package.digest}, but "
            f"training.model_digest is {wanted}; build the image anew, or say the "
            "digest of what it has."
        )
    return package, root


def imported(package: CodePackage, entry: Entry, root: Path | None) -> Any:
    """Imports the module of an entry; returns its function.

    Args:
        package: the code, whose digest was checked.
        entry: module and function.
        root: the folder that it lies in; None = it is unpacked.

    Raises:
        ConfigError: it cannot be imported, has no such function, or another module of
            its name is here.
    """
    before = _FOLDERS.get(entry.top)
    if before is not None and before[0] != package.digest:
        forget(entry.top)
        before = None
    if before is None:
        taken = sys.modules.get(entry.top)
        if taken is not None:
            raise ConfigError(
                f"training.model names the package {entry.top!r}, a name that "
                f"{getattr(taken, '__file__', None) or 'another module'} has here; "
                "give your package another name."
            )
        folder = str(root) if root else tempfile.mkdtemp(prefix="safescale-code-")
        if root is None:
            package.write(Path(folder))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        _FOLDERS[entry.top] = (package.digest, folder)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        forget(entry.top)
        lacking = error.name or "?"
        if lacking.partition(".")[0] == entry.top:
            raise ConfigError(
                f"training.model names {entry.module!r}, but its package has no module "
                f"{lacking!r}."
            ) from error
        raise ConfigError(
            f"The code of training.model needs the library {lacking!r}, which is not "
            "here; leave it out, or train in an image that has it (docs/own_models.md)."
        ) from error
    except (Exception, SystemExit) as error:
        # A script may end its process, as a module it would end the stage, and well.
        words = told(error)  # which needs the folder that is forgotten
        forget(entry.top)
        raise ConfigError(
            f"The code of training.model cannot be imported ({words})."
        ) from error
    function = getattr(module, entry.function, None)
    if not callable(function):
        raise ConfigError(
            f"training.model names {entry.function!r}, but {entry.module} has no such "
            "function."
        )
    return function


def forget(top: str) -> None:
    """Takes a package of a user's out of this process."""
    _, folder = _FOLDERS.pop(top)
    sys.path[:] = [place for place in sys.path if place != folder]
    for name in [n for n in sys.modules if n.partition(".")[0] == top]:
        del sys.modules[name]


def told(error: BaseException) -> str:
    """Says what a user's code raised, and in which of its lines.

    For what has seen no row of anybody: the words may hold whatever it has seen.
    """
    where = line_of(error)
    words = " ".join(str(error).split())[:_MOST_WORDS].rstrip(".")
    if isinstance(error, FileNotFoundError):
        where += "; files that it reads travel if training.model_files names them"
    return f"{type(error).__name__}{f': {words}' if words else ''}{where}"


def line_of(error: BaseException) -> str:
    """Says in which of a user's lines an error arose; nothing if in none."""
    homes = tuple(folder for _, folder in _FOLDERS.values())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if homes and frame.filename.startswith(homes)
    ]
    if not frames:
        return ""
    name = "/".join(Path(frames[-1].filename).parts[-2:])
    return f", in {name} line {frames[-1].lineno}"


def built(config: TrainingConfig, rows: RowFormat) -> tuple[nn.Module, CodePackage]:
    """Imports the code that a section names and builds the module, by the seed.

    Raises:
        ConfigError: the code cannot be had, or gives no module.
        IntegrityError: the code is of another digest.
    """
    package, root = carried_code(config)
    # A user's code, and torch for tracing it, may import whatever there is.
    allow_imports()
    build = imported(package, Entry.parse(config.model), root)
    with own_randomness(torch.device("cpu")) as seed:
        seed(derived_seed(config.seed, "weights"))
        try:
            module = build(rows)
        except (MemoryError, SafescaleError):
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{config.model} did not build a module ({told(error)}); it is called "
                f"with the rows' format: {rows.inputs} inputs, {rows.outputs} outputs."
            ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{config.model} returned {type(module).__name__}, expected a "
            "torch.nn.Module."
        )
    return module, package
