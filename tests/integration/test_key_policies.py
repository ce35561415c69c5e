"""The documented policy of each key opens its prefixes, and nothing else.

The one for SeaweedFS on a real SeaweedFS, that for AWS worked out as AWS does.
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from sick_store import KEYS, sick_store

from pipelines.cli import run_command
from pipelines.kubeflow.doctor.checks import Fault, Unknown
from pipelines.kubeflow.doctor.doctor import PROBES
from pipelines.kubeflow.doctor.shut import check_shut
from safescale_ammt.errors import InputError, SafescaleError, StoreInputError
from safescale_ammt.store.auditor import committed, kept_for_auditor, place_of
from safescale_ammt.store.base import Store
from safescale_ammt.store.embedded.seaweedfs import command, free_ports, listens
from safescale_ammt.store.uri import open_store

POLICIES = Path(__file__).parents[2] / "manifests" / "secrets" / "policies"
BUCKET = "team"
OPENS = {
    "safescale-store": ("auditor", "data", "datasets", "ledger", "runs", "sealed"),
    "safescale-registry": ("registry",),
    "safescale-training": ("training",),
    "safescale-datasets": (),
    # No secret of a pod: a person's.
    "safescale-auditor": (),
}
READS = {
    "safescale-store": ("research-ledger",),
    "safescale-datasets": ("datasets",),
    "safescale-auditor": ("auditor", "ledger", "research-ledger", "registry"),
}
PREFIXES = (
    *("data", "ledger", "runs", "sealed", "research-ledger", "registry", "training"),
    *("auditor", "datasets", "private-artifacts", "sealed-2", "data2"),
)
CASES = [(key, prefix) for key in OPENS for prefix in PREFIXES]


def filled(file: str) -> str:
    """Returns a policy with its placeholders replaced."""
    text = (POLICIES / file).read_text(encoding="utf-8")
    return text.replace("REPLACE-ME/", f"{BUCKET}/").replace("REPLACE-ME", BUCKET)


@dataclass
class Server:
    """A SeaweedFS with the documented identities, and one more that may do all."""

    endpoint: str

    def environ(self, key: str) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": f"secret-of-{key}",
        }

    def open(self, key: str) -> Store:
        return open_store(f"s3://{BUCKET}", environ=self.environ(key))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("weed")
    identities = json.loads(filled("seaweedfs.json"))["identities"]
    everything = ["Admin", "Read", "Write", "List"]
    identities.append({"name": "admin", "actions": everything})
    reads = [f"Read:{BUCKET}/auditor/*"]
    identities.append({"name": "reader", "actions": reads})
    for identity in identities:
        name = identity["name"]
        keys = {"accessKey": name, "secretKey": f"secret-of-{name}"}
        identity["credentials"] = [keys]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    ports = free_ports(5)
    arguments = [*command(folder / "data", BUCKET, ports), f"-s3.config={config}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        found = Server(f"http://127.0.0.1:{ports[3]}")
        while not listens(ports[3]):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        ends, ready = time.monotonic() + 60, False
        while not ready and time.monotonic() < ends:
            with suppress(SafescaleError):  # the bucket is made after it listens
                found.open("admin").put("ready", b"x")
                ready = True
        for prefix in PREFIXES:
            found.open("admin").put(f"{prefix}/there", b"x")
        yield found
    finally:
        process.terminate()
        process.wait()


def may(call: Callable[[], object]) -> bool:
    """Says whether a call is allowed; what is not there is no refusal."""
    try:
        call()
    except StoreInputError as error:
        if "do not permit" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(("key", "prefix"), CASES)
def test_a_key_of_seaweedfs_opens_its_prefixes_alone(server, key, prefix):
    store, own = server.open(key), prefix in OPENS[key]
    reads = own or prefix in READS.get(key, ())
    place = f"{prefix}/{uuid.uuid4().hex}"
    assert may(lambda: store.get(f"{prefix}/there")) is reads
    assert may(lambda: store.exists(f"{prefix}/there")) is reads
    assert may(lambda: store.exists(f"{prefix}/absent")) is reads
    assert may(lambda: list(store.list(f"{prefix}/"))) is reads
    assert may(lambda: store.put(place, b"x")) is own
    assert may(lambda: store.put(f"{place}-2", b"x", if_absent=True)) is own


@pytest.mark.parametrize("key", OPENS)
def test_no_key_of_seaweedfs_lists_the_bucket(server, key):
    store = server.open(key)
    assert not may(lambda: list(store.list()))
    assert not may(lambda: list(store.list("seal")))


def test_what_is_absent_is_so_for_a_key_of_one_prefix(server):
    """Such a key may not ask about its bucket: a listing tells."""
    assert server.open("safescale-training").stat("training/absent") is None
    assert server.open("safescale-training").stat("training/there") is not None
    lost = open_store(
        "s3://another-bucket/training",
        environ={
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ACCESS_KEY_ID": "admin",
            "AWS_SECRET_ACCESS_KEY": "secret-of-admin",
        },
    )
    with pytest.raises(SafescaleError, match="bucket another-bucket does not exist"):
        lost.stat("absent")


def test_the_figures_behind_an_answer_are_read_by_the_auditor_and_nobody_else(server):
    """Of all keys that people and pods have: judge and gate write them."""
    admin, answer = server.open("admin"), f"sha256:{7:064x}"
    admin.put(f"{place_of(answer)}/manifest.json", b"{}")
    for key in OPENS:
        with (
            pytest.raises((StoreInputError, InputError)) as refused,
            kept_for_auditor(server.open(key), answer),
        ):
            pass
        reads = key in ("safescale-store", "safescale-auditor")
        # Who may read is told that this is no verdict, others that they may not.
        assert ("do not permit" in str(refused.value)) is not reads, key
        assert ("and the auditor's" in str(refused.value)) is not reads, key
    # What binds the ledger to them is drawn by the judge's key, and by no other.
    with pytest.raises(StoreInputError, match="do not permit"):
        committed(server.open("safescale-registry"), answer)
    first = committed(server.open("safescale-store"), answer)
    assert first == committed(server.open("safescale-auditor"), answer) != answer


def allowed(key: str, action: str, place: str) -> bool:
    """Works out a policy of AWS: what no statement allows is denied.

    Args:
        key: whose policy.
        action: such as GetObject; for ListBucket `place` is the prefix asked for.
        place: an object's key.
    """
    bucket = f"arn:aws:s3:::{BUCKET}"
    lists = action == "ListBucket"
    resource = bucket if lists else f"{bucket}/{place}"
    for statement in json.loads(filled(f"{key}.aws.json"))["Statement"]:
        assert statement["Effect"] == "Allow"
        wanted = statement.get("Condition", {}).get("StringLike", {})
        assert wanted.keys() <= {"s3:prefix"}
        fits = any(fnmatchcase(place, p) for p in wanted.get("s3:prefix", ["*"]))
        if (
            f"s3:{action}" in statement["Action"]
            and any(fnmatchcase(resource, r) for r in statement["Resource"])
            and (fits or not lists)
        ):
            return True
    return False


@pytest.mark.parametrize(("key", "prefix"), CASES)
def test_a_key_of_aws_opens_its_prefixes_alone(key, prefix):
    own = prefix in OPENS[key]
    reads = own or prefix in READS.get(key, ())
    assert allowed(key, "GetObject", f"{prefix}/x") is reads
    assert allowed(key, "ListBucket", f"{prefix}/") is reads
    assert allowed(key, "ListBucket", f"{prefix}/x") is reads
    assert allowed(key, "PutObject", f"{prefix}/x") is own
    # Nothing of a book or of the registry can be deleted with the key that writes it.
    deletes = key == prefix.replace("training", "safescale-training")
    assert allowed(key, "DeleteObject", f"{prefix}/x") is deletes


@pytest.mark.parametrize("key", OPENS)
def test_no_key_of_aws_lists_the_bucket(key):
    for prefix in ("", "s", "seal", "data"):
        assert not allowed(key, "ListBucket", prefix)


def test_the_probe_of_the_doctor_lies_where_its_key_writes_and_deletes():
    for action in ("PutObject", "GetObject", "DeleteObject"):
        assert allowed("safescale-store", action, f"{PROBES}/x")


def the_store(capsys, monkeypatch, uri: str, environ: dict[str, str]) -> dict[str, str]:
    """Asks the doctor about a store; nothing else is there."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    host = ("--host", "http://127.0.0.1:9", "--patience", "0")
    assert run_command(["doctor", "--json", *host, "--store", uri]) == 2
    findings: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return next(found for found in findings if found["check"] == "store")


@pytest.mark.parametrize("key", OPENS)
def test_the_doctor_is_content_with_the_key_of_data_and_quotes_the_refused_write(
    server, capsys, monkeypatch, key
):
    environ = server.environ(key)
    found = the_store(capsys, monkeypatch, f"s3://{BUCKET}", environ)
    if key == "safescale-store":
        assert found["state"] == "ok"
        assert not list(server.open("admin").list(PROBES))
        return
    assert found["state"] == "FAILED"
    assert found["found"].startswith(f"writing s3://{BUCKET}/{PROBES}/")


@dataclass
class Given:
    """Secrets of a namespace, by the keys that they hold."""

    keys: dict[str, str]
    store: str = f"s3://{BUCKET}"

    def of_others(self) -> dict[str, dict[str, str]]:
        return {
            name: {
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": key and f"secret-of-{key}",
            }
            for name, key in self.keys.items()
        }


def shut(server: Server, **keys: str) -> str:
    environ = {**server.environ("safescale-store"), "AWS_SESSION_TOKEN": "mine"}
    named = {name.replace("_", "-"): key for name, key in keys.items()}
    return check_shut(Given(named), environ)  # type: ignore[arg-type]


def test_the_doctor_tries_whether_other_keys_open_what_is_sealed(server):
    documented = {
        name.replace("-", "_"): name
        for name in ("safescale-registry", "safescale-training", "safescale-datasets")
    }
    told = shut(server, **documented)
    assert "safescale-training, safescale-datasets open neither sealed/ nor aud" in told
    # Each of them by a key that opens too much, one prefix or both.
    for name, key, opened in (
        ("safescale_training", "safescale-auditor", "auditor/"),
        ("safescale_datasets", "admin", "sealed/"),
        ("safescale_registry", "safescale-store", "sealed/"),
    ):
        with pytest.raises(Fault, match=f"{name.replace('_', '-')} opens {opened}"):
            shut(server, **{**documented, name: key})
    # A key that may read what it cannot list is one too.
    committed(server.open("safescale-store"), "sha256:0")
    with pytest.raises(Fault, match="opens auditor/"):
        shut(server, safescale_training="reader")
    assert shut(server, safescale_training="unknown-to-the-store")
    with pytest.raises(Unknown, match="has a key that could be tried"):
        shut(server, safescale_training="")


def test_a_key_that_may_not_delete_is_no_fault_and_its_probe_is_named(
    capsys, monkeypatch
):
    with sick_store(
        "well", "well", "412 PreconditionFailed", "403 AccessDenied"
    ) as ill:
        environ = {**KEYS, "AWS_ENDPOINT_URL": ill.endpoint}
        found = the_store(capsys, monkeypatch, "s3://bucket", environ)
    assert found["state"] == "ok"
    assert "a probe stays there: deleting s3://bucket/runs/doctor/" in found["found"]


def test_every_key_of_a_store_has_a_policy_of_each_kind():
    named = {i["name"] for i in json.loads(filled("seaweedfs.json"))["identities"]}
    assert named == set(OPENS)
    files = {path.name for path in POLICIES.glob("*.aws.json")}
    assert files == {f"{key}.aws.json" for key in OPENS}
