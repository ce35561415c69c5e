"""From approvals in files to a run of the promote pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.compile import compile_promote
from pipelines.image_lock import Lock
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.preparation import RunSpec, VersionFile, scalars
from pipelines.kubeflow.revision import Revision
from pipelines.parameter_sizes import check_sizes
from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.regular import read_regular
from safescale_ammt.releasing.signed_files import MOST, envelopes_in, version_of
from safescale_ammt.releasing.versions import PENDING


@dataclass(frozen=True)
class PromotionRequest:
    """What a run of the promote pipeline shall be.

    Attributes:
        registry: the registered model's name; "" = who starts it by hand fills it in.
        version: its number, or `pending`.
        approvals: files of signed approvals to hand over.
        parameters: scalar parameters of the pipeline, such as cpu=2.
        image_prefix: registry path of the images.
        images: lock file that pins their digests.
    """

    registry: str = ""
    version: str = PENDING
    approvals: Sequence[Path] = ()
    parameters: Mapping[str, str] | None = None
    image_prefix: str = ""
    images: Path | None = None

    def run_spec(self) -> RunSpec:
        """Compiles the pipeline and fills in its parameters.

        Raises:
            ConfigError: no registry is named, or a parameter or lock cannot be used.
            InputError: a file is no approval, or they are about several versions.
            IntegrityError: an approval is forged or changed.
        """
        if not self.registry:
            raise ConfigError(
                "--registry is not given: name the registered model to promote."
            )
        pipeline = self._compiled()
        arguments = self._values() | scalars(pipeline, self.parameters or {})
        check_sizes(pipeline, arguments)
        name = f"promote-{self.registry}"
        return RunSpec(name, pipeline, arguments, self._description())

    def version_file(self) -> VersionFile:
        """Compiles the pipeline for who starts it by hand; the errors of `run_spec`."""
        pipeline = self._compiled()
        given = {n: v for n, v in self._values().items() if v}
        pipeline.set_defaults(given | scalars(pipeline, self.parameters or {}))
        check_sizes(pipeline, {})
        whom = f"registry {self.registry}" if self.registry else "no registry"
        sentence = f"The version's form names {whom} and version {self.version}."
        return VersionFile(pipeline.to_yaml(), sentence, self._description())

    def _compiled(self) -> CompiledPipeline:
        images = Lock.load(self.images) if self.images else None
        prefix = self.image_prefix or None
        return CompiledPipeline.parse(
            compile_promote(image_prefix=prefix, images=images)
        )

    def _values(self) -> dict[str, Any]:
        """Returns the values of the parameters that are no resources."""
        found = [one for path in self.approvals for one in approvals_of(path)]
        about = version_of(found) if found else 0
        if about and self.version not in (PENDING, str(about)):
            raise InputError(
                f"The approvals are about version {about}, --version is "
                f"{self.version}: give those of that version."
            )
        lines = "\n".join(canonical_json(one).decode() for one in found)
        version = str(about or self.version)
        return {"registry": self.registry, "version": version, "approvals": lines}

    def _description(self) -> str:
        about = f"{self.registry[:80] or 'a registered model'} version {self.version}"
        count = len(self.approvals)
        given = f", {count} file{'s' * (count != 1)} of approvals"
        return (
            f"Promotes {about[:120]}{given}; SAFESCALE-AMMT {Revision.find().version}"
        )


def approvals_of(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Reads a file of approvals.

    Raises:
        InputError: it cannot be read, holds none, or something else.
    """
    text = read_regular(path, MOST).decode("utf-8", "replace")
    found = envelopes_in(text, str(path))
    if not found:
        raise InputError(
            f"{path} is empty; `safescale approve --out {path.name}` writes one."
        )
    return found
