"""The rights that the stage's service account needs for a TrainJob.

The Role in `manifests/`, the reviews of `safescale doctor` and the code that
calls the API are tested against this list.
"""

from __future__ import annotations

from typing import NamedTuple


class Access(NamedTuple):
    """One right: a verb on a resource ("pods", "pods/log") of an API group."""

    verb: str
    group: str
    resource: str


_TRAINER = "trainer.kubeflow.org"
ACCESS = (
    *(
        Access(verb, _TRAINER, "trainjobs")
        for verb in ("create", "delete", "get", "list", "patch", "watch")
    ),
    Access("get", _TRAINER, "trainingruntimes"),
    Access("get", "", "pods"),
    Access("list", "", "pods"),
    Access("get", "", "pods/log"),
    Access("list", "", "events"),
)
"""Each is asked for by name in `api.py`; none is more than is called."""
