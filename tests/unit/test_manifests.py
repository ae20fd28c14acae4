"""Do the manifests agree with each other, with the image's scripts, and with the settings?"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from agent.config import DEFAULT_STATE_DIR
from agent.settings import Settings, load
from tests.cli_process import ROOT
from tests.daemonset import KUBECTL, named, render
from tests.servers.cri_api import Json
from tests.servers.nats import SERVER

BASE = ROOT / "deploy" / "kubernetes" / "base"
NAMESPACE = "checkpoint-agent"
SCRIPTS = "/usr/lib/checkpoint-agent/node/"
WORKLOADS = (("DaemonSet", "agent"), ("Deployment", "api"), ("StatefulSet", "nats"))
CLUSTER_WIDE = {"Namespace", "RuntimeClass", "ClusterRole", "ClusterRoleBinding"}

pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl, which has kustomize")


@pytest.fixture(scope="module")
def objects() -> list[Json]:
    """Of the example, which has all of it."""
    return render("examples/s3")


def _pod(objects: list[Json], kind: str, name: str) -> Json:
    spec: Json = named(objects, kind, name)["spec"]["template"]["spec"]
    return spec


def _containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _environment(container: Json, secret: str = "") -> dict[str, str]:
    """As kubelet would make it: a variable may stand for one before it."""
    found = {"spec.nodeName": "node.example", "metadata.uid": "1-2-3"}
    made: dict[str, str] = {}
    for each in container.get("env", []):
        source = each.get("valueFrom", {})
        text = each.get("value", "")
        if "fieldRef" in source:
            text = found.get(source["fieldRef"]["fieldPath"], "")
        elif "secretKeyRef" in source:
            text = secret
        made[each["name"]] = re.sub(r"\$\((\w+)\)", lambda match: made[match[1]], text)
    return made


def _settings(objects: list[Json], name: str, spec: Json, directory: Path) -> Settings:
    file = directory / f"{name}.toml"
    file.write_text(named(objects, "ConfigMap", name)["data"]["config.toml"])
    environ = _environment(spec["containers"][0])
    # A secret's value, which is not part of the manifests.
    secrets = [variable for variable, value in environ.items() if not value]
    return load(file, environ | dict.fromkeys(secrets, "secret"))


@pytest.fixture
def agent(objects: list[Json], tmp_path: Path) -> Settings:
    return _settings(objects, "agent", _pod(objects, "DaemonSet", "agent"), tmp_path)


@pytest.fixture
def api(objects: list[Json], tmp_path: Path) -> Settings:
    return _settings(objects, "api", _pod(objects, "Deployment", "api"), tmp_path)


def _ports(spec: Json) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in spec["containers"]
        for port in container.get("ports", [])
    }


def test_the_copy_that_the_guide_makes_is_whole(tmp_path: Path) -> None:
    """Its own words: a kustomization names others by where they lie."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    [source, target] = re.findall(r"(?m)^    cp -r (\S+) (\S+)", text)[0]
    applied = set(re.findall(r"(?m)^ +kubectl (?:apply|delete) -k (\S+)", text))
    assert len(applied) == 1
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "deploy").symlink_to(ROOT / "deploy")
    for words in (f"cp -r {source} {target}", f"{KUBECTL} kustomize {applied.pop()}"):
        done = subprocess.run(
            shlex.split(words), cwd=checkout, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "kind: DaemonSet" in done.stdout


def test_everything_is_in_one_namespace(objects: list[Json]) -> None:
    named(objects, "Namespace", NAMESPACE)
    elsewhere = [
        (each["kind"], each["metadata"]["name"])
        for each in objects
        if each["kind"] not in CLUSTER_WIDE and each["metadata"].get("namespace") != NAMESPACE
    ]
    assert elsewhere == []


@pytest.mark.parametrize(("kind", "name"), WORKLOADS)
def test_what_a_pod_names_is_there(objects: list[Json], kind: str, name: str) -> None:
    spec = _pod(objects, kind, name)
    maps = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    claims = {each["metadata"]["name"] for each in objects if each["kind"].endswith("VolumeClaim")}
    told = set(re.findall(r"^#   (\S+) ", (BASE / "kustomization.yaml").read_text(), re.M))
    # Kubernetes puts it into every namespace.
    maps.add("kube-root-ca.crt")
    if account := spec.get("serviceAccountName"):
        named(objects, "ServiceAccount", account)
    volumes = {volume["name"] for volume in spec["volumes"]}
    claimed = named(objects, kind, name)["spec"].get("volumeClaimTemplates", [])
    volumes |= {each["metadata"]["name"] for each in claimed}
    for container in _containers(spec):
        assert re.search(r":[\w.-]+$", container["image"]), "no tag"
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        script = container.get("command", [""])[0]
        if script.startswith(SCRIPTS):
            assert os.access(ROOT / "deploy" / "node" / script.removeprefix(SCRIPTS), os.X_OK)
    references = list(_references(spec))
    assert {name for kind, name in references if kind == "configMap"} <= maps
    assert {name for kind, name in references if kind == "claim"} <= claims
    assert {name for kind, name in references if kind == "secret"} <= told


def _references(value: object) -> Iterator[tuple[str, str]]:
    """ConfigMaps, Secrets and claims that a pod names, wherever it does."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    if isinstance(value, dict):
        for key, each in value.items():
            kinds = {"configMap": "configMap", "configMapKeyRef": "configMap",
                     "secretRef": "secret", "secretKeyRef": "secret"}  # fmt: skip
            if key in kinds:
                yield kinds[key], each["name"]
            elif key == "secret":
                yield "secret", each["secretName"]
            elif key == "persistentVolumeClaim":
                yield "claim", each["claimName"]
            yield from _references(each)


def test_roles_are_bound_to_accounts_of_this_namespace(objects: list[Json]) -> None:
    bindings = [each for each in objects if each["kind"] == "ClusterRoleBinding"]
    assert len(bindings) == 2
    for each in bindings:
        named(objects, "ClusterRole", each["roleRef"]["name"])
        for subject in each["subjects"]:
            assert subject["namespace"] == NAMESPACE
            named(objects, "ServiceAccount", subject["name"])


def test_roles_are_small(objects: list[Json]) -> None:
    verbs: dict[str, dict[str, set[str]]] = {}
    for each in objects:
        if each["kind"] == "ClusterRole":
            rules = verbs.setdefault(each["metadata"]["name"], {})
            for rule in each["rules"]:
                assert rule["apiGroups"] == [""]
                rules.update({kind: set(rule["verbs"]) for kind in rule["resources"]})
    # What agent/cluster asks for, and not a verb more.
    assert verbs == {
        "checkpoint-agent-agent": {"nodes": {"get", "watch"}},
        "checkpoint-agent-api": {"pods": {"create", "delete", "get"}, "events": {"list"}},
    }


def test_the_roles_are_those_that_the_guide_shows(objects: list[Json]) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    [shown] = re.findall(
        r"(?m)^    kind: ClusterRole\n    metadata.*\n    rules:\n((?:    .+\n)+)", text
    )
    rules = yaml.safe_load(textwrap.dedent(shown))
    given = named(objects, "ClusterRole", "checkpoint-agent-api")["rules"]
    assert _granted(rules) == _granted(given)


def _granted(rules: list[Json]) -> dict[str, set[str]]:
    return {kind: set(rule["verbs"]) for rule in rules for kind in rule["resources"]}


def test_the_agent_s_settings_are_some(objects: list[Json], agent: Settings) -> None:
    spec = _pod(objects, "DaemonSet", "agent")
    volumes = "/var/lib/kubelet/pods/1-2-3/volumes"
    token = f"{volumes}/kubernetes.io~secret/api-token"
    assert agent.restore.api_token_file == Path(f"{token}/token")
    assert agent.restore.api_ca == Path(f"{token}/ca.crt")
    assert agent.node.name == "node_example"
    assert agent.nats.password_file == Path(f"{volumes}/kubernetes.io~secret/nats/agent-password")
    assert agent.cluster.service_account_dir == Path(
        f"{volumes}/kubernetes.io~projected/service-account"
    )
    # `thaw --all` knows nothing of the configuration file; and the paths are those of everybody.
    assert agent.state_dir == DEFAULT_STATE_DIR
    default = load(Path(os.devnull), {})
    assert (agent.rpc, agent.pods) == (default.rpc, default.pods)
    assert agent.restore_socket == default.restore_socket
    assert agent.storage.store.startswith("s3://")
    port = int(agent.metrics.address.rpartition(":")[2])
    assert _ports(spec) == {"metrics": port}
    # What comes after that: a rollback (60 s), the last events (5 s), and `thaw --all` (30 s).
    assert spec["terminationGracePeriodSeconds"] > agent.stop_seconds + 60 + 5 + 30


def test_the_files_that_the_agent_reads_are_put_there(objects: list[Json], agent: Settings) -> None:
    spec = _pod(objects, "DaemonSet", "agent")
    [container] = spec["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    read = [
        _environment(container)["CHECKPOINT_AGENT_CONFIG"],
        str(agent.nats.password_file),
        f"{agent.cluster.service_account_dir}/token",
        f"{agent.cluster.service_account_dir}/ca.crt",
    ]
    for path in read:
        kind, name, file = path.removeprefix("/var/lib/kubelet/pods/1-2-3/volumes/").split("/")
        [source] = [key for key in volumes[name] if f"kubernetes.io~{key.lower()}" == kind]
        # kubelet leaves out what no container mounts.
        assert name in mounted
        assert file in _files(volumes[name][source], objects)


def _files(source: Json, objects: list[Json]) -> set[str]:
    if "sources" in source:
        return {
            path
            for each in source["sources"]
            for one in each.values()
            for path in (
                [one["path"]] if "path" in one else [item["path"] for item in one["items"]]
            )
        }
    if "items" in source:
        return {item["path"] for item in source["items"]}
    found = [each for each in objects if each["metadata"]["name"] == source["name"]]
    return set(found[0]["data"])


def test_the_api_s_settings_are_some(objects: list[Json], api: Settings) -> None:
    spec = _pod(objects, "Deployment", "api")
    [container] = spec["containers"]
    port = int(api.api.address.rpartition(":")[2])
    assert _ports(spec) == {"https": port}
    [service] = named(objects, "Service", "api")["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port, "https")
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path in (api.api.tls_cert, api.api.database.removeprefix("sqlite:///")):
        assert any(str(path).startswith(f"{mount}/") for mount in mounts), path
    assert str(api.cluster.service_account_dir) in mounts


def test_the_api_has_no_rights(objects: list[Json]) -> None:
    for kind, name in WORKLOADS[1:]:
        spec = _pod(objects, kind, name)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_broker_is_where_both_look(
    objects: list[Json], agent: Settings, api: Settings, tmp_path: Path
) -> None:
    spec = named(objects, "Service", "nats")["spec"]
    assert agent.nats.url == api.nats.url == f"nats://nats:{spec['ports'][0]['port']}"
    pod = _pod(objects, "StatefulSet", "nats")
    [container] = pod["containers"]
    text = named(objects, "ConfigMap", "nats")["data"]["nats.conf"]
    for user in (agent.nats.user, api.nats.user):
        assert f"{{user: {user}, password: $" in text
    assert f"port: {_ports(pod)['nats']}\n" in text
    assert f"http: {_ports(pod)['monitor']}\n" in text
    # By the server itself, with a directory that there is.
    assert _nats_reads(container, text, "secret", tmp_path) == ""


@pytest.mark.parametrize("password", ["12345678", "true", "5k", "a b", "{x", 'a"\\b', "$2a$10$"])
def test_the_broker_takes_any_password(objects: list[Json], tmp_path: Path, password: str) -> None:
    """It reads the environment as it reads its file, where 12345 is a number."""
    [container] = _pod(objects, "StatefulSet", "nats")["containers"]
    text = named(objects, "ConfigMap", "nats")["data"]["nats.conf"]
    assert _nats_reads(container, text, password, tmp_path) == ""


def _nats_reads(container: Json, text: str, password: str, directory: Path) -> str:
    """What the server finds wrong with its configuration."""
    config = directory / "nats.conf"
    config.write_text(text.replace("/data", str(directory)))
    environ = _environment(container, secret=password) | {"POD_NAME": "nats-0"}
    done = subprocess.run(
        [SERVER, "--config", config, "-t"], capture_output=True, text=True, check=False, env=environ
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr or "it failed"


def test_the_handler_has_one_name(objects: list[Json]) -> None:
    runtime_class = named(objects, "RuntimeClass", "checkpoint-runc")
    script = (ROOT / "deploy" / "node" / "containerd.py").read_text()
    assert f'HANDLER = "{runtime_class["handler"]}"' in script
    install = (ROOT / "deploy" / "node" / "install.sh").read_text()
    socket = load(Path(os.devnull), {}).restore_socket
    assert f"RESTORE_SOCKET:-{socket}}}" in install
    [prefix] = [
        volume["hostPath"]["path"]
        for volume in _pod(objects, "DaemonSet", "agent")["volumes"]
        if "hostPath" in volume
    ]
    assert f"PREFIX:-{prefix}}}" in install


def test_policies_select_pods_and_name_their_ports(objects: list[Json]) -> None:
    pods = [
        (named(objects, kind, name)["spec"]["template"]["metadata"]["labels"],
         set(_ports(_pod(objects, kind, name))))
        for kind, name in WORKLOADS
    ]  # fmt: skip
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
    assert {} in [policy["podSelector"] for policy in policies], "nothing is closed"
    for policy in policies:
        labels = policy["podSelector"].get("matchLabels", {}).items()
        selected = [ports for has, ports in pods if labels <= has.items()]
        assert selected
        for rule in policy.get("ingress", []):
            assert {port["port"] for port in rule["ports"]} <= selected[0]
