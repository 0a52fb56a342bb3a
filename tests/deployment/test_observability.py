"""Prometheus and Grafana: files that promtool accepts and that name each other rightly.

That /metrics serves every metric they name is seen in test_site, by a real Prometheus.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deployment.composed import ROOT, compose
from tests.deployment.observed import PROMETHEUS, dashboard, expressions
from tests.parts import need

GRAFANA = ROOT / "cloud_app" / "observability" / "grafana"


@pytest.fixture
def promtool(tmp_path: Path):
    need(shutil.which("promtool"), "promtool is not installed (apt install prometheus)")
    place = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, place)
    token = tmp_path / "token"
    token.write_text("x")
    file = place / "prometheus.yml"
    file.write_text(file.read_text().replace("/run/secrets/api_token", str(token)))

    def run(*words: str) -> None:
        done = subprocess.run(
            ["promtool", *words], cwd=place, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_promtool_accepts_configuration_and_rules(promtool):
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


def test_alerts_come_when_they_should_and_only_then(promtool):
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tested_or_plain():
    tested = (PROMETHEUS / "alerts_test.yml").read_text()
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        plain = rule["expr"].split(" ")[-1] == "0" and "rate" not in rule["expr"]
        assert plain or rule["alert"] in tested or rule["alert"] == "DdnnAnswersSlow"
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_prometheus_asks_the_dashboard_with_the_token():
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    services = compose()["services"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    assert services[host]["environment"]["DDNN_HTTP_PORT"] == port
    assert {*services[host]["networks"]} & {*services["prometheus"]["networks"]}
    token = job["authorization"]["credentials_file"]
    assert services[host]["environment"]["DDNN_API_TOKEN_FILE"] == token


def test_grafana_finds_source_and_dashboard():
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    services = compose()["services"]
    host = source["url"].removeprefix("http://").split(":")[0]
    assert {*services[host]["networks"]} & {*services["grafana"]["networks"]}
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/ddnn.yml").read_text())[
        "providers"
    ]
    mounts = dict(v.split(":")[:2][::-1] for v in services["grafana"]["volumes"])
    assert ROOT / mounts[provider["options"]["path"]] == GRAFANA / "dashboards"
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/ddnn.json"
    for panel in dashboard()["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]


def test_panels_have_titles_of_their_own_and_do_not_overlap():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len({*cells}) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len(expressions()) > len(panels)
