"""What the demo plans with: rooms that learn get the data set of the bundle, others do not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ddnn.core.plan import Plan, PlanRequest
from ddnn.errors import ConfigError
from ddnn.local_site import bundles
from ddnn.local_site.site import SiteConfig
from tests.plan_builders import make_plan


@pytest.mark.parametrize(("redundancy", "data"), [("students", "eth80:eth80.npz"), ("coded", "")])
def test_a_room_that_learns_gets_the_data_of_the_bundle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redundancy: str, data: str
) -> None:
    asked: list[PlanRequest] = []

    def plan(bundle: Path, out: Path, request: PlanRequest) -> Plan:
        asked.append(request)
        return make_plan({"worker1": (0,)})

    def read(path: Path, bundle: str) -> Plan:
        raise ConfigError("no plan yet")

    monkeypatch.setenv("DDNN_HOME", str(tmp_path))
    monkeypatch.setattr(bundles, "plan_bundle", plan)
    monkeypatch.setattr(bundles, "read_plan", read)
    monkeypatch.setattr(bundles, "read_manifest", lambda path: (None, "ab12cd34"))
    config = cast(SiteConfig, SimpleNamespace(bundle=tmp_path, plan=None, edge="", workers=[]))
    arguments: dict[str, Any] = {"workers": 8, "data": "eth80:eth80.npz"}
    bundles.share_layer(config, redundancy, **arguments)
    assert [(one.redundancy, one.data) for one in asked] == [(redundancy, data)]
    assert config.workers == ["worker1"]
