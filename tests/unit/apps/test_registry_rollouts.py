"""What the registry knows of a bundle that is rolled out."""

from __future__ import annotations

from typing import Any

import pytest

from ddnn.protocol.rollout_messages import BundleState
from ddnn.protocol.topics import Kind
from tests.unit.apps.registry_world import World

OLD, NEW = "aa11bb22", "cc33dd44"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(monkeypatch)
    world.receive_status("cam1", "online")
    world.events.clear()
    return world


def report(world: World, phase: Any, node: str = "cam1", **fields: Any) -> None:
    in_use = NEW if phase == "in use" else OLD
    world.receive(node, BundleState(in_use, NEW, phase, **fields), Kind.BUNDLE_STATE)


def read(world: World) -> str:
    (view,) = world.registry.list_nodes()
    return view.rollout


def test_how_far_a_node_is_and_that_it_began(world: World) -> None:
    assert read(world) == ""
    report(world, "fetching", parts=8)
    assert read(world) == f"fetches bundle {NEW}: 8 parts so far"
    report(world, "fetching", parts=16)
    report(world, "checking")
    assert read(world) == f"checks bundle {NEW}"
    report(world, "staged")
    assert read(world) == f"has bundle {NEW} ready"
    report(world, "in use")
    assert read(world) == ""
    assert world.events == [("cam1", f"fetches bundle {NEW}: 8 parts so far")]


def test_a_refusal_is_an_event_with_its_reason(world: World) -> None:
    report(world, "fetching")
    for _ in range(3):
        report(world, "failed", reason="it knows other classes")
    refused = ("cam1", f"cannot use bundle {NEW}: it knows other classes")
    assert world.events[1:] == [refused]
    assert read(world) == refused[1]


def test_nodes_that_are_not_there_are_passed_over(world: World) -> None:
    report(world, "fetching", node="cam2")
    assert world.events == []
    assert [view.id for view in world.registry.list_nodes()] == ["cam1"]
