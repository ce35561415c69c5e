"""`make images`: the five images, on a machine with or without a registry.

    python -m images.build [--torch cpu|cu130] [--spark] [--push PREFIX]

From nothing: wheels by the pip of this machine, a base image (see `base`), the five
targets of the Dockerfile, then `images/lock.json`. What is there already stays: a
second call takes seconds, a change of the library's code rebuilds one layer.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from components import IMAGE_PREFIX, LOCK, SPARK, STAGES, image
from images.base import base_image
from images.engine import Engine, find_engine
from images.fetch import TORCH_INDEX, fetch, variants
from images.fetch_spark import fetch_spark
from images.labels import for_images
from images.lock import from_engine, write
from safescale_ammt.config.kubernetes_names import registry_path
from safescale_ammt.errors import SafescaleError

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Builds, pushes if asked to, and writes the lock."""
    parser = argparse.ArgumentParser(prog="python -m images.build")
    parser.add_argument(
        "--torch",
        choices=variants(),
        default="cpu",
        help="Build of torch; nets train on the GPU with one for CUDA.",
    )
    parser.add_argument("--push", metavar="PREFIX", default="")
    parser.add_argument(
        "--spark",
        action="store_true",
        help="Also the image of Spark, for data.engine: spark.",
    )
    arguments = parser.parse_args()
    names = (*STAGES, SPARK) if arguments.spark else STAGES
    start = time.monotonic()
    try:
        engine = find_engine()
        print(f"engine: {engine.command[0]}", flush=True)
        base = build(engine, arguments.torch)
        if arguments.spark:
            build_spark(engine, base)
        # The lock comes last: a registry's digests exist only after the push.
        for name in names if arguments.push else ():
            push(engine, name, arguments.push)
        lock = from_engine(engine, base, arguments.push, names)
        write(lock, ROOT / LOCK)
    except SafescaleError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for stage, entry in lock["images"].items():
        print(f"{stage:20s} {entry['size'] / 1e6:6.0f} MB  {entry['id']}")
    print(f"{LOCK} written after {time.monotonic() - start:.0f} s")
    return 0


def build(engine: Engine, variant: str) -> str:
    """Builds the five targets and names them as the compiled pipeline does.

    Args:
        engine: what builds.
        variant: the build of torch, see `images.fetch`.

    Returns:
        The name of the base image.
    """
    # The wheels take the network, a base from Debian's packages takes the processor.
    with ThreadPoolExecutor(1) as aside:
        base = aside.submit(base_image, engine)
        fetch(variant)
    arguments = {
        "BASE_IMAGE": base.result(),
        "TORCH_VARIANT": variant,
        "TORCH_INDEX": TORCH_INDEX + variant,
    }
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    options += [f"--label={key}={value}" for key, value in for_images().items()]

    def build_one(stage: str) -> None:
        target = stage.replace("_", "-")
        names = (f"--target={target}", f"--tag={image(stage)}")
        dockerfile = f"--file={ROOT / 'images/Dockerfile'}"
        engine.run(
            "build", "--quiet", dockerfile, *names, *options, str(ROOT), quiet=True
        )
        print(f"{stage} built", flush=True)

    # BuildKit does what targets share once, however many ask for it; podman would not.
    with ThreadPoolExecutor(len(STAGES) if engine.kind == "docker" else 1) as targets:
        list(targets.map(build_one, STAGES))
    return base.result()


def build_spark(engine: Engine, base: str) -> None:
    """Builds the image of Spark upon that of prepare_data, which is there.

    Args:
        engine: what builds.
        base: name of the base image.

    Raises:
        InputError: what goes into it cannot be fetched.
    """
    fetch_spark(engine, base)
    labels = [f"--label={key}={value}" for key, value in for_images().items()]
    made_of = {"BASE_IMAGE": base, "PREPARE_DATA": image("prepare_data")}
    engine.run(
        "build",
        "--quiet",
        f"--file={ROOT / 'images/spark.Dockerfile'}",
        f"--tag={image(SPARK)}",
        *(f"--build-arg={key}={value}" for key, value in made_of.items()),
        *labels,
        str(ROOT),
        quiet=True,
    )
    print(f"{SPARK} built", flush=True)


def push(engine: Engine, stage: str, prefix: str) -> None:
    """Pushes a stage's image to `prefix/<stage>:<version>`.

    Raises:
        ConfigError: the prefix is no registry path.
    """
    registry_path(prefix, "PUSH")
    name = image(stage).replace(IMAGE_PREFIX, prefix, 1)
    print(f"push {name} ...", flush=True)
    engine.run("tag", image(stage), name)
    engine.run("push", name, quiet=True)


if __name__ == "__main__":
    sys.exit(main())
