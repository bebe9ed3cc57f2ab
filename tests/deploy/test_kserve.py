"""The KServe runtime: what Kubernetes' and KServe's schemas say of it."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from cascadebert_supervisor.settings import settings_from_environment

# What KServe's generated classes say in their setters.
_REQUIRED = re.compile(r"Invalid value for `(\w+)`, must not be `None`")
_PLAIN = {"str": str, "bool": bool, "int": int, "float": float}

KSERVE = Path(__file__).parents[2] / "deploy" / "kserve"


@dataclass(frozen=True)
class Types:
    """The types of KServe's custom resources, read from the source of the package kserve.

    Its classes are generated from the schemas of the custom resources. They are read and not
    imported: the package imports much that nothing here needs.
    """

    folder: Path

    def check(self, kind: str, value: Any) -> None:
        """Check that an object has the fields that its type requires, and no others."""
        path = self.folder / f"{re.sub(r'(?<!^)(?=[A-Z])', '_', kind).lower()}.py"
        if not path.exists():  # a type of Kubernetes itself
            assert kind not in _PLAIN or isinstance(value, _PLAIN[kind]), (
                f"{value} is not of {kind}"
            )
            return
        text = path.read_text(encoding="utf-8")
        types, names = self._mappings(text)
        assert set(value) <= set(names.values()), (
            f"{kind} has no {set(value) - set(names.values())}"
        )
        needed = {names[name] for name in _REQUIRED.findall(text)}
        assert needed <= set(value), f"{kind} needs {needed - set(value)}"
        for name, key in names.items():
            if key not in value:
                continue
            if types[name].startswith("list["):
                for each in value[key]:
                    self.check(types[name][len("list[") : -1], each)
            else:
                self.check(types[name], value[key])

    def _mappings(self, text: str) -> tuple[dict[str, str], dict[str, str]]:
        """The types, and the names in YAML, of the fields, by their names in Python."""
        (of,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
        found = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in of.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            if node.targets[0].id in ("openapi_types", "attribute_map")
        }
        return found["openapi_types"], found["attribute_map"]


@pytest.fixture(scope="module")
def types() -> Types:
    """Those of KServe 0.21: `pip install --no-deps kserve`, which brings 3 MB."""
    found = importlib.util.find_spec("kserve")  # does not import it
    if found is None or not found.submodule_search_locations:
        pytest.skip("pip install --no-deps kserve==0.21.0 checks against its types")
    return Types(Path(next(iter(found.submodule_search_locations))) / "models")


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


def test_kserves_own_types_have_every_field(
    runtime: dict[str, Any], service: dict[str, Any], types: Types
) -> None:
    types.check("V1alpha1ClusterServingRuntime", runtime)
    types.check("V1beta1InferenceService", service)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("V1beta1PredictorSpec", {"minReplica": 1}, "has no {'minReplica'}"),
        ("V1beta1ModelSpec", {"runtime": "x"}, "needs {'modelFormat'}"),
        ("V1alpha1ServingRuntimeSpec", {"containers": [], "multiModel": "no"}, "is not of bool"),
    ],
)
def test_a_wrong_field_would_be_noticed(types: Types, kind: str, value: Any, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        types.check(kind, value)
    assert message in str(caught.value)
