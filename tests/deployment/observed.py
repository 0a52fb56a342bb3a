"""The expressions that Grafana's panels and Prometheus's alerts ask for."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.deployment.composed import ROOT

PROMETHEUS = ROOT / "cloud_app" / "observability" / "prometheus"
DASHBOARD = ROOT / "cloud_app" / "observability" / "grafana" / "dashboards" / "ddnn.json"


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def expressions() -> list[str]:
    """PromQL, with every site chosen."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    alerts = [rule["expr"] for group in groups for rule in group["rules"]]
    return [text.replace("$site", ".*") for text in [*panels, *alerts]]


def list_metric_names() -> set[str]:
    """Names of the families in them, a histogram's without its ending."""
    names = {name for text in expressions() for name in re.findall(r"\bddnn_\w+", text)}
    return {name.removesuffix("_bucket") for name in names}
