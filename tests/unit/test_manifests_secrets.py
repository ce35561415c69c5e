"""The templates of the secrets, filled in, are environments that the library takes."""

from __future__ import annotations

import pytest
from policy.objects import MANIFESTS

from safescale_ammt.errors import InputError, StoreInputError
from safescale_ammt.releasing import notice
from safescale_ammt.store.environment import (
    SECRET_KEYS,
    registry_store,
    registry_variable,
)
from safescale_ammt.store.s3_access import Renewing, connect
from safescale_ammt.store.s3_retry import S3_RETRY

STORES = ("store", "registry", "training", "datasets")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def template(name):
    """Returns a template as a pod would get it, with its placeholders replaced."""
    path = MANIFESTS / "secrets" / f"{name}.env.example"
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=")[::2] for line in lines if not line.startswith("#")]
    return {key: value.replace("REPLACE-ME", "abc") for key, value in pairs}


def provider(environ):
    """Returns where the client takes its credentials from; contacts nobody."""
    return connect(environ, "abc", S3_RETRY).plain._provider


@pytest.mark.parametrize("name", STORES)
def test_a_stores_template_has_exactly_the_keys_that_the_pipeline_takes(name):
    assert set(template(name)) == set(SECRET_KEYS)


def test_the_template_of_the_exit_task_has_exactly_the_keys_that_it_reads():
    assert set(template("notify")) == {notice.WEBHOOK, notice.SECRET, notice.FILE}


@pytest.mark.parametrize("name", STORES)
def test_filled_in_its_keys_are_used(name):
    credentials = provider(template(name)).retrieve()
    assert credentials.access_key == "abc"
    assert credentials.secret_key == "abc"


def test_with_both_keys_left_empty_the_pods_role_is_used(tmp_path):
    """As `components/irsa` says; EKS sets these two variables in the pod."""
    environ = template("store") | dict.fromkeys(KEYS, "") | {"AWS_ENDPOINT_URL": ""}
    environ["AWS_WEB_IDENTITY_TOKEN_FILE"] = str(tmp_path / "token")
    environ["AWS_ROLE_ARN"] = "arn:aws:iam::000000000000:role/x"
    assert isinstance(provider(environ), Renewing)


def test_a_key_in_the_registrys_secret_goes_before_the_role(tmp_path):
    """So the gate alone writes the registry, though all stages have one role."""
    role = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
    data = template("store") | dict.fromkeys(KEYS, "")
    own = {registry_variable(k): v for k, v in template("registry").items()}
    store = registry_store({**role, **data, **own})
    assert store.uri == "s3://abc/registry"
    assert provider({**role, **template("registry")}).retrieve().access_key == "abc"


@pytest.mark.parametrize("key", KEYS)
def test_one_key_left_empty_is_one_sentence(key):
    with pytest.raises(StoreInputError, match=f"{key} is not set"):
        provider(template("store") | {key: ""})


def test_a_place_left_empty_is_one_sentence():
    with pytest.raises(InputError, match="SAFESCALE_STORE is not set"):
        registry_store(template("store") | {"SAFESCALE_STORE": ""})
