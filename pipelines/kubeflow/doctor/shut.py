"""Whether the keys of other pods open what is for judge and auditor alone: tried.

That two secrets hold two keys says nothing of what these open. So each key is taken to
the store of data, and has to be refused below `sealed/` and below `auditor/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.kubeflow.doctor.checks import Fault, Unknown
from pipelines.kubeflow.doctor.secrets import Secrets
from safescale_ammt.errors import StoreInputError
from safescale_ammt.files.artifacts import PROTECTED
from safescale_ammt.store.auditor import AUDITOR, KEY
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
# A token belongs to the key of who asks the doctor, and to no other.
_NOT_THEIRS = "AWS_SESSION_TOKEN"


def check_shut(secrets: Secrets, environ: Mapping[str, str]) -> str:
    """Tries every key but that of judge and gate on what tells of sealed rows.

    Args:
        secrets: of the namespace, and the store that is looked at from here.
        environ: the store's endpoint.

    Raises:
        Fault: a key opens it.
        Unknown: no other secret has a key, or we may not read them.
        StorageError: the store fails.
    """
    rest = {k: v for k, v in environ.items() if k not in (*_KEYS, _NOT_THEIRS)}
    tried = []
    for name, given in secrets.of_others().items():
        keys = {key: given.get(key, "") for key in _KEYS}
        # Without a key the pod's own role opens stores, which none of ours can try.
        if not all(keys.values()):
            continue
        store = open_store(secrets.store, environ={**rest, **keys})
        for prefix in (PROTECTED, AUDITOR):
            if opens(store, prefix):
                raise Fault(
                    f"the key of secret {name} opens {prefix} of {secrets.store}, "
                    "where what tells of sealed rows lies",
                    "give it the policy in manifests/secrets/policies, of its own "
                    "prefixes alone",
                )
        tried.append(name)
    if not tried:
        raise Unknown("no other secret has a key that could be tried")
    return f"the keys of {', '.join(tried)} open neither {PROTECTED} nor {AUDITOR}"


def opens(store: Store, prefix: str) -> bool:
    """Says whether a store's key lists a prefix, or reads what is known to lie there.

    Raises:
        StorageError: the store fails.
    """
    looks: tuple[Callable[[], object], ...] = (
        lambda: any(True for _ in store.list(prefix)),
        # Of another prefix nobody knows a name beforehand.
        *([lambda: store.stat(KEY)] if prefix == AUDITOR else []),
    )
    for look in looks:
        try:
            look()
        except StoreInputError:
            continue
        return True
    return False
