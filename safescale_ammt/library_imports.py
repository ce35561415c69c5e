"""What libraries import that nothing here asks for, left out of our own processes.

pyarrow looks for pandas at the first list that it converts; scipy.special takes every
name of numpy along, its Fortran compiler's and its test tools' too; minio's package
brings a client for administrators, whose ciphers parse C, and a class for each setting
that a bucket can have; scipy.special parses the docstrings of a hundred functions to
write them anew. A run pays for each of them in several processes.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_NAMES = {
    "minio.crypto": {"decrypt", "encrypt"},
    "minio.deleteobjects": {
        *("DeleteError", "DeleteObject", "DeleteRequest", "DeleteResult")
    },
    "minio.lifecycleconfig": {"LifecycleConfig"},
    "minio.notificationconfig": {"NotificationConfig"},
    "minio.objectlockconfig": {"ObjectLockConfig"},
    "minio.replicationconfig": {"ReplicationConfig"},
    "minio.select": {"SelectObjectReader", "SelectRequest"},
    "minio.sseconfig": {"SSEConfig"},
    "minio.versioningconfig": {"VersioningConfig"},
}
"""Modules of which functions and classes are imported that are used later, or never."""
LATE = frozenset(
    f"numpy.{name}" for name in ("ctypeslib", "f2py", "fft", "ma", "testing")
)
LATE |= _NAMES.keys()
"""What is read from its file once something of it is used. Nothing of ours does so, and
so it happens to no two threads at once."""


_DOCSTRINGS = "scipy._lib._docscrape"
"""The module by which scipy reads docstrings at its import."""


class SpareImports:
    """Finds no pandas, and the modules above without reading them.

    A finder for the beginning of `sys.meta_path`.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        """Finds a module that is to be spared; None for every other one."""
        if name == "pandas":
            raise ModuleNotFoundError("safescale needs no pandas.", name=name)
        if name not in LATE and name != _DOCSTRINGS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            kind = LateLoader if name in LATE else UnreadLoader
            spec.loader = kind(spec.loader)
        return spec


class UnreadLoader(Loader):
    """Loads scipy's reader of docstrings, which then leaves functions' as they are.

    Args:
        loader: reads the module's file.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def exec_module(self, module: ModuleType) -> None:
        """Loads the module."""
        self._loader.exec_module(module)
        vars(module)["FunctionDoc"] = UnreadDoc


class UnreadDoc(defaultdict[str, list[Any]]):
    """A function's docstring, whose sections nobody has looked for.

    Args:
        function: whose docstring it is.
    """

    def __init__(self, function: object) -> None:
        super().__init__(list)
        self._text = function.__doc__ or ""

    def __str__(self) -> str:
        """Returns it below an empty line, where scipy's has the signature."""
        return f"\n{self._text}"


class LateLoader(Loader):
    """Loads a module when something of it is used.

    Unlike `importlib.util.LazyLoader` it bears to be looked at: `inspect`, which KFP's
    executor uses, asks each module that is loaded for its `__file__`.

    Args:
        loader: reads the module's file.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def exec_module(self, module: ModuleType) -> None:
        """Has an empty module ask for its content at the first name."""
        names = _NAMES.get(module.__name__, ())

        def use(name: str) -> Any:
            if module.__dict__.pop("__getattr__", None):
                self._loader.exec_module(module)
            return getattr(module, name)

        def late(name: str) -> Any:
            # Python and those who look around ask for such names.
            if name.startswith("__"):
                raise AttributeError(name)
            return LateName(name, (), {"use": use}) if name in names else use(name)

        module.__dict__["__getattr__"] = late


class LateName(type):
    """What stands for a function or class of a late module until it is used."""

    use: Callable[[str], Any]

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        """Calls it, or makes an object of it."""
        return cls.use(cls.__name__)(*arguments, **options)

    def __instancecheck__(cls, instance: object) -> bool:
        """Says whether an object is of that class."""
        return isinstance(instance, cls.use(cls.__name__))

    def __getattr__(cls, name: str) -> Any:
        """Returns what it has of its own, such as another way to make an object."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.use(cls.__name__), name)


def spare_imports() -> None:
    """Spares this process, which is one of ours, what nothing here asks for."""
    if not spared():
        sys.meta_path.insert(0, SpareImports())


def allow_imports() -> None:
    """Lets this process import all there is again, for a library that needs pandas."""
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, SpareImports)]


def spared() -> bool:
    """Says whether this process is one of ours, by `spare_imports`."""
    return any(isinstance(finder, SpareImports) for finder in sys.meta_path)
