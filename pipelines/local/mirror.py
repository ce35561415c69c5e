"""Every finished stage's artifacts, copied to `runs/<run-id>/<stage>/`.

KFP's local runner hands over folders; the object store keeps the run. A folder
is verified before it is copied, cached ones too: bytes that were changed on
disk since a stage wrote them end the run, and nobody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import digest_file
from safescale_ammt.store.uri import open_store


class Mirror:
    """Copies artifacts below a prefix of an object store.

    Args:
        store: URI of the store; credentials come from the environment.
        prefix: `runs/<run-id>`.
    """

    def __init__(self, store: str, prefix: str) -> None:
        self.store = open_store(store)
        self.prefix = prefix

    def keep(self, stage: str, paths: Mapping[str, Path]) -> list[dict[str, Any]]:
        """Verifies and copies a stage's outputs; returns one entry for each.

        Raises:
            IntegrityError: an artifact differs from its manifest.
            StorageError: the store does not take it.
        """
        entries = []
        for name, path in paths.items():
            key = f"{self.prefix}/{stage}/{name}"
            entry = {"name": name, "stage": stage, "path": str(path)}
            entry["uri"] = f"{self.store.uri.rstrip('/')}/{key}"
            if path.is_dir():
                try:
                    manifest = verify(path)
                except IntegrityError as error:
                    raise IntegrityError(
                        f"{str(error).rstrip('.')}; delete {path} to make it anew."
                    ) from None
                entry |= {"kind": manifest.kind, "identity": manifest.identity}
                self.store.upload_folder(path, key)  # the manifest goes last
            else:
                # KFP's own metrics and pages are plain files without a manifest.
                entry |= {"kind": "file", "identity": digest_file(path)}
                self.store.put(key, path)
            entries.append(entry)
        return entries
