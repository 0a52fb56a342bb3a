"""The demo's control: real processes, killed and started over real HTTP."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from cloud_app.demo import LocalDemoSite
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.local_site.control import Control
from ddnn.runtime.fleet import Fleet

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "logs")
    for node in ("broker", "cam1", "dashboard"):
        fleet.start(node, SLEEPER)
    yield fleet
    fleet.close()


@pytest.fixture
def control(fleet: Fleet) -> Iterator[Control]:
    control = Control(fleet, frozenset({"dashboard"}))
    yield control
    control.close()


@pytest.fixture
def site(control: Control, tmp_path: Path) -> LocalDemoSite:
    images = np.arange(5 * 2 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 2, 3)
    np.save(tmp_path / "images.npy", images)
    return LocalDemoSite(tmp_path, control.url)


def test_a_node_is_killed_and_started_again(fleet: Fleet, site: LocalDemoSite) -> None:
    assert site.read_processes() == {"broker": True, "cam1": True}
    before = fleet.find_pid("cam1")
    site.control("kill", "cam1")
    assert not fleet.is_alive("cam1")
    assert site.read_processes() == {"broker": True, "cam1": False}
    site.control("start", "cam1")
    assert fleet.is_alive("cam1")
    assert fleet.find_pid("cam1") != before
    running = fleet.find_pid("cam1")
    site.control("start", "cam1")  # twice does no harm
    assert fleet.find_pid("cam1") == running


@pytest.mark.parametrize("node", ["dashboard", "cam9", "../cam1", "cam1/x"])
def test_unknown_nodes_are_refused(fleet: Fleet, site: LocalDemoSite, node: str) -> None:
    with pytest.raises(DdnnError):
        site.control("kill", node)
    assert all(fleet.is_alive(name) for name in fleet.nodes)


def test_requests_without_the_token_are_refused(control: Control, fleet: Fleet) -> None:
    address = urlsplit(control.url)
    for method, path in (
        ("GET", "/nodes"),
        ("GET", "/wrong/nodes"),
        ("GET", address.path[:-1] + "/nodes"),
        ("POST", "/wrong/kill/cam1"),
        ("POST", "//kill/cam1"),
        ("POST", address.path),
        ("POST", address.path + "/wipe/cam1"),
    ):
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
        connection.request(method, path)
        reply = connection.getresponse()
        assert reply.status in (404, 409), path
        assert "error" in json.loads(reply.read())
    assert fleet.is_alive("cam1")


def test_the_views_of_a_sample_are_read(site: LocalDemoSite) -> None:
    assert site.read_views(7).tolist() == site.read_views(2).tolist()
    assert site.read_views(2).shape == (2, 2, 2, 3)


def test_a_demo_that_has_ended_is_reported(
    control: Control, site: LocalDemoSite, tmp_path: Path
) -> None:
    control.close()
    with pytest.raises(LinkError, match="has it ended"):
        site.read_processes()
    with pytest.raises(ConfigError, match=r"images\.npy"):
        LocalDemoSite(tmp_path / "nowhere", control.url)
