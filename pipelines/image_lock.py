"""The lock of images: which bytes each stage runs in.

`make images` writes `images/lock.json` (a build output, not in git):

    {"schema": 1, "version": "0.1.0", "commit": "<sha>[-dirty]",
     "code": "sha256:...", "pushed": "<path>",
     "images": {"prepare_data": {"reference": "safescale-ammt/prepare_data:0.1.0",
                                 "id": "sha256:...", "digest": "sha256:...",
                                 "size": 340000000, "user": "10001:0"}, ...}}

An image has two digests. `id` is that of its configuration: an engine on this
machine finds the very image by it, no registry does. `digest` is that of the
manifest, which exists once the image was pushed (layers are compressed then):
Kubernetes pulls by it. An image that was only built has an empty `digest`; one that
another machine built and pushed may have an empty `id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import IMAGE_PREFIX, LOCK_SCHEMA, SPARK, STAGES
from safescale_ammt import __version__
from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.files.canonical import is_digest, read_json
from safescale_ammt.files.library import library_digest


@dataclass(frozen=True)
class LockedImage:
    """One image.

    Attributes:
        reference: name and tag that it was built as.
        id: digest of its configuration, sha256:<hex>; "" if it is not on this machine.
        digest: digest of its manifest, sha256:<hex>; "" if it was never pushed.
        size: bytes of all its layers, unpacked; 0 if unknown.
        user: uid:gid that it runs as.
    """

    reference: str
    id: str
    digest: str
    size: int
    user: str


@dataclass(frozen=True)
class Lock:
    """The images of one version, one per stage.

    Attributes:
        path: file that it was read from.
        version: version of the library inside.
        commit: commit of the code inside, `-dirty` behind it if it was changed.
        code: digest of the library inside; "" if the lock does not say.
        pushed: registry path that they were pushed to; "" if they were not.
        images: stage -> image; Spark's too, where it was built.
    """

    path: Path
    version: str
    commit: str
    code: str
    pushed: str
    images: Mapping[str, LockedImage]

    @classmethod
    def load(cls, path: Path) -> Lock:
        """Reads and checks a lock.

        Raises:
            ConfigError: no such file, no lock, a stage without image, a malformed
                digest, or images of another version than this one.
        """
        try:
            raw = read_json(path)
        except InputError as error:
            if path.exists():
                raise ConfigError(f"{path} is no lock of images: {error}") from None
            raise ConfigError(
                f"There is no lock of images {path}; `make images` builds the images "
                "and writes it."
            ) from None
        if not isinstance(raw, dict):
            raise ConfigError(
                f"{path} must hold a mapping, found {type(raw).__name__}."
            )
        if raw.get("schema") != LOCK_SCHEMA:
            raise ConfigError(
                f"{path} has schema {raw.get('schema')!r}, this version reads schema: "
                f"{LOCK_SCHEMA}."
            )
        # A pipeline of this version would run another's code, and nothing would say so.
        if raw.get("version") != __version__:
            raise ConfigError(
                f"{path} is of version {raw.get('version')}, this is {__version__}: "
                "`make images` builds this version's images."
            )
        entries = raw.get("images")
        if not isinstance(entries, dict):
            raise ConfigError(f"{path} has no mapping `images` of stage to image.")
        # Spark's is built where it is asked for, and looked for where it is needed.
        names = (*STAGES, *{SPARK} & entries.keys())
        images = {name: _image(entries, name, path) for name in names}
        about = ("commit", "code", "pushed")
        commit, code, pushed = (str(raw.get(name) or "") for name in about)
        return cls(path, __version__, commit, code, pushed, images)

    def reference(self, stage: str) -> str:
        """Returns what an engine on this machine runs for a stage: the image's id.

        Raises:
            ConfigError: the image was not built on this machine.
        """
        image = self.images[stage]
        if not image.id:
            raise ConfigError(
                f"{self.path} has no image id of {stage}: it was built on another "
                "machine; `make images` builds it here."
            )
        return image.id

    def pinned(self, stage: str, prefix: str) -> str:
        """Returns what Kubernetes pulls for a stage: `prefix/stage@sha256:...`.

        Raises:
            ConfigError: the image was never pushed, so no registry has a digest, or
                Spark's was not built.
        """
        if stage not in self.images:
            raise ConfigError(
                f"{self.path} has no image {stage}, which data.engine: spark takes; "
                f"`make images SPARK=1 PUSH={prefix}` builds and pushes it too."
            )
        image = self.images[stage]
        if not image.digest:
            raise ConfigError(
                f"{self.path} has no registry digest of {stage}: the image was built "
                f"but never pushed; `make images PUSH={prefix}` pushes them all."
            )
        return f"{prefix}/{stage}@{image.digest}"

    def check_code(self, prefix: str) -> None:
        """Refuses images that hold other code than this.

        Args:
            prefix: registry path that new ones are to be pushed to.

        Raises:
            ConfigError: the code differs.
        """
        # One version has many states of its code while it is written. A lock that was
        # made by hand may not say which one its images hold.
        if self.code and self.code != library_digest():
            raise ConfigError(
                f"{self.path} is of images with other code than this; "
                f"`make images PUSH={prefix}` builds and pushes them anew."
            )


def _image(entries: Mapping[str, Any], stage: str, path: Path) -> LockedImage:
    entry = entries.get(stage)
    if not isinstance(entry, dict):
        raise ConfigError(
            f"{path} has no image for {stage}; `make images` builds all of them."
        )
    digests = {name: entry.get(name) or "" for name in ("id", "digest")}
    for name, value in digests.items():
        if value and not is_digest(value):
            raise ConfigError(
                f"{path}: {name} {value!r} of {stage} is no sha256:<64 hex digits>."
            )
    if not any(digests.values()):
        raise ConfigError(f"{path} has neither id nor digest of {stage}.")
    # Absent in a lock of bake, which does not unpack what it pushes.
    size = entry.get("size") or 0
    # bool is an int to Python, and no size to anybody.
    if isinstance(size, bool) or not isinstance(size, int):
        raise ConfigError(f"{path}: size {size!r} of {stage} is no number of bytes.")
    return LockedImage(
        reference=str(entry.get("reference", f"{IMAGE_PREFIX}/{stage}:{__version__}")),
        **digests,
        size=size,
        user=str(entry.get("user", "")),
    )
