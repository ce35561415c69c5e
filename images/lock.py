"""Writes `images/lock.json`: which bytes the images of this build are.

After `make images` from the engine; after a release with BuildKit's bake from the file
that it writes:

    docker buildx bake -f images/docker-bake.hcl --push --metadata-file meta.json
    python -m images.lock meta.json "$PREFIX"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components import LOCK, LOCK_SCHEMA, STAGES
from components import image as image_name
from images.engine import Engine, layer_sizes
from images.labels import Labels, labels
from safescale_ammt.errors import ConfigError, SafescaleError
from safescale_ammt.files.canonical import read_json

_CONFIG_DIGEST = "containerimage.config.digest"
_DIGEST = "containerimage.digest"
TORCH_FREE = ("prepare_data", "evaluate_safety", "register_model")


def from_engine(
    engine: Engine,
    base: str = "",
    pushed: str = "",
    names: Sequence[str] = STAGES,
) -> dict[str, Any]:
    """Describes the images that an engine has, as the lock does.

    Args:
        engine: where they are.
        base: name of the image that they were built on.
        pushed: registry path that they were pushed to; "" if they were not.
        names: of the images; Spark's is built where it is asked for.
    """
    values = labels()
    entries, layers = {}, {}
    for stage in names:
        name = image_name(stage)
        layers[stage] = layer_sizes(engine, name)
        image = engine.inspect(name) or {}
        entries[stage] = {
            "reference": name,
            "id": _sha256(str(image["Id"])),
            "digest": pushed_digest(engine, f"{pushed}/{stage}") if pushed else "",
            "size": sum(layers[stage].values()),
            "user": str(image["Config"]["User"]),
        }
    together = {
        "torch_free": _union(layers[stage] for stage in TORCH_FREE),
        "torch": _union(layers[s] for s in STAGES if s not in TORCH_FREE),
        "all": _union(layers.values()),
    }
    return {
        **_head(values, pushed, entries),
        "together": together,
        "base": _base(engine, base),
    }


def _base(engine: Engine, name: str) -> dict[str, str]:
    """Says which bytes a base was; its digest is what a release gives BASE_IMAGE."""
    image = engine.inspect(name) if name else None
    if image is None:
        return {"reference": name, "id": "", "digest": ""}
    digests = [d.rpartition("@")[2] for d in image.get("RepoDigests") or ()]
    return {
        "reference": name,
        "id": _sha256(str(image["Id"])),
        "digest": digests[0] if digests else "",
    }


def from_metadata(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Describes images that bake has pushed.

    Args:
        metadata: target -> what BuildKit says of it: `image.name`, and of a pushed
            image `containerimage.digest` and `containerimage.config.digest`. (Of one
            that was only built, older daemons give the latter as the former.)
        prefix: registry path that they were pushed to.

    Raises:
        ConfigError: a target is missing or has no digest.
    """
    values = labels()
    entries = {}
    for stage in STAGES:
        target = metadata.get(stage.replace("_", "-"))
        facts = target if isinstance(target, dict) else {}
        digests = [facts.get(key) for key in (_CONFIG_DIGEST, _DIGEST)]
        # Both: of an image that was only built there is one, and it is the id that no
        # registry knows. Such a pipeline would compile and never pull.
        if not all(digests):
            raise ConfigError(
                f"The metadata of bake has no registry digest of {stage}; expected the "
                "file of `docker buildx bake --push --metadata-file FILE`."
            )
        entries[stage] = {
            "reference": f"{prefix}/{stage}:{values.version}",
            "id": digests[0],
            "digest": digests[1],
            "size": 0,
            "user": "10001:0",
        }
    return _head(values, prefix, entries)


def write(lock: Mapping[str, Any], path: Path = LOCK) -> None:
    """Writes a lock, whole or not at all."""
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def _head(values: Labels, pushed: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": LOCK_SCHEMA,
        "version": values.version,
        "commit": values.revision,
        "code": values.code,
        "pushed": pushed,
        "images": entries,
    }


def _sha256(digest: str) -> str:
    """Podman leaves out the algorithm."""
    return digest if digest.startswith("sha256:") else f"sha256:{digest}"


def _union(images: Iterable[Mapping[str, int]]) -> int:
    """Returns the bytes of several images, shared layers counted once."""
    layers: dict[str, int] = {}
    for image in images:
        layers.update(image)
    return sum(layers.values())


def pushed_digest(engine: Engine, repository: str) -> str:
    """Returns the digest that a registry gave a pushed image.

    Args:
        engine: what pushed it.
        repository: registry path and name, without tag.
    """
    image = engine.inspect(f"{repository}:{labels().version}") or {}
    # An image that was pushed before, elsewhere too, has a digest for each repository.
    for name in image.get("RepoDigests") or ():
        if name.startswith(f"{repository}@"):
            return str(name.rpartition("@")[2])
    raise SafescaleError(f"The engine knows no digest of {repository} after its push.")


def main() -> int:
    """Writes the lock from the metadata of bake."""
    parser = argparse.ArgumentParser(prog="python -m images.lock")
    parser.add_argument("metadata", type=Path, help="file that bake wrote")
    parser.add_argument("prefix", help="registry path that bake pushed to")
    parser.add_argument("-o", "--output", type=Path, default=LOCK)
    arguments = parser.parse_args()
    try:
        lock = from_metadata(read_json(arguments.metadata), arguments.prefix)
        write(lock, arguments.output)
    except SafescaleError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"Wrote {arguments.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
