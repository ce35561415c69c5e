"""A Kubernetes API over HTTP, for tests: the real clients talk to it.

    from cluster.api import ClusterApi

    with ClusterApi() as api:                       # namespace "safescale" is there
        api.write_kubeconfig(folder / "kubeconfig") # KUBECONFIG for the client
        api.add("secrets", "safescale-store", data={"SAFESCALE_STORE": "..."})
        api.add("namespaces", "team", labels={"a": "b"})
        api.forbid("create", "trainjobs")           # 403 as RBAC words it
        api.allow_only(rules)                       # 403 for all but these rules
        api.permit_all()                            # takes both back
        api.get("trainjobs", "x"); api.list("pods"); api.delete("pods", "x")

What it keeps: objects with uid, resourceVersion and creationTimestamp, watches
with resourceVersion, 409 on a name that is taken and on a stale resourceVersion,
finalizers, foreground, background and orphan deletion, garbage collection by
ownerReferences (an object goes when all of its owners are gone), merge patches,
label and field selectors, pods' logs with follow, timestamps and sinceTime,
SelfSubjectAccessReview and `/version`. Namespaces must exist.

What makes it ill:

    api.stop(); api.start()           # away, and back on the same port
    api.answers.extend([500, "drop"]) # for the next requests: a status, or hang up
    api.compact()                     # watches of older versions: 410 Gone
    api.drop_connections()            # every open connection is cut
    api.cut_logs(3, 5)                # the next log stream breaks after 3 lines, ...
    api.forget("trainjobs")           # as if the CRD were not installed
    api.skew = 300.0                  # the clock in `Date` runs ahead (seconds)
    api.token = "other"               # 401 for those who come with the old one
    api.admission.append(function)    # a webhook: (verb, plural, object) -> reason

`ClusterApi(tls=(certificate, key))` serves HTTPS, as pods see it.

`cluster.trainer.TrainerController` plays Kubeflow Trainer and a kubelet: it runs
the containers of a TrainJob as processes of this machine, with the environment
that pods would have.

Why not PyPI's kmock 0.8: it answers lists with resourceVersion "..." and ignores
that of a watch (so there is no 410), knows no authorisation, no propagation or
garbage collection and no pod logs, and lives inside the event loop of the test,
while the stage under test is another process.
"""
