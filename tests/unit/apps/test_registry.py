"""What the registry tells of nodes, and which events it reports."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud_app import registry as module
from cloud_app.registry import ANNOUNCED_WITHIN_S, Registry
from ddnn.protocol.machine import Connected, Received
from ddnn.protocol.messages import Answer, Message, Stats, Status
from ddnn.protocol.topics import Kind, Topic

ANSWER = Answer(
    sample=3, node="cam1", exit="device", label=0, probabilities=[1.0], eta=0.0, members=["cam1"],
    missing=[], quality="degraded", expected_accuracy=None, bundle="b1", captured_at_s=1.0,
    answered_at_s=2.0, latency_s=1.0,
)  # fmt: skip


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, str]] = []
        self.keys: list[str] = []
        self.now_s = 1000.0
        self.registry = Registry(self._event)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(module.time, "time", lambda: 1e9 + self.now_s)

    def _event(self, at_s: float, site: str, node: str, what: str, key: str) -> None:
        self.events.append((node, what))
        self.keys.append(key)

    def hear(self, node: str, message: Message, kind: Kind = Kind.STATUS) -> None:
        self.registry.observe(Received(Topic("home", kind, node), message))

    def status(self, node: str, state: Any, session: int = 1) -> None:
        self.hear(node, Status("device", session, state, "b1", "0.1"))

    def stats(self, node: str, uptime_s: float = 5.0, **counts: int) -> None:
        self.hear(node, Stats("device", uptime_s, 1 << 20, counts, {"queue": 1.0}), Kind.STATS)

    def states(self) -> dict[str, str]:
        return {view.id: view.state for view in self.registry.nodes()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_birth_death_and_return(world: World) -> None:
    world.status("cam1", "online")
    world.status("cam1", "online")
    world.status("cam1", "lost")
    world.status("cam1", "online", 2)
    world.status("cam1", "lost", 1)  # the Will of the first connection, late
    world.status("cam1", "stopped", 2)
    assert world.events == [("cam1", what) for what in ("joined", "died", "joined", "stopped")]
    assert len(set(world.keys)) == 4  # each is one event, whoever writes it down
    assert world.states() == {"cam1": "stopped"}


def test_statistics_are_of_the_session_and_age(world: World) -> None:
    world.stats("cam9")  # nobody knows it
    world.status("cam1", "online")
    world.stats("cam1", answers=3)
    world.now_s += 4
    (view,) = world.registry.nodes()
    assert (view.last_seen_age_s, view.counts, view.uptime_s) == (4.0, {"answers": 3}, 5.0)
    assert (view.version, view.bundle, view.gauges) == ("0.1", "b1", {"queue": 1.0})
    world.status("cam1", "online")  # the same session, said again
    assert world.registry.nodes()[0].counts == {"answers": 3}
    world.status("cam1", "online", 2)
    assert world.registry.nodes()[0].counts == {}


def test_what_is_dropped_is_reported_once_and_old_drops_are_no_news(world: World) -> None:
    world.status("cam1", "online")
    world.stats("cam1", malformed=5, messages_sent=100)
    assert world.events[1:] == []
    world.stats("cam1", malformed=5, messages_sent=200)
    assert world.events[1:] == []
    world.stats("cam1", malformed=7, queue_full=1, messages_sent=300)
    assert world.events[1:] == [("cam1", "dropped at least 2 malformed, 1 queue_full")]


def test_a_device_that_answers_alone_is_reported(world: World) -> None:
    world.hear("", ANSWER, Kind.RESULT)
    assert world.events == [("cam1", "fell back: it answers alone, from its own exit")]
    assert world.registry.inferred_s == world.now_s
    key = world.keys[0]
    world.now_s += 1
    world.hear("", ANSWER, Kind.RESULT)
    assert world.keys[1] == key  # the same minute: the store keeps one
    world.now_s += 60
    world.hear("", ANSWER, Kind.RESULT)
    assert world.keys[2] != key
    world.hear("", msgspec.structs.replace(ANSWER, exit="local"), Kind.RESULT)
    world.hear("", msgspec.structs.replace(ANSWER, late=True), Kind.RESULT)
    assert len(world.keys) == 3


def test_who_does_not_announce_itself_at_a_broker_that_came_back_is_not_there(
    world: World,
) -> None:
    for node in ("cam1", "cam2"):
        world.status(node, "online")
    world.now_s += 20
    world.registry.observe(Connected())
    world.now_s += 1
    world.status("cam1", "online")
    assert world.states() == {"cam1": "online", "cam2": "online"}  # it may be on its way
    world.now_s += ANNOUNCED_WITHIN_S
    assert world.states() == {"cam1": "online", "cam2": "lost"}
    world.status("cam2", "online")
    assert world.states() == {"cam1": "online", "cam2": "online"}


def test_who_says_nothing_any_more_is_not_there_although_no_will_told(world: World) -> None:
    """A bridge between brokers that broke: the far broker still holds every birth."""
    for node in ("cam1", "cam2"):
        world.status(node, "online")
        world.stats(node, uptime_s=5.0)
    for i in range(4):
        world.now_s += 20
        world.stats("cam1", uptime_s=10.0 + 5 * i)
    assert world.states() == {"cam1": "online", "cam2": "lost"}


def test_who_tells_its_statistics_seldom_is_given_time(world: World) -> None:
    world.status("cam1", "online")
    for i in range(3):
        world.now_s += 60
        world.stats("cam1", uptime_s=60.0 * (i + 1))
    world.now_s += 100
    assert world.states() == {"cam1": "online"}
    world.now_s += 200
    assert world.states() == {"cam1": "lost"}


def test_a_camera_that_goes_and_comes_back_is_reported(world: World) -> None:
    world.status("cam1", "online")
    for uptime_s, up in enumerate((1.0, 1.0, 0.0, 0.0, 1.0)):
        stats = Stats("device", uptime_s, 0, {}, {"camera_up": up})
        world.hear("cam1", stats, Kind.STATS)
    words = [what for _, what in world.events[1:]]
    assert words == ["camera is away: it is opened again and again", "camera is back"]
    assert len(set(world.keys)) == 3


def test_inferences_are_known_by_what_nodes_tell_even_where_nothing_moves(world: World) -> None:
    world.status("cam1", "online")
    world.hear("cam1", Stats("device", 5.0, 0, {}, {"inference_age_s": 3.0}), Kind.STATS)
    assert world.registry.inferred_s == world.now_s - 3.0


def test_a_cloud_that_was_replaced_is_not_missing_but_the_last_one_is(world: World) -> None:
    def cloud(node: str, state: Any) -> None:
        world.hear(node, Status("cloud", 1, state, "b1", "0.1"))

    cloud("cloud-1", "online")
    cloud("cloud-1", "lost")
    assert world.states() == {"cloud-1": "lost"}
    cloud("cloud-2", "online")
    assert world.states() == {"cloud-2": "online"}
    world.status("cam1", "lost")
    assert world.states() == {"cloud-2": "online", "cam1": "lost"}
