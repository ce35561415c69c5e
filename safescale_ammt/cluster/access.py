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
    # Its absence is a sentence before anything is sent, not a job that never starts.
    Access("get", _TRAINER, "trainingruntimes"),
    # Own pod and other owners by name, the job's pods by label.
    Access("get", "", "pods"),
    Access("list", "", "pods"),
    Access("get", "", "pods/log"),
    # Where no pod could be made at all, only an event says why.
    Access("list", "", "events"),
)
"""Each is called by name in this package; none is granted that is never called."""
