"""Who may not do what is said, by KFP's own answer, with the Role that would do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kfp_api.server import KfpApi

from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.denials import denial, hint_of_upload
from pipelines.kubeflow.session import Session
from safescale_ammt.errors import InputError
from safescale_ammt.retry import RetryPolicy

CALLER = "system:serviceaccount:safescale:safescale-operator"
ROLE = "bind it to the Role safescale-operator of manifests/base, or to kubeflow-edit."
ASKED = (
    "User 'system:serviceaccount:safescale:safescale-training' is not authorized with "
    "reason:  (request: &ResourceAttributes{Namespace:safescale,Verb:get,"
    "Group:pipelines.kubeflow.org,Version:v1beta1,Resource:runs,Subresource:,"
    "Name:safescale-train-xmsc2,FieldSelector:nil,LabelSelector:nil,})"
)
RECORDED = {
    "code": 7,
    "message": "Failed to get a run: Failed to authorize the request: Failed to access "
    "run 5ae6666e-6179-4883-a304-a67afc0fcfcf. Check if you have access to namespace "
    f"safescale: PermissionDenied: {ASKED}: Unauthorized access",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.Status", "code": 7, "message": ASKED}
    ],
}
"""What a real KFP answered to an account without rights."""


@pytest.fixture
def kubeflow(tmp_path: Path):
    """A session whose token may use namespace `team` alone."""
    with KfpApi(tokens={"t0ken": ("team",)}) as api:
        api.world.multi_user = True
        token = tmp_path / "token"
        token.write_text("t0ken")
        session = Session(api.url, "others", token_file=token)
        yield Kubeflow(session, RetryPolicy(total=0))


def test_the_recorded_answer_says_who_may_not_do_what():
    assert denial(json.dumps(RECORDED)) == (
        "system:serviceaccount:safescale:safescale-training may not get runs in "
        "namespace 'safescale'"
    )


def test_a_part_of_a_resource_is_named_with_it():
    told = ASKED.replace("Resource:runs,Subresource:,", "Resource:a,Subresource:b,")
    assert denial(told).endswith("may not get a/b in namespace 'safescale'")
    assert denial("{}") == ""


def test_whose_call_is_refused_learns_which_right_lacks(kubeflow):
    with pytest.raises(InputError) as error:
        kubeflow.call(
            "listing runs", kubeflow.runs.run_service_list_runs, namespace="others"
        )
    said = str(error.value)
    assert f": {CALLER} may not list runs in namespace 'others'; {ROLE}" in said
    assert len(said) < 300


def test_a_refusal_that_names_nobody_is_quoted(kubeflow):
    class Answer:
        status, body = 403, json.dumps({"message": "RBAC: access denied"})

    told = str(kubeflow._rejection("listing runs", Answer()))
    assert f"in namespace 'others': RBAC: access denied; {ROLE}" in told


@pytest.mark.parametrize("what", ["pipeline", "pipeline_version"])
def test_an_upload_without_rights_says_what_may_lack(kubeflow, tmp_path, what):
    file = tmp_path / "pipeline.yaml"
    file.write_text("x")
    more = (
        {"pipelineid": "1"} if what == "pipeline_version" else {"namespace": "others"}
    )
    with pytest.raises(InputError) as error:
        kubeflow.call_once(
            "uploading",
            getattr(kubeflow.uploads, f"upload_{what}"),
            uploadfile=str(file),
            name="a",
            **more,
        )
    said = str(error.value)
    assert "where the caller may not create pipelines or pipelines/versions" in said
    assert said.endswith(ROLE)


@pytest.mark.parametrize(
    ("status", "reason", "hinted"),
    [
        (400, ": Failed to create a pipeline", True),
        (400, ": Failed to create a pipeline version", True),
        (400, ": Failed to create a pipeline version: the spec is broken", False),
        (409, ": Failed to create a pipeline", False),
        (400, "", False),
    ],
)
def test_a_reason_of_its_own_gets_no_hint(status, reason, hinted):
    assert bool(hint_of_upload(status, reason)) is hinted
