"""Values of the chart, one set for each way to run it, and what the chart makes of them.

After a change of the chart, `python -m tests.support.helm_variants` writes the golden files and the
Kustomize base again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "cascadebert"
GOLDEN = Path(__file__).parents[1] / "deploy" / "golden"
RELEASE, NAMESPACE = "news", "production"
BASE = Path(__file__).parents[2] / "deploy" / "kustomize" / "base"
# What only Helm's own objects have.
_HELMS = ("app.kubernetes.io/managed-by: ", "helm.sh/chart: ")

_PVC = {"source": "pvc", "pvc": {"claimName": "models"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "cpu": {
        "accelerator": "cpu",
        "replicas": 2,
        "repository": {"source": "pvc", "pvc": {"claimName": "models", "subPath": "news"}},
        "resources": {"requests": {"cpu": "4", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
    },
    "gpu": {
        "repository": _PVC,
        "cascade": {"models": ["sst2"], "keySecretName": "cascade-key"},
        "state": {"claimName": "alarms"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
    },
    "s3": {
        "accelerator": "cpu",
        "repository": {
            "source": "s3",
            "bucket": {
                "path": "models/news",
                "secretName": "store",
                "region": "eu-central-1",
                "endpoint": "https://store.example.com",
            },
        },
        "networkPolicy": {"enabled": True},
    },
    "keda": {
        "repository": {"source": "gcs", "bucket": {"path": "models/news", "secretName": "store"}},
        "autoscaling": {
            "keda": {
                "enabled": True,
                "prometheus": "http://prometheus.monitoring:9090",
                "extraTriggers": [
                    {
                        "type": "cron",
                        "metadata": {
                            "timezone": "UTC",
                            "start": "0 7 * * 1-5",
                            "end": "0 19 * * 1-5",
                            "desiredReplicas": "1",
                        },
                    }
                ],
            },
            "min": 0,
            "max": 8,
        },
        "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
    "tls": {
        "accelerator": "cpu",
        "repository": _PVC,
        "tls": {"enabled": True, "mutual": True, "secretName": "certificate"},
        "networkPolicy": {"enabled": True},
        "autoscaling": {"hpa": {"enabled": True}, "min": 2, "max": 6},
    },
}


def kustomize_base() -> str:
    """Return the objects of the Kustomize base: the chart's, without Helm's own labels."""
    head = "# Made from the chart by `python -m tests.support.helm_variants`: change the chart.\n"
    lines = render({"repository": _PVC}, "cascadebert").splitlines(keepends=True)
    return head + "".join(line for line in lines if not line.strip().startswith(_HELMS))


def render(values: dict[str, Any], release: str = RELEASE) -> str:
    """Return the objects that the chart makes, as one YAML stream, without the notes."""
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values, name=release, namespace=NAMESPACE)
    texts = (text.strip() for name, text in sorted(files.items()) if name.endswith(".yaml"))
    return "\n---\n".join(text for text in texts if text) + "\n"


def objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that the chart makes."""
    return [each for each in yaml.safe_load_all(render(values)) if each]


if __name__ == "__main__":
    for variant, chosen in VARIANTS.items():
        (GOLDEN / f"{variant}.yaml").write_text(render(chosen), encoding="utf-8")
    (BASE / "cascadebert.yaml").write_text(kustomize_base(), encoding="utf-8")
