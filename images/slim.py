"""Takes out of installed packages what no stage uses: `python slim.py FOLDER`.

Runs while an image is built, once for each layer. Everything taken out is named here,
with the reason; the tests run every stage in its image.
"""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

NAMES = ("tests", "test", "SelfTest")
"""Folders of tests. `testing` stays: pandas, numpy and torch import theirs."""
SUFFIXES = (".a", ".h", ".hpp", ".cuh", ".cmake", ".pxd", ".pxi", ".pyi", ".pyx")
"""For compilers and type checkers."""
PATHS = (
    # pyarrow: RPC, its object store clients (minio is ours), copies of one library.
    "pyarrow/include",
    "pyarrow/includes",
    "pyarrow/src",
    "pyarrow/*flight*",
    "pyarrow/*s3*",
    "pyarrow/_gcsfs*",
    "pyarrow/_azurefs*",
    "pyarrow/_hdfs*",
    # Formats and keys of files that no stage reads or writes.
    "pyarrow/*_orc*.so",
    "pyarrow/_substrait*.so",
    "pyarrow/*parquet_encryption*.so",
    "pyarrow/_pyarrow_cpp_tests*",
    "pyarrow/libarrow_python*.so",
    "pyarrow/libarrow_python*.so.*.*",
    # scipy: `special` and `optimize` are used, with what these import.
    *(
        f"scipy/{name}"
        for name in ("cluster", "datasets", "differentiate", "fftpack", "integrate")
    ),
    *(f"scipy/{name}" for name in ("interpolate", "io", "misc", "ndimage", "odr")),
    *(f"scipy/{name}" for name in ("signal", "stats", "special/cython_special*")),
    # pycryptodome: minio's ciphers stay; keys of people are checked by cryptography.
    *(f"Crypto/{name}" for name in ("IO", "Math", "PublicKey", "Signature")),
    # argon2 is built against cffi and reads its backend alone, a library beside it.
    "cffi",
    "pycparser",
    "numpy/distutils",
    "numpy/_core/include",
    # kfp: inside a container its executor runs, which is in kfp.dsl.
    *(f"kfp/{name}" for name in ("cli", "client", "compiler", "components")),
    *(f"kfp/{name}" for name in ("kubeflow_client", "local", "registry", "v2")),
    # torch: headers, protoc and test programs; the shared-memory helper stays.
    "torch/include",
    "torch/share/cmake",
    "torch/bin/[!t]*",
    "torch/bin/test_*",
    "torch/lib/*_test.so",
    "torch/lib/libbackend_with_compiler.so",
    "torch/testing/_internal/py312_intrinsics.py",  # not for this Python
)


def main() -> int:
    """Slims the folder named on the command line and says by how much."""
    root = Path(sys.argv[1])
    before = _size(root)
    for path in _unused(root):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in sorted(p for p in root.rglob("*.so*") if p.is_file()):
        data = path.read_bytes()
        # What carries code for GPUs stays as it is: nothing here could test it.
        if b".nv_fatbin" not in data and "nvidia" not in path.parts:
            path.write_bytes(loaded(data))
    print(f"{root}: {before / 1e6:.0f} MB -> {_size(root) / 1e6:.0f} MB")
    return 0


def loaded(elf: bytes) -> bytes:
    """Returns the part of a shared library that a loader maps.

    Symbols and debugging information lie behind the last segment, with the table of
    sections. The loader reads the table of segments alone (System V ABI, chapter 5).

    Args:
        elf: a file's bytes; anything but a 64-bit little-endian ELF file, and a
            file whose tables lie elsewhere, comes back as it is.
    """
    # The magic, then class 2 (64 bits) and data 1 (little-endian).
    if elf[:6] != b"\x7fELF\x02\x01":
        return elf
    # The header's e_phoff and e_shoff, then e_phentsize and e_phnum.
    segments, _sections = struct.unpack_from("<QQ", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    end = segments + size * count
    for place in range(segments, end, size):
        offset, _address, _physical, length = struct.unpack_from(
            "<QQQQ", elf, place + 8
        )
        end = max(end, offset + length)
    # e_shoff, e_shentsize, e_shnum and e_shstrndx: there is no table of sections now.
    head = bytearray(elf[:end])
    struct.pack_into("<Q", head, 40, 0)
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    return bytes(head)


def _unused(root: Path) -> Iterable[Path]:
    for name in NAMES:
        yield from list(root.rglob(name))
    for suffix in SUFFIXES:
        yield from list(root.rglob(f"*{suffix}"))
    for pattern in PATHS:
        yield from list(root.glob(pattern))


def _size(root: Path) -> int:
    return sum(p.stat().st_size for p in root.rglob("*") if p.is_file())


if __name__ == "__main__":
    sys.exit(main())
