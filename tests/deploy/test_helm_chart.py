"""The chart: rendered and checked against Kubernetes' own schemas, without a cluster."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from cascadebert_core.drift_state import STATE_VARIABLE
from cascadebert_core.metric_names import IN_FLIGHT, QUEUED
from cascadebert_supervisor.settings import settings_from_environment
from tests.support.helm_variants import (
    BASE,
    CHART,
    GOLDEN,
    VARIANTS,
    kustomize_base,
    objects,
    render,
)

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.37"
# Kinds of operators, whose schemas Kubernetes does not have.
CUSTOM = {"ScaledObject", "ServiceMonitor"}
MONITORED = {
    "serviceMonitor": {"enabled": True},
    "alerts": {"enabled": True},
    "dashboard": {"enabled": True},
}


def one(values: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = (each for each in objects(values) if each["kind"] == kind)
    return found


def pod(values: dict[str, Any]) -> dict[str, Any]:
    return one(values, "Deployment")["spec"]["template"]["spec"]


def changed(variant: str, **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(VARIANTS[variant]), **values}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_as_its_golden_file_has_it(variant: str) -> None:
    """If this is wanted: python -m tests.support.helm_variants, and look at the difference."""
    assert render(VARIANTS[variant]) == (GOLDEN / f"{variant}.yaml").read_text(encoding="utf-8")


def test_the_kustomize_base_is_the_charts() -> None:
    text = (BASE / "cascadebert.yaml").read_text(encoding="utf-8")
    assert text == kustomize_base(), "python -m tests.support.helm_variants"
    for each in yaml.safe_load_all(text):
        assert "helm" not in str(each).lower()
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    assert kustomization["resources"] == ["cascadebert.yaml"]


def test_the_overlay_of_the_documents_fits_the_base() -> None:
    """Without kustomize itself: what the overlay names is there."""
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    overlay = yaml.safe_load(page.partition("# kustomization.yaml\n")[2].partition("```")[0])
    base = list(yaml.safe_load_all((BASE / "cascadebert.yaml").read_text(encoding="utf-8")))
    (deployment,) = (each for each in base if each["kind"] == "Deployment")
    (patch,) = overlay["patches"]
    name = deployment["metadata"]["name"]
    assert patch["target"] == {"kind": "Deployment", "name": name}
    assert [each["name"] for each in overlay["replicas"]] == [name]
    (image,) = overlay["images"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(f"{image['name']}:")
    for operation in yaml.safe_load(patch["patch"]):
        place: Any = deployment
        for part in operation["path"].strip("/").split("/"):
            place = place[int(part)] if isinstance(place, list) else place[part]
        assert operation["op"] == "replace"


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_accepts_a_variant(variant: str) -> None:
    made = objects({**VARIANTS[variant], "monitoring": MONITORED})
    for each in made:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
    names = [(each["kind"], each["metadata"]["name"]) for each in made]
    assert len(set(names)) == len(names)


def test_helm_finds_nothing_to_complain_about() -> None:
    errors = helm.lint(str(CHART), values=VARIANTS["cpu"])["errors"]
    assert errors == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_services_and_policies_select_the_pods(variant: str) -> None:
    made = objects({**VARIANTS[variant], "monitoring": MONITORED})
    deployment = next(each for each in made if each["kind"] == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = {
        port["name"]
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    for each in made:
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            assert spec["selector"].items() <= labels
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        if each["kind"] in ("PodDisruptionBudget", "Deployment"):
            assert spec["selector"]["matchLabels"].items() <= labels
        if each["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    monitored = [
        each["metadata"]["name"]
        for each in made
        if each["kind"] == "Service" and "cascadebert.headless" not in each["metadata"]["labels"]
    ]
    assert len(monitored) == 1, "Prometheus must see each server once"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pod_has_no_privileges(variant: str) -> None:
    spec = pod(VARIANTS[variant])
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_supervisor_takes_the_environment(variant: str, tmp_path: Path) -> None:
    (container,) = pod(VARIANTS[variant])["containers"]
    environment = {each["name"]: each.get("value", "2") for each in container["env"]}
    if "CASCADEBERT_KEY_FILE" in environment:
        key = tmp_path / "key"
        key.write_text("k" * 16)
        environment["CASCADEBERT_KEY_FILE"] = str(key)
    settings = settings_from_environment(environment)
    assert settings.http_address == ("127.0.0.1" if variant == "tls" else "")
    assert settings.models == (("sst2",) if variant == "gpu" else ())


def test_probes_classify_a_row_and_outlast_it() -> None:
    (container,) = pod(VARIANTS["cpu"])["containers"]
    settings = settings_from_environment({})
    check = ["python3", "-m", "cascadebert_supervisor", "healthcheck"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[name]
        assert probe["exec"]["command"] == check
        assert probe["timeoutSeconds"] > settings.probe_timeout_s
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= settings.start_timeout_s
    # The supervisor ends the server first, with a reason in its log.
    liveness = container["livenessProbe"]
    assert liveness["failureThreshold"] > settings.probe_failures
    assert liveness["periodSeconds"] >= settings.probe_interval_s


def test_a_pod_that_stops_has_the_time_to_drain() -> None:
    drain = {"announceSeconds": 17, "timeoutSeconds": 200}
    spec = pod(changed("cpu", drain=drain))
    (container,) = spec["containers"]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 17}}
    environment = {each["name"]: each.get("value", "2") for each in container["env"]}
    settings = settings_from_environment(environment)
    assert settings.stop_timeout_s == 200
    assert spec["terminationGracePeriodSeconds"] > 17 + 200 + settings.stop_margin_s + 10


def test_with_tls_nothing_is_offered_in_the_clear() -> None:
    made = objects(VARIANTS["tls"])
    (container,) = pod(VARIANTS["tls"])["containers"]
    assert "--grpc-use-ssl=true" in container["args"]
    assert "--grpc-use-ssl-mutual=true" in container["args"]
    assert [port["name"] for port in container["ports"]] == ["grpc", "metrics"]
    for service in (each for each in made if each["kind"] == "Service"):
        assert [port["name"] for port in service["spec"]["ports"]] == ["grpc", "metrics"]


def test_autoscalers_read_metrics_of_the_cascade() -> None:
    hpa = one(VARIANTS["tls"], "HorizontalPodAutoscaler")
    assert [m["pods"]["metric"]["name"] for m in hpa["spec"]["metrics"]] == [IN_FLIGHT, QUEUED]
    keda = one(VARIANTS["keda"], "ScaledObject")["spec"]
    queries = [each["metadata"].get("query", "") for each in keda["triggers"]]
    for name in (IN_FLIGHT, QUEUED):
        assert any(name in query for query in queries)
    for values in (VARIANTS["tls"], VARIANTS["keda"]):
        assert "replicas" not in one(values, "Deployment")["spec"], "it would undo the autoscaler"


def test_a_broken_guarantee_outlasts_the_container() -> None:
    """An emptyDir lasts as long as its pod, whatever ends the container in it."""
    for variant in VARIANTS:
        spec = pod(VARIANTS[variant])
        (container,) = spec["containers"]
        (folder,) = (e["value"] for e in container["env"] if e["name"] == STATE_VARIABLE)
        (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == folder)
        (volume,) = (v for v in spec["volumes"] if v["name"] == mount["name"])
        assert not mount.get("readOnly")
        assert "Memory" not in str(volume)
        if variant == "gpu":
            assert volume["persistentVolumeClaim"] == {"claimName": "alarms"}
        else:
            assert "emptyDir" in volume


def test_alerts_and_dashboard_are_those_of_the_project() -> None:
    made = objects(changed("cpu", monitoring=MONITORED))
    maps = {each["metadata"]["name"]: each["data"] for each in made if each["kind"] == "ConfigMap"}
    alerts = maps["news-cascadebert-alerts"]["cascadebert-alerts.yml"]
    dashboard = maps["news-cascadebert-dashboard"]["cascadebert.json"]
    deploy = ROOT / "deploy"
    assert yaml.safe_load(alerts) == yaml.safe_load((deploy / "prometheus/alerts.yml").read_text())
    expected = (deploy / "grafana/dashboards/cascadebert.json").read_text()
    assert json.loads(dashboard) == json.loads(expected)


def test_without_a_secret_a_store_is_read_as_the_service_account() -> None:
    for source in ("s3", "gcs"):
        bucket = {"path": "models/news"}
        spec = pod({"repository": {"source": source, "bucket": bucket}})
        (init,) = spec["initContainers"]
        assert {"name": "RCLONE_CONFIG_STORE_ENV_AUTH", "value": "true"} in init["env"]
        assert "envFrom" not in init
        assert all("secret" not in volume for volume in spec["volumes"])


CONTRADICTIONS = {
    "repository.pvc.claimName is empty": {"repository": {"source": "pvc"}},
    "repository.bucket.path is empty": {"repository": {"source": "s3"}},
    'source is pvc, and repository.bucket.path is "a/b"': changed(
        "cpu", repository={"pvc": {"claimName": "models"}, "bucket": {"path": "a/b"}}
    ),
    "are for s3": {
        "repository": {"source": "gcs", "bucket": {"path": "a/b", "region": "eu-west-1"}}
    },
    "both enabled": changed(
        "keda", autoscaling={**VARIANTS["keda"]["autoscaling"], "hpa": {"enabled": True}}
    ),
    "keda.prometheus is empty": changed("cpu", autoscaling={"keda": {"enabled": True}}),
    "which needs KEDA": changed("cpu", autoscaling={"hpa": {"enabled": True}, "min": 0}),
    "extraTriggers is empty": changed(
        "cpu",
        autoscaling={"keda": {"enabled": True, "prometheus": "http://prometheus"}, "min": 0},
    ),
    "min is 5 and max is 4": changed("cpu", autoscaling={"hpa": {"enabled": True}, "min": 5}),
    "tls.secretName is empty": changed("cpu", tls={"enabled": True}),
    "tls.mutual is true": changed("cpu", tls={"mutual": True}),
}


@pytest.mark.parametrize("expected", CONTRADICTIONS)
def test_contradicting_values_are_refused_in_one_sentence(expected: str) -> None:
    with pytest.raises(helm.HelmError) as caught:
        render(CONTRADICTIONS[expected])
    assert expected in str(caught.value)


WRONG = {
    "accelerator": {"accelerator": "tpu"},
    "replica": {"replica": 3},
    "source": {"repository": {"source": "azure"}},
    "path": {"repository": {"source": "s3", "bucket": {"path": "s3://models/news"}}},
    "sharedMemory": {"sharedMemory": "plenty"},
    "claimName": {"state": {"claimName": "Not A Name"}},
    "digest": {"image": {"digest": "latest"}},
    "announceSeconds": {"drain": {"announceSeconds": 0}},
}


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses_a_value_and_names_it(name: str) -> None:
    with pytest.raises(helm.HelmError) as caught:
        render(changed("cpu", **WRONG[name]))
    assert name in str(caught.value)


def test_every_value_is_explained_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def compare(values: dict[str, Any], described: dict[str, Any], path: str) -> None:
        assert set(values) - {"global"} == set(described) - {"global", "claims"}, path
        for key, value in values.items():
            below = described[key].get("properties")
            if isinstance(value, dict) and below:
                compare(value, below, f"{path}.{key}")

    values = yaml.safe_load(text)
    for part in (values["resources"]["requests"], values["resources"]["limits"]):
        part.clear()  # free keys
    compare(values, schema["properties"], "values")
