"""The Kubernetes manifests, without a cluster: valid, consistent with each other, and with the program that they run.

The base is read without Kustomize. `make check-deploy`, which needs Go, has it and every overlay built by Kustomize.
"""

import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
from typer.main import get_command

from deploy.access.roles import ROLES
from deploy.cli import app
from runtime.process.stopping import STOP_WITHIN_S
from schemas.envelope import full_name
from schemas.settings import Settings
from schemas.topics import CONSUMER_GROUPS
from tests.manifests import KUBERNETES, Resource, base, built, documents, keda_schemas, of_kind, pods

KUBERNETES_VERSIONS = ("1.32", "1.37")  # the first in which all that is used here is stable, and the last
COMPONENT = "app.kubernetes.io/component"
WORKERS = {"encoder-cpu", "encoder-gpu", "matcher", "sink", "outbox"}
SECRETS = "/run/secrets/facematch"
FOLDERS = sorted(
    str(file.parent.relative_to(KUBERNETES))
    for file in KUBERNETES.glob("*/**/kustomization.yaml")
    if documents(file)[0]["kind"] == "Kustomization"
)

Resources = tuple[Resource, ...]


@pytest.fixture(params=["read", *(pytest.param(folder, marks=pytest.mark.kustomize) for folder in FOLDERS)])
def resources(request: pytest.FixtureRequest) -> Resources:
    return base() if request.param == "read" else built(request.param)


def settings_of(resources: Resources) -> dict[str, str]:
    ((_, settings),) = of_kind("ConfigMap", resources).items()
    return dict(settings["data"])


def container_of(pod: Resource) -> Any:
    (container,) = pod["spec"]["containers"]
    return container


@pytest.mark.kustomize
def test_the_base_is_read_as_kustomize_builds_it() -> None:
    hashed = of_kind("ConfigMap", built("base")).popitem()[0]
    as_built = [yaml_with(resource, hashed, "settings") for resource in built("base")]
    as_read = [yaml_with(resource, hashed, "settings") for resource in base()]
    assert sorted(as_built) == sorted(as_read)


def yaml_with(resource: Resource, name: str, instead: str) -> str:
    """A resource as text that does not depend on the order of names; of a list of volumes neither."""
    ordered = dict(resource)
    for pod in pods((ordered,)).values():
        pod["spec"]["volumes"].sort(key=lambda volume: volume["name"])
    return str(_sorted(ordered)).replace(name, instead)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((name, _sorted(one)) for name, one in value.items())
    return [_sorted(one) for one in value] if isinstance(value, list) else value


def test_every_file_is_used() -> None:
    for folder in (file.parent for file in KUBERNETES.glob("*/**/kustomization.yaml")):
        text = (folder / "kustomization.yaml").read_text()
        for file in folder.iterdir():
            assert file.name == "kustomization.yaml" or file.name in text, file


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_resources_are_those_of_kubernetes(resources: Resources, version: str) -> None:
    for resource in resources:
        if not resource["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.kustomize
def test_resources_are_those_of_keda(resources: Resources) -> None:
    own = [resource for resource in resources if resource["apiVersion"] == "keda.sh/v1alpha1"]
    assert {resource["kind"] for resource in own} == {"ScaledObject", "TriggerAuthentication"}
    for resource in own:
        jsonschema.Draft7Validator(keda_schemas()[resource["kind"]]).validate(resource)


def test_every_command_line_is_one_of_the_program(resources: Resources) -> None:
    program = get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    for name, pod in pods(resources).items():
        container = container_of(pod)
        if name in {"operator", "repair"}:
            assert container["command"] == ["tini", "--", "sleep", "infinity"]
            continue
        arguments = container["args"]
        for one in container.get("env", []):
            arguments = [word.replace(f"$({one['name']})", one.get("value", "1")) for word in arguments]
        program.commands[arguments[0]].make_context(arguments[0], arguments[1:])


def test_settings_are_those_of_the_program(resources: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is one, and together they are accepted, the certificates apart, which are on no machine of ours."""
    settings = settings_of(resources)
    for name, value in settings.items():
        assert name.startswith("FACEMATCH_")
        assert name.removeprefix("FACEMATCH_").lower() in Settings.model_fields, name
        if name.endswith("_CA"):
            assert value.startswith(f"{SECRETS}/")
        else:
            monkeypatch.setenv(name, value)
    assert Settings().photo_roots is not None  # unset, it would be what was submitted from the same machine
    for pod in pods(resources).values():
        own = {one["name"] for one in container_of(pod).get("env", [])}
        assert not {name for name in own if name.startswith("FACEMATCH_")}


def test_every_pod_is_given_its_settings_and_its_own_secrets(resources: Resources) -> None:
    ((settings, _),) = of_kind("ConfigMap", resources).items()
    for name, pod in pods(resources).items():
        container, spec = container_of(pod), pod["spec"]
        assert container["envFrom"] == [{"configMapRef": {"name": settings}}]
        assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
            "secrets": SECRETS,
            "tmp": "/tmp",
        }
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes.keys() == {"secrets", "tmp"}
        projected = volumes["secrets"]["projected"]
        assert projected["defaultMode"] == 0o440
        assert [source["secret"]["name"] for source in projected["sources"]] == ["common", name]


def test_every_workload_is_a_role_of_its_own(resources: Resources) -> None:
    """So that it has a user of its own on each server, with the least it needs."""
    assert pods(resources).keys() <= {role.name for role in ROLES}
    for name, pod in pods(resources).items():
        assert pod["metadata"]["labels"][COMPONENT] == name


def test_every_pod_is_restricted(resources: Resources) -> None:
    """As the Pod Security Standard of that name demands, and more: nothing is written but to /tmp."""
    labels = resources[0]["metadata"]["labels"] if resources[0]["kind"] == "Namespace" else {}
    assert labels.get("pod-security.kubernetes.io/enforce") == "restricted"
    for pod in pods(resources).values():
        spec, container = pod["spec"], container_of(pod)
        assert spec["serviceAccountName"] in of_kind("ServiceAccount", resources)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}


def test_every_pod_says_what_it_takes_and_has_time_to_stop(resources: Resources) -> None:
    for pod in pods(resources).values():
        resources_of = container_of(pod)["resources"]
        assert resources_of["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in resources_of["limits"]
        assert pod["spec"].get("terminationGracePeriodSeconds", 30) > STOP_WITHIN_S


def test_workers_are_asked_how_they_are_where_they_say_it(resources: Resources) -> None:
    port = int(settings_of(resources)["FACEMATCH_HTTP"].rpartition(":")[2])
    for name, pod in pods(resources).items():
        container = container_of(pod)
        if name not in WORKERS:
            assert not container.keys() & {"ports", "startupProbe", "livenessProbe", "readinessProbe"}
            continue
        assert container["ports"] == [{"name": "http", "containerPort": port}]
        paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert of_kind("Service", resources)["matcher"]["spec"]["ports"][0]["port"] == port


def test_selectors_choose_the_pods_of_their_own_template(resources: Resources) -> None:
    for kind in ("Deployment", "StatefulSet"):
        for name, resource in of_kind(kind, resources).items():
            assert resource["spec"]["selector"]["matchLabels"] == {COMPONENT: name}
    for name, budget in of_kind("PodDisruptionBudget", resources).items():
        assert budget["spec"]["selector"]["matchLabels"] == {COMPONENT: name}
        assert budget["spec"]["maxUnavailable"] == 1
    assert of_kind("PodDisruptionBudget", resources).keys() == WORKERS
    assert of_kind("Service", resources)["matcher"]["spec"]["selector"] == {COMPONENT: "matcher"}


def test_pools_grow_with_their_own_lag(resources: Resources) -> None:
    namespace = settings_of(resources)["FACEMATCH_NAMESPACE"]
    groups = {group.name: group for group in CONSUMER_GROUPS}
    scaled = of_kind("ScaledObject", resources)
    assert scaled.keys() == {"encoder-cpu", "encoder-gpu"}
    for name, scaler in scaled.items():
        assert scaler["spec"]["scaleTargetRef"] == {"name": name}
        assert "replicas" not in of_kind("Deployment", resources)[name]["spec"]
        (trigger,) = scaler["spec"]["triggers"]
        (topic,) = groups[name].reads
        assert trigger["type"] == "kafka"
        assert trigger["metadata"]["consumerGroup"] == full_name(name, namespace)
        assert trigger["metadata"]["topic"] == full_name(topic.name, namespace)
        assert trigger["metadata"]["bootstrapServersFromEnv"] in settings_of(resources)
        assert trigger["metadata"]["offsetResetPolicy"] == "earliest"
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["authenticationRef"]["name"] in of_kind("TriggerAuthentication", resources)
        assert scaler["spec"]["maxReplicaCount"] <= topic.partitions
    assert scaled["encoder-cpu"]["spec"]["minReplicaCount"] >= 1
    assert scaled["encoder-gpu"]["spec"]["minReplicaCount"] == 0


def test_one_compaction_runs_at_a_time(resources: Resources) -> None:
    spec = of_kind("CronJob", resources)["compaction"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert "timeZone" in spec


def test_every_worker_reaches_what_its_role_needs_and_nothing_else(resources: Resources) -> None:
    policies = of_kind("NetworkPolicy", resources)
    everyone = pods(resources).keys()
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def may(policy: str) -> set[str]:
        selector = policies[policy]["spec"]["podSelector"]
        if not selector:
            return set(everyone)
        (rule,) = selector["matchExpressions"]
        assert (rule["key"], rule["operator"]) == (COMPONENT, "In")
        return set(rule["values"])

    roles = [role for role in ROLES if role.name in everyone]
    assert may("kafka") == {role.name for role in roles if role.reads or role.writes or role.creates}
    assert may("redis") == {role.name for role in roles if role.commands}
    assert may("postgres") == {role.name for role in roles if role.tables or role.owns or role.outbox}
    assert may("photos") == {"encoder-cpu", "encoder-gpu"}
    (web, _) = policies["photos"]["spec"]["egress"][0]["to"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(web["ipBlock"]["except"])


def test_servers_are_reached_at_their_ports(resources: Resources) -> None:
    settings, policies = settings_of(resources), of_kind("NetworkPolicy", resources)
    for server in ("kafka", "redis", "postgres"):
        (rule,) = policies[server]["spec"]["egress"]
        port = re.findall(r":([0-9]+)", settings[f"FACEMATCH_{server.upper()}"])[-1]
        assert [one["port"] for one in rule["ports"]] == [int(port)]
    (asked,) = policies["monitoring"]["spec"]["ingress"]
    assert asked["ports"] == [{"port": int(settings["FACEMATCH_HTTP"].rpartition(":")[2])}]


@pytest.mark.kustomize
def test_shards_know_how_many_they_are() -> None:
    spec = of_kind("StatefulSet", built("overlays/example"))["matcher"]["spec"]
    environment = {one["name"]: one for one in container_of(spec["template"])["env"]}
    assert environment["SHARDS"]["value"] == str(spec["replicas"])
    assert environment["SHARD"]["valueFrom"]["fieldRef"]["fieldPath"].endswith("['apps.kubernetes.io/pod-index']")
    assert spec["ordinals"] == {"start": 1}


@pytest.mark.kustomize
def test_the_gpu_pool_asks_for_a_gpu() -> None:
    pool = container_of(pods(built("overlays/example"))["encoder-gpu"])
    assert pool["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "facematch-gpu:" in pool["image"]


@pytest.mark.kustomize
def test_an_overlay_says_where_the_servers_are_and_which_version_runs() -> None:
    resources = built("overlays/example")
    for server in ("kafka", "redis", "postgres"):
        assert of_kind("NetworkPolicy", resources)[server]["spec"]["egress"][0]["to"]
    assert all(re.search(r":[0-9.]+$", container_of(pod)["image"]) for pod in pods(resources).values())
