"""The KServe runtime: what Kubernetes' and KServe's schemas say of it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cascadebert_supervisor.settings import settings_from_environment

KSERVE = Path(__file__).parents[2] / "deploy" / "kserve"


@pytest.fixture(scope="module")
def runtime() -> dict[str, Any]:
    return yaml.safe_load((KSERVE / "runtime.yaml").read_text())


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    return yaml.safe_load((KSERVE / "inference-service.yaml").read_text())


def test_its_pod_is_one_that_kubernetes_accepts(runtime: dict[str, Any]) -> None:
    spec = runtime["spec"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": spec["containers"], "volumes": spec["volumes"]},
    }
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_the_supervisor_finds_the_repository_of_kserve(runtime: dict[str, Any]) -> None:
    (container,) = runtime["spec"]["containers"]
    environment = {each["name"]: each.get("value", "2") for each in container["env"]}
    assert settings_from_environment(environment).repository == Path("/mnt/models")


def test_the_service_names_the_runtime_and_what_it_supports(
    runtime: dict[str, Any], service: dict[str, Any]
) -> None:
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"] in runtime["spec"]["supportedModelFormats"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_kserves_own_schemas_have_every_field(
    runtime: dict[str, Any], service: dict[str, Any]
) -> None:
    """With the package kserve 0.21, which is too large to be needed for all tests."""
    pytest.importorskip("kserve.models", reason="pip install kserve checks against its schemas")
    check("V1alpha1ClusterServingRuntime", runtime)
    check("V1beta1InferenceService", service)


def check(kind: str, value: Any) -> None:
    """Compare an object's keys with a class that KServe generates from its schema."""
    models = importlib.import_module("kserve.models")
    model = getattr(models, kind, None)
    if model is None:  # a type of Kubernetes, or a plain one
        return
    types = {json: model.openapi_types[name] for name, json in model.attribute_map.items()}
    assert set(value) <= set(types), f"{kind} has no {set(value) - set(types)}"
    for key, below in value.items():
        of = types[key]
        if of.startswith("list["):
            for each in below:
                check(of[len("list[") : -1], each)
        elif not of.startswith("dict("):
            check(of, below)
