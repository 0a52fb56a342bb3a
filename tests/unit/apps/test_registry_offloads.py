"""What the registry knows of work that edges give to workers."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from cloud_app.registry import (
    MAX_HELD,
    MAX_OFFLOADS,
    OFFLOAD_S,
)
from ddnn.core.plan import MAX_PIECES
from ddnn.protocol.machine import Connected, Disconnected, Received
from ddnn.protocol.messages import Stats, Status
from ddnn.protocol.offload_state import Alternative, Alternatives, Axis, PieceGroup, WorkerState
from ddnn.protocol.topics import Kind, Topic
from tests.site_builder import make_offload
from tests.unit.apps.registry_world import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def report_offload(world: World, node: str = "edge", site: str = "home", **fields: Any) -> None:
    message = make_offload(**fields)
    world.registry.observe(Received(Topic(site, Kind.OFFLOAD, node), message))


def list_offloads(world: World) -> list[tuple[str, str, int]]:
    return [(of.site, of.node, of.state.combined) for of in world.registry.list_offloads()]


@pytest.fixture
def edges(world: World) -> World:
    for site in ("home", "shop"):
        for node in ("edge", "edge-2"):
            status = Status("edge", 1, "online", "b1", "0.1")
            world.registry.observe(Received(Topic(site, Kind.STATUS, node), status))
    world.events.clear()
    world.keys.clear()
    return world


def test_the_newest_plan_of_each_edge_is_kept_and_ages(edges: World) -> None:
    report_offload(edges, combined=1)
    report_offload(edges, "edge-2", combined=2)
    report_offload(edges, site="shop", combined=3)
    edges.now_s += 1.5
    report_offload(edges, combined=4)
    assert list_offloads(edges) == [("home", "edge", 4), ("home", "edge-2", 2), ("shop", "edge", 3)]
    assert [of.age_s for of in edges.registry.list_offloads()] == [0.0, 1.5, 1.5]


def test_a_plan_that_is_no_longer_published_is_forgotten(edges: World) -> None:
    report_offload(edges)
    edges.now_s += OFFLOAD_S
    assert list_offloads(edges) == [("home", "edge", 1234)]
    edges.now_s += 0.1
    assert list_offloads(edges) == []


@pytest.mark.parametrize("state", ["lost", "stopped"])
def test_a_lost_edge_has_no_offload(edges: World, state: Any) -> None:
    report_offload(edges)
    report_offload(edges, "edge-2")
    status = Status("edge", 1, state, "b1", "0.1")
    edges.registry.observe(Received(Topic("home", Kind.STATUS, "edge"), status))
    assert list_offloads(edges) == [("home", "edge-2", 1234)]


def test_without_the_broker_no_offload_is_known(edges: World) -> None:
    report_offload(edges)
    edges.registry.observe(Disconnected())
    edges.registry.observe(Connected())
    assert list_offloads(edges) == []  # although its state is young enough
    report_offload(edges)
    assert list_offloads(edges) == [("home", "edge", 1234)]


def test_an_unannounced_node_has_no_offload(world: World) -> None:
    report_offload(world, "nobody")
    assert list_offloads(world) == []


def test_the_offloads_are_bounded_and_forgotten_ones_make_room(world: World) -> None:
    for i in range(MAX_OFFLOADS + 5):
        world.receive(f"edge-{i}", Status("edge", 1, "online"))
        report_offload(world, f"edge-{i}")
    assert len(list_offloads(world)) == MAX_OFFLOADS
    report_offload(world, "edge-0", combined=7)  # a known one goes on
    assert ("home", "edge-0", 7) in list_offloads(world)
    world.now_s += OFFLOAD_S + 1
    report_offload(world, f"edge-{MAX_OFFLOADS + 4}")
    assert list_offloads(world) == [("home", f"edge-{MAX_OFFLOADS + 4}", 1234)]
    assert len(world.registry._offloads) == 1


GREEDY = {
    f"w{i}": WorkerState("live", list(range(MAX_PIECES))) for i in range(MAX_HELD // MAX_PIECES + 1)
}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"pieces": 2**53},  # a page would draw so many
        {"pieces": MAX_PIECES + 1},
        {"pieces": 0},
        {"spare_workers": 7},
        {"groups": [PieceGroup("data", 0, 7)]},
        {"groups": [PieceGroup("data", 3, 3)]},
        {"live_pieces": 7},
        {"workers": {"w": WorkerState("live", [6])}},
        {"pieces": MAX_PIECES, "workers": GREEDY},
        {"alternatives": Alternatives("", [Axis("latency", "s")], [Alternative("", [])])},
        {"alternatives": Alternatives("", [Axis("latency", "s")], [Alternative("", [inf])])},
    ],
)
def test_a_plan_that_contradicts_itself_is_not_kept_and_is_reported_once(
    edges: World, nonsense: dict[str, Any]
) -> None:
    report_offload(edges, combined=1)
    report_offload(edges, **nonsense)
    report_offload(edges, **nonsense)
    assert list_offloads(edges) == [("home", "edge", 1)]
    assert {node for node, _ in edges.events} == {"edge"}
    assert "contradicts itself" in edges.events[0][1]
    assert len(set(edges.keys)) == 1  # the store keeps one a minute


def test_the_largest_possible_plan_is_kept(edges: World) -> None:
    workers = {f"w{i}": WorkerState("live", [i]) for i in range(MAX_PIECES)}
    report_offload(edges, pieces=MAX_PIECES, live_pieces=MAX_PIECES, workers=workers)
    (view,) = edges.registry.list_offloads()
    assert view.worker_states == {"live": MAX_PIECES}


def test_a_worker_dies_and_returns_like_any_node(world: World) -> None:
    for session, state in ((1, "online"), (1, "lost"), (2, "online")):
        world.receive("worker1", Status("worker", session, state, "b1", "0.1"))  # type: ignore[arg-type]
    stats = Stats("worker", 5.0, 1 << 20, {"tasks_refused": 2, "shards_computed": 9})
    world.receive("worker1", stats, Kind.STATS)
    assert [what for _, what in world.events] == ["joined", "died", "joined"]
    (view,) = world.registry.list_nodes()
    assert (view.role, view.state, view.counts["shards_computed"]) == ("worker", "online", 9)
    world.receive("worker1", Stats("worker", 10.0, 0, {"tasks_refused": 3}), Kind.STATS)
    assert world.events[-1] == ("worker1", "dropped at least 1 tasks_refused")
