"""Code package: a user's own Python package, read as text, packed and pinned.

    {path: text}   the package's .py files, and small files of text that it names

Its digest is that of this mapping, so it depends on the code alone: not on the name of
the folder above, on times, or on how it travels. Packed, it is text that fits into a
section of the config. Nothing here imports or runs any of it.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from safescale_ammt.errors import ConfigError, IntegrityError
from safescale_ammt.files.canonical import canonical_json, digest_json
from safescale_ammt.files.json_text import JsonError, parse_json
from safescale_ammt.files.regular import read_regular

CODE = "code.json"
"""File of a model that holds the code that built it, as text."""
MOST_BYTES = 1 << 20
"""Bytes of all files together: a package of code, and no data set."""
MOST_FILES = 500
MOST_PACKED = 40_000
"""Characters of a packed one: a section of the config holds 64 KiB."""
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """A function of a package: `package.module:function`."""

    module: str
    function: str

    @classmethod
    def parse(cls, name: str) -> Self:
        """Reads the name of a function.

        Raises:
            ConfigError: it is none.
        """
        if not is_entry(name):
            raise ConfigError(
                f"training.model is {name!r}, expected package.module:function, such "
                "as my_package.my_module:build."
            )
        return cls(*name.split(":"))

    @property
    def top(self) -> str:
        """The package, or the module that is none's."""
        return self.module.partition(".")[0]


def is_entry(name: str) -> bool:
    """Says whether a text is spelled `package.module:function`."""
    return bool(_NAME.fullmatch(name))


@dataclass(frozen=True)
class CodePackage:
    """A package as text.

    Attributes:
        files: path below the folder that the package lies in -> text.
    """

    files: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Digest of paths and texts."""
        return digest_json(dict(self.files))

    @classmethod
    def read(cls, root: Path, top: str, data: Sequence[str] = ()) -> Self:
        """Reads a package from the folder that it lies in.

        Args:
            root: the folder.
            top: name of the package, or of the one module.
            data: files of text that it reads, as patterns below the package.

        Raises:
            ConfigError: a pattern names nothing or something else than small text, or
                the package is too large.
        """
        folder, single = root / top, root / f"{top}.py"
        # As Python's import: a module goes before a folder that is no package.
        package = (folder / "__init__.py").is_file() or not single.is_file()
        if not (package and folder.is_dir()):
            if data:
                raise ConfigError(
                    f"training.model_files names {data[0]!r}, but {single} is one "
                    "module; make it a package to give it files."
                )
            return cls({single.name: text_of(single)})
        paths = set(python_files(folder))
        for pattern in data:
            paths |= matched(folder, pattern)
        if len(paths) > MOST_FILES:
            raise ConfigError(
                f"{folder} has {len(paths)} files of code and text, at most "
                f"{MOST_FILES} are carried; name a smaller package."
            )
        files, size = {}, 0
        for path in sorted(paths):
            text = text_of(path)
            size += len(text.encode())
            if size > MOST_BYTES:
                raise ConfigError(
                    f"{folder} holds over {MOST_BYTES} bytes of code and text; carry "
                    "code alone, and data as rows."
                )
            files[path.relative_to(root).as_posix()] = text
        return cls(files)

    def pack(self) -> str:
        """Returns the package as one line of text."""
        return base64.b64encode(
            zlib.compress(canonical_json(dict(self.files)), 9)
        ).decode()

    @classmethod
    def unpack(cls, packed: str, digest: str) -> Self:
        """Reads a packed package of a digest.

        Raises:
            IntegrityError: it is none, or of another digest.
        """
        broken = IntegrityError(
            f"training.model_package is not the code of digest {digest}, which "
            "training.model_digest names; leave both out, and they are filled in anew."
        )
        try:
            stream = zlib.decompressobj()
            # A few bytes may unfold to gigabytes.
            raw = stream.decompress(
                base64.b64decode(packed, validate=True), 4 * MOST_BYTES
            )
            files = parse_json(raw)
        except (binascii.Error, zlib.error, JsonError, ValueError):
            raise broken from None
        if not stream.eof or not isinstance(files, dict) or not all_places(files):
            raise broken
        package = cls(files)
        if package.digest != digest:
            raise broken
        return package

    def write(self, folder: Path) -> None:
        """Writes the files below a folder."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())


def find_package(module: str, places: Iterable[Path]) -> Path:
    """Returns the folder that a module's package lies in: the first that has it.

    Args:
        module: `package.module`.
        places: folders that are looked into, in their order.

    Raises:
        ConfigError: the name is one of Python's own, or no folder has it.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ConfigError(
            f"training.model names {module!r}, but {top!r} is a module of Python's; "
            "give your package another name."
        )
    looked = []
    for place in dict.fromkeys(places):
        stem = place.joinpath(*module.split("."))
        if stem.with_suffix(".py").is_file() or (stem / "__init__.py").is_file():
            return place
        looked.append(str(place))
    raise ConfigError(
        f"training.model names the module {module!r}, which is in none of "
        f"{', '.join(looked)}; put its package beside the workload file, or its folder "
        "into PYTHONPATH."
    )


def python_files(folder: Path) -> Iterator[Path]:
    """Yields a package's files of code; what is hidden, or a link, is none."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink() or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from python_files(path)
        elif path.suffix == ".py":
            yield path


def matched(folder: Path, pattern: str) -> set[Path]:
    """Returns the files below a folder that a pattern names.

    Raises:
        ConfigError: it leads out of the folder, or names none.
    """
    wanted = PurePosixPath(pattern)
    inside = pattern and not wanted.is_absolute() and ".." not in wanted.parts
    found = {p for p in folder.glob(pattern) if p.is_file()} if inside else set()
    home = folder.resolve()
    if not found or not all(p.resolve().is_relative_to(home) for p in found):
        raise ConfigError(
            f"training.model_files names {pattern!r}, expected files below {folder}."
        )
    return found


def text_of(path: Path) -> str:
    """Returns a file's text.

    Raises:
        ConfigError: it is none, or too large.
    """
    try:
        return read_regular(path, MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path} is not UTF-8 text; a package carries code and text alone."
        ) from None


def all_places(files: Mapping[Any, Any]) -> bool:
    """Says whether a mapping is of relative paths, none leading out, to texts."""
    return bool(files) and all(
        isinstance(name, str)
        and isinstance(text, str)
        and all(part not in ("", ".", "..") for part in name.split("/"))
        and "\\" not in name
        and "\0" not in name
        for name, text in files.items()
    )
