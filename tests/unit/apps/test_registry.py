"""The states of nodes in the registry, and the events that it reports."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from cloud_app.registry import ANNOUNCED_WITHIN_S, MAX_HELD, MAX_OFFLOADS, OFFLOAD_S, Registry
from ddnn.core.plan import MAX_PIECES
from ddnn.protocol.machine import Connected, Disconnected, Received
from ddnn.protocol.messages import (
    Message,
    PieceGroup,
    Stats,
    Status,
    WorkerState,
)
from ddnn.protocol.topics import Kind, Topic
from tests.answer_builder import make_answer
from tests.site_builder import make_offload

ANSWER = make_answer(
    3, node="cam1", exit="device", members=["cam1"], quality="degraded", expected_accuracy=None
)


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.now_s = 1000.0
        self.registry = Registry(self._record_event, lambda: 1e9 + self.now_s)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(time, "time", lambda: 1e9 + self.now_s)

    def _record_event(self, at_s: float, site: str, node: str, what: str, key: str) -> None:
        self.events.append((node, what))
        self.keys.append(key)

    def receive(self, node: str, message: Message, kind: Kind = Kind.STATUS) -> None:
        self.registry.observe(Received(Topic("home", kind, node), message))

    def receive_status(self, node: str, state: Any, session: int = 1) -> None:
        self.receive(node, Status("device", session, state, "b1", "0.1"))

    def receive_stats(self, node: str, uptime_s: float = 5.0, **counts: int) -> None:
        self.receive(node, Stats("device", uptime_s, 1 << 20, counts, {"queue": 1.0}), Kind.STATS)

    def list_states(self) -> dict[str, str]:
        return {view.id: view.state for view in self.registry.list_nodes()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_node_joins_dies_and_returns(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_status("cam1", "online")
    world.receive_status("cam1", "lost")
    world.receive_status("cam1", "online", 2)
    world.receive_status("cam1", "lost", 1)  # the Will of the first connection, late
    world.receive_status("cam1", "stopped", 2)
    assert world.events == [("cam1", what) for what in ("joined", "died", "joined", "stopped")]
    assert len(set(world.keys)) == 4  # each has the same key for every writer
    assert world.list_states() == {"cam1": "stopped"}


def test_statistics_belong_to_a_session_and_have_an_age(world: World) -> None:
    world.receive_stats("cam9")  # an unknown node
    world.receive_status("cam1", "online")
    world.receive_stats("cam1", answers=3)
    world.now_s += 4
    (view,) = world.registry.list_nodes()
    assert (view.last_seen_age_s, view.counts, view.uptime_s) == (4.0, {"answers": 3}, 5.0)
    assert (view.version, view.bundle, view.gauges) == ("0.1", "b1", {"queue": 1.0})
    world.receive_status("cam1", "online")  # the same session, repeated
    assert world.registry.list_nodes()[0].counts == {"answers": 3}
    world.receive_status("cam1", "online", 2)
    assert world.registry.list_nodes()[0].counts == {}


def test_drops_are_reported_once_and_old_drops_are_not(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive_stats("cam1", malformed=5, messages_sent=100)
    assert world.events[1:] == []
    world.receive_stats("cam1", malformed=5, messages_sent=200)
    assert world.events[1:] == []
    world.receive_stats("cam1", malformed=7, queue_full=1, messages_sent=300)
    assert world.events[1:] == [("cam1", "dropped at least 2 malformed, 1 queue_full")]


def test_a_device_that_answers_alone_is_reported(world: World) -> None:
    world.receive("", ANSWER, Kind.ANSWER)
    assert world.events == [("cam1", "fell back: it answers alone, from its own exit")]
    assert world.registry.inferred_s == world.now_s
    key = world.keys[0]
    world.now_s += 1
    world.receive("", ANSWER, Kind.ANSWER)
    assert world.keys[1] == key  # the same minute: the store keeps one
    world.now_s += 60
    world.receive("", ANSWER, Kind.ANSWER)
    assert world.keys[2] != key
    world.receive("", msgspec.structs.replace(ANSWER, exit="local"), Kind.ANSWER)
    world.receive("", msgspec.structs.replace(ANSWER, late=True), Kind.ANSWER)
    assert len(world.keys) == 3


def test_a_node_that_does_not_announce_itself_after_a_reconnect_is_lost(
    world: World,
) -> None:
    for node in ("cam1", "cam2"):
        world.receive_status(node, "online")
    world.now_s += 20
    world.registry.observe(Connected())
    world.now_s += 1
    world.receive_status("cam1", "online")
    assert world.list_states() == {
        "cam1": "online",
        "cam2": "online",
    }  # its announcement may be late
    world.now_s += ANNOUNCED_WITHIN_S
    assert world.list_states() == {"cam1": "online", "cam2": "lost"}
    world.receive_status("cam2", "online")
    assert world.list_states() == {"cam1": "online", "cam2": "online"}


def test_a_silent_node_is_lost_even_without_a_will(world: World) -> None:
    """As after a failed bridge between brokers, where the far broker still holds every birth."""
    for node in ("cam1", "cam2"):
        world.receive_status(node, "online")
        world.receive_stats(node, uptime_s=5.0)
    for i in range(4):
        world.now_s += 20
        world.receive_stats("cam1", uptime_s=10.0 + 5 * i)
    assert world.list_states() == {"cam1": "online", "cam2": "lost"}


def test_a_node_with_rare_statistics_is_not_lost_early(world: World) -> None:
    world.receive_status("cam1", "online")
    for i in range(3):
        world.now_s += 60
        world.receive_stats("cam1", uptime_s=60.0 * (i + 1))
    world.now_s += 100
    assert world.list_states() == {"cam1": "online"}
    world.now_s += 200
    assert world.list_states() == {"cam1": "lost"}


def test_a_camera_that_goes_and_comes_back_is_reported(world: World) -> None:
    world.receive_status("cam1", "online")
    for uptime_s, up in enumerate((1.0, 1.0, 0.0, 0.0, 1.0)):
        stats = Stats("device", uptime_s, 0, {}, {"camera_up": up})
        world.receive("cam1", stats, Kind.STATS)
    words = [what for _, what in world.events[1:]]
    assert words == ["camera is away: it is opened again and again", "camera is back"]
    assert len(set(world.keys)) == 3


def test_a_step_of_a_nodes_clock_is_reported(world: World) -> None:
    world.receive_status("edge", "online")
    for uptime_s, steps in enumerate((0, 1, 1, 2)):
        world.receive_stats("edge", uptime_s, clock_set_back=steps, clock_set_ahead=0)
    assert [what for _, what in world.events[1:]] == 2 * ["its clock was set back"]


def test_the_time_of_the_newest_inference_also_comes_from_statistics(world: World) -> None:
    world.receive_status("cam1", "online")
    world.receive("cam1", Stats("device", 5.0, 0, {}, {"inference_age_s": 3.0}), Kind.STATS)
    assert world.registry.inferred_s == world.now_s - 3.0


def test_a_lost_cloud_is_listed_only_without_a_successor(world: World) -> None:
    def receive_cloud(node: str, state: Any) -> None:
        world.receive(node, Status("cloud", 1, state, "b1", "0.1"))

    receive_cloud("cloud-1", "online")
    receive_cloud("cloud-1", "lost")
    assert world.list_states() == {"cloud-1": "lost"}
    receive_cloud("cloud-2", "online")
    assert world.list_states() == {"cloud-2": "online"}
    world.receive_status("cam1", "lost")
    assert world.list_states() == {"cloud-2": "online", "cam1": "lost"}


# --------------------------------------------------------------- work for workers


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
