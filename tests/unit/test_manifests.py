"""The manifests that we ship keep every rule, and every rule can be broken."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from policy import complaints, names, references, security
from policy.breaking import GONE, NODE, POD, RUNTIME, Break, broken
from policy.objects import (
    CLUSTER_WIDE,
    COMPONENTS,
    OVERLAYS,
    ROOT,
    build,
    called,
    compose,
    copy_manifests,
    shipped,
    texts,
    with_secrets,
)

from pipelines.kubeflow.doctor.quota import charge_of, most_at_once
from pipelines.quantities import amount
from safescale_ammt.cluster.access import ACCESS

ROWS = (*NODE, "env", 2, "valueFrom", "secretKeyRef")
"""Where a node is told the store of rows that lie apart."""
SHAPE = (*names.RULES, *references.RULES)
"""Rules on all objects, secrets included; those of `security` are on ours alone."""
QUEUE = "ClusterQueue/safescale"
RUN, CI = "Role/safescale-pipeline", "Role/safescale-operator"
VIEWER = "Role/safescale-viewer"
PEERS = "NetworkPolicy/training-peers"
POLICY = "ValidatingAdmissionPolicy"
ALL = [*OVERLAYS, *(f"components/{name}" for name in COMPONENTS)]


@pytest.mark.parametrize("name", ALL)
def test_what_we_ship_keeps_every_rule(name):
    assert complaints(SHAPE, with_secrets(name)) == []
    assert complaints(security.RULES, shipped()[name]) == []


BROKEN: dict[str, list[Break]] = {
    "names_are_dns_1123": [
        ("ConfigMap/kfp-launcher", ("metadata", "name"), "kfp_launcher"),
        ("Namespace/safescale", ("metadata", "name"), "safe.scale"),
        (RUNTIME, (*NODE, "name"), "Node"),
        (RUNTIME, (*POD, "spec", "volumes", 0, "name"), "tmp/x"),
    ],
    "labels_are_valid": [
        ("Namespace/safescale", ("metadata", "labels", "a b"), "c"),
        ("Namespace/safescale", ("metadata", "labels", "a"), "-c"),
        (RUNTIME, (*POD, "metadata", "labels", "sidecar.istio.io/inject"), False),
        (RUNTIME, (*POD, "metadata", "annotations", "a"), 1),
    ],
    "quantities_parse": [
        ("ResourceQuota/safescale", ("spec", "hard", "limits.memory"), "4GiB"),
        ("LimitRange/safescale", ("spec", "limits", 0, "max", "cpu"), "two"),
        (RUNTIME, (*NODE, "resources", "requests", "cpu"), "3"),
        (RUNTIME, (*NODE, "resources", "limits", "memory"), "4M"),
        (
            RUNTIME,
            (*POD, "spec", "volumes", 0, "emptyDir", "sizeLimit"),
            "6 Gi",
        ),
        (
            QUEUE,
            (
                *("spec", "resourceGroups", 0, "flavors", 0, "resources", 0),
                "nominalQuota",
            ),
            "16x",
        ),
    ],
    "nothing_stands_twice": [
        ("NetworkPolicy/names", ("metadata", "name"), "default-deny"),
    ],
    "one_namespace": [
        ("ConfigMap/kfp-launcher", ("metadata", "namespace"), "team"),
        ("ConfigMap/kfp-launcher", ("metadata", "namespace"), GONE),
        ("Namespace/safescale", ("metadata", "name"), "team"),
        (
            "RoleBinding/safescale-pipeline",
            ("subjects", 0, "namespace"),
            "team",
        ),
        ("RoleBinding/safescale-pipeline", ("subjects", 0, "namespace"), GONE),
        (CI, ("rules", 4, "resourceNames"), ["team"]),
        (
            "ConfigMap/kfp-launcher",
            ("data", "defaultPipelineRoot"),
            "minio://mlpipeline/private-artifacts/team/v2/artifacts",
        ),
        (
            QUEUE,
            ("spec", "namespaceSelector", "matchLabels", "kubernetes.io/metadata.name"),
            "team",
        ),
    ],
    "references_resolve": [
        ("RoleBinding/safescale-pipeline", ("roleRef", "name"), "pipeline-runner"),
        ("RoleBinding/safescale-pipeline", ("subjects", 0, "name"), "default"),
        (RUN, ("rules", 1, "resourceNames"), ["mlpipeline-minio"]),
        (RUN, ("rules", 7, "resourceNames"), ["torch-distributed"]),
        (
            "ServiceAccount/safescale-pipeline",
            ("imagePullSecrets", 0, "name"),
            "pull",
        ),
        (RUNTIME, (*POD, "spec", "serviceAccountName"), "default"),
        (RUNTIME, (*POD, "spec", "imagePullSecrets", 0, "name"), "pull"),
        (RUNTIME, (*NODE, "envFrom", 0, "secretRef", "name"), "training"),
        ("LocalQueue/safescale", ("spec", "clusterQueue"), "default"),
        (
            QUEUE,
            ("spec", "resourceGroups", 0, "flavors", 0, "name"),
            "default",
        ),
    ],
    "selectors_meet_labels": [
        (PEERS, ("spec", "podSelector", "matchLabels"), {"app": "train"}),
        (PEERS, ("spec", "podSelector"), {"matchExpressions": []}),
        (
            PEERS,
            ("spec", "ingress", 0, "from", 0, "podSelector", "matchLabels"),
            {"app.kubernetes.io/component": "trainer"},
        ),
        (
            "NetworkPolicy/object-store",
            ("spec", "egress", 0, "to", 0, "podSelector", "matchLabels", "app"),
            "minio",
        ),
        (
            "NetworkPolicy/names",
            ("spec", "egress", 0, "to", 0, "podSelector"),
            GONE,
        ),
        (
            RUNTIME,
            (*POD, "spec", "topologySpreadConstraints", 0, "labelSelector"),
            {"matchLabels": {"app.kubernetes.io/component": "train-agents"}},
        ),
    ],
    "images_are_built": [
        (RUNTIME, (*NODE, "image"), "safescale-ammt/train_agents:0.0.9"),
        (RUNTIME, (*NODE, "image"), "safescale-ammt/train:0.1.0"),
        (RUNTIME, (*NODE, "image"), "python"),
    ],
    "runtime_fits_our_trainjobs": [
        (RUNTIME, ("spec", "mlPolicy", "torch"), GONE),
        (RUNTIME, (*POD[:4], 0, "name"), "trainer"),
        (RUNTIME, (*POD[:4], 0, "template", "metadata", "labels"), {}),
        (RUNTIME, (*NODE, "name"), "trainer"),
        (RUNTIME, (*NODE, "envFrom"), []),
        (
            RUNTIME,
            (*NODE, "envFrom", 1),
            {"secretRef": {"name": "safescale-registry"}},
        ),
        (RUNTIME, (*ROWS, "name"), "safescale-store"),
        (RUNTIME, (*ROWS, "optional"), False),
        (RUNTIME, (*ROWS, "key"), "SAFESCALE_PLACE"),
    ],
    "queues_cover_their_jobs": [
        (
            QUEUE,
            ("spec", "resourceGroups", 0, "coveredResources"),
            ["cpu", "memory"],
        ),
        (RUNTIME, (*NODE, "resources", "requests", "example.com/fpga"), "1"),
    ],
    "pods_are_restricted": [
        (RUNTIME, (*POD, "spec", "hostNetwork"), True),
        (RUNTIME, (*POD, "spec", "automountServiceAccountToken"), GONE),
        (RUNTIME, (*POD, "spec", "securityContext", "runAsUser"), 0),
        (
            RUNTIME,
            (*POD, "spec", "volumes", 0),
            {"name": "x", "hostPath": {"path": "/"}},
        ),
        (RUNTIME, (*POD, "spec", "volumes", 0, "emptyDir"), {}),
        (RUNTIME, (*NODE, "ports"), [{"containerPort": 1, "hostPort": 1}]),
        *(
            (RUNTIME, (*NODE, "securityContext", field), value)
            for field, value in {
                "allowPrivilegeEscalation": GONE,
                "readOnlyRootFilesystem": False,
                "runAsNonRoot": GONE,
                "privileged": True,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                "seccompProfile": {"type": "Unconfined"},
            }.items()
        ),
    ],
    "containers_are_bounded": [
        (RUNTIME, (*NODE, "resources"), GONE),
        (RUNTIME, (*NODE, "resources", "limits", "ephemeral-storage"), GONE),
        (RUNTIME, (*NODE, "resources", "requests", "cpu"), GONE),
    ],
    "the_mesh_stays_out": [
        (RUNTIME, (*POD, "metadata", "labels", "sidecar.istio.io/inject"), GONE),
        (RUNTIME, (*POD, "metadata", "annotations"), {}),
    ],
    "roles_are_least": [
        ("RoleBinding/safescale-pipeline", ("kind",), "ClusterRoleBinding"),
        (RUN, ("rules", 0, "resourceNames"), GONE),
        (RUN, ("rules", 1, "verbs"), ["get", "list"]),
        (RUN, ("rules", 1, "resourceNames"), ["safescale-registry"]),
        (RUN, ("rules", 2, "verbs"), ["get", "list", "create"]),
        (RUN, ("rules", 2, "resources"), ["pods", "pods/exec"]),
        (RUN, ("rules", 6, "verbs"), ["*"]),
        (RUN, ("rules", 6, "resources"), ["*"]),
        (CI, ("rules", 3, "resourceNames"), GONE),
        (CI, ("rules", 3, "verbs"), ["impersonate"]),
        (VIEWER, ("rules", 2, "verbs"), ["get", "readArtifact"]),
        (VIEWER, ("rules", 3, "resources"), ["pods", "secrets"]),
    ],
    "what_a_run_writes_is_guarded": [
        (f"{POLICY}/safescale-results", ("metadata", "name"), "another"),
        (f"{POLICY}/safescale-results", ("spec", "failurePolicy"), "Ignore"),
        (
            f"{POLICY}Binding/safescale-trainjobs",
            ("spec", "validationActions"),
            ["Warn"],
        ),
        (
            f"{POLICY}/safescale-trainjobs",
            (*("spec", "matchConstraints", "resourceRules", 0), "operations"),
            ["CREATE"],
        ),
        (RUN, ("rules", 2, "verbs"), ["get", "list", "patch"]),
    ],
    "the_namespace_is_restricted": [
        *(
            ("Namespace/safescale", ("metadata", "labels", name), value)
            for name, value in {
                "pod-security.kubernetes.io/enforce": "baseline",
                "pod-security.kubernetes.io/warn-version": GONE,
                "pipelines.kubeflow.org/enabled": GONE,
                # As kustomize's own label once made it.
                "app.kubernetes.io/part-of": "safescale-ammt",
            }.items()
        ),
    ],
    "the_network_is_shut": [
        ("NetworkPolicy/default-deny", ("spec", "egress"), [{}]),
        ("NetworkPolicy/default-deny", ("spec", "policyTypes"), ["Ingress"]),
        ("NetworkPolicy/names", ("spec", "egress", 0, "ports"), GONE),
        ("NetworkPolicy/names", ("spec", "egress", 0, "to"), GONE),
        (
            "NetworkPolicy/kubernetes-api",
            ("spec", "egress", 0, "to", 0, "ipBlock", "cidr"),
            "0.0.0.0/0",
        ),
    ],
    "the_namespace_is_bounded": [
        ("ResourceQuota/safescale", ("spec", "hard", "requests.cpu"), GONE),
        (
            "LimitRange/safescale",
            ("spec", "limits", 0, "default", "ephemeral-storage"),
            GONE,
        ),
    ],
    "secrets_lie_apart": [("ConfigMap/kfp-launcher", ("kind",), "Secret")],
}
"""Rule -> changes to the Kueue overlay, each of which it must catch alone."""
CASES = [(rule, change) for rule, changes in BROKEN.items() for change in changes]


@pytest.mark.parametrize(("rule", "change"), CASES, ids=[r for r, _ in CASES])
def test_a_rule_catches_what_breaks_it(rule, change):
    (tested,) = [r for r in (*SHAPE, *security.RULES) if r.__name__ == rule]
    objects = shipped() if tested in security.RULES else None
    whole = objects["overlays/kueue"] if objects else with_secrets("overlays/kueue")
    assert complaints([tested], broken(whole, change)), change


def test_no_rule_is_without_an_example_that_breaks_it():
    assert set(BROKEN) == {rule.__name__ for rule in (*SHAPE, *security.RULES)}


def test_an_example_that_breaks_nothing_is_an_error():
    with pytest.raises(KeyError):
        broken(shipped()["base"], ("ConfigMap/kfp-launcher", ("spec", "x"), 1))


def test_the_templates_of_the_secrets_hold_no_value():
    for secret in shipped()["secrets"]:
        left = list(security.nothing_is_left_to_replace([secret]))
        assert left, f"{secret['metadata']['name']} has a real value?"
    found = {secret["metadata"]["name"] for secret in shipped()["secrets"]}
    assert found == security.SECRETS


def test_the_accounts_of_training_and_of_ci_are_no_way_into_a_run():
    """TrainJob pods have no Role at all; CI cannot act as a run in the cluster."""
    bound = {
        subject["name"]: binding["roleRef"]["name"]
        for binding in shipped()["base"]
        if binding["kind"] == "RoleBinding"
        for subject in binding["subjects"]
    }
    assert bound == {
        name: name for name in ("safescale-pipeline", "safescale-operator")
    }


def test_beside_kfps_own_servers_only_what_concerns_our_pods_is_left():
    kinds = [o["kind"] for o in shipped()["overlays/local"]]
    assert sorted(kinds) == [
        "Role",
        "RoleBinding",
        "ServiceAccount",
        "ServiceAccount",
        "TrainingRuntime",
        # Of the whole cluster, and about our account alone.
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicyBinding",
    ]


def test_a_run_has_the_rights_that_trainjobs_need():
    """What `safescale_ammt.cluster` says it does, the Role allows, and no more."""
    (role,) = [
        o
        for o in shipped()["base"]
        if o["kind"] == "Role" and o["metadata"]["name"] == "safescale-pipeline"
    ]
    allowed = {
        (verb, group, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    needed = {(a.verb, a.group, a.resource) for a in ACCESS}
    assert needed <= allowed
    kfps_own = {
        ("get", "", "configmaps"),
        ("get", "", "secrets"),
        ("create", "argoproj.io", "workflowtaskresults"),
        ("patch", "argoproj.io", "workflowtaskresults"),
    }
    assert allowed - needed == kfps_own


def test_one_name_renames_the_namespace_with_every_component(tmp_path):
    """As the docs say: a copy of the overlay, another name, components listed there."""
    manifests = copy_manifests(tmp_path)
    copied = manifests / "overlays" / "ml-research"
    shutil.copytree(manifests / "overlays" / "team", copied)
    for file in (copied / "kustomization.yaml", copied / "secrets/kustomization.yaml"):
        text = file.read_text(encoding="utf-8").replace("team", "ml-research")
        if file.parent == copied:
            # A queue's quota of GPUs comes after the queue.
            several = set(COMPONENTS) - {"tpu"}  # of which no queue knows
            order = sorted(several, key=lambda name: name != "kueue")
            listed = "".join(f"  - ../../components/{name}\n" for name in order)
            text += f"components:\n{listed}"
        file.write_text(text, encoding="utf-8")
    objects = [*build(copied), *build(copied / "secrets")]
    assert complaints(SHAPE, objects) == []
    spaced = [o for o in objects if o["kind"] not in CLUSTER_WIDE]
    assert {o["metadata"]["namespace"] for o in spaced} == {"ml-research"}
    wide = [o for o in objects if o["kind"] in CLUSTER_WIDE]
    assert [called(o) for o in wide if "namespace" in o["metadata"]] == []
    selected = [
        text
        for thing in objects
        if thing["kind"] in {"ClusterQueue", *_BINDINGS}
        for text in texts(thing["spec"])
        if text in {"safescale-ammt", "team", "ml-research"}
    ]
    assert selected == ["ml-research"] * len(selected)
    assert len(selected) >= 3


@pytest.mark.parametrize("name", COMPONENTS)
def test_what_a_component_adds_can_be_deleted_by_its_files(name):
    """Going back leaves it there: the docs name each file."""
    folder = ROOT / "manifests" / "components" / name
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = kustomization.get("resources", [])
    there = {
        called(thing)
        for file in files
        for thing in yaml.safe_load_all((folder / file).read_text(encoding="utf-8"))
    }
    base = {called(thing) for thing in shipped()["base"]}
    assert {called(o) for o in shipped()[f"components/{name}"]} - base == there
    docs = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    assert all(f"-f manifests/components/{name}/{file}" in docs for file in files)


def test_the_quota_holds_as_many_trainings_as_the_docs_say():
    """The numbers of a pod are those of a real plane, where six pods were counted."""
    (limits,) = [o for o in shipped()["base"] if o["kind"] == "LimitRange"]
    (quota,) = [o for o in shipped()["base"] if o["kind"] == "ResourceQuota"]
    train = {"cpu": "2", "memory": "4Gi"}
    charge = charge_of(train, train, limits["spec"]["limits"])
    beside = {
        k: charge[k] - amount(train[k.split(".")[1]])
        for k in charge
        if k.split(".")[-1] in train
    }
    assert beside == {
        "requests.cpu": amount("50m"),
        "requests.memory": amount("64Mi"),
        "limits.cpu": amount("500m"),
        "limits.memory": amount("512Mi"),
    }
    assert charge["limits.ephemeral-storage"] == amount("16Gi")
    assert charge["requests.ephemeral-storage"] == amount("1Gi")
    assert most_at_once(quota["spec"]["hard"], charge) == 15
    docs = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    assert "**15 trainings\nof two CPUs at once**" in docs


_BINDINGS = ("MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicyBinding")


def test_read_only_roots_are_insisted_on_only_where_they_are_made():
    """Below Kubernetes 1.36 `apply` leaves out what makes them, and goes on.

    So what refuses writable ones waits for a label that nobody sets before.
    """
    objects = shipped()["components/read-only-root"]
    (binding,) = [
        o
        for o in objects
        if o["kind"] == "ValidatingAdmissionPolicyBinding"
        and o["metadata"]["name"] == "safescale-read-only-root"
    ]
    wanted = binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    (space,) = [o for o in objects if o["kind"] == "Namespace"]
    labels = {**space["metadata"]["labels"], "kubernetes.io/metadata.name": "safescale"}
    assert not wanted.items() <= labels.items()
    command = "kubectl label namespace safescale safescale-ammt/read-only-root=insist"
    assert command in (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    name, _, value = command.rsplit(maxsplit=1)[-1].partition("=")
    assert wanted.items() <= {**labels, name: value}.items()


def test_gpus_through_a_queue_have_a_quota_there(tmp_path):
    manifests = copy_manifests(tmp_path)
    built = build(compose(manifests, base="base", components=("kueue", "gpu")))
    (queue,) = [o for o in built if o["kind"] == "ClusterQueue"]
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    quota = {r["name"]: r["nominalQuota"] for r in flavor["resources"]}
    assert quota["nvidia.com/gpu"] == "4"  # with 0 a job would wait for a day


ASKED_OF_VIEWERS = {
    *(
        (f"{kind}.pipelines.kubeflow.org", verb)
        for kind in ("runs", "pipelines", "experiments", "jobs")
        for verb in ("get", "list")
    ),
    ("runs.pipelines.kubeflow.org", "readArtifact"),
    ("viewers.kubeflow.org", "get"),
}
"""What KFP asks for a page with a report or a log (backend/src/apiserver/server,
frontend/server/handlers, 2.17.0)."""


def test_a_viewer_sees_reports_and_logs_and_changes_nothing():
    (role,) = [o for o in shipped()["base"] if called(o) == VIEWER]
    allowed = {
        (f"{resource}.{group}".rstrip("."), verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed >= ASKED_OF_VIEWERS
    assert {("pods/log", "get"), ("pods", "list"), ("events", "list")} <= allowed
    assert {verb for _, verb in allowed} == {"get", "list", "readArtifact"}
    assert not {what for what, _ in allowed} & {"secrets", "configmaps"}


CALLS = {
    "pipeline_service": "pipelines",
    "pipeline_version": "pipelines/versions",
    "experiment_service": "experiments",
    "recurring_run_service": "jobs",
    "run_service": "runs",
}
"""Service of KFP's API -> the resource that it asks the cluster's RBAC about."""


def test_ci_has_the_rights_that_its_commands_need():
    """Each call of `pipelines.kubeflow` is allowed; what is more only reads."""
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "pipelines" / "kubeflow").glob("*.py")
    )
    calls = set(re.findall(r"\.(\w+)_service_([a-z]+)_(\w+)", source))
    needed = {("pipelines", "create"), ("pipelines/versions", "create")}
    for service, verb, what in calls:
        version = what.startswith("pipeline_version")
        name = "pipeline_version" if version else f"{service}_service"
        needed.add((CALLS[name], verb))
    (role,) = [
        o
        for o in shipped()["base"]
        if o["kind"] == "Role" and o["metadata"]["name"] == "safescale-operator"
    ]
    allowed = {
        (resource, verb)
        for rule in role["rules"]
        if rule["apiGroups"] == ["pipelines.kubeflow.org"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert len(needed) > 10
    assert needed <= allowed
    assert {verb for _, verb in allowed - needed} <= {"get", "list"}
