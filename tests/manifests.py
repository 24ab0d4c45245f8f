"""The manifests of `deploy/kubernetes`: the base read without Kustomize, and anything as Kustomize builds it."""

import copy
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parents[1] / "deploy" / "kubernetes"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
KEDA = "github.com/kedacore/keda/v2@v2.21.0"

Resource = dict[str, Any]

_MERGED_BY = {"containers": "name", "volumes": "name", "ports": "containerPort", "volumeMounts": "mountPath"}


def documents(file: Path) -> list[Resource]:
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


@cache
def base() -> tuple[Resource, ...]:
    """What Kustomize makes of the base, but for what it adds to the name of the ConfigMap: a test compares them."""
    kustomization = documents(KUBERNETES / "base" / "kustomization.yaml")[0]
    resources = [one for name in kustomization["resources"] for one in documents(KUBERNETES / "base" / name)]
    for patch in kustomization["patches"]:
        (change,) = documents(KUBERNETES / "base" / patch["path"])
        for resource in resources:
            if all(re.fullmatch(wanted, _about(resource)[what]) for what, wanted in patch["target"].items()):
                _merge(resource["spec"], copy.deepcopy(change["spec"]))
    for generator in kustomization["configMapGenerator"]:
        lines = [line for name in generator["envs"] for line in (KUBERNETES / "base" / name).read_text().splitlines()]
        data = dict(line.split("=", 1) for line in lines)
        resources.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )
    for resource in resources:
        if resource["kind"] != "Namespace":
            resource["metadata"]["namespace"] = kustomization["namespace"]
    return tuple(resources)


@cache
def built(kustomization: str) -> tuple[Resource, ...]:
    """What Kustomize builds of a folder: in Go, fetched and compiled the first time, which takes minutes."""
    command = ["go", "run", KUSTOMIZE, "build", str(KUBERNETES / kustomization)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return tuple(yaml.safe_load_all(done.stdout))


@cache
def keda_schemas() -> dict[str, Any]:
    """By kind, the schema of each resource of KEDA, of the definitions that its source has."""
    done = subprocess.run(["go", "mod", "download", "-json", KEDA], check=True, capture_output=True, text=True)
    schemas = {}
    for file in (Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "bases").glob("keda.sh_*.yaml"):
        (definition,) = documents(file)
        (version,) = definition["spec"]["versions"]
        schemas[definition["spec"]["names"]["kind"]] = _strict(version["schema"]["openAPIV3Schema"])
    return schemas


def pods(resources: tuple[Resource, ...]) -> dict[str, Resource]:
    """Of each workload, by its name, the template of its pods."""
    return {
        resource["metadata"]["name"]: (resource["spec"].get("jobTemplate") or resource)["spec"]["template"]
        for resource in resources
        if resource["kind"] in {"Deployment", "StatefulSet", "Job", "CronJob"}
    }


def of_kind(kind: str, resources: tuple[Resource, ...]) -> dict[str, Resource]:
    """Those of a kind, by their names."""
    return {resource["metadata"]["name"]: resource for resource in resources if resource["kind"] == kind}


def _about(resource: Resource) -> dict[str, str]:
    return {"kind": resource["kind"], "name": resource["metadata"]["name"]}


def _merge(into: Any, change: Resource) -> None:
    """Kustomize's strategic merge, as far as the patches of the base need it."""
    for name, value in change.items():
        found = into.get(name)
        if isinstance(value, dict) and isinstance(found, dict):
            _merge(found, value)
        elif name in _MERGED_BY and found is not None:
            key = _MERGED_BY[name]
            theirs = {one[key]: one for one in found}
            for one in value:
                if one[key] in theirs:
                    _merge(theirs[one[key]], one)
                else:
                    found.append(one)
        else:
            into[name] = value


def _strict(schema: Any) -> Any:
    """The schema, but that objects have the properties that it names and no others, but for metadata."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict):
        strict.setdefault("additionalProperties", False)
    return strict
