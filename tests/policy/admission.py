"""ValidatingAdmissionPolicies, evaluated as the API server does, by Google's own CEL.

What k8s.io/apiserver 0.30 to 0.37 does in pkg/admission/plugin/policy/validating is
done here: rules that match a request, conditions, variables, validations, and what an
error means. Expressions are compiled with types: `object`, `oldObject` and
`namespaceObject` are of any type, and each variable has the type of its expression.

What is not done: selectors of objects and by expressions, parameters, and the counting
of cost, whose end is an error there, hence a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from policy import Object
from policy.objects import of_kind

_INPUTS = ("object", "oldObject", "request", "namespaceObject")
_POD = "authentication.kubernetes.io/pod-"
OF_A_REQUEST = {
    "request.operation",
    "request.namespace",
    "request.subResource",
    "request.userInfo.username",
    "request.userInfo.extra",
}
"""Fields of `request` that our expressions use; another would be no field there."""
SINCE_1_30 = {
    *("matches", "startsWith", "endsWith", "contains", "replace", "substring"),
    *("all", "exists", "filter", "has", "size", "lastIndexOf", "dyn", "type"),
}
"""Functions that our expressions use; CEL of Kubernetes 1.30 has each of them."""


@dataclass(frozen=True)
class Request:
    """One request, as admission sees it: after authorisation and mutating webhooks."""

    resource: str
    """With its group: trainjobs.trainer.kubeflow.org."""
    operation: str = "CREATE"
    object: Object | None = None
    old: Object | None = None
    user: str = "system:serviceaccount:safescale:safescale-pipeline"
    pod: tuple[str, str] | None = None
    """Name and uid of the pod that the token was made for; None = for none."""
    namespace: str = "safescale"
    subresource: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    """Those of the namespace."""
    labels: dict[str, str] = field(default_factory=dict)
    """Those of the namespace, beside its name."""

    def inputs(self) -> dict[str, Any]:
        """Returns CEL's variables; what is empty is left out, as Go leaves it out."""
        user: Object = {"username": self.user, "extra": {}}
        if self.pod:
            name, uid = self.pod
            user["extra"] = {f"{_POD}name": [name], f"{_POD}uid": [uid]}
        request = {
            "operation": self.operation,
            "namespace": self.namespace,
            "subResource": self.subresource,
            "userInfo": {k: v for k, v in user.items() if v},
        }
        metadata = {
            "name": self.namespace,
            "annotations": self.annotations,
            "labels": self.labels,
        }
        return {
            "object": self.object,
            "oldObject": self.old,
            "request": {k: v for k, v in request.items() if v},
            "namespaceObject": {"metadata": {k: v for k, v in metadata.items() if v}},
        }


class Policy:
    """One policy, and whether a binding makes it deny."""

    def __init__(self, thing: Object, bindings: list[Object]) -> None:
        self.name: str = thing["metadata"]["name"]
        self.spec: Object = thing["spec"]
        self.bindings = [
            b["spec"]
            for b in bindings
            if b["spec"]["policyName"] == self.name
            and "Deny" in b["spec"]["validationActions"]
        ]

    @cached_property
    def compiled(self) -> dict[str, cel.Expression]:
        """Every expression by its text; one that does not compile is an error."""
        types = dict.fromkeys(_INPUTS, cel.Type.DYN)
        found = {}
        conditions = self.spec.get("matchConditions", [])
        for variable in self.spec.get("variables", []):
            expression = _compile(variable["expression"], types)
            found[variable["expression"]] = expression
            types[f"variables.{variable['name']}"] = expression.return_type()
        for each in (*conditions, *self.spec["validations"]):
            expression = _compile(each["expression"], types)
            assert expression.return_type() == cel.Type.BOOL, each["expression"]
            found[each["expression"]] = expression
        return found

    def matches(self, request: Request) -> bool:
        """Says whether the policy denies at all here, and is about what is asked."""
        plural, _, group = request.resource.partition(".")
        labels = {**request.labels, "kubernetes.io/metadata.name": request.namespace}
        return any(_selects(b, labels) for b in self.bindings) and any(
            {group, "*"} & set(rule["apiGroups"])
            and {request.operation, "*"} & set(rule["operations"])
            and _named(plural, request.subresource) & set(rule["resources"])
            for rule in self.spec["matchConstraints"]["resourceRules"]
        )

    def refusals(self, request: Request) -> list[str]:
        """Returns the messages of all that refuses, [] if the request may go on."""
        if not self.matches(request):
            return []
        known = request.inputs()
        conditions = self.spec.get("matchConditions", [])
        values = [self._value(c["expression"], known) for c in conditions]
        if any(value is False for value in values):
            return []
        fails = self.spec.get("failurePolicy", "Fail") == "Fail"
        errors = [f"error: {v}" for v in values if isinstance(v, Exception)]
        if errors:
            return errors if fails else []
        for variable in self.spec.get("variables", []):
            value = self._value(variable["expression"], known)
            # One that cannot be computed is an error where it is used, not before.
            if not isinstance(value, Exception):
                known[f"variables.{variable['name']}"] = value
        said = []
        for each in self.spec["validations"]:
            value = self._value(each["expression"], known)
            if isinstance(value, Exception):
                said += [f"error: {value}"] if fails else []
            elif value is not True:
                said.append(each["message"])
        return said

    def _value(self, text: str, known: dict[str, Any]) -> Any:
        found = self.compiled[text].eval(data=known)
        if found.type() == cel.Type.ERROR:
            return ValueError(str(found.value()))
        return found.plain_value()


def _selects(binding: Object, labels: dict[str, str]) -> bool:
    """Says whether a binding is about a namespace with these labels."""
    selector = binding.get("matchResources", {}).get("namespaceSelector", {})
    assert selector.keys() <= {"matchLabels"}, selector
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _named(plural: str, sub: str) -> set[str]:
    """Returns the spellings by which a rule may mean a resource."""
    if not sub:
        return {plural, "*"}
    return {f"{plural}/{sub}", f"{plural}/*", f"*/{sub}", "*/*"}


def _compile(text: str, types: dict[str, cel.Type]) -> cel.Expression:
    functions = set(re.findall(r"\b([a-zA-Z]\w*)\(", _without_texts(text)))
    assert functions <= SINCE_1_30, functions - SINCE_1_30
    fields = set(re.findall(r"\brequest(?:\.[a-zA-Z]+)+", _without_texts(text)))
    assert all(f.removesuffix(".matches") in OF_A_REQUEST for f in fields), fields
    env = cel.NewEnv(variables=types, extensions=[ext_strings.ExtStrings()])
    return env.compile(text)


def _without_texts(text: str) -> str:
    """Returns an expression without its literals, whose words are no names."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", text)


def policies_of(objects: list[Object]) -> list[Policy]:
    """Returns the policies among objects, each with its bindings."""
    bindings = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    found = of_kind(objects, "ValidatingAdmissionPolicy")
    return [Policy(thing, bindings) for thing in found]


def loosened(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """Yields the message of each rule, and the policy without that rule."""
    for left_out in policy.spec["validations"]:
        kept = [each for each in policy.spec["validations"] if each is not left_out]
        thing = {"metadata": {"name": policy.name}}
        weaker = Policy(thing | {"spec": policy.spec | {"validations": kept}}, [])
        weaker.bindings = policy.bindings
        yield left_out["message"], weaker


def refusals(policies: list[Policy], request: Request) -> list[str]:
    """Returns what policies say against a request, in their order."""
    return [said for policy in policies for said in policy.refusals(request)]
