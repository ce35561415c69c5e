"""What the stage and the train pods hand each other, in the object store.

`SAFESCALE_STORE` of the secret `safescale-training` is a prefix of its own:

    inputs/<kind>/<digest>/        dataset and architecture, by content
    jobs/<digest>/request.json     what the worker does
    jobs/<digest>/model/           the model, manifest last
    jobs/<digest>/checkpoints/     gone once the model is taken
    jobs/<digest>/report/          what went wrong; gone once the model is taken

Inputs, request and model stay: the next pod of a step, and another run of the same
training, use them. A lifecycle rule of the bucket may delete them at any age.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import ClusterInputError, IntegrityError
from safescale_ammt.files.artifacts import MANIFEST, Manifest, verify
from safescale_ammt.files.canonical import json_file
from safescale_ammt.launch.request import TrainingRequest
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store


class Handover:
    """The part of the store that belongs to one request."""

    def __init__(self, store: Store, digest: str) -> None:
        self._store = store
        self._job = f"jobs/{digest.removeprefix('sha256:')}"
        self.request = self._uri("request.json")
        self.report = self._uri("report")

    @classmethod
    def open(cls, digest: str, environ: Mapping[str, str] = os.environ) -> Handover:
        """Opens the store of the training secret.

        Raises:
            ClusterInputError: the environment names no store.
        """
        uri = environ.get(STORE, "")
        if not uri:
            raise ClusterInputError(
                "A TrainJob needs an object store to hand data over, and "
                f"{STORE} is not set; mount the secret safescale-training "
                "(parameter training_secret) into train_agents."
            )
        return cls(open_store(uri, environ=environ), digest)

    def send(
        self,
        dataset: Path,
        architecture: Path,
        constitution: Constitution,
        config: TrainingConfig,
    ) -> None:
        """Puts inputs and request there; what is there already is not sent again."""
        request = TrainingRequest(
            dataset=self._input(dataset, "dataset"),
            architecture=self._input(architecture, "architecture"),
            constitution=constitution.to_dict(),
            training=config.to_params(),
            model=self._uri("model"),
            checkpoints=self._uri("checkpoints"),
            report=self.report,
        )
        # Last: who finds the request finds its inputs.
        data = json_file(request.to_dict())
        self._store.put(f"{self._job}/request.json", data)

    def has_model(self) -> bool:
        """Says whether a whole model lies there: manifests are written last."""
        return self._store.exists(f"{self._job}/model/{MANIFEST}")

    def fetch(self, model: Path, parents: Mapping[str, str], config: str) -> Manifest:
        """Takes the model to its place, verified, or leaves nothing there.

        Args:
            model: where the artifact is to stand.
            parents: what it must have been trained on.
            config: digest of the training section it must have been trained with.

        Raises:
            IntegrityError: a byte is not as in the manifest, or the inputs are others.
        """
        model.parent.mkdir(parents=True, exist_ok=True)
        # Beside the model: a rename is atomic within one file system only.
        aside = model.parent / f".{model.name}.{uuid.uuid4().hex[:8]}.partial"
        try:
            self._store.download_folder(f"{self._job}/model", aside)
            manifest = verify(aside, "model")
            facts = {**manifest.parents, "training config": manifest.config_digest}
            for what, digest in {**parents, "training config": config}.items():
                if facts.get(what) != digest:
                    raise IntegrityError(
                        f"The model in {self._uri('model')} was trained with {what} "
                        f"{facts.get(what)}, asked for was {digest}; somebody else has "
                        "written there: delete that prefix and run again."
                    )
            shutil.rmtree(model, ignore_errors=True)
            aside.replace(model)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return manifest

    def tidy(self) -> None:
        """Deletes what nobody needs once the model has been taken."""
        # Inputs, request and model stay: another run of the same training uses them.
        for part in ("checkpoints", "report"):
            # A list: what is deleted while it is listed may hide what follows.
            for info in list(self._store.list(f"{self._job}/{part}/")):
                self._store.delete(info.key)

    def _input(self, folder: Path, kind: str) -> str:
        # The digest of the whole manifest: logs and times are part of the bytes.
        digest = str(verify(folder, kind).to_dict()["digest"])
        prefix = f"inputs/{kind}/{digest.removeprefix('sha256:')}"
        if not self._store.exists(f"{prefix}/{MANIFEST}"):
            self._store.upload_folder(folder, prefix)
        return f"{self._store.uri}/{prefix}"

    def _uri(self, part: str) -> str:
        return f"{self._store.uri}/{self._job}/{part}"
